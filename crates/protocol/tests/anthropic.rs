//! Anthropic's bodies as they go over the wire, and what is said of wrong ones.
#![allow(clippy::unwrap_used)]

use hearth_protocol::anthropic::{
    Content, ErrorObject, ErrorResponse, Message, MessagesRequest, OutputBlock,
    OutputTokensDetails, StopReason, ThinkingMode, Usage,
};
use hearth_protocol::parse;
use insta::assert_snapshot;
use serde_json::{Map, Value, json};

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_message() {
    let body = Message {
        id: "msg_0".into(),
        kind: "message".into(),
        role: "assistant".into(),
        model: "ember".into(),
        content: vec![
            OutputBlock::Thinking {
                thinking: "Hm.".into(),
                signature: "eA==".into(),
            },
            OutputBlock::Text {
                text: "Grüß \"dich\"\n".into(),
            },
            OutputBlock::ToolUse {
                id: "toolu_0".into(),
                name: "look".into(),
                input: object(json!({"at": "hearth"})),
            },
        ],
        stop_reason: Some(StopReason::ToolUse),
        stop_sequence: None,
        usage: Usage {
            input_tokens: 8,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: 16,
            output_tokens: 9,
            output_tokens_details: OutputTokensDetails { thinking_tokens: 2 },
        },
        hearth: None,
    };
    let sent = serde_json::to_string_pretty(&body).unwrap();
    assert_eq!(parse::body::<Message>(sent.as_bytes()).unwrap(), body);
    assert_snapshot!(sent, @r#"
    {
      "id": "msg_0",
      "type": "message",
      "role": "assistant",
      "model": "ember",
      "content": [
        {
          "type": "thinking",
          "thinking": "Hm.",
          "signature": "eA=="
        },
        {
          "type": "text",
          "text": "Grüß \"dich\"\n"
        },
        {
          "type": "tool_use",
          "id": "toolu_0",
          "name": "look",
          "input": {
            "at": "hearth"
          }
        }
      ],
      "stop_reason": "tool_use",
      "stop_sequence": null,
      "usage": {
        "input_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 16,
        "output_tokens": 9,
        "output_tokens_details": {
          "thinking_tokens": 2
        }
      }
    }
    "#);
}

#[test]
fn an_error() {
    let body = ErrorResponse {
        kind: "error".into(),
        error: ErrorObject {
            kind: "invalid_request_error".into(),
            message: "top_p must be 0 to 1, not 2".into(),
            details: object(json!({"error_code": "invalid_value", "param": "top_p"})),
        },
        request_id: "req-0".into(),
    };
    let sent = serde_json::to_string_pretty(&body).unwrap();
    assert_eq!(parse::body::<ErrorResponse>(sent.as_bytes()).unwrap(), body);
    assert_snapshot!(sent, @r#"
    {
      "type": "error",
      "error": {
        "type": "invalid_request_error",
        "message": "top_p must be 0 to 1, not 2",
        "details": {
          "error_code": "invalid_value",
          "param": "top_p"
        }
      },
      "request_id": "req-0"
    }
    "#);
}

#[test]
fn what_clients_send_is_read() {
    let sent = json!({
        "model": "ember",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "citations": null}]}],
        "thinking": {"type": "between_tools"},
        "metadata": {"user_id": "x"},
        "service_tier": "auto",
        "context_management": {"edits": []},
    });
    let read: MessagesRequest = parse::body(sent.to_string().as_bytes()).unwrap();
    read.check().unwrap();
    assert_eq!(read.thinking.unwrap().kind, ThinkingMode::BetweenTools);
    let Content::Blocks(blocks) = &read.messages[0].content else {
        panic!("{read:?}");
    };
    assert_eq!(blocks[0].text.as_deref(), Some("hi"));
}

#[test]
fn a_wrong_field_in_a_block_is_named() {
    for (block, place) in [
        (json!({"type": 5}), "messages[0].content[1].type"),
        (json!("text"), "messages[0].content[1]"),
        (
            json!({"type": "tool_use", "input": []}),
            "messages[0].content[1].input",
        ),
        (
            json!({"type": "tool_result", "content": [{"type": "text", "text": {}}]}),
            "messages[0].content[1].content[0].text",
        ),
    ] {
        let good = json!({"type": "text", "text": "hi"});
        let sent = json!({"messages": [{"role": "user", "content": [good, block]}]});
        let wrong = parse::body::<MessagesRequest>(sent.to_string().as_bytes()).unwrap_err();
        assert_eq!(wrong.param.as_deref(), Some(place), "{wrong:?}");
    }
}
