//! Embeddings through the engine's public door, on a tiny BERT whose vectors the test computes by itself and on a tiny
//! decoder.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use hearth_engine::{
    Catalogue, EmbedInput, EmbedRequest, Embeddings, Engine, EngineError, EngineOptions, Prompt,
    Request, Token,
};
use hearth_protocol::status::{ModelState, ModelStatus};
use hearth_testkit::bert::{self, Bert, Pooling, WIDTH};
use hearth_testkit::gguf::{self, Quantisation, Shape};
use hearth_testkit::node::{ember, options};

/// A folder with a BERT of each pooling and a decoder that embeds.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).with_extension("gguf");
    for (name, pooling) in [
        ("mean", Pooling::Mean),
        ("first", Pooling::First),
        ("rank", Pooling::Rank),
    ] {
        Bert::new(pooling, 7).write(&file(name)).unwrap();
    }
    let decoder = Shape {
        pooling: Some(3),
        ..Shape::TINY
    };
    gguf::write(&file("decoder"), &decoder, Quantisation::F16, 7).unwrap();
    folder
}

/// An engine over a folder, whose default model is the embedded one, which generates.
fn engine(folder: &Path, options: EngineOptions) -> Engine {
    let mut catalogue = Catalogue::new(Some(folder.to_owned()));
    catalogue.register("ember", ember());
    Engine::new(options, catalogue)
}

fn texts(texts: &[&str]) -> EmbedRequest {
    let inputs = texts.iter().map(|text| EmbedInput::Text((*text).into()));
    EmbedRequest {
        inputs: inputs.collect(),
        dimensions: None,
    }
}

fn tokens(inputs: &[Vec<Token>]) -> EmbedRequest {
    EmbedRequest {
        inputs: inputs.iter().cloned().map(EmbedInput::Tokens).collect(),
        dimensions: None,
    }
}

async fn embed(engine: &Engine, model: &str, request: EmbedRequest) -> Embeddings {
    engine.embed(Some(model), request).await.unwrap()
}

fn status(engine: &Engine, name: &str) -> ModelStatus {
    let all = engine.status();
    all.into_iter().find(|model| model.name == name).unwrap()
}

/// Waits for a condition of a model; fails after half a minute.
async fn until(engine: &Engine, name: &str, what: &str, met: impl Fn(&ModelStatus) -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    for _ in 0..15_000 {
        if met(&status(engine, name)) {
            return;
        }
        looks.tick().await;
    }
    panic!("{what}: {:?}", status(engine, name));
}

/// Of vectors of length one.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn length(vector: &[f32]) -> f32 {
    cosine(vector, vector).sqrt()
}

/// Inputs of every length up to a BERT's longest, all different.
fn many(count: usize, longest: usize, vocabulary: usize) -> Vec<Vec<Token>> {
    let input = |number: usize| {
        let length = 1 + (number * 37) % longest;
        let token = |at: usize| (5 + (number * 31 + at * (number + 7)) % (vocabulary - 5)) as Token;
        (0..length).map(token).collect()
    };
    (0..count).map(input).collect()
}

/// BERT's forward pass in its plainest form (Devlin et al., arXiv 1810.04805), for tokens of one text.
fn forward(bert: &Bert, pooling: Pooling, tokens: &[Token]) -> Vec<f32> {
    let weight = |name: &str| bert.tensor(&format!("{name}.weight"));
    let linear = |name: &str, x: &[f32]| -> Vec<f32> {
        let rows = weight(name).chunks(x.len());
        let bias = bert.tensor(&format!("{name}.bias"));
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        rows.zip(bias).map(|(row, bias)| dot(row) + bias).collect()
    };
    let norm = |name: &str, x: Vec<f32>| -> Vec<f32> {
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x.len() as f32;
        let scale = 1.0 / (variance + bert::EPSILON).sqrt();
        let parts = weight(name)
            .iter()
            .zip(bert.tensor(&format!("{name}.bias")));
        let scaled = x.iter().zip(parts);
        scaled
            .map(|(x, (weight, bias))| (x - mean) * scale * weight + bias)
            .collect()
    };
    let add = |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    // The approximation by tanh that BERT's own code has.
    let gelu = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x.powi(3))).tanh());
    let row = |name: &str, at: usize| weight(name)[at * WIDTH..(at + 1) * WIDTH].to_vec();

    let embedded = tokens.iter().enumerate().map(|(position, token)| {
        let token = row("token_embd", *token as usize);
        let place = add(&row("token_types", 0), &row("position_embd", position));
        norm("token_embd_norm", add(&token, &place))
    });
    let mut states: Vec<Vec<f32>> = embedded.collect();
    let size = WIDTH / bert::HEADS;
    for layer in 0..bert::LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let all = |part: &str| -> Vec<Vec<f32>> {
            states.iter().map(|x| linear(&name(part), x)).collect()
        };
        let (queries, keys, values) = (all("attn_q"), all("attn_k"), all("attn_v"));
        let attended = queries.iter().map(|query| {
            let mut seen = vec![0.0; WIDTH];
            for head in (0..WIDTH).step_by(size) {
                let of = |x: &[f32]| x[head..head + size].to_vec();
                let dot = |key: &Vec<f32>| {
                    let pairs = of(query).into_iter().zip(of(key));
                    pairs.map(|(q, k)| q * k).sum::<f32>() / (size as f32).sqrt()
                };
                let scores: Vec<f32> = keys.iter().map(|key| dot(key).exp()).collect();
                let sum: f32 = scores.iter().sum();
                for (score, value) in scores.iter().zip(&values) {
                    for (at, value) in of(value).iter().enumerate() {
                        seen[head + at] += score / sum * value;
                    }
                }
            }
            linear(&name("attn_output"), &seen)
        });
        let attended: Vec<Vec<f32>> = attended.collect();
        let next = states.iter().zip(&attended).map(|(state, attended)| {
            let state = norm(&name("attn_output_norm"), add(state, attended));
            let inner = linear(&name("ffn_up"), &state).into_iter().map(gelu);
            let outer = linear(&name("ffn_down"), &inner.collect::<Vec<f32>>());
            norm(&name("layer_output_norm"), add(&outer, &state))
        });
        states = next.collect();
    }
    let mut vector = match pooling {
        Pooling::First => states[0].clone(),
        _ => states
            .iter()
            .skip(1)
            .fold(states[0].clone(), |a, b| add(&a, b)),
    };
    let length = length(&vector);
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

#[tokio::test]
async fn vectors_are_what_the_model_computes() {
    let folder = models();
    let engine = engine(folder.path(), options());
    for (name, pooling) in [("mean", Pooling::Mean), ("first", Pooling::First)] {
        let bert = Bert::new(pooling, 7);
        let inputs = many(12, bert::CONTEXT, 80);
        let answer = embed(&engine, name, tokens(&inputs)).await;
        assert_eq!(answer.model, name);
        let counted: usize = inputs.iter().map(Vec::len).sum();
        assert_eq!(answer.prompt_tokens as usize, counted);
        for (input, vector) in inputs.iter().zip(&answer.vectors) {
            assert!((length(vector) - 1.0).abs() < 1e-5);
            let likeness = cosine(vector, &forward(&bert, pooling, input));
            assert!(likeness > 0.999, "{name} {input:?}: {likeness}");
        }
        // A text is its pieces between [CLS] and [SEP]; capitals and accents are not told apart.
        let piece = |piece: &str| bert.token(piece).unwrap();
        let pieces = [piece("▁hearth"), piece("▁a"), piece("b"), piece("1")];
        let known = [&[bert::CLS][..], &pieces, &[bert::SEP]].concat();
        let text = embed(&engine, name, texts(&["Hearth  äB1"])).await;
        assert_eq!(text.prompt_tokens, 6);
        assert!(cosine(&text.vectors[0], &forward(&bert, pooling, &known)) > 0.999);
    }
}

#[tokio::test]
async fn many_inputs_are_embedded_as_one_by_one_and_in_order() {
    let folder = models();
    let engine = engine(folder.path(), options());
    // The decoder computes what is longer than a batch in pieces.
    let models = [("mean", 40, bert::CONTEXT, 80), ("decoder", 15, 600, 1500)];
    for (name, count, longest, vocabulary) in models {
        let inputs = many(count, longest, vocabulary);
        let together = embed(&engine, name, tokens(&inputs)).await.vectors;
        assert_eq!(together.len(), inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            let alone = embed(&engine, name, tokens(std::slice::from_ref(input))).await;
            let alone = &alone.vectors[0];
            let likeness = cosine(alone, &together[index]);
            assert!((1.0 - likeness).abs() < 1e-4, "{name} {index}: {likeness}");
            assert!((length(alone) - 1.0).abs() < 1e-5);
        }
        let again = embed(&engine, name, tokens(&inputs)).await.vectors;
        assert_eq!(together, again, "{name}: the same texts, the same vectors");
        // No two are alike, so their order is known.
        let others = together.windows(2).map(|pair| cosine(&pair[0], &pair[1]));
        assert!(others.fold(-1.0, f32::max) < 0.9999);
    }
    // What stands in the first piece of a long text counts.
    let long = &many(16, 600, 1500)[15];
    assert!(long.len() > 512, "{}", long.len());
    let other: Vec<Token> = [&[9][..], &long[1..]].concat();
    let both = embed(&engine, "decoder", tokens(&[long.clone(), other])).await;
    assert!(cosine(&both.vectors[0], &both.vectors[1]) < 0.99999);
}

#[tokio::test]
async fn vectors_can_be_cut_to_fewer_dimensions() {
    let folder = models();
    let engine = engine(folder.path(), options());
    let whole = embed(&engine, "mean", texts(&["warm home"])).await;
    assert_eq!(whole.vectors[0].len(), WIDTH);
    let cut = |dimensions| EmbedRequest {
        dimensions: Some(dimensions),
        ..texts(&["warm home"])
    };
    let short = embed(&engine, "mean", cut(8)).await;
    let mut expected = whole.vectors[0][..8].to_vec();
    let scale = length(&expected);
    expected.iter_mut().for_each(|x| *x /= scale);
    assert!((cosine(&short.vectors[0], &expected) - 1.0).abs() < 1e-6);
    assert!((length(&short.vectors[0]) - 1.0).abs() < 1e-6);
    for wrong in [0, 33] {
        let error = engine.embed(Some("mean"), cut(wrong)).await.unwrap_err();
        let said = error.to_string();
        assert!(
            matches!(error, EngineError::Invalid { field, .. } if field == "dimensions"),
            "{said}"
        );
        assert!(said.contains("1 to 32"), "{said}");
    }
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_with_its_place() {
    let folder = models();
    let engine = engine(folder.path(), options());
    let long = vec![vec![9; 5], vec![9; bert::CONTEXT + 1]];
    let error = engine.embed(Some("mean"), tokens(&long)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "input[1] has 129 tokens and at most 128 fit; divide it into shorter texts"
    );
    // The decoder itself takes more than the options let it.
    let error = engine
        .embed(Some("decoder"), tokens(&[vec![9; 1025]]))
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("1025 tokens and at most 1024 fit (the model takes 32768; "),
        "{said}"
    );
    let text = "ab ".repeat(100);
    let error = engine.embed(Some("mean"), texts(&[&text])).await;
    assert!(
        matches!(
            error,
            Err(EngineError::InputTooLong {
                index: 0,
                tokens: 202,
                context: 128,
                ..
            })
        ),
        "{error:?}"
    );
    for (request, part) in [
        (texts(&[]), "at least one text"),
        (texts(&["fire", ""]), "input[1] is empty"),
        (tokens(&[vec![]]), "input[0] is empty"),
        (tokens(&[vec![3], vec![-1]]), "input[1]: token -1 is not"),
        (tokens(&[vec![4, 100_000]]), "input[0]: token 100000 is not"),
    ] {
        let error = engine.embed(Some("mean"), request).await.unwrap_err();
        let said = error.to_string();
        assert!(
            matches!(error, EngineError::Invalid { field, .. } if field == "input"),
            "{said}"
        );
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn each_kind_of_model_says_what_it_is_for() {
    let folder = models();
    let engine = engine(folder.path(), options());
    let error = engine.embed(Some("ember"), texts(&["fire"])).await;
    let said = error.unwrap_err().to_string();
    assert!(
        said.contains("`ember` generates text") && said.contains("hearth pull"),
        "{said}"
    );
    assert_eq!(
        status(&engine, "ember").state,
        ModelState::Idle,
        "it was not loaded to find out"
    );
    for name in ["mean", "decoder"] {
        let request = Request::new(Prompt::Text("fire".into()));
        let error = engine.generate(Some(name), request).await.unwrap_err();
        assert!(matches!(error, EngineError::OnlyEmbeds { .. }), "{error}");
    }
    assert_eq!(status(&engine, "mean").dimensions, Some(WIDTH as u32));
    let error = engine.embed(Some("rank"), texts(&["fire"])).await;
    let said = error.unwrap_err().to_string();
    assert!(said.contains("reranker"), "{said}");

    // Without a name the first one that embeds answers, if there is one.
    let answer = engine.embed(None, texts(&["fire"])).await.unwrap();
    assert_eq!(answer.model, "decoder");
    let empty = tempfile::tempdir().unwrap();
    let alone = self::engine(empty.path(), options());
    let error = alone.embed(None, texts(&["fire"])).await.unwrap_err();
    assert!(
        matches!(error, EngineError::OnlyGenerates { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_vocabulary_without_its_separator_is_refused() {
    let folder = models();
    let file = folder.path().join("mean.gguf");
    let mut bytes = std::fs::read(&file).unwrap();
    let key = b"seperator_token_id";
    let at = bytes.windows(key.len()).position(|at| at == key).unwrap();
    bytes[at] = b'x';
    std::fs::write(&file, bytes).unwrap();
    // llama.cpp would end the process at the first text.
    let engine = engine(folder.path(), options());
    let error = engine.embed(Some("mean"), texts(&["fire"])).await;
    let said = error.unwrap_err().to_string();
    assert!(said.contains("tokenizer.ggml.seperator_token_id"), "{said}");
}

#[tokio::test]
async fn an_embedding_model_comes_and_goes_as_the_others_do() {
    let folder = models();
    let one = engine(folder.path(), options());
    embed(&one, "mean", texts(&["fire"])).await;
    assert!(one.unload("mean").await && !one.unload("mean").await);
    assert_eq!(status(&one, "mean").state, ModelState::Idle);
    embed(&one, "mean", texts(&["fire"])).await;

    let short = EngineOptions {
        keep_alive: Some(Duration::ZERO),
        ..options()
    };
    let forgetful = engine(folder.path(), short);
    embed(&forgetful, "mean", texts(&["fire"])).await;
    until(&forgetful, "mean", "it is unloaded when idle", |model| {
        model.state == ModelState::Idle
    })
    .await;

    // Room for the model that generates and not for this one beside it.
    let tight = |budget| EngineOptions {
        memory_budget: Some(budget),
        ..options()
    };
    let refused = engine(folder.path(), tight(1)).load(Some("ember")).await;
    let said = refused.unwrap_err().to_string();
    let needed = said
        .split("needs ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let needed: u64 = needed.unwrap().parse().unwrap();
    let small = engine(folder.path(), tight((needed + 1) << 20));
    small.load(Some("ember")).await.unwrap();
    embed(&small, "mean", texts(&["fire"])).await;
    let states = |engine: &Engine| ["ember", "mean"].map(|name| status(engine, name).state);
    assert_eq!(states(&small), [ModelState::Idle, ModelState::Ready]);
    small.load(Some("ember")).await.unwrap();
    assert_eq!(states(&small), [ModelState::Ready, ModelState::Idle]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_take_turns_and_end_when_nobody_waits_for_them() {
    let folder = models();
    let engine = engine(folder.path(), options());
    embed(&engine, "mean", texts(&["fire"])).await;
    let load = || status(&engine, "mean").load.unwrap();
    let (working, count) = (engine.clone(), 40_000);
    let large = tokens(&many(count, bert::CONTEXT, 80));
    let library = tokio::spawn(async move { working.embed(Some("mean"), large).await });
    until(
        &engine,
        "mean",
        "the documents are being embedded",
        |model| model.load.is_some_and(|load| load.prefill_tokens > 10_000),
    )
    .await;
    embed(&engine, "mean", texts(&["water"])).await;
    assert!(!library.is_finished(), "a question waits for no documents");
    assert_eq!(load().slots_busy, 1);
    library.abort();
    until(&engine, "mean", "the work ends", |model| {
        model.load.is_some_and(|load| load.slots_busy == 0)
    })
    .await;
    let after = load();
    assert_eq!((after.cancelled, after.completed, after.queued), (1, 2, 0));
    assert!(after.prefill_tokens < count as u64 * 60);
}
