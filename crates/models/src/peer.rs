//! Models from and for other Hearth machines, without a hub: `GET /peer/models` and `GET /peer/blobs/sha256-…`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason};
use crate::http::{Reply, host};
use crate::manifest::{Digest, Facts, Model, ModelFile, Source};
use crate::missing::closest;
use crate::name::Name;
use crate::store::{Choice, ModelStore, choose};

/// Route of the list.
pub const MODELS: &str = "/peer/models";
/// Beginning of a blob's route; the blob's file name follows.
pub const BLOBS: &str = "/peer/blobs/";

/// Letters of another machine's own words that are shown.
const LONGEST_DETAIL: usize = 400;

/// Names of another machine's models that are shown.
const MOST_LISTED: usize = 12;

/// What `GET /peer/models` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerModels {
    /// Every model of the machine's store.
    pub models: Vec<PeerModel>,
}

/// A model as another machine may know it: nothing of this machine's folders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerModel {
    /// Name it is asked for.
    pub name: String,
    /// Its files in order; each is a blob.
    pub files: Vec<ModelFile>,
    /// The hub's repository it came from, if it came from a hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// What its file says.
    pub facts: Facts,
}

impl From<Model> for PeerModel {
    fn from(model: Model) -> Self {
        Self {
            name: model.name,
            files: model.files,
            repo: match model.source {
                Source::Hub { repo, .. } => Some(repo),
                Source::Peer { repo, .. } => repo,
                Source::Package { .. } | Source::Import { .. } => None,
            },
            facts: model.facts,
        }
    }
}

impl ModelStore {
    /// The models for other machines.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn shared(&self) -> Result<PeerModels, Error> {
        let models = self.list()?.into_iter().map(PeerModel::from).collect();
        Ok(PeerModels { models })
    }
}

/// Address of a machine, with `http://` before and nothing behind it: not even the `/v1` of the address that OpenAI's
/// clients are given.
pub(crate) fn base(text: &str) -> String {
    let text = text.trim().trim_end_matches('/');
    let text = text
        .strip_suffix("/v1")
        .unwrap_or(text)
        .trim_end_matches('/');
    match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    }
}

/// Address of a blob.
pub(crate) fn blob_url(base: &str, digest: &Digest) -> String {
    format!("{base}{BLOBS}{}", digest.file())
}

/// The model of that name on another machine.
pub(crate) fn find(base: &str, asked: &Name, reply: Reply) -> Result<PeerModel, Error> {
    let PeerModels { models } = reply.json().map_err(|error| {
        Error::new(Reason::Unreachable, error.what)
            .fix("check that a Hearth node listens at that address")
    })?;
    match choose(asked, &models, |model| &model.name) {
        Choice::One(model) => Ok(model.clone()),
        Choice::Several(names) => Err(Error::new(
            Reason::NotFound,
            format!("{} has several of these: {}", host(base), names.join(", ")),
        )
        .fix("name it with its tag")),
        Choice::None => {
            let names: Vec<String> = models
                .iter()
                .map(|model| model.name.escape_debug().to_string())
                .collect();
            let message = format!("{} has no model `{asked}`", host(base));
            Err(
                Error::new(Reason::NotFound, message).fix(match names.as_slice() {
                    [] => "pull one there first".to_owned(),
                    names => listed(asked, names),
                }),
            )
        }
    }
}

/// What another machine has: first what was probably meant, and not more than can be taken in.
fn listed(asked: &Name, names: &[String]) -> String {
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let near = closest(&asked.to_string(), &known);
    let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    let (shown, rest) = known.split_at(known.len().min(MOST_LISTED));
    let more = match rest.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("{near}it has: {}{more}", shown.join(", "))
}

/// Nobody is where the other machine should be.
pub(crate) fn absent(what: &str) -> Error {
    Error::new(
        Reason::Unreachable,
        format!("the other machine cannot be reached: {what}"),
    )
    .fix("check its name or address, and that a Hearth node runs there whose `host` setting lets other machines in")
}

/// What a Hearth node says of a request that it refuses (RFC 9457).
#[derive(Deserialize)]
struct Refusal {
    /// `/problems/CODE`.
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// A refusal: the node's settings, the name it was asked by, or whatever it says.
fn refused(place: &str, reply: &mut Reply) -> Error {
    let denied = |message: String| Error::new(Reason::Denied, message);
    let Ok(Refusal { kind, detail }) = serde_json::from_str(&reply.text()) else {
        let status = reply.status;
        return denied(format!("{place} refuses with HTTP status {status}"))
            .fix("check that a Hearth node listens at that address");
    };
    let detail: String = detail
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LONGEST_DETAIL)
        .collect();
    match kind.trim_start_matches("/problems/") {
        "not_local" => denied(format!("{place} does not share its models")).fix(
            "set share_models = \"on\" in that machine's configuration and start its node again",
        ),
        "foreign_host" => denied(format!("{place} does not go by that name: {detail}"))
            .fix("run the command again with the address that it names"),
        _ => denied(format!("{place} refuses: {detail}")),
    }
}

/// What a status of another machine means, and what to do.
pub(crate) fn explain(base: &str, reply: &mut Reply) -> Error {
    let place = host(base);
    match reply.status {
        401 | 403 => refused(&place, reply),
        404 => Error::new(
            Reason::NotFound,
            format!("{place} does not have that file, or is no Hearth node that shares models"),
        )
        .fix("update Hearth there, or run `hearth models verify` there"),
        429 | 503 => Error::new(
            Reason::Limited,
            format!("{place} serves too many others at the moment"),
        )
        .fix("run the same command again in a moment; it goes on where it stopped"),
        status => Error::new(
            Reason::Unreachable,
            format!("{place} answers with HTTP status {status}"),
        )
        .fix("check that a Hearth node listens at that address"),
    }
}
