//! `hearth memory share`, and searches of every machine: what goes beyond this machine, through its node.

use clap::Args;
use hearth_protocol::memory::Search;
use hearth_protocol::peers::{FoundEverywhere, Share, Shared};
use hyper::Method;
use serde_json::json;

use crate::addressed;
use crate::commands::Context;
use crate::failure::{Failure, Outcome};
use crate::screen::{Screen, print, println};

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth memory share                          what the household may search now
  hearth memory share --project shop           it may search this project's memories
  hearth memory share --all                    every memory
  hearth memory share --project shop --stop    not any more, at once

Nobody may search anything until it is shared, and nobody ever writes. The node must run.")]
pub struct ShareArgs {
    /// The project
    #[arg(long, short, value_name = "NAME", conflicts_with = "all")]
    project: Option<String>,
    /// Every memory, also those without a project
    #[arg(long)]
    all: bool,
    /// Share it no more
    #[arg(long)]
    stop: bool,
}

/// Shows or changes what is shared.
pub async fn share(context: &Context, args: &ShareArgs) -> Outcome {
    let changes = args.all || args.project.is_some();
    if args.stop && !changes {
        let message = "--stop needs to know what is not shared any more";
        return Err(Failure::usage(message).fix("add --project NAME or --all"));
    }
    let wanted = json!(Share {
        project: args.project.clone(),
        shared: !args.stop,
    });
    let (method, body) = match changes {
        true => (Method::POST, Some(&wanted)),
        false => (Method::GET, None),
    };
    let (client, _) = addressed::running(&context.config).await?;
    let shared: Shared = client.ask(method, "/household/memory/share", body).await?;
    if context.screen.json {
        println(&json!(shared).to_string());
        return Ok(());
    }
    println(&match (shared.all, shared.projects.as_slice()) {
        (true, _) => "the household may search every memory of this machine".to_owned(),
        (false, []) => {
            "the household may search no memory of this machine; share some with --project NAME or --all"
                .to_owned()
        }
        (false, projects) => format!(
            "the household may search the memories of {} on this machine",
            projects.join(", ")
        ),
    });
    if let (false, [_, ..]) = (shared.all, shared.empty.as_slice()) {
        context.screen.note(&format!(
            "there is no memory of {} here yet; what projects there are: hearth memory stats",
            shared.empty.join(", ")
        ));
    }
    Ok(())
}

/// Searches every machine of the household.
pub async fn search(context: &Context, wanted: Search) -> Outcome {
    let (client, _) = addressed::running(&context.config).await?;
    let path = "/household/memory/search";
    let found: FoundEverywhere = client.ask(Method::POST, path, Some(&json!(wanted))).await?;
    if context.screen.json {
        println(&json!(found).to_string());
        return Ok(());
    }
    for missing in &found.unanswered {
        context
            .screen
            .note(&format!("{}: {}", missing.name, missing.reason));
    }
    print(&drawn(&found, &context.screen));
    Ok(())
}

fn drawn(found: &FoundEverywhere, screen: &Screen) -> String {
    if found.memories.is_empty() {
        return "nothing was found\n".into();
    }
    let each = found.memories.iter().map(|it| {
        let project = it.hit.memory.project.as_deref();
        let project = project.map_or_else(String::new, |project| format!(", {project}"));
        format!(
            "{}  {}\n{}\n\n",
            screen.bold(&it.machine),
            screen.dim(&format!("{}{project}", it.hit.memory.id)),
            it.hit.memory.text
        )
    });
    each.collect()
}
