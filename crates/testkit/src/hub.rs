//! A hub of models on this machine that speaks the real one's protocol, with the faults that networks have.
//!
//! Two doors, as in life: the hub itself, and another host that keeps the files. What it did is recorded, so that a
//! test can tell which door saw the token and which ranges were asked for. Nothing waits by the clock: an answer that
//! is held goes on when the test lets it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hearth_models::Digest;
use serde_json::json;

/// Bytes written at once, and the grain of faults.
const PIECE: usize = 16 << 10;
/// The commit that every answer names.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong. The default is a hub without faults that keeps its files itself.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Files come from the other door.
    pub redirect: bool,
    /// An address of the other door is refused after so many requests; the hub gives a new one.
    pub address_uses: Option<usize>,
    /// Ranges are not understood: every answer is the whole file.
    pub no_ranges: bool,
    /// The connection is cut after so many bytes of a file, so many times.
    pub cuts: Option<(u64, usize)>,
    /// After so many bytes of files, over all answers, every connection is cut.
    pub dies_after: Option<u64>,
    /// One bit of every file is wrong.
    pub wrong_bit: bool,
    /// Requests for files are answered with this status, so many times.
    pub status: Option<(u16, usize)>,
    /// Header that goes with that status, and its value.
    pub status_header: Option<(&'static str, String)>,
    /// The list of files is answered with this status.
    pub list_status: Option<u16>,
    /// Only who has this token gets anything.
    pub token: Option<String>,
    /// Files of a page of the list.
    pub page: Option<usize>,
    /// After so many bytes of files, over all answers, nothing comes until [`Hub::release`].
    pub hold_after: Option<u64>,
    /// The list says another length than the files have.
    pub wrong_size: bool,
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether it came to the door that keeps files.
    pub elsewhere: bool,
    /// Path with its query.
    pub path: String,
    /// Value of `Range`.
    pub range: Option<String>,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
}

/// Path and bytes of a file.
type Stored = (String, Arc<Vec<u8>>);

#[derive(Default)]
struct Books {
    /// Files by repository, in the order in which they were added.
    files: HashMap<String, Vec<Stored>>,
    faults: Faults,
    seen: Vec<Seen>,
    /// Bytes of files that went out.
    sent: u64,
    /// Answers that wait to be released.
    held: usize,
    /// How often the faults were changed.
    generation: u64,
    /// Addresses of the other door that were given, and how often each was used.
    addresses: Vec<usize>,
    stopped: bool,
}

struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
    hub: SocketAddr,
    elsewhere: SocketAddr,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running hub; dropping it stops it.
pub struct Hub {
    shared: Arc<Shared>,
    doors: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Starts an empty hub without faults.
    ///
    /// # Panics
    /// If no port is free; a test cannot go on then.
    pub fn start() -> Self {
        let bind = || TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let listeners = [bind(), bind()];
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            books: Mutex::default(),
            changed: Condvar::new(),
            hub: address(&listeners[0]),
            elsewhere: address(&listeners[1]),
        });
        let doors = listeners
            .into_iter()
            .map(|listener| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&listener, &shared))
            })
            .collect();
        Self { shared, doors }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.hub)
    }

    /// Adds a file to a repository (`org/repo`) and returns its digest.
    pub fn add(&self, repo: &str, path: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of_bytes(&bytes);
        let mut books = self.shared.books();
        let files = books.files.entry(repo.to_owned()).or_default();
        files.retain(|(other, _)| other != path);
        files.push((path.to_owned(), Arc::new(bytes)));
        digest
    }

    /// From now on this goes wrong, and nothing else. What is held is cut off.
    pub fn set(&self, faults: Faults) {
        let mut books = self.shared.books();
        books.faults = faults;
        books.generation += 1;
        books.held = 0;
        drop(books);
        self.shared.changed.notify_all();
    }

    /// Lets everything go on that [`Faults::hold_after`] holds, now and later.
    pub fn release(&self) {
        self.shared.books().faults.hold_after = None;
        self.shared.changed.notify_all();
    }

    /// Answers that are held.
    pub fn held(&self) -> usize {
        self.shared.books().held
    }

    /// Bytes of files that were sent.
    pub fn sent(&self) -> u64 {
        self.shared.books().sent
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.books().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        let mut books = self.shared.books();
        books.seen.clear();
        books.sent = 0;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.books().stopped = true;
        self.shared.changed.notify_all();
        // Wakes those that wait for a connection.
        for door in [self.shared.hub, self.shared.elsewhere] {
            let _ = TcpStream::connect(door);
        }
        for door in self.doors.drain(..) {
            let _ = door.join();
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.books().stopped {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A client that goes away is no failure of the hub.
            let _ = converse(&stream, &shared);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
    }
}

/// Requests of one connection, one after the other.
fn converse(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let elsewhere = stream.local_addr()? == shared.elsewhere;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let seen = Seen {
            elsewhere,
            path,
            range: headers.get("range").cloned(),
            authorization: headers.get("authorization").cloned(),
        };
        shared.books().seen.push(seen.clone());
        answer(stream, shared, &seen)?;
    }
}

fn head(
    mut stream: &TcpStream,
    status: u16,
    headers: &[(&str, String)],
    length: u64,
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    stream.write_all(text.as_bytes())
}

fn answer(mut stream: &TcpStream, shared: &Shared, seen: &Seen) -> std::io::Result<()> {
    let faults = shared.books().faults.clone();
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let path = decoded(path);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if seen.elsewhere {
        return stored(stream, shared, seen, &parts, query);
    }
    if let Some(token) = &faults.token
        && seen.authorization.as_deref() != Some(&format!("Bearer {token}"))
    {
        let (status, code) = match &seen.authorization {
            None => (401, "GatedRepo"),
            Some(_) => (403, "GatedRepo"),
        };
        return head(stream, status, &[("x-error-code", code.into())], 0);
    }
    match parts.as_slice() {
        ["api", "models", org, repo, "tree", "main"] => {
            if let Some(status) = faults.list_status {
                return head(stream, status, &[], 0);
            }
            let Some((body, next)) = page(shared, &format!("{org}/{repo}"), &faults, query) else {
                return head(stream, 404, &[("x-error-code", "RepoNotFound".into())], 0);
            };
            let link = next.map(|next| {
                let url = format!("http://{}{path}?recursive=true&cursor={next}", shared.hub);
                ("link", format!("<{url}>; rel=\"next\""))
            });
            let headers: Vec<(&str, String)> = link.into_iter().collect();
            head(stream, 200, &headers, body.len() as u64)?;
            stream.write_all(body.as_bytes())
        }
        [org, repo, "resolve", "main", rest @ ..] => {
            let repo = format!("{org}/{repo}");
            let Some(bytes) = find(shared, &repo, &rest.join("/")) else {
                return head(stream, 404, &[("x-error-code", "EntryNotFound".into())], 0);
            };
            let commit = ("x-repo-commit", COMMIT.to_owned());
            if faults.redirect {
                let mut books = shared.books();
                books.addresses.push(0);
                let place = format!(
                    "http://{}/{repo}/{}?address={}",
                    shared.elsewhere,
                    rest.join("/"),
                    books.addresses.len() - 1
                );
                drop(books);
                return head(stream, 302, &[("location", place), commit], 0);
            }
            send(stream, shared, seen, &bytes, commit)
        }
        _ => head(stream, 404, &[], 0),
    }
}

/// A file by an address that the hub gave.
fn stored(
    stream: &TcpStream,
    shared: &Shared,
    seen: &Seen,
    parts: &[&str],
    query: &str,
) -> std::io::Result<()> {
    let given = query
        .strip_prefix("address=")
        .and_then(|text| text.parse::<usize>().ok());
    let mut books = shared.books();
    let most = books.faults.address_uses.unwrap_or(usize::MAX);
    let fresh = given
        .and_then(|given| books.addresses.get_mut(given))
        .is_some_and(|uses| {
            *uses += 1;
            *uses <= most
        });
    drop(books);
    let bytes = match parts {
        [org, repo, rest @ ..] => find(shared, &format!("{org}/{repo}"), &rest.join("/")),
        _ => None,
    };
    match bytes {
        Some(bytes) if fresh => send(stream, shared, seen, &bytes, ("x-from", "files".into())),
        Some(_) => head(stream, 403, &[], 0),
        None => head(stream, 404, &[], 0),
    }
}

fn find(shared: &Shared, repo: &str, path: &str) -> Option<Arc<Vec<u8>>> {
    let books = shared.books();
    let files = books.files.get(repo)?;
    let (_, bytes) = files.iter().find(|(own, _)| own == path)?;
    Some(Arc::clone(bytes))
}

/// The list of files from the cursor on, and the next cursor.
fn page(
    shared: &Shared,
    repo: &str,
    faults: &Faults,
    query: &str,
) -> Option<(String, Option<usize>)> {
    let cursor = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("cursor="));
    let first: usize = cursor.and_then(|text| text.parse().ok()).unwrap_or(0);
    let books = shared.books();
    let files = books.files.get(repo)?;
    let most = faults.page.unwrap_or(usize::MAX);
    let extra = u64::from(faults.wrong_size);
    let entries: Vec<serde_json::Value> = files
        .iter()
        .skip(first)
        .take(most)
        .map(|(path, bytes)| {
            let size = bytes.len() as u64 + extra;
            match path.ends_with(".gguf") || path.ends_with(".safetensors") {
                true => json!({
                    "type": "file",
                    "oid": "0",
                    "size": size,
                    "lfs": {"oid": Digest::of_bytes(bytes).hex(), "size": size, "pointerSize": 134},
                    "path": path,
                }),
                false => json!({"type": "file", "oid": "0", "size": size, "path": path}),
            }
        })
        .collect();
    let next = first + entries.len();
    let body = serde_json::Value::Array(entries).to_string();
    Some((body, (next < files.len()).then_some(next)))
}

/// A file or a range of it, with everything that can go wrong on the way.
fn send(
    mut stream: &TcpStream,
    shared: &Shared,
    seen: &Seen,
    bytes: &[u8],
    header: (&str, String),
) -> std::io::Result<()> {
    let mut books = shared.books();
    if let Some((status, times)) = books.faults.status.filter(|(_, times)| *times > 0) {
        books.faults.status = Some((status, times - 1));
        let headers: Vec<(&str, String)> = books.faults.status_header.clone().into_iter().collect();
        drop(books);
        return head(stream, status, &headers, 0);
    }
    let faults = books.faults.clone();
    drop(books);
    let total = bytes.len() as u64;
    let asked = seen.range.as_deref().filter(|_| !faults.no_ranges);
    let range = asked.and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let last = last.parse().unwrap_or(total - 1).min(total - 1);
        Some((first.parse::<u64>().ok()?, last))
    });
    let (first, end) = match range {
        Some((first, last)) => {
            let content = ("content-range", format!("bytes {first}-{last}/{total}"));
            head(stream, 206, &[content, header], last + 1 - first)?;
            (first, last + 1)
        }
        None => {
            head(stream, 200, &[header], total)?;
            (0, total)
        }
    };
    let mut at = first;
    while at < end {
        let next = (at + PIECE as u64).min(end);
        let mut piece = bytes[at as usize..next as usize].to_vec();
        // In the weights, where only a checksum finds it.
        let wrong = total - 1;
        if faults.wrong_bit && (at..next).contains(&wrong) {
            piece[(wrong - at) as usize] ^= 1;
        }
        let mut books = shared.books();
        if let Some((after, times)) = books.faults.cuts
            && times > 0
            && next - first > after
        {
            books.faults.cuts = Some((after, times - 1));
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        if books
            .faults
            .dies_after
            .is_some_and(|after| books.sent >= after)
        {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        let generation = books.generation;
        books.held += 1;
        while generation == books.generation
            && books
                .faults
                .hold_after
                .is_some_and(|after| books.sent >= after)
            && !books.stopped
        {
            books = shared
                .changed
                .wait(books)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if generation != books.generation {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        books.held -= 1;
        books.sent += piece.len() as u64;
        drop(books);
        stream.write_all(&piece)?;
        at = next;
    }
    Ok(())
}

/// A path without its percent signs.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.get(..2)).flatten();
        let value = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
