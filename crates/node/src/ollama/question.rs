//! What `/api/chat` and `/api/generate` do alike: load the model, or unload it, or have it answer.

use std::time::Instant;

use axum::response::Response;
use hearth_engine::Request;
use hearth_protocol::ollama::{KeepAlive, Options, Think};
use hearth_protocol::recall::Extension;

use super::answer::{Answer, Shape};
use super::{Refusal, check_think, keep, load, unloads};
use crate::answer::{Names, Watched};
use crate::elsewhere::{self, Purpose, Wanted};
use crate::recall;
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
    pub hearth: Option<Extension>,
    pub stream: Option<bool>,
}

impl Question {
    /// Does what is asked.
    pub async fn answer(mut self, node: &Shared) -> Result<Response, Refusal> {
        let source = match node.engine.catalogue().resolve(Some(&self.name)) {
            // Who asks nothing wants the model to go or to stay, and means this machine. Who asks something says with it how
            // long the model stays wherever it is loaded, and it is no reason to load it here.
            Ok(source) if !self.empty && elsewhere::is_ready_elsewhere(node, &source.name) => {
                return self.answered_elsewhere(node).await;
            }
            Ok(source) => source,
            // Another machine has it loaded, or loads it.
            Err(error) => {
                let purpose = Purpose::Generate;
                return match elsewhere::may_be_elsewhere(node, &self.name, purpose).await {
                    true => self.answered_elsewhere(node).await,
                    false => Err(error.into()),
                };
            }
        };
        let nothing = |load, reason| {
            Answer::new(self.shape, self.name.clone(), self.begun, load).nothing(reason)
        };
        if self.empty && unloads(self.keep_alive) {
            keep(node, &source, self.keep_alive);
            return Ok(nothing(Default::default(), "unload"));
        }
        check_think(node, &source, self.think).await?;
        let load = load(node, &source, self.options.as_ref()).await?;
        if self.empty {
            keep(node, &source, self.keep_alive);
            return Ok(nothing(load, "load"));
        }
        let names = self.names();
        let prompt = &mut self.asked.prompt;
        let used = recall::for_prompt(node, self.hearth.as_ref(), prompt).await?;
        let wanted = Wanted::of(self.asked, self.hearth.as_ref());
        let watched = Watched::ask(node, Some(&source.name), wanted, names, self.begun).await;
        let watched = watched.map_err(|failure| recall::with_advice(failure, used.as_ref()))?;
        keep(node, &source, self.keep_alive);
        Answer::new(self.shape, self.name, self.begun, load)
            .citing(used)
            .respond(watched, self.stream.unwrap_or(true))
            .await
    }

    fn names(&self) -> Names {
        Names {
            prompt: self.prompt,
            constraint: "format",
            max_tokens: "options.num_predict",
            logprobs: "top_logprobs",
        }
    }

    /// The same of a model that this machine has not.
    async fn answered_elsewhere(mut self, node: &Shared) -> Result<Response, Refusal> {
        if self.empty {
            let answer = Answer::new(self.shape, self.name, self.begun, Default::default());
            return Ok(answer.nothing("load"));
        }
        let names = self.names();
        let prompt = &mut self.asked.prompt;
        let used = recall::for_prompt(node, self.hearth.as_ref(), prompt).await?;
        let wanted = Wanted::of(self.asked, self.hearth.as_ref());
        let watched = Watched::ask(node, Some(&self.name), wanted, names, self.begun).await;
        let watched = watched.map_err(|failure| recall::with_advice(failure, used.as_ref()))?;
        Answer::new(self.shape, self.name, self.begun, Default::default())
            .citing(used)
            .respond(watched, self.stream.unwrap_or(true))
            .await
    }
}
