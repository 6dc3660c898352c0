//! What holds of a log, whatever keeps it. Every case runs on memory, SQLite and PostgreSQL.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use hearth_fanout::{
    Bounds, Cut, EVENT_LIMIT, Entry, Error, Frame, Log, Memory, Options, Storage, Subscription, sse,
};
use hearth_protocol::event::{Cursor, Reason, Refusal, StateEvent};
use hearth_protocol::household::{NodeId, Sealed};
use hearth_store::{Postgres, Store};

/// Where the storages of a run come from.
enum Kind<'a> {
    Memory,
    Sqlite,
    File(&'a tempfile::TempDir),
    Postgres(&'a hearth_testkit::postgres::Postgres),
}

impl Kind<'_> {
    async fn storage(&self) -> Storage {
        match self {
            Self::Memory => Memory::default().into(),
            Self::Sqlite => Store::in_memory(&[hearth_fanout::SQLITE_TABLES])
                .unwrap()
                .into(),
            Self::File(folder) => {
                static NUMBER: AtomicU32 = AtomicU32::new(0);
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let file = folder.path().join(format!("{number}.db"));
                Store::open(&file, &[hearth_fanout::SQLITE_TABLES])
                    .unwrap()
                    .into()
            }
            Self::Postgres(cluster) => {
                let url = cluster.database();
                let tables = [hearth_fanout::POSTGRES_TABLES];
                Postgres::open(&url, &tables).await.unwrap().into()
            }
        }
    }

    async fn hub(&self) -> (Storage, Log) {
        let storage = self.storage().await;
        let log = lead(&storage, SMALL).await;
        (storage, log)
    }
}

/// A ring and a window that tests can fill.
const SMALL: Options = Options {
    ring: 10,
    window: 4,
    poll: Duration::from_millis(20),
};

async fn lead(storage: &Storage, options: Options) -> Log {
    Log::lead(storage.clone(), options).await.unwrap()
}

async fn follow(storage: &Storage, options: Options) -> Log {
    Log::follow(storage.clone(), options).await.unwrap()
}

fn member(node: u8, version: u64) -> StateEvent {
    padded(node, version, 0)
}

fn padded(node: u8, version: u64, bytes: usize) -> StateEvent {
    let node = NodeId([node; 32]);
    let name = "x".repeat(bytes);
    let text = format!(r#"{{"node":"{node}","version":{version},"name":"{name}"}}"#);
    StateEvent::Member {
        record: Sealed {
            text,
            signature: "c2lnbmVk".to_owned(),
        },
    }
}

/// Version `version` of node 1, `count` times in one go.
async fn fill(log: &Log, versions: std::ops::RangeInclusive<u64>) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    for version in versions {
        cursors.push(log.append(&[member(1, version)]).await.unwrap());
    }
    cursors
}

fn entry(frame: &Frame) -> Entry {
    let mut parser = sse::Parser::default();
    parser.feed(&frame.bytes).unwrap();
    let Some(sse::Item::Message(message)) = parser.next() else {
        panic!("{frame:?}");
    };
    assert_eq!(message.id, frame.cursor.to_string());
    let event = StateEvent::parse(&message.data).unwrap();
    assert_eq!(message.kind, event.kind());
    Entry {
        cursor: frame.cursor,
        event,
    }
}

/// What a subscription has now, from the table or from memory.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(entry(&subscription.next().await.unwrap()));
    }
    assert!(subscription.next().now_or_never().is_none());
    entries
}

async fn refusal(log: &Log, cursor: Cursor) -> Refusal {
    match log.subscribe(Some(cursor)).await {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn versions(log: &Log) -> Vec<(String, u64)> {
    let said = |event: StateEvent| {
        let StateEvent::Member { record } = event;
        let said: serde_json::Value = serde_json::from_str(&record.text).unwrap();
        (
            said["node"].as_str().unwrap()[..2].to_owned(),
            said["version"].as_u64().unwrap(),
        )
    };
    let snapshot = log.snapshot().await.unwrap();
    let mut versions: Vec<_> = snapshot.state.into_iter().map(said).collect();
    versions.sort();
    versions
}

async fn an_empty_log(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    assert_eq!(log.bounds().await.unwrap(), Bounds::default());
    assert_eq!(log.snapshot().await.unwrap(), Default::default());
    for start in [None, Some(Cursor::START)] {
        let mut subscription = log.subscribe(start).await.unwrap();
        assert!(subscription.next().now_or_never().is_none());
    }
    let stranger = Cursor {
        epoch: 7,
        offset: 3,
    };
    assert_eq!(refusal(&log, stranger).await.reason, Reason::Ahead);
}

async fn offsets_count_and_the_newest_word_stays(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    let first = log.append(&[member(1, 1)]).await.unwrap();
    assert_ne!(first.epoch, 0);
    assert_eq!(first.offset, 1);
    let last = log.append(&[member(2, 1), member(1, 5)]).await.unwrap();
    assert_eq!((last.epoch, last.offset), (first.epoch, 3));
    assert_eq!(versions(&log).await, [("01".into(), 5), ("02".into(), 1)]);

    // As old a word is refused, and takes with it what came in the same transaction.
    for stale in [&[member(1, 5)][..], &[member(3, 1), member(1, 4)]] {
        let error = log.append(stale).await.unwrap_err();
        assert!(matches!(error, Error::Stale { .. }), "{error}");
    }
    assert_eq!(log.bounds().await.unwrap().end, last);
    assert_eq!(versions(&log).await, [("01".into(), 5), ("02".into(), 1)]);
    let (cursor, json) = log.snapshot_json().await.unwrap();
    assert_eq!(cursor, last);
    let snapshot = hearth_protocol::event::Snapshot::parse(&json).unwrap();
    assert_eq!(snapshot, log.snapshot().await.unwrap());
    let next = log.append(&[member(3, 1)]).await.unwrap();
    assert_eq!(log.snapshot_json().await.unwrap().0, next);
}

async fn events_without_sense_are_refused(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    let text = |text: &str| StateEvent::Member {
        record: Sealed {
            text: text.to_owned(),
            signature: String::new(),
        },
    };
    for nonsense in [
        text(""),
        text("{}"),
        text(r#"{"node":"12","version":1}"#),
        member(1, 0),
        member(1, u64::MAX),
    ] {
        let error = log.append(&[nonsense]).await.unwrap_err();
        assert!(matches!(error, Error::Unusable { .. }), "{error}");
    }
    let error = log.append(&[padded(1, 1, EVENT_LIMIT)]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(log.bounds().await.unwrap(), Bounds::default());
}

async fn replay_goes_over_into_live(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    let mut cursors = vec![Cursor::START];
    cursors.extend(fill(&log, 1..=8).await);
    let mut subscriptions = Vec::new();
    for cursor in &cursors {
        subscriptions.push(log.subscribe(Some(*cursor)).await.unwrap());
    }
    let mut from_now = log.subscribe(None).await.unwrap();
    assert_eq!(from_now.cursor(), cursors[8]);
    cursors.extend(fill(&log, 9..=10).await);
    for (at, subscription) in subscriptions.iter_mut().enumerate() {
        assert_eq!(subscription.cursor(), cursors[at]);
        let entries = take(subscription, 10 - at).await;
        for (entry, version) in entries.iter().zip(at as u64 + 1..) {
            assert_eq!(entry.cursor, cursors[version as usize]);
            assert_eq!(entry.event, member(1, version));
        }
    }
    assert_eq!(take(&mut from_now, 2).await.len(), 2);
}

async fn only_the_ring_is_kept(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    let cursors = fill(&log, 1..=25).await;
    let bounds = Bounds {
        begin: cursors[14],
        end: cursors[24],
    };
    assert_eq!(log.bounds().await.unwrap(), bounds);
    let behind = Refusal {
        reason: Reason::Behind,
        begin: bounds.begin,
        end: bounds.end,
        leads: true,
    };
    assert_eq!(refusal(&log, cursors[13]).await, behind);
    assert_eq!(refusal(&log, Cursor::START).await, behind);
    let mut oldest = log.subscribe(Some(cursors[14])).await.unwrap();
    assert_eq!(take(&mut oldest, 10).await[0].cursor, cursors[15]);
    // One transaction with more than the ring.
    let many: Vec<StateEvent> = (26..=60).map(|version| member(1, version)).collect();
    let end = log.append(&many).await.unwrap();
    assert_eq!(end.offset, 60);
    assert_eq!(log.bounds().await.unwrap().begin.offset, 50);
}

async fn a_cursor_is_an_event_and_not_a_number(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    let cursors = fill(&log, 1..=12).await;
    // At the beginning, in the table, in the window, at the end.
    for offset in [2, 4, 11, 12] {
        let other = Cursor {
            epoch: cursors[0].epoch ^ 1,
            offset,
        };
        assert_eq!(refusal(&log, other).await.reason, Reason::OtherEpoch);
    }
    let ahead = Cursor {
        offset: 13,
        ..cursors[11]
    };
    assert_eq!(refusal(&log, ahead).await.reason, Reason::Ahead);
}

async fn a_restart_goes_on_in_an_epoch_of_its_own(kind: &Kind<'_>) {
    let (storage, log) = kind.hub().await;
    let before = fill(&log, 1..=3).await;
    drop(log);
    let log = lead(&storage, SMALL).await;
    let after = fill(&log, 4..=5).await;
    assert_ne!(after[0].epoch, before[0].epoch);
    assert_eq!((after[0].offset, after[1].epoch), (4, after[0].epoch));
    let mut subscription = log.subscribe(Some(before[0])).await.unwrap();
    let entries = take(&mut subscription, 4).await;
    assert_eq!(entries[1].cursor, before[2]);
    assert_eq!(entries[2].cursor, after[0]);
}

/// The subscriber's offset is below the end again when it comes back, and still it is told.
async fn an_old_copy_that_went_on_is_another_log(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    let before = fill(&log, 1..=5).await;
    let mut subscription = log.subscribe(Some(Cursor::START)).await.unwrap();
    let entries = take(&mut subscription, 5).await;
    let copy = kind.storage().await;
    follow(&copy, SMALL)
        .await
        .extend(&entries[..3])
        .await
        .unwrap();

    let restored = lead(&copy, SMALL).await;
    assert_eq!(refusal(&restored, before[4]).await.reason, Reason::Ahead);
    fill(&restored, 4..=9).await;
    let told = refusal(&restored, before[4]).await;
    assert_eq!((told.reason, told.leads), (Reason::OtherEpoch, true));
    assert!(restored.subscribe(Some(before[2])).await.is_ok());
}

async fn a_log_that_loses_its_end_while_it_is_open(kind: &Kind<'_>) {
    let (storage, log) = kind.hub().await;
    let cursors = fill(&log, 1..=2).await;
    let backup = log.snapshot().await.unwrap();
    let lost = fill(&log, 3..=4).await;
    let mut subscription = log.subscribe(Some(lost[1])).await.unwrap();
    assert!(subscription.next().now_or_never().is_none());

    follow(&storage, SMALL)
        .await
        .replace(&backup)
        .await
        .unwrap();
    let new = fill(&log, 3..=4).await;
    assert_eq!(new[0].offset, 3);
    assert_ne!(new[0].epoch, lost[0].epoch);
    let cut = subscription.next().await.unwrap_err();
    assert!(matches!(cut, Cut::Replaced), "{cut}");
    assert_eq!(refusal(&log, lost[0]).await.reason, Reason::OtherEpoch);
    let mut subscription = log.subscribe(Some(cursors[1])).await.unwrap();
    assert_eq!(take(&mut subscription, 2).await[1].cursor, new[1]);
}

async fn a_follower_keeps_the_hubs_cursors(kind: &Kind<'_>) {
    let (_, hub) = kind.hub().await;
    let cursors = fill(&hub, 1..=6).await;
    let mut upstream = hub.subscribe(Some(Cursor::START)).await.unwrap();
    let entries = take(&mut upstream, 6).await;

    let storage = kind.storage().await;
    let relay = follow(&storage, SMALL).await;
    let mut downstream = relay.subscribe(Some(Cursor::START)).await.unwrap();
    relay.extend(&entries[..2]).await.unwrap();
    relay.extend(&entries[2..4]).await.unwrap();
    for wrong in [&entries[3..4], &entries[5..6], &entries[..1]] {
        let error = relay.extend(wrong).await.unwrap_err();
        assert!(matches!(error, Error::Gap { wanted: 5, .. }), "{error}");
    }
    assert_eq!(take(&mut downstream, 4).await, entries[..4]);
    assert_eq!(relay.bounds().await.unwrap().end, cursors[3]);
    assert_eq!(versions(&relay).await, [("01".into(), 4)]);

    // Opened again, it goes on, and tells others that it may lag.
    let relay = follow(&storage, SMALL).await;
    let told = refusal(&relay, cursors[5]).await;
    assert_eq!((told.reason, told.leads), (Reason::Ahead, false));
    relay.extend(&entries[4..]).await.unwrap();
    assert_eq!(
        relay.snapshot().await.unwrap(),
        hub.snapshot().await.unwrap()
    );

    assert!(matches!(
        relay.append(&[member(9, 1)]).await,
        Err(Error::Follows)
    ));
    assert!(matches!(hub.extend(&entries[5..]).await, Err(Error::Leads)));
    let snapshot = hub.snapshot().await.unwrap();
    assert!(matches!(hub.replace(&snapshot).await, Err(Error::Leads)));
}

async fn a_snapshot_replaces_and_never_merges(kind: &Kind<'_>) {
    let (_, hub) = kind.hub().await;
    hub.append(&[member(2, 3), member(3, 1)]).await.unwrap();
    let storage = kind.storage().await;
    let relay = follow(&storage, SMALL).await;
    let mut subscription = relay.subscribe(None).await.unwrap();
    let stranger = Entry {
        cursor: Cursor {
            epoch: 9,
            offset: 1,
        },
        event: member(8, 8),
    };
    relay.extend(std::slice::from_ref(&stranger)).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, [stranger]);

    let snapshot = hub.snapshot().await.unwrap();
    relay.replace(&snapshot).await.unwrap();
    assert_eq!(versions(&relay).await, [("02".into(), 3), ("03".into(), 1)]);
    let bounds = Bounds {
        begin: snapshot.cursor,
        end: snapshot.cursor,
    };
    assert_eq!(relay.bounds().await.unwrap(), bounds);
    let cut = subscription.next().await.unwrap_err();
    assert!(matches!(cut, Cut::Replaced), "{cut}");
    assert!(relay.subscribe(Some(snapshot.cursor)).await.is_ok());

    // Deltas go on after it; an older word in one changes nothing, and its cursor counts.
    let next = hub.append(&[member(3, 2)]).await.unwrap();
    let entry = Entry {
        cursor: next,
        event: member(2, 1),
    };
    relay.extend(&[entry]).await.unwrap();
    assert_eq!(versions(&relay).await, [("02".into(), 3), ("03".into(), 1)]);
    assert_eq!(relay.bounds().await.unwrap().end, next);
    relay.replace(&Default::default()).await.unwrap();
    assert_eq!(relay.bounds().await.unwrap(), Bounds::default());
}

async fn who_is_slow_is_cut_and_catches_up(kind: &Kind<'_>) {
    let (_, log) = kind.hub().await;
    fill(&log, 1..=1).await;
    let mut slow = log.subscribe(None).await.unwrap();
    assert!(slow.next().now_or_never().is_none());
    fill(&log, 2..=5).await;
    assert_eq!(entry(&slow.next().await.unwrap()).event, member(1, 2));
    fill(&log, 6..=9).await;
    let cut = slow.next().await.unwrap_err();
    assert!(matches!(cut, Cut::Slow), "{cut}");
    let mut back = log.subscribe(Some(slow.cursor())).await.unwrap();
    let missed = take(&mut back, 7).await;
    assert_eq!(missed[0].event, member(1, 3));

    // Who falls out of the ring is told so.
    let mut slow = log.subscribe(Some(missed[0].cursor)).await.unwrap();
    fill(&log, 10..=30).await;
    let mut frames = 0;
    let cut = loop {
        match slow.next().await {
            Ok(_) => frames += 1,
            Err(cut) => break cut,
        }
    };
    assert!(frames <= 6, "{frames}");
    let told = sse::farewell(&cut);
    let Cut::Failed(Error::Refused(refusal)) = cut else {
        panic!("{cut}");
    };
    assert_eq!(refusal.reason, Reason::Behind);
    assert_eq!(told, sse::resync(&refusal));
}

async fn two_processes_write_one_log(kind: &Kind<'_>) {
    const EACH: u64 = 30;
    let storage = kind.storage().await;
    let options = Options::default();
    let logs = [
        lead(&storage, options.clone()).await,
        lead(&storage, options.clone()).await,
    ];
    let reader = lead(&storage, options).await;
    let mut subscription = reader.subscribe(Some(Cursor::START)).await.unwrap();
    let writing = logs.clone().map(|log| {
        tokio::spawn(async move {
            let mut mine = Vec::new();
            for version in 1..=EACH {
                let node = 1 + u8::from(!mine.is_empty() && version % 2 == 0);
                let event = member(node, version);
                match log.append(&[event]).await {
                    Ok(cursor) => mine.push(cursor),
                    Err(error) => assert!(matches!(error, Error::Stale { .. }), "{error}"),
                }
            }
            mine
        })
    });
    // What the reader sees is always without gap, also while others write.
    let reading = async {
        let mut cursors: Vec<Cursor> = Vec::new();
        loop {
            reader.refresh().await.unwrap();
            while let Some(frame) = subscription.next().now_or_never() {
                cursors.push(frame.unwrap().cursor);
            }
            let written = writing.iter().all(|task| task.is_finished());
            let end = reader.bounds().await.unwrap().end;
            if written && cursors.last() == Some(&end) {
                break cursors;
            }
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .unwrap();
    let mut written = Vec::new();
    for task in writing {
        written.extend(task.await.unwrap());
    }
    written.sort_by_key(|cursor| cursor.offset);
    assert_eq!(seen, written);
    for (cursor, offset) in seen.iter().zip(1..) {
        assert_eq!(cursor.offset, offset);
    }
    drop(logs);
}

async fn another_process_is_heard(kind: &Kind<'_>) {
    let (storage, log) = kind.hub().await;
    let other = lead(&storage, SMALL).await;
    let mut subscription = other.subscribe(None).await.unwrap();
    let mut watch = other.watch();
    let keeping = {
        let other = other.clone();
        tokio::spawn(async move { other.keep_up().await })
    };
    let cursor = log.append(&[member(1, 1)]).await.unwrap();
    assert_eq!(soon(subscription.next()).await.unwrap().cursor, cursor);
    soon(watch.wait_for(|end| *end == cursor)).await.unwrap();
    keeping.abort();
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, future).await.unwrap()
}

async fn all(kind: Kind<'_>) {
    macro_rules! run {
        ($($case:ident),+ $(,)?) => {
            $(
                eprintln!("{}", stringify!($case));
                $case(&kind).await;
            )+
        };
    }
    run!(
        an_empty_log,
        offsets_count_and_the_newest_word_stays,
        events_without_sense_are_refused,
        replay_goes_over_into_live,
        only_the_ring_is_kept,
        a_cursor_is_an_event_and_not_a_number,
        a_restart_goes_on_in_an_epoch_of_its_own,
        an_old_copy_that_went_on_is_another_log,
        a_log_that_loses_its_end_while_it_is_open,
        a_follower_keeps_the_hubs_cursors,
        a_snapshot_replaces_and_never_merges,
        who_is_slow_is_cut_and_catches_up,
        two_processes_write_one_log,
        another_process_is_heard,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    all(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_in_memory() {
    all(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    all(Kind::File(&folder)).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    let cluster = hearth_testkit::postgres::Postgres::start();
    all(Kind::Postgres(&cluster)).await;
}
