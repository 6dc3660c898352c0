//! Following a hub: its state log comes in as server-sent events and is stored before it counts; in return the hub hears
//! where this node is and what it can do. Where there are several hubs, they have one log, and any will do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use hearth_fanout::{Error, Follower, Next, Received, sse};
use hearth_mesh::roster::Record;
use hearth_protocol::event::{Cursor, Snapshot, StateEvent};
use hearth_protocol::household::{Capabilities, NodeId};
use hearth_protocol::peers::Hello;

use super::ask::{Reply, get, post};
use super::change::in_time;
use super::{Household, Live};
use crate::state::Shared;

/// How long the hub may take to begin an answer.
const HEAD: Duration = Duration::from_secs(10);
/// How often this node looks whether it has news for the hub.
const NEWS: Duration = Duration::from_secs(5);

impl Household {
    /// Follows the hub, and tells it what is new here; a hub tells itself.
    pub(super) fn follow(self: &Arc<Self>, live: &Arc<Live>, node: &Shared) {
        if !live.is_hub() {
            live.spawn(follow(Arc::clone(live)));
        }
        live.spawn(tell(Arc::clone(self), Arc::clone(live), Arc::clone(node)));
    }
}

/// Tells what is new about this node, as long as it is a member.
async fn tell(household: Arc<Household>, live: Arc<Live>, node: Shared) {
    let mut said: Option<Hello> = None;
    loop {
        let describe = {
            let (household, node) = (Arc::clone(&household), Arc::clone(&node));
            // Looks at files.
            crate::trace::spawn_blocking(move || household.capabilities(&node, false))
        };
        let hello = Hello {
            addresses: household.addresses(&live),
            capabilities: describe.await.unwrap_or_default(),
            hub: live.is_hub(),
        };
        let own = live.roster(|roster| roster.record(&live.own).cloned());
        let is_known = own.is_some_and(|own| {
            own.addresses == hello.addresses
                && own.hub == hello.hub
                && same(&own.capabilities, &hello.capabilities)
        });
        let is_said = said.as_ref() == Some(&hello);
        if live.owes_membership() {
            let _one = household.changing.lock().await;
            if let Err(error) = in_time(live.is_shared(), household.be_member(&live, &node)).await {
                tracing::warn!(%error, "this hub is not in the household's list yet");
            }
        }
        if !live.is_removed() && !is_known && !is_said && say(&household, &live, &hello).await {
            said = Some(hello);
        }
        tokio::time::sleep(NEWS).await;
    }
}

/// Whether nothing changed that others choose by. Speeds waver; they are news when they differ by a quarter.
fn same(known: &Capabilities, now: &Capabilities) -> bool {
    let close = |a: f32, b: f32| a == b || (a > 0.0 && b > 0.0 && (a / b - 1.0).abs() < 0.25);
    let alike = known.models.len() == now.models.len()
        && known.models.iter().zip(&now.models).all(|(a, b)| {
            let mut plain = b.clone();
            plain.decode_tokens_per_second = a.decode_tokens_per_second;
            plain.prefill_tokens_per_second = a.prefill_tokens_per_second;
            *a == plain
                && close(a.decode_tokens_per_second, b.decode_tokens_per_second)
                && close(a.prefill_tokens_per_second, b.prefill_tokens_per_second)
        });
    let mut plain = now.clone();
    plain.models.clone_from(&known.models);
    alike && *known == plain
}

/// Tells the hub what changed; whether it heard.
async fn say(household: &Arc<Household>, live: &Live, hello: &Hello) -> bool {
    if live.is_hub() {
        let heard = household.hear(live.own, hello.clone()).await;
        return heard.is_ok();
    }
    match live.ask_hub(&post("/peer/hello", hello), HEAD).await {
        Ok(reply) => reply.status().is_success(),
        Err(error) => {
            tracing::debug!(%error, "the hub could not be told what is new");
            false
        }
    }
}

async fn follow(live: Arc<Live>) {
    let stored = match live.log.bounds().await {
        Ok(bounds) => bounds.end,
        Err(error) => {
            tracing::error!(%error, "the hub cannot be followed");
            return;
        }
    };
    let mut follower = Follower::new(stored, rand::random());
    let mut stream: Option<(Reply, sse::Parser)> = None;
    loop {
        let now = Instant::now();
        match follower.next(now) {
            Next::Wait(time) => {
                stream = None;
                tokio::select! {
                    () = tokio::time::sleep(time) => {}
                    // A hub that is back looks after its members before they dare to ask it again.
                    () = live.hub_is_there.notified() => follower.seen(),
                }
            }
            Next::Connect(cursor) => stream = connect(&live, &mut follower, cursor).await,
            Next::Fetch => {
                stream = None;
                fetch(&live, &mut follower).await;
            }
            Next::Read(time) => {
                let Some((reply, parser)) = &mut stream else {
                    follower.failed(now, "there is no stream");
                    continue;
                };
                let piece = tokio::time::timeout(time, reply.piece()).await;
                let now = Instant::now();
                match piece {
                    Err(_) => {}
                    Ok(Some(Ok(piece))) => {
                        follower.heard(now);
                        live.hub_answered();
                        if parser.feed(&piece).is_err() {
                            follower.failed(now, "a message of the stream is too long");
                        } else {
                            read(&live, &mut follower, parser).await;
                        }
                    }
                    Ok(Some(Err(error))) => follower.failed(now, &error),
                    Ok(None) => follower.failed(now, "the stream ended"),
                }
            }
        }
    }
}

async fn connect(
    live: &Live,
    follower: &mut Follower,
    cursor: Cursor,
) -> Option<(Reply, sse::Parser)> {
    let mut request = get("/peer/events");
    if let Ok(value) = HeaderValue::from_str(&cursor.to_string()) {
        request.headers_mut().insert("last-event-id", value);
    }
    let answer = live.ask_hub(&request, HEAD).await;
    let now = Instant::now();
    match answer {
        Ok(reply) if reply.status().is_success() => {
            live.clear_removed();
            live.hub_answered();
            follower.connected(now);
            Some((reply, sse::Parser::default()))
        }
        Ok(reply) => {
            let (_, code, message) = reply.problem().await;
            tracing::debug!(?code, message, "the hub refuses its events");
            // It was removed, or the household is no more.
            if matches!(code.as_deref(), Some("removed" | "not_in_roster")) {
                live.set_removed();
            }
            follower.failed(now, &message);
            None
        }
        Err(error) => {
            live.hub_failed();
            follower.failed(now, &error.to_string());
            None
        }
    }
}

async fn fetch(live: &Arc<Live>, follower: &mut Follower) {
    let answer = live.ask_hub(&get("/peer/snapshot"), HEAD).await;
    let fetched = match answer {
        Ok(reply) if reply.status().is_success() => reply.whole().await,
        Ok(reply) => Err(reply.problem().await.2),
        Err(error) => Err(error.to_string()),
    };
    let now = Instant::now();
    let snapshot = match fetched.map(|bytes| Snapshot::parse(&bytes)) {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) => return follower.unreadable(now, &error),
        Err(error) => return follower.failed(now, &error),
    };
    if !follower.fetched(now, &snapshot) {
        return;
    }
    let (household, state) = (live.belonging.household, snapshot.state.clone());
    // A large household has many seals.
    let checking = crate::trace::spawn_blocking(move || {
        let checked = state.iter().map(|event| checked(event, &household));
        checked.collect::<Result<Vec<Record>, Error>>()
    });
    let records = match checking.await {
        Ok(Ok(records)) => records,
        Ok(Err(error)) => return follower.rejected(Instant::now(), &error),
        Err(error) => return follower.failed(Instant::now(), &error.to_string()),
    };
    let now = Instant::now();
    match live.log.replace(&snapshot).await {
        Ok(()) => {
            live.take(records);
            follower.replaced(snapshot.cursor);
        }
        Err(error) => follower.failed(now, &error.to_string()),
    }
}

/// Stores what came, and lets it count.
async fn read(live: &Arc<Live>, follower: &mut Follower, parser: &mut sse::Parser) {
    let household = live.belonging.household;
    let (mut entries, mut records) = (Vec::new(), Vec::new());
    let mut closed = false;
    while let Some(item) = parser.next() {
        match item {
            sse::Item::Retry(delay) => follower.retry(delay),
            sse::Item::Message(message) => match follower.received(Instant::now(), &message) {
                Received::Apply(entry) => match checked(&entry.event, &household) {
                    Ok(record) => {
                        entries.push(entry);
                        records.push(record);
                    }
                    Err(error) => {
                        follower.rejected(Instant::now(), &error);
                        closed = true;
                    }
                },
                Received::Known => {}
                Received::Close => closed = true,
            },
        }
        if closed {
            break;
        }
    }
    let Some(last) = entries.last().map(|entry| entry.cursor) else {
        return;
    };
    match live.log.extend(&entries).await {
        Ok(()) => {
            follower.stored(last);
            live.take(records);
        }
        Err(error @ Error::Gap { .. }) => follower.rejected(Instant::now(), &error),
        Err(error) => follower.failed(Instant::now(), &error.to_string()),
    }
}

/// What a hub said.
fn checked(event: &StateEvent, household: &NodeId) -> Result<Record, Error> {
    let StateEvent::Member { record } = event;
    Record::open(record.clone(), household).map_err(|error| Error::Unusable {
        kind: "member",
        reason: error.to_string(),
    })
}
