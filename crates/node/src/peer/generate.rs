//! `POST /peer/generate`: this node answers a prompt for another one.
//!
//! The answer is a stream of frames ([`super::frame`]). The end is held back until the other node commits
//! (`POST /peer/generate/{run}/commit`), which it does for one node alone: so a request that was given up here and asked
//! elsewhere never runs to its end twice. The rules are [`hearth_dispatch::Serving`]'s; when the connection goes away,
//! the run goes with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;
use hearth_dispatch::CommitWhen;
use hearth_dispatch::serving::{Act, SIGN_OF_LIFE, Serving, Stop};
use hearth_engine::Event;
use hearth_protocol::error::ApiError;
use hearth_protocol::household::NodeId;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::frame::{Frame, Question, VERSION, Work};
use super::frames;
use super::task::offers;
use crate::access::Caller;
use crate::answer::Watched;
use crate::failure::Failure;
use crate::health;
use crate::household::Refused;
use crate::household::routes::read;
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
) -> Result<Response, Refused> {
    let question: Question = read(&node, body).await?;
    ready_for(&node, question.version)?;
    if !(16..=64).contains(&question.run.len()) || !hearth_protocol::id::is_sane(&question.run) {
        let message = "run must be 16 to 64 visible ASCII characters";
        return Err(Refused::invalid_field(message));
    }
    if let Some(model) = &question.model {
        offers(&node, model)?;
    }
    let when = question.commit_when();
    let Some(run) = node.runs.begin((caller.node(), question.run)) else {
        let message = "this run goes on already, or too many do; draw a new one, or wait";
        return Err(Refused::new(StatusCode::CONFLICT, "run_goes_on", message));
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
    Ok(frames(stream::unfold(answer, |mut answer| async move {
        Some((answer.next().await?, answer))
    })))
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
) -> Result<StatusCode, Refused> {
    if node.runs.commit(&(caller.node(), run)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = "this run does not go on here; it was given up or has failed";
    Err(Refused::new(StatusCode::NOT_FOUND, "no_run", message))
}

/// Whether this node does something for another one now that asks in this version.
pub(super) fn ready_for(node: &Shared, version: u32) -> Result<(), Refused> {
    if version != VERSION {
        let message = format!(
            "this node speaks version {VERSION} of prompts for other nodes and was asked in version {version}; update the older one"
        );
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "other_version",
            message,
        ));
    }
    if node.stopping.load(Ordering::Relaxed) {
        let message = "this node is stopping; ask another one";
        return Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            message,
        ));
    }
    Ok(())
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
