//! A request's trace: taken from its caller or begun here, on every log line, and told of when the answer is over.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hearth_node::{Finished, Listener, NodeOptions};
use hearth_testkit::node::{Reply, TestNode, node_options, options, wait_until};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

const CHAT: &str = "/v1/chat/completions";

/// Everything that was logged by the nodes of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// A node answers on threads of its own, so that one subscriber has to hear all of them.
    fn of_process() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let lines = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_writer(log.clone())
                .json()
                .with_current_span(false)
                .finish();
            tracing::subscriber::set_global_default(lines).unwrap();
            log
        })
    }

    /// The lines of a request.
    fn of(&self, id: &str) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["spans"][0]["id"] == id)
            .collect()
    }
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Ears(Mutex<Vec<Finished>>);

impl Listener for Ears {
    fn finished(&self, generation: Finished) {
        self.0.lock().unwrap().push(generation);
    }
}

impl Ears {
    fn heard(&self) -> Vec<Finished> {
        self.0.lock().unwrap().clone()
    }
}

fn listening() -> (TestNode, Arc<Ears>) {
    let ears = Arc::new(Ears::default());
    let node = NodeOptions {
        listener: Some(ears.clone()),
        ..node_options()
    };
    (TestNode::with(options(), node), ears)
}

fn ask(node: &TestNode, headers: &[(&str, &str)], more: Value) -> Reply {
    let mut body =
        json!({"messages": [{"role": "user", "content": "what is hearth"}], "max_tokens": 5});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    node.post_with(CHAT, headers, body.to_string())
}

#[test]
fn every_line_of_a_request_names_the_callers_trace_even_at_the_end_of_a_stream() {
    let log = Log::of_process();
    let node = TestNode::with(
        options(),
        NodeOptions {
            log_prompts: true,
            ..node_options()
        },
    );
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("x-request-id", "req_far"),
    ];
    let reply = ask(&node, &headers, json!({"stream": true}));
    assert_eq!(reply.header("x-trace-id"), Some(trace));
    let lines = log.of("req_far");
    assert!(
        lines
            .iter()
            .all(|line| line["spans"][0]["trace_id"] == trace),
        "{lines:?}"
    );
    let of = |message: &str| -> Vec<&Value> {
        let lines = lines.iter();
        lines
            .filter(|line| line["fields"]["message"] == message)
            .collect()
    };
    // The model was loaded for this request, on a thread of its own.
    assert_eq!(of("model loaded").len(), 1, "{lines:?}");
    let body = of("body")[0];
    assert_eq!(body["target"], "hearth::prompts");
    let text = body["fields"]["text"].as_str().unwrap();
    assert!(text.contains("what is hearth"), "{text}");
    // This one is written after the head of the answer is long gone.
    assert_eq!(of("answer").len(), 1, "{lines:?}");
}

#[test]
fn a_request_that_fails_is_logged_by_its_code_and_not_by_its_words() {
    let log = Log::of_process();
    let node = TestNode::start(options());
    let anthropics = ("anthropic-version", "2023-06-01");
    for (id, path, header, route, code) in [
        ("req_f1", CHAT, None, CHAT, Some("model_not_found")),
        (
            "req_f2",
            "/v1/messages",
            Some(anthropics),
            "/v1/messages",
            Some("model_not_found"),
        ),
        (
            "req_f3",
            "/api/chat",
            None,
            "/api/chat",
            Some("model_not_found"),
        ),
        (
            "req_f4",
            "/chat/completions",
            None,
            "other",
            Some("unknown_route"),
        ),
        (
            "req_f5",
            "/assets/x",
            None,
            "/assets/{name}",
            Some("method_not_allowed"),
        ),
    ] {
        let headers: Vec<_> = [("x-request-id", id)].into_iter().chain(header).collect();
        let body = json!({"model": "sesame", "max_tokens": 5,
            "messages": [{"role": "user", "content": "open sesame"}]});
        let reply = node.post_with(path, &headers, body.to_string());
        let lines = log.of(id);
        let failed: Vec<&Value> = (lines.iter())
            .filter(|line| line["level"] == "INFO")
            .collect();
        assert_eq!(failed.len(), 1, "{path}: {lines:?}");
        let (fields, span) = (&failed[0]["fields"], &failed[0]["spans"][0]);
        assert_eq!(fields["message"], "request failed");
        assert_eq!(fields["status"], reply.status, "{failed:?}");
        assert_eq!(fields["code"].as_str(), code, "{failed:?}");
        assert_eq!(
            (&span["route"], span["trace_id"].as_str()),
            (&json!(route), reply.header("x-trace-id"))
        );
        assert!(!format!("{lines:?}").contains("sesame"), "{lines:?}");
    }
    let fine = node.get_with("/status", &[("x-request-id", "req_f6")]);
    assert_eq!(fine.status, 200);
    assert!(log.of("req_f6").iter().all(|line| line["level"] == "DEBUG"));
}

#[test]
fn prompts_are_not_logged_unless_asked_for_and_a_trace_begins_here() {
    let log = Log::of_process();
    let node = TestNode::start(options());
    let headers = [("traceparent", "00-nonsense"), ("x-request-id", "req_near")];
    let reply = ask(&node, &headers, json!({}));
    let trace = reply.header("x-trace-id").unwrap();
    assert_eq!(trace.len(), 32);
    assert!(trace.bytes().all(|byte| byte.is_ascii_hexdigit()) && trace != "0".repeat(32));
    let lines = log.of("req_near");
    assert!(!lines.is_empty());
    assert!(
        lines
            .iter()
            .all(|line| line["spans"][0]["trace_id"] == trace)
    );
    assert!(
        lines.iter().all(|line| line["target"] != "hearth::prompts"
            && !line.to_string().contains("what is hearth")),
        "{lines:?}"
    );
    let other = ask(&node, &[], json!({}));
    assert_ne!(other.header("x-trace-id"), Some(trace));
}

#[test]
fn the_facts_of_an_answer_are_told_once() {
    let (node, ears) = listening();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let more = json!({"temperature": 0.5, "top_p": 0.9, "seed": 7, "n": 2});
    let reply = ask(&node, &[("traceparent", parent)], more).json();
    let heard = ears.heard();
    let [told] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(told.place.trace_id(), parent[3..35]);
    assert_eq!(told.place.parent, Some(0x00f0_67aa_0ba9_02b7));
    assert_eq!(
        (told.operation, told.asked_model.as_str()),
        ("chat", "ember")
    );
    assert_eq!(told.model.as_deref(), Some("ember"));
    assert_eq!(told.response.as_deref(), reply["id"].as_str());
    let asked = &told.asked;
    assert_eq!(
        (asked.max_tokens, asked.temperature, asked.top_p),
        (Some(5), Some(0.5), Some(0.9))
    );
    assert_eq!(
        (asked.seed, asked.choices, asked.top_k),
        (Some(7), Some(2), None)
    );
    let tokens = |name: &str| reply["usage"][name].as_u64();
    assert_eq!(told.input_tokens.map(u64::from), tokens("prompt_tokens"));
    assert_eq!(
        told.output_tokens.map(u64::from),
        tokens("completion_tokens")
    );
    let mut reasons: Vec<&str> = reply["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["finish_reason"].as_str().unwrap())
        .collect();
    let mut told_reasons = told.reasons.clone();
    reasons.sort_unstable();
    told_reasons.sort_unstable();
    assert_eq!(told_reasons, reasons);
    assert_eq!((told.error.as_deref(), told.server), (None, node.address()));
    let first = told.first_token.unwrap();
    assert!(!first.is_zero() && first <= told.took);
}

#[test]
fn each_prompt_of_a_request_is_a_generation_of_its_own() {
    let (node, ears) = listening();
    let body = json!({"prompt": ["Once", "Twice"], "max_tokens": 3});
    let reply = node.post("/v1/completions", body.to_string());
    let heard = ears.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard.iter().all(|told| told.operation == "text_completion"));
    assert!(
        heard
            .iter()
            .all(|told| Some(told.place.trace_id().as_str()) == reply.header("x-trace-id"))
    );
    assert_ne!(heard[0].span, heard[1].span);
}

#[test]
fn what_fails_and_what_is_given_up_is_told_too_and_an_unsampled_trace_is_not() {
    let (node, ears) = listening();
    ask(&node, &[], json!({"model": "nobody"}));
    let told = ears.heard().remove(0);
    assert_eq!(told.error.as_deref(), Some("model_not_found"));
    assert_eq!((told.asked_model.as_str(), told.model), ("nobody", None));

    let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    ask(&node, &[("traceparent", unsampled)], json!({}));
    assert_eq!(ears.heard().len(), 1);

    let body = json!({"prompt": "Once", "max_tokens": 900, "ignore_eos": true, "stream": true})
        .to_string();
    let mut stream = std::net::TcpStream::connect(node.address()).unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        node.address(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 400]).unwrap();
    drop(stream);
    let given_up = || ears.heard().len() == 2;
    wait_until(
        Duration::from_secs(60),
        "the generation that was given up",
        given_up,
    );
    let told = ears.heard().remove(1);
    assert_eq!(told.error.as_deref(), Some("cancelled"));
    assert!(told.input_tokens.is_some() && told.first_token.is_some());
}
