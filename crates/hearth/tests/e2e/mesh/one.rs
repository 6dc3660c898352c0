//! Several machines as one: one endpoint answers for all, while they die and come back.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::lan::{Host, Lan, PORT, join};
use crate::clients::{installed, scripts};

/// A client of the Python package `openai` that asks without a pause.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<Value>,
    /// What it saw so far.
    seen: Vec<Value>,
}

impl Client {
    fn start(host: &Host, model: &str) -> Self {
        let python = installed("python/bin/python");
        let mut child = host
            .program(python.to_str().unwrap())
            .arg(scripts().join("mesh_client.py"))
            .arg(format!("http://127.0.0.1:{PORT}/v1"))
            .arg(model)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            child,
            stdin,
            answers,
            seen: Vec::new(),
        }
    }

    /// Waits for an answer from that machine; or from any, if it has no name.
    fn answer(&mut self, from: &str) {
        loop {
            let answer = self.answers.recv_timeout(Duration::from_secs(60));
            let answer = answer.unwrap_or_else(|_| panic!("no answer of {from}: {:?}", self.seen));
            let node = answer["node"].as_str().unwrap().to_owned();
            let whole = answer["ends"] == 1;
            self.seen.push(answer);
            if whole && (from.is_empty() || node == from) {
                return;
            }
        }
    }

    /// Ends it. Every request was answered once, or broke off after its first token and said so.
    fn end(mut self) -> Vec<Value> {
        drop(self.stdin.take());
        self.seen.extend(self.answers.iter());
        for answer in &self.seen {
            match answer["error"].as_str() {
                None => assert_eq!(answer["ends"], 1, "{answer}"),
                Some(error) => {
                    assert!(
                        answer["pieces"].as_u64() > Some(0),
                        "no token came: {answer}"
                    );
                    assert!(error.contains("hearth doctor"), "{answer}");
                    assert_eq!(answer["ends"], 0, "{answer}");
                }
            }
        }
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three machines, of which the hub alone lacks the model `shared`, behind one kind of door or both.
fn household(lan: &Lan, door: Option<&str>) -> [Host; 3] {
    let mut hosts = lan.three();
    for host in &mut hosts {
        if let Some(door) = door {
            host.only(door);
        }
        if host.name != "hub" {
            host.model("shared");
        }
    }
    join(&mut hosts);
    for peer in ["one", "two"] {
        hosts[0].knows_model(peer, "shared");
    }
    hosts
}

#[test]
fn three_machines_answer_as_one_while_they_die_and_come_back() {
    let Some(lan) = Lan::new() else { return };
    let [hub, mut one, mut two] = household(&lan, None);
    let mut client = Client::start(&hub, "shared");
    client.answer("");
    for _ in 0..2 {
        one.kill();
        client.answer("two");
        client.answer("two");
        one.start();
        hub.reaches("one");
        two.kill();
        client.answer("one");
        client.answer("one");
        two.start();
        hub.reaches("two");
    }
    let seen = client.end();
    let broken = seen.iter().filter(|answer| !answer["error"].is_null());
    eprintln!(
        "{} answers, {} broke off after their first token",
        seen.len(),
        broken.count()
    );
}

/// What a household does through one kind of door.
fn behind(door: &str) {
    let Some(lan) = Lan::new() else { return };
    let [hub, mut one, two] = household(&lan, Some(door));
    for host in [&hub, &one, &two] {
        let routes = host.program("ip").args(["route"]).output().unwrap();
        let routes = String::from_utf8(routes.stdout).unwrap();
        assert!(
            !routes.contains("default"),
            "no way to the internet: {routes}"
        );
    }
    for peer in ["one", "two"] {
        let found = hub.doctor(peer, None);
        let at = format!("{found:?}");
        assert_eq!(found.code(), None, "{at}");
        let members = hub.get("/peers").json()["members"].clone();
        let members = members.as_array().unwrap().iter();
        for address in members.flat_map(|member| member["addresses"].as_array().unwrap()) {
            let address = address.as_str().unwrap();
            assert!(
                address.starts_with(&format!("{door}://10.44.0.")),
                "{address}"
            );
        }
        let model = format!("{peer}/ember");
        let answer = hub.chat(&model);
        assert_eq!((answer.status, &*answer.node), (200, peer), "{answer:?}");
    }
    // A member asks another one, and the hub.
    let answer = one.chat("two/shared");
    assert_eq!((answer.status, &*answer.node), (200, "two"), "{answer:?}");
    let answer = one.chat("hub/ember");
    assert_eq!((answer.status, &*answer.node), (200, "hub"), "{answer:?}");
    one.kill();
    let answer = hub.chat("shared");
    assert_eq!((answer.status, &*answer.node), (200, "two"), "{answer:?}");
}

#[test]
fn signed_http_alone_is_enough() {
    behind("http");
}

#[test]
fn iroh_alone_is_enough() {
    behind("quic");
}
