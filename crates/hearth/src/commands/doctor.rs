//! `hearth doctor`: which layer between this machine and another is broken, and what mends it.

use clap::Args;
use hearth_protocol::diagnosis::{Check, Diagnosis, Layer, Outcome as Judged, Verdict};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::peers::in_short;
use super::{Context, firewall};
use crate::addressed;
use crate::failure::{Failure, Outcome};
use crate::screen::{Screen, print, println};

/// Flags of `hearth doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth doctor                     every machine of the household
  hearth doctor gpubox              one machine, layer by layer
  hearth doctor gpubox --model qwen3:8b
  sudo hearth doctor --fix          also put right what a VPN client's firewall drops
  hearth doctor --json | jq '.[] | {name, verdict, broken}'

Exit code 1 means that no prompt reaches one of the machines.")]
pub struct DoctorArgs {
    /// Name of a machine, or the beginning of its id; all of them if left out
    peer: Option<String>,
    /// Ask whether this model can answer there
    #[arg(long)]
    model: Option<String>,
    /// Mend what this machine can mend: the rules of a VPN client that drop the mesh (asks first; Linux, as root)
    #[arg(long)]
    fix: bool,
    /// With --fix, do not ask
    #[arg(long, requires = "fix")]
    yes: bool,
}

/// Diagnoses, and prints what was found.
pub async fn run(context: &Context, args: &DoctorArgs) -> Outcome {
    let (client, status) = addressed::running(&context.config).await?;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = "/diagnosis?probe=true".to_owned();
    if let Some(peer) = &args.peer {
        path += &format!("&peer={}", encode(peer));
    }
    if let Some(model) = &args.model {
        path += &format!("&model={}", encode(model));
    }
    context.screen.progress("asking the other machines");
    let found = client.ask(Method::GET, &path, None).await;
    context.screen.clear();
    let found: Vec<Diagnosis> = found?;
    if args.fix {
        return firewall::mend(context, args.yes);
    }
    let broken: Vec<&str> = found
        .iter()
        .filter(|diagnosis| diagnosis.verdict == Verdict::Failed)
        .map(|diagnosis| diagnosis.name.as_str())
        .collect();
    if context.screen.json {
        println(&json!(found).to_string());
    } else if found.is_empty() {
        println(&format!(
            "the node at http://{} runs, and its household has no other machine; add one with: hearth invite",
            status.address
        ));
    } else {
        for diagnosis in &found {
            print(&draw(diagnosis, &context.screen));
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "no prompt reaches {}",
            broken.join(", ")
        ))),
    }
}

/// The way to a machine with the broken link marked, and every layer below.
fn draw(diagnosis: &Diagnosis, screen: &Screen) -> String {
    let mut text = format!(
        "{}  {}  {}\n",
        screen.bold(&diagnosis.name),
        way(diagnosis, screen),
        in_short(diagnosis)
    );
    for check in &diagnosis.checks {
        text += &line(check, screen);
    }
    text.push('\n');
    text
}

/// One link for each layer: whole, broken, or not looked at.
fn way(diagnosis: &Diagnosis, screen: &Screen) -> String {
    let link = |layer: &Layer| {
        let outcome = diagnosis.check(*layer).map(|check| check.outcome);
        match outcome {
            Some(Judged::Ok) => screen.green("━━"),
            Some(Judged::Note) => screen.yellow("━━"),
            Some(Judged::Failed) if diagnosis.broken == Some(*layer) => screen.red("━╳"),
            Some(Judged::Failed) => screen.yellow("╌╳"),
            Some(Judged::Skipped) | None => screen.dim("╌╌"),
        }
    };
    let links: String = Layer::ALL.iter().map(link).collect();
    format!("here {links} there")
}

fn line(check: &Check, screen: &Screen) -> String {
    let mark = match check.outcome {
        Judged::Ok => screen.green("✓"),
        Judged::Note => screen.yellow("!"),
        Judged::Failed => screen.red("✗"),
        Judged::Skipped => screen.dim("–"),
    };
    let time = check
        .milliseconds
        .map_or_else(String::new, |time| format!(" ({time:.1} ms)"));
    let code = check
        .code
        .map_or_else(String::new, |code| format!("  {code}"));
    let name = format!("{:<21}", check.layer.words());
    let mut text = format!("  {mark} {name} {}{time}{code}\n", check.words);
    if let Some(fix) = &check.fix {
        text += &format!("      fix: {fix}\n");
    }
    text
}
