//! `hearth up`: from nothing to a first answer, and what to try next.

mod log;

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::log::LastWords;
use super::{Context, update};
use crate::addressed;
use crate::answer::{self, Answer, Question, Speaker};
use crate::client::Client;
use crate::config::{HostPort, Key, Origin};
use crate::daemon::{self, Unstarted};
use crate::failure::{Failure, Outcome};
use crate::flags::Tuning;
use crate::record::NodeRecord;
use crate::screen::{Screen, print, println};

/// A process that did not open its door by now never will.
const DOOR_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
const FIRST_QUESTION: &str = "What is Hearth?";

/// Flags of `hearth up`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth up
  hearth up --detach                       leave it running; later: hearth stop
  hearth up --model ~/models/qwen3.gguf    with a model of your own

Finds the node if one already runs. Without --detach it serves until Ctrl-C.")]
pub struct UpArgs {
    /// Leave the node running in the background
    #[arg(short, long)]
    pub detach: bool,
    /// How the node and its models run.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Starts or finds a node and shows that it answers.
pub async fn run(context: &Context, args: &UpArgs) -> Outcome {
    context.warn();
    if args.detach {
        return detached(context, args).await;
    }
    let bound = match daemon::bind(&context.config).await {
        Ok(bound) => bound,
        Err(Unstarted::Already(client, status)) => {
            return already(context, args, client, status.pid).await;
        }
        Err(unstarted) => return Err(unstarted.failure()),
    };
    let (client, engine, pid) = (bound.client(), bound.engine.clone(), bound.record.pid);
    let (enough, stop) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(bound.serve(async {
        let _ = stop.await;
    }));
    let introduction = async {
        answer::load(&engine, None, &context.screen).await?;
        introduce(context, &client, pid, Some("Ctrl-C")).await
    };
    let introduced = tokio::select! {
        introduced = introduction => introduced,
        served = &mut serving => return ended(served),
    };
    // Every engine handle must be gone before the node can end.
    drop(engine);
    if introduced.is_err() {
        // The node is of no use to somebody whom it does not answer. It may not even take a request to stop.
        let _ = enough.send(());
        let _ = serving.await;
        return introduced;
    }
    ended(serving.await)
}

fn ended(served: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    served.unwrap_or_else(|error| Err(Failure::new(format!("the node failed: {error}"))))
}

async fn already(context: &Context, args: &UpArgs, client: Client, pid: u32) -> Outcome {
    let (config, place) = (&context.config, client.place());
    let own = NodeRecord::read(&config.home).is_some_and(|record| record.pid == pid);
    let tuned = !args.tuning.layer().is_empty();
    // Who named a home wants the node of that one.
    if !own && (tuned || *config.origin(Key::Home) != Origin::Default) {
        return Err(foreign(place, pid));
    }
    let elsewhere = context.global.host.is_some() && config.host.reachable() != *place;
    if own && (elsewhere || tuned) {
        return Err(Failure::new(format!(
            "a node of this home runs at {place} already, and keeps the settings it was started with"
        ))
        .fix(format!("stop it first: hearth stop{}", context.again(None))));
    }
    if !context.screen.json {
        println(&format!(
            "a node already runs at {} (pid {pid}); using it",
            client.place()
        ));
    }
    answer::ready(&client, &context.screen).await?;
    introduce(context, &client, pid, None).await
}

/// A node that keeps its things elsewhere has the address.
fn foreign(place: &HostPort, pid: u32) -> Failure {
    let free = HostPort {
        port: place
            .port
            .checked_add(1)
            .unwrap_or(HostPort::default().port),
        ..place.clone()
    };
    Failure::new(format!(
        "a node of another home runs at {place} (pid {pid}), with the settings it was started with"
    ))
    .fix(format!(
        "start another with its own --home and --host, such as --host {free}"
    ))
}

/// A first answer, and what to try next; `stop` says how the node ends if not by `hearth stop`.
async fn introduce(context: &Context, client: &Client, pid: u32, stop: Option<&str>) -> Outcome {
    let screen = &context.screen;
    answer::ready(client, screen).await?;
    let question = Question {
        messages: vec![json!({"role": "user", "content": FIRST_QUESTION})],
        max_tokens: Some(200),
        temperature: Some(0.0),
        ..Question::default()
    };
    let live = !screen.json;
    if live {
        println(&format!(
            "{} {} answers at http://{}\n",
            screen.green("●"),
            screen.bold("hearth"),
            client.place()
        ));
        println(&format!("{} {FIRST_QUESTION}", screen.dim(">")));
    }
    let answer = Speaker::Node(client.clone())
        .ask(&question, screen, |text| {
            if live {
                print(text);
            }
        })
        .await?;
    match live {
        true => {
            println(&format!(
                "\n{}\n\n{}",
                screen.dim(&answer.summary()),
                next(
                    client.place(),
                    stop,
                    &context.again(Some(client.place())),
                    screen
                )
            ));
            if let Some(remark) = update::remark(&context.config).await {
                println(&format!("\n{remark}"));
            }
        }
        false => println(&described(client.place(), pid, &answer).to_string()),
    }
    Ok(())
}

fn described(place: &HostPort, pid: u32, answer: &Answer) -> Value {
    json!({
        "address": place.to_string(),
        "pid": pid,
        "page": format!("http://{place}/"),
        "openai_base_url": format!("http://{place}/v1"),
        "first_answer": answer.json(),
    })
}

/// How the reader can call this program: by its name where the shell finds it, else by its path.
fn called() -> String {
    let name = format!("hearth{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(&name).is_file()) {
        return "hearth".into();
    }
    let Ok(program) = std::env::current_exe() else {
        return "hearth".into();
    };
    let here = std::env::current_dir().unwrap_or_default();
    let near = program.strip_prefix(&here).unwrap_or(&program);
    near.display().to_string()
}

fn next(place: &HostPort, stop: Option<&str>, flags: &str, screen: &Screen) -> String {
    let command = |name: &str| format!("{} {name}{flags}", called());
    let body = r#"{"messages":[{"role":"user","content":"Hello"}]}"#;
    let rows = [
        ("talk", command("chat")),
        ("in a browser", format!("http://{place}/")),
        (
            "any OpenAI client",
            format!("base URL http://{place}/v1, any API key"),
        ),
        (
            "by hand",
            format!(
                "curl http://{place}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"
            ),
        ),
        ("stop", stop.map_or_else(|| command("stop"), str::to_owned)),
    ];
    let lines: Vec<String> = rows
        .into_iter()
        .map(|(what, how)| format!("  {}  {how}", screen.dim(&format!("{what:<17}"))))
        .collect();
    format!("{}\n{}", screen.bold("Try next"), lines.join("\n"))
}

/// Starts `hearth serve` in the background, with the same flags, and waits for it.
async fn detached(context: &Context, args: &UpArgs) -> Outcome {
    let (config, screen) = (&context.config, &context.screen);
    if let Ok((client, status)) = addressed::running(config).await {
        return already(context, args, client, status.pid).await;
    }
    let (words, errors) = LastWords::expect(&config.home)?;
    let mut child = spawn(context, errors)?;
    let started = Instant::now();
    let record = loop {
        if let Some(record) =
            NodeRecord::read(&config.home).filter(|record| record.pid == child.id())
        {
            break record;
        }
        match child.try_wait() {
            Ok(None) if started.elapsed() < DOOR_LIMIT => {}
            Ok(None) => {
                let _ = child.kill();
                return Err(Failure::new(format!(
                    "the node did not open its door within {} s",
                    DOOR_LIMIT.as_secs()
                ))
                .fix(format!(
                    "see what it does: hearth logs{}",
                    context.again(None)
                )));
            }
            _ => {
                screen.clear();
                return Err(words.failure());
            }
        }
        screen.progress("starting the node");
        tokio::time::sleep(LOOK).await;
    };
    screen.clear();
    let place = HostPort::parse(&record.address).unwrap_or_else(|| config.host.clone());
    let introduced = introduce(context, &Client::new(place), record.pid, None).await;
    if introduced.is_ok() && !screen.json {
        println(&screen.dim(&format!(
            "the node stays in the background (pid {}); log: {} logs{}",
            record.pid,
            called(),
            context.again(None)
        )));
    }
    introduced
}

fn spawn(context: &Context, errors: File) -> Outcome<Child> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(format!("cannot find this executable to start it: {error}"))
    })?;
    let mut command = Command::new(program);
    command.args(["serve", "--log-to-file"]);
    for (key, text) in &context.flags {
        command.arg(format!("--{}={text}", key.flag()));
    }
    if let Some(path) = &context.global.config {
        command.arg("--config").arg(path);
    }
    for _ in 0..context.global.verbose {
        command.arg("-v");
    }
    // Its words are read from a file: colours would only disturb there.
    command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // A group of its own: Ctrl-C in this terminal is not meant for it.
        command.process_group(0);
    }
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt;
        const DETACHED_PROCESS: u32 = 0x8;
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP);
    }
    command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start the node: {error}")))
}
