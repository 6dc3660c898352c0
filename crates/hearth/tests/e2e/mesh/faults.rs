//! The fault table: each fault is made, and the machines on the other end give it its own code. `docs/FAULTS.md` has it in
//! words, with the times that these tests print.

use std::time::{Duration, Instant};

use hearth_protocol::diagnosis::{Code, Diagnosis, Layer, Outcome, Verdict};
use hearth_testkit::gguf::Shape;
use serde_json::json;

use super::lan::{Host, Lan, join};
use crate::household::{Household, until};

/// The household of every fault, which befalls `two`.
fn household(lan: &Lan) -> [Host; 3] {
    let mut hosts = lan.three();
    join(&mut hosts);
    hosts
}

/// Whoever asks is told the code at once (by `hearth doctor` on `one`), and who does not ask notices (the hub).
fn is_told(hub: &Host, one: &Host, code: Code) {
    let begun = Instant::now();
    let (found, asked, noticed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| (one.doctor("two", None), begun.elapsed()));
        hub.says("two", code);
        let noticed = begun.elapsed();
        let (found, asked) = asking.join().unwrap();
        (found, asked, noticed)
    });
    assert_eq!(found.code(), Some(code), "{found:#?}");
    assert_eq!(found.verdict, Verdict::Failed);
    let check = found.check(found.broken.unwrap()).unwrap();
    assert!(check.fix.is_some() && !check.words.is_empty(), "{check:?}");
    tell(code, asked, noticed);
}

fn tell(code: Code, asked: Duration, noticed: Duration) {
    eprintln!(
        "{code}: hearth doctor said so {:.1} s after it, the node by itself {:.1} s",
        asked.as_secs_f64(),
        noticed.as_secs_f64()
    );
}

/// What a check says that breaks nothing.
fn code_of(found: &Diagnosis, layer: Layer) -> Option<Code> {
    found.check(layer)?.code
}

#[test]
fn the_process_is_killed() {
    let Some(lan) = Lan::new() else { return };
    let [hub, one, mut two] = household(&lan);
    two.kill();
    is_told(&hub, &one, Code::PeerProcessDown);
    two.start();
    hub.reaches("two");
    one.reaches("two");
}

#[test]
fn the_process_is_frozen() {
    let Some(lan) = Lan::new() else { return };
    let [hub, one, two] = household(&lan);
    two.signal("STOP");
    is_told(&hub, &one, Code::PeerNotAnswering);
    two.signal("CONT");
    hub.reaches("two");
    one.reaches("two");
}

#[test]
fn the_cable_is_pulled() {
    let Some(lan) = Lan::new() else { return };
    let [hub, one, two] = household(&lan);
    lan.cable(&two, "down");
    is_told(&hub, &one, Code::NoPath);
    lan.cable(&two, "up");
    hub.reaches("two");
    one.reaches("two");
}

#[test]
fn a_firewall_is_between_two_members() {
    let Some(lan) = Lan::new() else { return };
    let [hub, one, two] = household(&lan);
    let from_one = format!("ip saddr {}", one.ip);
    two.drops(&from_one);
    let begun = Instant::now();
    let found = one.doctor("two", None);
    let asked = begun.elapsed();
    assert_eq!(found.code(), Some(Code::FirewallSuspected), "{found:#?}");
    assert_eq!(hub.doctor("two", None).verdict, Verdict::Usable);
    two.heals();
    one.reaches("two");
    two.drops(&from_one);
    let begun = Instant::now();
    one.says("two", Code::FirewallSuspected);
    tell(Code::FirewallSuspected, asked, begun.elapsed());
}

#[test]
fn large_packets_vanish() {
    let Some(lan) = Lan::new() else { return };
    let [hub, one, two] = household(&lan);
    lan.drops_large_packets(1000);
    let begun = Instant::now();
    let (found, asked, noticed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| (one.doctor("two", None), begun.elapsed()));
        // A prompt of some length is what shows it.
        let long = json!({
            "model": "two/ember", "max_tokens": 4,
            "messages": [{"role": "user", "content": "why ".repeat(500)}],
        });
        let failed = hub.post("/v1/chat/completions", &long);
        assert!(failed.status >= 500, "{failed:?}");
        hub.says("two", Code::MtuSuspected);
        let noticed = begun.elapsed();
        let (found, asked) = asking.join().unwrap();
        (found, asked, noticed)
    });
    assert_eq!(found.code(), Some(Code::MtuSuspected), "{found:#?}");
    drop(two);
    tell(Code::MtuSuspected, asked, noticed);
}

#[test]
fn another_machine_has_its_address() {
    let Some(lan) = Lan::new() else { return };
    let [hub, one, mut two] = household(&lan);
    two.kill();
    let own = std::mem::replace(&mut two.home, Household::new());
    two.start();
    // A hub of its own: only a node with a household opens doors.
    two.ticket();
    is_told(&hub, &one, Code::KeyMismatch);
    two.kill();
    two.home = own;
    two.start();
    hub.reaches("two");
    one.reaches("two");
}

#[test]
fn its_clock_is_wrong() {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = lan.three();
    for host in &mut hosts {
        // Over iroh nothing depends on clocks.
        host.only("http");
    }
    join(&mut hosts);
    let [hub, one, mut two] = hosts;
    two.kill();
    two.start_ahead("+120s");
    is_told(&hub, &one, Code::ClockSkew);
    two.kill();
    two.start();
    hub.reaches("two");
    one.reaches("two");
}

#[test]
fn the_hub_is_down() {
    let Some(lan) = Lan::new() else { return };
    let [mut hub, one, two] = household(&lan);
    let begun = Instant::now();
    hub.kill();
    until("the hub is missed", || {
        let known = one.knows("two", None)?;
        (code_of(&known, Layer::Hub) == Some(Code::HubUnreachable)).then_some(())
    });
    let noticed = begun.elapsed();
    let found = one.doctor("two", Some("ember"));
    assert_eq!(code_of(&found, Layer::Hub), Some(Code::HubUnreachable));
    assert_eq!(found.verdict, Verdict::Usable, "{found:#?}");
    for (asker, peer) in [(&one, "two"), (&two, "one")] {
        let answer = asker.chat(&format!("{peer}/ember"));
        assert_eq!((answer.status, &*answer.node), (200, peer), "{answer:?}");
    }
    tell(Code::HubUnreachable, noticed, noticed);
    hub.start();
    until("the hub is back", || {
        let check = one.knows("two", None)?.check(Layer::Hub)?.clone();
        (check.outcome == Outcome::Ok).then_some(())
    });
}

#[test]
fn the_hub_does_not_know_this_machine() {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = [lan.host("hub", 1), lan.host("one", 2)];
    for host in &mut hosts {
        host.start();
    }
    let [mut hub, one] = hosts;
    let ticket = hub.ticket();
    hub.kill();
    let (home, before) = (hub.home.home(), hub.home.path().join("before"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let mut copying = std::process::Command::new("cp");
        let copied = copying.arg("-a").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    copy(&home, &before);
    hub.start();
    one.hearth(&["join", &ticket]).ok();
    one.reaches("hub");
    // The hub's owner brings an old backup back.
    hub.kill();
    std::fs::remove_dir_all(&home).unwrap();
    copy(&before, &home);
    hub.start();
    let begun = Instant::now();
    let found = one.doctor("hub", None);
    let asked = begun.elapsed();
    assert_eq!(found.code(), Some(Code::NotInRoster), "{found:#?}");
    one.says("hub", Code::NotInRoster);
    tell(Code::NotInRoster, asked, begun.elapsed());
}

#[test]
fn the_model_is_missing_idle_or_damaged() {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = [lan.host("hub", 1), lan.host("two", 3)];
    hosts[1].model("fine");
    let damaged = hosts[1].model("damaged");
    join(&mut hosts);
    let [hub, two] = hosts;
    let found = hub.doctor("two", Some("nonsuch"));
    assert_eq!(found.code(), Some(Code::ModelMissing), "{found:#?}");
    let found = hub.doctor("two", Some("fine"));
    assert_eq!(found.verdict, Verdict::Usable, "{found:#?}");
    assert_eq!(code_of(&found, Layer::Model), Some(Code::ModelNotLoaded));

    hub.knows_model("two", "damaged");
    let file = std::fs::File::options().write(true).open(&damaged).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 4096).unwrap();
    let failed = hub.chat("two/damaged");
    assert!(failed.status >= 500, "{failed:?}");
    let known = hub.knows("two", Some("damaged")).unwrap();
    assert_eq!(known.code(), Some(Code::RuntimeNotReady), "{known:#?}");
    let found = hub.doctor("two", Some("damaged"));
    assert_eq!(found.code(), Some(Code::RuntimeNotReady), "{found:#?}");
    // It says nothing about its other models.
    let answer = hub.chat("two/fine");
    assert_eq!((answer.status, &*answer.node), (200, "two"), "{answer:?}");
    drop(two);
}

#[test]
fn the_model_is_being_loaded() {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = [lan.host("hub", 1), lan.host("two", 3)];
    // Tens of megabytes, which take a moment; under several names, should one be too quick to be seen.
    let shape = Shape {
        name: "medium",
        layers: 8,
        width: 1024,
        heads: 16,
        kv_heads: 8,
        feed_forward: 3072,
        ..Shape::TINY
    };
    let file = hosts[1].model_of("medium", &shape);
    let names = ["medium", "second", "third", "fourth"];
    for name in &names[1..] {
        std::fs::hard_link(&file, file.with_file_name(format!("{name}.gguf"))).unwrap();
    }
    join(&mut hosts);
    let [hub, _two] = hosts;
    hub.knows_model("two", "fourth");
    let is_seen = |name: &str| {
        let path = format!("/diagnosis?probe=true&peer=two&model={name}");
        let model = format!("two/{name}");
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| hub.chat(&model));
            let mut seen = false;
            while !asking.is_finished() {
                let found: Vec<Diagnosis> = serde_json::from_str(&hub.get(&path).body).unwrap();
                seen |= found[0].code() == Some(Code::ModelLoading);
            }
            let answer = asking.join().unwrap();
            assert_eq!((answer.status, &*answer.node), (200, "two"), "{answer:?}");
            seen
        })
    };
    let seen = names
        .iter()
        .find(|name| is_seen(name))
        .expect("model_loading");
    // It is over with the loading.
    let found = hub.doctor("two", Some(seen));
    assert_eq!(found.verdict, Verdict::Usable, "{found:#?}");
}
