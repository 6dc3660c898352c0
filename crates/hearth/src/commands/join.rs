//! `hearth join` and `hearth leave`: into a household and out of it.

use clap::Args;
use hearth_protocol::peers::{Join, Leave, Left, Peers};
use hyper::Method;
use serde_json::{Value, json};

use super::Context;
use super::peers::draw;
use crate::addressed;
use crate::client::{Client, understood};
use crate::daemon;
use crate::failure::{Exit, Outcome};
use crate::record::NodeRecord;
use crate::screen::{print, println};

/// Flags of `hearth join`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth join HEARTH1...            the ticket that `hearth invite` printed on another machine

A running node joins at once. Without one the machine is made a member, and the
node does its part when it starts.")]
pub struct JoinArgs {
    /// The ticket
    ticket: String,
}

/// Flags of `hearth leave`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth leave                      this machine is alone again
  hearth leave --end                also where it is the hub of others

The machine that gave out the first ticket is the hub: it keeps the list of members.
When it leaves, the household ends for all; its node has to run for that. Elsewhere
no node has to run.")]
pub struct LeaveArgs {
    /// End the household, of which this machine is the hub
    #[arg(long)]
    end: bool,
}

/// Joins the household of a ticket.
pub async fn join(context: &Context, args: &JoinArgs) -> Outcome {
    let wanted = Join {
        ticket: args.ticket.trim().to_owned(),
    };
    match node(context).await? {
        Some(client) => {
            let wanted = json!(wanted);
            let joining = client.ask(Method::POST, "/household/join", Some(&wanted));
            show(context, joining.await?, "joined")
        }
        None => {
            let peers = daemon::join_without_node(&context.config, &wanted).await?;
            show(context, json!(peers), "joined")?;
            context
                .screen
                .note("no node runs here yet; start it with: hearth up");
            Ok(())
        }
    }
}

/// Leaves the household.
pub async fn leave(context: &Context, args: &LeaveArgs) -> Outcome {
    let left: Left = match node(context).await? {
        Some(client) => {
            let wanted = json!(Leave { end: args.end });
            let leaving = client.ask(Method::POST, "/household/leave", Some(&wanted));
            leaving.await?
        }
        None => daemon::leave_without_node(&context.config).await?,
    };
    show(context, json!(left), "left the household")?;
    if !left.told {
        context.screen.note(&format!(
            "the hub does not answer, so the others still list this machine; on the hub: hearth peers remove {}",
            left.was
        ));
    }
    Ok(())
}

/// The node that is meant, or none if the home's own does not run. Who names a node means that one.
async fn node(context: &Context) -> Outcome<Option<Client>> {
    let config = &context.config;
    match addressed::meant(config).await {
        Ok((client, _)) => Ok(Some(client)),
        Err(failure) if failure.exit != Exit::NoNode || addressed::is_host_said(config) => {
            Err(failure)
        }
        // It may only be slow, and two do not work on one home.
        Err(failure) => {
            let record = NodeRecord::read(&config.home);
            match record.and_then(|record| record.process_exists()) {
                Some(true) => Err(failure),
                _ => Ok(None),
            }
        }
    }
}

fn show(context: &Context, answer: Value, what: &str) -> Outcome {
    if context.screen.json {
        println(&answer.to_string());
        return Ok(());
    }
    let peers: Peers = understood(answer)?;
    print(&format!("{}\n{}", what, draw(&peers, &context.screen)));
    Ok(())
}
