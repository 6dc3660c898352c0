//! A hub, a follower that is followed in turn, and followers of both, over a network that delays, cuts and partitions (and
//! now and then has a proxy that loses or repeats a message), while any of them crashes, clocks jump, and the hub is put back to old copies of itself. All of it follows from a seed.
//!
//! After every store and every restart, the state of a log must be the state that the hub had at exactly that cursor, and
//! every event must come after the one it came after at the hub: so nothing is applied twice, skipped, or out of order.
//! When the faults end, everybody must come to the hub's state.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hearth_fanout::{
    Cut, Entry, Error, Follower, Log, Memory, Next, Options, Received, Storage, Subscription, sse,
};
use hearth_protocol::event::{Cursor, Snapshot, StateEvent};
use hearth_protocol::household::{NodeId, Sealed};
use hearth_store::{Store, sqlite};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg32;

/// Steps with faults, and the most that it may take afterwards until everybody agrees.
const CHAOS: usize = 250;
const PEACE: usize = 40_000;
/// The hub and the one that is followed in turn.
const HUB: usize = 0;
const RELAY: usize = 1;
/// Things that events are about.
const THINGS: u8 = 5;
/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Version of each thing.
type State = BTreeMap<u8, u64>;

fn member(thing: u8, version: u64) -> StateEvent {
    let node = NodeId([thing; 32]);
    StateEvent::Member {
        record: Sealed {
            text: format!(r#"{{"node":"{node}","version":{version}}}"#),
            signature: String::new(),
        },
    }
}

fn said(event: &StateEvent) -> (u8, u64) {
    let StateEvent::Member { record } = event;
    let value: serde_json::Value = serde_json::from_str(&record.text).unwrap();
    let node: NodeId = value["node"].as_str().unwrap().parse().unwrap();
    (node.0[0], value["version"].as_u64().unwrap())
}

/// What the hub wrote under a cursor.
struct Written {
    after: Cursor,
    event: (u8, u64),
    /// The state with it.
    state: State,
}

/// What is on its way to a client.
enum Wire {
    /// The answer's head.
    Head,
    Bytes(Vec<u8>),
    Snapshot(Vec<u8>),
    End,
}

#[derive(PartialEq)]
enum Asked {
    Events(Cursor),
    Snapshot,
}

/// A client's connection; there is at most one.
struct Connection {
    server: usize,
    asked: Asked,
    since: Instant,
    /// Whether the server has seen the request.
    arrived: bool,
    subscription: Option<Subscription>,
    wire: VecDeque<Wire>,
    parser: sse::Parser,
    /// Bytes that fit on the way: a slow client has few.
    room: usize,
}

struct Node {
    storage: Storage,
    log: Log,
    /// The hub has none.
    follower: Option<Follower>,
    /// Where it connects.
    source: usize,
    connection: Option<Connection>,
    /// How far its clock has jumped.
    ahead: Duration,
    cut_off: bool,
}

/// A copy of what a storage holds.
enum Copy {
    Memory(Memory),
    Tables(Vec<Vec<Vec<sqlite::types::Value>>>),
}

/// Runs what only SQLite makes wait.
enum Runner {
    AtOnce,
    Tokio(tokio::runtime::Runtime),
}

impl Runner {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Self::AtOnce => future.now_or_never().expect("memory never waits"),
            Self::Tokio(runtime) => runtime.block_on(future),
        }
    }

    /// What it has to give without waiting.
    fn look<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let _inside = match self {
            Self::AtOnce => None,
            Self::Tokio(runtime) => Some(runtime.enter()),
        };
        future.now_or_never()
    }
}

struct World {
    random: Pcg32,
    runner: Runner,
    now: Instant,
    options: Options,
    nodes: Vec<Node>,
    /// Whether something may go wrong now.
    faults: bool,
    written: HashMap<Cursor, Written>,
    /// The hub's state, and an older one with its copy.
    truth: State,
    backup: (Copy, State),
    /// What came to pass, so that the tests know that they test something.
    tally: Tally,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    applied: u64,
    snapshots: u64,
    slow: u64,
    restored: u64,
    lagging: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.snapshots += other.snapshots;
        self.slow += other.slow;
        self.restored += other.restored;
        self.lagging += other.lagging;
    }
}

impl World {
    fn new(seed: u64, sqlite: bool) -> Self {
        let mut random = Pcg32::seed_from_u64(seed);
        let runner = if sqlite {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            Runner::Tokio(runtime.unwrap())
        } else {
            Runner::AtOnce
        };
        let options = Options {
            ring: random.random_range(1..40),
            window: random.random_range(1..12),
            poll: Duration::from_secs(1),
        };
        let now = Instant::now();
        let count = random.random_range(4..8);
        let nodes: Vec<Node> = (0..count)
            .map(|at| {
                let storage = if sqlite {
                    Store::in_memory(&[hearth_fanout::SQLITE_TABLES])
                        .unwrap()
                        .into()
                } else {
                    Storage::from(Memory::default())
                };
                let log = runner.run(open(at, &storage, &options));
                Node {
                    follower: (at != HUB).then(|| Follower::new(Cursor::START, random.random())),
                    storage,
                    log,
                    source: HUB,
                    connection: None,
                    ahead: Duration::ZERO,
                    cut_off: false,
                }
            })
            .collect();
        let backup = (copy(&nodes[HUB].storage), State::new());
        Self {
            random,
            runner,
            now,
            options,
            nodes,
            faults: true,
            written: HashMap::new(),
            truth: State::new(),
            backup,
            tally: Tally::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..CHAOS {
            self.step();
        }
        self.faults = false;
        for node in &mut self.nodes {
            node.cut_off = false;
        }
        self.append();
        for _ in 0..PEACE {
            if self.agreed() {
                return;
            }
            self.step();
        }
        let ends: Vec<_> = (0..self.nodes.len()).map(|at| self.end(at)).collect();
        let troubles: Vec<_> = self.nodes.iter().map(|node| &node.follower).collect();
        panic!("they do not agree: {ends:?} {troubles:?}");
    }

    fn end(&self, at: usize) -> Cursor {
        self.runner.run(self.nodes[at].log.bounds()).unwrap().end
    }

    fn agreed(&self) -> bool {
        let end = self.end(HUB);
        (1..self.nodes.len()).all(|at| self.end(at) == end)
    }

    fn step(&mut self) {
        let faults = self.faults;
        self.now += Duration::from_millis(self.random.random_range(0..40));
        let at = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..100) {
            0..12 if faults => self.append(),
            12 if faults => self.crash(at),
            13 if faults => self.backup = (copy(&self.nodes[HUB].storage), self.truth.clone()),
            14 if faults && self.random.random_bool(0.3) => self.restore(),
            15..18 if faults => self.nodes[at].cut_off ^= true,
            18 if faults => {
                let jump = Duration::from_secs(self.random.random_range(0..400));
                self.nodes[at].ahead += jump;
            }
            19 if faults => self.nodes[at].connection = None,
            20..25 => self.runner.run(self.nodes[at].log.refresh()).unwrap(),
            25..28 => self.now += Duration::from_millis(self.random.random_range(0..3_000)),
            28..60 => self.serve(at),
            _ => self.follow(at),
        }
    }

    fn append(&mut self) {
        let mut after = self.end(HUB);
        let count = self.random.random_range(1..4);
        let mut state = self.truth.clone();
        let mut new = Vec::new();
        for _ in 0..count {
            let thing = self.random.random_range(1..=THINGS);
            let version = state.entry(thing).or_default();
            *version += 1;
            new.push(((thing, *version), state.clone()));
        }
        let events = new.iter().map(|(event, _)| member(event.0, event.1));
        let log = &self.nodes[HUB].log;
        let end = self.runner.run(log.append(&events.collect::<Vec<_>>()));
        let end = end.unwrap();
        for (event, state) in new {
            let cursor = Cursor {
                epoch: end.epoch,
                offset: after.offset + 1,
            };
            let written = Written {
                after,
                event,
                state,
            };
            let before = self.written.insert(cursor, written);
            assert!(before.is_none(), "{cursor} names two events");
            after = cursor;
        }
        assert_eq!(after, end);
        self.truth = state;
    }

    /// The process dies and starts again; everybody's connections to it break.
    fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.connection = None;
        node.log = self.runner.run(open(at, &node.storage, &self.options));
        let seed = self.random.random();
        let end = self.end(at);
        if at != HUB {
            self.nodes[at].follower = Some(Follower::new(end, seed));
        }
        self.check(at);
        for node in &mut self.nodes {
            if let Some(connection) = &mut node.connection
                && connection.server == at
            {
                connection.subscription = None;
                connection.arrived = true;
                connection.wire.clear();
                connection.wire.push_back(Wire::End);
            }
        }
    }

    /// The hub's database is put back, mostly while the hub is down.
    fn restore(&mut self) {
        put_back(&self.nodes[HUB].storage, &self.backup.0);
        self.truth = self.backup.1.clone();
        self.tally.restored += 1;
        if self.random.random_bool(0.7) {
            self.crash(HUB);
        }
    }

    /// A log's state is the hub's of that very moment.
    fn check(&self, at: usize) {
        let snapshot = self.runner.run(self.nodes[at].log.snapshot()).unwrap();
        let state: State = snapshot.state.iter().map(said).collect();
        match self.written.get(&snapshot.cursor) {
            Some(written) => assert_eq!(state, written.state, "at {}", snapshot.cursor),
            None => assert_eq!((snapshot.cursor, state), (Cursor::START, State::new())),
        }
    }

    /// Servers take a client's request, or send what there is.
    fn serve(&mut self, client: usize) {
        let Some(mut connection) = self.nodes[client].connection.take() else {
            return;
        };
        let server = connection.server;
        if !self.nodes[client].cut_off && !self.nodes[server].cut_off {
            self.answer(&mut connection);
        }
        self.nodes[client].connection = Some(connection);
    }

    fn answer(&mut self, connection: &mut Connection) {
        let log = &self.nodes[connection.server].log;
        if !connection.arrived {
            connection.arrived = true;
            connection.wire.push_back(Wire::Head);
            match connection.asked {
                Asked::Snapshot => {
                    let (_, json) = self.runner.run(log.snapshot_json()).unwrap();
                    connection.wire.push_back(Wire::Snapshot(json.to_vec()));
                }
                Asked::Events(cursor) => match self.runner.run(log.subscribe(Some(cursor))) {
                    Ok(subscription) => connection.subscription = Some(subscription),
                    Err(Error::Refused(refusal)) => {
                        self.tally.lagging += u64::from(!refusal.wants_snapshot());
                        let bytes = sse::resync(&refusal).to_vec();
                        connection.wire.extend([Wire::Bytes(bytes), Wire::End]);
                    }
                    Err(error) => panic!("{error}"),
                },
            }
            return;
        }
        let on_the_way = connection.wire.iter().map(|wire| match wire {
            Wire::Bytes(bytes) => bytes.len(),
            _ => 0,
        });
        let mut room = connection.room.saturating_sub(on_the_way.sum());
        while room > 0
            && let Some(subscription) = &mut connection.subscription
        {
            let mut next = self.runner.look(subscription.next());
            if next.is_none()
                && matches!(self.runner, Runner::Tokio(_))
                && *log.watch().borrow() != subscription.cursor()
            {
                // It reads the table.
                self.runner.run(log.refresh()).unwrap();
                next = Some(self.runner.run(subscription.next()));
            }
            let bytes = match next {
                Some(Ok(frame)) => frame.bytes.to_vec(),
                Some(Err(cut)) => {
                    self.tally.slow += u64::from(matches!(cut, Cut::Slow));
                    connection.subscription = None;
                    sse::farewell(&cut).to_vec()
                }
                None => {
                    let beat = Wire::Bytes(sse::HEARTBEAT.to_vec());
                    connection.wire.push_back(beat);
                    return;
                }
            };
            room = room.saturating_sub(bytes.len());
            let copies = match self.random.random_range(0..200) {
                0 if self.faults => 0,
                1 if self.faults => 2,
                _ => 1,
            };
            for _ in 0..copies {
                connection.wire.push_back(Wire::Bytes(bytes.clone()));
            }
            if connection.subscription.is_none() {
                connection.wire.push_back(Wire::End);
            }
        }
    }

    /// A follower does what it is to do next.
    fn follow(&mut self, at: usize) {
        let now = self.now + self.nodes[at].ahead;
        let node = &mut self.nodes[at];
        let Some(follower) = &mut node.follower else {
            return;
        };
        let next = follower.next(now);
        let fits = |asked: &Asked| match next {
            Next::Wait(_) => false,
            Next::Connect(cursor) => *asked == Asked::Events(cursor),
            Next::Fetch => *asked == Asked::Snapshot,
            Next::Read(_) => matches!(asked, Asked::Events(_)),
        };
        if let Some(connection) = &node.connection
            && fits(&connection.asked)
        {
            if now.saturating_duration_since(connection.since) > TIMEOUT
                && !matches!(next, Next::Read(_))
            {
                self.fail(at, now, "no answer");
            } else {
                self.deliver(at, now);
            }
            return;
        }
        node.connection = None;
        let asked = match next {
            Next::Connect(cursor) => Asked::Events(cursor),
            Next::Fetch => Asked::Snapshot,
            // The connection broke.
            Next::Read(_) => return self.fail(at, now, "broken"),
            Next::Wait(_) => return,
        };
        node.connection = Some(Connection {
            server: node.source,
            asked,
            since: now,
            arrived: false,
            subscription: None,
            wire: VecDeque::new(),
            parser: sse::Parser::default(),
            room: self.random.random_range(1..2_000),
        });
    }

    fn fail(&mut self, at: usize, now: Instant, why: &str) {
        let node = &mut self.nodes[at];
        node.connection = None;
        node.follower.as_mut().unwrap().failed(now, why);
        self.elsewhere(at);
    }

    /// All but the relay itself try the other source next time.
    fn elsewhere(&mut self, at: usize) {
        if at > RELAY {
            self.nodes[at].source = self.random.random_range(HUB..=RELAY);
        }
    }

    /// A piece of what is on the way arrives.
    fn deliver(&mut self, at: usize, now: Instant) {
        let server = self.nodes[at].connection.as_ref().unwrap().server;
        if self.nodes[at].cut_off || self.nodes[server].cut_off {
            return;
        }
        let node = &mut self.nodes[at];
        let connection = node.connection.as_mut().unwrap();
        let follower = node.follower.as_mut().unwrap();
        match connection.wire.pop_front() {
            None => {}
            Some(Wire::Head) if connection.asked == Asked::Snapshot => {}
            Some(Wire::Head) => follower.connected(now),
            Some(Wire::End) => self.fail(at, now, "end"),
            Some(Wire::Snapshot(json)) => {
                let snapshot = Snapshot::parse(&json).unwrap();
                node.connection = None;
                if !follower.fetched(now, &snapshot) {
                    return self.elsewhere(at);
                }
                if self.faults && self.random.random_bool(0.1) {
                    return self.fail(at, now, "the disk is full");
                }
                let node = &mut self.nodes[at];
                self.runner.run(node.log.replace(&snapshot)).unwrap();
                let follower = node.follower.as_mut().unwrap();
                follower.replaced(snapshot.cursor);
                self.tally.snapshots += 1;
                self.check(at);
            }
            Some(Wire::Bytes(mut bytes)) => {
                let arrived = self.random.random_range(1..=bytes.len());
                let rest = bytes.split_off(arrived);
                if !rest.is_empty() {
                    connection.wire.push_front(Wire::Bytes(rest));
                }
                follower.heard(now);
                connection.parser.feed(&bytes).unwrap();
                self.read(at, now);
            }
        }
    }

    /// Takes the messages that are whole, and stores their events together.
    fn read(&mut self, at: usize, now: Instant) {
        let node = &mut self.nodes[at];
        let parser = &mut node.connection.as_mut().unwrap().parser;
        let follower = node.follower.as_mut().unwrap();
        let mut entries: Vec<Entry> = Vec::new();
        let mut closed = false;
        while let Some(item) = parser.next() {
            let sse::Item::Message(message) = item else {
                continue;
            };
            match follower.received(now, &message) {
                Received::Apply(entry) => entries.push(entry),
                Received::Known => {}
                Received::Close => closed = true,
            }
        }
        if let Some(last) = entries.last() {
            if self.faults && self.random.random_bool(0.03) {
                return self.fail(at, now, "the disk is full");
            }
            let mut end = self.runner.run(node.log.bounds()).unwrap().end;
            for entry in &entries {
                let written = &self.written[&entry.cursor];
                assert_eq!((written.after, written.event), (end, said(&entry.event)));
                end = entry.cursor;
            }
            self.runner.run(node.log.extend(&entries)).unwrap();
            follower.stored(last.cursor);
            self.tally.applied += entries.len() as u64;
            self.check(at);
        }
        if closed {
            let node = &mut self.nodes[at];
            node.connection = None;
            // A snapshot comes from where the cursor was refused.
            let fetches = matches!(node.follower.as_mut().unwrap().next(now), Next::Fetch);
            if !fetches {
                self.elsewhere(at);
            }
        }
    }
}

async fn open(at: usize, storage: &Storage, options: &Options) -> Log {
    let (storage, options) = (storage.clone(), options.clone());
    if at == HUB {
        Log::lead(storage, options).await.unwrap()
    } else {
        Log::follow(storage, options).await.unwrap()
    }
}

const TABLES: [(&str, usize); 3] = [("fanout_log", 5), ("fanout_event", 4), ("fanout_state", 4)];

fn copy(storage: &Storage) -> Copy {
    match storage {
        Storage::Memory(memory) => Copy::Memory(memory.copy()),
        Storage::Sqlite(store) => Copy::Tables(TABLES.map(|table| rows(store, table)).into()),
        Storage::Postgres(_) => unreachable!(),
    }
}

fn rows(store: &Store, (table, columns): (&str, usize)) -> Vec<Vec<sqlite::types::Value>> {
    store
        .read(|tx| {
            let mut all = tx.prepare(&format!("SELECT * FROM {table}"))?;
            all.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?
                .collect::<sqlite::Result<_>>()
        })
        .unwrap()
}

fn put_back(storage: &Storage, copy: &Copy) {
    match (storage, copy) {
        (Storage::Memory(memory), Copy::Memory(copy)) => memory.restore(copy),
        (Storage::Sqlite(store), Copy::Tables(tables)) => store
            .write(|tx| {
                for ((table, columns), rows) in TABLES.iter().zip(tables) {
                    tx.execute(&format!("DELETE FROM {table}"), [])?;
                    let places = vec!["?"; *columns].join(",");
                    for row in rows {
                        let sql = format!("INSERT INTO {table} VALUES ({places})");
                        tx.execute(&sql, sqlite::params_from_iter(row))?;
                    }
                }
                Ok::<_, sqlite::Error>(())
            })
            .unwrap(),
        _ => unreachable!(),
    }
}

/// Says which seed failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn simulate(seeds: Range<u64>, sqlite: bool) {
    let mut tally = Tally::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let _seed = Seed(seed);
        let mut world = World::new(seed, sqlite);
        world.run();
        tally += world.tally;
    }
    println!("{tally:?}");
    // Everything that is to be survived came to pass.
    assert!(tally.applied > 5 * count, "{tally:?}");
    assert!(
        tally.snapshots > count && tally.slow > count / 10,
        "{tally:?}"
    );
    assert!(
        tally.restored > count / 10 && tally.lagging > count / 20,
        "{tally:?}"
    );
}

/// Apart, so that they run beside each other.
macro_rules! seeds {
    ($($name:ident: $seeds:expr),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                simulate($seeds, false);
            }
        )+
    };
}

seeds! {
    seeds_up_to_1250: 0..1_250,
    seeds_up_to_2500: 1_250..2_500,
    seeds_up_to_3750: 2_500..3_750,
    seeds_up_to_5000: 3_750..5_000,
    seeds_up_to_6250: 5_000..6_250,
    seeds_up_to_7500: 6_250..7_500,
    seeds_up_to_8750: 7_500..8_750,
    seeds_up_to_10000: 8_750..10_000,
}

#[test]
fn seeds_on_sqlite() {
    simulate(0..40, true);
}
