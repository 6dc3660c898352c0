//! The page in real Chromium, used with the keyboard.

mod browser;

use browser::Browser;
use serde_json::json;

use crate::household::Household;

const ANSWERS: &str = "document.querySelectorAll('.turn.assistant').length";
const LAST: &str = "[...document.querySelectorAll('.turn.assistant .bubble')].at(-1).textContent";

#[test]
fn a_conversation_by_keyboard() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    page.until("document.activeElement.id === 'prompt'");

    page.type_text("what is hearth");
    page.press("Enter");
    page.until(&format!("{ANSWERS} === 1 && {LAST}.length > 0"));
    page.until("document.getElementById('log').getAttribute('aria-busy') === 'false'");
    page.until("/\\d+ tokens/.test(document.querySelector('.about').textContent)");
    assert_eq!(
        page.value("document.querySelector('.turn.user .bubble').textContent"),
        "what is hearth"
    );

    // Regenerate replaces the answer.
    page.value("[...document.querySelectorAll('.about button')].find((b) => b.textContent === 'Regenerate').click()");
    page.until("document.getElementById('log').getAttribute('aria-busy') === 'false'");
    assert_eq!(page.value(ANSWERS), json!(1));

    // The conversation survives a reload, and the arrow key brings the last message back for editing.
    page.open(&format!("http://{}/", node.address));
    page.until(&format!("{ANSWERS} === 1"));
    page.press("ArrowUp");
    page.until("document.getElementById('prompt').value === 'what is hearth'");
    assert_eq!(page.value(ANSWERS), json!(0));

    assert_eq!(page.errors, Vec::<String>::new());
    let own = format!("http://{}/", node.address);
    let foreign: Vec<&String> = page
        .requests
        .iter()
        .filter(|url| !url.starts_with(&own))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(
        page.requests
            .iter()
            .any(|url| url.ends_with("/v1/chat/completions")),
        "{:?}",
        page.requests
    );
}

#[test]
fn escape_stops_an_answer_and_frees_the_slot() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    // A schema whose text is long keeps the answer going until somebody stops it.
    let schema = json!({"type": "string", "minLength": 3000, "maxLength": 3500}).to_string();
    page.value(&format!(
        "document.getElementById('schema').value = {}",
        json!(schema)
    ));
    page.type_text("tell me everything");
    page.press("Enter");
    page.until(&format!("{ANSWERS} === 1 && {LAST}.length > 5"));
    page.until("!document.getElementById('stop').hidden");
    page.press("Escape");
    page.until("document.getElementById('stop').hidden && !document.getElementById('send').hidden");
    page.until("fetch('/status').then((r) => r.json()).then((s) => s.models[0].load.slots_busy === 0 && s.models[0].load.cancelled === 1)");
}

#[test]
fn errors_are_shown_in_the_nodes_words() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    page.value("document.getElementById('schema').value = '{\"not\": {}}'");
    page.type_text("hello");
    page.press("Enter");
    page.until(
        "document.querySelector('.turn.error .bubble')?.textContent.includes('cannot be enforced')",
    );
    // What is no JSON is said beside the field, before anything is sent.
    page.value("document.getElementById('schema').value = '{'");
    page.value("document.getElementById('prompt').focus()");
    page.type_text("hello");
    page.press("Enter");
    page.until("document.getElementById('schema-error').textContent.includes('not JSON')");
}

#[test]
fn it_fits_every_screen_and_names_its_parts() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    let mut backgrounds = Vec::new();
    for (width, height, scheme) in [
        (320, 640, "light"),
        (390, 844, "dark"),
        (1280, 800, "light"),
        (1280, 800, "dark"),
    ] {
        page.screen(width, height, scheme);
        page.open(&format!("http://{}/", node.address));
        assert_eq!(
            page.value("document.documentElement.scrollWidth <= window.innerWidth"),
            json!(true),
            "the page is wider than {width} pixels"
        );
        let low = page.value(
            "[...document.querySelectorAll('button, select, summary, textarea')].filter((e) => e.offsetParent && e.offsetHeight < 44).map((e) => e.outerHTML)",
        );
        assert_eq!(low, json!([]), "targets lower than a finger");
        backgrounds.push(page.value("getComputedStyle(document.documentElement).backgroundColor"));
    }
    assert_eq!(backgrounds[0], backgrounds[2]);
    assert_ne!(backgrounds[2], backgrounds[3], "light and dark differ");
    // Every control has a name that a screen reader can say.
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let unnamed: Vec<_> = tree["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["ignored"] == json!(false))
        .filter(|node| {
            ["button", "textbox", "combobox", "link", "spinbutton"]
                .contains(&node["role"]["value"].as_str().unwrap_or_default())
        })
        .filter(|node| {
            node["name"]["value"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
        })
        .collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
    for landmark in ["banner", "main", "log"] {
        let nodes = tree["nodes"].as_array().unwrap();
        assert!(
            nodes.iter().any(|node| node["role"]["value"] == landmark),
            "{landmark}"
        );
    }
}
