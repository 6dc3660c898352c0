//! Ollama's surface over HTTP: what its clients send, what they get, and what is said when it is wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_engine::{Catalogue, EngineOptions, ModelSource};
use hearth_models::{ModelStore, Network, Sources};
use hearth_node::{Models, NodeOptions};
use hearth_testkit::bert::{Bert, Pooling};
use hearth_testkit::gguf::{self, Quantisation, Shape};
use hearth_testkit::hub::{Faults, Hub};
use hearth_testkit::node::{Reply, TestNode, ember, node_options, options, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn with(mut body: Value, extra: Value) -> String {
    let fields = body.as_object_mut().unwrap();
    fields.extend(extra.as_object().unwrap().clone());
    body.to_string()
}

fn chat(node: &TestNode, extra: Value) -> Reply {
    let body = json!({
        "model": "ember",
        "messages": [{"role": "user", "content": "what is hearth"}],
        "options": {"temperature": 0, "num_predict": 12},
    });
    node.post("/api/chat", with(body, extra))
}

fn generate(node: &TestNode, extra: Value) -> Reply {
    let body = json!({
        "model": "ember",
        "prompt": "what is hearth",
        "options": {"temperature": 0, "num_predict": 12},
    });
    node.post("/api/generate", with(body, extra))
}

/// The JSON of every line.
fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/x-ndjson")),
        "{reply:?}"
    );
    let lines = reply.body.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

fn error(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    let fields = body.as_object().unwrap();
    assert_eq!(fields.len(), 1, "{body}");
    (reply.status, fields["error"].as_str().unwrap().to_owned())
}

/// Names of the loaded models.
fn loaded(node: &TestNode) -> Vec<String> {
    let models = node.get("/api/ps").json()["models"].clone();
    let models = models.as_array().unwrap().iter();
    models
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn answers_come_in_lines_or_whole_and_say_the_same() {
    let node = TestNode::start(options());
    type Ask = fn(&TestNode, Value) -> Reply;
    for (ask, text) in [
        (chat as Ask, "/message/content"),
        (generate as Ask, "/response"),
    ] {
        let whole = ask(&node, json!({"stream": false})).json();
        let lines = lines(&ask(&node, json!({})));
        assert!(lines.len() > 3, "{lines:?}");
        let streamed: String = lines
            .iter()
            .map(|line| line.pointer(text).unwrap().as_str().unwrap())
            .collect();
        assert_eq!(whole.pointer(text), Some(&json!(streamed)));
        assert!(!streamed.is_empty());
        let (end, pieces) = lines.split_last().unwrap();
        assert!(pieces.iter().all(|line| line["done"] == false
            && line["model"] == "ember"
            && line.get("eval_count").is_none()));
        for end in [end, &whole] {
            assert_eq!(
                (&end["done"], &end["model"]),
                (&json!(true), &json!("ember"))
            );
            assert!(["stop", "length"].contains(&end["done_reason"].as_str().unwrap()));
            for field in [
                "total_duration",
                "load_duration",
                "prompt_eval_count",
                "prompt_eval_duration",
                "eval_count",
                "eval_duration",
            ] {
                assert!(end[field].as_u64().unwrap() > 0, "{field}: {end}");
            }
            assert!(end["total_duration"].as_u64() > end["eval_duration"].as_u64());
            let written = end["created_at"].as_str().unwrap();
            assert!(
                written.starts_with("20") && written.ends_with('Z'),
                "{written}"
            );
        }
        assert_eq!(end["eval_count"], whole["eval_count"]);
        assert_eq!(end["prompt_eval_count"], whole["prompt_eval_count"]);
    }
    let said = chat(&node, json!({"stream": false})).json();
    assert_eq!(said["message"]["role"], "assistant");
    // The same prompt through either route is the same conversation.
    let prompted = generate(&node, json!({"stream": false})).json();
    assert_eq!(said["message"]["content"], prompted["response"]);
    let raw = generate(&node, json!({"stream": false, "raw": true})).json();
    assert!(raw["prompt_eval_count"].as_u64() < prompted["prompt_eval_count"].as_u64());
    let system = generate(&node, json!({"stream": false, "system": "answer briefly"})).json();
    assert!(system["prompt_eval_count"].as_u64() > prompted["prompt_eval_count"].as_u64());
}

#[test]
fn options_shape_the_answer() {
    let node = TestNode::start(options());
    let ask = |options: Value| chat(&node, json!({"stream": false, "options": options})).json();
    // Ollama's own defaults, as some clients send them all.
    let usual = ask(json!({
        "num_ctx": 1024, "num_predict": 8.0, "num_keep": 4, "num_gpu": -1, "num_thread": 0, "num_batch": 512,
        "use_mmap": true, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "typical_p": 1.0,
        "repeat_last_n": 64, "repeat_penalty": 1.1, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "mirostat": 0, "seed": 7, "stop": [],
    }));
    assert_eq!(usual["eval_count"], 8, "{usual}");
    let free = json!({"temperature": 1.5, "top_k": 0, "seed": 5, "num_predict": 12});
    assert_eq!(ask(free.clone())["message"], ask(free)["message"]);
    let text = ask(json!({"temperature": 0, "num_predict": 12}))["message"]["content"].clone();
    let text = text.as_str().unwrap();
    let word = text.split_whitespace().nth(2).unwrap();
    for stop in [json!(word), json!([word])] {
        let cut = ask(json!({"temperature": 0, "num_predict": 12, "stop": stop}));
        assert_eq!(cut["message"]["content"], text[..text.find(word).unwrap()]);
        assert_eq!(cut["done_reason"], "stop");
    }
    // Without a limit it ends by itself, or at the end of the context.
    let long = ask(json!({"temperature": 0, "num_predict": -1}));
    assert!(long["eval_count"].as_u64().unwrap() > 12, "{long}");
    let likely = chat(
        &node,
        json!({"logprobs": true, "top_logprobs": 2, "stream": false}),
    )
    .json();
    let tokens = likely["logprobs"].as_array().unwrap();
    assert_eq!(Some(tokens.len() as u64), likely["eval_count"].as_u64());
    assert!(tokens[0]["logprob"].as_f64().unwrap() <= 0.0);
    assert_eq!(tokens[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[test]
fn answers_follow_a_format() {
    let node = TestNode::start(options());
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}}, "required": ["city", "warm"], "additionalProperties": false});
    for seed in 0..3 {
        let options = json!({"num_predict": 200, "temperature": 1.0, "seed": seed});
        let asked = json!({"format": schema, "options": options, "stream": false});
        let answer = chat(&node, asked.clone()).json();
        let text = answer["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
        assert!(
            value["city"].is_string() && value["warm"].is_boolean(),
            "{text}"
        );
        let prompted = generate(&node, asked).json();
        assert_eq!(prompted["response"], text);
    }
    let json = chat(&node, json!({"format": "json", "stream": false})).json();
    assert!(
        json["message"]["content"]
            .as_str()
            .unwrap()
            .starts_with('{')
    );
    let none = chat(&node, json!({"format": "", "stream": false})).json();
    assert_eq!(
        none["message"],
        chat(&node, json!({"stream": false})).json()["message"]
    );
}

fn light() -> Value {
    json!({"type": "function", "function": {
        "name": "set_light",
        "description": "Switches a light",
        "parameters": {
            "type": "object",
            "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
        },
    }})
}

#[test]
fn calls_come_whole_and_their_results_go_back() {
    let node = TestNode::start(options());
    let question = json!({"role": "user", "content": "lights on in the hall"});
    let asked = json!({
        "messages": [question],
        "tools": [light()],
        "tool_choice": "required",
        "options": {"temperature": 0, "num_predict": 200},
    });
    let mut whole = asked.clone();
    whole["stream"] = false.into();
    let whole = chat(&node, whole).json();
    let calls = whole["message"]["tool_calls"].as_array().unwrap();
    for call in calls {
        assert_eq!(call["function"]["name"], "set_light");
        let arguments = &call["function"]["arguments"];
        assert!(
            arguments["on"].is_boolean() && arguments["room"].is_string(),
            "{call}"
        );
    }
    assert!(!calls.is_empty(), "{whole}");
    let lines = lines(&chat(&node, asked));
    let streamed: Vec<&Value> = lines
        .iter()
        .flat_map(|line| {
            line["message"]["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
        })
        .map(|call| &call["function"])
        .collect();
    let whole_calls: Vec<&Value> = calls.iter().map(|call| &call["function"]).collect();
    assert_eq!(streamed, whole_calls);

    // A call that the limit cut off is text.
    let text: String = lines
        .iter()
        .map(|line| line["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(whole["message"]["content"], text);

    // What its clients send back: the message as it came, and results that name the tool.
    let result = json!({"role": "tool", "tool_name": "set_light", "content": "done"});
    let messages = json!([question, whole["message"], result]);
    let next = chat(
        &node,
        json!({"messages": messages, "tools": [light()], "stream": false}),
    );
    assert_eq!(next.status, 200, "{next:?}");
    assert!(next.json()["prompt_eval_count"].as_u64() > whole["prompt_eval_count"].as_u64());
}

/// Opens the reasoning itself, unless it is told not to.
const THINKING: &str = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}\
    {%- if enable_thinking is defined and not enable_thinking %}{{- '\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";

#[test]
fn a_model_that_reasons_does_as_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape {
        template: THINKING,
        ..Shape::TINY
    };
    let file = folder.path().join("thinker.gguf");
    gguf::write(&file, &shape, Quantisation::Q8_0, 3).unwrap();
    let node = TestNode::over(Some(folder.path().into()), options(), node_options());
    let show = node.post("/api/show", json!({"model": "thinker"}).to_string());
    let capabilities = json!(["completion", "tools", "thinking"]);
    assert_eq!(show.json()["capabilities"], capabilities);
    let listed = node.get("/api/tags").json()["models"][1].clone();
    assert_eq!(listed["name"], "thinker:latest");
    assert_eq!(listed["details"]["quantization_level"], "Q8_0");
    let options = json!({"num_predict": 40, "seed": 1});
    for (think, thinks) in [
        (Value::Null, true),
        (json!(true), true),
        (json!("low"), true),
        (json!("max"), true),
        (json!(false), false),
    ] {
        let asked =
            json!({"model": "thinker", "think": think, "options": options, "stream": false});
        let said = chat(&node, asked.clone()).json()["message"].clone();
        // Random weights do not stop thinking by themselves.
        let (thought, text) = (&said["thinking"], said["content"].as_str().unwrap());
        assert_eq!(
            (thought.is_string(), text.is_empty()),
            (thinks, thinks),
            "{think}: {said}"
        );
        let prompted = generate(&node, asked).json();
        assert_eq!(
            prompted["thinking"].is_string(),
            thinks,
            "{think}: {prompted}"
        );
    }
    let asked = json!({"model": "thinker", "options": options});
    let lines = lines(&chat(&node, asked));
    assert!(lines[0]["message"]["thinking"].is_string(), "{}", lines[0]);
}

#[test]
fn models_are_listed_shown_and_kept_as_ollama_does() {
    let node = TestNode::start(options());
    assert_eq!(
        node.get("/api/version").json(),
        json!({"version": "0.12.0", "hearth": "0.0.0"})
    );
    let tags = node.get("/api/tags").json();
    let listed = &tags["models"][0];
    assert_eq!(
        (&listed["name"], &listed["model"]),
        (&json!("ember:latest"), &json!("ember:latest"))
    );
    assert_eq!(listed["digest"].as_str().unwrap().len(), 64);
    assert_eq!(listed["size"], std::fs::metadata(ember()).unwrap().len());
    assert_eq!(listed["details"]["format"], "gguf");
    for field in ["family", "parameter_size", "quantization_level"] {
        assert!(
            !listed["details"][field].as_str().unwrap().is_empty(),
            "{listed}"
        );
    }
    assert!(listed["modified_at"].as_str().unwrap().ends_with('Z'));
    // Ask nothing: the model is loaded, for as long as is said.
    assert!(loaded(&node).is_empty());
    let name = listed["name"].clone();
    let load = chat(
        &node,
        json!({"model": name, "messages": [], "keep_alive": "1h"}),
    )
    .json();
    assert_eq!(
        (&load["done"], &load["done_reason"], &load["model"]),
        (&json!(true), &json!("load"), &name)
    );
    let ps = node.get("/api/ps").json();
    let running = &ps["models"][0];
    assert_eq!(running["name"], name);
    assert_eq!(running["digest"], listed["digest"]);
    assert_eq!(
        (&running["context_length"], &running["size_vram"]),
        (&json!(1024), &json!(0))
    );
    assert!(running["size"].as_u64() > listed["size"].as_u64());
    let in_an_hour = |ps: &Value| {
        let at: jiff::Timestamp = ps["models"][0]["expires_at"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        at.duration_since(jiff::Timestamp::now()).as_secs()
    };
    assert!((3500..=3600).contains(&in_an_hour(&ps)), "{ps}");
    // A request of another kind does not change it; a negative time keeps it for ever.
    chat(&node, json!({}));
    assert!((3500..=3600).contains(&in_an_hour(&node.get("/api/ps").json())));
    chat(&node, json!({"keep_alive": -1}));
    assert!(in_an_hour(&node.get("/api/ps").json()) > 100 * 365 * 24 * 3600);

    let show = node
        .post("/api/show", json!({"model": "ember"}).to_string())
        .json();
    assert_eq!(show["details"], listed["details"]);
    assert!(
        show["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("completion"))
    );
    let info = show["model_info"].as_object().unwrap();
    let family = info["general.architecture"].as_str().unwrap();
    assert_eq!(listed["details"]["family"], family);
    assert!(info[&format!("{family}.context_length")].as_u64().unwrap() > 0);
    assert!(info["general.parameter_count"].as_u64().unwrap() > 0);
    assert_eq!(info["tokenizer.ggml.tokens"], Value::Null);
    assert!(show["template"].as_str().unwrap().contains("messages"));
    assert!(show["modelfile"].as_str().unwrap().contains("\nFROM "));
    let all = node.post(
        "/api/show",
        json!({"name": "ember:latest", "verbose": true}).to_string(),
    );
    assert!(all.json()["model_info"]["tokenizer.ggml.tokens"].is_array());
    let missing = node.post("/api/show", json!({"model": "llama9"}).to_string());
    let (status, message) = error(&missing);
    assert!(
        status == 404 && message.starts_with("model 'llama9' not found"),
        "{message}"
    );
}

#[test]
fn keep_alive_zero_unloads_after_the_answer_and_refuses_nobody() {
    let node = TestNode::start(EngineOptions {
        queue_limit: 64,
        ..options()
    });
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|number| {
                let node = &node;
                scope.spawn(move || {
                    chat(
                        node,
                        json!({"keep_alive": if number % 2 == 0 { json!(0) } else { json!("0s") }}),
                    )
                })
            })
            .collect();
        for answer in asked {
            let answer = answer.join().unwrap();
            assert_eq!(lines(&answer).last().unwrap()["done"], true);
        }
    });
    wait_until(PATIENCE, "the model is gone", || loaded(&node).is_empty());
    assert_eq!(
        chat(&node, json!({"stream": false})).status,
        200,
        "it comes back"
    );
    assert_eq!(loaded(&node), ["ember:latest"]);
    let gone = generate(&node, json!({"prompt": "", "keep_alive": 0})).json();
    assert_eq!(
        (&gone["done_reason"], &gone["response"]),
        (&json!("unload"), &json!(""))
    );
    wait_until(PATIENCE, "the model is gone", || loaded(&node).is_empty());
    // Unloading what is not loaded is no mistake.
    let gone = chat(&node, json!({"messages": [], "keep_alive": "0"})).json();
    assert_eq!(gone["done_reason"], "unload");
}

#[test]
fn texts_become_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bert.gguf");
    Bert::new(Pooling::Mean, 7).write(&file).unwrap();
    let node = TestNode::over(Some(folder.path().into()), options(), node_options());
    let ask = |extra: Value| {
        let body = with(json!({"model": "bert"}), extra);
        node.post("/api/embed", body).json()
    };
    let vector = |value: &Value| -> Vec<f64> {
        let numbers = value.as_array().unwrap().iter();
        numbers.map(|number| number.as_f64().unwrap()).collect()
    };
    let both = ask(json!({"input": ["warm fire", "cold snow"]}));
    assert_eq!(both["embeddings"].as_array().unwrap().len(), 2);
    assert_eq!(both["model"], "bert");
    for field in ["total_duration", "load_duration", "prompt_eval_count"] {
        assert!(both[field].as_u64().unwrap() > 0, "{field}: {both}");
    }
    let first = vector(&both["embeddings"][0]);
    let length: f64 = first.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-3, "{length}");
    let one = ask(json!({"input": "warm fire", "truncate": true, "options": {"num_gpu": 1}}));
    let far = |other: &[f64]| {
        first
            .iter()
            .zip(other)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    };
    assert!(far(&vector(&one["embeddings"][0])) < 1e-3);
    let old = node.post(
        "/api/embeddings",
        json!({"model": "bert", "prompt": "warm fire"}).to_string(),
    );
    assert!(far(&vector(&old.json()["embedding"])) < 1e-3);
    let short = ask(json!({"input": "warm fire", "dimensions": 8}));
    assert_eq!(vector(&short["embeddings"][0]).len(), 8);
    // Nothing to embed loads the model.
    assert_eq!(
        ask(json!({"input": [], "keep_alive": "1h"}))["embeddings"],
        json!([])
    );
    assert_eq!(loaded(&node), ["bert:latest"]);
    let show = node
        .post("/api/show", json!({"model": "bert"}).to_string())
        .json();
    assert_eq!(show["capabilities"], json!(["embedding"]));
    ask(json!({"input": "", "keep_alive": 0}));
    wait_until(PATIENCE, "the model is gone", || loaded(&node).is_empty());

    let long = "word ".repeat(4000);
    for (path, body, status, words) in [
        (
            "/api/embed",
            json!({"model": "ember", "input": "a"}),
            400,
            "generates text",
        ),
        (
            "/api/embed",
            json!({"model": "nobody", "input": "a"}),
            404,
            "model 'nobody' not found",
        ),
        (
            "/api/embed",
            json!({"input": "a"}),
            400,
            "model is required",
        ),
        (
            "/api/embed",
            json!({"model": "bert", "input": 5}),
            400,
            "input: expected a string",
        ),
        (
            "/api/embed",
            json!({"model": "bert", "input": ["a", ""]}),
            400,
            "input[1] is empty",
        ),
        (
            "/api/embed",
            json!({"model": "bert", "input": "a", "dimensions": 100_000}),
            400,
            "dimensions",
        ),
        (
            "/api/embed",
            json!({"model": "bert", "input": long}),
            400,
            "input has",
        ),
        (
            "/api/embeddings",
            json!({"model": "bert", "prompt": long}),
            400,
            "prompt has",
        ),
        (
            "/api/embeddings",
            json!({"prompt": "a"}),
            400,
            "model is required",
        ),
        (
            "/api/chat",
            json!({"model": "bert", "messages": [{"role": "user", "content": "hi"}]}),
            400,
            "embeds texts",
        ),
    ] {
        let (found, message) = error(&node.post(path, body.to_string()));
        assert_eq!(found, status, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    assert!(loaded(&node).iter().all(|name| name == "bert:latest"));
}

/// A node whose models are in a store under `folder`, which is filled through this network.
fn node_with_store(folder: &Path, network: Network) -> (TestNode, ModelStore) {
    let store = ModelStore::new(folder.join("store"));
    let stored = Sources::new(store.clone());
    let source = move || {
        let listed = stored.list().into_iter();
        let listed = listed.map(|(name, path)| ModelSource { name, path });
        listed.collect()
    };
    let mut catalogue = Catalogue::new(None)
        .with_source(Arc::new(source))
        .with_advice(hearth_models::how_to_get);
    catalogue.register("ember", ember());
    let models = Some(Models::new(store.clone(), network, false));
    let node = NodeOptions {
        models,
        ..node_options()
    };
    (TestNode::serving(catalogue, options(), node), store)
}

#[test]
fn models_are_pulled_copied_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    gguf::write(&file, &Shape::TINY, Quantisation::Q8_0, 5).unwrap();
    let hub = Hub::start();
    let bytes = std::fs::read(&file).unwrap();
    let size = bytes.len() as u64;
    let digest = hub.add("house/tiny-GGUF", "tiny-Q8_0.gguf", bytes);
    let network = Network {
        hub: hub.url(),
        retries: 0,
        ..Network::default()
    };
    let (node, _) = node_with_store(folder.path(), network);
    let names = || -> Vec<String> {
        let models = node.get("/api/tags").json()["models"].clone();
        let models = models.as_array().unwrap().iter();
        models
            .map(|model| model["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let post = |path: &str, body: Value| node.post(path, body.to_string());

    let steps = lines(&post("/api/pull", json!({"model": "house/tiny-GGUF:Q8_0"})));
    let said: Vec<&str> = steps
        .iter()
        .map(|step| step["status"].as_str().unwrap())
        .collect();
    let hex = digest.hex();
    let pulling = format!("pulling {}", &hex[..12]);
    let mut different = said.clone();
    different.dedup();
    assert_eq!(
        different,
        [
            "pulling manifest",
            &pulling,
            "verifying sha256 digest",
            "writing manifest",
            "success"
        ]
    );
    let bytes = steps
        .iter()
        .rfind(|step| step["status"] == pulling.as_str())
        .unwrap();
    assert_eq!(
        (&bytes["digest"], &bytes["total"], &bytes["completed"]),
        (&json!(format!("sha256:{hex}")), &json!(size), &json!(size))
    );
    let name = "hf:house/tiny-GGUF:Q8_0";
    assert_eq!(names(), ["ember:latest", name]);
    let listed = node.get("/api/tags").json()["models"][1].clone();
    assert_eq!(
        (&listed["digest"], &listed["size"]),
        (&json!(hex), &json!(size))
    );
    let said = chat(&node, json!({"model": name, "stream": false})).json();
    assert_eq!(said["model"], name, "{said}");

    // Again: everything is here.
    let again = post("/api/pull", json!({"name": name, "stream": false}));
    assert_eq!(
        (again.status, again.json()),
        (200, json!({"status": "success"}))
    );
    // The name means another file now, also for the model that is loaded.
    gguf::write(&file, &Shape::TINY, Quantisation::Q8_0, 6).unwrap();
    let digest = hub.add(
        "house/tiny-GGUF",
        "tiny-Q8_0.gguf",
        std::fs::read(&file).unwrap(),
    );
    let newer = post("/api/pull", json!({"model": name, "stream": false}));
    assert_eq!(newer.status, 200, "{newer:?}");
    let listed = node.get("/api/tags").json()["models"][1].clone();
    assert_eq!(listed["digest"], digest.hex());
    let other = chat(&node, json!({"model": name, "stream": false})).json();
    assert_ne!(other["message"], said["message"]);
    let copied = post("/api/copy", json!({"source": name, "destination": "mine"}));
    assert_eq!((copied.status, copied.body.as_str()), (200, ""));
    // What is not the store's can be copied, too.
    let own = post(
        "/api/copy",
        json!({"source": "ember", "destination": "own:v1"}),
    );
    assert_eq!(own.status, 200, "{own:?}");
    assert_eq!(names(), ["ember:latest", name, "mine:latest", "own:v1"]);
    let same = node
        .post("/api/show", json!({"model": "mine"}).to_string())
        .json();
    assert_eq!(same["details"]["quantization_level"], "Q8_0");
    let gone = node.delete("/api/delete", json!({"model": name}).to_string());
    assert_eq!((gone.status, gone.body.as_str()), (200, ""));
    assert_eq!(names(), ["ember:latest", "mine:latest", "own:v1"]);
    wait_until(PATIENCE, "it is unloaded", || loaded(&node).is_empty());
    let still = chat(&node, json!({"model": "mine", "stream": false}));
    assert_eq!(still.status, 200, "its file has another name");

    for (path, body, status, words) in [
        ("/api/pull", json!({}), 400, "model is required"),
        ("/api/pull", json!({"model": "../etc"}), 400, "../etc"),
        (
            "/api/pull",
            json!({"model": "house/none-GGUF:Q8_0", "stream": false}),
            404,
            "none-GGUF",
        ),
        (
            "/api/copy",
            json!({"source": "nobody", "destination": "x"}),
            404,
            "model 'nobody' not found",
        ),
        (
            "/api/copy",
            json!({"source": "mine", "destination": "a b"}),
            400,
            "a b",
        ),
        ("/api/copy", json!({"source": "mine"}), 400, "destination"),
        (
            "/api/copy",
            json!({"source": "mine", "destination": "ember"}),
            400,
            "part of Hearth",
        ),
    ] {
        let (found, message) = error(&post(path, body.clone()));
        assert_eq!(found, status, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    let last = lines(&post("/api/pull", json!({"model": "house/none-GGUF:Q8_0"})))
        .pop()
        .unwrap();
    assert!(
        last["error"].as_str().unwrap().contains("none-GGUF"),
        "{last}"
    );
    let slip = "model 'embr' not found; did you mean `ember`? `hearth list` shows what is here";
    let (_, message) = error(&post(
        "/api/copy",
        json!({"source": "embr", "destination": "x"}),
    ));
    assert_eq!(message, slip, "said once");
    for (name, status, words) in [
        ("nobody", 404, "model 'nobody' not found"),
        ("embr", 404, slip),
        ("ember", 400, "part of Hearth"),
    ] {
        let gone = node.delete("/api/delete", json!({"model": name}).to_string());
        let (found, message) = error(&gone);
        assert!(
            found == status && message.contains(words),
            "{name}: {message}"
        );
    }
    let without = TestNode::start(options());
    let (status, message) = error(&without.post("/api/pull", json!({"model": "x"}).to_string()));
    assert!(
        status == 501 && message.contains("keeps no models"),
        "{message}"
    );
}

#[test]
fn a_client_that_leaves_ends_its_pull() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    gguf::write(&file, &Shape::TINY, Quantisation::Q8_0, 5).unwrap();
    let hub = Hub::start();
    let bytes = std::fs::read(&file).unwrap();
    let size = bytes.len() as u64;
    hub.add("house/tiny-GGUF", "tiny-Q8_0.gguf", bytes);
    hub.set(Faults {
        hold_after: Some(64 << 10),
        ..Faults::default()
    });
    // It would try for as long as this test waits.
    let network = Network {
        hub: hub.url(),
        patience: Duration::from_millis(200),
        backoff: Duration::from_millis(1),
        retries: u32::MAX,
        ..Network::default()
    };
    let (node, store) = node_with_store(folder.path(), network);
    let body = json!({"model": "house/tiny-GGUF:Q8_0"}).to_string();
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let (host, length) = (node.address(), body.len());
    write!(
        stream,
        "POST /api/pull HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"completed\"")));
    drop((lines, stream));
    // Once nobody works on it any more, what came of it can be removed.
    wait_until(PATIENCE, "what came is nobody's", || {
        store.prune().unwrap().freed > 0
    });
    assert!(hub.sent() < size, "{}", hub.sent());
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn mistakes_name_the_field_in_ollamas_shape() {
    let node = TestNode::start(options());
    let question = json!([{"role": "user", "content": "hi"}]);
    let cases = [
        (
            "/api/chat",
            json!({"messages": question}),
            400,
            "model is required",
        ),
        (
            "/api/chat",
            json!({"model": "", "messages": question}),
            400,
            "model is required",
        ),
        (
            "/api/chat",
            json!({"model": "gpt-9", "messages": question}),
            404,
            "model 'gpt-9' not found",
        ),
        (
            "/api/generate",
            json!({"model": "gpt-9", "prompt": "hi"}),
            404,
            "model 'gpt-9' not found",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": [{"role": "owner", "content": "hi"}]}),
            400,
            "messages[0].role",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": [{"role": "user"}]}),
            400,
            "messages[0].content is missing",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": [{"role": "user", "content": ["hi"]}]}),
            400,
            "messages[0].content",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": [{"role": "user", "content": "what is this", "images": ["aGk="]}]}),
            400,
            "messages[0].images",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}),
            400,
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "think": "very"}),
            400,
            "think: expected true, false",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "think": true}),
            400,
            "does not support thinking",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "format": "xml"}),
            400,
            "format: expected \"json\"",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "format": {"not": {}}}),
            400,
            "format",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "tools": [{"type": "search"}]}),
            400,
            "tools[0]",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "options": {"temperature": 9}}),
            400,
            "temperature must be",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "options": {"temperature": "hot"}}),
            400,
            "options.temperature",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "options": {"top_k": 1.5}}),
            400,
            "options.top_k",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "options": {"num_predict": 0}}),
            400,
            "options.num_predict must be at least 1",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "options": {"num_ctx": 8192}}),
            400,
            "options.num_ctx is 8192",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "options": {"mirostat": 2}}),
            400,
            "options.mirostat",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "keep_alive": "soon"}),
            400,
            "keep_alive",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": question, "top_logprobs": 3}),
            400,
            "top_logprobs needs logprobs",
        ),
        (
            "/api/chat",
            json!({"model": "ember", "messages": [{"role": "user", "content": "long ".repeat(4000)}]}),
            400,
            "tokens and the context holds 1024",
        ),
        (
            "/api/generate",
            json!({"model": "ember", "prompt": "hi", "suffix": "there"}),
            400,
            "suffix is not supported",
        ),
        (
            "/api/generate",
            json!({"model": "ember", "prompt": "hi", "template": "{{ .Prompt }}"}),
            400,
            "template is not supported",
        ),
        (
            "/api/generate",
            json!({"model": "ember", "prompt": "hi", "images": ["aGk="]}),
            400,
            "images",
        ),
        (
            "/api/generate",
            json!({"model": "ember", "prompt": "hi", "raw": true, "system": "x"}),
            400,
            "system",
        ),
        ("/api/show", json!({}), 400, "model is required"),
    ];
    for (path, body, status, words) in cases {
        let (found, message) = error(&node.post(path, body.to_string()));
        assert_eq!(found, status, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    for (body, words) in [
        ("", "missing request body"),
        ("{", "not valid JSON"),
        ("[]", "an object"),
    ] {
        let (status, message) = error(&node.post("/api/chat", body));
        assert!(
            status == 400 && message.contains(words),
            "{body}: {message}"
        );
    }
    let (status, message) = error(&node.get("/api/chat"));
    assert_eq!(status, 405, "{message}");
    let (status, message) = error(&node.post("/api/create", "{}"));
    assert!(status == 404 && message.contains("pull"), "{message}");
}

#[test]
fn whoever_looks_for_ollama_finds_it() {
    let node = TestNode::start(options());
    let found = node.get("/");
    assert_eq!(
        (found.status, found.body.as_str()),
        (200, "Ollama is running")
    );
    let page = node.visit("/");
    assert!(page.body.contains("<title>Hearth</title>"), "{page:?}");
    let paths = node.get("/openapi.json").json()["paths"].clone();
    for route in [
        "chat",
        "generate",
        "embed",
        "embeddings",
        "tags",
        "show",
        "ps",
        "version",
        "pull",
        "delete",
        "copy",
    ] {
        assert!(paths[format!("/api/{route}")].is_object(), "{route}");
    }
    // Pages of other sites get the same refusal as everywhere, in this shape.
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "GET /api/tags HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut refused = String::new();
    stream.read_to_string(&mut refused).unwrap();
    assert!(
        refused.starts_with("HTTP/1.1 403 ") && refused.contains("{\"error\":\"the Host"),
        "{refused}"
    );
    for path in ["/", "/api/tags", "/api/version"] {
        let mut stream = TcpStream::connect(node.address()).unwrap();
        let host = node.address();
        write!(
            stream,
            "HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut first = String::new();
        BufReader::new(stream).read_line(&mut first).unwrap();
        assert_eq!(first, "HTTP/1.1 200 OK\r\n", "{path}");
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_frees_its_slot() {
    let node = TestNode::start(options());
    let body = json!({"model": "ember", "prompt": "hi", "raw": true, "options": {"num_predict": 900, "temperature": 2, "top_k": 0}}).to_string();
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let (host, length) = (node.address(), body.len());
    write!(
        stream,
        "POST /api/generate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"response\"")));
    drop((lines, stream));
    wait_until(PATIENCE, "the slot is free", || node.load().slots_busy == 0);
}
