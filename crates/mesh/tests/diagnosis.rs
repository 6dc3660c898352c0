//! Every fault gets its own code, from the start as after a good time; and what the monitor says and does stays within its
//! bounds whatever it sees.
#![allow(clippy::unwrap_used)]

use hearth_mesh::diagnosis::{
    Here, Hub, Membership, Monitor, Observation, Peer, Probe, Rhythm, Seen, Subject, words,
};
use hearth_protocol::diagnosis::{
    Check, Code, Diagnosis, Health, Layer, Outcome, PeerPath, Verdict,
};
use hearth_protocol::household::{Address, NodeId};
use proptest::prelude::*;

const MODEL: &str = "qwen3:1.7b";
/// Some day, in Unix milliseconds.
const START: u64 = 1_760_000_000_000;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn peer(number: u8) -> Peer {
    Peer {
        node: node(number),
        name: format!("machine-{number}"),
        addresses: vec![Address::Http(([192, 0, 2, number], 8321).into())],
        membership: Membership::Member,
    }
}

fn here(hub: Hub) -> Here {
    Here {
        joined: true,
        removed: false,
        hub,
    }
}

fn unreachable_hub() -> Hub {
    Hub::Unreachable {
        address: Some(Address::Http(([192, 0, 2, 1], 8321).into())),
        since: START,
    }
}

/// What is wrong with a peer of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Killed,
    Frozen,
    Off,
    Firewalled,
    NoRoute,
    LargeDropped,
    OtherKey,
    OurKeyUnknown,
    ClockRefused,
    DateTellsClock,
    NotInItsRoster,
    RemovedThere,
    OtherProgram,
    EngineFailed,
    ModelMissing,
    ModelLoading,
    NoToken,
    TokenUnanswered,
}

impl Fault {
    /// What a probe sees, and how many milliseconds later.
    fn seen(self, layer: Layer) -> (Seen, u64) {
        let status = |status, code: &str| Seen::Status {
            status,
            code: Some(code.into()),
        };
        match self {
            Self::Killed => (Seen::Refused, 1),
            Self::Frozen => (Seen::Unanswered, 2_000),
            Self::Off | Self::Firewalled => (Seen::Unheard, 2_000),
            Self::NoRoute => (Seen::NoRoute, 1),
            Self::LargeDropped if layer == Layer::HttpLarge => (Seen::Unanswered, 2_000),
            Self::OtherKey => (Seen::WrongKey, 5),
            Self::OurKeyUnknown => (status(401, "signature_wrong"), 5),
            Self::ClockRefused => (status(401, "clock_skew"), 5),
            Self::DateTellsClock => (status(401, "signature_expired"), 5),
            Self::NotInItsRoster => (status(403, "not_in_roster"), 5),
            Self::RemovedThere => (status(403, "removed"), 5),
            Self::OtherProgram => (Seen::Garbled("no JSON".into()), 5),
            Self::NoToken if layer == Layer::Token => (Seen::NoToken, 10_000),
            Self::TokenUnanswered if layer == Layer::Token => (Seen::Unanswered, 3_000),
            _ => (Seen::Ok, 5),
        }
    }

    /// What the capabilities say of the model.
    fn model(self) -> Seen {
        match self {
            Self::EngineFailed => Seen::EngineFailed("libcuda.so.1 is missing".into()),
            Self::ModelMissing => Seen::ModelMissing,
            Self::ModelLoading => Seen::ModelLoading(Some(0.4)),
            _ => Seen::Ok,
        }
    }
}

/// A household of two peers, of which the second is always well, and a clock.
struct World {
    monitor: Monitor,
    now: u64,
    fault: Fault,
    model: Seen,
    heard: bool,
    probes: Vec<(u64, Probe)>,
    under_way: Vec<(u64, Probe, Seen)>,
}

impl World {
    fn new(fault: Fault) -> Self {
        let mut monitor = Monitor::new(Rhythm::default(), 7);
        monitor.here(here(Hub::Reached(START)));
        monitor.roster([peer(2), peer(3)]);
        Self {
            monitor,
            now: START,
            fault,
            model: Seen::Ok,
            heard: fault != Fault::Off,
            probes: Vec::new(),
            under_way: Vec::new(),
        }
    }

    fn set(&mut self, fault: Fault) {
        self.fault = fault;
        self.heard = fault != Fault::Off;
    }

    /// Lets so many milliseconds pass, in steps of 50.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 50;
            if self.now.is_multiple_of(5_000) {
                self.monitor.used(node(2), MODEL, self.now);
                if self.heard {
                    self.monitor.heard(node(2), self.now);
                }
            }
            let (over, under_way) = std::mem::take(&mut self.under_way)
                .into_iter()
                .partition(|(until, ..)| *until <= self.now);
            self.under_way = under_way;
            for (_, probe, seen) in over {
                self.end(&probe, seen);
            }
            for probe in self.monitor.due(self.now) {
                let (seen, takes) = if probe.peer == node(2) {
                    self.fault.seen(probe.layer)
                } else {
                    (Seen::Ok, 5)
                };
                self.probes.push((self.now, probe.clone()));
                self.under_way.push((self.now + takes, probe, seen));
            }
        }
    }

    fn end(&mut self, probe: &Probe, seen: Seen) {
        let mut observation = Observation::new(probe.layer, seen.clone(), self.now);
        observation.model.clone_from(&probe.model);
        observation.path = PeerPath::Direct;
        observation.milliseconds = Some(5.0);
        if self.fault == Fault::DateTellsClock && probe.peer == node(2) {
            observation.clock_ahead = Some(-600);
        }
        self.monitor.observe(probe.peer, &observation);
        if probe.layer == Layer::Capabilities && seen == Seen::Ok {
            let model = match self.fault {
                _ if probe.peer != node(2) => Seen::ModelIdle,
                Fault::None => self.model.clone(),
                fault => fault.model(),
            };
            let observation = Observation::new(Layer::Model, model, self.now).of_model(MODEL);
            self.monitor.observe(probe.peer, &observation);
        }
        self.monitor.finished(probe, self.now);
    }

    /// A request of somebody's is tried now.
    fn traffic(&mut self, layer: Layer) {
        let (seen, takes) = self.fault.seen(layer);
        self.pass(takes);
        let observation = Observation::new(layer, seen, self.now).of_model(MODEL);
        self.monitor.observe(node(2), &observation);
    }

    fn diagnosis(&self) -> Diagnosis {
        self.monitor
            .diagnosis(node(2), Some(MODEL), self.now)
            .unwrap()
    }

    fn health(&self) -> Health {
        self.monitor.health(node(2), Some(MODEL), self.now)
    }
}

/// A fault, its layer and code, milliseconds until it must be known, and whether a peer with it is bad.
type Row = (Fault, Layer, Code, u64, bool);

const FAULTS: &[Row] = &[
    (
        Fault::Killed,
        Layer::HttpSmall,
        Code::PeerProcessDown,
        7_000,
        true,
    ),
    (
        Fault::Frozen,
        Layer::HttpSmall,
        Code::PeerNotAnswering,
        12_000,
        true,
    ),
    (Fault::Off, Layer::Path, Code::NoPath, 12_000, true),
    (
        Fault::Firewalled,
        Layer::Path,
        Code::FirewallSuspected,
        17_000,
        true,
    ),
    (
        Fault::NoRoute,
        Layer::Path,
        Code::FirewallSuspected,
        13_000,
        true,
    ),
    (
        Fault::LargeDropped,
        Layer::HttpLarge,
        Code::MtuSuspected,
        370_000,
        true,
    ),
    (Fault::OtherKey, Layer::Path, Code::KeyMismatch, 7_000, true),
    (
        Fault::OurKeyUnknown,
        Layer::HttpSmall,
        Code::KeyMismatch,
        7_000,
        true,
    ),
    (
        Fault::ClockRefused,
        Layer::HttpSmall,
        Code::ClockSkew,
        7_000,
        true,
    ),
    (
        Fault::DateTellsClock,
        Layer::HttpSmall,
        Code::ClockSkew,
        7_000,
        true,
    ),
    (
        Fault::NotInItsRoster,
        Layer::Roster,
        Code::NotInRoster,
        7_000,
        true,
    ),
    (
        Fault::RemovedThere,
        Layer::Roster,
        Code::Removed,
        7_000,
        true,
    ),
    (
        Fault::OtherProgram,
        Layer::HttpSmall,
        Code::UnexpectedAnswer,
        8_000,
        true,
    ),
    (
        Fault::EngineFailed,
        Layer::Model,
        Code::RuntimeNotReady,
        37_000,
        true,
    ),
    (
        Fault::ModelMissing,
        Layer::Model,
        Code::ModelMissing,
        37_000,
        false,
    ),
    (
        Fault::ModelLoading,
        Layer::Model,
        Code::ModelLoading,
        37_000,
        false,
    ),
];

fn assert_broken(diagnosis: &Diagnosis, layer: Layer, code: Code, what: &str) {
    assert_eq!(
        (diagnosis.broken, diagnosis.code(), diagnosis.verdict),
        (Some(layer), Some(code), Verdict::Failed),
        "{what}: {diagnosis:#?}"
    );
    let check = diagnosis.check(layer).unwrap();
    assert!(check.fix.is_some(), "{what}: {check:?}");
}

#[test]
fn every_fault_after_a_good_time_gets_its_code_in_time_and_heals() {
    for (fault, layer, code, within, bad) in FAULTS {
        let mut world = World::new(Fault::None);
        world.pass(60_000);
        let well = world.diagnosis();
        assert_eq!(well.verdict, Verdict::Usable, "{well:#?}");
        assert!(well.checks.iter().all(|check| check.outcome == Outcome::Ok));
        assert_eq!(world.health(), Health::Good);
        world.set(*fault);
        world.pass(*within);
        assert_broken(&world.diagnosis(), *layer, *code, &format!("{fault:?}"));
        assert_eq!(world.health() == Health::Bad, *bad, "{fault:?}");
        // And it stays so.
        for _ in 0..20 {
            world.pass(7_770);
            assert_broken(
                &world.diagnosis(),
                *layer,
                *code,
                &format!("{fault:?}, later"),
            );
        }
        world.set(Fault::None);
        world.pass(45_000);
        assert_eq!(
            world.diagnosis().verdict,
            Verdict::Usable,
            "{fault:?} heals"
        );
        assert_eq!(world.health(), Health::Good, "{fault:?} heals");
    }
}

#[test]
fn every_fault_from_the_start_gets_its_code() {
    for (fault, layer, code, ..) in FAULTS {
        let mut world = World::new(*fault);
        world.pass(20_000);
        assert_broken(&world.diagnosis(), *layer, *code, &format!("{fault:?}"));
    }
}

#[test]
fn a_model_that_gives_no_token_is_found_by_those_who_ask_it() {
    for fault in [Fault::NoToken, Fault::TokenUnanswered] {
        let mut world = World::new(Fault::None);
        world.pass(60_000);
        world.set(fault);
        world.traffic(Layer::Token);
        assert_eq!(world.health(), Health::Good, "once is no time");
        world.traffic(Layer::Token);
        world.pass(2_000);
        assert_broken(
            &world.diagnosis(),
            Layer::Token,
            Code::TokenTimeout,
            "no token",
        );
        assert_eq!(world.health(), Health::Bad);
        let other = world.monitor.health(node(2), Some("another"), world.now);
        assert_eq!(other, Health::Good, "another model may well work");
        world.set(Fault::None);
        world.pass(40_000);
        assert_eq!(world.health(), Health::Good);
    }
}

#[test]
fn a_frozen_process_is_never_taken_for_a_path_that_drops_large_packets() {
    let mut world = World::new(Fault::None);
    world.pass(60_000);
    world.set(Fault::Frozen);
    world.traffic(Layer::HttpLarge);
    for _ in 0..100 {
        world.pass(500);
        let diagnosis = world.diagnosis();
        assert!(
            matches!(diagnosis.code(), None | Some(Code::PeerNotAnswering)),
            "{diagnosis:#?}"
        );
    }
    assert_eq!(world.diagnosis().code(), Some(Code::PeerNotAnswering));
}

#[test]
fn a_large_prompt_that_vanishes_finds_the_path_that_drops_it() {
    let mut world = World::new(Fault::None);
    world.pass(60_000);
    world.set(Fault::LargeDropped);
    // The prompt itself was large, so the token's request is what vanishes.
    let lost = Observation::new(Layer::Token, Seen::Unanswered, world.now).of_model(MODEL);
    world.monitor.observe(node(2), &lost);
    world.pass(8_000);
    assert_broken(
        &world.diagnosis(),
        Layer::HttpLarge,
        Code::MtuSuspected,
        "traffic",
    );
}

#[test]
fn one_lost_answer_changes_nothing() {
    let mut world = World::new(Fault::None);
    world.pass(60_000);
    for seen in [
        Seen::Unanswered,
        Seen::Unheard,
        Seen::Cut,
        Seen::Garbled("x".into()),
    ] {
        let lost = Observation::new(Layer::HttpSmall, seen, world.now);
        world.monitor.observe(node(2), &lost);
        assert_eq!(world.diagnosis().verdict, Verdict::Usable);
        assert_eq!(world.health(), Health::Good);
        world.pass(3_000);
    }
}

#[test]
fn what_is_worth_knowing_is_a_note_and_no_failure() {
    let mut world = World::new(Fault::None);
    world.pass(10_000);
    let mut relayed = Observation::new(Layer::HttpSmall, Seen::Ok, world.now);
    relayed.path = PeerPath::Relayed;
    relayed.milliseconds = Some(88.0);
    world.monitor.observe(node(2), &relayed);
    let idle = Observation::new(Layer::Model, Seen::ModelIdle, world.now).of_model("other");
    world.monitor.observe(node(2), &idle);
    let diagnosis = world
        .monitor
        .diagnosis(node(2), Some("other"), world.now)
        .unwrap();
    assert_eq!(diagnosis.verdict, Verdict::Usable, "{diagnosis:#?}");
    assert_eq!(diagnosis.path, PeerPath::Relayed);
    assert_eq!(diagnosis.round_trip_ms, Some(88.0));
    let note = |layer| {
        let check = diagnosis.check(layer).unwrap();
        (check.outcome, check.code)
    };
    assert_eq!(note(Layer::Path), (Outcome::Note, Some(Code::Relayed)));
    assert_eq!(
        note(Layer::Model),
        (Outcome::Note, Some(Code::ModelNotLoaded))
    );
    assert_eq!(note(Layer::Token).0, Outcome::Skipped);
}

#[test]
fn the_hub_away_takes_no_working_path_down() {
    let mut world = World::new(Fault::None);
    world.pass(60_000);
    world.monitor.here(here(unreachable_hub()));
    world.pass(300_000);
    let diagnosis = world.diagnosis();
    let hub = diagnosis.check(Layer::Hub).unwrap();
    assert_eq!(
        (hub.outcome, hub.code),
        (Outcome::Failed, Some(Code::HubUnreachable))
    );
    assert!(hub.words.contains("192.0.2.1") && hub.fix.is_some());
    assert_eq!(
        (diagnosis.verdict, diagnosis.broken),
        (Verdict::Usable, None)
    );
    assert_eq!(world.health(), Health::Good);
    assert!(
        diagnosis.checks[2..]
            .iter()
            .all(|check| check.outcome == Outcome::Ok)
    );
}

#[test]
fn a_hub_that_is_away_for_more_than_a_day_may_be_gone_for_good() {
    let mut world = World::new(Fault::None);
    world.monitor.here(here(unreachable_hub()));
    let fix = |world: &World| {
        let diagnosis = world.diagnosis();
        diagnosis.check(Layer::Hub).unwrap().fix.clone().unwrap()
    };
    world.now = START + 24 * 3_600_000;
    assert!(!fix(&world).contains("hearth leave"), "{}", fix(&world));
    world.now += 1_000;
    let gone = fix(&world);
    let after = gone.split_once("`hearth leave`").unwrap().1;
    assert!(after.contains("`hearth invite`"), "{gone}");
}

#[test]
fn a_machine_whose_node_never_ran_is_told_from_one_that_is_away() {
    let mut world = World::new(Fault::NoRoute);
    world.heard = false;
    let unseen = Peer {
        addresses: Vec::new(),
        ..peer(2)
    };
    world.monitor.roster([unseen, peer(3)]);
    world.pass(60_000);
    let diagnosis = world.diagnosis();
    let path = diagnosis.check(Layer::Path).unwrap();
    assert_eq!(
        (diagnosis.broken, path.code),
        (Some(Layer::Path), Some(Code::NoPath))
    );
    assert!(
        path.words.contains("never seen since it joined"),
        "{path:?}"
    );
    assert!(
        path.fix.as_ref().unwrap().contains("`hearth serve`"),
        "{path:?}"
    );
}

#[test]
fn who_is_no_member_is_told_so_and_never_probed() {
    let mut world = World::new(Fault::None);
    world.pass(10_000);
    let removed = Peer {
        membership: Membership::Removed,
        ..peer(2)
    };
    world.monitor.roster([removed, peer(3)]);
    world.probes.clear();
    world.pass(60_000);
    assert_broken(&world.diagnosis(), Layer::Roster, Code::Removed, "removed");
    assert_eq!(world.health(), Health::Bad);
    assert!(world.probes.iter().all(|(_, probe)| probe.peer != node(2)));
    world.monitor.here(Here {
        joined: false,
        removed: false,
        hub: Hub::NotAsked,
    });
    assert_broken(
        &world.diagnosis(),
        Layer::Process,
        Code::NoHousehold,
        "alone",
    );
}

#[test]
fn when_everybody_looks_ill_nobody_is_left_out_but_those_who_must_be() {
    let mut world = World::new(Fault::None);
    world.pass(10_000);
    let bad = Observation::new(Layer::HttpSmall, Seen::Refused, world.now);
    world.monitor.observe(node(2), &bad);
    assert_eq!(world.health(), Health::Bad);
    world.monitor.observe(node(3), &bad);
    assert_eq!(world.health(), Health::LastResort);
    let other = Observation::new(Layer::HttpSmall, Seen::WrongKey, world.now);
    world.monitor.observe(node(3), &other);
    let health = world.monitor.health(node(3), Some(MODEL), world.now);
    assert_eq!(health, Health::Bad, "another machine than it should be");
}

#[test]
fn traffic_that_works_needs_no_probes_and_tokens_are_asked_for_seldom() {
    let mut world = World::new(Fault::None);
    world.pass(60_000);
    world.probes.clear();
    for _ in 0..600 {
        world.traffic(Layer::Token);
        world.pass(1_000);
    }
    let of = |world: &World, layer| {
        let probes = world.probes.iter();
        probes
            .filter(|(_, probe)| probe.peer == node(2) && probe.layer == layer)
            .count()
    };
    assert_eq!(of(&world, Layer::HttpSmall), 0);
    assert_eq!(of(&world, Layer::Token), 0);
    world.probes.clear();
    world.pass(3_600_000);
    assert!(
        (3..=5).contains(&of(&world, Layer::Token)),
        "{}",
        of(&world, Layer::Token)
    );
    assert!(of(&world, Layer::HttpSmall) < 1_000);
    // Of a model that is not loaded none.
    world.model = Seen::ModelIdle;
    world.pass(60_000);
    world.probes.clear();
    world.pass(3_600_000);
    assert_eq!(of(&world, Layer::Token), 0);
}

#[test]
fn who_asks_gets_a_new_look_and_not_one_for_each_question() {
    let mut world = World::new(Fault::None);
    world.pass(60_000);
    world.probes.clear();
    for _ in 0..50 {
        world.monitor.refresh(node(2), Some(MODEL), world.now);
        world.pass(20);
    }
    let looked: Vec<Layer> = world.probes.iter().map(|(_, probe)| probe.layer).collect();
    assert!(looked.contains(&Layer::HttpLarge) && looked.contains(&Layer::Token));
    assert!(looked.len() <= 8, "{looked:?}");
}

#[test]
fn every_code_has_its_words_and_its_fix() {
    let address = Address::Http(([192, 0, 2, 7], 8321).into());
    for code in Code::ALL {
        for there in [false, true] {
            let (words, fix) = words(
                code,
                &Subject {
                    name: "attic",
                    address: Some(&address),
                    model: Some(MODEL),
                    detail: Some("and so on".into()),
                    there,
                },
            );
            assert!(words.ends_with("(and so on)"), "{code}: {words}");
            let about = fix.is_none() || fix.as_ref().is_some_and(|fix| !fix.is_empty());
            assert!(about && !words.contains("{"), "{code}: {words}");
            let note = [Code::ModelNotLoaded, Code::Busy].contains(&code);
            assert_eq!(fix.is_none(), note, "{code}");
        }
    }
}

fn seen() -> impl Strategy<Value = Seen> {
    let status = (
        prop::sample::select(vec![400u16, 401, 403, 404, 429, 500, 503]),
        prop::option::of(prop::sample::select(vec![
            "clock_skew",
            "removed",
            "not_in_roster",
            "key_mismatch",
            "model_loading",
            "model_not_found",
            "replayed",
        ])),
    );
    prop_oneof![
        Just(Seen::Ok),
        Just(Seen::Ok),
        Just(Seen::Refused),
        Just(Seen::Unheard),
        Just(Seen::NoRoute),
        Just(Seen::WrongKey),
        Just(Seen::Unanswered),
        Just(Seen::Cut),
        Just(Seen::Garbled("what".into())),
        Just(Seen::ModelMissing),
        Just(Seen::ModelIdle),
        Just(Seen::ModelLoading(Some(f32::NAN))),
        Just(Seen::Busy),
        Just(Seen::EngineFailed("why".into())),
        Just(Seen::NoToken),
        status.prop_map(|(status, code)| Seen::Status {
            status,
            code: code.map(str::to_owned),
        }),
    ]
}

prop_compose! {
    fn observation()(
        layer in prop::sample::select(Layer::ALL.to_vec()),
        seen in seen(),
        at in prop_oneof![START..START + 100_000, any::<u64>()],
        relayed in any::<bool>(),
        clock_ahead in prop::option::of(any::<i64>()),
    ) -> Observation {
        let mut observation = Observation::new(layer, seen, at).of_model(MODEL);
        observation.path = if relayed { PeerPath::Relayed } else { PeerPath::Direct };
        observation.clock_ahead = clock_ahead;
        observation
    }
}

/// Every layer once and in order; the first that stops a prompt is named with its code and fix, and all after it are skipped
/// for its sake.
fn well_formed(diagnosis: &Diagnosis) -> Result<(), TestCaseError> {
    let layers: Vec<Layer> = diagnosis.checks.iter().map(|check| check.layer).collect();
    prop_assert_eq!(layers, Layer::ALL.to_vec());
    let stops = |check: &&Check| check.outcome == Outcome::Failed && check.layer != Layer::Hub;
    let first = diagnosis.checks.iter().find(stops);
    prop_assert_eq!(diagnosis.broken, first.map(|check| check.layer));
    prop_assert_eq!(diagnosis.verdict == Verdict::Failed, first.is_some());
    for check in &diagnosis.checks {
        prop_assert!(!check.words.is_empty());
        let told = matches!(check.outcome, Outcome::Failed | Outcome::Note);
        prop_assert_eq!(told, check.code.is_some());
        prop_assert!(check.outcome != Outcome::Failed || check.fix.is_some());
        if let Some(first) = first
            && check.layer > first.layer
        {
            prop_assert_eq!(check.outcome, Outcome::Skipped);
            prop_assert!(check.words.contains(first.layer.words()));
        }
    }
    Ok(())
}

proptest! {
    /// Whatever was seen and whenever, with clocks that jump: the diagnosis is well formed, and the hub's state changes
    /// neither its verdict nor the layer it names.
    #[test]
    fn the_first_layer_that_fails_is_named_and_all_after_it_are_skipped(
        observations in prop::collection::vec(observation(), 0..40),
        heard in prop::option::of(any::<u64>()),
        now in prop_oneof![START..START + 200_000, any::<u64>()],
    ) {
        let mut monitor = Monitor::new(Rhythm::default(), 1);
        monitor.roster([peer(2)]);
        monitor.here(here(Hub::Reached(START)));
        for observation in &observations {
            monitor.observe(node(2), observation);
        }
        if let Some(heard) = heard {
            monitor.heard(node(2), heard);
        }
        let with = monitor.diagnosis(node(2), Some(MODEL), now).unwrap();
        well_formed(&with)?;
        well_formed(&monitor.diagnosis(node(2), None, now).unwrap())?;
        monitor.here(here(unreachable_hub()));
        let without = monitor.diagnosis(node(2), Some(MODEL), now).unwrap();
        well_formed(&without)?;
        prop_assert_eq!((with.verdict, with.broken), (without.verdict, without.broken));
        let never = |observation: &Observation| {
            matches!(observation.seen, Seen::WrongKey | Seen::Status { .. })
        };
        if !observations.iter().any(never) {
            // Alone and ill, it is a last resort.
            prop_assert_ne!(monitor.health(node(2), Some(MODEL), now), Health::Bad);
        }
    }

    /// Whatever is seen and however the clock jumps, probes keep their bounds, and no peer is forgotten.
    #[test]
    fn probes_are_few_and_come_again(
        events in prop::collection::vec((2u8..9, observation(), 0u64..20_000, any::<bool>()), 1..50),
        jump in any::<u64>(),
    ) {
        let rhythm = Rhythm::default();
        let mut monitor = Monitor::new(rhythm, 3);
        monitor.roster((2..9).map(peer));
        monitor.here(here(Hub::Here));
        let mut now = START;
        let mut under_way: Vec<(Probe, u64)> = Vec::new();
        for (index, (number, observation, pause, ends)) in events.iter().enumerate() {
            now = if index == events.len() / 2 { jump / 2 } else { now + pause };
            under_way.retain(|(_, since)| *since <= now && now - since < rhythm.lost);
            if *ends && let Some((probe, _)) = under_way.pop() {
                let seen = Observation { at: now, layer: probe.layer, ..observation.clone() };
                monitor.observe(probe.peer, &seen);
                monitor.finished(&probe, now);
            } else {
                monitor.observe(node(*number), &Observation { at: now, ..observation.clone() });
            }
            for probe in monitor.due(now) {
                prop_assert!(under_way.iter().all(|(other, _)| other.peer != probe.peer));
                under_way.push((probe, now));
            }
            prop_assert!(under_way.len() <= rhythm.at_once);
            prop_assert!((10..=1_000).contains(&monitor.rest(now)));
        }
        for (probe, _) in under_way {
            monitor.finished(&probe, now);
        }
        now += rhythm.small + rhythm.small / 5 + rhythm.again_at_most;
        let mut probed = std::collections::BTreeSet::new();
        for _ in 0..7 {
            for probe in monitor.due(now) {
                probed.insert(probe.peer);
                let seen = Observation::new(probe.layer, Seen::Refused, now);
                monitor.observe(probe.peer, &seen);
                monitor.finished(&probe, now);
            }
        }
        prop_assert_eq!(probed.len(), 7);
    }
}
