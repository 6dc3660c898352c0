//! Many subscribers at once.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use hearth_fanout::{Log, Memory, Options};
use hearth_protocol::event::StateEvent;
use hearth_protocol::household::{NodeId, Sealed};

const SUBSCRIBERS: usize = 10_000;
const EVENTS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_share_one_encoding_and_none_misses_an_event() {
    let log = Log::lead(Memory::default(), Options::default())
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut subscription = log.subscribe(None).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let mut frames = Vec::new();
            for _ in 0..EVENTS {
                frames.push(subscription.next().await.unwrap());
            }
            frames
        }));
    }
    for version in 1..=EVENTS {
        let node = NodeId([1; 32]);
        let event = StateEvent::Member {
            record: Sealed {
                text: format!(r#"{{"node":"{node}","version":{version}}}"#),
                signature: String::new(),
            },
        };
        log.append(&[event]).await.unwrap();
    }
    let all = async {
        let mut first = None;
        for task in tasks {
            let frames = task.await.unwrap();
            let first = first.get_or_insert_with(|| frames.clone());
            for ((frame, same), offset) in frames.iter().zip(first).zip(1..) {
                assert_eq!(frame.cursor.offset, offset);
                assert_eq!(frame.bytes.as_ptr(), same.bytes.as_ptr());
            }
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, all).await.unwrap();
}
