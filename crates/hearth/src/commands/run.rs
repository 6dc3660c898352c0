//! `hearth run`: one question, one answer.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::addressed;
use crate::answer::{MemoryArgs, Question, Speaker, meant, model_name};
use crate::failure::{Failure, Outcome};
use crate::flags::on_or_off;
use crate::screen::{print, println};

/// Flags of `hearth run`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth run \"What is Hearth?\"
  hearth run what is hearth
  echo \"remind me to buy milk at 6pm\" | hearth run --schema intent.json
  hearth run \"one line:\" - < note.txt
  hearth run --model qwen3 --system \"Answer in French.\" --temperature 0 \"Good morning\"
  hearth run --memory \"When do we deploy?\"
  hearth run --project shop \"When do we deploy?\"
  hearth run --json \"hello\"

Uses the running node; when none runs, the model is loaded into this process and answers just as well.")]
pub struct RunArgs {
    /// The question, in one or more words; nothing reads it from standard input, `-` at the end adds that
    pub prompt: Vec<String>,
    /// Model: a name or a .gguf file
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What the model should be or do
    #[arg(short, long, value_name = "TEXT")]
    pub system: Option<String>,
    /// JSON Schema that the answer will fit
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Most tokens to generate
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// 0 (always the likeliest token) to 2
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Same seed, same text
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Whether a model that can reason before it answers does
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub think: Option<bool>,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

/// Asks and prints.
pub async fn run(context: &Context, args: &RunArgs) -> Outcome {
    let screen = &context.screen;
    let question = question(args)?;
    let speaker = Speaker::find(&context.config).await?;
    if let Some(words) = mistaken(context, args, &speaker).await {
        screen.note(&words);
    }
    let live = !screen.json;
    let answer = speaker
        .ask(&question, screen, |text| {
            if live {
                print(text);
            }
        })
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            // The message starts on a line of its own.
            if live && std::io::stdout().is_terminal() {
                println("");
            }
            return Err(failure);
        }
    };
    if screen.json {
        println(&answer.json().to_string());
        return Ok(());
    }
    if !answer.text.ends_with('\n') {
        println("");
    }
    if answer.finish_reason == "length" {
        screen.note(&format!("(cut after {} tokens)", answer.completion_tokens));
    }
    for line in answer.citations() {
        screen.note(&line);
    }
    Ok(())
}

/// What to say when the question begins with a model's name, as other programs take it.
async fn mistaken(context: &Context, args: &RunArgs, speaker: &Speaker) -> Option<String> {
    let (word, rest) = args.prompt.split_first().filter(|_| args.model.is_none())?;
    let is_here = match speaker.models().await {
        Ok(models) => meant(&models, word).is_ok(),
        Err(_) => false,
    };
    if !is_here && hearth_models::catalogue::known(word).is_none() {
        return None;
    }
    let again = context.again(Some(addressed::place(&context.config).place()));
    let fetch = match is_here {
        true => String::new(),
        false => format!("hearth pull{again} {word}, and then "),
    };
    let command = match rest {
        [] => format!("hearth chat{again} --model {word}"),
        [question] => format!("hearth run{again} --model {word} {question:?}"),
        rest => format!("hearth run{again} --model {word} {}", rest.join(" ")),
    };
    Some(format!(
        "`{word}` is a model; did you mean: {fetch}{command}"
    ))
}

fn question(args: &RunArgs) -> Outcome<Question> {
    // `-` at the end stands for standard input, after what was said.
    let (said, reads) = match args.prompt.split_last() {
        Some((last, said)) if last == "-" => (said, true),
        _ => (&args.prompt[..], args.prompt.is_empty()),
    };
    let said = said.join(" ");
    let prompt = match reads {
        false => said,
        true => {
            let mut stdin = std::io::stdin();
            if args.prompt.is_empty() && stdin.is_terminal() {
                return Err(Failure::usage("there is no question")
                    .fix("hearth run \"What is Hearth?\", or hearth chat"));
            }
            let mut text = String::new();
            stdin.read_to_string(&mut text).map_err(|error| {
                Failure::usage(format!("standard input is not readable text: {error}"))
            })?;
            match said.is_empty() {
                true => text,
                false => format!("{said}\n\n{text}"),
            }
        }
    };
    if prompt.trim().is_empty() {
        return Err(Failure::usage("the question is empty").fix("hearth run \"What is Hearth?\""));
    }
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": prompt.trim_end()}));
    Ok(Question {
        model: args.model.as_deref().map(model_name),
        messages,
        schema: args.schema.as_deref().map(schema).transpose()?,
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        seed: args.seed,
        think: args.think,
        memory: args.memory.recall(),
    })
}

fn schema(path: &Path) -> Outcome<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("--schema: cannot read {}: {error}", path.display()))
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("--schema: {} is not JSON: {error}", path.display()))
            .fix("write a JSON Schema such as {\"type\": \"object\"}")
    })
}
