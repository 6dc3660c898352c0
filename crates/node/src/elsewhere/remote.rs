//! One request that is answered elsewhere, or would have been: asks the machines that [`Run`] names, reads their frames,
//! and gives the surface the events of the one that answers.
//!
//! A task of its own drives it ([`Asker`]), because a machine that is not listened to is taken for one that fell silent, and
//! a surface may read late: a client is slow, or another prompt's answer comes first. When the surface lets go of its
//! [`Remote`], the task ends, and with it the connection to whoever answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use hearth_dispatch::{self as dispatch, Input, Output, Run, Why};
use hearth_engine::{Event, Generation, Prompt, Request, Usage};
use hearth_mesh::diagnosis::Seen;
use hearth_protocol::error::ApiError;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::candidates::{self, Asked, Place};
use super::{INSTEAD, in_time, unloaded};
use crate::answered::Note;
use crate::failure::Failure;
use crate::household::ask::post;
use crate::household::{Asking, InFlight, Reply, Unasked};
use crate::peer::GENERATE;
use crate::peer::frame::{Frame, Frames, Question, VERSION, Work};
use crate::state::Shared;

/// How long a commit may take before it is sent again.
const COMMIT: Duration = Duration::from_secs(2);

/// An answer that may come from several machines, one after the other.
pub(crate) struct Remote {
    events: mpsc::UnboundedReceiver<Result<Event, Failure>>,
    /// The first one, if it was waited for.
    first: Option<Result<Event, Failure>>,
    /// The model that answers, as it is called there.
    model: Arc<Mutex<String>>,
    named: String,
}

impl Remote {
    /// Begins to ask.
    pub(super) fn begin(asker: Asker) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let model = Arc::clone(&asker.model);
        tokio::spawn(asker.drive(tell).in_current_span());
        Self {
            events,
            first: None,
            model,
            named: String::new(),
        }
    }

    /// Waits for the first event, which stays to be read; a failure of every machine comes here, before any. Dropping the
    /// future loses nothing.
    pub async fn begun(&mut self) -> Result<(), Failure> {
        if self.first.is_none() {
            self.first = self.events.recv().await;
        }
        self.look();
        match &self.first {
            Some(Err(failure)) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// The model that answers, as it is called there.
    pub fn model(&self) -> &str {
        &self.named
    }

    /// Takes the name of the model as it stands.
    pub fn look(&mut self) {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        self.named.clone_from(&model);
    }

    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        if let Some(first) = self.first.take() {
            return first;
        }
        self.events.recv().await.unwrap_or_else(|| Err(unloaded()))
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        self.first.take().or_else(|| self.events.try_recv().ok())
    }
}

/// Asks one machine after the other.
pub(super) struct Asker {
    node: Shared,
    asked: Asked,
    places: Vec<Place>,
    whys: Vec<(usize, Why)>,
    request: Request,
    /// The request's text, by which it is known who holds its beginning.
    prompt: String,
    /// Name of the run, the same on every machine.
    id: String,
    run: Run,
    /// Whether another machine may go on from the text so far.
    goes_on: bool,
    said: Said,
    source: Source,
    /// The candidate that `source` belongs to.
    current: usize,
    in_flight: Option<InFlight>,
    /// Of the current candidate, held back until its first token.
    started: Option<Event>,
    /// The token that the run decides about.
    token: Option<Event>,
    /// The end.
    done: Option<Event>,
    ready: VecDeque<Event>,
    model: Arc<Mutex<String>>,
    note: Option<Note>,
    /// What the current candidate itself said is wrong.
    failure: Option<(usize, Failure)>,
    commits: mpsc::Receiver<usize>,
    committing: mpsc::Sender<usize>,
    /// Whether somebody was told that it is the one.
    committed: bool,
    /// When the current candidate was asked.
    asked_at: Instant,
    /// What the current candidate's failure says about the way to it; silence unless something else is known.
    saw: Option<Seen>,
}

/// What the client has of the answer.
#[derive(Default)]
struct Said {
    text: String,
    tokens: u32,
    /// Whether there was something that no machine goes on after.
    more: bool,
    /// What the first machine said of the prompt.
    started: Option<Event>,
}

impl Said {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => self.started = Some(event.clone()),
            Event::Text { text, .. } => {
                self.text.push_str(text);
                self.tokens += 1;
            }
            Event::Reasoning { .. } | Event::ToolCall { .. } | Event::ToolArguments { .. } => {
                self.more = true;
            }
            Event::Finished { .. } | Event::Done(_) => {}
        }
    }

    /// The request for what is left of the answer.
    fn rest(&self, request: &Request) -> Option<Request> {
        let mut rest = request.clone();
        match &mut rest.prompt {
            _ if self.more => return None,
            Prompt::Chat(chat) => chat.prefill.push_str(&self.text),
            Prompt::Text(text) => text.push_str(&self.text),
            Prompt::Tokens(_) => return None,
        }
        if let Some(most) = &mut rest.max_tokens {
            *most = most.checked_sub(self.tokens).filter(|left| *left > 0)?;
        }
        Some(rest)
    }
}

/// Where events come from.
enum Source {
    Nobody,
    /// What the client has cannot be gone on after.
    Broken,
    Asking(Asking),
    Reading(Box<Reply>, Frames),
    StartingHere(Pin<Box<dyn Future<Output = Result<Generation, Failure>> + Send>>),
    Here(Box<Generation>),
}

/// What a source gave.
enum Came {
    Frame(Frame),
    Lost(String),
    Unsent(Unasked),
    /// The machine would not even look at the request.
    Rejected(u16, String),
    Refused(Failure),
}

impl Asker {
    pub fn new(
        node: &Shared,
        asked: Asked,
        places: Vec<Place>,
        whys: Vec<(usize, Why)>,
        (request, prompt): (Request, String),
        (run, goes_on): (Run, bool),
    ) -> Self {
        let (committing, commits) = mpsc::channel(4);
        let model = asked.model.clone().unwrap_or_default();
        Self {
            node: Arc::clone(node),
            asked,
            places,
            whys,
            request,
            prompt,
            id: format!("{:032x}", rand::random::<u128>()),
            run,
            goes_on,
            said: Said::default(),
            source: Source::Nobody,
            current: 0,
            in_flight: None,
            started: None,
            token: None,
            done: None,
            ready: VecDeque::new(),
            model: Arc::new(Mutex::new(model)),
            note: Note::here(),
            failure: None,
            commits,
            committing,
            committed: false,
            asked_at: Instant::now(),
            saw: None,
        }
    }

    /// Goes on until the answer ended or nobody wants it any more.
    async fn drive(mut self, tell: mpsc::UnboundedSender<Result<Event, Failure>>) {
        loop {
            let next = tokio::select! {
                () = tell.closed() => return,
                next = self.next() => next,
            };
            let last = matches!(next, Ok(Event::Done(_)) | Err(_));
            if tell.send(next).is_err() || last {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<Event, Failure> {
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

    /// Waits for one thing to happen, and tells the run.
    async fn step(&mut self) {
        let until = self.run.deadline();
        let until = until.unwrap_or_else(|| Instant::now() + COMMIT);
        tokio::select! {
            // What came is heard before the clock is looked at: this task may have been late.
            biased;
            came = self.source.next() => {
                // Without anything, one stage gave way to the next.
                if let Some(came) = came {
                    self.came(came);
                }
            }
            Some(candidate) = self.commits.recv() => {
                self.run.handle(Instant::now(), candidate, Input::Committed);
            }
            () = tokio::time::sleep_until(until.into()) => self.run.tick(Instant::now()),
        }
    }

    fn came(&mut self, came: Came) {
        let (now, candidate) = (Instant::now(), self.current);
        let input = match came {
            Came::Lost(reason) => {
                self.saw = Some(Seen::Cut);
                Input::Lost(reason)
            }
            Came::Unsent(error) => {
                self.saw = Some(crate::household::seen(&error));
                Input::Lost(error.to_string())
            }
            Came::Rejected(status, code) => {
                let frame = rejection(status, &code);
                let code = Some(code);
                self.saw = Some(Seen::Status { status, code });
                Input::Frame(frame)
            }
            Came::Refused(failure) => {
                self.saw = Some(crate::household::said(failure.code()));
                let frame = refusal(&failure);
                self.failure = Some((candidate, failure));
                Input::Frame(frame)
            }
            Came::Frame(frame) => match self.frame(frame) {
                Ok(frame) => Input::Frame(frame),
                Err(came) => return self.came(came),
            },
        };
        self.run.handle(now, candidate, input);
    }

    /// A frame as the run has it.
    fn frame(&mut self, frame: Frame) -> Result<dispatch::Frame, Came> {
        Ok(match frame {
            Frame::Accepted => dispatch::Frame::Accepted,
            Frame::Model(name) => {
                self.name(&name);
                dispatch::Frame::Working
            }
            Frame::Working { at, .. } => match at {
                Work::Loading => dispatch::Frame::Loading,
                Work::Queued => dispatch::Frame::Queued,
                Work::Prefilling => dispatch::Frame::Prefilling,
                Work::Decoding => dispatch::Frame::Working,
            },
            Frame::Held => dispatch::Frame::Held,
            Frame::Answer(_) => return Err(Came::Lost("it answers what was not asked".into())),
            Frame::Event(event @ Event::Started { .. }) => {
                self.started = Some(event);
                dispatch::Frame::Prefilling
            }
            Frame::Event(event @ Event::Done(_)) => {
                self.done = Some(event);
                dispatch::Frame::Done
            }
            Frame::Event(event) => {
                if choice(&event).is_some_and(|choice| choice >= self.request.n) {
                    return Err(Came::Lost("it answers with more than was asked".into()));
                }
                self.token = Some(event);
                dispatch::Frame::Token
            }
            Frame::Failed {
                status,
                retry_after,
                error,
            } => return Err(Came::Refused(told(status, retry_after, error))),
        })
    }

    fn name(&self, model: &str) {
        let mut name = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.clone_into(&mut name);
    }

    /// Does what the run says.
    fn act(&mut self, output: Output) -> Result<(), Failure> {
        match output {
            Output::Connect { candidate, resume } => {
                self.current = candidate;
                self.started = None;
                self.saw = None;
                self.asked_at = Instant::now();
                let rest = match resume {
                    true => self.said.rest(&self.request),
                    false => Some(self.request.clone()),
                };
                self.source = match rest {
                    Some(request) => self.connect(candidate, request),
                    None => Source::Broken,
                };
                // The last word counts, and until it is said this is the one that works.
                self.tell(candidate);
            }
            Output::Abandon { candidate } => {
                if candidate == self.current {
                    self.source = Source::Nobody;
                    self.in_flight = None;
                }
                let seen = self.saw.take().unwrap_or(Seen::Unanswered);
                self.judge(candidate, seen);
            }
            Output::Commit { candidate } => self.commit(candidate),
            Output::Deliver { .. } => {
                let started = self.started.take();
                if self.said.started.is_none() {
                    self.ready.extend(started);
                }
                self.ready.extend(self.token.take());
                self.ready.iter().for_each(|event| self.said.note(event));
            }
            Output::Finish { .. } => {
                self.source = Source::Nobody;
                self.in_flight = None;
                if self.said.started.is_none() {
                    self.ready.extend(self.started.take());
                }
                let done = self.done.take();
                self.ready.extend(done.map(|done| self.whole(done)));
            }
            Output::Fail(failure) => {
                self.source = Source::Nobody;
                self.in_flight = None;
                return Err(self.failed(failure));
            }
        }
        Ok(())
    }

    /// The end, with what other machines did for it.
    fn whole(&self, done: Event) -> Event {
        match (done, &self.said.started) {
            (
                Event::Done(usage),
                Some(Event::Started {
                    prompt_tokens,
                    cached_tokens,
                }),
            ) if *prompt_tokens < usage.prompt_tokens => Event::Done(Usage {
                prompt_tokens: *prompt_tokens,
                cached_tokens: *cached_tokens,
                completion_tokens: usage.completion_tokens + usage.prompt_tokens - prompt_tokens,
                ..usage
            }),
            (done, _) => done,
        }
    }

    fn connect(&mut self, candidate: usize, request: Request) -> Source {
        let Some(place) = self.places.get(candidate) else {
            return Source::Nobody;
        };
        let Some(member) = &place.member else {
            let node = Arc::clone(&self.node);
            let model = self.asked.model.clone();
            return Source::StartingHere(Box::pin(async move {
                Ok(node.engine.generate(model.as_deref(), request).await?)
            }));
        };
        if let Some(model) = &place.model {
            self.name(model);
        }
        let question = Question {
            version: VERSION,
            run: self.id.clone(),
            model: place.model.clone(),
            commit_at_end: self.goes_on,
            request,
        };
        let request = post(GENERATE, &question);
        let limit = in_time(request.body().len());
        self.in_flight = Some(self.node.household.in_flight(member.node));
        let household = Arc::clone(&self.node.household);
        Source::Asking(household.ask(member.clone(), request, limit))
    }

    /// Notes who answers.
    fn tell(&self, candidate: usize) {
        let why = self.whys.iter().find(|(index, _)| *index == candidate);
        if let (Some(note), Some(place)) = (&self.note, self.places.get(candidate)) {
            let why = match self.run.attempts() {
                ..=1 => why.map_or("", |(_, why)| why.words()),
                _ => INSTEAD,
            };
            note.set(&place.name, why);
        }
    }

    /// Tells a machine that it is the one.
    fn commit(&mut self, candidate: usize) {
        let Some(place) = self.places.get(candidate) else {
            return;
        };
        if !self.committed {
            self.committed = true;
            let holder = Some(place.facts.node);
            candidates::noted(&self.node, &self.asked, &self.prompt, holder);
            self.judge(candidate, Seen::Ok);
        }
        let Some(member) = place.member.clone() else {
            let _ = self.committing.try_send(candidate);
            return;
        };
        let request = post(&format!("{GENERATE}/{}/commit", self.id), &());
        let asking = Arc::clone(&self.node.household).ask(member, request, COMMIT);
        let committing = self.committing.clone();
        // Not awaited here: tokens go on meanwhile. A run that was given up says so in its frames.
        tokio::spawn(async move {
            if let Ok(reply) = asking.await
                && reply.status().is_success()
            {
                let _ = committing.send(candidate).await;
            }
        });
    }

    /// Real traffic is the best probe.
    fn judge(&self, candidate: usize, seen: Seen) {
        if let Some(place) = self.places.get(candidate)
            && place.member.is_some()
        {
            let model = place.model.as_deref().unwrap_or_default();
            let took = self.asked_at.elapsed();
            let household = &self.node.household;
            household.saw_traffic(place.facts.node, model, seen, took);
        }
    }

    /// The run's failure in the words of whoever knows best.
    fn failed(&mut self, failure: dispatch::Failure) -> Failure {
        failed(&self.places, failure, self.failure.take())
    }
}

/// A run's failure in the words of whoever knows best: of the candidate that said so itself, in its own.
pub(super) fn failed(
    places: &[Place],
    failure: dispatch::Failure,
    own: Option<(usize, Failure)>,
) -> Failure {
    if let Some((candidate, own)) = own
        && failure.candidate == Some(candidate)
        && own.code() == failure.code
    {
        return own;
    }
    let place = failure.candidate.and_then(|at| places.get(at));
    if place.is_some_and(|place| place.member.is_none()) {
        return unloaded();
    }
    let name = place.map_or("", |place| &place.name);
    let message = match failure.after_first_token {
        true => format!(
            "{name} broke off in the middle of the answer: {}; ask again. See why: hearth doctor {name}",
            failure.message
        ),
        false => format!(
            "no machine could answer; {name}: {}. See why: hearth doctor {name}",
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

/// A machine's own failure as the run takes it.
pub(super) fn refusal(failure: &Failure) -> dispatch::Frame {
    // Another machine may have a longer context.
    let status = match failure.code() {
        "context_length_exceeded" => 409,
        _ => failure.status.as_u16(),
    };
    dispatch::Frame::Error {
        status,
        code: failure.code().to_owned(),
        message: failure.error.message.clone(),
    }
}

/// What a machine said that failed.
pub(super) fn told(status: u16, retry_after: Option<u64>, error: ApiError) -> Failure {
    let status = StatusCode::from_u16(status).ok();
    let status = status.filter(|status| status.as_u16() >= 400);
    let mut failure = Failure::new(status.unwrap_or(StatusCode::BAD_GATEWAY), error);
    failure.retry_after = retry_after;
    failure
}

/// What it is that a machine would not even look at a request: whatever it says, another machine may not.
pub(super) fn rejection(status: u16, code: &str) -> dispatch::Frame {
    dispatch::Frame::Error {
        status: 502,
        code: "peer_refused".into(),
        message: format!("it refuses the request ({code}, status {status})"),
    }
}

/// Of which choice an event is.
fn choice(event: &Event) -> Option<u32> {
    match event {
        Event::Text { choice, .. }
        | Event::Reasoning { choice, .. }
        | Event::ToolCall { choice, .. }
        | Event::ToolArguments { choice, .. }
        | Event::Finished { choice, .. } => Some(*choice),
        Event::Started { .. } | Event::Done(_) => None,
    }
}

impl Source {
    /// The next thing; `None` when one stage gave way to the next. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Came> {
        match self {
            Self::Nobody => std::future::pending().await,
            Self::Broken => {
                *self = Self::Nobody;
                Some(Came::Lost("another machine cannot go on from there".into()))
            }
            Self::Asking(asking) => match asking.await {
                Err(error) => {
                    *self = Self::Nobody;
                    Some(Came::Unsent(error))
                }
                Ok(reply) if reply.status().is_success() => {
                    *self = Self::Reading(Box::new(reply), Frames::default());
                    None
                }
                Ok(reply) => {
                    *self = Self::Nobody;
                    Some(Came::Rejected(reply.status().as_u16(), reply.code()))
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
                    let model = generation.model.clone();
                    *self = Self::Here(Box::new(generation));
                    Some(Came::Frame(Frame::Model(model)))
                }
                Err(failure) => {
                    *self = Self::Nobody;
                    Some(Came::Refused(failure))
                }
            },
            Self::Here(generation) => {
                let event = generation.next().await;
                Some(match event {
                    Some(Ok(event)) => Came::Frame(Frame::Event(event)),
                    Some(Err(error)) => Came::Refused(error.into()),
                    None => Came::Refused(unloaded()),
                })
            }
        }
    }
}
