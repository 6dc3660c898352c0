//! `hearth peers`: the machines of the household, and what became of them.

use clap::{Args, Subcommand};
use hearth_protocol::diagnosis::{Diagnosis, PeerPath, Verdict};
use hearth_protocol::household::Address;
use hearth_protocol::peers::{Peer, Peers};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::Context;
use crate::addressed;
use crate::failure::Outcome;
use crate::screen::{Screen, print, println};

/// Flags of `hearth peers`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth peers                      the machines, and whether a prompt reaches them
  hearth peers --json | jq '.members[] | {name, addresses}'
  hearth peers remove laptop        it may nothing any more, at once
  hearth peers rename laptop study

Why one does not answer: hearth doctor NAME")]
pub struct PeersArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Remove a machine from the household, with immediate effect
    #[command(after_help = "\
EXAMPLES
  hearth peers remove laptop        by its name
  hearth peers remove 3f9a0c        by the beginning of its id")]
    Remove {
        /// Name of the machine, or the beginning of its id
        peer: String,
    },
    /// Call a machine something else
    #[command(after_help = "\
EXAMPLES
  hearth peers rename laptop study")]
    Rename {
        /// Name of the machine, or the beginning of its id
        peer: String,
        /// Its new name: letters, digits, dots, dashes and underscores
        name: String,
    },
}

/// Lists or changes the members.
pub async fn run(context: &Context, args: &PeersArgs) -> Outcome {
    let (client, _) = addressed::meant(&context.config).await?;
    let (method, path, body) = match &args.what {
        None => (Method::GET, "/peers".to_owned(), None),
        Some(What::Remove { peer }) => (Method::DELETE, member(peer), None),
        Some(What::Rename { peer, name }) => {
            (Method::PATCH, member(peer), Some(json!({"name": name})))
        }
    };
    let peers: Peers = client.ask(method, &path, body.as_ref()).await?;
    match context.screen.json {
        true => println(&json!(peers).to_string()),
        false => print(&draw(&peers, &context.screen)),
    }
    Ok(())
}

fn member(peer: &str) -> String {
    let peer = utf8_percent_encode(peer, NON_ALPHANUMERIC);
    format!("/household/members/{peer}")
}

/// The household in a table.
pub fn draw(peers: &Peers, screen: &Screen) -> String {
    if peers.household.is_none() {
        return format!(
            "{} is alone; invite another machine with: hearth invite\n",
            screen.bold(&peers.name)
        );
    }
    let mut rows = vec![
        ["machine", "id", "way there", "addresses", "models"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(peers.members.iter().map(row));
    screen.table(&rows)
}

fn row(peer: &Peer) -> Vec<String> {
    let hub = if peer.is_hub { " (hub)" } else { "" };
    let way = match (&peer.diagnosis, peer.is_here) {
        (_, true) => "this machine".to_owned(),
        (None, false) => "not probed yet".to_owned(),
        (Some(diagnosis), false) => in_short(diagnosis),
    };
    let models: Vec<&str> = peer
        .capabilities
        .models
        .iter()
        .map(|model| model.name.as_str())
        .collect();
    vec![
        format!("{}{hub}", peer.name),
        peer.node.short(),
        way,
        addresses(&peer.addresses),
        models.join(", "),
    ]
}

/// The first address, and how many there are besides.
fn addresses(all: &[Address]) -> String {
    match all {
        [] => "none yet".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

/// A diagnosis in a few words.
pub fn in_short(diagnosis: &Diagnosis) -> String {
    let trip = diagnosis
        .round_trip_ms
        .map_or_else(String::new, |trip| format!(", {trip:.1} ms"));
    match (diagnosis.verdict, diagnosis.path) {
        (Verdict::Usable, PeerPath::Relayed) => format!("relayed{trip}"),
        (Verdict::Usable, _) => format!("direct{trip}"),
        (Verdict::Unknown, _) => "not known yet".into(),
        (Verdict::Failed, _) => match diagnosis.code() {
            Some(code) => format!("broken: {code}"),
            None => "broken".into(),
        },
    }
}
