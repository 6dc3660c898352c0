//! Server-sent events: an answer as a stream of chunks.
//!
//! Several tokens that are already there go out in one write. While a long prompt is computed, a comment every few
//! seconds keeps proxies from cutting the connection. When the client goes away the body is dropped, with it the
//! generation, and the engine frees the slot.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_engine::{EngineError, Event, Generation};
use hearth_protocol::error::ErrorBody;

use super::Watched;
use crate::failure::Failure;
use crate::state::Shared;

/// Silence after which a comment is sent.
const QUIET: Duration = Duration::from_secs(10);

/// Turns events into chunks.
pub(super) trait Chunks: Send + 'static {
    /// Appends the chunks for an event of prompt `prompt`, each as `data: …\n\n`.
    fn event(&mut self, prompt: usize, event: &Event, out: &mut String);
    /// Appends what follows the last event of the last prompt, before `[DONE]`.
    fn end(&mut self, out: &mut String);
}

struct Streaming<C> {
    node: Shared,
    /// Generations still to read, the current one first.
    rest: std::collections::VecDeque<Generation>,
    prompt: usize,
    begun: Instant,
    first: bool,
    chunks: C,
    ended: bool,
}

/// The answer of one or several generations, one after the other.
pub(super) fn respond<C: Chunks>(
    node: Shared,
    generations: Vec<Generation>,
    begun: Instant,
    chunks: C,
) -> Response {
    let state = Streaming {
        node,
        rest: generations.into(),
        prompt: 0,
        begun,
        first: true,
        chunks,
        ended: false,
    };
    let body = stream::unfold(state, |mut state| async move {
        let out = state.write().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), state))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

impl<C: Chunks> Streaming<C> {
    /// The next piece of the body; `None` after the last.
    async fn write(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let mut out = String::new();
        while out.is_empty() && !self.ended {
            let Some(generation) = self.rest.pop_front() else {
                self.finish(&mut out);
                break;
            };
            let mut watched = Watched {
                node: &self.node,
                generation,
                begun: self.begun,
                first: self.first,
            };
            match tokio::time::timeout(QUIET, watched.next()).await {
                Err(_) => out.push_str(": waiting\n\n"),
                Ok(event) => {
                    let mut event = event;
                    let mut over = false;
                    if event.is_none() {
                        // The model's thread ended without a word.
                        fail(EngineError::Unloaded, &mut out);
                        self.ended = true;
                        break;
                    }
                    loop {
                        match event {
                            Some(Ok(event)) => {
                                over |= matches!(event, Event::Done(_));
                                self.chunks.event(self.prompt, &event, &mut out);
                            }
                            Some(Err(error)) => {
                                fail(error, &mut out);
                                self.ended = true;
                            }
                            None => break,
                        }
                        event = watched.try_next();
                    }
                    if over {
                        self.prompt += 1;
                        self.first = watched.first;
                        if self.rest.is_empty() {
                            self.finish(&mut out);
                        }
                        continue;
                    }
                    if self.ended {
                        break;
                    }
                }
            }
            self.first = watched.first;
            let Watched { generation, .. } = watched;
            self.rest.push_front(generation);
        }
        Some(out)
    }

    fn finish(&mut self, out: &mut String) {
        self.chunks.end(out);
        out.push_str("data: [DONE]\n\n");
        self.ended = true;
    }
}

/// The status line is long gone, so the error is an event.
fn fail(error: EngineError, out: &mut String) {
    let body = ErrorBody {
        error: Failure::from(error).error,
    };
    push(out, &serde_json::to_string(&body).unwrap_or_default());
}

/// Appends one event.
pub(super) fn push(out: &mut String, json: &str) {
    out.push_str("data: ");
    out.push_str(json);
    out.push_str("\n\n");
}
