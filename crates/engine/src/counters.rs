//! What a model's thread tells the rest of the process: counters, written by it and read by anyone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hearth_protocol::status::ModelLoad;

/// Weight of the newest step in the speed averages.
const NEWEST: f32 = 0.2;

/// See [`ModelLoad`] for what each counter means.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub slots: AtomicU32,
    pub slots_busy: AtomicU32,
    pub queued: AtomicU32,
    pub kv_cells: AtomicU32,
    pub kv_used: AtomicU32,
    pub parked_bytes: AtomicU64,
    pub prefill_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub decode_tokens: AtomicU64,
    pub completed: AtomicU64,
    pub cancelled: AtomicU64,
    /// `f32` bits; tokens per second.
    prefill_speed: AtomicU32,
    decode_speed: AtomicU32,
    stay: Mutex<Stay>,
}

/// How long a model stays loaded when nobody asks for it.
#[derive(Debug, Clone, Copy, Default)]
struct Stay {
    /// After its last request; `None` is for ever.
    keep_alive: Option<Duration>,
    /// When that is over.
    until: Option<Instant>,
}

impl Counters {
    /// Records a computed batch: prompt tokens in it, other tokens, tokens drawn from it, and how long it took.
    pub fn record(&self, prompt: usize, other: usize, drawn: usize, took: Duration) {
        self.prefill_tokens
            .fetch_add(prompt as u64, Ordering::Relaxed);
        let seconds = took.as_secs_f32().max(1e-6);
        if prompt > 0 {
            average(&self.prefill_speed, (prompt + other) as f32 / seconds);
        } else {
            average(&self.decode_speed, drawn as f32 / seconds);
        }
    }

    /// Prompt tokens per second over the last steps; 0 before the first one.
    pub fn prefill_speed(&self) -> f32 {
        f32::from_bits(self.prefill_speed.load(Ordering::Relaxed))
    }

    /// The engine counts work into the queue before it prepares it; here it leaves it.
    pub fn leave_queue(&self, n: usize) {
        self.queued.fetch_sub(n as u32, Ordering::Relaxed);
    }

    fn stay<T>(&self, change: impl FnOnce(&mut Stay) -> T) -> T {
        // Valid after any panic: two plain values.
        change(&mut self.stay.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on the model stays this long after its last request; `None` is for ever.
    pub fn keep(&self, keep_alive: Option<Duration>) {
        self.stay(|stay| {
            stay.keep_alive = keep_alive;
            stay.until = later(keep_alive);
        });
    }

    /// The model rests from now on; how long it may before it goes.
    pub fn rest(&self) -> Option<Duration> {
        self.stay(|stay| {
            stay.until = later(stay.keep_alive);
            stay.keep_alive
        })
    }

    /// When the model goes if nobody asks for it; `None` is never.
    pub fn until(&self, busy: bool) -> Option<Instant> {
        self.stay(|stay| {
            if busy {
                later(stay.keep_alive)
            } else {
                stay.until
            }
        })
    }

    /// All counters at this moment.
    pub fn snapshot(&self) -> ModelLoad {
        let small = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let large = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ModelLoad {
            slots_busy: small(&self.slots_busy),
            slots: small(&self.slots),
            queued: small(&self.queued),
            kv_used: small(&self.kv_used),
            kv_cells: small(&self.kv_cells),
            parked_bytes: large(&self.parked_bytes),
            prefill_tokens: large(&self.prefill_tokens),
            cached_tokens: large(&self.cached_tokens),
            decode_tokens: large(&self.decode_tokens),
            completed: large(&self.completed),
            cancelled: large(&self.cancelled),
            decode_tokens_per_second: f32::from_bits(small(&self.decode_speed)),
            prefill_tokens_per_second: self.prefill_speed(),
        }
    }
}

/// This long from now; `None` if that is never.
fn later(time: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(time?)
}

/// Exponential moving average; only the model's thread writes.
fn average(cell: &AtomicU32, newest: f32) {
    let old = f32::from_bits(cell.load(Ordering::Relaxed));
    let next = if old == 0.0 {
        newest
    } else {
        old + NEWEST * (newest - old)
    };
    cell.store(next.to_bits(), Ordering::Relaxed);
}
