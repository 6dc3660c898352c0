//! The page of memories, and memory in the chat.

use serde_json::{Value, json};

use super::browser::Browser;
use super::{IDLE, script_errors};
use crate::household::{Household, Node};

const TEXTS: &str = "[...document.querySelectorAll('.memory .text')].map((e) => e.textContent)";
const SAID: &str = "(document.getElementById('said')?.textContent ?? '')";

fn open(page: &mut Browser, node: &Node, rest: &str) {
    page.open(&format!("http://{}/memories{rest}", node.address));
}

/// Puts the focus on what a selector finds first, as somebody does who walks there with the tabulator.
fn focus(page: &mut Browser, selector: &str) {
    let selector = json!(selector);
    page.until(&format!(
        "(window.wanted = document.querySelector({selector})) ? (wanted.focus(), document.activeElement === wanted) : false"
    ));
}

fn post(node: &Node, path: &str, body: Value) -> Value {
    let url = format!("http://{}{path}", node.address);
    let mut answer = ureq::post(&url).send(&body.to_string()).unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

/// Many memories, through a file.
fn fill(household: &Household, count: usize) {
    let lines: Vec<String> = (0..count)
        .map(|at| {
            let project = [
                "shop",
                "a-project-with-a-very-long-name-that-goes-on-and-on",
            ][at % 2];
            let text = format!("Fact number {at}: {}", "a word and more ".repeat(at % 9));
            json!({"text": text, "kind": "fact", "project": project, "tags": ["some tag", "other"]})
                .to_string()
        })
        .collect();
    std::fs::write(household.path().join("many.jsonl"), lines.join("\n")).unwrap();
    household.hearth(&["memory", "import", "many.jsonl"]).ok();
}

#[test]
fn a_memory_is_added_found_edited_pinned_and_forgotten_by_keyboard() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    // The way there is in sight.
    page.open(&format!("http://{}/", node.address));
    page.until("document.querySelector('header a[href=\"/memories\"]').offsetHeight >= 44");
    page.value("document.querySelector('header a[href=\"/memories\"]').click()");
    page.until("location.pathname === '/memories' && document.readyState === 'complete'");
    page.until("(document.body?.innerText ?? '').includes('Nothing is remembered yet')");
    page.until("(document.body?.innerText ?? '').includes('hearth mcp')");

    // HTML in a text is text.
    let hostile =
        "Staging listens on 9443 <img src=x onerror=\"window.bad = 1\"><script>bad = 1</script>";
    focus(&mut page, "#text");
    page.type_text(hostile);
    focus(&mut page, "#add .main");
    page.press("Enter");
    page.until(&format!("{SAID}.startsWith('Remembered.')"));
    assert_eq!(page.value(TEXTS), json!([hostile]));
    assert_eq!(page.value("document.getElementById('text').value"), "");
    assert_eq!(page.value("document.activeElement.id"), "text");
    assert_eq!(page.value("window.bad ?? null"), Value::Null);
    assert_eq!(
        page.value("document.querySelectorAll('#shown img, #shown script').length"),
        0
    );
    page.until("document.querySelector('.state-line').textContent.startsWith('1 memory')");
    // With all of its fields.
    page.value("document.querySelector('#add details').open = true");
    for (field, text) in [
        ("project", "shop"),
        ("kind", "Decision"),
        ("tags", "db, #sql, \"a, \"\"b\"\"\""),
        ("confidence", "0.8"),
    ] {
        focus(&mut page, &format!("#add [name={field}]"));
        page.type_text(text);
    }
    focus(&mut page, "#text");
    page.type_text("We chose SQLite");
    focus(&mut page, "#add [name=pinned]");
    page.press("Space");
    focus(&mut page, "#add .main");
    page.press("Enter");
    page.until(&format!("{TEXTS}.length === 2"));
    page.until("document.querySelector('.memory .list').textContent.startsWith('decision · shop · #a, \"b\" · #db · #sql · 80 % sure')");
    assert_eq!(
        page.value("document.querySelector('.memory .pin').textContent"),
        "★"
    );
    // The same again is told from a new one.
    focus(&mut page, "#text");
    page.type_text("we chose sqlite!");
    focus(&mut page, "#add .main");
    page.press("Enter");
    page.until(&format!("{SAID}.startsWith('It was there already')"));

    // Search, by the form; the reasons are folded.
    focus(&mut page, "#query");
    page.type_text("which port has staging");
    page.press("Enter");
    page.until("location.search.includes('q=which') && document.readyState === 'complete'");
    assert_eq!(page.value(TEXTS), json!([hostile]));
    page.until("/score \\d/.test(document.querySelector('.facts').textContent)");
    assert_eq!(page.value("document.querySelector('.why').open"), false);
    focus(&mut page, ".why summary");
    page.press("Enter");
    page.until("document.querySelector('.why dl').innerText.includes('Words (BM25)')");

    // Looked at, and edited: a new text takes the old one's place.
    focus(&mut page, ".memory .button");
    page.press("Enter");
    page.until("location.search.startsWith('?id=') && document.readyState === 'complete'");
    let old = page.value("document.querySelector('.memory').dataset.id");
    focus(&mut page, "#editing summary");
    page.press("Enter");
    page.until("document.getElementById('editing').open");
    assert_eq!(
        page.value("document.getElementById('edit').elements.text.value"),
        hostile
    );
    page.value("document.getElementById('edit').elements.text.select()");
    page.type_text("Staging listens on 9444");
    focus(&mut page, "#edit .main");
    page.press("Enter");
    page.until(&format!("{SAID}.includes('took the place of the old one')"));
    assert_eq!(page.value(TEXTS), json!(["Staging listens on 9444"]));
    page.value("document.querySelector('.about-memory a').click()");
    page.until(&format!("document.querySelector('.memory')?.dataset.id === {old} && (document.body?.innerText ?? '').includes('Superseded on')"));
    page.value("document.querySelector('.note a').click()");
    page.until(&format!(
        "document.querySelector('.memory')?.dataset.id !== {old} && !!document.getElementById('edit') && document.readyState === 'complete'"
    ));

    // Pinned with one click.
    focus(&mut page, ".memory .pin");
    page.press("Enter");
    page.until(&format!("{SAID} === 'Pinned.'"));
    page.until("document.querySelector('.memory .pin').getAttribute('aria-pressed') === 'true'");
    // Forgotten only by who says so twice.
    let forget = |page: &mut Browser, answer: &str| {
        focus(page, ".memory .forget");
        page.press("Enter");
        page.until("document.getElementById('forgetting').open");
        assert_eq!(page.value("document.activeElement.value"), "keep");
        focus(page, &format!("#forgetting [value={answer}]"));
        page.press("Enter");
        page.until("!document.getElementById('forgetting').open");
    };
    forget(&mut page, "keep");
    page.until("!!document.querySelector('.memory')");
    focus(&mut page, ".memory .forget");
    page.press("Enter");
    page.until("document.getElementById('forgetting').open");
    page.press("Escape");
    page.until(
        "!document.getElementById('forgetting').open && !!document.querySelector('.memory')",
    );
    forget(&mut page, "forget");
    page.until(&format!(
        "location.search === '' && {SAID} === 'Forgotten.'"
    ));
    assert_eq!(page.value(TEXTS), json!(["We chose SQLite"]));
    forget(&mut page, "forget");
    page.until(&format!("{TEXTS}.length === 0 && {SAID} === 'Forgotten.'"));
    let stats = page.value("fetch('/memory/stats').then((answer) => answer.json())");
    assert_eq!(stats["memories"], 0, "{stats}");
    assert_eq!(page.errors, Vec::<String>::new());
    let own = format!("http://{}/", node.address);
    assert!(
        page.requests.iter().all(|url| url.starts_with(&own)),
        "{:?}",
        page.requests
    );
}

#[test]
fn what_the_node_refuses_is_said_where_it_happened_and_no_text_is_lost() {
    let household = Household::new();
    let mut node = household.serve(&[]);
    let written = post(&node, "/memory", json!({"text": "The port is 1"}));
    let id = written["memory"]["id"].as_str().unwrap().to_owned();
    let mut page = Browser::start();
    open(&mut page, &node, "");
    page.value("document.querySelector('#add details').open = true");
    focus(&mut page, "#text");
    page.type_text("a text that must not be lost");
    focus(&mut page, "#add [name=kind]");
    page.type_text(&"k".repeat(101));
    focus(&mut page, "#add .main");
    page.press("Enter");
    let wrong = "document.getElementById('add-wrong').textContent";
    page.until(&format!("{wrong}.startsWith('kind: ')"));
    let text = "document.getElementById('text').value";
    assert_eq!(page.value(text), "a text that must not be lost");
    // Not by going somewhere else either.
    open(&mut page, &node, "?q=port");
    assert_eq!(page.value(text), "a text that must not be lost");

    // Somebody else changed it meanwhile.
    open(&mut page, &node, &format!("?id={id}"));
    post(
        &node,
        "/memory",
        json!({"text": "The port is 2", "supersedes": id}),
    );
    page.value("document.getElementById('editing').open = true");
    focus(&mut page, "#edit [name=text]");
    page.value("document.activeElement.select()");
    page.type_text("The port is 3");
    focus(&mut page, "#edit .main");
    page.press("Enter");
    page.until("document.querySelector('#edit .wrong').textContent.includes('superseded by mem-')");
    assert_eq!(
        page.value("document.querySelector('#edit [name=text]').value"),
        "The port is 3"
    );

    // What is not there, and what is no page of the list.
    open(&mut page, &node, "?id=mem-0");
    page.until(
        "document.querySelector('#shown .wrong').textContent.includes('there is no memory mem-0')",
    );
    open(&mut page, &node, "?after=mem-0");
    page.until("document.querySelector('#shown .wrong').textContent.startsWith('after: ')");

    open(&mut page, &node, "");
    page.until(&format!("{text} === 'a text that must not be lost'"));
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    focus(&mut page, "#add .main");
    page.press("Enter");
    page.until(&format!("{wrong}.startsWith('The node does not answer')"));
    focus(&mut page, ".memory .pin");
    page.press("Enter");
    page.until("document.querySelector('.memory .wrong').textContent.startsWith('The node does not answer')");
    assert_eq!(page.value(text), "a text that must not be lost");
    assert_eq!(script_errors(&page), Vec::<&String>::new());
}

#[test]
fn many_memories_come_in_pages_that_fit_every_screen() {
    let household = Household::new();
    fill(&household, 500);
    let node = household.serve(&[]);
    post(
        &node,
        "/memory",
        json!({"text": "unbreakable".repeat(60), "tags": ["tag".repeat(30)], "project": "p".repeat(100)}),
    );
    let mut page = Browser::start();
    let mut backgrounds = Vec::new();
    for (width, height, scheme) in [
        (320, 640, "light"),
        (390, 844, "dark"),
        (1280, 800, "light"),
        (1280, 800, "dark"),
    ] {
        page.screen(width, height, scheme);
        for rest in ["", "?q=unbreakable%20fact%20number%207", "?id="] {
            let id = page.value("document.querySelector('.memory')?.dataset.id ?? ''");
            let rest = match rest {
                "?id=" => format!("?id={}", id.as_str().unwrap()),
                rest => rest.to_owned(),
            };
            open(&mut page, &node, &rest);
            page.until("document.querySelectorAll('.memory').length > 0");
            page.value("document.querySelectorAll('details').forEach((details) => { details.open = true; })");
            assert_eq!(
                page.value("document.documentElement.scrollWidth <= window.innerWidth"),
                json!(true),
                "{rest} is wider than {width} pixels"
            );
            let low = page.value(
                "[...document.querySelectorAll('button, select, summary, textarea, .button, .fields input, #query')]
                   .filter((e) => e.offsetParent && e.offsetHeight < 44).map((e) => e.outerHTML)",
            );
            assert_eq!(low, json!([]), "targets lower than a finger");
        }
        backgrounds.push(
            page.value("getComputedStyle(document.querySelector('.memory')).backgroundColor"),
        );
    }
    assert_eq!(backgrounds[0], backgrounds[2]);
    assert_ne!(backgrounds[2], backgrounds[3], "light and dark differ");

    // From page to page there is each of them once.
    open(&mut page, &node, "");
    let mut seen = Vec::new();
    loop {
        page.until("document.readyState === 'complete'");
        let ids = page.value("[...document.querySelectorAll('.memory')].map((e) => e.dataset.id)");
        seen.extend(ids.as_array().unwrap().iter().map(Value::to_string));
        let next =
            page.value("document.querySelector('.pages [rel=next]')?.getAttribute('href') ?? ''");
        let Some(next) = next.as_str().filter(|next| !next.is_empty()) else {
            break;
        };
        page.open(&format!("http://{}{next}", node.address));
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((count, seen.len()), (501, 501));
    page.until("document.querySelector('.pages').innerText.includes('Newest')");
    page.until("document.querySelector('.state-line').textContent.startsWith('501 memories')");
    // Narrowed by a project.
    open(&mut page, &node, "?project=shop");
    page.until("[...document.querySelectorAll('.memory .list')].every((e) => e.textContent.includes('shop'))");
    assert_eq!(
        page.value("document.getElementById('project').value"),
        "shop"
    );

    // Every control has a name, and the tabulator reaches it.
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let controls = [
        "button",
        "textbox",
        "searchbox",
        "combobox",
        "link",
        "spinbutton",
        "checkbox",
    ];
    let nodes = tree["nodes"].as_array().unwrap().iter();
    let unnamed: Vec<_> = nodes
        .filter(|node| node["ignored"] == json!(false))
        .filter(|node| controls.contains(&node["role"]["value"].as_str().unwrap_or_default()))
        .filter(|node| {
            node["name"]["value"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
        })
        .collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
    page.value(
        "document.querySelectorAll('details').forEach((details) => { details.open = true; });
         window.left = new Set([...document.querySelectorAll('a, button, select, textarea, input, summary')]
           .filter((e) => e.offsetParent)); document.activeElement.blur(); true",
    );
    let count = page.value("left.size").as_u64().unwrap();
    for _ in 0..count + 5 {
        page.press("Tab");
        page.value("left.delete(document.activeElement)");
    }
    assert_eq!(
        page.value("[...left].map((e) => e.outerHTML)"),
        json!([]),
        "out of the keyboard's reach"
    );
    assert_eq!(page.errors, Vec::<String>::new());
}

#[test]
fn without_script_memories_are_listed_and_searched() {
    let household = Household::new();
    fill(&household, 30);
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.call(
        "Emulation.setScriptExecutionDisabled",
        json!({"value": true}),
    );
    open(&mut page, &node, "");
    page.until("document.querySelectorAll('.memory').length === 20");
    page.value("document.querySelector('.pages [rel=next]').click()");
    page.until("document.querySelectorAll('.memory').length === 10 && location.search.startsWith('?after=')");
    page.value("document.getElementById('query').value = 'fact number 7'; document.querySelector('#search button').click()");
    page.until("location.search.startsWith('?q=') && document.querySelector('.memory .text')?.textContent.startsWith('Fact number 7:')");
    page.value("document.querySelector('.memory .button').click()");
    page.until("location.search.startsWith('?id=') && !!document.querySelector('.about-memory')");
    let dead = page.value(
        "[...document.querySelectorAll('button, select, textarea, input')].filter((e) => e.offsetParent)
           .filter((e) => !e.closest('#search')).map((e) => e.outerHTML)",
    );
    assert_eq!(dead, json!([]), "controls that do nothing");
    page.until("(document.body?.innerText ?? '').includes('need JavaScript')");
}

#[test]
fn the_chat_uses_memory_and_names_what_it_used() {
    let household = Household::new();
    let node = household.serve(&[]);
    let text = "Hearth is <b>one</b> program";
    let written = post(&node, "/memory", json!({"text": text, "project": "shop"}));
    let id = written["memory"]["id"].as_str().unwrap().to_owned();
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    focus(&mut page, "#use-memory");
    page.press("Space");
    focus(&mut page, "#prompt");
    page.type_text("what is hearth");
    page.press("Enter");
    let cited = "[...document.querySelectorAll('.turn.assistant .cited a')].map((a) => [a.textContent, a.getAttribute('href')])";
    page.until(&format!("{cited}.length === 1 && {IDLE}"));
    let expected = json!([[text, format!("/memories?id={id}")]]);
    assert_eq!(page.value(cited), expected);
    page.until(
        "document.querySelector('.cited').textContent.includes('Searched by words alone: ')",
    );
    // Both are still there after a reload; of the memory only its id is kept, so that it can be forgotten.
    page.open(&format!("http://{}/", node.address));
    page.until("document.getElementById('use-memory').checked");
    assert_eq!(
        page.value(cited),
        json!([[id, format!("/memories?id={id}")]])
    );
    let kept = "localStorage.getItem('hearth.talk').includes('<b>one</b>')";
    assert_eq!(page.value(kept), false);
    // Another project's are not used, and that is said.
    page.value("document.getElementById('memory-project').value = 'other'; document.getElementById('new').click()");
    focus(&mut page, "#prompt");
    page.type_text("what is hearth");
    page.press("Enter");
    page.until(&format!("document.querySelector('.cited')?.textContent.startsWith('No memory fits this question.') && {IDLE}"));
    // Without it nothing is said of memory.
    focus(&mut page, "#use-memory");
    page.press("Space");
    page.value("document.getElementById('new').click()");
    focus(&mut page, "#prompt");
    page.type_text("what is hearth");
    page.press("Enter");
    page.until(&format!(
        "document.querySelectorAll('.turn.assistant .about').length === 1 && {IDLE}"
    ));
    assert_eq!(page.value("document.querySelectorAll('.cited').length"), 0);
    assert_eq!(page.errors, Vec::<String>::new());
}
