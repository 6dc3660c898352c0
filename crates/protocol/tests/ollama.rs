//! Ollama's requests: what is read, and what is said of what is not.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use hearth_protocol::error::ApiError;
use hearth_protocol::ollama::{
    ChatRequest, EmbedRequest, GenerateRequest, KeepAlive, Level, Think,
};
use hearth_protocol::parse;
use proptest::prelude::*;
use serde_json::{Value, json};

fn chat(body: Value) -> Result<ChatRequest, ApiError> {
    parse::body(body.to_string().as_bytes())
}

fn keep_alive(value: Value) -> Option<KeepAlive> {
    chat(json!({"keep_alive": value})).ok()?.keep_alive
}

#[test]
fn a_model_stays_for_as_long_as_it_is_said_in_any_form() {
    let seconds = |seconds| Some(KeepAlive::For(Duration::from_secs_f64(seconds)));
    for (said, meant) in [
        (json!(0), seconds(0.0)),
        (json!(300), seconds(300.0)),
        (json!(0.5), seconds(0.5)),
        (json!(-1), Some(KeepAlive::Forever)),
        (json!("0"), seconds(0.0)),
        (json!("0s"), seconds(0.0)),
        (json!("300"), seconds(300.0)),
        (json!("5m"), seconds(300.0)),
        (json!("1h30m"), seconds(5400.0)),
        (json!("1.5h"), seconds(5400.0)),
        (json!("250ms"), seconds(0.25)),
        (json!("-1"), Some(KeepAlive::Forever)),
        (json!("-1m"), Some(KeepAlive::Forever)),
        (json!("24h"), seconds(86_400.0)),
        (json!("soon"), None),
        (json!(""), None),
        (json!("1e300"), None),
        (json!(1e300), None),
        (json!("nan"), None),
        (json!(true), None),
    ] {
        assert_eq!(keep_alive(said.clone()), meant, "{said}");
    }
    let error = chat(json!({"keep_alive": "soon"})).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("keep_alive"));
    assert!(error.message.contains("`5m`"), "{}", error.message);
}

#[test]
fn whole_numbers_may_be_written_as_floats() {
    let options = |options: Value| chat(json!({"options": options}));
    let read = options(json!({"top_k": 40.0, "seed": -1, "num_ctx": null})).unwrap();
    let read = read.options.unwrap();
    assert_eq!(
        (read.top_k, read.seed, read.num_ctx),
        (Some(40), Some(-1), None)
    );
    for (wrong, field) in [
        (json!({"top_k": 40.5}), "options.top_k"),
        (json!({"num_predict": "10"}), "options.num_predict"),
        (json!({"seed": 1e300}), "options.seed"),
        (json!({"seed": u64::MAX}), "options.seed"),
        (json!({"temperature": []}), "options.temperature"),
        (json!({"stop": 5}), "options.stop"),
        (json!([]), "options"),
    ] {
        let error = options(wrong.clone()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field), "{wrong}");
    }
}

#[test]
fn thinking_is_a_switch_or_a_level() {
    let think = |value: Value| chat(json!({"think": value})).ok().and_then(|it| it.think);
    assert_eq!(think(json!(true)), Some(Think::Switch(true)));
    assert_eq!(think(json!("medium")), Some(Think::Level(Level::Medium)));
    assert_eq!(think(Value::Null), None);
    assert!(chat(json!({"think": "Low"})).is_err());
    assert!(chat(json!({"think": 1})).is_err());
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let prompt: fn(Value) -> Result<(), ApiError> = |body| {
        let request: GenerateRequest = parse::body(body.to_string().as_bytes())?;
        request.check()
    };
    for (body, field) in [
        (json!({"images": ["x"]}), "images"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"template": "x"}), "template"),
        (json!({"raw": true, "system": "x"}), "system"),
        (json!({"top_logprobs": 1}), "top_logprobs"),
        (json!({"options": {"typical_p": 0.5}}), "options.typical_p"),
        (json!({"options": {"tfs_z": 0.5}}), "options.tfs_z"),
        (json!({"options": {"mirostat": 1}}), "options.mirostat"),
    ] {
        let error = prompt(body.clone()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field), "{body}");
    }
    // Empty, off or unknown is as if it were not there.
    let nothing = json!({"images": [], "suffix": "", "template": "", "raw": false, "system": "x", "context": [1],
        "options": {"typical_p": 1, "mirostat": 0, "num_gpu": 99, "invented": {}}, "shift": true, "truncate": true});
    assert!(prompt(nothing).is_ok());
    let empty: EmbedRequest = parse::body(b"{}").unwrap();
    assert!(empty.model().is_err() && empty.input.is_none());
}

proptest! {
    #[test]
    fn no_text_breaks_the_reading_of_a_time(text in "\\PC{0,24}") {
        let _ = keep_alive(json!(text));
    }

    #[test]
    fn seconds_are_read_back(seconds in 0u32..) {
        let expected = Some(KeepAlive::For(Duration::from_secs(seconds.into())));
        prop_assert_eq!(keep_alive(json!(seconds)), expected);
        prop_assert_eq!(keep_alive(json!(format!("{seconds}s"))), expected);
    }
}
