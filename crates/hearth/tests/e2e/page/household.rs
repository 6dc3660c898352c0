//! The page of machines, and a browser's own `EventSource` on `/events`.

use hearth_testkit::gguf::{Quantisation, Shape, write};

use super::browser::Browser;
use super::script_errors;
use crate::household::{Household, until};

#[test]
fn a_browser_follows_the_household_and_draws_the_way_to_each_machine() {
    let (one, two) = (Household::new(), Household::new());
    let hub = one.serve(&["--name", "laptop"]);
    let place = ["--json", "--host", &hub.address];
    let invite = || {
        let ran = one.hearth(&[&["invite"][..], &place].concat()).json();
        ran["ticket"].as_str().unwrap().to_owned()
    };
    // The first invitation makes it a hub, which has events.
    let ticket = invite();
    let mut page = Browser::start();
    page.open(&format!("http://{}/household", hub.address));
    page.until("document.querySelectorAll('.machine').length === 1");
    page.value(
        "window.seen = []; window.source = new EventSource('/events');
         source.addEventListener('member', (event) => seen.push([event.lastEventId, JSON.parse(event.data).record.text])); true",
    );
    page.until("source.readyState === EventSource.OPEN");
    let shape = Shape {
        layers: 1,
        ..Shape::TINY
    };
    write(&two.path().join("mine.gguf"), &shape, Quantisation::Q4KM, 1).unwrap();
    two.hearth(&["models", "import", "mine.gguf"]).ok();
    let other = two.serve(&["--name", "gpubox"]);
    two.hearth(&["join", &ticket, "--host", &other.address])
        .ok();
    page.until("seen.some(([id, text]) => /^[0-9a-f]{16}:\\d+$/.test(id) && JSON.parse(text).name === 'gpubox')");
    // Another stream goes on after an event that this one gave, and gets what came since.
    page.value("window.again = []; const first = seen[0][0]; source.close(); window.source = new EventSource(`/events?cursor=${first}`);
                source.addEventListener('member', (event) => again.push(event.lastEventId)); true");
    one.hearth(&[&["peers", "rename", "gpubox", "study"][..], &place].concat())
        .ok();
    page.until("again.length >= 1 && new Set(again).size === again.length");

    until("the way was looked at", || {
        let ran = one.hearth(&[&["doctor"][..], &place].concat());
        (ran.code == Some(0)).then_some(())
    });
    page.open(&format!("http://{}/household", hub.address));
    page.until("document.querySelectorAll('.machine').length === 2");
    page.until("document.querySelectorAll('.way line').length === 9");
    page.until("/A prompt gets through/.test(document.body.textContent)");

    // What the other machine alone has can be talked to, and the menu says where it is.
    page.open(&format!("http://{}/", hub.address));
    page.until("[...document.querySelector('#model').options].some((option) => option.value === 'mine:latest' && option.text === 'mine:latest (study)')");
    page.value("const menu = document.querySelector('#model'); menu.value = 'mine:latest'; menu.dispatchEvent(new Event('change')); true");
    page.until("document.querySelector('#model-state').textContent === 'on study'");

    // Killed, and seen as such without anybody asking.
    drop(other);
    page.until(
        "fetch('/household').then((page) => page.text()).then((text) => /peer_process_down|peer_not_answering/.test(text))",
    );
    let errors = script_errors(&page);
    assert!(errors.is_empty(), "{errors:?}");
}
