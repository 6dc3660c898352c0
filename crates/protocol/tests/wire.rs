//! The bodies as they go over the wire. Clients were written against these texts: a change here is a change for them.
#![allow(clippy::unwrap_used)]

use hearth_protocol::chat::{
    Answer, ChatCompletion, Choice, CompletionTokensDetails, Content, LogProbs, Message,
    PromptTokensDetails, TokenLogProb, TopLogProb, Usage,
};
use hearth_protocol::completion::{Completion, CompletionChoice, CompletionLogProbs};
use hearth_protocol::embedding::{Embedding, EmbeddingList, EmbeddingUsage, Vector};
use hearth_protocol::error::{ApiError, ErrorBody, Problem};
use hearth_protocol::model::{Model, ModelList};
use hearth_protocol::parse;
use hearth_protocol::recall::{Citation, Recalled, Used};
use hearth_protocol::status::{ModelLoad, ModelState, ModelStatus, NodeStatus};
use insta::assert_snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// As it is sent, with line breaks. It also must come back as what it was.
#[track_caller]
fn wire<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &T) -> String {
    let sent = serde_json::to_vec(body).unwrap();
    assert_eq!(&parse::body::<T>(&sent).unwrap(), body);
    serde_json::to_string_pretty(body).unwrap()
}

const USAGE: Usage = Usage {
    prompt_tokens: 24,
    completion_tokens: 2,
    total_tokens: 26,
    prompt_tokens_details: PromptTokensDetails { cached_tokens: 16 },
    completion_tokens_details: CompletionTokensDetails {
        reasoning_tokens: 0,
    },
};

fn facts(facts: Value) -> Map<String, Value> {
    serde_json::from_value(facts).unwrap()
}

#[test]
fn a_chat_completion() {
    let choice = |index, logprobs| Choice {
        index,
        message: Answer {
            role: "assistant".into(),
            content: Some("Grüß \"dich\"\n".into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            refusal: None,
        },
        logprobs,
        finish_reason: "stop".into(),
    };
    let body = ChatCompletion {
        id: "chatcmpl-0".into(),
        object: "chat.completion".into(),
        created: 1_790_000_000,
        model: "ember".into(),
        choices: vec![choice(0, None), choice(1, Some(LogProbs::default()))],
        usage: USAGE,
        system_fingerprint: "hearth-0.1.0".into(),
        hearth: None,
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "id": "chatcmpl-0",
      "object": "chat.completion",
      "created": 1790000000,
      "model": "ember",
      "choices": [
        {
          "index": 0,
          "message": {
            "role": "assistant",
            "content": "Grüß \"dich\"\n",
            "refusal": null
          },
          "logprobs": null,
          "finish_reason": "stop"
        },
        {
          "index": 1,
          "message": {
            "role": "assistant",
            "content": "Grüß \"dich\"\n",
            "refusal": null
          },
          "logprobs": {
            "content": []
          },
          "finish_reason": "stop"
        }
      ],
      "usage": {
        "prompt_tokens": 24,
        "completion_tokens": 2,
        "total_tokens": 26,
        "prompt_tokens_details": {
          "cached_tokens": 16
        },
        "completion_tokens_details": {
          "reasoning_tokens": 0
        }
      },
      "system_fingerprint": "hearth-0.1.0"
    }
    "#);
}

#[test]
fn the_memories_that_a_prompt_got() {
    let whole = Citation {
        id: "mem-00".into(),
        text: "We deploy\non Fridays".into(),
        score: 0.75,
        project: Some("shop".into()),
        kind: "fact".into(),
        source: Some("CLAUDE.md".into()),
        ..Citation::default()
    };
    let cut = Citation {
        cut: true,
        ..Citation::default()
    };
    let body = Used {
        memory: Recalled {
            used: vec![whole, cut],
            left_out: 2,
            words_only: Some("there is no encoder".into()),
        },
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "memory": {
        "used": [
          {
            "id": "mem-00",
            "text": "We deploy\non Fridays",
            "score": 0.75,
            "project": "shop",
            "kind": "fact",
            "source": "CLAUDE.md"
          },
          {
            "id": "",
            "text": "",
            "cut": true,
            "score": 0.0,
            "project": null,
            "kind": "",
            "source": null
          }
        ],
        "left_out": 2,
        "words_only": "there is no encoder"
      }
    }
    "#);
    assert_snapshot!(wire(&Used::default()), @r#"
    {
      "memory": {
        "used": []
      }
    }
    "#);
}

#[test]
fn log_probabilities() {
    let body = LogProbs {
        content: vec![TokenLogProb {
            token: "\u{fffd}".into(),
            logprob: -0.25,
            bytes: vec![195],
            top_logprobs: vec![TopLogProb {
                token: "a".into(),
                logprob: 0.0,
                bytes: vec![97],
            }],
        }],
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "content": [
        {
          "token": "�",
          "logprob": -0.25,
          "bytes": [
            195
          ],
          "top_logprobs": [
            {
              "token": "a",
              "logprob": 0.0,
              "bytes": [
                97
              ]
            }
          ]
        }
      ]
    }
    "#);
}

#[test]
fn usage() {
    assert_snapshot!(wire(&USAGE), @r#"
    {
      "prompt_tokens": 24,
      "completion_tokens": 2,
      "total_tokens": 26,
      "prompt_tokens_details": {
        "cached_tokens": 16
      },
      "completion_tokens_details": {
        "reasoning_tokens": 0
      }
    }
    "#);
}

#[test]
fn a_completion() {
    let body = Completion {
        id: "cmpl-0".into(),
        object: "text_completion".into(),
        created: 1_790_000_000,
        model: "ember".into(),
        choices: vec![CompletionChoice {
            index: 0,
            text: "a b".into(),
            logprobs: Some(CompletionLogProbs {
                tokens: vec!["a".into(), " b".into()],
                token_logprobs: vec![-0.5, -1.0],
                top_logprobs: vec![
                    facts(json!({"a": -0.5, "c": -2.0})),
                    facts(json!({" b": -1.0})),
                ],
                text_offset: vec![0, 1],
            }),
            finish_reason: Some("length".into()),
        }],
        usage: Some(USAGE),
        system_fingerprint: "hearth-0.1.0".into(),
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "id": "cmpl-0",
      "object": "text_completion",
      "created": 1790000000,
      "model": "ember",
      "choices": [
        {
          "index": 0,
          "text": "a b",
          "logprobs": {
            "tokens": [
              "a",
              " b"
            ],
            "token_logprobs": [
              -0.5,
              -1.0
            ],
            "top_logprobs": [
              {
                "a": -0.5,
                "c": -2.0
              },
              {
                " b": -1.0
              }
            ],
            "text_offset": [
              0,
              1
            ]
          },
          "finish_reason": "length"
        }
      ],
      "usage": {
        "prompt_tokens": 24,
        "completion_tokens": 2,
        "total_tokens": 26,
        "prompt_tokens_details": {
          "cached_tokens": 16
        },
        "completion_tokens_details": {
          "reasoning_tokens": 0
        }
      },
      "system_fingerprint": "hearth-0.1.0"
    }
    "#);
}

/// In a stream whose client did not ask for it `usage` is left out, and what is not known yet is null.
#[test]
fn a_chunk_of_a_completion() {
    let body = Completion {
        id: "cmpl-0".into(),
        object: "text_completion".into(),
        created: 1_790_000_000,
        model: "ember".into(),
        choices: vec![CompletionChoice {
            index: 0,
            text: " b".into(),
            logprobs: None,
            finish_reason: None,
        }],
        usage: None,
        system_fingerprint: "hearth-0.1.0".into(),
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "id": "cmpl-0",
      "object": "text_completion",
      "created": 1790000000,
      "model": "ember",
      "choices": [
        {
          "index": 0,
          "text": " b",
          "logprobs": null,
          "finish_reason": null
        }
      ],
      "system_fingerprint": "hearth-0.1.0"
    }
    "#);
}

#[test]
fn errors() {
    let body = |error| ErrorBody { error };
    let invalid = ApiError::invalid(Some("temperature".into()), "temperature must be 0 to 2");
    assert_snapshot!(wire(&body(invalid)), @r#"
    {
      "error": {
        "message": "temperature must be 0 to 2",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_value"
      }
    }
    "#);
    let unsupported = ApiError::unsupported("tools", "tools are not supported yet; leave them out");
    assert_snapshot!(wire(&body(unsupported)), @r#"
    {
      "error": {
        "message": "tools are not supported yet; leave them out",
        "type": "invalid_request_error",
        "param": "tools",
        "code": "unsupported_parameter"
      }
    }
    "#);
    let loading = ApiError {
        extra: facts(json!({"state": "loading", "progress": 0.5, "eta": 3.5})),
        ..ApiError::new("server_error", Some("model_loading"), "ember is loading")
    };
    assert_snapshot!(wire(&body(loading)), @r#"
    {
      "error": {
        "message": "ember is loading",
        "type": "server_error",
        "param": null,
        "code": "model_loading",
        "state": "loading",
        "progress": 0.5,
        "eta": 3.5
      }
    }
    "#);
}

#[test]
fn a_refused_body() {
    let refused = parse::body::<hearth_protocol::chat::ChatRequest>(b"{\"messages\": 5}");
    let error = refused.unwrap_err();
    assert_snapshot!(wire(&ErrorBody { error }), @r#"
    {
      "error": {
        "message": "messages: invalid type: integer `5`, expected a sequence",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "invalid_value"
      }
    }
    "#);
}

#[test]
fn a_problem_document() {
    let body = Problem {
        kind: "/problems/no-such-model".into(),
        title: "No such model".into(),
        status: 404,
        detail: "there is no model `gpt-9`; use one of: ember".into(),
        extra: facts(json!({"models": ["ember"]})),
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "type": "/problems/no-such-model",
      "title": "No such model",
      "status": 404,
      "detail": "there is no model `gpt-9`; use one of: ember",
      "models": [
        "ember"
      ]
    }
    "#);
}

#[test]
fn the_models() {
    let body = ModelList {
        object: "list".into(),
        data: vec![Model {
            id: "ember".into(),
            object: "model".into(),
            created: 1_790_000_000,
            owned_by: "hearth".into(),
        }],
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "object": "list",
      "data": [
        {
          "id": "ember",
          "object": "model",
          "created": 1790000000,
          "owned_by": "hearth"
        }
      ]
    }
    "#);
}

#[test]
fn a_nodes_status() {
    let idle = ModelStatus {
        name: "qwen3".into(),
        state: ModelState::Idle,
        progress: None,
        eta_seconds: None,
        error: None,
        size_bytes: 2_000_000_000,
        architecture: None,
        parameters: None,
        context: None,
        dimensions: None,
        load: None,
    };
    let body = NodeStatus {
        version: "0.1.0".into(),
        pid: 42,
        uptime_seconds: 7,
        address: "127.0.0.1:8321".into(),
        default_model: "ember".into(),
        cpu: "zen4".into(),
        memory_bytes: None,
        models_folder: None,
        models: vec![
            ModelStatus {
                name: "ember".into(),
                state: ModelState::Ready,
                architecture: Some("llama".into()),
                parameters: Some(4_000_000),
                context: Some(2048),
                load: Some(ModelLoad {
                    slots: 4,
                    decode_tokens_per_second: 12.5,
                    ..ModelLoad::default()
                }),
                ..idle.clone()
            },
            idle,
        ],
        elsewhere: Vec::new(),
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "version": "0.1.0",
      "pid": 42,
      "uptime_seconds": 7,
      "address": "127.0.0.1:8321",
      "default_model": "ember",
      "cpu": "zen4",
      "memory_bytes": null,
      "models": [
        {
          "name": "ember",
          "state": "ready",
          "progress": null,
          "eta_seconds": null,
          "size_bytes": 2000000000,
          "architecture": "llama",
          "parameters": 4000000,
          "context": 2048,
          "load": {
            "slots_busy": 0,
            "slots": 4,
            "queued": 0,
            "kv_used": 0,
            "kv_cells": 0,
            "parked_bytes": 0,
            "prefill_tokens": 0,
            "cached_tokens": 0,
            "decode_tokens": 0,
            "completed": 0,
            "cancelled": 0,
            "decode_tokens_per_second": 12.5,
            "prefill_tokens_per_second": 0.0
          }
        },
        {
          "name": "qwen3",
          "state": "idle",
          "progress": null,
          "eta_seconds": null,
          "size_bytes": 2000000000,
          "architecture": null,
          "parameters": null,
          "context": null,
          "load": null
        }
      ]
    }
    "#);
}

/// A transcript is written in the same shape that a request is read in.
#[test]
fn a_message() {
    let sent = json!([
        {"role": "developer", "content": "Be brief.", "name": "Ada"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": null},
    ])
    .to_string();
    let messages: Vec<Message> = parse::body(sent.as_bytes()).unwrap();
    assert!(matches!(messages[1].content, Some(Content::Parts(_))));
    let written = serde_json::to_string(&messages).unwrap();
    assert_eq!(written, sent.replace("developer", "system"));
}

#[test]
fn embeddings() {
    let vectors = [
        Vector::Float(vec![0.5, -0.25]),
        Vector::Base64("AAAAPwAAgL4=".into()),
    ];
    let data = (0..).zip(vectors).map(|(index, embedding)| Embedding {
        object: "embedding".into(),
        index,
        embedding,
    });
    let body = EmbeddingList {
        object: "list".into(),
        data: data.collect(),
        model: "nomic-embed-text".into(),
        usage: EmbeddingUsage {
            prompt_tokens: 9,
            total_tokens: 9,
        },
    };
    assert_snapshot!(wire(&body), @r#"
    {
      "object": "list",
      "data": [
        {
          "object": "embedding",
          "index": 0,
          "embedding": [
            0.5,
            -0.25
          ]
        },
        {
          "object": "embedding",
          "index": 1,
          "embedding": "AAAAPwAAgL4="
        }
      ],
      "model": "nomic-embed-text",
      "usage": {
        "prompt_tokens": 9,
        "total_tokens": 9
      }
    }
    "#);
}
