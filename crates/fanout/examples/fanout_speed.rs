//! Figures of the state log without a network: how fast it takes events, how long a follower takes to get a whole state,
//! and how soon many subscribers in one process have an event.
//!
//! `cargo run --release -p hearth-fanout --example fanout_speed [MEMBERS [SUBSCRIBERS]]` prints a line of JSON for each;
//! without numbers 100,000 and 10,000. Times are milliseconds.

use std::error::Error;
use std::time::{Duration, Instant};

use hearth_fanout::{Log, Options, SQLITE_TABLES};
use hearth_protocol::event::{Snapshot, StateEvent};
use hearth_protocol::household::{Capabilities, Member, NodeId, PeerModel, Sealed};
use hearth_store::Store;
use serde_json::json;

/// Events of each way of appending.
const APPENDS: u64 = 500;
/// Events that are told to all subscribers, one after the other.
const TOLD: u64 = 40;

type Done<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Done<()> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse());
    let members: u64 = numbers.next().transpose()?.unwrap_or(100_000);
    let subscribers = usize::try_from(numbers.next().transpose()?.unwrap_or(10_000))?;
    let folder = std::env::temp_dir().join(format!("hearth-fanout-{}", std::process::id()));
    let done = measure(&folder, members, subscribers).await;
    std::fs::remove_dir_all(&folder)?;
    done
}

async fn measure(folder: &std::path::Path, members: u64, subscribers: usize) -> Done<()> {
    let open = |name: &str| Store::open(&folder.join(name), &[SQLITE_TABLES]);
    let hub = Log::lead(open("hub.db")?, Options::default()).await?;

    let start = Instant::now();
    for version in 1..=APPENDS {
        hub.append(&[member(0, version)?]).await?;
    }
    let each = start.elapsed();
    let start = Instant::now();
    let mut version = APPENDS;
    for _ in 0..APPENDS / 100 {
        let events = (version + 1..=version + 100).map(|version| member(0, version));
        hub.append(&events.collect::<Done<Vec<_>>>()?).await?;
        version += 100;
    }
    let hundreds = start.elapsed();
    let a_second = |time: Duration| APPENDS as f64 / time.as_secs_f64();
    println!(
        "{}",
        json!({
            "what": "append to SQLite, each on the disk",
            "one_a_transaction_per_s": a_second(each),
            "hundred_a_transaction_per_s": a_second(hundreds),
        })
    );

    let mut node = 1;
    while node <= members {
        let end = (node + 1_000).min(members + 1);
        let events = (node..end).map(|node| member(node, 1));
        hub.append(&events.collect::<Done<Vec<_>>>()?).await?;
        node = end;
    }
    let follower = Log::follow(open("follower.db")?, Options::default()).await?;
    let start = Instant::now();
    let (_, bytes) = hub.snapshot_json().await?;
    let encode = start.elapsed();
    let start = Instant::now();
    let snapshot = Snapshot::parse(&bytes)?;
    let parse = start.elapsed();
    let start = Instant::now();
    follower.replace(&snapshot).await?;
    let store = start.elapsed();
    println!(
        "{}",
        json!({
            "what": "resync of a whole state",
            "members": members,
            "bytes": bytes.len(),
            "read_and_encode_ms": milliseconds(encode),
            "parse_ms": milliseconds(parse),
            "store_ms": milliseconds(store),
        })
    );

    let before = resident();
    let log = Log::lead(hearth_fanout::Memory::default(), Options::default()).await?;
    let (tell, mut told) = tokio::sync::mpsc::channel(subscribers);
    for _ in 0..subscribers {
        let mut subscription = log.subscribe(None).await?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while let Ok(frame) = subscription.next().await {
                let _ = tell.send((frame.bytes, Instant::now())).await;
            }
        });
    }
    let mut times = Vec::new();
    for version in 1..=TOLD {
        let start = Instant::now();
        log.append(&[member(0, version)?]).await?;
        for _ in 0..subscribers {
            let (_, at) = told.recv().await.ok_or("a subscriber ended")?;
            times.push(at - start);
        }
    }
    times.sort_unstable();
    let part = |part: f64| {
        let at = (times.len() as f64 * part) as usize;
        times.get(at).copied().map(milliseconds)
    };
    println!(
        "{}",
        json!({
            "what": "fan-out within one process",
            "subscribers": subscribers,
            "events": TOLD,
            "p50_ms": part(0.5),
            "p99_ms": part(0.99),
            "last_ms": times.last().copied().map(milliseconds),
            "bytes_a_subscriber": resident().checked_sub(before).map(|bytes| bytes / subscribers.max(1) as u64),
        })
    );
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Bytes of memory that this process holds; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// A record as hubs write them, with two models.
fn member(node: u64, version: u64) -> Done<StateEvent> {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&node.to_be_bytes());
    let model = |name: &str| PeerModel {
        name: name.to_owned(),
        size_bytes: 1_834_426_016,
        context: 40_960,
        decode_tokens_per_second: 14.6,
        prefill_tokens_per_second: 280.0,
        slots: 4,
        ..PeerModel::default()
    };
    let member = Member {
        household: NodeId([7; 32]),
        node: NodeId(id),
        name: format!("machine-{node}"),
        version,
        hub: false,
        removed: false,
        addresses: vec!["http://192.0.2.7:8321".parse()?],
        capabilities: Capabilities {
            version: "0.1.0".to_owned(),
            models: vec![model("qwen3:1.7b"), model("llama3.2:1b")],
            ..Capabilities::default()
        },
    };
    Ok(StateEvent::Member {
        record: Sealed {
            text: serde_json::to_string(&member)?,
            signature: "A".repeat(88),
        },
    })
}
