//! What `/api/chat` and `/api/generate` do alike: load the model, or unload it, or have it answer.

use std::time::Instant;

use axum::response::Response;
use hearth_engine::Request;
use hearth_protocol::ollama::{KeepAlive, Options, Think};

use super::answer::{Answer, Shape};
use super::{Refusal, check_think, keep, load, unloads};
use crate::answer::{Names, Watched};
use crate::state::Shared;

/// A request to one of the two routes.
pub(super) struct Question {
    pub shape: Shape,
    /// When it came.
    pub begun: Instant,
    /// The model, as the request names it.
    pub name: String,
    /// Whether nothing is asked: the model is loaded, or unloaded with `keep_alive: 0`.
    pub empty: bool,
    /// For the engine.
    pub asked: Request,
    /// The request's name for what is asked.
    pub prompt: &'static str,
    pub think: Option<Think>,
    pub options: Option<Options>,
    pub keep_alive: Option<KeepAlive>,
    pub stream: Option<bool>,
}

impl Question {
    /// Does what is asked.
    pub async fn answer(self, node: &Shared) -> Result<Response, Refusal> {
        let source = node.engine.catalogue().resolve(Some(&self.name))?;
        let answer = |load| Answer::new(self.shape, self.name, self.begun, load);
        if self.empty && unloads(self.keep_alive) {
            keep(node, &source, self.keep_alive);
            return Ok(answer(Default::default()).nothing("unload"));
        }
        check_think(node, &source, self.think).await?;
        let load = load(node, &source, self.options.as_ref()).await?;
        if self.empty {
            keep(node, &source, self.keep_alive);
            return Ok(answer(load).nothing("load"));
        }
        let names = Names {
            prompt: self.prompt,
            constraint: "format",
            max_tokens: "options.num_predict",
            logprobs: "top_logprobs",
        };
        let watched = Watched::ask(node, Some(&source.name), self.asked, names, self.begun).await?;
        keep(node, &source, self.keep_alive);
        answer(load)
            .respond(watched, self.stream.unwrap_or(true))
            .await
    }
}
