//! Traces as a collector gets them, and that none leave unless the owner says where to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, span::SpanKind};
use prost::Message;
use serde_json::{Value, json};

use crate::household::{Household, Ran, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

const UP: [&str; 5] = ["up", "--detach", "--json", "--load-wait", "2m"];

/// Path and body of a request.
type Received = (String, Vec<u8>);

/// A collector on this machine: keeps what it gets.
struct Collector {
    url: String,
    got: Arc<Mutex<Vec<Received>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let request = read_message(&mut stream);
                keep.lock().unwrap().push(request);
                let _ = stream.get_mut().write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            }
        });
        Self { url, got }
    }

    fn resources(&self) -> Vec<ResourceSpans> {
        let got = self.got.lock().unwrap();
        got.iter()
            .flat_map(|(path, body)| {
                assert_eq!(path, "/v1/traces");
                let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                request.resource_spans
            })
            .collect()
    }

    fn spans(&self) -> Vec<Span> {
        let scopes = self.resources().into_iter().flat_map(|all| all.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

/// Path and body of an HTTP message with a length.
fn read_message(stream: &mut impl BufRead) -> Received {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    (path, body)
}

/// Posts JSON in a caller's trace; the answer.
fn post(address: &str, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nTraceparent: 00-{TRACE}-{PARENT}-01\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("x-trace-id: {TRACE}")), "{head}");
    serde_json::from_str(body).unwrap()
}

/// An attribute as JSON.
fn attribute(attributes: &[KeyValue], name: &str) -> Value {
    fn read(value: &AnyValue) -> Value {
        match value.value.as_ref().unwrap() {
            any_value::Value::StringValue(text) => json!(text),
            any_value::Value::IntValue(number) => json!(number),
            any_value::Value::DoubleValue(number) => json!(number),
            any_value::Value::ArrayValue(all) => all.values.iter().map(read).collect(),
            other => panic!("{other:?}"),
        }
    }
    let found = attributes.iter().find(|attribute| attribute.key == name);
    found.map_or(Value::Null, |found| read(found.value.as_ref().unwrap()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ask(address: &str) -> Value {
    let body = json!({"messages": [{"role": "user", "content": "what is hearth"}], "max_tokens": 5, "temperature": 0.7});
    post(address, "/v1/chat/completions", &body)
}

#[test]
fn a_collector_gets_a_span_of_each_generation_and_no_word_of_it() {
    let household = Household::new();
    let collector = Collector::start();
    let arguments = ["--otlp-endpoint", &collector.url, "--load-wait", "2m"];
    let node = household.serve(&arguments);
    let answer = ask(&node.address);
    until("the span", || (collector.spans().len() == 1).then_some(()));
    let resource = collector.resources().remove(0);
    assert_eq!(resource.schema_url, SCHEMA);
    let about = &resource.resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(about, "service.name"), "hearth");
    assert_eq!(resource.scope_spans[0].schema_url, SCHEMA);

    let span = collector.spans().remove(0);
    assert_eq!(span.name, "chat ember");
    assert_eq!(span.kind(), SpanKind::Internal);
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    let port: u16 = node.address.rsplit(':').next().unwrap().parse().unwrap();
    let usage = &answer["usage"];
    let reason = &answer["choices"][0]["finish_reason"];
    for (name, expected) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("hearth")),
        ("gen_ai.request.model", json!("ember")),
        ("gen_ai.response.model", json!("ember")),
        ("gen_ai.response.id", answer["id"].clone()),
        ("gen_ai.request.max_tokens", json!(5)),
        ("gen_ai.request.temperature", json!(0.7)),
        ("gen_ai.request.top_p", Value::Null),
        ("gen_ai.usage.input_tokens", usage["prompt_tokens"].clone()),
        (
            "gen_ai.usage.output_tokens",
            usage["completion_tokens"].clone(),
        ),
        ("gen_ai.response.finish_reasons", json!([reason])),
        ("error.type", Value::Null),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(port)),
    ] {
        assert_eq!(attribute(&span.attributes, name), expected, "{name}");
    }
    let first = attribute(&span.attributes, "hearth.time_to_first_token");
    assert!(first.as_f64().unwrap() > 0.0);
    assert!(!format!("{span:?}").contains("what is"), "{span:?}");

    // What still waits when the node ends is sent.
    let failed = json!({"model": "nobody", "prompt": "Once"});
    post(&node.address, "/v1/completions", &failed);
    household.hearth(&["stop"]).ok();
    let last = collector.spans().remove(1);
    assert_eq!(last.name, "text_completion nobody");
    assert_eq!(attribute(&last.attributes, "error.type"), "model_not_found");
}

#[test]
fn nothing_is_sent_unless_the_owner_says_where() {
    let household = Household::new();
    let collector = Collector::start();
    let served = |environment: &[(&str, &str)]| {
        let mut up = household.command(&UP);
        let up = up.envs(environment.iter().copied()).output().unwrap();
        let up = Ran::new(&UP, up).json();
        ask(up["address"].as_str().unwrap());
        household.hearth(&["stop"]).ok();
        // `hearth up` asks something too.
        let spans = collector.spans().into_iter();
        spans.filter(|span| hex(&span.trace_id) == TRACE).count()
    };
    assert_eq!(served(&[]), 0);
    assert_eq!(collector.spans().len(), 0);
    let theirs = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    assert_eq!(served(&[theirs, ("HEARTH_OFFLINE", "on")]), 0);
    assert_eq!(collector.spans().len(), 0);
    assert_eq!(served(&[theirs]), 1);
}

#[test]
fn a_collector_that_is_away_keeps_nobody_waiting() {
    let household = Household::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let up = [&UP[..], &["--otlp-endpoint", &url]].concat();
    let up = household.hearth(&up).json();
    ask(up["address"].as_str().unwrap());
    household.hearth(&["stop"]).ok();
    let log = household
        .hearth(&["logs", "--json", "--level", "warn"])
        .ok();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty());
    assert!(
        lines.iter().all(|line| line["lost"].as_u64() > Some(0)),
        "{log}"
    );
    assert!(log.contains(&format!("traces do not reach {url}")), "{log}");
}
