//! An answer as a stream: server-sent events, or JSON lines on Ollama's routes.
//!
//! Each surface writes its own chunks ([`Chunks`]). Several tokens that are already there go out in one write. While a long prompt is computed, a comment every few
//! seconds keeps proxies from cutting the connection. When the client goes away the body is dropped, with it the
//! generation, and the engine frees the slot.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_engine::Event;
use hearth_protocol::error::ErrorBody;

use crate::answer::Watched;
use crate::failure::Failure;

/// Silence after which a comment is sent.
const QUIET: Duration = Duration::from_secs(10);

/// Turns events into chunks.
pub(crate) trait Chunks: Send + 'static {
    /// Type of the body.
    const CONTENT_TYPE: &'static str = "text/event-stream";

    /// Appends the chunks for an event of prompt `prompt`.
    fn event(&mut self, prompt: usize, event: &Event, out: &mut String);

    /// What must have happened before the end is written, such as storing the answer. If it fails, so does the
    /// answer.
    fn before_end(&mut self) -> impl Future<Output = Result<(), Failure>> + Send {
        std::future::ready(Ok(()))
    }

    /// Appends what follows the last event of the last prompt.
    fn end(&mut self, out: &mut String);

    /// Appends what says that the answer broke off: the status line is long gone.
    fn fail(&mut self, failure: Failure, out: &mut String) {
        let body = ErrorBody {
            error: failure.error,
        };
        push(out, &serde_json::to_string(&body).unwrap_or_default());
    }

    /// Appends what keeps the connection alive while nothing happens, and means nothing.
    fn waiting(&mut self, out: &mut String) {
        out.push_str(": waiting\n\n");
    }
}

struct Streaming<C> {
    /// Answers still to read, the current one first.
    rest: VecDeque<Watched>,
    prompt: usize,
    chunks: C,
    ended: bool,
}

/// One or several answers, one after the other.
pub(crate) fn respond<C: Chunks>(answers: Vec<Watched>, chunks: C) -> Response {
    let state = Streaming {
        rest: answers.into(),
        prompt: 0,
        chunks,
        ended: false,
    };
    let body = stream::unfold(state, |mut state| async move {
        let out = state.write().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), state))
    });
    let headers = [(CONTENT_TYPE, C::CONTENT_TYPE), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(body)).into_response()
}

impl<C: Chunks> Streaming<C> {
    /// The next piece of the body; `None` after the last.
    async fn write(&mut self) -> Option<String> {
        let mut out = String::new();
        while out.is_empty() && !self.ended {
            let Some(answer) = self.rest.front_mut() else {
                match self.chunks.before_end().await {
                    Ok(()) => self.chunks.end(&mut out),
                    Err(failure) => self.fail(failure, &mut out),
                }
                self.ended = true;
                break;
            };
            let mut event = match tokio::time::timeout(QUIET, answer.next()).await {
                Err(_) => {
                    self.chunks.waiting(&mut out);
                    break;
                }
                Ok(event) => Some(event),
            };
            // What is there already goes out in the same write.
            while let Some(next) = event {
                match next {
                    Ok(next) => {
                        self.chunks.event(self.prompt, &next, &mut out);
                        if matches!(next, Event::Done(_)) {
                            self.prompt += 1;
                            self.rest.pop_front();
                            break;
                        }
                    }
                    Err(failure) => {
                        self.fail(failure, &mut out);
                        break;
                    }
                }
                event = answer.try_next();
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// Ends the answer in the middle. The log has it here alone: the request itself was answered with 200.
    fn fail(&mut self, failure: Failure, out: &mut String) {
        tracing::info!(code = failure.code(), "answer broke off");
        self.chunks.fail(failure, out);
        self.ended = true;
    }
}

/// Appends one unnamed server-sent event.
pub(crate) fn push(out: &mut String, json: &str) {
    out.push_str("data: ");
    out.push_str(json);
    out.push_str("\n\n");
}
