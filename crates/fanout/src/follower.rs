//! What a follower does next: a state machine without I/O and clock.
//!
//! It connects after its cursor, takes the events that come next, and when it cannot go on takes a snapshot and connects
//! again. The caller does what [`Follower::next`] says and tells what came of it. The cursor that counts is the one of the
//! follower's [`Log`](crate::Log), which is stored together with the state; this machine only repeats it.
//!
//! An event that it cannot read stops it: the state stays as it is, the cursor stays before the event, [`Follower::trouble`]
//! says so, and it looks again every few minutes. To skip the event would be a state that is not the hub's, and nobody
//! would know; this way an update of the program goes on exactly there.
//!
//! Reconnects are spread by waiting a random part of a growing time ("full jitter", Brooker, "Exponential Backoff And
//! Jitter", AWS Architecture Blog 2015), also after the first failure: when a hub restarts, all its followers lose it at
//! once.

use std::time::{Duration, Instant};

use hearth_protocol::event::{Cursor, Reason, Refusal, Snapshot, StateEvent, Unreadable};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use crate::sse::{self, Message};
use crate::{Entry, Error};

/// A stream that says nothing for so long, not even [`sse::HEARTBEAT`], is dead.
pub const SILENCE: Duration = Duration::from_secs(45);
/// Longest first wait, unless the server's `retry` says otherwise.
const FIRST: Duration = Duration::from_secs(1);
/// What a server may set [`FIRST`] to.
const FIRST_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Longest wait of all.
const LONGEST: Duration = Duration::from_secs(60);
/// How often one that is stopped looks again.
const STOPPED: Duration = Duration::from_secs(300);
/// A connection that lasted so long was a good one: the next wait is a first one.
const STEADY: Duration = Duration::from_secs(60);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing for so long.
    Wait(Duration),
    /// Connect with this as `Last-Event-ID`, then [`Follower::connected`], [`Follower::refused`] or
    /// [`Follower::failed`].
    Connect(Cursor),
    /// Fetch a snapshot, where the cursor was refused; then [`Follower::fetched`] or [`Follower::failed`].
    Fetch,
    /// Read the stream for at most so long: [`Follower::heard`] of every piece, [`Follower::received`] of every message,
    /// [`Follower::failed`] at its end.
    Read(Duration),
}

/// What to do with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Store it with [`Log::extend`](crate::Log::extend), alone or with the next ones, then [`Follower::stored`]; or
    /// [`Follower::rejected`] if its seal is broken.
    Apply(Entry),
    /// Nothing: it was stored before.
    Known,
    /// Close the stream, and see what [`Follower::next`] says.
    Close,
}

/// What keeps a follower from being up to date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The hub cannot be reached, or does not hold a stream open.
    #[error("the hub is out of reach: {0}")]
    OutOfReach(String),
    /// It was told that it cannot go on.
    #[error(transparent)]
    Refused(Refusal),
    /// An event is missing in the stream.
    #[error("the stream left out events before {0}")]
    Gap(Cursor),
    /// What came cannot be read; nothing is applied until this is mended.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// A follower's side of following a hub.
#[derive(Debug)]
pub struct Follower {
    /// The last event that is stored.
    stored: Cursor,
    /// The last event that was given out to be stored.
    given: Cursor,
    phase: Phase,
    /// Failures since the last success.
    failures: u32,
    /// What is stored is a snapshot, and nothing came of it yet. If it is refused in turn, the next one has to wait.
    fresh: bool,
    first: Duration,
    trouble: Option<Trouble>,
    random: Pcg32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Connecting at this time, or as soon as it is asked.
    Connect(Option<Instant>),
    /// Fetching a snapshot, which may be older than what is stored if the hub itself said that this is none of its own.
    Fetch {
        at: Option<Instant>,
        back: bool,
    },
    Read {
        since: Instant,
        heard: Instant,
    },
}

impl Follower {
    /// A follower whose log ends with `stored` ([`Log::bounds`](crate::Log::bounds)). `seed` is to be another one in each
    /// process.
    pub fn new(stored: Cursor, seed: u64) -> Self {
        Self {
            stored,
            given: stored,
            phase: Phase::Connect(None),
            failures: 0,
            fresh: false,
            first: FIRST,
            trouble: None,
            random: Pcg32::seed_from_u64(seed),
        }
    }

    /// The last event that is stored.
    pub fn cursor(&self) -> Cursor {
        self.stored
    }

    /// What keeps it from being up to date; `None` while a stream is open and everything in it was applied.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// What to do at this time.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Phase::Read { heard, .. } = self.phase {
            let silent = now.saturating_duration_since(heard);
            if silent < SILENCE {
                return Next::Read(SILENCE - silent);
            }
            self.failed(now, &format!("silent for {} s", SILENCE.as_secs()));
        }
        let (at, next) = match self.phase {
            Phase::Connect(at) => (at, Next::Connect(self.stored)),
            Phase::Fetch { at, .. } => (at, Next::Fetch),
            Phase::Read { .. } => (None, Next::Read(SILENCE)),
        };
        match at.map(|at| at.saturating_duration_since(now)) {
            Some(left) if !left.is_zero() => Next::Wait(left),
            _ => next,
        }
    }

    /// The stream is open.
    pub fn connected(&mut self, now: Instant) {
        self.given = self.stored;
        self.phase = Phase::Read {
            since: now,
            heard: now,
        };
        self.trouble = None;
    }

    /// Something came, if only a comment.
    pub fn heard(&mut self, now: Instant) {
        if let Phase::Read { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    /// The hub was heard of in another way, so it is there: who waits because it was out of reach waits no longer.
    pub fn seen(&mut self) {
        if matches!(
            (&self.phase, &self.trouble),
            (Phase::Connect(Some(_)), Some(Trouble::OutOfReach(_)))
        ) {
            self.failures = 0;
            self.phase = Phase::Connect(None);
        }
    }

    /// The stream said how long to wait before connecting again.
    pub fn retry(&mut self, delay: Duration) {
        self.first = delay.clamp(FIRST_RANGE.0, FIRST_RANGE.1);
    }

    /// The connection, the snapshot or the storing came to nothing, or the stream is over.
    pub fn failed(&mut self, now: Instant, why: &str) {
        if let Phase::Read { since, .. } = self.phase
            && now.saturating_duration_since(since) >= STEADY
        {
            self.failures = 0;
        }
        self.trouble = Some(Trouble::OutOfReach(why.chars().take(200).collect()));
        self.fresh = false;
        let wait = self.wait();
        self.phase = Phase::Connect(Some(now + wait));
    }

    /// The server said that it cannot go on after the cursor.
    pub fn refused(&mut self, now: Instant, refusal: Refusal) {
        let fresh = std::mem::take(&mut self.fresh);
        self.phase = if refusal.wants_snapshot() {
            Phase::Fetch {
                at: fresh.then(|| now + self.wait()),
                // A snapshot of who is ahead is newer; only the hub's own word takes a follower back.
                back: refusal.reason != Reason::Behind,
            }
        } else {
            Phase::Connect(Some(now + self.wait()))
        };
        self.trouble = Some(Trouble::Refused(refusal));
    }

    /// A message came in the stream.
    pub fn received(&mut self, now: Instant, message: &Message) -> Received {
        if !matches!(self.phase, Phase::Read { .. }) {
            return Received::Close;
        }
        self.heard(now);
        match message.kind.as_str() {
            sse::RESYNC => {
                match serde_json::from_str(&message.data) {
                    Ok(refusal) => self.refused(now, refusal),
                    Err(error) => self.failed(now, &error.to_string()),
                }
                return Received::Close;
            }
            sse::CUT => {
                self.failed(now, &message.data);
                return Received::Close;
            }
            _ => {}
        }
        let Ok(cursor) = message.id.parse::<Cursor>() else {
            self.failed(now, "an event without a cursor as its id");
            return Received::Close;
        };
        if cursor.offset < self.given.offset || cursor == self.given {
            return Received::Known;
        }
        if cursor.offset != self.given.offset + 1 {
            // No server does that, so there is no hurry to ask this one again.
            self.phase = Phase::Fetch {
                at: Some(now + self.wait()),
                back: false,
            };
            self.trouble = Some(Trouble::Gap(cursor));
            return Received::Close;
        }
        match StateEvent::parse(&message.data) {
            Ok(event) => {
                self.given = cursor;
                Received::Apply(Entry { cursor, event })
            }
            Err(error) => {
                self.unreadable(now, &error);
                Received::Close
            }
        }
    }

    /// What was given out up to here is stored.
    pub fn stored(&mut self, cursor: Cursor) {
        self.stored = cursor;
        self.failures = 0;
        self.fresh = false;
    }

    /// The snapshot is here. If it is one to take, the caller stores it with [`Log::replace`](crate::Log::replace), then
    /// [`Follower::replaced`].
    pub fn fetched(&mut self, now: Instant, snapshot: &Snapshot) -> bool {
        let Phase::Fetch { back, .. } = self.phase else {
            return false;
        };
        let taken = back || snapshot.cursor.offset >= self.stored.offset;
        if !taken {
            self.failed(now, "its snapshot is older than what is known here");
        }
        taken
    }

    /// The snapshot with this cursor is stored.
    pub fn replaced(&mut self, cursor: Cursor) {
        self.stored = cursor;
        self.given = cursor;
        self.fresh = true;
        self.phase = Phase::Connect(None);
    }

    /// The event or the snapshot cannot be read: it stops.
    pub fn unreadable(&mut self, now: Instant, error: &Unreadable) {
        self.stop(now, error.to_string());
    }

    /// What was given out is not to be stored, for example because its seal is broken, or because the log does not take it:
    /// it stops.
    pub fn rejected(&mut self, now: Instant, error: &Error) {
        self.stop(now, error.to_string());
    }

    fn stop(&mut self, now: Instant, why: String) {
        let wait = STOPPED.mul_f64(self.random.random_range(0.5..1.0));
        self.phase = Phase::Connect(Some(now + wait));
        self.trouble = Some(Trouble::Stopped(why));
    }

    /// A random part of a time that grows with each failure.
    fn wait(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(LONGEST.max(self.first));
        longest.mul_f64(self.random.random_range(0.0..1.0))
    }
}
