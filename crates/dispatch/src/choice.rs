//! The choice among machines: when would the first token come from each, and when the last?
//!
//! Time to the first token = round trip + wait for a slot + loading of the model + reading of the part of the prompt that
//! is not cached there. Time to the end = that + generation. Candidates are ordered by the mean of the two, because an
//! answer is read while it comes. Speeds belong to a machine *and* a model: which of two machines is faster depends on
//! whether the model fits its caches and memory, so a measured speed beats any ranking of hardware.
//!
//! Where no speed was measured it is estimated from the bytes of the weights, all of which are read for each token (the
//! roofline model: Williams, Waterman and Patterson 2009), on a machine of a middling kind ([`CPU_BANDWIDTH`],
//! [`GPU_BANDWIDTH`]). The first answer replaces the estimate with a measurement.

use std::time::Duration;

use hearth_protocol::diagnosis::Health;
use hearth_protocol::household::NodeId;

/// Bytes per second that a processor of unknown kind is believed to read.
pub const CPU_BANDWIDTH: f64 = 30e9;
/// Bytes per second that a GPU of unknown kind is believed to read.
pub const GPU_BANDWIDTH: f64 = 250e9;
/// How many times faster a prompt is read than an answer generated, when only the size is known.
const PREFILL_OVER_DECODE: (f64, f64) = (6.0, 30.0);
/// Bytes of a model of unknown size: some 8 billion parameters in 4 bits.
const TYPICAL_MODEL: u64 = 5_000_000_000;
/// Bytes per second at which weights come from a disk.
const DISK: f64 = 500e6;
/// Tokens of an answer nobody bounded.
const TYPICAL_ANSWER: u32 = 256;
/// What each running stream takes from another one's speed: batched steps share the reading of weights, so that n streams
/// are slower than one, and by far not n times.
const SHARED_STEP: f64 = 0.5;
/// Time on a battery counts so many times: the owner pays for it with the battery.
const BATTERY: f64 = 1.5;
/// A machine that is hot computes slower than it was measured.
const THROTTLED: f64 = 1.5;
/// What a peer is taken to cost more while nobody knows whether it answers.
const UNPROVEN: Duration = Duration::from_millis(500);
/// Round trips that were not measured: a local network, and a relay somewhere.
const ROUND_TRIP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// This machine answers when the best other one is better by no more than this share of the time …
const TIE_SHARE: f64 = 0.1;
/// … or than this.
const TIE: Duration = Duration::from_millis(50);

/// Where a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// This machine.
    Here,
    /// A peer, from machine to machine.
    Direct,
    /// A peer, through a relay.
    Relayed,
}

/// How far a candidate is from answering with the model asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Loaded.
    Loaded,
    /// Being loaded; with the time that is left, if known.
    Loading(Option<Duration>),
    /// On its disk; with the time that loading took before, if known.
    Loadable(Option<Duration>),
    /// Not there.
    Missing,
}

/// A machine that may answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The machine.
    pub node: NodeId,
    /// How it is reached.
    pub path: Path,
    /// Measured round trip of a small request; of no meaning here.
    pub round_trip: Option<Duration>,
    /// State of the model there.
    pub model: ModelState,
    /// Bytes of the model's weights; 0 if not known.
    pub size_bytes: u64,
    /// Longest prompt with its answer there, in tokens; 0 if not known.
    pub context: u32,
    /// Whether a GPU computes there, for estimates of what was not measured.
    pub gpu: bool,
    /// Requests the model works on at once there; 0 if not known.
    pub slots: u32,
    /// Of which taken.
    pub busy: u32,
    /// Requests that wait there.
    pub queued: u32,
    /// Measured generation of one stream of this model, tokens per second; 0 if never measured.
    pub decode_tokens_per_second: f32,
    /// Measured reading of prompts by this model, tokens per second; 0 if never measured.
    pub prefill_tokens_per_second: f32,
    /// Tokens of this very prompt that are cached there, as far as anybody knows.
    pub cached_tokens: u32,
    /// Whether it runs on a battery.
    pub on_battery: bool,
    /// Whether it is slowed down because it is hot.
    pub throttled: bool,
    /// What its diagnosis says; [`Health::Good`] for this machine.
    pub health: Health,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u32,
    /// Most tokens of the answer, if the request says so.
    pub max_tokens: Option<u32>,
    /// The machine that must answer (`peer/model`).
    pub pinned: Option<NodeId>,
    /// Whether the data may not leave this machine.
    pub local_only: bool,
}

/// Why a candidate cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// The request names another machine.
    PinnedElsewhere,
    /// The data may not leave this machine.
    MustStay,
    /// It has no such model.
    ModelMissing,
    /// Its context is too short for the prompt.
    ContextTooShort,
    /// Its diagnosis says that it does not work.
    Unhealthy,
}

impl Excluded {
    /// What people read after "NAME: ".
    pub fn words(self) -> &'static str {
        match self {
            Self::PinnedElsewhere => "the request names another machine",
            Self::MustStay => "the data may not leave this machine",
            Self::ModelMissing => "it does not have the model",
            Self::ContextTooShort => "the prompt is longer than its context",
            Self::Unhealthy => "its diagnosis says that it cannot answer",
        }
    }
}

/// Why a candidate stands before those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The request names it.
    Pinned,
    /// The data may not leave this machine.
    MustStay,
    /// Nobody else can.
    Only,
    /// As quick as any, and nothing has to travel.
    HereOnTie,
    /// It is known to answer, and those below are not, or look bad.
    Health,
    /// The model is loaded there.
    Loaded,
    /// Its queue is shorter.
    Free,
    /// It holds more of this prompt in its prefix cache.
    Cached,
    /// It computes this model faster.
    Faster,
    /// It is nearer.
    Nearer,
}

impl Why {
    /// Stable name, for headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::MustStay => "local_only",
            Self::Only => "only",
            Self::HereOnTie => "here",
            Self::Health => "health",
            Self::Loaded => "loaded",
            Self::Free => "free",
            Self::Cached => "cached",
            Self::Faster => "faster",
            Self::Nearer => "nearer",
        }
    }

    /// What people read after "answered by NAME: ".
    pub fn words(self) -> &'static str {
        match self {
            Self::Pinned => "the request names it",
            Self::MustStay => "the data may not leave this machine",
            Self::Only => "no other machine can answer this",
            Self::HereOnTie => "no machine is clearly quicker, and nothing has to travel",
            Self::Health => "it is known to answer, and the others are not",
            Self::Loaded => "the model is loaded there",
            Self::Free => "its queue is shorter",
            Self::Cached => "it remembers the start of this conversation",
            Self::Faster => "it is faster with this model",
            Self::Nearer => "its connection is quicker",
        }
    }
}

/// A candidate in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index among the candidates given.
    pub index: usize,
    /// When its first token is to be expected, from now.
    pub first_token: Duration,
    /// When its last token is to be expected, from now.
    pub end: Duration,
    /// Why it stands before those below it.
    pub why: Why,
}

/// Why this candidate is out of the question; `None` if it is not. A pinned machine is asked however it looks: nobody else
/// may answer, and then the attempt itself says best what is wrong.
pub fn excluded(demand: &Demand, candidate: &Candidate) -> Option<Excluded> {
    if demand.pinned.is_some_and(|node| node != candidate.node) {
        Some(Excluded::PinnedElsewhere)
    } else if demand.local_only && candidate.path != Path::Here {
        Some(Excluded::MustStay)
    } else if candidate.model == ModelState::Missing {
        Some(Excluded::ModelMissing)
    } else if candidate.context != 0 && demand.prompt_tokens >= candidate.context {
        Some(Excluded::ContextTooShort)
    } else if candidate.health == Health::Bad && demand.pinned.is_none() {
        Some(Excluded::Unhealthy)
    } else {
        None
    }
}

/// Everybody who can answer, best first. A machine that is a last resort comes after all others, whatever it promises.
pub fn rank(demand: &Demand, candidates: &[Candidate]) -> Vec<Choice> {
    let mut ranked: Vec<(usize, Expected)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| excluded(demand, candidate).is_none())
        .map(|(index, candidate)| (index, Expected::of(demand, candidate)))
        .collect();
    let resort = |index: usize| candidates[index].health >= Health::LastResort;
    ranked.sort_by(|(a, x), (b, y)| {
        let order = resort(*a).cmp(&resort(*b));
        order.then(x.cost().total_cmp(&y.cost())).then(a.cmp(b))
    });
    here_on_a_tie(candidates, &mut ranked);
    ranked
        .iter()
        .enumerate()
        .map(|(place, (index, expected))| {
            let below = ranked.get(place + 1);
            let why = if demand.pinned.is_some() {
                Why::Pinned
            } else if demand.local_only {
                Why::MustStay
            } else {
                match below {
                    None => Why::Only,
                    Some((other, _)) if resort(*other) && !resort(*index) => Why::Health,
                    Some((_, other))
                        if candidates[*index].path == Path::Here && other.ties(expected) =>
                    {
                        Why::HereOnTie
                    }
                    Some((_, other)) => expected.advantage(other),
                }
            };
            Choice {
                index: *index,
                first_token: seconds(expected.first()),
                end: seconds(expected.end()),
                why,
            }
        })
        .collect()
}

/// Moves this machine before those that are better by a small margin only.
fn here_on_a_tie(candidates: &[Candidate], ranked: &mut [(usize, Expected)]) {
    let here = |(index, _): &(usize, Expected)| candidates[*index].path == Path::Here;
    let Some(place) = ranked.iter().position(here) else {
        return;
    };
    let resort = |place: usize| candidates[ranked[place].0].health >= Health::LastResort;
    let tied = |before: &usize| {
        resort(*before) == resort(place) && ranked[*before].1.ties(&ranked[place].1)
    };
    if let Some(better) = (0..place).find(tied) {
        ranked[better..=place].rotate_right(1);
    }
}

/// What the time goes into, in seconds.
#[derive(Debug, Clone, Copy)]
struct Expected {
    travel: f64,
    doubt: f64,
    wait: f64,
    load: f64,
    /// Reading of the prompt, had nothing of it been cached.
    whole_prefill: f64,
    /// What the cache saves of it.
    saved: f64,
    decode: f64,
}

impl Expected {
    fn of(demand: &Demand, candidate: &Candidate) -> Self {
        let answer = demand.max_tokens.map_or(TYPICAL_ANSWER, |most| {
            // Most requests name a limit far above what they need.
            most.min(TYPICAL_ANSWER)
        });
        let slower = if candidate.on_battery { BATTERY } else { 1.0 }
            * if candidate.throttled { THROTTLED } else { 1.0 };
        let size = match candidate.size_bytes {
            0 => TYPICAL_MODEL,
            bytes => bytes,
        } as f64;
        let (bandwidth, prefill_over_decode) = if candidate.gpu {
            (GPU_BANDWIDTH, PREFILL_OVER_DECODE.1)
        } else {
            (CPU_BANDWIDTH, PREFILL_OVER_DECODE.0)
        };
        let measured = |speed: f32, otherwise: f64| {
            if speed.is_finite() && speed > 0.0 {
                f64::from(speed)
            } else {
                otherwise
            }
        };
        let decode = measured(candidate.decode_tokens_per_second, bandwidth / size);
        let prefill = measured(
            candidate.prefill_tokens_per_second,
            decode * prefill_over_decode,
        );
        let slots = f64::from(candidate.slots.max(1));
        let wait = if candidate.busy < candidate.slots.max(1) && candidate.queued == 0 {
            0.0
        } else {
            // On the average, a slot is free after its share of a typical answer; and each that waits takes one more.
            let each = f64::from(TYPICAL_ANSWER) / decode * (1.0 + SHARED_STEP * (slots - 1.0));
            f64::from(candidate.queued + 1) * each / slots
        };
        let load = match candidate.model {
            ModelState::Loaded | ModelState::Missing => 0.0,
            ModelState::Loading(left) => left.map_or(size / DISK / 2.0, |left| left.as_secs_f64()),
            ModelState::Loadable(took) => took.map_or(size / DISK, |took| took.as_secs_f64()),
        };
        // A model that is not loaded has no cache.
        let cached = match candidate.model {
            ModelState::Loaded => candidate.cached_tokens.min(demand.prompt_tokens),
            _ => 0,
        };
        let travel = match candidate.path {
            Path::Here => 0.0,
            Path::Direct => candidate.round_trip.unwrap_or(ROUND_TRIP.0).as_secs_f64(),
            Path::Relayed => candidate.round_trip.unwrap_or(ROUND_TRIP.1).as_secs_f64(),
        };
        let doubt = match candidate.health {
            Health::Unknown => UNPROVEN.as_secs_f64(),
            _ => 0.0,
        };
        let others = f64::from(candidate.busy.min(candidate.slots.max(1) - 1));
        Self {
            travel,
            doubt,
            wait: wait * slower,
            load,
            whole_prefill: f64::from(demand.prompt_tokens) / prefill * slower,
            saved: f64::from(cached) / prefill * slower,
            decode: f64::from(answer) / decode * (1.0 + SHARED_STEP * others) * slower,
        }
    }

    fn first(&self) -> f64 {
        self.travel + self.doubt + self.wait + self.load + self.whole_prefill - self.saved
    }

    fn end(&self) -> f64 {
        self.first() + self.decode
    }

    fn cost(&self) -> f64 {
        (self.first() + self.end()) / 2.0
    }

    /// Whether it is no more than a small margin quicker than this machine.
    fn ties(&self, here: &Self) -> bool {
        let margin = (self.cost() * TIE_SHARE).max(TIE.as_secs_f64());
        (here.cost() - self.cost()) <= margin && (self.cost() - here.cost()) <= margin
    }

    /// What makes most of the difference to one that is worse.
    fn advantage(&self, other: &Self) -> Why {
        let computing = |expected: &Self| expected.whole_prefill + expected.decode / 2.0;
        let reasons = [
            (Why::Loaded, other.load - self.load),
            (Why::Free, other.wait - self.wait),
            (Why::Cached, self.saved - other.saved),
            (Why::Faster, computing(other) - computing(self)),
            (Why::Nearer, other.travel - self.travel),
            (Why::Health, other.doubt - self.doubt),
        ];
        let most = reasons.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        most.map_or(Why::Faster, |(why, _)| why)
    }
}

/// A duration of so many seconds; at most a year, however slow a machine was measured.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 365.0 * 86_400.0))
}
