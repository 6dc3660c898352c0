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
        models: vec![ModelStatus {
            name: name.into(),
            state: ModelState::Loading,
            progress: Some(0.4),
            eta_seconds: Some(2.0),
            size_bytes: 1,
            architecture: None,
            parameters: None,
            context: None,
            load: Some(ModelLoad {
                slots: 4,
                slots_busy: 1,
                kv_cells: 100,
                kv_used: 10,
                ..ModelLoad::default()
            }),
        }],
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
