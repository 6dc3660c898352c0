//! One request that is answered elsewhere, or would have been: asks the machines that [`Run`] names, reads their frames,
//! and gives the surface the events of the one that answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use hearth_dispatch::{self as dispatch, Input, Output, Run, Why};
use hearth_engine::{Event, Generation, Request};
use hearth_protocol::error::ApiError;
use tokio::sync::mpsc;

use super::candidates::{self, Asked, Place};
use super::unloaded;
use crate::answered;
use crate::failure::Failure;
use crate::household::{Asking, Reply, Unasked};
use crate::peer::frame::{Frame, Frames, Question, VERSION, Work};
use crate::state::Shared;

/// How long a machine may take until its answer begins: its first frame follows at once.
const HEAD: Duration = Duration::from_secs(3);
/// How long a commit may take before it is sent again.
const COMMIT: Duration = Duration::from_secs(2);

/// An answer that may come from several machines, one after the other.
pub(crate) struct Remote {
    node: Shared,
    asked: Asked,
    places: Vec<Place>,
    whys: Vec<(usize, Why)>,
    request: Request,
    /// Name of the run, the same on every machine.
    id: String,
    run: Run,
    source: Source,
    /// The candidate that `source` belongs to.
    current: usize,
    /// Of the current candidate, held back until its first token.
    started: Option<Event>,
    /// The token that the run decides about.
    token: Option<Event>,
    /// The end.
    done: Option<Event>,
    ready: VecDeque<Event>,
    model: String,
    /// What the current candidate itself said is wrong.
    failure: Option<(usize, Failure)>,
    commits: mpsc::Receiver<usize>,
    committing: mpsc::Sender<usize>,
    /// When the current candidate was asked.
    asked_at: Instant,
    /// Whether the way to the current candidate was judged already.
    judged: bool,
}

/// Where events come from.
enum Source {
    Nobody,
    Asking(Asking),
    Reading(Reply, Frames),
    StartingHere(Pin<Box<dyn Future<Output = Result<Generation, Failure>> + Send>>),
    Here(Box<Generation>),
}

/// What a source gave.
enum Came {
    Frame(Frame),
    Lost(String),
    Unsent(Unasked),
    Refused(Failure),
}

impl Remote {
    pub(super) fn new(
        node: &Shared,
        asked: Asked,
        places: Vec<Place>,
        whys: Vec<(usize, Why)>,
        request: Request,
        run: Run,
    ) -> Self {
        let (committing, commits) = mpsc::channel(4);
        let model = asked.model.clone().unwrap_or_default();
        Self {
            node: Arc::clone(node),
            asked,
            places,
            whys,
            request,
            id: format!("{:032x}", rand::random::<u128>()),
            run,
            source: Source::Nobody,
            current: 0,
            started: None,
            token: None,
            done: None,
            ready: VecDeque::new(),
            model,
            failure: None,
            commits,
            committing,
            asked_at: Instant::now(),
            judged: false,
        }
    }

    /// The model that answers, as it is called there.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Waits for the first event, which stays to be read; a failure of every machine comes here, before any. Dropping
    /// the future loses nothing.
    pub async fn begin(&mut self) -> Result<(), Failure> {
        if self.ready.is_empty() {
            let event = self.next().await?;
            self.ready.push_front(event);
        }
        Ok(())
    }

    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(output) = self.run.poll() {
                self.act(output)?;
                continue;
            }
            self.step().await;
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if let Some(output) = self.run.poll() {
                if let Err(failure) = self.act(output) {
                    return Some(Err(failure));
                }
                continue;
            }
            match &mut self.source {
                Source::Reading(_, frames) => {
                    let frame = frames.next()?;
                    self.came(frame.map_or_else(Came::Lost, Came::Frame));
                }
                Source::Here(generation) => {
                    let event = generation.try_next()?;
                    self.came(of_engine(Some(event.map_err(Failure::from))));
                }
                _ => return None,
            }
        }
    }

    /// Waits for one thing to happen, and tells the run.
    async fn step(&mut self) {
        let until = self.run.deadline();
        let until = until.unwrap_or_else(|| Instant::now() + HEAD);
        tokio::select! {
            came = self.source.next() => match came {
                Some(came) => self.came(came),
                // The head came; its frames follow.
                None => {}
            },
            Some(candidate) = self.commits.recv() => {
                self.run.handle(Instant::now(), candidate, Input::Committed);
            }
            () = tokio::time::sleep_until(until.into()) => self.run.tick(Instant::now()),
        }
    }

    fn came(&mut self, came: Came) {
        let (now, candidate) = (Instant::now(), self.current);
        let input = match came {
            Came::Lost(reason) => Input::Lost(reason),
            Came::Unsent(error) => {
                if let Some(place) = self.places.get(candidate) {
                    self.judged = true;
                    self.node.household.saw_unsent(place.facts.node, &error);
                }
                Input::Lost(error.to_string())
            }
            Came::Refused(failure) => {
                let frame = dispatch::Frame::Error {
                    status: failure.status.as_u16(),
                    code: failure.code().to_owned(),
                    message: failure.error.message.clone(),
                };
                self.failure = Some((candidate, failure));
                Input::Frame(frame)
            }
            Came::Frame(frame) => Input::Frame(match frame {
                Frame::Accepted => dispatch::Frame::Accepted,
                Frame::Model(name) => {
                    self.model = name;
                    dispatch::Frame::Working
                }
                Frame::Working { at, .. } => match at {
                    Work::Loading => dispatch::Frame::Loading,
                    Work::Queued => dispatch::Frame::Queued,
                    Work::Prefilling => dispatch::Frame::Prefilling,
                    Work::Decoding => dispatch::Frame::Working,
                },
                Frame::Held => dispatch::Frame::Held,
                Frame::Event(event @ Event::Started { .. }) => {
                    self.started = Some(event);
                    dispatch::Frame::Prefilling
                }
                Frame::Event(event @ Event::Done(_)) => {
                    self.done = Some(event);
                    dispatch::Frame::Done
                }
                Frame::Event(event) => {
                    self.token = Some(event);
                    dispatch::Frame::Token
                }
                Frame::Failed {
                    status,
                    retry_after,
                    error,
                } => {
                    let status =
                        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    let mut failure = Failure::new(status, error);
                    failure.retry_after = retry_after;
                    return self.came(Came::Refused(failure));
                }
            }),
        };
        self.run.handle(now, candidate, input);
    }

    /// Does what the run says.
    fn act(&mut self, output: Output) -> Result<(), Failure> {
        match output {
            Output::Connect { candidate, .. } => {
                self.current = candidate;
                self.started = None;
                self.judged = false;
                self.asked_at = Instant::now();
                self.source = self.connect(candidate);
            }
            Output::Abandon { candidate } => {
                if candidate == self.current {
                    self.source = Source::Nobody;
                }
                self.saw(candidate, false);
            }
            Output::Commit { candidate } => self.commit(candidate),
            Output::Deliver { .. } => {
                if let Some(started) = self.started.take() {
                    self.ready.push_back(started);
                }
                self.ready.extend(self.token.take());
            }
            Output::Finish { .. } => {
                self.source = Source::Nobody;
                self.ready.extend(self.started.take());
                self.ready.extend(self.done.take());
            }
            Output::Fail(failure) => {
                self.source = Source::Nobody;
                return Err(self.failed(failure));
            }
        }
        Ok(())
    }

    fn connect(&self, candidate: usize) -> Source {
        let Some(place) = self.places.get(candidate) else {
            return Source::Nobody;
        };
        let Some(member) = &place.member else {
            let node = Arc::clone(&self.node);
            let (model, request) = (self.asked.model.clone(), self.request.clone());
            return Source::StartingHere(Box::pin(async move {
                Ok(node.engine.generate(model.as_deref(), request).await?)
            }));
        };
        let question = Question {
            version: VERSION,
            run: self.id.clone(),
            model: place.model.clone(),
            commit_at_end: false,
            request: self.request.clone(),
        };
        let body = serde_json::to_vec(&question).unwrap_or_default();
        let request = axum::http::Request::builder()
            .method(Method::POST)
            .uri("/peer/generate")
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(body));
        match request {
            Ok(request) => {
                let household = Arc::clone(&self.node.household);
                Source::Asking(household.ask(member.clone(), request, HEAD))
            }
            Err(_) => Source::Nobody,
        }
    }

    /// Tells a machine that it is the one.
    fn commit(&mut self, candidate: usize) {
        let Some(place) = self.places.get(candidate) else {
            return;
        };
        let why = self.whys.iter().find(|(index, _)| *index == candidate);
        answered::note(&place.name, why.map_or("", |(_, why)| why.words()));
        candidates::noted(
            &self.node,
            &self.asked,
            &self.request,
            Some(place.facts.node),
        );
        self.saw(candidate, true);
        let Some(member) = place.member.clone() else {
            let _ = self.committing.try_send(candidate);
            return;
        };
        let request = axum::http::Request::builder()
            .method(Method::POST)
            .uri(format!("/peer/generate/{}/commit", self.id))
            .body(Bytes::new());
        let Ok(request) = request else { return };
        let asking = Arc::clone(&self.node.household).ask(member, request, COMMIT);
        let committing = self.committing.clone();
        // Not awaited here: tokens go on meanwhile.
        tokio::spawn(async move {
            if let Ok(reply) = asking.await
                && reply.status().is_success()
            {
                let _ = committing.send(candidate).await;
            }
        });
    }

    /// Real traffic is the best probe.
    fn saw(&self, candidate: usize, token: bool) {
        if let Some(place) = self.places.get(candidate)
            && place.member.is_some()
            && !self.judged
        {
            let model = place.model.as_deref().unwrap_or_default();
            let own = self.failure.as_ref().filter(|(who, _)| *who == candidate);
            let own = own.map(|(_, failure)| failure.code());
            let took = self.asked_at.elapsed();
            self.node
                .household
                .saw_traffic(place.facts.node, model, token, own, took);
        }
    }

    /// The run's failure in the words of whoever knows best.
    fn failed(&mut self, failure: dispatch::Failure) -> Failure {
        let own = self.failure.take();
        if let Some((candidate, own)) = own
            && failure.candidate == Some(candidate)
            && own.code() == failure.code
        {
            return own;
        }
        let place = failure.candidate.and_then(|at| self.places.get(at));
        if place.is_some_and(|place| place.member.is_none()) {
            return unloaded();
        }
        let name = place.map_or("", |place| &place.name);
        let message = match failure.after_first_token {
            true => format!(
                "{name} broke off in the middle of the answer: {}; ask again, another machine will answer. See why: hearth doctor {name}",
                failure.message
            ),
            false => format!(
                "no machine could answer; the last one, {name}: {}. See why: hearth doctor {name}",
                failure.message
            ),
        };
        let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut own = Failure::new(
            status,
            ApiError::new("server_error", Some(&failure.code), message),
        );
        own.retry_after = Some(1);
        own
    }
}

impl Source {
    /// The next thing; `None` when one stage gave way to the next. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Came> {
        match self {
            Self::Nobody => std::future::pending().await,
            Self::Asking(asking) => match asking.await {
                Err(error) => {
                    *self = Self::Nobody;
                    Some(Came::Unsent(error))
                }
                Ok(reply) if reply.status().is_success() => {
                    *self = Self::Reading(reply, Frames::default());
                    None
                }
                Ok(reply) => {
                    *self = Self::Nobody;
                    Some(Came::Refused(reply.refusal()))
                }
            },
            Self::Reading(reply, frames) => loop {
                if let Some(frame) = frames.next() {
                    return Some(frame.map_or_else(Came::Lost, Came::Frame));
                }
                match reply.piece().await {
                    Some(Ok(piece)) => frames.push(&piece),
                    Some(Err(error)) => {
                        *self = Self::Nobody;
                        return Some(Came::Lost(error));
                    }
                    None => {
                        *self = Self::Nobody;
                        return Some(Came::Lost("the connection ended".into()));
                    }
                }
            },
            Self::StartingHere(starting) => match starting.await {
                Ok(generation) => {
                    *self = Self::Here(Box::new(generation));
                    None
                }
                Err(failure) => {
                    *self = Self::Nobody;
                    Some(Came::Refused(failure))
                }
            },
            Self::Here(generation) => {
                let event = generation.next().await;
                Some(of_engine(event.map(|event| event.map_err(Failure::from))))
            }
        }
    }
}

fn of_engine(event: Option<Result<Event, Failure>>) -> Came {
    match event.unwrap_or_else(|| Err(unloaded())) {
        Ok(event) => Came::Frame(Frame::Event(event)),
        Err(failure) => Came::Refused(failure),
    }
}
