//! Brings one file into the store: several ranges at once, again after a cut, and not believed before its checksum
//! fits.
//!
//! Threads bring chunks and note each in the map beside the partial file. The caller's thread tells the progress and
//! hashes the chunks in order as they come, so that the checksum is known almost as soon as the last one is here. A
//! cancelled caller returns at once; a thread that still waits for the network ends by itself and holds the claim until
//! then, so that nobody else writes to the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;
use crate::chunks::{Chunks, map_path};
use crate::claim::Claim;
use crate::disk;
use crate::error::{Error, Reason};
use crate::http::{Http, Reply, Unanswered};
use crate::manifest::{Digest, ModelFile};
use crate::store::ModelStore;

/// Bytes read from a connection at once.
const PIECE: usize = 256 << 10;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);
/// Longest pause between two tries that we choose ourselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Who needed longer than this to find nobody there does not look again.
const QUICK: Duration = Duration::from_secs(3);
/// Longest pause that a server can ask for; beyond it the pull fails and says so.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// What is wrong when a server answers with this status.
pub(crate) type Explain = Arc<dyn Fn(&Http, &mut Reply) -> Error + Send + Sync>;

/// A server, and how we deal with it.
#[derive(Clone)]
pub(crate) struct Server {
    pub http: Arc<Http>,
    pub explain: Explain,
    /// What is wrong when nobody is there, from what the network said.
    pub absent: fn(&str) -> Error,
    /// Whether anybody answered yet.
    pub met: Arc<AtomicBool>,
    pub connections: usize,
    pub chunk: u64,
    pub retries: u32,
    pub backoff: Duration,
    pub cancel: Cancel,
}

/// Why a try failed.
enum Trouble {
    /// No other try can help.
    Final(Error),
    /// Another one may, after the time that the server asked for, if it did.
    Passing(Error, Option<Duration>),
    /// Nobody was ever met at that address: mostly it is wrong, or there is no network. One more try is enough.
    Nobody(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// The network failed; what came is kept.
fn unreachable(what: String) -> Error {
    Error::new(Reason::Unreachable, what)
        .fix("check the network and run the same command again; it goes on where it stopped")
}

/// Tries left, and the pauses between them.
struct Patience<'a> {
    server: &'a Server,
    since: Instant,
    tried: u32,
}

impl<'a> Patience<'a> {
    fn new(server: &'a Server) -> Self {
        Self {
            server,
            since: Instant::now(),
            tried: 0,
        }
    }

    /// Something came: the next trouble is a new one.
    fn renew(&mut self) {
        self.tried = 0;
    }

    /// Waits before the next try and tells of it, or gives up with what went wrong.
    fn pause(&mut self, trouble: Trouble, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let (error, asked, retries) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Passing(error, asked) => (error, asked, self.server.retries),
            Trouble::Nobody(error) if self.since.elapsed() > QUICK => return Err(error),
            Trouble::Nobody(error) => (error, None, self.server.retries.min(1)),
        };
        self.tried += 1;
        let asked_too_much = asked.is_some_and(|asked| asked > LONGEST_ASKED);
        if self.tried > retries || asked_too_much {
            return Err(error);
        }
        let own = self.server.backoff * 2u32.saturating_pow(self.tried - 1);
        let (next, tries) = (self.tried + 1, retries + 1);
        let what = format!("{}; trying again ({next} of {tries})", error.message());
        tracing::debug!("{what}");
        tell(&what);
        self.server
            .cancel
            .wait(asked.unwrap_or(own.min(LONGEST_PAUSE)))
    }
}

impl Server {
    /// One try of a GET that must succeed.
    fn once(&self, url: &str, range: Option<(u64, u64)>) -> Result<Reply, Trouble> {
        self.cancel.check()?;
        let lost = |lost: Unanswered| match (lost.passing, lost.nobody) {
            (true, true) if !self.met.load(Ordering::Relaxed) => {
                Trouble::Nobody((self.absent)(&lost.what))
            }
            (true, _) => Trouble::Passing(unreachable(lost.what), None),
            (false, _) => Trouble::Final(
                Error::new(Reason::Unreachable, lost.what)
                    .fix("check the address, and the clock and certificates of this machine"),
            ),
        };
        let mut reply = self.http.get(url, range).map_err(lost)?;
        self.met.store(true, Ordering::Relaxed);
        match reply.status {
            200 | 206 => Ok(reply),
            408 | 429 | 500..=599 => {
                let asked = reply
                    .header("retry-after")
                    .and_then(|text| text.parse().ok());
                let error = (self.explain)(&self.http, &mut reply);
                Err(Trouble::Passing(error, asked.map(Duration::from_secs)))
            }
            _ => Err(Trouble::Final((self.explain)(&self.http, &mut reply))),
        }
    }

    /// A GET that is tried again where that can help; `tell` hears what went wrong before each further try.
    pub fn ask(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Reply, Error> {
        let mut patience = Patience::new(self);
        loop {
            match self.once(url, range) {
                Ok(reply) => return Ok(reply),
                Err(trouble) => patience.pause(trouble, tell)?,
            }
        }
    }
}

/// What the server said of a file before its first byte was kept.
pub(crate) struct Probe {
    /// Where the file really is, after redirects.
    location: String,
    /// Whether parts of it can be asked for.
    ranges: bool,
    /// Value of the header that names the commit, if the answer had it.
    pub commit: Option<String>,
}

/// Looks whether a file is there, is as long as it should be, and can be had in parts.
pub(crate) fn probe(
    server: &Server,
    url: &str,
    file: &ModelFile,
    tell: &mut dyn FnMut(&str),
) -> Result<Probe, Error> {
    let reply = server.ask(url, Some((0, 1)), tell)?;
    let length = match reply.status {
        206 => content_range(&reply).and_then(|(_, total)| total),
        _ => reply
            .header("content-length")
            .and_then(|text| text.parse().ok()),
    };
    if let Some(length) = length.filter(|length| *length != file.size) {
        return Err(Error::new(
            Reason::Corrupt,
            format!(
                "{} is listed with {} bytes and has {length}",
                file.name, file.size
            ),
        )
        .fix(
            "run the same command again in some minutes; the file may have been replaced just now",
        ));
    }
    Ok(Probe {
        ranges: reply.status == 206,
        commit: reply.header(crate::hub::COMMIT).map(str::to_owned),
        location: reply.url,
    })
}

/// First byte and length of the whole file, of a `Content-Range` header (RFC 9110, 14.4).
fn content_range(reply: &Reply) -> Option<(u64, Option<u64>)> {
    let (range, total) = reply
        .header("content-range")?
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()))
}

/// A small file, whole; tried again where that can help.
pub(crate) fn small(
    server: &Server,
    url: &str,
    name: &str,
    size: u64,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, Error> {
    let once = || {
        let reply = server.once(url, None)?;
        let host = crate::http::host(&reply.url).to_owned();
        let mut bytes = Vec::new();
        let read = reply.into_reader().take(size + 1).read_to_end(&mut bytes);
        read.map_err(|error| {
            let what = format!("the connection to {host} broke while {name} came: {error}");
            Trouble::Passing(unreachable(what), None)
        })?;
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let what = format!("{name} is listed with {size} bytes and has another length");
        Err(Trouble::Final(Error::new(Reason::Corrupt, what).fix(
            "run the same command again in some minutes; the file may have been replaced just now",
        )))
    };
    let mut patience = Patience::new(server);
    loop {
        match once() {
            Ok(bytes) => return Ok(bytes),
            Err(trouble) => patience.pause(trouble, tell)?,
        }
    }
}

/// What came is not what was promised.
pub(crate) fn wrong_sum(name: &str, found: &Digest, expected: &Digest) -> Error {
    let message = format!(
        "{name} came with a wrong checksum ({found} instead of {expected}); nothing was installed"
    );
    Error::new(Reason::Corrupt, message).fix("run the same command again; if it stays so, the server or the network changes what it sends: use another one")
}

/// What the threads of one file share.
struct Shared {
    server: Server,
    /// The hub's address of the file, and where it was found last.
    url: String,
    location: Mutex<String>,
    size: u64,
    name: String,
    partial: PathBuf,
    books: Mutex<Books>,
    changed: Condvar,
    /// The file is ours as long as anybody may write to it.
    _claims: Arc<Vec<Claim>>,
}

struct Books {
    chunks: Chunks,
    /// The next chunk that nobody brings yet.
    next: usize,
    /// Bytes of chunks that are not complete.
    flying: HashMap<usize, u64>,
    failed: Option<Error>,
    stopped: bool,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Each change is one assignment; a panic leaves the books as they were.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn location(&self) -> String {
        let location = self.location.lock();
        location.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place that the hub redirected to has gone stale: asks the hub again from now on.
    fn forget_location(&self) {
        let mut location = self.location.lock().unwrap_or_else(PoisonError::into_inner);
        location.clone_from(&self.url);
    }

    /// The next chunk to bring.
    fn take(&self) -> Option<usize> {
        let mut books = self.books();
        if books.stopped {
            return None;
        }
        let next = (books.next..books.chunks.count()).find(|index| !books.chunks.is_done(*index));
        books.next = next.map_or(books.chunks.count(), |index| index + 1);
        next
    }

    fn is_stopped(&self) -> bool {
        self.books().stopped
    }

    fn came(&self, index: usize, bytes: u64) {
        *self.books().flying.entry(index).or_default() = bytes;
    }

    fn finish(&self, index: usize) -> Result<(), Error> {
        let mut books = self.books();
        books.flying.remove(&index);
        let outcome = books.chunks.finish(index);
        drop(books);
        self.changed.notify_all();
        outcome
    }

    fn fail(&self, error: Error) {
        let mut books = self.books();
        books.stopped = true;
        books.failed.get_or_insert(error);
        drop(books);
        self.changed.notify_all();
    }

    fn open(&self, at: u64) -> Result<File, Error> {
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.partial)
            .and_then(|mut file| file.seek(SeekFrom::Start(at)).map(|_| file));
        opened.map_err(|error| self.unwritten(&error))
    }

    fn unwritten(&self, error: &io::Error) -> Error {
        Error::storage("write", &self.partial, error)
    }

    fn cut(&self, error: &io::Error) -> Trouble {
        let host = crate::http::host(&self.location());
        let what = format!(
            "the connection to {host} broke while {} came: {error}",
            self.name
        );
        Trouble::Passing(unreachable(what), None)
    }

    /// One try to bring the bytes from `at` to `end` of a chunk; `at` moves with what is written.
    fn stream(&self, index: usize, at: &mut u64, end: u64) -> Result<(), Trouble> {
        let location = self.location();
        let reply = match self.server.once(&location, Some((*at, end))) {
            // Signed addresses expire; the hub gives a new one.
            Err(Trouble::Final(_)) if location != self.url && !self.is_stopped() => {
                self.forget_location();
                let reply = self.server.once(&self.url, Some((*at, end)))?;
                let mut place = self.location.lock().unwrap_or_else(PoisonError::into_inner);
                place.clone_from(&reply.url);
                reply
            }
            other => other?,
        };
        let fits = content_range(&reply).is_some_and(|(first, total)| {
            first == *at && total.is_none_or(|total| total == self.size)
        });
        if reply.status != 206 || !fits {
            let what = format!(
                "{} does not send the part of {} that was asked for",
                crate::http::host(&location),
                self.name
            );
            return Err(Trouble::Passing(unreachable(what), None));
        }
        let (first, _) = self.books().chunks.range(index);
        let mut file = self.open(*at)?;
        let mut body = reply.into_reader().take(end - *at);
        let mut piece = vec![0; PIECE];
        while *at < end {
            let count = match body.read(&mut piece) {
                Ok(0) => {
                    let short = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended early");
                    return Err(self.cut(&short));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.cut(&error)),
            };
            if self.is_stopped() {
                return Err(Error::cancelled().into());
            }
            file.write_all(&piece[..count])
                .map_err(|error| self.unwritten(&error))?;
            *at += count as u64;
            self.came(index, *at - first);
        }
        Ok(())
    }

    /// A thread's work: one chunk after the other.
    fn bring(&self) -> Result<(), Error> {
        while let Some(index) = self.take() {
            let (first, end) = self.books().chunks.range(index);
            let mut at = first;
            let mut patience = Patience::new(&self.server);
            loop {
                let before = at;
                let Err(trouble) = self.stream(index, &mut at, end) else {
                    break;
                };
                if at > before {
                    patience.renew();
                }
                patience.pause(trouble, &mut |_| {})?;
                if self.is_stopped() {
                    return Ok(());
                }
            }
            self.finish(index)?;
        }
        Ok(())
    }

    /// The work of the only thread where the server knows no ranges: the whole file from its start, until it comes
    /// through.
    fn bring_whole(&self) -> Result<(), Error> {
        let mut patience = Patience::new(&self.server);
        loop {
            match self.stream_whole() {
                Ok(()) => return Ok(()),
                Err(trouble) => patience.pause(trouble, &mut |_| {})?,
            }
        }
    }

    fn stream_whole(&self) -> Result<(), Trouble> {
        let reply = self.server.once(&self.url, None)?;
        let mut body = reply.into_reader().take(self.size);
        let mut piece = vec![0; PIECE];
        let count = self.books().chunks.count();
        for index in 0..count {
            let (first, end) = self.books().chunks.range(index);
            let mut file = self.open(first)?;
            let mut at = first;
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let count = match body.read(&mut piece[..most]) {
                    Ok(0) => {
                        let short = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended early");
                        return Err(self.cut(&short));
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(self.cut(&error)),
                };
                if self.is_stopped() {
                    return Err(Error::cancelled().into());
                }
                file.write_all(&piece[..count])
                    .map_err(|error| self.unwritten(&error))?;
                at += count as u64;
                if !self.books().chunks.is_done(index) {
                    self.came(index, at - first);
                }
            }
            drop(file);
            self.finish(index)?;
        }
        Ok(())
    }
}

/// Ends the threads when the caller returns, however it does.
struct Stop(Arc<Shared>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.books().stopped = true;
    }
}

/// What is told while a file comes: bytes of it that are here, and whether only the checksum is still missing.
pub(crate) type Hear<'a> = &'a mut dyn FnMut(u64, bool);

/// Where a blob is put together.
pub(crate) fn partial_path(store: &ModelStore, digest: &Digest) -> PathBuf {
    store.partials().join(digest.file())
}

/// Bytes of a blob that an earlier pull left behind.
pub(crate) fn resumable(store: &ModelStore, file: &ModelFile) -> u64 {
    Chunks::resumable(&partial_path(store, &file.digest), file.size)
}

/// Removes what is left of a blob's way. The caller holds its claim.
pub(crate) fn forget(store: &ModelStore, digest: &Digest) -> Result<(), Error> {
    let partial = partial_path(store, digest);
    disk::remove(&map_path(&partial))?;
    disk::remove(&partial).map(drop)
}

/// Brings a file and makes it a blob. The caller holds its claim.
pub(crate) fn fetch(
    store: &ModelStore,
    server: &Server,
    url: &str,
    probe: &Probe,
    file: &ModelFile,
    claims: &Arc<Vec<Claim>>,
    hear: Hear<'_>,
) -> Result<(), Error> {
    let partial = partial_path(store, &file.digest);
    loop {
        let chunks = Chunks::open(&partial, file.size, server.chunk)?;
        let resumed = chunks.bytes() > 0;
        let found = run(server, url, probe, file, &partial, chunks, claims, hear)?;
        if found == file.digest {
            return store.settle_blob(&partial, &file.digest);
        }
        forget(store, &file.digest)?;
        if resumed {
            // What an earlier pull left may have been damaged since; the whole file is given one more chance.
            tracing::warn!("{} came together wrong; fetching it anew", file.name);
            continue;
        }
        return Err(wrong_sum(&file.name, &found, &file.digest));
    }
}

#[allow(clippy::too_many_arguments)]
fn run(
    server: &Server,
    url: &str,
    probe: &Probe,
    file: &ModelFile,
    partial: &Path,
    chunks: Chunks,
    claims: &Arc<Vec<Claim>>,
    hear: Hear<'_>,
) -> Result<Digest, Error> {
    let count = chunks.count();
    let missing = (0..count).filter(|index| !chunks.is_done(*index)).count();
    let shared = Arc::new(Shared {
        server: server.clone(),
        url: url.to_owned(),
        location: Mutex::new(probe.location.clone()),
        size: file.size,
        name: file.name.clone(),
        partial: partial.to_owned(),
        books: Mutex::new(Books {
            chunks,
            next: 0,
            flying: HashMap::new(),
            failed: None,
            stopped: false,
        }),
        changed: Condvar::new(),
        _claims: Arc::clone(claims),
    });
    let _stop = Stop(Arc::clone(&shared));
    let threads = match (missing, probe.ranges) {
        (0, _) => 0,
        (_, false) => 1,
        (missing, true) => server.connections.clamp(1, missing),
    };
    let mut working = Vec::new();
    for _ in 0..threads {
        let (own, ranges) = (Arc::clone(&shared), probe.ranges);
        let work = move || {
            let outcome = match ranges {
                true => own.bring(),
                false => own.bring_whole(),
            };
            if let Err(error) = outcome {
                own.fail(error);
            }
        };
        let spawned = std::thread::Builder::new().name("pull".into()).spawn(work);
        working.push(spawned.map_err(|error| {
            Error::new(Reason::Storage, format!("cannot start a thread: {error}"))
        })?);
    }
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    for index in 0..count {
        wait_for(&shared, index, hear)?;
        let (first, end) = shared.books().chunks.range(index);
        let failed = |error| Error::storage("read", partial, &error);
        let mut source = File::open(partial).map_err(failed)?;
        source.seek(SeekFrom::Start(first)).map_err(failed)?;
        let mut source = source.take(end - first);
        loop {
            server.cancel.check()?;
            match source.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => hasher.update(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    // All chunks are here, so these end now, and with them their hold on the file.
    for thread in working {
        let _ = thread.join();
    }
    Ok(Digest::of(hasher))
}

/// Waits until a chunk is complete, and tells how far the file is.
fn wait_for(shared: &Shared, index: usize, hear: Hear<'_>) -> Result<(), Error> {
    loop {
        shared.server.cancel.check()?;
        let books = shared.books();
        let flying: u64 = books.flying.values().sum();
        let bytes = books.chunks.bytes() + flying;
        let (failed, ready) = (books.failed.clone(), books.chunks.is_done(index));
        drop(books);
        hear(bytes, bytes >= shared.size);
        if let Some(error) = failed {
            return Err(error);
        }
        if ready {
            return Ok(());
        }
        let books = shared.books();
        if books.failed.is_none() && !books.chunks.is_done(index) {
            drop(shared.changed.wait_timeout(books, TELL));
        }
    }
}
