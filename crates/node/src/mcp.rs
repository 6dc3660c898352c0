//! MCP: the memory as tools and resources that a coding tool hands to its model
//! (<https://modelcontextprotocol.io/specification>).
//!
//! One server over [`Memories`] stands behind two doors: `/mcp` of the node (`http`), and a pair of pipes ([`serve`], `pipes`),
//! which `hearth mcp` opens on its standard streams. The protocol itself is the crate `rmcp`'s, but for what is no message
//! at all (`shape`); what it offers is written down in `handler`, the tools in `tools`, the prompts in `prompts`, and what a model reads in `text`.
//!
//! No session is kept between requests over HTTP, as MCP has it since 2026-07-28: a tool may come back after the node was
//! started anew, and nothing grows when one never says goodbye.

mod handler;
pub(crate) mod http;
mod pipes;
mod prompts;
mod schema;
mod shape;
mod text;
mod tools;

use hearth_memory::Memories;
use rmcp::service::ServerInitializeError;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use utoipa::IntoParams;

use crate::upkeep::Upkeep;
use handler::Server;
use pipes::Pipes;

/// What a model says for all projects, where the session has one of its own.
const EVERY_PROJECT: &str = "*";

/// What a session sees, and whether it may change anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Scope {
    /// The project of every call that names none; without one such a call is about every project.
    #[serde(default)]
    pub project: Option<String>,
    /// Whether memories can only be looked at.
    #[serde(default)]
    pub read_only: bool,
}

impl Scope {
    /// The project of a call that says this one.
    fn project(&self, said: Option<&str>) -> Option<String> {
        let said = said.map(str::trim).filter(|said| !said.is_empty());
        let project = said.or(self.project.as_deref());
        project
            .filter(|project| *project != EVERY_PROJECT)
            .map(ToOwned::to_owned)
    }
}

/// Speaks MCP on a pair of pipes, a message a line, until the reading end closes; then answers what was asked before.
///
/// # Errors
/// If the other end does not begin as MCP has it, or takes no answers any more.
pub async fn serve(
    memories: Memories,
    scope: Scope,
    version: &'static str,
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
) -> std::io::Result<()> {
    let upkeep = Upkeep::begin(memories.clone(), None);
    let server = Server::new(memories.clone(), scope, version);
    let ended = match rmcp::serve_server(server, Pipes::open(reader, writer)).await {
        Ok(service) => service.waiting().await.map(drop).map_err(Into::into),
        // Who looks whether the program starts asks nothing.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        // Not what it sent instead, which is in the error.
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "the other end did not begin with `initialize`; start this from a tool that speaks MCP",
        )),
        Err(error) => Err(std::io::Error::other(error)),
    };
    drop(upkeep);
    let last = move || memories.upkeep(&mut |_, _| false);
    match tokio::task::spawn_blocking(last).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "memories could not be looked after"),
        Err(error) => tracing::warn!(%error, "memories could not be looked after"),
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_about_the_project_it_names_or_that_of_its_session() {
        let shop = Scope {
            project: Some("shop".into()),
            read_only: false,
        };
        assert_eq!(shop.project(None).as_deref(), Some("shop"));
        assert_eq!(shop.project(Some(" ")).as_deref(), Some("shop"));
        assert_eq!(shop.project(Some("bank")).as_deref(), Some("bank"));
        assert_eq!(shop.project(Some("*")), None);
        let every = Scope::default();
        assert_eq!(every.project(None), None);
        assert_eq!(every.project(Some("bank")).as_deref(), Some("bank"));
    }
}
