//! Many requests, cancelled at random, and bodies that make no sense: nothing leaks, nothing breaks.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hearth_node::NodeOptions;
use hearth_testkit::node::{TestNode, node_options, options, wait_until};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// One request over a raw socket; reads `read` bytes of the answer, or all of it, and closes.
fn ask(node: &TestNode, prompt: usize, read: Option<usize>) -> std::io::Result<()> {
    let body = json!({
        "messages": [{"role": "user", "content": format!("{} what is hearth", prompt % 97)}],
        "stream": prompt.is_multiple_of(2), "max_tokens": 1 + prompt % 4,
    })
    .to_string();
    let mut stream = TcpStream::connect(node.address())?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        node.address(),
        body.len()
    )?;
    match read {
        Some(0) => Ok(()),
        Some(bytes) => stream.read(&mut vec![0; bytes]).map(|_| ()),
        None => stream.read_to_end(&mut Vec::new()).map(|_| ()),
    }
}

#[test]
fn ten_thousand_requests_with_random_cancellations_leak_nothing() {
    let node = TestNode::start(options());
    let done = AtomicUsize::new(0);
    let round = |from: usize, to: usize| {
        std::thread::scope(|threads| {
            for thread in 0..6 {
                let (node, done) = (&node, &done);
                threads.spawn(move || {
                    for at in (from + thread..to).step_by(6) {
                        // A cheap mix of the number decides how the client behaves.
                        let dice = at.wrapping_mul(0x9E37_79B9) >> 7;
                        let read = match dice % 4 {
                            0 => Some(0),
                            1 => Some(1 + dice % 600),
                            _ => None,
                        };
                        ask(node, at, read).unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
    };
    let quiet = || {
        wait_until(Duration::from_secs(30), "nothing runs or waits", || {
            let load = node.load();
            load.slots_busy == 0 && load.queued == 0
        });
    };
    round(0, 2_000);
    quiet();
    let warm = node.status().memory_bytes.unwrap();
    round(2_000, 10_000);
    quiet();
    assert_eq!(done.load(Ordering::Relaxed), 10_000);
    let grown = node.status().memory_bytes.unwrap().saturating_sub(warm);
    assert!(
        grown < 48 << 20,
        "{} MiB more than after the warm-up",
        grown >> 20
    );
    let load = node.load();
    assert!(load.completed > 4_000, "{load:?}");
    assert_eq!(node.get("/health").status, 200);
}

/// A valid body with one value somewhere replaced by nonsense.
fn spoiled() -> impl Strategy<Value = (bool, Value)> {
    let nonsense = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{"a": [1, null]}])),
        Just(json!({"type": "json_schema", "json_schema": {"schema": {"type": 5}}})),
    ];
    let field = prop::sample::select(vec![
        "messages",
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stop",
        "logprobs",
        "top_logprobs",
        "response_format",
        "grammar",
        "chat_template_kwargs",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repeat_penalty",
        "logit_bias",
        "seed",
        "tools",
        "functions",
        "modalities",
        "hearth",
        "prompt",
        "best_of",
        "echo",
        "suffix",
        "unknown",
    ]);
    (any::<bool>(), field, nonsense).prop_map(|(chat, field, value)| {
        let mut body = if chat {
            json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
        } else {
            json!({"prompt": "hi", "max_tokens": 2})
        };
        body[field] = value;
        (chat, body)
    })
}

#[test]
fn nonsense_in_any_field_is_an_answer_and_never_a_failure_of_the_node() {
    let node = TestNode::start(options());
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&spoiled(), |(chat, body)| {
        let reply = node.post(
            if chat {
                "/v1/chat/completions"
            } else {
                "/v1/completions"
            },
            body.to_string(),
        );
        prop_assert!(reply.status < 500, "{body}: {reply:?}");
        if reply.status != 200 {
            let error = &reply.json()["error"];
            prop_assert!(
                error["message"].is_string() && error["type"].is_string(),
                "{body}: {reply:?}"
            );
        }
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(node.get("/health").status, 200);
}

#[test]
fn bytes_that_are_no_request_do_not_stop_the_node() {
    let node = TestNode::start(options());
    for bytes in [
        b"\0\0\0\0\r\n\r\n".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: nine\r\n\r\n",
        &[b'a'; 100_000],
    ] {
        let mut stream = TcpStream::connect(node.address()).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(node.get("/health").status, 200);
}

#[test]
fn a_client_that_never_finishes_its_head_is_cut_off_and_others_are_served() {
    let node = TestNode::with(
        options(),
        NodeOptions {
            head_timeout: Duration::from_millis(300),
            ..node_options()
        },
    );
    let slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(node.address()).unwrap();
            stream
                .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHo")
                .unwrap();
            stream
        })
        .collect();
    assert_eq!(node.get("/health").status, 200);
    for mut stream in slow {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // An answer (408) or none: what counts is the end.
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!(node.get("/health").status, 200);
}
