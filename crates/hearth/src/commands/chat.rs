//! `hearth chat`: a conversation in the terminal, or through a pipe.

mod input;
mod transcript;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hearth_protocol::recall::Recall;
use serde_json::json;

use self::input::{Input, Line};
use self::transcript::Transcript;
use super::{Context, models, runtime};
use crate::answer::{self, MemoryArgs, Question, Speaker, meant, model_name};
use crate::daemon::interrupted;
use crate::failure::{Exit, Failure, Outcome};
use crate::flags::on_or_off;
use crate::screen::{Screen, print, println};

/// Temperature of another answer to the same question, unless one was chosen.
const OTHER: f32 = 0.8;

/// The commands, for those that are written wrongly.
const COMMANDS: [&str; 9] = [
    "model",
    "system",
    "save",
    "think",
    "regenerate",
    "clear",
    "help",
    "quit",
    "exit",
];
/// From here on a word may be a slip for a command (Jaro-Winkler similarity, 0 to 1).
const ALIKE: f64 = 0.8;

const HELP: &str = "\
/model [NAME]   show the models, or talk to another one
/system [TEXT]  say what the model should be; alone, take it back
/save FILE      keep the conversation, as Markdown or (FILE.json) as messages
/think [on|off] whether a model that can reason before it answers does; alone, how it is
/regenerate     another answer to the last question
/clear          begin anew
/help           this
/quit           leave; so do /exit, /bye and Ctrl-D

A line that ends with \\ goes on in the next one, and so does everything between two \"\"\".
Ctrl-C stops an answer.";

/// Flags of `hearth chat`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth chat
  hearth chat --model qwen3 --system \"Answer briefly.\"
  hearth chat --project shop
  printf 'What is Hearth?\\n/save talk.md\\n' | hearth chat

A pipe goes on after a command that went wrong, and the exit code tells of it. Inside, /help lists what else can be done. Ctrl-C stops an answer and not the program.")]
pub struct ChatArgs {
    /// Model: a name or a .gguf file
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What the model should be or do
    #[arg(short, long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 (always the likeliest token) to 2
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Most tokens of one answer
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Whether a model that can reason before it answers does
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub think: Option<bool>,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

/// Talks until the input ends. Reading lines blocks, so the runtime works beside this thread and not around it.
pub fn run(context: &Context, args: &ChatArgs) -> Outcome {
    let runtime = runtime()?;
    let speaker = runtime.block_on(Speaker::find(&context.config))?;
    let model = match &args.model {
        Some(name) => {
            let models = runtime.block_on(speaker.models())?;
            Some(meant(&models, &model_name(name))?)
        }
        None => None,
    };
    let input = Input::new(&context.config.home)?;
    let mut chat = Chat {
        screen: context.screen,
        live: input.is_terminal(),
        speaker,
        transcript: Transcript {
            system: args.system.clone(),
            messages: Vec::new(),
        },
        model,
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        think: args.think,
        memory: args.memory.recall(),
        saved: None,
    };
    let outcome = chat.talk(input, &runtime);
    drop(chat);
    // A reader of signals or a connection must not hold up whoever wants to leave.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// The command that somebody probably meant.
fn nearest(name: &str) -> Option<&'static str> {
    let likeness = COMMANDS.map(|known| (strsim::jaro_winkler(known, name), known));
    let best = likeness.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness > ALIKE)
        .map(|(_, known)| known)
}

struct Chat {
    screen: Screen,
    /// Whether somebody types.
    live: bool,
    speaker: Speaker,
    transcript: Transcript,
    model: Option<String>,
    temperature: Option<f32>,
    max_tokens: Option<u32>,
    think: Option<bool>,
    memory: Option<Recall>,
    /// The file this conversation was saved to last, which a later /save may replace.
    saved: Option<PathBuf>,
}

/// The commands of a conversation that went wrong.
#[derive(Default)]
struct Wrong {
    count: usize,
    first: Option<Exit>,
}

impl Wrong {
    fn count(&mut self, exit: Exit) {
        self.count += 1;
        self.first.get_or_insert(exit);
    }

    /// What a pipe's conversation ends with: they were told one by one.
    fn outcome(self) -> Outcome {
        let Some(exit) = self.first else {
            return Ok(());
        };
        let message = match self.count {
            1 => "a command of the conversation went wrong".to_owned(),
            count => format!("{count} commands of the conversation went wrong"),
        };
        Err(Failure {
            exit,
            ..Failure::new(message)
        })
    }
}

impl Chat {
    fn talk(&mut self, mut input: Input, runtime: &tokio::runtime::Runtime) -> Outcome {
        if self.live {
            if let Speaker::Here(engine, _) = &self.speaker {
                runtime.block_on(answer::load(engine, self.model.as_deref(), &self.screen))?;
            }
            let name = match &self.model {
                Some(name) => name.clone(),
                None => runtime
                    .block_on(self.speaker.default_model())
                    .unwrap_or_default(),
            };
            let place = match &self.speaker {
                Speaker::Node(client) => format!("on the node at {}", client.place()),
                Speaker::Here(..) => "in this process (no node runs)".to_owned(),
            };
            println(&format!(
                "{} {place}. {}",
                self.screen.bold(&name),
                self.screen.dim("/help lists the commands, Ctrl-D leaves.")
            ));
        }
        let mut wrong = Wrong::default();
        while let Line::Text(text) = input.read(&self.screen)? {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            match text.strip_prefix('/') {
                Some("quit" | "exit" | "bye") => break,
                Some(command) => {
                    if let Err(failure) = runtime.block_on(self.command(command)) {
                        self.tell(&failure);
                        wrong.count(failure.exit);
                    }
                }
                None => {
                    self.transcript.ask(text);
                    match runtime.block_on(self.answer(self.temperature)) {
                        // Somebody who types sees it and goes on; for a pipe there will be no answers.
                        Err(failure) if self.live => self.tell(&failure),
                        outcome => outcome?,
                    }
                }
            }
        }
        match self.live {
            true => Ok(()),
            false => wrong.outcome(),
        }
    }

    /// Tells of a failure that the conversation survives.
    fn tell(&self, failure: &Failure) {
        self.screen.clear();
        match self.screen.json {
            true => eprintln!("{}", failure.json()),
            false => eprintln!("{failure}"),
        }
    }

    async fn command(&mut self, text: &str) -> Outcome {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match name {
            "help" | "?" => self.say(HELP),
            "model" if rest.is_empty() => self.list().await?,
            "model" => {
                let name = meant(&self.speaker.models().await?, &model_name(rest))?;
                self.say(&format!("now talking to {name}"));
                self.model = Some(name);
            }
            "system" if rest.is_empty() && self.transcript.system.is_none() => {
                self.say("there is no system message; /system TEXT sets one");
            }
            "system" => {
                self.transcript.system = (!rest.is_empty()).then(|| rest.to_owned());
                self.say(if rest.is_empty() {
                    "system message taken back"
                } else {
                    "system message set"
                });
            }
            "think" if rest.is_empty() => self.say(match self.think {
                Some(true) => "a model that can reason does; /think off changes that",
                Some(false) => "answers come without reasoning; /think on changes that",
                None => "the model reasons as it does by itself; /think on and /think off say more",
            }),
            "think" => {
                let think = on_or_off(rest)
                    .map_err(|fix| Failure::usage("/think takes on or off").fix(fix))?;
                self.think = Some(think);
                self.say(if think {
                    "a model that can reason does"
                } else {
                    "answers come without reasoning"
                });
            }
            "save" => return self.save(rest),
            "clear" => {
                self.transcript.messages.clear();
                self.say("a new conversation");
            }
            "regenerate" | "retry" => {
                if !self.transcript.take_answer() {
                    return Err(Failure::usage("there is no question to answer again"));
                }
                // The likeliest answer would be the same one again.
                self.answer(Some(self.temperature.unwrap_or(OTHER))).await?;
            }
            other => {
                let meant = nearest(other)
                    .map_or_else(String::new, |near| format!("did you mean /{near}? "));
                return Err(Failure::usage(format!("there is no command /{other}"))
                    .fix(format!("{meant}/help lists them")));
            }
        }
        Ok(())
    }

    fn save(&mut self, name: &str) -> Outcome {
        if name.is_empty() {
            return Err(Failure::usage("/save needs a file").fix("/save talk.md"));
        }
        // No shell stands between.
        let file = match (name.strip_prefix("~/"), etcetera::home_dir()) {
            (Some(rest), Ok(home)) => home.join(rest),
            _ => PathBuf::from(name),
        };
        if self.live && self.saved.as_ref() != Some(&file) && file.exists() {
            return Err(Failure::usage(format!("{name} is there already"))
                .fix("choose another name, or remove it first"));
        }
        self.transcript.save(&file)?;
        self.say(&format!("saved to {}", file.display()));
        self.saved = Some(file);
        Ok(())
    }

    /// A remark, which is not part of the conversation.
    fn say(&self, text: &str) {
        match self.screen.json {
            true => println(&json!({"note": text}).to_string()),
            false => println(&self.screen.dim(text)),
        }
    }

    async fn list(&self) -> Outcome {
        let default = self.speaker.default_model().await;
        let current = self.model.as_ref().or(default.as_ref());
        for model in self.speaker.models().await? {
            let mark = if Some(&model.name) == current {
                "*"
            } else {
                " "
            };
            self.say(&format!("{mark} {}  {}", model.name, models::state(&model)));
        }
        Ok(())
    }

    /// Answers the last question; Ctrl-C stops it and keeps what came.
    async fn answer(&mut self, temperature: Option<f32>) -> Outcome {
        let question = Question {
            model: self.model.clone(),
            messages: self.transcript.all(),
            max_tokens: self.max_tokens,
            temperature,
            think: self.think,
            memory: self.memory.clone(),
            ..Question::default()
        };
        let (screen, live) = (self.screen, !self.screen.json);
        let mut came = String::new();
        let interrupt = interrupted();
        let answer = {
            let asked = self.speaker.ask(&question, &screen, |text| {
                came.push_str(text);
                if live {
                    print(text);
                }
            });
            tokio::select! {
                answer = asked => Some(answer),
                // The unfinished answer is dropped here, which closes its connection or frees its slot.
                () = interrupt => None,
            }
        };
        if live && !came.is_empty() && !came.ends_with('\n') {
            println("");
        }
        match answer {
            Some(Ok(answer)) => {
                if live {
                    for line in answer.citations() {
                        println(&screen.dim(&line));
                    }
                }
                match live {
                    true if self.live => println(&screen.dim(&answer.summary())),
                    true => {}
                    false => println(&answer.json().to_string()),
                }
                self.transcript.answered(&answer.text);
                Ok(())
            }
            Some(Err(failure)) => {
                // The question stays unanswered; asking again must not ask it twice.
                self.transcript.take_question();
                Err(failure)
            }
            None => {
                screen.clear();
                if live {
                    println(&screen.dim("(stopped)"));
                }
                if came.is_empty() {
                    self.transcript.take_question();
                } else {
                    self.transcript.answered(&came);
                }
                Ok(())
            }
        }
    }
}
