//! What a follower does, step by step.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hearth_fanout::sse::Message;
use hearth_fanout::{Error, Follower, Next, Received, SILENCE, Trouble};
use hearth_protocol::event::{Cursor, Reason, Refusal, Snapshot, StateEvent};
use proptest::prelude::*;

fn at(offset: u64) -> Cursor {
    Cursor { epoch: 7, offset }
}

fn event(cursor: Cursor) -> Message {
    message(
        &cursor.to_string(),
        "member",
        r#"{"kind":"member","record":{"text":"{}","signature":""}}"#,
    )
}

fn message(id: &str, kind: &str, data: &str) -> Message {
    Message {
        id: id.to_owned(),
        kind: kind.to_owned(),
        data: data.to_owned(),
    }
}

fn refusal(reason: Reason, leads: bool) -> Refusal {
    Refusal {
        reason,
        begin: at(10),
        end: at(20),
        leads,
    }
}

fn snapshot(cursor: Cursor) -> Snapshot {
    Snapshot {
        cursor,
        state: Vec::new(),
    }
}

/// One with an open stream after `cursor`.
fn reading(cursor: Cursor, now: Instant) -> Follower {
    let mut follower = Follower::new(cursor, 1);
    assert_eq!(follower.next(now), Next::Connect(cursor));
    follower.connected(now);
    follower
}

fn waits(follower: &mut Follower, now: Instant) -> Duration {
    match follower.next(now) {
        Next::Wait(wait) => wait,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_are_taken_in_their_order_and_once() {
    let now = Instant::now();
    let mut follower = reading(at(3), now);
    for known in [1, 3] {
        assert_eq!(follower.received(now, &event(at(known))), Received::Known);
    }
    for offset in [4, 5] {
        let Received::Apply(entry) = follower.received(now, &event(at(offset))) else {
            panic!("{follower:?}");
        };
        assert_eq!(entry.cursor, at(offset));
    }
    // Given out is not stored; what was not stored is asked for again.
    assert_eq!(follower.cursor(), at(3));
    follower.stored(at(4));
    follower.failed(now, "the disk is full");
    let wait = waits(&mut follower, now);
    assert_eq!(follower.next(now + wait), Next::Connect(at(4)));
    follower.connected(now);
    assert!(matches!(
        follower.received(now, &event(at(5))),
        Received::Apply(_)
    ));

    // The epoch changes where a hub was started again.
    let next = Cursor {
        epoch: 8,
        offset: 6,
    };
    assert!(matches!(
        follower.received(now, &event(next)),
        Received::Apply(_)
    ));
    follower.stored(next);
    assert_eq!((follower.cursor(), follower.trouble()), (next, None));
}

#[test]
fn a_gap_is_never_applied() {
    let now = Instant::now();
    let other_history = Cursor {
        epoch: 9,
        offset: 3,
    };
    for wrong in [at(5), other_history] {
        let mut follower = reading(at(3), now);
        assert_eq!(follower.received(now, &event(wrong)), Received::Close);
        assert_eq!(follower.trouble(), Some(&Trouble::Gap(wrong)));
        assert_eq!(follower.received(now, &event(at(4))), Received::Close);
        let wait = waits(&mut follower, now);
        let now = now + wait;
        assert_eq!(follower.next(now), Next::Fetch);
        assert!(follower.fetched(now, &snapshot(at(9))));
        follower.replaced(at(9));
        assert_eq!(follower.next(now), Next::Connect(at(9)));
    }
}

#[test]
fn who_is_refused_takes_a_snapshot() {
    let now = Instant::now();
    for reason in [Reason::Behind, Reason::OtherEpoch, Reason::Ahead] {
        for in_the_stream in [true, false] {
            let mut follower = reading(at(3), now);
            let refusal = refusal(reason, true);
            if in_the_stream {
                let told = serde_json::to_string(&refusal).unwrap();
                let told = message("", "resync", &told);
                assert_eq!(follower.received(now, &told), Received::Close);
            } else {
                follower.refused(now, refusal);
            }
            assert_eq!(follower.trouble(), Some(&Trouble::Refused(refusal)));
            assert_eq!(follower.next(now), Next::Fetch);
            // Back only if the hub said that this is none of its history.
            let older = follower.fetched(now, &snapshot(at(2)));
            assert_eq!(older, reason != Reason::Behind);
        }
    }
}

#[test]
fn a_snapshot_that_is_refused_in_turn_is_not_fetched_in_a_circle() {
    let now = Instant::now();
    let mut follower = Follower::new(at(3), 1);
    follower.refused(now, refusal(Reason::Ahead, true));
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        if let Next::Wait(wait) = follower.next(now + waited) {
            waited += wait;
        }
        assert_eq!(follower.next(now + waited), Next::Fetch);
        assert!(follower.fetched(now + waited, &snapshot(at(1))));
        follower.replaced(at(1));
        assert_eq!(follower.next(now + waited), Next::Connect(at(1)));
        follower.connected(now + waited);
        follower.refused(now + waited, refusal(Reason::Ahead, true));
    }
    assert!(waited > Duration::from_secs(100), "{waited:?}");
}

#[test]
fn one_that_lags_takes_nobody_back() {
    let now = Instant::now();
    for reason in [Reason::OtherEpoch, Reason::Ahead] {
        let mut follower = Follower::new(at(30), 1);
        follower.refused(now, refusal(reason, false));
        let wait = waits(&mut follower, now);
        assert_eq!(follower.next(now + wait), Next::Connect(at(30)));
    }
    // Who is behind it goes on from it, but not to something older.
    let mut follower = Follower::new(at(3), 1);
    follower.refused(now, refusal(Reason::Behind, false));
    assert!(follower.fetched(now, &snapshot(at(15))));
}

#[test]
fn what_cannot_be_read_stops_it_and_is_said() {
    let now = Instant::now();
    let newer = message(&at(4).to_string(), "ban", r#"{"kind":"ban"}"#);
    let mut follower = reading(at(3), now);
    assert_eq!(follower.received(now, &newer), Received::Close);
    let said = follower.trouble().unwrap().to_string();
    assert!(
        said.contains("`ban`") && said.contains("update Hearth"),
        "{said}"
    );
    assert_eq!(follower.cursor(), at(3));
    // It looks again after minutes, from before the event.
    let wait = waits(&mut follower, now);
    assert!(wait >= Duration::from_secs(150) && wait <= Duration::from_secs(300));
    assert_eq!(follower.next(now + wait), Next::Connect(at(3)));

    let mut follower = reading(at(3), now);
    assert!(matches!(
        follower.received(now, &event(at(4))),
        Received::Apply(_)
    ));
    follower.rejected(now, &Error::ShuttingDown);
    assert!(matches!(follower.trouble(), Some(Trouble::Stopped(_))));
    assert_eq!(follower.cursor(), at(3));
}

#[test]
fn a_silent_stream_is_dead() {
    let now = Instant::now();
    let mut follower = reading(at(3), now);
    assert_eq!(follower.next(now), Next::Read(SILENCE));
    let half = SILENCE / 2;
    assert_eq!(follower.next(now + half), Next::Read(SILENCE - half));
    follower.heard(now + half);
    assert_eq!(follower.next(now + SILENCE), Next::Read(half));
    let late = now + half + SILENCE;
    let wait = waits(&mut follower, late);
    let said = follower.trouble().unwrap().to_string();
    assert!(said.contains("silent"), "{said}");
    assert_eq!(follower.next(late + wait), Next::Connect(at(3)));
    // A clock that stands still or goes back does no harm.
    let mut follower = reading(at(3), late);
    assert_eq!(follower.next(now), Next::Read(SILENCE));
}

#[test]
fn messages_without_sense_end_the_stream() {
    let now = Instant::now();
    for wrong in [
        message("", "member", "{}"),
        message("42", "member", "{}"),
        message("", "resync", "{}"),
        message("", "cut", "too slow"),
    ] {
        let mut follower = reading(at(3), now);
        assert_eq!(follower.received(now, &wrong), Received::Close);
        let wait = waits(&mut follower, now);
        assert_eq!(follower.next(now + wait), Next::Connect(at(3)));
    }
}

#[test]
fn a_hub_that_is_heard_of_is_asked_at_once() {
    let (mut follower, mut now) = (Follower::new(Cursor::default(), 7), Instant::now());
    for _ in 0..10 {
        assert!(matches!(follower.next(now), Next::Connect(_)));
        follower.failed(now, "nobody listens there");
        now += waits(&mut follower, now);
    }
    follower.failed(now, "nobody listens there");
    assert!(matches!(follower.next(now), Next::Wait(_)));
    follower.seen();
    assert!(matches!(follower.next(now), Next::Connect(_)));
    // Not so one that stopped: what it cannot read does not change by that.
    follower.connected(now);
    follower.seen();
    assert!(matches!(follower.next(now), Next::Read(_)));
    let unreadable = StateEvent::parse("{}").unwrap_err();
    follower.unreadable(now, &unreadable);
    follower.seen();
    assert!(matches!(follower.next(now), Next::Wait(_)));
}

/// All lose the hub at once; nobody may come back at the same moment as most others.
#[test]
fn reconnects_are_spread() {
    let now = Instant::now();
    let lost = |retry: Option<Duration>| {
        let mut waits: Vec<Duration> = (0..1_000)
            .map(|seed| {
                let mut follower = Follower::new(at(3), seed);
                follower.connected(now);
                if let Some(retry) = retry {
                    follower.retry(retry);
                }
                follower.failed(now, "reset");
                match follower.next(now) {
                    Next::Wait(wait) => wait,
                    _ => Duration::ZERO,
                }
            })
            .collect();
        waits.sort();
        waits
    };
    for (retry, longest) in [
        (None, 1_000),
        (Some(Duration::from_secs(10)), 10_000),
        (Some(Duration::ZERO), 100),
        (Some(Duration::from_secs(9_999)), 60_000),
    ] {
        let waits = lost(retry);
        let tenth = Duration::from_millis(longest / 10);
        assert!(waits[999] <= tenth * 10);
        for at in 0..10 {
            let part = waits
                .iter()
                .filter(|wait| (tenth * at..tenth * (at + 1)).contains(wait));
            assert!((50..200).contains(&part.count()), "{retry:?} {at}");
        }
    }
}

proptest! {
    /// However often it fails, it comes back, and not too seldom.
    #[test]
    fn it_never_gives_up(seed: u64, failures in 1usize..80) {
        let mut now = Instant::now();
        let mut follower = Follower::new(at(3), seed);
        for _ in 0..failures {
            follower.failed(now, "refused");
            if let Next::Wait(wait) = follower.next(now) {
                prop_assert!(wait <= Duration::from_secs(60));
                now += wait;
            }
            prop_assert_eq!(follower.next(now), Next::Connect(at(3)));
        }
        // One event is enough to begin anew.
        follower.connected(now);
        follower.stored(at(4));
        follower.failed(now, "reset");
        let next = follower.next(now);
        prop_assert!(!matches!(next, Next::Wait(wait) if wait > Duration::from_secs(1)));
    }
}
