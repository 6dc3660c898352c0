//! The engine through its public door: requests in, events out, on real models.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_engine::{
    AdapterUse, Catalogue, Chat, Constraint, Engine, EngineError, EngineOptions, Event,
    FinishReason, Generation, ModelOptions, Prompt, Request, Sampling, Token, Usage,
};
use hearth_protocol::status::{ModelLoad, ModelState};
use hearth_testkit::gguf::{self, Quantisation, Shape, Tokenizer};
use hearth_testkit::node::{ember, options, wait_until};

fn engine(options: EngineOptions) -> Engine {
    let mut catalogue = Catalogue::new(None);
    catalogue.register("ember", ember());
    Engine::new(options, catalogue)
}

/// A prompt of exactly `length` tokens that differs from that of every other topic from its first token on.
fn prompt(topic: usize, length: usize) -> Vec<Token> {
    (0..length)
        .map(|at| (20 + topic + (at * (topic + 3) + at / 7) % 150) as Token)
        .collect()
}

/// Exactly `max_tokens` tokens, the most likely ones.
fn greedy(prompt: Vec<Token>, max_tokens: u32) -> Request {
    Request {
        sampling: Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        },
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        ..Request::new(Prompt::Tokens(prompt))
    }
}

struct Answer {
    texts: Vec<String>,
    reasons: Vec<FinishReason>,
    usage: Usage,
}

async fn collect(mut generation: Generation, choices: usize) -> Result<Answer, EngineError> {
    let mut answer = Answer {
        texts: vec![String::new(); choices],
        reasons: Vec::new(),
        usage: Usage::default(),
    };
    while let Some(event) = generation.next().await {
        match event? {
            Event::Started { .. } => {}
            Event::Text { choice, text, .. } => answer.texts[choice as usize].push_str(&text),
            Event::Reasoning { .. } | Event::ToolCall { .. } | Event::ToolArguments { .. } => {}
            Event::Finished { reason, .. } => answer.reasons.push(reason),
            Event::Done(usage) => answer.usage = usage,
        }
    }
    Ok(answer)
}

async fn ask(engine: &Engine, request: Request) -> Answer {
    let choices = request.n as usize;
    collect(engine.generate(None, request).await.unwrap(), choices)
        .await
        .unwrap()
}

fn load(engine: &Engine) -> ModelLoad {
    engine.status()[0].load.unwrap_or_default()
}

/// Waits for a condition of the engine; fails after half a minute.
async fn until(engine: &Engine, what: &str, met: impl Fn(&Engine) -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    for _ in 0..15_000 {
        if met(engine) {
            return;
        }
        looks.tick().await;
    }
    panic!("{what}: {:?}", engine.status());
}

/// An engine with one tiny model of random weights.
fn random(tokenizer: Tokenizer, options: EngineOptions) -> (tempfile::TempDir, Engine) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    gguf::write(&file, &Shape::tiny(tokenizer), Quantisation::Q8_0, 1).unwrap();
    let mut catalogue = Catalogue::new(None);
    catalogue.register("tiny", file);
    (folder, Engine::new(options, catalogue))
}

#[tokio::test]
async fn constraints_hold_for_vocabularies_that_put_a_blank_before_a_text() {
    let (_folder, engine) = random(Tokenizer::SentencePiece, options());
    let schema = serde_json::json!({"type": "object", "properties": {"name": {"enum": ["anna", "ben"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["name", "count"], "additionalProperties": false});
    for (constraint, fits) in [
        (Constraint::JsonSchema(schema), "{\"name\":"),
        (
            Constraint::Gbnf("root ::= \"yes, please\" | \"no\"".into()),
            "",
        ),
    ] {
        let request = Request {
            constraint,
            max_tokens: Some(200),
            ..Request::new(Prompt::Text("who is it?".into()))
        };
        let answer = collect(engine.generate(None, request).await.unwrap(), 1)
            .await
            .unwrap();
        assert!(
            answer.texts[0].replace(' ', "").starts_with(fits),
            "{:?}",
            answer.texts
        );
        assert_eq!(answer.reasons, [FinishReason::Stop], "{:?}", answer.texts);
    }
}

#[tokio::test]
async fn one_very_long_word_is_an_error_and_not_the_end_of_the_process() {
    // llama.cpp divides text for this vocabulary by a recursion over its letters.
    let long = EngineOptions {
        model: ModelOptions {
            context: Some(32_768),
            slots: 1,
            ..options().model
        },
        ..options()
    };
    let (_folder, engine) = random(Tokenizer::Bpe("gpt-4o"), long);
    for letters in [160_000, 3_000_000] {
        let request = Request::new(Prompt::Text("a".repeat(letters)));
        let error = engine.generate(None, request).await.err().unwrap();
        assert!(
            matches!(error, EngineError::ContextExceeded { .. }),
            "{error}"
        );
    }
    let (_folder, engine) = random(Tokenizer::Bpe("gpt-4o"), options());
    let request = greedy(prompt(1, 8), 2);
    collect(engine.generate(None, request).await.unwrap(), 1)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_right_also_when_the_cache_is_full() {
    // As many cells as one context: 7 layers of 320 keys and 320 values of 2 bytes each.
    let cells = 2048u64;
    let budget = std::fs::metadata(ember()).unwrap().len() + cells * 7 * 640 * 2;
    let tight = EngineOptions {
        model: ModelOptions {
            context: Some(2048),
            ..options().model
        },
        memory_budget: Some(budget),
        ..options()
    };
    let long = prompt(1, 1100);
    let shorter = [&long[..300], &prompt(5, 60)].concat();
    let asked = Request {
        logprobs: Some(0),
        ..greedy([&long[..400], &prompt(9, 20)].concat(), 1)
    };
    let logprob = async |engine: &Engine| {
        let mut generation = engine.generate(None, asked.clone()).await.unwrap();
        let mut found = None;
        while let Some(event) = generation.next().await {
            if let Event::Text { logprobs, .. } = event.unwrap() {
                found = found.or(logprobs.first().map(|token| token.chosen.logprob));
            }
        }
        found.unwrap()
    };
    let reference = logprob(&engine(tight.clone())).await;

    let engine = engine(tight);
    let answer = async |request| {
        collect(engine.generate(None, request).await.unwrap(), 1)
            .await
            .unwrap()
    };
    answer(greedy(long.clone(), 2)).await;
    assert_eq!(load(&engine).kv_cells, cells as u32);
    wait_until(Duration::from_secs(20), "the long prefix is parked", || {
        load(&engine).parked_bytes > 0
    });
    // Something else takes most cells and goes on for a while.
    let mut running = engine
        .generate(None, greedy(prompt(3, 1200), 600))
        .await
        .unwrap();
    while !matches!(running.next().await.unwrap().unwrap(), Event::Text { .. }) {}
    answer(greedy(shorter, 2)).await;
    // A longer prefix is parked than the one that is resident, and there is no room for it.
    let found = logprob(&engine).await;
    assert!(
        load(&engine).slots_busy >= 1,
        "the other one was to run all the time"
    );
    assert!(
        (found - reference).abs() < 0.05,
        "{found} instead of {reference}"
    );
}

#[tokio::test]
async fn the_shortest_keep_alive_still_answers() {
    let mut catalogue = Catalogue::new(None);
    // The first one is the default, which stays.
    catalogue.register("default", ember());
    catalogue.register("other", ember());
    let options = EngineOptions {
        keep_alive: Some(Duration::ZERO),
        ..options()
    };
    let engine = Engine::new(options, catalogue);
    for topic in 0..3 {
        let constrained = Request {
            constraint: Constraint::JsonSchema(
                serde_json::json!({"enum": (0..2000 + topic).collect::<Vec<u32>>()}),
            ),
            ..Request::new(Prompt::Text("a number".into()))
        };
        collect(
            engine.generate(Some("other"), constrained).await.unwrap(),
            1,
        )
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_does_not_say_about_sampling_the_model_s_file_says() {
    let engine = engine(options());
    let ask = async |temperature: Option<f32>| {
        let mut texts = std::collections::BTreeSet::new();
        for seed in 0..6 {
            let request = Request {
                sampling: Sampling {
                    temperature,
                    top_k: Some(0),
                    top_p: Some(1.0),
                    min_p: Some(0.0),
                    seed: Some(seed),
                    ..Sampling::default()
                },
                ..greedy(prompt(3, 20), 8)
            };
            let answer = collect(engine.generate(None, request).await.unwrap(), 1).await;
            texts.extend(answer.unwrap().texts);
        }
        texts.len()
    };
    // Ember's file says temperature 0.
    assert_eq!(ask(None).await, 1);
    assert!(ask(Some(2.0)).await > 1);
}

#[tokio::test]
async fn a_seed_fixes_the_text_and_another_one_changes_it() {
    let engine = engine(options());
    let seeded = |seed| Request {
        sampling: Sampling {
            temperature: Some(1.5),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            seed: Some(seed),
            ..Sampling::default()
        },
        max_tokens: Some(24),
        ..Request::new(Prompt::Text("Once upon a time".into()))
    };
    let first = ask(&engine, seeded(7)).await.texts;
    assert_eq!(first, ask(&engine, seeded(7)).await.texts);
    assert_ne!(first, ask(&engine, seeded(8)).await.texts);
}

#[tokio::test]
async fn a_prompt_seen_before_is_not_computed_again() {
    let engine = engine(options());
    let first = ask(&engine, greedy(prompt(1, 300), 8)).await;
    assert_eq!(
        first.usage,
        Usage {
            prompt_tokens: 300,
            cached_tokens: 0,
            completion_tokens: 8,
            reasoning_tokens: 0,
        }
    );
    let second = ask(&engine, greedy(prompt(1, 300), 8)).await;
    assert_eq!(
        second.usage.cached_tokens, 299,
        "all but the last token, which gives the logits"
    );
    assert_eq!(first.texts, second.texts);
    let longer = ask(&engine, greedy(prompt(1, 400), 8)).await;
    assert_eq!(longer.usage.cached_tokens, 300);
    let other = ask(&engine, greedy(prompt(2, 300), 8)).await;
    assert_eq!(other.usage.cached_tokens, 0);
}

#[tokio::test]
async fn more_prefixes_than_slots_come_back_from_ram_and_mean_the_same() {
    // Two slots and 2,048 cells: sixteen prefixes of 300 tokens cannot stay resident.
    let model = ModelOptions {
        slots: 2,
        ..options().model
    };
    let engine = engine(EngineOptions { model, ..options() });
    let mut first = Vec::new();
    for topic in 0..16 {
        first.push(first_step(&engine, greedy(prompt(topic, 300), 1)).await.0);
    }
    until(&engine, "prefixes are parked", |engine| {
        load(engine).parked_bytes > 0
    })
    .await;
    let computed = load(&engine).prefill_tokens;
    for (topic, before) in first.iter().enumerate() {
        let (likely, cached) = first_step(&engine, greedy(prompt(topic, 300), 1)).await;
        assert_eq!(cached, 299, "prefix {topic}");
        assert!(
            distance(&likely, before) < CLOSE,
            "prefix {topic}: {likely:?} {before:?}"
        );
    }
    assert!(
        load(&engine).prefill_tokens - computed < 64,
        "prompts were computed again"
    );
}

#[tokio::test]
async fn choices_share_one_prefill() {
    let engine = engine(options());
    let request = Request {
        n: 4,
        sampling: Sampling {
            seed: Some(1),
            ..Sampling::default()
        },
        ..greedy(prompt(2, 300), 8)
    };
    let answer = ask(&engine, request).await;
    assert_eq!((answer.texts.len(), answer.reasons.len()), (4, 4));
    assert_eq!(answer.usage.completion_tokens, 4 * 8);
    let computed = load(&engine).prefill_tokens;
    assert!(
        computed <= 300,
        "{computed} tokens for a prompt of 300 and four choices"
    );
}

#[tokio::test]
async fn a_long_prompt_does_not_stall_a_stream() {
    let engine = engine(options());
    let mut stream = engine
        .generate(None, greedy(prompt(1, 5), 1000))
        .await
        .unwrap();
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    let before = load(&engine).decode_tokens;
    let mut long = engine
        .generate(None, greedy(prompt(3, 800), 1))
        .await
        .unwrap();
    while !matches!(long.next().await.unwrap().unwrap(), Event::Done(_)) {}
    // The stream takes part in every step, and the prompt is divided into several.
    let tokens = load(&engine).decode_tokens - before;
    assert!(
        tokens >= 2,
        "{tokens} tokens of the stream while the prompt was computed"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_slot() {
    let engine = engine(options());
    let mut running = Vec::new();
    for topic in 0..6 {
        running.push(
            engine
                .generate(None, greedy(prompt(topic, 50), 950))
                .await
                .unwrap(),
        );
    }
    for generation in running.iter_mut().take(4) {
        generation.next().await.unwrap().unwrap();
    }
    drop(running);
    until(&engine, "slots and queue are empty", |engine| {
        let load = load(engine);
        load.slots_busy == 0 && load.queued == 0
    })
    .await;
    let load = load(&engine);
    assert_eq!(load.cancelled + load.completed, 6, "{load:?}");
    assert!(load.cancelled >= 2, "{load:?}");
}

#[tokio::test]
async fn running_sequences_that_outgrow_the_cache_take_turns() {
    let model = ModelOptions {
        context: Some(512),
        ..options().model
    };
    // With next to no memory for it the cache holds one context; four answers outgrow it together.
    let least = least_budget(&model).await;
    let tight = engine(EngineOptions {
        memory_budget: Some(least),
        model,
        ..options()
    });
    let mut running = Vec::new();
    for topic in 0..4 {
        running.push(
            tight
                .generate(None, greedy(prompt(topic, 150), 200))
                .await
                .unwrap(),
        );
    }
    assert!(load(&tight).kv_cells < 4 * 350, "{:?}", load(&tight));
    for generation in running {
        let answer = collect(generation, 1).await.unwrap();
        assert_eq!(
            (answer.usage.completion_tokens, answer.reasons),
            (200, vec![FinishReason::Length])
        );
    }
}

/// The smallest budget a model loads in, found from the engine's own refusal.
async fn least_budget(model: &ModelOptions) -> u64 {
    let error = engine(EngineOptions {
        memory_budget: Some(1),
        model: model.clone(),
        ..options()
    });
    let error = error.load(None).await.unwrap_err().to_string();
    let mebibytes: u64 = error
        .split("needs ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    (mebibytes + 1) << 20
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_it_runs() {
    let engine = engine(options());
    let error = engine
        .generate(Some("nobody"), greedy(prompt(5, 3), 1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, EngineError::UnknownModel { name, known, .. } if name == "nobody" && known == "ember"),
        "{error}"
    );
    let error = engine
        .generate(None, greedy(prompt(1, 4000), 1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, EngineError::ContextExceeded { prompt_tokens, context: 1024, trained } if prompt_tokens > 1024 && trained >= 1024),
        "{error}"
    );
    for (field, request) in [
        (
            "n",
            Request {
                n: 0,
                ..greedy(prompt(5, 3), 1)
            },
        ),
        (
            "n",
            Request {
                n: 17,
                ..greedy(prompt(5, 3), 1)
            },
        ),
        ("max_tokens", greedy(prompt(5, 3), 0)),
        (
            "stop",
            Request {
                stop: vec![String::new()],
                ..greedy(prompt(5, 3), 1)
            },
        ),
        (
            "logprobs",
            Request {
                logprobs: Some(21),
                ..greedy(prompt(5, 3), 1)
            },
        ),
        ("prompt", Request::new(Prompt::Tokens(vec![1 << 30]))),
        ("prompt", Request::new(Prompt::Tokens(vec![]))),
        ("messages", Request::new(Prompt::Chat(Chat::default()))),
    ] {
        let error = engine.generate(None, request).await.unwrap_err();
        assert!(
            matches!(error, EngineError::Invalid { field: wrong, .. } if wrong == field),
            "{field}: {error}"
        );
    }
}

#[tokio::test]
async fn more_requests_than_may_wait_are_told_to_come_back() {
    let model = ModelOptions {
        slots: 1,
        ..options().model
    };
    let engine = engine(EngineOptions {
        queue_limit: 2,
        model,
        ..options()
    });
    let mut running = vec![
        engine
            .generate(None, greedy(prompt(1, 3), 1000))
            .await
            .unwrap(),
    ];
    running[0].next().await.unwrap().unwrap();
    until(&engine, "the slot is taken", |engine| {
        load(engine).slots_busy == 1
    })
    .await;
    running.push(
        engine
            .generate(None, greedy(prompt(2, 3), 1))
            .await
            .unwrap(),
    );
    running.push(
        engine
            .generate(None, greedy(prompt(3, 3), 1))
            .await
            .unwrap(),
    );
    let error = engine
        .generate(None, greedy(prompt(4, 3), 1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, EngineError::QueueFull { limit: 2, .. }),
        "{error}"
    );
    drop(running.remove(0));
    for waiting in running {
        collect(waiting, 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_will_not_wait_hears_how_far_the_model_is() {
    let engine = engine(EngineOptions {
        load_wait: Duration::ZERO,
        ..options()
    });
    let error = engine
        .generate(None, greedy(prompt(5, 3), 1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, EngineError::Loading { name, progress, eta }
            if name == "ember" && (0.0..=1.0).contains(progress) && !eta.is_zero()),
        "{error}"
    );
    engine.load(None).await.unwrap();
    ask(&engine, greedy(prompt(5, 3), 1)).await;
}

#[tokio::test]
async fn a_file_that_is_no_model_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.gguf"), b"GGUF but not really").unwrap();
    let whole = std::fs::read(ember()).unwrap();
    std::fs::write(folder.path().join("short.gguf"), &whole[..whole.len() / 2]).unwrap();
    let engine = Engine::new(options(), Catalogue::new(Some(folder.path().into())));
    for name in ["broken", "short"] {
        let error = engine
            .generate(Some(name), greedy(prompt(5, 3), 1))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, EngineError::LoadFailed { name: named, .. } if named == name),
            "{error}"
        );
        assert!(
            engine
                .status()
                .iter()
                .any(|model| model.name == name && model.state == ModelState::Failed)
        );
    }
}

#[tokio::test]
async fn models_share_the_budget_and_idle_ones_go_first() {
    let mut catalogue = Catalogue::new(None);
    for name in ["one", "two", "three"] {
        catalogue.register(name, ember());
    }
    let model = ModelOptions {
        context: Some(256),
        slots: 1,
        ..options().model
    };
    let least = least_budget(&model).await;
    // Room for two, not for three.
    let engine = Engine::new(
        EngineOptions {
            memory_budget: Some(2 * least + least / 2),
            model,
            ..options()
        },
        catalogue,
    );
    let state = |engine: &Engine, name: &str| {
        engine
            .status()
            .into_iter()
            .find(|model| model.name == name)
            .map(|model| model.state)
    };
    for name in ["one", "two"] {
        collect(
            engine
                .generate(Some(name), greedy(prompt(5, 3), 1))
                .await
                .unwrap(),
            1,
        )
        .await
        .unwrap();
    }
    collect(
        engine
            .generate(Some("one"), greedy(prompt(5, 3), 1))
            .await
            .unwrap(),
        1,
    )
    .await
    .unwrap();
    until(&engine, "both are idle", |engine| {
        engine.status().iter().all(|model| {
            model
                .load
                .is_none_or(|load| load.slots_busy + load.queued == 0)
        })
    })
    .await;
    collect(
        engine
            .generate(Some("three"), greedy(prompt(5, 3), 1))
            .await
            .unwrap(),
        1,
    )
    .await
    .unwrap();
    assert_eq!(
        state(&engine, "two"),
        Some(ModelState::Idle),
        "the least recently used one went"
    );
    assert_eq!(state(&engine, "one"), Some(ModelState::Ready));
}

#[tokio::test]
async fn an_idle_model_is_unloaded_and_comes_back() {
    let mut catalogue = Catalogue::new(None);
    catalogue.register("default", ember());
    catalogue.register("other", ember());
    let engine = Engine::new(
        EngineOptions {
            keep_alive: Some(Duration::from_millis(1)),
            ..options()
        },
        catalogue,
    );
    for _ in 0..3 {
        collect(
            engine
                .generate(Some("other"), greedy(prompt(5, 3), 2))
                .await
                .unwrap(),
            1,
        )
        .await
        .unwrap();
    }
    until(&engine, "the model is unloaded", |engine| {
        engine
            .status()
            .iter()
            .all(|model| model.state == ModelState::Idle)
    })
    .await;
    collect(
        engine
            .generate(None, greedy(prompt(5, 3), 1))
            .await
            .unwrap(),
        1,
    )
    .await
    .unwrap();
    assert!(engine.unload("default").await);
    assert!(!engine.unload("default").await);
}

/// The log probabilities of the five most likely first tokens, by token, and how many prompt tokens were cached.
async fn first_step(engine: &Engine, request: Request) -> (BTreeMap<Token, f32>, u32) {
    let request = Request {
        logprobs: Some(5),
        max_tokens: Some(1),
        ..request
    };
    first_of(engine.generate(None, request).await.unwrap()).await
}

async fn first_of(mut generation: Generation) -> (BTreeMap<Token, f32>, u32) {
    let mut likely = BTreeMap::new();
    while let Some(event) = generation.next().await {
        match event.unwrap() {
            Event::Text { logprobs, .. } => {
                let top = logprobs.iter().flat_map(|token| &token.top);
                likely.extend(top.map(|top| (top.token, top.logprob)));
            }
            Event::Done(usage) => return (likely, usage.cached_tokens),
            _ => {}
        }
    }
    panic!("the answer ended early");
}

/// How far log probabilities may lie apart when the same tokens are computed in other batches, or taken from a cache.
const CLOSE: f32 = 0.15;

/// The largest difference between the log probabilities of tokens that both name; infinite if they name none in common.
fn distance(a: &BTreeMap<Token, f32>, b: &BTreeMap<Token, f32>) -> f32 {
    let shared = a
        .iter()
        .filter_map(|(token, logprob)| Some((logprob - b.get(token)?).abs()));
    shared.max_by(f32::total_cmp).unwrap_or(f32::INFINITY)
}

#[tokio::test]
async fn adapters_change_the_answer_and_share_no_prefix_with_others() {
    let turn = "<|im_start|>user\nplease tell me what is hearth and what does hearth do for me?<|im_end|>\n";
    let text = format!("{}<|im_start|>assistant\n", turn.repeat(3));
    let plain = || Request {
        prompt: Prompt::Text(text.clone()),
        logprobs: Some(5),
        ..greedy(Vec::new(), 1)
    };
    let adapted = |name: &str, scale: f32| {
        let path = ember().with_file_name(format!("ember-{name}.gguf"));
        Request {
            adapters: vec![AdapterUse { path, scale }],
            ..plain()
        }
    };
    let sets = || [plain(), adapted("steps", 2.0), adapted("commit", 2.0)];
    // What each set answers on an engine that never saw another one.
    let mut alone = Vec::new();
    for request in sets() {
        alone.push(first_step(&engine(options()), request).await.0);
    }
    let apart = [(0, 1), (1, 2), (0, 2)].map(|(a, b)| distance(&alone[a], &alone[b]));
    assert!(
        apart.iter().all(|distance| *distance > 4.0 * CLOSE),
        "the adapters do nothing: {apart:?}"
    );

    let together = engine(options());
    for (request, expected) in sets().into_iter().zip(&alone) {
        let (likely, cached) = first_step(&together, request).await;
        assert_eq!(cached, 0, "the KV of another adapter set was reused");
        assert!(
            distance(&likely, expected) < CLOSE,
            "{likely:?} {expected:?}"
        );
    }
    // Each finds its own prefix again, also when all run at once.
    let mut running = Vec::new();
    for request in sets() {
        running.push(together.generate(None, request).await.unwrap());
    }
    for (generation, expected) in running.into_iter().zip(&alone) {
        let (likely, cached) = first_of(generation).await;
        assert!(cached > 16, "{cached}");
        assert!(
            distance(&likely, expected) < CLOSE,
            "{likely:?} {expected:?}"
        );
    }
    // A scale of nothing is no adapter; a file that is not there is refused with its name.
    let (likely, cached) = first_step(&together, adapted("steps", 0.0)).await;
    assert!(cached > 16, "{cached}");
    assert!(
        distance(&likely, &alone[0]) < CLOSE,
        "{likely:?} {:?}",
        alone[0]
    );
    let error = together
        .generate(None, adapted("missing", 1.0))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, EngineError::Invalid { field: "adapters", message } if message.contains("ember-missing.gguf")),
        "{error}"
    );
}
