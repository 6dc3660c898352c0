//! One task that is answered whole ([`crate::peer::task`]): asked of the machines that [`Run`] names, this one among them,
//! until one of them answers.
//!
//! Doing it twice does no harm, so nothing is committed to: the answer that is there is the answer.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_dispatch::{self as dispatch, Attempt, Choice, Input, Limits, Output, Path, Run};
use hearth_mesh::diagnosis::Seen;
use hearth_protocol::household::Member;

use super::candidates::{Asked, Place};
use super::remote::{failed, refusal, rejection, told};
use super::{INSTEAD, in_time, is_worth_another, unloaded};
use crate::answered::Note;
use crate::failure::Failure;
use crate::household::ask::post;
use crate::household::{Asking, Reply, Unasked};
use crate::peer::TASK;
use crate::peer::frame::{Frame, Frames, VERSION};
use crate::peer::task::{Answer, LONGEST, Question, Task, perform};
use crate::state::Shared;

/// Asks the machines of `ranked`, of which there is one at least.
pub(super) async fn ask(
    node: &Shared,
    asked: &Asked,
    (places, ranked): (&[Place], &[Choice]),
    task: Task,
) -> Result<Answer, Failure> {
    let is_here = |choice: &Choice| places[choice.index].facts.path == Path::Here;
    let attempts = ranked.iter().map(|choice| Attempt {
        candidate: choice.index,
        here: is_here(choice),
    });
    let limits = Limits {
        silence: in_time(task.bytes()),
        // Many texts take long; that it goes on, frames say.
        patience: Duration::from_secs(24 * 3600),
        ..Limits::default()
    };
    let mut run = Run::new(attempts, limits, Instant::now());
    let note = Note::here();
    let mut source = Source::Nobody;
    let mut current = 0;
    let mut in_flight = None;
    let (mut answer, mut own, mut saw) = (None, None, None);
    let mut asked_at = Instant::now();
    loop {
        while let Some(output) = run.poll() {
            match output {
                Output::Connect { candidate, .. } => {
                    let place = &places[candidate];
                    (current, asked_at, saw) = (candidate, Instant::now(), None);
                    let why = ranked.iter().find(|choice| choice.index == candidate);
                    if let (Some(note), Some(why)) = (&note, why) {
                        note.set(
                            &place.name,
                            match run.attempts() {
                                ..=1 => why.why.words(),
                                _ => INSTEAD,
                            },
                        );
                    }
                    source = match &place.member {
                        None => here(node, asked, task.clone()),
                        Some(member) => {
                            in_flight = Some(node.household.in_flight(member.node));
                            let model = place.model.as_deref().unwrap_or_default();
                            there(node, member, (&task, model), limits.silence)
                        }
                    };
                }
                Output::Abandon { candidate } => {
                    source = Source::Nobody;
                    in_flight = None;
                    let place = &places[candidate];
                    // That it answers proves nothing of its tokens; what fails is worth a look.
                    if place.member.is_some() {
                        let model = place.model.as_deref().unwrap_or_default();
                        let seen = saw.take().unwrap_or(Seen::Unanswered);
                        let household = &node.household;
                        household.saw_traffic(place.facts.node, model, seen, asked_at.elapsed());
                    }
                }
                Output::Commit { .. } | Output::Deliver { .. } => {}
                Output::Finish { .. } => {
                    drop(in_flight);
                    return answer.ok_or_else(unloaded);
                }
                Output::Fail(failure) => return Err(failed(places, failure, own)),
            }
        }
        let Some(until) = run.deadline() else {
            return Err(unloaded());
        };
        let came = tokio::select! {
            biased;
            came = source.next() => came,
            () = tokio::time::sleep_until(until.into()) => {
                run.tick(Instant::now());
                continue;
            }
        };
        let now = Instant::now();
        let input = match came {
            Came::Alive => Input::Frame(dispatch::Frame::Working),
            Came::Answer(found) if task.fits(&found) => {
                answer = Some(found);
                // To the run an answer is an end that somebody committed to.
                run.handle(now, current, Input::Frame(dispatch::Frame::Held));
                Input::Frame(dispatch::Frame::Done)
            }
            Came::Answer(_) => {
                saw = Some(Seen::Garbled("it answers what was not asked".into()));
                Input::Lost("it answers what was not asked".into())
            }
            Came::Lost(reason) => {
                saw = Some(Seen::Cut);
                Input::Lost(reason)
            }
            Came::Unsent(error) => {
                saw = Some(crate::household::seen(&error));
                Input::Lost(error.to_string())
            }
            Came::Rejected(status, code) => {
                let frame = rejection(status, &code);
                let code = Some(code);
                saw = Some(Seen::Status { status, code });
                Input::Frame(frame)
            }
            Came::Failed(failure) => {
                let others = ranked.iter().filter(|choice| !is_here(choice));
                let others = others.map(|choice| &places[choice.index].facts);
                if places[current].member.is_none() && !is_worth_another(&failure, others) {
                    return Err(failure);
                }
                saw = Some(crate::household::said(failure.code()));
                let frame = refusal(&failure);
                own = Some((current, failure));
                Input::Frame(frame)
            }
        };
        run.handle(now, current, input);
    }
}

fn here(node: &Shared, asked: &Asked, task: Task) -> Source {
    let (node, model) = (Arc::clone(node), asked.model.clone());
    Source::Here(Box::pin(async move {
        Ok(perform(&node, model.as_deref(), task).await?)
    }))
}

fn there(node: &Shared, member: &Member, (task, model): (&Task, &str), limit: Duration) -> Source {
    let question = Question {
        version: VERSION,
        model: Cow::Borrowed(model),
        task: Cow::Borrowed(task),
    };
    let household = Arc::clone(&node.household);
    Source::Asking(household.ask(member.clone(), post(TASK, &question), limit))
}

/// Where an answer comes from.
enum Source {
    Nobody,
    Here(Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>),
    Asking(Asking),
    Reading(Box<Reply>, Frames),
}

/// What a source gave.
enum Came {
    /// It is being worked on, or a part of the answer came.
    Alive,
    Answer(Answer),
    Lost(String),
    Unsent(Unasked),
    /// The machine would not even look at the task.
    Rejected(u16, String),
    /// It says itself why there is no answer.
    Failed(Failure),
}

impl Source {
    /// The next thing. Dropping the future loses nothing.
    async fn next(&mut self) -> Came {
        match self {
            Self::Nobody => std::future::pending().await,
            Self::Here(doing) => match doing.await {
                Ok(answer) => Came::Answer(answer),
                Err(failure) => Came::Failed(failure),
            },
            Self::Asking(asking) => match asking.await {
                Err(error) => Came::Unsent(error),
                Ok(reply) if reply.status().is_success() => {
                    *self = Self::Reading(Box::new(reply), Frames::up_to(LONGEST));
                    Came::Alive
                }
                Ok(reply) => Came::Rejected(reply.status().as_u16(), reply.code()),
            },
            Self::Reading(reply, frames) => {
                if let Some(frame) = frames.next() {
                    return match frame {
                        Err(reason) => Came::Lost(reason),
                        Ok(Frame::Answer(answer)) => Came::Answer(answer),
                        Ok(Frame::Failed {
                            status,
                            retry_after,
                            error,
                        }) => Came::Failed(told(status, retry_after, error)),
                        Ok(_) => Came::Alive,
                    };
                }
                match reply.piece().await {
                    // A large answer takes its time on the way.
                    Some(Ok(piece)) => {
                        frames.push(&piece);
                        Came::Alive
                    }
                    Some(Err(error)) => Came::Lost(error),
                    None => Came::Lost("the connection ended".into()),
                }
            }
        }
    }
}
