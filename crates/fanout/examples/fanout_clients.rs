//! Many subscribers and one publisher in one process, for `cargo xtask bench mesh`: the same for a hub's `/events`, for
//! nginx with nchan, for Redis, and for a bare loop of writes, which says what the system itself takes.
//!
//! Each line of standard input is a question in JSON, and is answered by a line:
//!
//! - `{"do": "connect", "kind": "hearth", "address": "127.0.0.1:8321", "subscribers": 10000}`; kinds are `hearth`,
//!   `nchan`, `redis` and `plain`;
//! - `{"do": "publish", "target": "ID", "events": 40, "interval_ms": 500, "bytes": 900}` says how long the events were on
//!   their way, from before the publisher wrote one until a subscriber had read its number, in milliseconds;
//! - `{"do": "leave"}` closes every connection.
//!
//! `fanout_clients serve` is that bare loop: it prints its address, takes subscribers, and writes each line of a
//! publisher to all of them, one after the other.

use std::error::Error;
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What stands before the number of an event, in whatever carries it: a machine's name, or a text.
const MARK: &[u8] = b"seq-";
/// Digits of the number.
const DIGITS: u8 = 8;
/// Connections that are made at once; fewer than wait to be accepted at the smallest backlog.
const TOGETHER: usize = 100;
/// How long nothing may come before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Done<()> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    // One thread reads for all subscribers; the publisher has this one.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut clients = None;
    for line in std::io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        let answer = answer(&runtime, &mut clients, &question)
            .unwrap_or_else(|error| json!({"error": error.to_string()}));
        println!("{answer}");
    }
    Ok(())
}

fn answer(runtime: &Runtime, clients: &mut Option<Clients>, question: &Value) -> Done<Value> {
    let number = |name: &str| question[name].as_u64().ok_or(format!("{name}: a number"));
    match question["do"].as_str() {
        Some("connect") => {
            let kind = Kind::named(question["kind"].as_str().unwrap_or_default())?;
            let address = question["address"].as_str().unwrap_or_default().parse()?;
            let count = usize::try_from(number("subscribers")?)?;
            let begun = Instant::now();
            *clients = Some(runtime.block_on(Clients::connect(kind, address, count))?);
            Ok(json!({"connected": count, "took_ms": milliseconds(begun.elapsed())}))
        }
        Some("publish") => {
            let clients = clients.as_mut().ok_or("connect first")?;
            let target = question["target"].as_str().unwrap_or_default();
            let interval = Duration::from_millis(number("interval_ms")?);
            let bytes = usize::try_from(number("bytes")?)?;
            runtime.block_on(clients.publish(target, number("events")?, interval, bytes))
        }
        Some("leave") => {
            *clients = None;
            Ok(json!({}))
        }
        _ => Err("do: connect, publish or leave".into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hearth,
    Nchan,
    Redis,
    Plain,
}

impl Kind {
    fn named(name: &str) -> Done<Self> {
        Ok(match name {
            "hearth" => Self::Hearth,
            "nchan" => Self::Nchan,
            "redis" => Self::Redis,
            "plain" => Self::Plain,
            other => return Err(format!("kind: `{other}` is none").into()),
        })
    }

    /// What a subscriber says, and what shows that it was heard.
    fn subscription(self, host: SocketAddr) -> (String, &'static [u8]) {
        let stream = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n")
        };
        match self {
            Self::Hearth => (stream("/events"), b"retry: "),
            Self::Nchan => (stream("/sub"), b"\r\n\r\n"),
            Self::Redis => (
                "*2\r\n$9\r\nSUBSCRIBE\r\n$5\r\nbench\r\n".to_owned(),
                b":1\r\n",
            ),
            Self::Plain => ("subscribe\n".to_owned(), b"ok\n"),
        }
    }

    /// What the publisher says so that all hear of an event.
    fn publication(self, host: SocketAddr, target: &str, number: u64, bytes: usize) -> String {
        let mark = format!("seq-{number:08}");
        let padded = format!("{mark:x<bytes$}");
        match self {
            Self::Hearth => {
                let body = json!({ "name": mark }).to_string();
                format!(
                    "PATCH /household/members/{target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            Self::Nchan => format!(
                "POST /pub HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{padded}",
                padded.len()
            ),
            Self::Redis => format!(
                "*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n${}\r\n{padded}\r\n",
                padded.len()
            ),
            Self::Plain => format!("{padded}\n"),
        }
    }
}

/// What all subscribers heard.
#[derive(Debug)]
struct Heard {
    begun: Instant,
    /// When each event was published, in nanoseconds since `begun`; by its number.
    sent: Mutex<Vec<u64>>,
    /// How long each was on its way to each subscriber, in microseconds.
    delays: Mutex<Vec<u32>>,
    repeats: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicU64,
}

impl Heard {
    fn note(&self, number: u64) {
        let now = self.begun.elapsed().as_nanos() as u64;
        let sent = locked(&self.sent).get(number as usize).copied();
        if let Some(sent) = sent {
            let delay = u32::try_from(now.saturating_sub(sent) / 1_000).unwrap_or(u32::MAX);
            locked(&self.delays).push(delay);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Clients {
    kind: Kind,
    address: SocketAddr,
    heard: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
    publisher: Publisher,
    published: u64,
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

impl Clients {
    async fn connect(kind: Kind, address: SocketAddr, count: usize) -> Done<Self> {
        let heard = Arc::new(Heard {
            begun: Instant::now(),
            // Numbers begin at 1.
            sent: Mutex::new(vec![0]),
            delays: Mutex::default(),
            repeats: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        let mut readers = Vec::with_capacity(count);
        while readers.len() < count {
            let some = TOGETHER.min(count - readers.len());
            let streams = try_join_all((0..some).map(|_| subscribe(kind, address))).await?;
            let spawned = streams.into_iter().map(|stream| {
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    let _ = listen(stream, &heard).await;
                    heard.ended.fetch_add(1, Ordering::Relaxed);
                })
            });
            readers.extend(spawned);
        }
        let mut publisher = Publisher(TcpStream::connect(address).await?);
        publisher.0.set_nodelay(true)?;
        if kind == Kind::Plain {
            publisher.write(b"publish\n").await?;
            publisher.until(|answer| answer.ends_with(b"ok\n")).await?;
        }
        Ok(Self {
            kind,
            address,
            heard,
            readers,
            publisher,
            published: 0,
        })
    }

    async fn publish(
        &mut self,
        target: &str,
        events: u64,
        interval: Duration,
        bytes: usize,
    ) -> Done<Value> {
        let heard = Arc::clone(&self.heard);
        let (bytes_before, repeats_before) = (
            heard.bytes.load(Ordering::Relaxed),
            heard.repeats.load(Ordering::Relaxed),
        );
        locked(&heard.delays).clear();
        let begun = Instant::now();
        let mut acknowledged = Vec::new();
        for event in 0..events {
            let due = begun + interval * u32::try_from(event)?;
            tokio::time::sleep_until(due.into()).await;
            self.published += 1;
            let text = self
                .kind
                .publication(self.address, target, self.published, bytes);
            let sent = Instant::now();
            locked(&heard.sent).push(heard.begun.elapsed().as_nanos() as u64);
            self.publisher.write(text.as_bytes()).await?;
            self.publisher.acknowledged(self.kind).await?;
            acknowledged.push(milliseconds(sent.elapsed()));
        }
        let owed = events * self.readers.len() as u64;
        let count = || locked(&heard.delays).len() as u64;
        let (mut last, mut since) = (count(), Instant::now());
        while last < owed && since.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = count();
            if now > last {
                (last, since) = (now, Instant::now());
            }
        }
        let took = begun.elapsed();
        let mut delays = locked(&heard.delays).clone();
        delays.sort_unstable();
        acknowledged.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let at = ((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1));
            delays.get(at).map(|delay| f64::from(*delay) / 1e3)
        };
        let read = heard.bytes.load(Ordering::Relaxed) - bytes_before;
        Ok(json!({
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "last_ms": at(1.0),
            "acknowledged_ms": acknowledged.get(acknowledged.len() / 2),
            "received": delays.len(),
            "lost": owed.saturating_sub(delays.len() as u64),
            "repeats": heard.repeats.load(Ordering::Relaxed) - repeats_before,
            "ended": heard.ended.load(Ordering::Relaxed),
            "bytes_a_message": read / (delays.len() as u64).max(1),
            "took_ms": milliseconds(took),
        }))
    }
}

async fn subscribe(kind: Kind, address: SocketAddr) -> Done<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (question, heard) = kind.subscription(address);
    let mut publisher = Publisher(stream);
    publisher.write(question.as_bytes()).await?;
    let refused = |answer: &[u8]| {
        answer.starts_with(b"HTTP/1.1 ") && !answer.starts_with(b"HTTP/1.1 200") && is_whole(answer)
    };
    let answer = publisher
        .until(|answer| refused(answer) || answer.windows(heard.len()).any(|some| some == heard));
    let answer = answer.await?;
    if refused(&answer) || answer.starts_with(b"-") {
        return Err(String::from_utf8_lossy(&answer).into());
    }
    Ok(publisher.0)
}

/// Reads the numbers of events, as they come.
async fn listen(mut stream: TcpStream, heard: &Heard) -> std::io::Result<()> {
    let mut numbers = Numbers::default();
    let mut last = 0;
    loop {
        let length = poll_fn(|context| {
            // There only while something is read: 10,000 wait.
            let mut bytes = [0; 4 << 10];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut stream).poll_read(context, &mut buffer))?;
            for byte in buffer.filled() {
                match numbers.next(*byte) {
                    Some(number) if number <= last => {
                        heard.repeats.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(number) => {
                        last = number;
                        heard.note(number);
                    }
                    None => {}
                }
            }
            Poll::Ready(Ok::<_, std::io::Error>(buffer.filled().len()))
        });
        let length = length.await?;
        if length == 0 {
            return Ok(());
        }
        heard.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Finds numbers in a stream that is cut anywhere.
#[derive(Debug, Default)]
struct Numbers {
    matched: usize,
    digits: u8,
    value: u64,
}

impl Numbers {
    fn next(&mut self, byte: u8) -> Option<u64> {
        if self.matched == MARK.len() && byte.is_ascii_digit() {
            self.value = self.value * 10 + u64::from(byte - b'0');
            self.digits += 1;
            if self.digits < DIGITS {
                return None;
            }
            return Some(std::mem::take(self).value);
        }
        let matched = match self.matched {
            at if at < MARK.len() && byte == MARK[at] => at + 1,
            // No part of the mark but its first byte can begin another one.
            _ => usize::from(byte == MARK[0]),
        };
        *self = Self {
            matched,
            ..Self::default()
        };
        None
    }
}

/// A connection that asks and is answered.
struct Publisher(TcpStream);

impl Publisher {
    async fn write(&mut self, mut bytes: &[u8]) -> Done<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads until what was read is enough.
    async fn until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Done<Vec<u8>> {
        let mut answer = Vec::new();
        while !enough(&answer) {
            self.0.ready(Interest::READABLE).await?;
            let mut buffer = [0; 4 << 10];
            match self.0.try_read(&mut buffer) {
                Ok(0) => {
                    let said = String::from_utf8_lossy(&answer);
                    return Err(format!("the server closed the connection after `{said}`").into());
                }
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answer)
    }

    /// Waits until the server says that it took the event.
    async fn acknowledged(&mut self, kind: Kind) -> Done<()> {
        let answer = match kind {
            Kind::Hearth | Kind::Nchan => self.until(is_whole).await?,
            Kind::Redis | Kind::Plain => self.until(|answer| answer.ends_with(b"\n")).await?,
        };
        let ok: &[&[u8]] = match kind {
            Kind::Hearth => &[b"HTTP/1.1 200"],
            Kind::Nchan => &[b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 202"],
            Kind::Redis => &[b":"],
            Kind::Plain => &[b"ok"],
        };
        match ok.iter().any(|ok| answer.starts_with(ok)) {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&answer).into()),
        }
    }
}

/// Whether an answer with a length is all there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_none_or(|length| body.len() >= length)
}

/// The bare loop of writes.
fn serve() -> Done<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", json!({"address": listener.local_addr()?}));
    let mut subscribers = Vec::new();
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        stream.write_all(b"ok\n")?;
        if line == "subscribe\n" {
            // The copy for reading is closed: half the descriptors.
            subscribers.push(stream);
            continue;
        }
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            for mut subscriber in &subscribers {
                subscriber.write_all(line.as_bytes())?;
            }
            stream.write_all(b"ok\n")?;
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
