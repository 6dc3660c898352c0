//! `POST /peer/generate`: this node answers a prompt for another one.
//!
//! The answer is a stream of frames ([`super::frame`]). The end is held back until the other node commits
//! (`POST /peer/generate/{run}/commit`), which it does for one node alone: so a request that was given up here and asked
//! elsewhere never runs to its end twice. The rules are [`hearth_dispatch::Serving`]'s; when the connection goes away,
//! the run goes with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_dispatch::CommitWhen;
use hearth_dispatch::serving::{Act, SIGN_OF_LIFE, Serving, Stop};
use hearth_engine::Event;
use hearth_mesh::signature::REFUSAL;
use hearth_protocol::error::ApiError;
use hearth_protocol::household::NodeId;
use hearth_protocol::parse;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::frame::{Frame, Question, VERSION, Work};
use super::task::offers;
use crate::access::Caller;
use crate::answer::Watched;
use crate::body::received;
use crate::failure::{Failure, problem};
use crate::health;
use crate::state::Shared;

/// Runs of one node at a time; more than any engine has slots for.
const MOST_RUNS: usize = 256;

/// Who asked, and the run's name.
pub(super) type Key = (Option<NodeId>, String);

/// The runs that go on here for other nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs(Arc<Mutex<HashMap<Key, watch::Sender<bool>>>>);

impl Runs {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run; `None` if it goes on already, or too many do.
    pub(super) fn begin(&self, key: Key) -> Option<Run> {
        let mut all = self.all();
        let of_this = all.keys().filter(|(node, _)| *node == key.0).count();
        match all.entry(key.clone()) {
            Entry::Vacant(place) if of_this < MOST_RUNS => {
                let (commit, committed) = watch::channel(false);
                place.insert(commit);
                Some(Run {
                    runs: self.clone(),
                    key,
                    committed,
                })
            }
            _ => None,
        }
    }

    /// Lets a run end; false if it is not there any more.
    fn commit(&self, key: &Key) -> bool {
        let all = self.all();
        all.get(key).is_some_and(|commit| commit.send(true).is_ok())
    }

    /// Gives up every run.
    pub fn give_up_all(&self) {
        self.all().clear();
    }

    /// Gives up every run of a node that may not ask any more.
    pub fn give_up(&self, node: NodeId) {
        self.all().retain(|(asker, _), _| *asker != Some(node));
    }
}

/// A run that goes on; forgotten when this is dropped.
pub(super) struct Run {
    runs: Runs,
    key: Key,
    committed: watch::Receiver<bool>,
}

impl Run {
    fn is_committed(&self) -> bool {
        *self.committed.borrow()
    }

    /// Whether somebody took the run away.
    pub(super) fn is_given_up(&self) -> bool {
        self.committed.has_changed().is_err()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.runs.all().remove(&self.key);
    }
}

/// Answers a prompt for another node of the household.
#[utoipa::path(post, path = "/peer/generate", tag = "peer", responses(
    (status = 200, description = "frames as lines of JSON; the end comes after the commit"),
    (status = 400, body = hearth_protocol::error::Problem, description = "the question is wrong, or of another version"),
    (status = 403, body = hearth_protocol::error::Problem, description = "the caller is no node of this household"),
    (status = 409, body = hearth_protocol::error::Problem, description = "this run goes on already")))]
pub(crate) async fn generate(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let question: Question = match received(&node, body).await {
        Ok(bytes) => match parse::body(&bytes) {
            Ok(question) => question,
            Err(error) => return refused(StatusCode::BAD_REQUEST, "bad_question", error.message),
        },
        Err(failure) => return refused(failure.status, "bad_body", failure.error.message),
    };
    if let Some(response) = turned_away(&node, question.version) {
        return response;
    }
    if !(16..=64).contains(&question.run.len()) || !hearth_protocol::id::is_sane(&question.run) {
        let message = "run must be 16 to 64 visible ASCII characters";
        return refused(StatusCode::BAD_REQUEST, "bad_question", message);
    }
    let model = question.model.as_deref();
    if let Some(model) = model.filter(|model| !offers(&node, model)) {
        let message = format!("this machine has no model `{model}`");
        return refused(StatusCode::NOT_FOUND, "model_not_found", message);
    }
    let when = question.commit_when();
    let Some(run) = node.runs.begin((caller.node(), question.run)) else {
        let message = "this run goes on already, or too many do; draw a new one, or wait";
        return refused(StatusCode::CONFLICT, "run_goes_on", message);
    };
    let asking = {
        let node = Arc::clone(&node);
        let begun = Instant::now();
        async move {
            let model = question.model.as_deref();
            // However long it takes: the frames say that it goes on.
            node.engine.load(model).await?;
            Watched::here(&node, model, question.request, begun).await
        }
    };
    let answer = Answer {
        node,
        run,
        stage: Stage::Asking(Box::pin(asking)),
        at: Work::Loading,
        serving: None,
        when,
    };
    let body = stream::unfold(answer, |mut answer| async move {
        let piece = answer.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), answer))
    });
    let headers = [(CONTENT_TYPE, "application/jsonl")];
    (headers, Body::from_stream(body)).into_response()
}

/// Lets a run end.
#[utoipa::path(post, path = "/peer/generate/{run}/commit", tag = "peer", params(
    ("run" = String, Path, description = "the run")), responses(
    (status = 204, description = "the run may end"),
    (status = 404, body = hearth_protocol::error::Problem, description = "it was given up, or never was")))]
pub(crate) async fn commit(
    State(node): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
) -> Response {
    if node.runs.commit(&(caller.node(), run)) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = "this run does not go on here; it was given up or has failed";
    refused(StatusCode::NOT_FOUND, "no_run", message)
}

/// Why this node does nothing for another one now; `None` if it does.
pub(super) fn turned_away(node: &Shared, version: u32) -> Option<Response> {
    if version != VERSION {
        let message = format!(
            "this node speaks version {VERSION} of prompts for other nodes and was asked in version {version}; update the older one"
        );
        return Some(refused(StatusCode::BAD_REQUEST, "other_version", message));
    }
    if node.stopping.load(Ordering::Relaxed) {
        let message = "this node is stopping; ask another one";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Some(refused(status, "stopping", message));
    }
    None
}

pub(super) fn refused(
    status: StatusCode,
    code: &'static str,
    message: impl Into<String>,
) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let mut response = problem(status, code, title, message);
    let headers = response.headers_mut();
    headers.insert(REFUSAL, HeaderValue::from_static(code));
    response
}

type Asking = Pin<Box<dyn Future<Output = Result<Watched, Failure>> + Send>>;

enum Stage {
    /// The engine was asked.
    Asking(Asking),
    /// It answers.
    Answering(Box<Watched>),
    /// All is there but for the commit; this is the end.
    Held(Event),
    Over,
}

/// The frames of one run.
struct Answer {
    node: Shared,
    run: Run,
    stage: Stage,
    at: Work,
    when: CommitWhen,
    /// The rules; `None` before the request is accepted.
    serving: Option<Serving>,
}

impl Answer {
    /// The next frames; `None` after the last.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if self.serving.is_none() {
            self.serving = Some(Serving::new(self.when, Instant::now()));
            Frame::Accepted.write(&mut out);
        }
        while out.is_empty() {
            if let Stage::Over = self.stage {
                return None;
            }
            self.step(&mut out).await;
        }
        Some(out)
    }

    /// Waits for the next thing to happen.
    async fn step(&mut self, out: &mut Vec<u8>) {
        let Some(serving) = &mut self.serving else {
            return;
        };
        if self.run.is_given_up() {
            return self.fail("removed", "this node may not ask any more", out);
        }
        if self.run.is_committed()
            && let Ok(Some(Act::Finish)) = serving.commit(Instant::now())
        {
            return self.finish(out);
        }
        if let Some(act) = serving.tick(Instant::now()) {
            return self.act(act, out);
        }
        let until = serving
            .deadline()
            .unwrap_or_else(|| Instant::now() + SIGN_OF_LIFE)
            .into();
        match &mut self.stage {
            Stage::Asking(asking) => match timeout_at(until, asking).await {
                Err(_) => {}
                Ok(Ok(watched)) => {
                    Frame::Model(watched.model().to_owned()).write(out);
                    serving.spoke(Instant::now());
                    self.at = Work::Queued;
                    self.stage = Stage::Answering(Box::new(watched));
                }
                Ok(Err(failure)) => self.broke_off(failure, out),
            },
            Stage::Answering(watched) => match timeout_at(until, watched.next()).await {
                Err(_) => {}
                Ok(event) => self.events(event, out),
            },
            Stage::Held(_) => {
                let _ = timeout_at(until, self.run.committed.wait_for(|yes| *yes)).await;
            }
            Stage::Over => {}
        }
    }

    /// Writes an event, and those that are there already.
    fn events(&mut self, first: Result<Event, Failure>, out: &mut Vec<u8>) {
        let mut event = Some(first);
        while let (Some(next), Some(serving)) = (event, &mut self.serving) {
            let now = Instant::now();
            match next {
                Ok(end @ Event::Done(_)) => {
                    self.stage = Stage::Held(end);
                    if let Some(act) = serving.end(now) {
                        self.act(act, out);
                    }
                    return;
                }
                Ok(next @ Event::Started { .. }) => {
                    serving.spoke(now);
                    self.at = Work::Prefilling;
                    Frame::Event(next).write(out);
                }
                Ok(next) => {
                    self.at = Work::Decoding;
                    if serving.token(now) {
                        Frame::Event(next).write(out);
                    }
                }
                Err(failure) => return self.broke_off(failure, out),
            }
            let Stage::Answering(watched) = &mut self.stage else {
                return;
            };
            event = watched.try_next();
        }
    }

    fn act(&mut self, act: Act, out: &mut Vec<u8>) {
        match act {
            Act::Working => {
                let frame = Frame::Working {
                    at: self.at,
                    computed: health::computed(&self.node),
                };
                frame.write(out);
            }
            Act::Hold => Frame::Held.write(out),
            Act::Finish => self.finish(out),
            Act::Stop(Stop::NotCommitted) => {
                let message = "nobody committed to this run in time, so it was given up";
                self.fail("not_committed", message, out);
            }
            Act::Stop(Stop::AskerGone) => self.stage = Stage::Over,
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Stage::Held(end) = std::mem::replace(&mut self.stage, Stage::Over) {
            Frame::Event(end).write(out);
        }
    }

    fn broke_off(&mut self, failure: Failure, out: &mut Vec<u8>) {
        if let Some(serving) = &mut self.serving {
            serving.failed();
        }
        Frame::failed(failure).write(out);
        self.stage = Stage::Over;
    }

    fn fail(&mut self, code: &str, message: &str, out: &mut Vec<u8>) {
        let error = ApiError::new("server_error", Some(code), message);
        self.broke_off(Failure::new(StatusCode::GONE, error), out);
    }
}
