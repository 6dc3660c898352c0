//! The page in real Chromium, used with the keyboard.

mod browser;
mod household;
mod memories;

use std::io::{Read, Write};
use std::net::TcpListener;

use browser::Browser;
use serde_json::json;

use crate::household::Household;

const ANSWERS: &str = "document.querySelectorAll('.turn.assistant').length";
const LAST: &str = "[...document.querySelectorAll('.turn.assistant .bubble')].at(-1).textContent";
const IDLE: &str =
    "document.getElementById('stop').hidden && !document.getElementById('send').hidden";
const ERROR: &str = "(document.querySelector('.turn.error .bubble')?.textContent ?? '')";
/// A schema whose text is long keeps an answer going until somebody stops it.
const LONG: &str = r#"{"type": "string", "minLength": 3000, "maxLength": 3500}"#;

/// What went wrong in the page's own script. Chromium also logs every answer that is an error; those are wanted here.
fn script_errors(page: &Browser) -> Vec<&String> {
    page.errors
        .iter()
        .filter(|error| !error.contains(r#""source":"network""#))
        .collect()
}

/// Lets an expression over `path` and `options` answer the page's chat requests, and counts them in `window.asked`.
/// `real` asks the node.
fn stand_in(page: &mut Browser, answer: &str) {
    page.value(&format!(
        "window.real ??= window.fetch; window.asked = 0;
         window.fetch = async (path, options) => {{
           if (path !== '/v1/chat/completions') return real(path, options);
           window.asked++;
           return {answer};
         }}; true"
    ));
}

/// Presses the button of these words in the conversation, with the keyboard.
fn press_button(page: &mut Browser, words: &str) {
    page.until(&format!(
        "(window.wanted = [...document.querySelectorAll('#log button')].find((b) => b.textContent === '{words}'))
           ? (window.wanted.focus(), document.activeElement === window.wanted) : false"
    ));
    page.press("Enter");
}

fn ask_for_a_long_answer(page: &mut Browser) {
    let schema = json!(LONG);
    page.value(&format!(
        "document.getElementById('schema').value = {schema}"
    ));
    page.type_text("tell me everything");
    page.press("Enter");
    page.until(&format!("{ANSWERS} === 1 && {LAST}.length > 5"));
}

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
    let about = "document.querySelector('.about').textContent";
    page.until(&format!("/^ember · \\d+ tokens/.test({about})"));
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
    // Which model gave the answer is still said.
    page.until(&format!("{about}.startsWith('ember')"));
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
    ask_for_a_long_answer(&mut page);
    page.until("!document.getElementById('stop').hidden");
    page.press("Escape");
    page.until(IDLE);
    page.until("document.querySelector('.assistant .about').textContent.includes('stopped')");
    page.until(
        "fetch('/status').then((r) => r.json()).then((s) => s.models[0].load)
           .then((load) => load.slots_busy === 0 && load.cancelled === 1)",
    );
    assert_eq!(page.errors, Vec::<String>::new());
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
    assert_eq!(
        page.value("document.getElementById('prompt').value"),
        "hello",
        "what was not sent is still there"
    );
    assert_eq!(script_errors(&page), Vec::<&String>::new());
}

#[test]
fn a_busy_node_is_asked_again_as_it_says() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    let busy = |seconds: u32| {
        format!(
            "Response.json({{error: {{message: 'the model was unloaded'}}}},
               {{status: 503, headers: {{'Retry-After': '{seconds}'}}}})"
        )
    };

    // While it waits it says so, and Escape ends that.
    stand_in(&mut page, &busy(50));
    page.type_text("hello");
    page.press("Enter");
    let waiting = "(document.querySelector('.assistant .about')?.textContent ?? '')";
    page.until(&format!(
        "{waiting}.startsWith('the model was unloaded · trying again in ')"
    ));
    page.until(&format!("{waiting}.includes('(1 of 5) · Esc stops')"));
    page.press("Escape");
    page.until(IDLE);
    page.until("document.querySelector('.user .about').textContent.startsWith('stopped')");
    assert_eq!(
        page.value("[asked, document.querySelectorAll('.turn').length]"),
        json!([1, 1])
    );

    // The third try succeeds.
    stand_in(
        &mut page,
        &format!("asked < 3 ? {} : real(path, options)", busy(1)),
    );
    press_button(&mut page, "Try again");
    page.until(&format!("{ANSWERS} === 1 && {LAST}.length > 0 && {IDLE}"));
    assert_eq!(page.value("asked"), json!(3));

    // It gives up after a few tries, and at once where the node names no time.
    stand_in(&mut page, &busy(1));
    press_button(&mut page, "Regenerate");
    page.until(&format!("{ERROR} === 'the model was unloaded'"));
    assert_eq!(page.value("asked"), json!(6));
    stand_in(
        &mut page,
        "Response.json({error: {message: 'no'}}, {status: 503})",
    );
    press_button(&mut page, "Try again");
    page.until(&format!("{ERROR} === 'no'"));
    assert_eq!(page.value("asked"), json!(1));
    assert_eq!(script_errors(&page), Vec::<&String>::new());
}

#[test]
fn a_lost_connection_is_no_end_of_an_answer() {
    let household = Household::new();
    let mut node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));

    // The stream ends in good order, but without its end mark.
    let half = r#"data: {"choices": [{"delta": {"content": "half an"}}]}"#;
    stand_in(
        &mut page,
        &format!("new Response({} + '\\n\\n')", json!(half)),
    );
    page.type_text("hello");
    page.press("Enter");
    page.until(&format!(
        "{ERROR}.includes('connection to the node was lost')"
    ));
    let about = "(document.querySelector('.assistant .about')?.textContent ?? '')";
    assert_eq!(page.value(LAST), "half an");
    assert_eq!(page.value(about), "cut off before its end");
    page.until("document.getElementById('said').textContent.includes('was lost')");
    // It is still no whole answer after a reload; the next try replaces it.
    page.open(&format!("http://{}/", node.address));
    page.until(&format!("{about}.includes('cut off')"));
    press_button(&mut page, "Regenerate");
    page.until(&format!("{IDLE} && /\\d+ tokens/.test({about})"));
    assert_eq!(page.value(ANSWERS), json!(1));

    // The node dies in the middle of an answer, and then is not there.
    page.value("document.getElementById('new').click()");
    ask_for_a_long_answer(&mut page);
    node.child.kill().unwrap();
    page.until(&format!(
        "{ERROR}.includes('connection to the node was lost')"
    ));
    page.until(&format!("{about}.includes('cut off')"));
    page.until("document.getElementById('model-state').textContent === 'the node does not answer'");
    press_button(&mut page, "Try again");
    page.until(&format!("{ERROR}.startsWith('The node does not answer')"));
    assert_eq!(page.value(ANSWERS), json!(0));
    assert_eq!(script_errors(&page), Vec::<&String>::new());
}

#[test]
fn copying_works_without_the_clipboard_interface() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    page.value(
        "document.addEventListener('copy', () => { window.copied = document.activeElement.value; });
         document.querySelectorAll('details').forEach((details) => { details.open = true; })",
    );
    for missing in [true, false] {
        // As on plain http under an address of the local network.
        let interface = if missing {
            "undefined"
        } else {
            "{writeText: async (text) => { copied = text; }}"
        };
        page.value(&format!(
            "window.copied = null; document.querySelectorAll('.copy').forEach((b) => {{ b.textContent = 'Copy'; }});
             Object.defineProperty(navigator, 'clipboard', {{value: {interface}, configurable: true}});
             document.querySelector('.copy').focus()"
        ));
        page.press("Enter");
        page.until("document.querySelector('.copy').textContent === 'Copied'");
        let expected = "copied === document.querySelector('figure code').textContent && copied.startsWith('curl http')";
        assert_eq!(
            page.value(expected),
            json!(true),
            "{}",
            page.value("copied")
        );
        assert_eq!(page.value("document.activeElement.className"), "copy");
    }
    assert_eq!(page.errors, Vec::<String>::new());
}

#[test]
fn the_list_of_models_follows_the_folder_and_keeps_the_choice() {
    let household = Household::new();
    let node = household.serve(&[]);
    let models = household.home().join("models");
    let ember = std::fs::read_dir(models.join("embedded"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let put = |name: &str| {
        let partial = models.join(format!("{name}.partial"));
        std::fs::copy(&ember, &partial).unwrap();
        std::fs::rename(partial, models.join(format!("{name}.gguf"))).unwrap();
    };
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    let offered = "[...document.getElementById('model').options].map((o) => o.text).join()";
    let chosen = "document.getElementById('model').value";
    assert_eq!(page.value(offered), "ember");
    put("twin");
    page.until(&format!(
        "{offered} === 'ember,twin' && {chosen} === 'ember'"
    ));
    page.value(
        "document.getElementById('model').value = 'twin';
         document.getElementById('model').dispatchEvent(new Event('change'))",
    );
    page.until("document.getElementById('model-name').textContent === 'twin'");
    put("a-third");
    page.until(&format!(
        "{offered} === 'ember,a-third,twin' && {chosen} === 'twin'"
    ));
    page.value("document.getElementById('prompt').focus()");
    page.type_text("hello");
    page.press("Enter");
    page.until(&format!("{ANSWERS} === 1 && {LAST}.length > 0 && {IDLE}"));
    page.until("document.getElementById('model-state').textContent === 'ready'");
    page.open(&format!("http://{}/", node.address));
    page.until(&format!("{chosen} === 'twin'"));
    std::fs::remove_file(models.join("twin.gguf")).unwrap();
    page.until(&format!(
        "{offered} === 'ember,a-third,twin (not there)' && {chosen} === 'twin'"
    ));
    assert_eq!(page.errors, Vec::<String>::new());
}

#[test]
fn the_script_says_numbers_as_the_server_does() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    page.value(
        "window.real = window.fetch; window.changed = {};
         window.fetch = async (path, options) => {
           const response = await real(path, options);
           if (path !== '/status') return response;
           const status = await response.json();
           Object.assign(status, changed.node);
           Object.assign(status.models[0], changed.model);
           status.models[0].load = { slots: 1, slots_busy: 0, queued: 0, kv_used: 0, kv_cells: 8, ...changed.load };
           return Response.json(status);
         }; true",
    );
    let lines = include_str!("../../../web/tests/units.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let (number, words) = line.split_once(" = ").unwrap();
        let (unit, number) = number.split_once(' ').unwrap();
        let (place, changed, words) = match unit {
            "duration" => (
                "uptime",
                format!("{{node: {{uptime_seconds: {number}}}}}"),
                words.to_owned(),
            ),
            "size" => (
                "memory",
                format!("{{node: {{memory_bytes: {number}}}}}"),
                words.to_owned(),
            ),
            "speed" => (
                "speed",
                format!("{{load: {{decode_tokens_per_second: {number}}}}}"),
                words.to_owned(),
            ),
            "percent" => (
                "model-state",
                format!("{{model: {{state: 'loading', progress: {number}}}}}"),
                format!("loading {words}"),
            ),
            other => panic!("{other}"),
        };
        page.value(&format!("window.changed = {changed}; true"));
        // Somebody looks at the page again: it asks for the status at once.
        page.until(&format!(
            "(document.dispatchEvent(new Event('visibilitychange')),
              document.getElementById('{place}').textContent === '{words}')"
        ));
    }
    assert_eq!(page.errors, Vec::<String>::new());
}

#[test]
fn the_keyboard_reaches_everything_and_answers_are_said_once() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.open(&format!("http://{}/", node.address));
    page.until("document.activeElement.id === 'prompt'");
    page.value(
        "window.heard = []; new MutationObserver(() => heard.push(document.getElementById('said').textContent))
           .observe(document.getElementById('said'), {childList: true, characterData: true, subtree: true}); true",
    );
    page.type_text("what is");
    for kind in ["keyDown", "keyUp"] {
        let shift_enter = json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13,
            "text": "\r", "modifiers": 8});
        page.call("Input.dispatchKeyEvent", shift_enter);
    }
    page.type_text("hearth");
    assert_eq!(
        page.value("document.getElementById('prompt').value"),
        "what is\nhearth"
    );
    assert_eq!(page.value(ANSWERS), json!(0), "Shift+Enter sent it");
    page.press("Enter");
    page.until(&format!("{ANSWERS} === 1 && {LAST}.length > 0 && {IDLE}"));
    let heard = page.value("heard.filter((text) => text)");
    let answer = page.value("document.querySelector('.assistant .bubble').innerText");
    assert_eq!(heard.as_array().map(Vec::len), Some(1), "{heard}");
    assert!(
        heard[0]
            .as_str()
            .unwrap()
            .starts_with(answer.as_str().unwrap()),
        "{heard}"
    );
    assert_eq!(page.value("document.getElementById('log').ariaLive"), "off");

    // Once around with the tabulator: every control that is shown gets the focus, and shows it.
    page.value(
        "document.querySelectorAll('details').forEach((details) => { details.open = true; });
         document.activeElement.blur(); window.getSelection().removeAllRanges();
         window.left = new Set([...document.querySelectorAll(
           'a, button, select, textarea, input, summary, #log')].filter((e) => e.offsetParent)); true",
    );
    for _ in 0..60 {
        page.press("Tab");
        let outline = page.value(
            "left.delete(document.activeElement);
             document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle",
        );
        assert_ne!(
            outline,
            "none",
            "{}",
            page.value("document.activeElement.outerHTML")
        );
    }
    let left = page.value("[...left].map((e) => e.outerHTML)");
    assert_eq!(left, json!([]), "out of the keyboard's reach");
    assert_eq!(page.errors, Vec::<String>::new());
}

#[test]
fn without_script_it_shows_the_status_and_another_way() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    page.call(
        "Emulation.setScriptExecutionDisabled",
        json!({"value": true}),
    );
    page.open(&format!("http://{}/", node.address));
    let text = page.value("document.body.innerText");
    let text = text.as_str().unwrap();
    let curl = format!("curl http://{}/v1/chat/completions", node.address);
    for words in [
        "ember",
        "MiB",
        "The chat needs JavaScript",
        "hearth chat",
        &curl,
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let dead = page.value(
        "[...document.querySelectorAll('button, select, textarea, input')].filter((e) => e.offsetParent)
           .map((e) => e.outerHTML)",
    );
    assert_eq!(dead, json!([]), "controls that do nothing");
}

#[test]
fn it_fits_every_screen_and_names_its_parts() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    let mut backgrounds = Vec::new();
    for (width, height, scheme) in [
        (320, 640, "light"),
        (360, 740, "dark"),
        (390, 844, "dark"),
        (1280, 800, "light"),
        (1280, 800, "dark"),
    ] {
        page.screen(width, height, scheme);
        page.open(&format!("http://{}/", node.address));
        let code =
            "```\ncurl http://127.0.0.1:8321/v1/chat/completions -d '{\"messages\": []}'\n```\n"
                .repeat(20);
        let talk = json!([{"role": "user", "content": "long".repeat(60)}, {"role": "assistant", "content": code}]);
        page.value(&format!(
            "localStorage.setItem('hearth.talk', {})",
            json!(talk.to_string())
        ));
        page.open(&format!("http://{}/", node.address));
        page.until(&format!("{ANSWERS} === 1"));
        assert_eq!(
            page.value("document.documentElement.scrollHeight <= window.innerHeight"),
            json!(true),
            "a long conversation pushes the prompt off a screen of {width} pixels: {}",
            page.value("[...document.body.children].map((e) => `${e.tagName} ${e.offsetHeight}`).join(', ')")
        );
        page.value(
            "document.querySelectorAll('details').forEach((details) => { details.open = true; })",
        );
        // The longest words the strip may have to show.
        page.value(
            "document.getElementById('model-name').textContent = 'some-organisation_a-model-with-a-name-27B-Q4';
             document.getElementById('kv-text').textContent = '131072 / 131072'",
        );
        assert_eq!(
            page.value("document.documentElement.scrollWidth <= window.innerWidth"),
            json!(true),
            "the page is wider than {width} pixels"
        );
        let hidden = page.value(
            "[...document.querySelectorAll('#status dl, #status dt, #status dd')].filter((e) => {
               const box = e.getBoundingClientRect();
               return !e.offsetHeight || box.left < 0 || box.right > innerWidth || e.scrollWidth > e.clientWidth + 1;
             }).map((e) => e.outerHTML)",
        );
        assert_eq!(hidden, json!([]), "not in sight at {width} pixels");
        if width < 600 {
            let sideways = page.value(
                "[...document.querySelectorAll('body *')].filter((e) => e.scrollWidth > e.clientWidth + 1
                   && /auto|scroll/.test(getComputedStyle(e).overflowX)).map((e) => e.outerHTML)",
            );
            assert_eq!(sideways, json!([]), "scrolls sideways at {width} pixels");
        }
        let low = page.value(
            "[...document.querySelectorAll('button, select, summary, textarea')]
               .filter((e) => e.offsetParent && e.offsetHeight < 44).map((e) => e.outerHTML)",
        );
        assert_eq!(low, json!([]), "targets lower than a finger");
        backgrounds.push(page.value("getComputedStyle(document.documentElement).backgroundColor"));
    }
    assert_eq!(backgrounds[0], backgrounds[3]);
    assert_ne!(backgrounds[3], backgrounds[4], "light and dark differ");
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

#[test]
fn a_page_of_another_site_reaches_nothing_but_may_link_here() {
    let household = Household::new();
    let node = household.serve(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A thread for each: the browser also opens connections on which it sends nothing yet.
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<p>x");
            });
        }
    });
    let mut page = Browser::start();
    // Another port is the same site, another name another one; neither is this node's page.
    for other in ["127.0.0.1", "localhost"] {
        page.open(&format!("http://{other}:{}/", elsewhere.port()));
        // An image is asked for in this way; it has no Origin.
        page.value(&format!(
            "fetch('http://{}/health', {{mode: 'no-cors'}}).then(() => true)",
            node.address
        ));
    }
    page.value(&format!(
        "document.body.innerHTML = '<a href=\"http://{}/\">', document.links[0].click()",
        node.address
    ));
    page.until("document.title === 'Hearth' && document.readyState === 'complete'");
    let metrics = page.value("fetch('/metrics').then((answer) => answer.text())");
    let metrics = metrics.as_str().unwrap();
    let health: Vec<&str> = metrics
        .lines()
        .filter(|line| line.contains("http_requests_total{route=\"/health\""))
        .collect();
    assert_eq!(
        health,
        ["hearth_http_requests_total{route=\"/health\",status=\"403\"} 2"]
    );
}

#[test]
fn the_page_of_models_measures_the_machine_and_draws_what_fits() {
    let household = Household::new();
    let models = household.home().join("models");
    std::fs::create_dir_all(&models).unwrap();
    let long = "some-organisation_a-model-with-a-very-long-name-27B-Instruct-2511-Q4_K_M";
    std::fs::copy(
        hearth_testkit::node::ember(),
        models.join(format!("{long}.gguf")),
    )
    .unwrap();
    let node = household.serve(&[]);
    let mut page = Browser::start();
    // The way there is in sight.
    page.open(&format!("http://{}/", node.address));
    page.until("document.querySelector('header a[href=\"/models\"]').offsetHeight >= 44");
    page.open(&format!("http://{}/models", node.address));
    page.until("document.querySelector('main form button').textContent === 'Measure this machine'");
    assert_eq!(page.value("document.querySelectorAll('rect').length"), 0);
    page.value("document.querySelector('main form button').focus()");
    page.press("Enter");
    page.until("location.pathname === '/models' && document.querySelectorAll('rect').length > 5");
    // What to type for a model is copied.
    page.value(
        "document.addEventListener('copy', () => { window.copied = document.activeElement.value; });
         Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true});
         document.querySelector('.folding .copy').focus()",
    );
    page.press("Enter");
    page.until("document.querySelector('.folding .copy').textContent === 'Copied'");
    let command = format!(
        "copied === 'hearth pull ' + document.querySelector('.folding code').textContent + ' --host {}'",
        node.address
    );
    page.until(&command);
    page.until("document.getElementById('said').textContent === 'Copied: ' + copied");
    // On a narrow screen everything in the table of models is seen without scrolling sideways, the bars included.
    page.screen(375, 800, "dark");
    page.until("document.documentElement.scrollWidth <= innerWidth");
    let seen = "(element) => { const at = element.getBoundingClientRect(); return at.width === 0 || at.left >= 0 && at.right <= innerWidth; }";
    page.until(&format!(
        "[...document.querySelectorAll('td, .folding svg')].every({seen})"
    ));
    page.until("[...document.querySelectorAll('.folding svg')].every((bar) => bar.getBoundingClientRect().width > 200)");
    assert_eq!(script_errors(&page), [""; 0]);
}
