//! Every CPU code that this machine can run computes quantised models, and the same as the baseline does.
//!
//! A compiler may miscompile one of them (GCC 12.2 does, with AMX): the model then crashes or answers something else.
//! The CPU code is chosen once per process, so each one runs in a child process of this test binary.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use hearth_engine::{
    Catalogue, Engine, EngineOptions, Event, ModelOptions, Prompt, Request, Sampling,
};
use hearth_testkit::gguf::{Quantisation, Shape, write};

const QUANTISATIONS: [(&str, Quantisation); 3] = [
    ("Q4_K_M", Quantisation::Q4KM),
    ("Q8_0", Quantisation::Q8_0),
    ("F16", Quantisation::F16),
];

/// Environment of the child process: the CPU code's name and the models' folder.
const CODE: &str = "HEARTH_TEST_CPU_CODE";
const MODELS: &str = "HEARTH_TEST_MODELS";

/// Lengths of the prompts: the matrix kernels of a prefill differ from the ones that decode.
const PROMPTS: [usize; 4] = [1, 7, 64, 201];
/// Tokens generated per prompt.
const LENGTH: usize = 8;
/// Two tokens whose log probabilities differ by less may change places through the order of additions alone.
const NEAR_TIE: f32 = 0.02;
/// How far the log probability of the same token may differ between two codes, which add in other orders (0.036 was
/// seen between AVX2 and AVX-512 on Q4_K). Wrong code is off by whole units.
const TOLERANCE: f32 = 0.06;

/// A generated token, its log probability and its lead over the second most likely one.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    token: i32,
    logprob: f32,
    lead: f32,
}

#[test]
fn every_cpu_code_generates_what_the_baseline_generates() {
    let folder = std::env::temp_dir().join(format!("hearth-quantised-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, quantisation) in QUANTISATIONS {
        write(
            &folder.join(name).with_extension("gguf"),
            &Shape::TINY,
            quantisation,
            7,
        )
        .unwrap();
    }
    let codes = Engine::cpu_codes();
    let (baseline, others) = codes.split_last().unwrap();
    let expected = generate_in_child(baseline, &folder);
    for code in others {
        let answers = generate_in_child(code, &folder);
        for ((model, _), (expected, answer)) in
            QUANTISATIONS.iter().zip(expected.iter().zip(&answers))
        {
            compare(&format!("{code}, {model}"), expected, answer);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Each answer must agree up to its first near tie, where the two may part.
fn compare(what: &str, expected: &[Step], answer: &[Step]) {
    assert_eq!(expected.len(), PROMPTS.len() * LENGTH, "{what}");
    assert_eq!(answer.len(), expected.len(), "{what}");
    let mut compared = 0;
    for (prompt, (expected, answer)) in expected
        .chunks(LENGTH)
        .zip(answer.chunks(LENGTH))
        .enumerate()
    {
        for (position, (expected, step)) in expected.iter().zip(answer).enumerate() {
            if expected.lead < NEAR_TIE {
                break;
            }
            assert_eq!(
                step.token, expected.token,
                "{what}: prompt {prompt}, token {position}"
            );
            let difference = (step.logprob - expected.logprob).abs();
            assert!(
                difference < TOLERANCE,
                "{what}: prompt {prompt}, token {position} differs by {difference}"
            );
            compared += 1;
        }
    }
    assert!(
        compared >= 16,
        "{what}: only {compared} tokens before a near tie; choose another seed"
    );
}

fn generate_in_child(code: &str, models: &Path) -> Vec<Vec<Step>> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(CODE, code)
        .env(MODELS, models)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{code}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let answers: Vec<Vec<Step>> = text
        .lines()
        .filter_map(|line| line.split_once("answer: "))
        .map(parse)
        .collect();
    assert_eq!(answers.len(), QUANTISATIONS.len(), "{code}: {text}");
    answers
}

fn parse((_, line): (&str, &str)) -> Vec<Step> {
    let step = |fields: &str| {
        let mut fields = fields.split(',');
        let mut next = || fields.next().unwrap().parse::<f32>().unwrap();
        Step {
            token: next() as i32,
            logprob: next(),
            lead: next(),
        }
    };
    line.split_whitespace().map(step).collect()
}

#[test]
#[ignore = "runs in a child process of the other test"]
fn child() {
    let code = std::env::var(CODE).unwrap();
    let folder = std::path::PathBuf::from(std::env::var_os(MODELS).unwrap());
    let model = ModelOptions {
        context: Some(512),
        slots: 1,
        threads: Some(1),
        ..ModelOptions::default()
    };
    let options = EngineOptions {
        model,
        cpu: Some(code.clone()),
        ..EngineOptions::default()
    };
    let engine = Engine::new(options, Catalogue::new(Some(folder)));
    assert_eq!(engine.cpu(), code);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (name, _) in QUANTISATIONS {
        runtime.block_on(engine.load(Some(name))).unwrap();
        let steps: Vec<Step> = PROMPTS
            .iter()
            .flat_map(|&length| runtime.block_on(generate(&engine, name, length)))
            .collect();
        let fields: Vec<String> = steps
            .iter()
            .map(|step| format!("{},{},{}", step.token, step.logprob, step.lead))
            .collect();
        println!("answer: {}", fields.join(" "));
    }
}

async fn generate(engine: &Engine, model: &str, length: usize) -> Vec<Step> {
    let prompt = (0..length)
        .map(|index| ((index * 37 + length * 11) % 1500) as i32)
        .collect();
    let mut request = Request::new(Prompt::Tokens(prompt));
    request.sampling = Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    };
    request.max_tokens = Some(LENGTH as u32);
    request.ignore_eos = true;
    request.logprobs = Some(2);
    let mut generation = engine.generate(Some(model), request).await.unwrap();
    let mut steps = Vec::new();
    while let Some(event) = generation.next().await {
        if let Event::Text { logprobs, .. } = event.unwrap() {
            steps.extend(logprobs.iter().map(|entry| Step {
                token: entry.chosen.token,
                logprob: entry.chosen.logprob,
                lead: entry.top[0].logprob - entry.top[1].logprob,
            }));
        }
    }
    assert_eq!(steps.len(), LENGTH);
    // The next prompt starts in an empty cache: where its cells lie changes the order of additions.
    assert!(engine.unload(model).await);
    steps
}
