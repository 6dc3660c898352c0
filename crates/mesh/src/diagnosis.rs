//! Diagnosis: from what was seen on the way to a peer, which layer failed first, and what mends it. Pure.
//!
//! What a probe or real traffic saw is an [`Observation`]. [`History`] keeps the last of them for each layer of one peer, and
//! [`diagnose`] reads a [`Diagnosis`] off it. [`Monitor`] does so for a whole household and says which probe is due.
//!
//! Three rules make the difference between what was tried and what is wrong:
//!
//! - **What failed is not always what was tried.** A token asked of a machine that refuses the connection says nothing about
//!   its model: `finding` puts each failure on the layer that failed, and notes what the failure proves to work (who
//!   refuses can be reached).
//! - **A success proves the layers below it**, so that traffic that works needs no probes.
//! - **A large request or a token that is not answered counts only after a small one was**: else a frozen process looks like
//!   a path that drops large packets.
//!
//! All times are Unix milliseconds, given by the caller. The clock may jump; ages are then wrong for a while, and nothing
//! else is.

mod debounce;
mod monitor;
mod words;

use std::collections::BTreeMap;

use hearth_protocol::diagnosis::{Check, Code, Diagnosis, Layer, Outcome, PeerPath, Verdict};
use hearth_protocol::household::{Address, NodeId};

pub use monitor::{Monitor, Probe, Rhythm};
use words::HUB_GONE;
pub use words::{Subject, words};

/// Clocks that differ by more than this make signatures look expired. Seconds.
pub const CLOCK_SKEW: i64 = 30;
/// Bytes of the request and of the answer that find paths which drop large packets.
pub const LARGE_BYTES: usize = 64 * 1024;
/// How lately the hub, or the peer's own requests, must have shown that a peer lives for a firewall to be suspected.
const HEARD: u64 = 60_000;
/// Seconds after which a hub that does not answer may be gone for good.
const LONG_GONE: u64 = 24 * 3600;

/// What one try saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It worked. For [`Layer::Model`]: the model is loaded.
    Ok,
    /// The machine answered that nobody listens there.
    Refused,
    /// No connection: nothing came back from any address in time.
    Unheard,
    /// No connection: this machine or a router says that there is no way, or that it is not allowed.
    NoRoute,
    /// Another key than the peer's answered.
    WrongKey,
    /// The connection was made, and the request was not answered in time.
    Unanswered,
    /// The connection ended before the answer did.
    Cut,
    /// An answer with an error.
    Status {
        /// HTTP status.
        status: u16,
        /// Stable name in its problem document.
        code: Option<String>,
    },
    /// An answer that cannot be read; what is wrong with it.
    Garbled(String),
    /// The model is not there.
    ModelMissing,
    /// The model is there and not loaded.
    ModelIdle,
    /// The model is being loaded; how far, 0 to 1.
    ModelLoading(Option<f32>),
    /// All its slots are taken.
    Busy,
    /// The engine failed; why.
    EngineFailed(String),
    /// The peer said that it works, and no token came in time. (A token of reasoning is one.)
    NoToken,
}

/// What one try saw, with its circumstances.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What was tried.
    pub layer: Layer,
    /// With which model, for [`Layer::Model`] and [`Layer::Token`].
    pub model: Option<String>,
    /// What was seen.
    pub seen: Seen,
    /// When, Unix milliseconds.
    pub at: u64,
    /// How long it took, in milliseconds, if that was measured.
    pub milliseconds: Option<f64>,
    /// How the peer was reached, as far as that is known.
    pub path: PeerPath,
    /// At which address.
    pub address: Option<Address>,
    /// By how much the peer's clock is ahead of this one's, if it said its time (`Date`). Seconds.
    pub clock_ahead: Option<i64>,
}

impl Observation {
    /// `seen` at `layer`, and nothing more is known.
    pub fn new(layer: Layer, seen: Seen, at: u64) -> Self {
        Self {
            layer,
            model: None,
            seen,
            at,
            milliseconds: None,
            path: PeerPath::None,
            address: None,
            clock_ahead: None,
        }
    }

    /// The same with this model.
    #[must_use]
    pub fn of_model(mut self, model: &str) -> Self {
        self.model = Some(model.to_owned());
        self
    }
}

/// What an observation says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    /// Layers that it proves to work.
    pub proves: &'static [Layer],
    /// What is wrong, if anything is.
    pub fault: Option<Fault>,
    /// Something to know about the layer tried, which works.
    pub note: Option<Code>,
}

/// A failure, on its layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub layer: Layer,
    pub code: Code,
    /// Facts for the words.
    pub detail: Option<String>,
    /// Whether once is enough: the other side said so itself.
    pub hard: bool,
    /// Whether the peer said it, and not this machine.
    pub there: bool,
    /// Whether it counts only once a small request was answered after it.
    pub unconfirmed: bool,
}

const PATH: &[Layer] = &[Layer::Path];
const SMALL: &[Layer] = &[Layer::Roster, Layer::Path, Layer::HttpSmall];
const LARGE: &[Layer] = &[
    Layer::Roster,
    Layer::Path,
    Layer::HttpSmall,
    Layer::HttpLarge,
];
const CAPABLE: &[Layer] = &[
    Layer::Roster,
    Layer::Path,
    Layer::HttpSmall,
    Layer::Capabilities,
];
const LOADED: &[Layer] = &[
    Layer::Roster,
    Layer::Path,
    Layer::HttpSmall,
    Layer::Capabilities,
    Layer::Model,
];
const STREAMED: &[Layer] = &[
    Layer::Roster,
    Layer::Path,
    Layer::HttpSmall,
    Layer::Capabilities,
    Layer::Model,
    Layer::Token,
];

/// Reads an observation: the one place that tells what a symptom means.
pub(crate) fn finding(observation: &Observation) -> Finding {
    use Code as C;
    let tried = observation.layer.max(Layer::HttpSmall);
    let fault = |proves, layer, code| Finding {
        proves,
        fault: Some(Fault {
            layer,
            code,
            detail: None,
            hard: false,
            there: false,
            unconfirmed: false,
        }),
        note: None,
    };
    let hard = |mut finding: Finding| {
        if let Some(fault) = &mut finding.fault {
            fault.hard = true;
        }
        finding
    };
    let there = |mut finding: Finding| {
        if let Some(fault) = &mut finding.fault {
            fault.there = true;
        }
        hard(finding)
    };
    let unconfirmed = |mut finding: Finding| {
        if let Some(fault) = &mut finding.fault {
            fault.unconfirmed = true;
        }
        finding
    };
    let detail = |mut finding: Finding, text: String| {
        if let Some(fault) = &mut finding.fault {
            fault.detail = Some(text);
        }
        finding
    };
    let works = |proves, note| Finding {
        proves,
        fault: None,
        note,
    };
    match &observation.seen {
        Seen::Ok => works(
            match observation.layer {
                Layer::Process | Layer::Hub | Layer::Roster => &[],
                Layer::Path => PATH,
                Layer::HttpSmall => SMALL,
                Layer::HttpLarge => LARGE,
                Layer::Capabilities => CAPABLE,
                Layer::Model => LOADED,
                Layer::Token => STREAMED,
            },
            None,
        ),
        Seen::Refused => hard(fault(PATH, Layer::HttpSmall, C::PeerProcessDown)),
        Seen::Unheard => fault(&[], Layer::Path, C::NoPath),
        Seen::NoRoute => detail(
            fault(&[], Layer::Path, C::NoPath),
            "this machine or a router says that there is no way".to_owned(),
        ),
        Seen::WrongKey => hard(fault(&[], Layer::Path, C::KeyMismatch)),
        Seen::Unanswered => match tried {
            Layer::HttpLarge => unconfirmed(fault(PATH, Layer::HttpLarge, C::MtuSuspected)),
            Layer::Token => unconfirmed(fault(PATH, Layer::Token, C::TokenTimeout)),
            _ => fault(PATH, Layer::HttpSmall, C::PeerNotAnswering),
        },
        Seen::Cut => match tried {
            Layer::HttpLarge => unconfirmed(detail(
                fault(PATH, Layer::HttpLarge, C::UnexpectedAnswer),
                "the connection ended in the middle of a large request".to_owned(),
            )),
            _ => fault(PATH, Layer::HttpSmall, C::PeerProcessDown),
        },
        Seen::Status { status, code } => {
            let name = code.as_deref().unwrap_or_default();
            let skewed = observation
                .clock_ahead
                .filter(|ahead| ahead.abs() > CLOCK_SKEW);
            let at_model = tried >= Layer::Model;
            match (*status, name) {
                (_, "clock_skew") => {
                    let finding = hard(fault(PATH, Layer::HttpSmall, C::ClockSkew));
                    match observation.clock_ahead {
                        Some(ahead) => detail(finding, seconds_apart(ahead)),
                        None => finding,
                    }
                }
                (401, _) if skewed.is_some() => detail(
                    hard(fault(PATH, Layer::HttpSmall, C::ClockSkew)),
                    seconds_apart(skewed.unwrap_or_default()),
                ),
                (_, "key_mismatch") => there(fault(&[], Layer::Path, C::KeyMismatch)),
                (401, "signature_wrong" | "unknown_key") => {
                    there(fault(PATH, Layer::HttpSmall, C::KeyMismatch))
                }
                (403, "removed") => there(fault(PATH, Layer::Roster, C::Removed)),
                (403, _) => there(fault(PATH, Layer::Roster, C::NotInRoster)),
                (429, _) => works(if at_model { CAPABLE } else { SMALL }, Some(C::Busy)),
                (404, _) if at_model => hard(fault(CAPABLE, Layer::Model, C::ModelMissing)),
                (_, "model_not_found" | "model_missing") => {
                    hard(fault(CAPABLE, Layer::Model, C::ModelMissing))
                }
                (_, "model_loading") => hard(fault(CAPABLE, Layer::Model, C::ModelLoading)),
                (500.., _) if at_model => detail(
                    fault(SMALL, Layer::Model, C::RuntimeNotReady),
                    status_words(*status, name),
                ),
                _ => detail(
                    fault(PATH, tried, C::UnexpectedAnswer),
                    status_words(*status, name),
                ),
            }
        }
        Seen::Garbled(what) => detail(fault(PATH, tried, C::UnexpectedAnswer), what.clone()),
        Seen::ModelMissing => hard(fault(CAPABLE, Layer::Model, C::ModelMissing)),
        Seen::ModelIdle => works(LOADED, Some(C::ModelNotLoaded)),
        Seen::ModelLoading(progress) => {
            let finding = hard(fault(CAPABLE, Layer::Model, C::ModelLoading));
            match progress.filter(|progress| progress.is_finite()) {
                Some(progress) => detail(
                    finding,
                    format!("{:.0} % are loaded", progress.clamp(0.0, 1.0) * 100.0),
                ),
                None => finding,
            }
        }
        Seen::Busy => works(LOADED, Some(C::Busy)),
        Seen::EngineFailed(why) => detail(
            hard(fault(CAPABLE, Layer::Model, C::RuntimeNotReady)),
            why.clone(),
        ),
        Seen::NoToken => fault(CAPABLE, Layer::Token, C::TokenTimeout),
    }
}

fn status_words(status: u16, code: &str) -> String {
    if code.is_empty() {
        format!("the answer had status {status}")
    } else {
        format!("the answer had status {status}, `{code}`")
    }
}

fn seconds_apart(ahead: i64) -> String {
    let seconds = ahead.unsigned_abs();
    if ahead >= 0 {
        format!("its clock is {seconds} s ahead of this machine's")
    } else {
        format!("its clock is {seconds} s behind this machine's")
    }
}

/// What is known of one layer of a peer (and, from [`Layer::Model`] on, of one model there).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    /// When it worked last, and how long that took.
    pub ok: Option<(u64, Option<f64>)>,
    /// Something to know, since it worked last.
    pub note: Option<Code>,
    /// What is wrong since then, and when that was seen last.
    pub fault: Option<(Fault, u64)>,
    /// Since when.
    pub since: u64,
    /// How often it was seen in a row.
    pub failures: u32,
}

impl Record {
    fn worked(&mut self, at: u64, milliseconds: Option<f64>, note: Option<Code>) {
        *self = Self {
            ok: Some((at, milliseconds)),
            note,
            ..Self::default()
        };
    }

    fn failed(&mut self, fault: Fault, at: u64) {
        if self.fault.is_none() {
            self.since = at;
        }
        self.failures += 1;
        self.fault = Some((fault, at));
    }

    /// The fault, once it is to be believed: seen twice, told by the other side, or where nothing ever worked.
    pub(crate) fn believed(&self) -> Option<(&Fault, u64)> {
        let (fault, at) = self.fault.as_ref()?;
        (fault.hard || self.failures >= 2 || self.ok.is_none()).then_some((fault, *at))
    }
}

/// A fault that counts now, with its layer and model.
type Confirmed = ((Layer, Option<String>), Fault);

/// What was seen of one peer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    records: BTreeMap<(Layer, Option<String>), Record>,
    /// A fault that waits for a small request to be answered.
    pending: Option<((Layer, Option<String>), Fault, u64)>,
    path: PeerPath,
    address: Option<Address>,
    round_trip: Option<f64>,
    /// When the hub or a request of its own showed that it lives.
    heard: Option<u64>,
}

impl History {
    /// Takes in what was seen.
    pub fn observe(&mut self, observation: &Observation) {
        self.take(observation);
    }

    /// As [`Self::observe`]; what it said, and the fault of before that it confirmed.
    pub(crate) fn take(&mut self, observation: &Observation) -> (Finding, Option<Confirmed>) {
        let mut finding = finding(observation);
        let key = |layer: Layer| {
            let model = observation.model.clone().filter(|_| layer >= Layer::Model);
            (layer, model)
        };
        let at = observation.at;
        for layer in finding.proves {
            let tried = *layer == observation.layer;
            let topmost = finding.proves.last() == Some(layer);
            self.records.entry(key(*layer)).or_default().worked(
                at,
                observation.milliseconds.filter(|_| tried),
                finding.note.filter(|_| topmost),
            );
        }
        if !finding.proves.is_empty() {
            if observation.path != PeerPath::None {
                self.path = observation.path;
            }
            if observation.address.is_some() {
                self.address.clone_from(&observation.address);
            }
        }
        if finding.proves.contains(&Layer::HttpSmall) && observation.layer == Layer::HttpSmall {
            self.round_trip = observation.milliseconds.or(self.round_trip);
        }
        // A small request was answered after what waited for one: the large one's silence means what it seems to.
        let mut confirmed = None;
        if finding.proves.contains(&Layer::HttpSmall) {
            if let Some((key, fault, at)) = self.pending.take()
                && !finding.proves.contains(&key.0)
            {
                let record = self.records.entry(key.clone()).or_default();
                record.failed(fault.clone(), at);
                confirmed = Some((key, fault));
            }
        } else if finding
            .fault
            .as_ref()
            .is_some_and(|fault| !fault.unconfirmed)
        {
            self.pending = None;
        }
        match &finding.fault {
            Some(fault) if fault.unconfirmed => {
                self.pending = Some((key(fault.layer), fault.clone(), at));
                finding.fault = None;
            }
            Some(fault) => {
                let record = self.records.entry(key(fault.layer)).or_default();
                record.failed(fault.clone(), at);
            }
            None => {}
        }
        (finding, confirmed)
    }

    /// The hub, or a request that came from it, showed that the peer lives.
    pub fn heard(&mut self, at: u64) {
        self.heard = Some(at);
    }

    /// Forgets what was seen, because the peer is another process or in another place now.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a fault waits for a small request.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether anything that stops every request is wrong.
    pub(crate) fn is_failing(&self) -> bool {
        let mut records = self.records.iter();
        records.any(|((layer, _), record)| *layer < Layer::Model && record.fault.is_some())
    }

    /// Whether one of these is wrong.
    pub(crate) fn has_fault(&self, codes: &[Code]) -> bool {
        let mut faults = self
            .records
            .values()
            .filter_map(|record| record.fault.as_ref());
        faults.any(|(fault, _)| codes.contains(&fault.code))
    }

    /// The record of a layer; from [`Layer::Model`] on, of a model.
    pub(crate) fn record(&self, layer: Layer, model: Option<&str>) -> Option<&Record> {
        let model = model.filter(|_| layer >= Layer::Model).map(str::to_owned);
        self.records.get(&(layer, model))
    }
}

/// What is known of the hub.
#[derive(Debug, Clone, PartialEq)]
pub enum Hub {
    /// This machine is the hub.
    Here,
    /// It answered last at this time, Unix milliseconds.
    Reached(u64),
    /// It does not answer; at which address, since when.
    Unreachable {
        /// Its address, for the words.
        address: Option<Address>,
        /// Since when, Unix milliseconds.
        since: u64,
    },
    /// Nobody asked yet.
    NotAsked,
}

/// What is known of this machine: the same for every peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Here {
    /// Whether it belongs to a household.
    pub joined: bool,
    /// Whether it was removed from it.
    pub removed: bool,
    /// Its hub.
    pub hub: Hub,
}

/// What this machine's roster says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is a member.
    Member,
    /// It was removed.
    Removed,
    /// It is not in it.
    Unknown,
}

/// A peer, as the roster has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it is reached, best first.
    pub addresses: Vec<Address>,
    /// What the roster says of it.
    pub membership: Membership,
}

/// Judges every layer of a peer, in order. `others` says whether any other machine of the household answers, which tells a
/// firewall and a dead network apart; `model` is the one asked about, and without it the last two layers are skipped.
pub fn diagnose(
    here: &Here,
    peer: &Peer,
    history: &History,
    others: bool,
    model: Option<&str>,
    now: u64,
) -> Diagnosis {
    let subject = Subject {
        name: &peer.name,
        address: history.address.as_ref().or(peer.addresses.first()),
        model,
        detail: None,
        there: false,
    };
    let mut judge = Judge {
        subject,
        now,
        checks: Vec::with_capacity(Layer::ALL.len()),
        broken: None,
        unchecked: false,
    };
    for layer in Layer::ALL {
        match layer {
            Layer::Process => judge.process(here),
            Layer::Hub => judge.hub(&here.hub),
            Layer::Roster => judge.roster(here, peer, history),
            Layer::Path => judge.path(history, peer, others),
            Layer::Model | Layer::Token if model.is_none() => {
                if !judge.skipped(layer) {
                    judge.skip(layer, "no model was asked about".to_owned());
                }
            }
            _ => judge.layer(layer, history),
        }
    }
    let verdict = match judge.broken {
        Some(_) => Verdict::Failed,
        None if judge.unchecked => Verdict::Unknown,
        None => Verdict::Usable,
    };
    let reachable = judge.broken.is_none_or(|layer| layer > Layer::Path);
    Diagnosis {
        peer: peer.node,
        name: peer.name.clone(),
        model: model.map(str::to_owned),
        verdict,
        broken: judge.broken,
        checks: judge.checks,
        path: if reachable {
            history.path
        } else {
            PeerPath::None
        },
        round_trip_ms: history.round_trip,
        at: now,
    }
}

/// Walks the layers.
struct Judge<'a> {
    subject: Subject<'a>,
    now: u64,
    checks: Vec<Check>,
    broken: Option<Layer>,
    /// Whether a layer that decides was not looked at yet.
    unchecked: bool,
}

impl Judge<'_> {
    fn age(&self, at: u64) -> Option<u64> {
        Some(self.now.saturating_sub(at) / 1000)
    }

    fn skip(&mut self, layer: Layer, words: String) {
        self.checks.push(Check {
            layer,
            outcome: Outcome::Skipped,
            code: None,
            words,
            fix: None,
            milliseconds: None,
            age_seconds: None,
        });
    }

    /// Skips the layer if an earlier one failed.
    fn skipped(&mut self, layer: Layer) -> bool {
        let Some(broken) = self.broken else {
            return false;
        };
        self.skip(
            layer,
            format!("not judged, because {} failed", broken.words()),
        );
        true
    }

    fn ok(&mut self, layer: Layer, words: &str, at: Option<u64>, milliseconds: Option<f64>) {
        self.checks.push(Check {
            layer,
            outcome: Outcome::Ok,
            code: None,
            words: words.to_owned(),
            fix: None,
            milliseconds,
            age_seconds: at.and_then(|at| self.age(at)),
        });
    }

    fn say(&mut self, layer: Layer, outcome: Outcome, code: Code, at: Option<u64>) {
        let (words, fix) = words(code, &self.subject);
        self.checks.push(Check {
            layer,
            outcome,
            code: Some(code),
            words,
            fix,
            milliseconds: None,
            age_seconds: at.and_then(|at| self.age(at)),
        });
    }

    /// This layer stops every prompt.
    fn fail(&mut self, layer: Layer, code: Code, at: Option<u64>) {
        self.say(layer, Outcome::Failed, code, at);
        self.broken.get_or_insert(layer);
    }

    fn process(&mut self, here: &Here) {
        if here.joined {
            self.ok(Layer::Process, "this machine's node runs", None, None);
        } else {
            self.fail(Layer::Process, Code::NoHousehold, None);
        }
    }

    fn hub(&mut self, hub: &Hub) {
        if self.skipped(Layer::Hub) {
            return;
        }
        match hub {
            Hub::Here => self.ok(Layer::Hub, "this machine is the hub", None, None),
            Hub::Reached(at) => self.ok(Layer::Hub, "the hub answers", Some(*at), None),
            Hub::Unreachable { address, since } => {
                // It fails, and breaks nothing: the roster of before holds.
                let subject = Subject {
                    address: address.as_ref(),
                    ..self.subject.clone()
                };
                let (words, mut fix) = words(Code::HubUnreachable, &subject);
                let age_seconds = self.age(*since);
                if age_seconds.is_some_and(|age| age > LONG_GONE) {
                    fix = fix.map(|fix| format!("{fix}; {HUB_GONE}"));
                }
                self.checks.push(Check {
                    layer: Layer::Hub,
                    outcome: Outcome::Failed,
                    code: Some(Code::HubUnreachable),
                    words,
                    fix,
                    milliseconds: None,
                    age_seconds,
                });
            }
            Hub::NotAsked => self.skip(Layer::Hub, "the hub was not asked yet".to_owned()),
        }
    }

    fn roster(&mut self, here: &Here, peer: &Peer, history: &History) {
        if self.skipped(Layer::Roster) {
            return;
        }
        let told = history.record(Layer::Roster, None);
        if here.removed {
            self.subject.there = true;
            self.fail(Layer::Roster, Code::Removed, None);
        } else if peer.membership == Membership::Removed {
            self.fail(Layer::Roster, Code::Removed, None);
        } else if peer.membership == Membership::Unknown {
            self.fail(Layer::Roster, Code::NotInRoster, None);
        } else if let Some((fault, at)) = told.and_then(Record::believed) {
            self.subject.there = fault.there;
            self.fail(Layer::Roster, fault.code, Some(at));
        } else {
            self.ok(
                Layer::Roster,
                "both are members of the household",
                None,
                None,
            );
        }
        self.subject.there = false;
    }

    fn path(&mut self, history: &History, peer: &Peer, others: bool) {
        if self.skipped(Layer::Path) {
            return;
        }
        let record = history.record(Layer::Path, None);
        let failed = record.and_then(|record| Some((record.believed()?, record.since)));
        if let Some(((fault, at), since)) = failed
            && fault.code == Code::NoPath
        {
            let lives = history
                .heard
                .is_some_and(|heard| heard >= since && self.now.saturating_sub(heard) <= HEARD);
            let code = if lives {
                Code::FirewallSuspected
            } else {
                Code::NoPath
            };
            let detail = match (&fault.detail, others || lives) {
                // It says all.
                _ if self.subject.address.is_none() && !lives => None,
                (Some(detail), _) => Some(detail.clone()),
                (None, false) => Some(
                    "no other machine answers either, so this machine's own network may be down"
                        .to_owned(),
                ),
                (None, true) if peer.addresses.is_empty() => {
                    Some("the roster has no address of it".to_owned())
                }
                (None, true) => None,
            };
            self.with_detail(detail, |judge| judge.fail(Layer::Path, code, Some(at)));
            return;
        }
        self.layer(Layer::Path, history);
        if history.path == PeerPath::Relayed
            && let Some(check) = self.checks.last_mut()
            && check.outcome == Outcome::Ok
        {
            let (words, fix) = words(Code::Relayed, &self.subject);
            check.outcome = Outcome::Note;
            check.code = Some(Code::Relayed);
            check.words = words;
            check.fix = fix;
        }
    }

    /// A layer that the history alone decides.
    fn layer(&mut self, layer: Layer, history: &History) {
        if self.skipped(layer) {
            return;
        }
        let Some(record) = history.record(layer, self.subject.model) else {
            self.unseen(layer);
            return;
        };
        if let Some((fault, at)) = record.believed() {
            self.subject.there = fault.there;
            let detail = fault.detail.clone();
            self.with_detail(detail, |judge| judge.fail(layer, fault.code, Some(at)));
            self.subject.there = false;
            return;
        }
        let Some((at, milliseconds)) = record.ok else {
            self.unseen(layer);
            return;
        };
        if let Some(note) = record.note {
            self.say(layer, Outcome::Note, note, Some(at));
            if let Some(check) = self.checks.last_mut() {
                check.milliseconds = milliseconds;
            }
            return;
        }
        let words = match layer {
            Layer::Path => "it is reached directly",
            Layer::HttpSmall => "a small request was answered",
            Layer::HttpLarge => "a request of 64 KiB was answered",
            Layer::Capabilities => "it said what it can do",
            Layer::Model => "the model is loaded",
            _ => "a token was streamed",
        };
        self.ok(layer, words, Some(at), milliseconds);
    }

    /// Nobody looked yet. A large request and a token are tried seldom: without them nothing is decided otherwise.
    fn unseen(&mut self, layer: Layer) {
        let idle = layer == Layer::Token
            && self
                .checks
                .last()
                .is_some_and(|check| check.code == Some(Code::ModelNotLoaded));
        if idle {
            self.skip(
                layer,
                "not tried, because no model is loaded only to look".to_owned(),
            );
            return;
        }
        self.unchecked |= !matches!(layer, Layer::HttpLarge | Layer::Token);
        self.skip(layer, "not tried yet".to_owned());
    }

    fn with_detail(&mut self, detail: Option<String>, say: impl FnOnce(&mut Self)) {
        self.subject.detail = detail;
        say(self);
        self.subject.detail = None;
    }
}
