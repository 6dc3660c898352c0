//! The side of the machine that was asked: it generates at once, but finishes a run only after its asker committed to it.
//!
//! Without that, an asker that took silence for failure and went elsewhere would have the request run twice to its end.
//! Tokens go out as they come; the end is **held** until the commit. Without a commit the run is given up: [`GRACE`] after
//! the first token, or, where the asker commits at the end ([`CommitWhen::Held`]), that long after the end was reached; and
//! at once when the asker's connection goes.

use std::time::{Duration, Instant};

/// How long a run waits for its commit.
pub const GRACE: Duration = Duration::from_secs(3);
/// A machine that works says so at least this often, so that silence means failure.
pub const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// When the asker commits; it says so in its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitWhen {
    /// After the first token: what the client has seen is not taken back.
    FirstToken,
    /// When the end is held: the asker may still go on elsewhere from the text so far (greedy sampling only).
    Held,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Send a `working` frame.
    Working,
    /// Send a `held` frame: everything is generated, the commit is awaited.
    Hold,
    /// Send `done`: the run is finished. Comes once at most.
    Finish,
    /// Stop generating, close the stream.
    Stop(Stop),
}

/// Why a run was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nobody committed to it in time.
    NotCommitted,
    /// The asker's connection is gone.
    AskerGone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Generating, or before that.
    Running,
    /// At the end, without a commit.
    Held,
    /// Finished, failed, or given up.
    Over,
}

/// One run of a peer's request.
#[derive(Debug, Clone)]
pub struct Serving {
    when: CommitWhen,
    state: State,
    committed: bool,
    /// Since when the commit is due.
    owed: Option<Instant>,
    /// When a frame went out last.
    spoke: Instant,
}

impl Serving {
    /// A request was accepted, and `accepted` is sent.
    pub fn new(when: CommitWhen, now: Instant) -> Self {
        Self {
            when,
            state: State::Running,
            committed: false,
            owed: None,
            spoke: now,
        }
    }

    /// A frame other than a token goes out (`queued`, `loading`, `prefilling`).
    pub fn spoke(&mut self, now: Instant) {
        self.spoke = self.spoke.max(now);
    }

    /// A token was generated; whether it is to be sent.
    pub fn token(&mut self, now: Instant) -> bool {
        if self.state == State::Over {
            return false;
        }
        self.spoke(now);
        if self.when == CommitWhen::FirstToken {
            self.owed.get_or_insert(now);
        }
        true
    }

    /// Generation reached its end.
    pub fn end(&mut self, now: Instant) -> Option<Act> {
        if self.state != State::Running {
            return None;
        }
        self.spoke(now);
        if self.committed {
            self.state = State::Over;
            return Some(Act::Finish);
        }
        self.state = State::Held;
        self.owed.get_or_insert(now);
        Some(Act::Hold)
    }

    /// Generation failed: an `error` frame goes out, and nothing else.
    pub fn failed(&mut self) {
        self.state = State::Over;
    }

    /// The asker commits. Says what is to be done now, if anything.
    ///
    /// # Errors
    /// [`Gone`] if the run was given up or failed before; the asker must not count on it. A second commit of a run that
    /// is under way changes nothing.
    pub fn commit(&mut self, now: Instant) -> Result<Option<Act>, Gone> {
        match self.state {
            State::Over if self.committed => Ok(None),
            State::Over => Err(Gone),
            State::Running => {
                self.committed = true;
                Ok(None)
            }
            State::Held => {
                self.committed = true;
                self.state = State::Over;
                self.spoke(now);
                Ok(Some(Act::Finish))
            }
        }
    }

    /// The asker's connection is gone.
    pub fn asker_gone(&mut self) -> Option<Act> {
        if self.state == State::Over {
            return None;
        }
        self.state = State::Over;
        Some(Act::Stop(Stop::AskerGone))
    }

    /// Time passed; due at [`Self::deadline`] at the latest.
    pub fn tick(&mut self, now: Instant) -> Option<Act> {
        if self.state == State::Over {
            return None;
        }
        if !self.committed
            && self
                .owed
                .is_some_and(|owed| now.saturating_duration_since(owed) >= GRACE)
        {
            self.state = State::Over;
            return Some(Act::Stop(Stop::NotCommitted));
        }
        if now.saturating_duration_since(self.spoke) >= SIGN_OF_LIFE {
            self.spoke = now;
            return Some(Act::Working);
        }
        None
    }

    /// When something is due without any event; `None` when the run is over.
    pub fn deadline(&self) -> Option<Instant> {
        if self.state == State::Over {
            return None;
        }
        let life = self.spoke + SIGN_OF_LIFE;
        Some(match self.owed {
            Some(owed) if !self.committed => life.min(owed + GRACE),
            _ => life,
        })
    }

    /// Whether the run is finished, failed or given up.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

/// A commit to a run that is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this run was given up: nobody committed to it within 3 s of its first token, or its asker went away"
)]
pub struct Gone;
