//! The asker's side of one request: who is asked, what is silence, who comes next, what the client hears.
//!
//! Machines are tried in their order, each once at most. A machine that is not heard for [`Limits::silence`] has failed,
//! before it accepted as after; while it says that it waits, loads or works there is no fixed time for its first byte.
//! Before the first token a failed machine is replaced and the client notices nothing. With the first token the asker
//! **commits**: to this machine and no other, ever; from then on a failure ends the client's stream with an error. Where
//! the client asked for it and sampling is greedy ([`Limits::resume`]), the commit waits until the end is held, and a
//! failure before that continues elsewhere from the text so far.
//!
//! The machine does no I/O: feed it what comes in ([`Run::handle`]) and the time ([`Run::tick`], due at
//! [`Run::deadline`]), then do what [`Run::poll`] says until it says nothing. Times come from a clock that does not go
//! back; one that does is taken to stand still.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::choice::{Candidate, Choice, Path};

/// A machine to try, in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Index among the candidates (`Choice::index`).
    pub candidate: usize,
    /// Whether it is this machine: its silence is no failure, because its failures are heard; and it may be done without a
    /// commit, because nothing of it is lost on the way.
    pub here: bool,
}

impl Attempt {
    /// The attempt of a choice among these candidates.
    pub fn of(choice: &Choice, candidates: &[Candidate]) -> Self {
        Self {
            candidate: choice.index,
            here: candidates
                .get(choice.index)
                .is_some_and(|candidate| candidate.path == Path::Here),
        }
    }
}

/// What a request is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Machines tried at most.
    pub attempts: usize,
    /// How long a machine may say nothing.
    pub silence: Duration,
    /// How long a client waits for a token: for the first one over all attempts, then for each.
    pub patience: Duration,
    /// Whether the answer may go on elsewhere from the text so far. Only right for greedy sampling.
    pub resume: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 4,
            silence: Duration::from_secs(3),
            patience: Duration::from_secs(600),
            resume: false,
        }
    }
}

/// How long a commit may be on its way before it is sent again.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);

/// A frame of a machine's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// It took the request.
    Accepted,
    /// It waits for a slot.
    Queued,
    /// It loads the model.
    Loading,
    /// It reads the prompt.
    Prefilling,
    /// It lives.
    Working,
    /// A token, or a piece of the answer.
    Token,
    /// Everything is generated; the end awaits the commit.
    Held,
    /// The end.
    Done,
    /// It failed.
    Error {
        /// HTTP status that fits.
        status: u16,
        /// Stable name.
        code: String,
        /// What is wrong and what mends it.
        message: String,
    },
}

/// What came of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A frame.
    Frame(Frame),
    /// The connection could not be made, or ended before the end; why.
    Lost(String),
    /// It knows of the commit.
    Committed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask this candidate; `resume` from the text the client has already.
    Connect {
        /// The candidate.
        candidate: usize,
        /// Whether the client has text already.
        resume: bool,
    },
    /// Close its connection: whatever it still says is not wanted.
    Abandon {
        /// The candidate.
        candidate: usize,
    },
    /// Tell it that it is the one. Repeated until [`Input::Committed`]; the same candidate always. A commit that is
    /// answered with [`crate::serving::Gone`] is an [`Input::Lost`]; one to this machine needs no answer.
    Commit {
        /// The candidate.
        candidate: usize,
    },
    /// Hand the frame just given to the client.
    Deliver {
        /// The candidate.
        candidate: usize,
    },
    /// End the client's answer with this error. Nothing follows.
    Fail(Failure),
    /// End the client's answer well. Nothing follows.
    Finish {
        /// The candidate.
        candidate: usize,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The candidate that failed, if one did.
    pub candidate: Option<usize>,
    /// HTTP status that fits, before the first token.
    pub status: u16,
    /// Stable name: the machine's own, or `peer_silent`, `peer_lost`, `peer_protocol`, `no_machine`, `too_slow`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Whether the client has a part of the answer.
    pub after_first_token: bool,
    /// Machines that were asked.
    pub attempts: usize,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    candidate: usize,
    here: bool,
    heard: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    candidate: usize,
    sent: Instant,
    known: bool,
}

/// One request, from the first machine asked to the end of the answer.
#[derive(Debug, Clone)]
pub struct Run {
    limits: Limits,
    waiting: VecDeque<Attempt>,
    current: Option<Current>,
    attempts: usize,
    commit: Option<Commit>,
    delivered: bool,
    /// When the client got something last, or asked.
    progress: Instant,
    now: Instant,
    worst: Option<Failure>,
    outputs: VecDeque<Output>,
    over: bool,
}

impl Run {
    /// A request for these machines, best first. The first [`Output`] is there at once.
    pub fn new(attempts: impl IntoIterator<Item = Attempt>, limits: Limits, now: Instant) -> Self {
        let mut run = Self {
            limits,
            waiting: VecDeque::new(),
            current: None,
            attempts: 0,
            commit: None,
            delivered: false,
            progress: now,
            now,
            worst: None,
            outputs: VecDeque::new(),
            over: false,
        };
        for attempt in attempts {
            if !run
                .waiting
                .iter()
                .any(|other| other.candidate == attempt.candidate)
            {
                run.waiting.push_back(attempt);
            }
        }
        run.next();
        run
    }

    /// What is to be done next; `None` when there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Something came of a candidate. What comes of an abandoned one is ignored.
    pub fn handle(&mut self, now: Instant, candidate: usize, input: Input) {
        self.now = self.now.max(now);
        let Some(current) = &mut self.current else {
            return;
        };
        if current.candidate != candidate {
            return;
        }
        match input {
            Input::Committed => {
                if let Some(commit) = &mut self.commit {
                    commit.known = true;
                }
            }
            Input::Lost(reason) => self.failed(502, "peer_lost", reason),
            Input::Frame(frame) => {
                current.heard = self.now;
                let here = current.here;
                self.frame(candidate, here, frame);
            }
        }
    }

    /// Time passed; due at [`Self::deadline`] at the latest.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let Some(current) = self.current else {
            return;
        };
        let silence = self.limits.silence;
        if self.now.duration_since(self.progress) >= self.limits.patience {
            let waited = self.limits.patience.as_secs();
            let reason = format!("no token came within {waited} s");
            self.waiting.clear();
            self.worst = None;
            self.failed(504, "too_slow", reason);
        } else if !current.here && self.now.duration_since(current.heard) >= silence {
            let reason = format!("nothing was heard of it for {} ms", silence.as_millis());
            self.failed(504, "peer_silent", reason);
        } else if let Some(commit) = &mut self.commit
            && !commit.known
            && self.now.duration_since(commit.sent) >= COMMIT_AGAIN
        {
            commit.sent = self.now;
            self.outputs.push_back(Output::Commit {
                candidate: commit.candidate,
            });
        }
    }

    /// The client went away.
    pub fn cancel(&mut self) {
        if let Some(current) = self.current.take() {
            self.outputs.push_back(Output::Abandon {
                candidate: current.candidate,
            });
        }
        self.over = true;
    }

    /// When something is due without any event; `None` when the request is over.
    pub fn deadline(&self) -> Option<Instant> {
        let current = self.current?;
        let mut deadline = self.progress + self.limits.patience;
        if !current.here {
            deadline = deadline.min(current.heard + self.limits.silence);
        }
        if let Some(commit) = self.commit
            && !commit.known
        {
            deadline = deadline.min(commit.sent + COMMIT_AGAIN);
        }
        Some(deadline)
    }

    /// Whether the client has its end, or went away.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Machines asked so far.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    fn frame(&mut self, candidate: usize, here: bool, frame: Frame) {
        match frame {
            Frame::Accepted
            | Frame::Queued
            | Frame::Loading
            | Frame::Prefilling
            | Frame::Working => {}
            Frame::Token => {
                if !self.limits.resume {
                    self.commit(candidate, here);
                }
                self.delivered = true;
                self.progress = self.now;
                self.outputs.push_back(Output::Deliver { candidate });
            }
            Frame::Held => self.commit(candidate, here),
            Frame::Done if here || self.commit.is_some() => {
                self.current = None;
                self.over = true;
                self.outputs.push_back(Output::Finish { candidate });
            }
            Frame::Done => {
                let reason = "it ended an answer that nobody had committed to".to_owned();
                self.failed(502, "peer_protocol", reason);
            }
            Frame::Error {
                status,
                code,
                message,
            } => {
                // Another machine would say the same of a request that is wrong.
                if own_fault(status) && !self.delivered {
                    self.waiting.clear();
                    self.worst = None;
                }
                self.failed(status, &code, message);
            }
        }
    }

    /// The only place where a commit comes from: to the first candidate that earns it, and to it alone.
    fn commit(&mut self, candidate: usize, here: bool) {
        if self.commit.is_none() {
            self.commit = Some(Commit {
                candidate,
                sent: self.now,
                known: here,
            });
            self.outputs.push_back(Output::Commit { candidate });
        }
    }

    /// The current candidate failed.
    fn failed(&mut self, status: u16, code: &str, message: String) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.outputs.push_back(Output::Abandon {
            candidate: current.candidate,
        });
        let failure = Failure {
            candidate: Some(current.candidate),
            status,
            code: code.to_owned(),
            message,
            after_first_token: self.delivered,
            attempts: self.attempts,
        };
        if self.commit.is_some() {
            self.end(failure);
            return;
        }
        // Of several failures the client hears the first that a machine gave itself: it says more than a lost connection.
        let told = |failure: &Failure| !failure.code.starts_with("peer_");
        match &self.worst {
            Some(worst) if told(worst) || !told(&failure) => {}
            _ => self.worst = Some(failure),
        }
        self.next();
    }

    /// Asks the next candidate, or gives up.
    fn next(&mut self) {
        let allowed = self.attempts < self.limits.attempts;
        if let Some(attempt) = self.waiting.pop_front().filter(|_| allowed) {
            self.attempts += 1;
            self.current = Some(Current {
                candidate: attempt.candidate,
                here: attempt.here,
                heard: self.now,
            });
            self.outputs.push_back(Output::Connect {
                candidate: attempt.candidate,
                resume: self.delivered,
            });
            return;
        }
        let failure = self.worst.take().unwrap_or_else(|| Failure {
            candidate: None,
            status: 503,
            code: "no_machine".to_owned(),
            message: "no machine can answer this".to_owned(),
            after_first_token: false,
            attempts: 0,
        });
        self.end(failure);
    }

    fn end(&mut self, mut failure: Failure) {
        failure.attempts = self.attempts;
        failure.after_first_token = self.delivered;
        self.over = true;
        self.outputs.push_back(Output::Fail(failure));
    }
}

/// Whether an error of this status lies in the request, so that no other machine would do better. What a peer says about
/// membership, a missing model, a lost run or too many requests lies in the machine.
fn own_fault(status: u16) -> bool {
    (400..500).contains(&status) && ![401, 403, 404, 408, 409, 410, 425, 429].contains(&status)
}
