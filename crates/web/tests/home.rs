//! The page as HTML: safe, complete, and without a request to anybody else.

use hearth_protocol::status::{ModelLoad, ModelState, ModelStatus, NodeStatus};

fn status(name: &str) -> NodeStatus {
    NodeStatus {
        version: "1.2.3".into(),
        pid: 1,
        uptime_seconds: 4000,
        address: "127.0.0.1:8321".into(),
        default_model: name.into(),
        cpu: "zen4".into(),
        memory_bytes: Some(100 << 20),
        models_folder: None,
        models: vec![ModelStatus {
            name: name.into(),
            state: ModelState::Loading,
            progress: Some(0.4),
            eta_seconds: Some(2.0),
            error: None,
            size_bytes: 1,
            architecture: None,
            parameters: None,
            context: None,
            dimensions: None,
            load: Some(ModelLoad {
                slots: 4,
                slots_busy: 1,
                kv_cells: 100,
                kv_used: 10,
                ..ModelLoad::default()
            }),
        }],
        elsewhere: Vec::new(),
    }
}

#[test]
fn a_hostile_model_name_is_text() {
    let page = hearth_web::home(&status("</option><script>alert(1)</script>\" onload=\"x"));
    assert!(!page.contains("<script>alert") && !page.contains("\" onload=\""));
    assert!(page.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn the_status_is_there_without_a_script() {
    let page = hearth_web::home(&status("ember"));
    for text in [
        "loading 40 %",
        "1 of 4 slots busy",
        "10 / 100",
        "100 MiB",
        "zen4",
        "1 h 6 min",
        "<noscript>",
        "version 1.2.3",
    ] {
        assert!(page.contains(text), "{text} is not in the page");
    }
    assert_eq!(page.matches("class=\"busy\"").count(), 1);
}

/// The text of the element with this id; one without children.
fn text<'a>(page: &'a str, id: &str) -> &'a str {
    let element = page
        .split(&format!("id=\"{id}\""))
        .nth(1)
        .unwrap_or_default();
    let inside = element.split_once('>').map_or("", |(_, inside)| inside);
    inside.split('<').next().unwrap_or_default()
}

#[test]
fn numbers_have_sensible_units() {
    for line in include_str!("units.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (unit, rest) = line.split_once(' ').expect("a unit");
        let (number, words) = rest.split_once(" = ").expect("words");
        let number: f64 = number.parse().expect("a number");
        let mut status = status("ember");
        let model = &mut status.models[0];
        let (id, words) = match unit {
            "duration" => {
                status.uptime_seconds = number as u64;
                ("uptime", words.to_owned())
            }
            "size" => {
                status.memory_bytes = Some(number as u64);
                ("memory", words.to_owned())
            }
            "speed" => {
                model
                    .load
                    .as_mut()
                    .expect("loaded")
                    .decode_tokens_per_second = number as f32;
                ("speed", words.to_owned())
            }
            "percent" => {
                model.progress = Some(number as f32);
                ("model-state", format!("loading {words}"))
            }
            other => panic!("{other}"),
        };
        assert_eq!(text(&hearth_web::home(&status), id), words, "{line}");
    }
}

#[test]
fn what_is_not_known_is_a_dash() {
    let mut status = status("ember");
    status.memory_bytes = None;
    status.models[0].load = None;
    status.models[0].state = ModelState::Idle;
    let page = hearth_web::home(&status);
    for id in ["memory", "queued", "kv-text", "speed"] {
        assert_eq!(text(&page, id), "–", "{id}");
    }
    assert_eq!(text(&page, "model-state"), "idle");
}

#[test]
fn a_node_without_models_says_what_to_do() {
    let mut status = status("ember");
    status.models.clear();
    let page = hearth_web::home(&status);
    assert_eq!(
        text(&page, "model-name"),
        "none; put a GGUF file into the models folder"
    );
    assert!(page.contains("<option value=\"\">no model</option>"));
    // The script fills these when a model comes.
    for id in ["model-state", "slots", "queued", "kv", "kv-text", "speed"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

#[test]
fn without_a_script_there_is_a_line_for_the_terminal() {
    let hint = |page: &str| {
        let inside = page.split("<noscript>").nth(1).unwrap_or_default();
        inside
            .split("</noscript>")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let page = hearth_web::home(&status("ember"));
    for words in [
        "curl http://127.0.0.1:8321/v1/chat/completions",
        "hearth chat",
        "status",
    ] {
        assert!(hint(&page).contains(words), "{words}: {}", hint(&page));
    }
}

#[test]
fn every_asset_exists_and_nothing_comes_from_elsewhere() {
    let page = hearth_web::home(&status("ember"));
    let mut found = 0;
    for part in page.split("/assets/").skip(1) {
        let name = part.split(['?', '"']).next().unwrap_or_default();
        assert!(hearth_web::asset(name).is_some(), "{name}");
        found += 1;
    }
    assert!(found >= 4, "{found} assets");
    assert!(hearth_web::asset("../Cargo.toml").is_none());
    let assets = ["hearth.css", "hearth.js"].map(|name| {
        String::from_utf8_lossy(hearth_web::asset(name).map_or(&[], |asset| asset.bytes))
            .into_owned()
    });
    for text in assets.iter().chain([&page]) {
        for (at, _) in text.match_indices("://") {
            let place = &text[at + 3..(at + 17).min(text.len())];
            assert!(place.starts_with("127.0.0.1:8321"), "{place}");
        }
    }
    assert!(
        !page.contains("style=") && !page.contains("onclick"),
        "the content policy forbids inline code"
    );
}
