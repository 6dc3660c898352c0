//! Several models under one memory budget: loaded on demand, kept alive, evicted when idle.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hearth_protocol::status::{ModelState, ModelStatus};
use tokio::sync::watch;

use crate::header::Header;
use crate::kv::ParkRoom;
use crate::llama;
use crate::loaded::{Loaded, Work};
use crate::options::{EngineOptions, deep_stack, machine_memory};
use crate::plan::Plan;
use crate::runner::Command;
use crate::{Catalogue, EmbedRequest, Embeddings, EngineError, Generation, ModelSource, Request};

/// The machine's models. Cheap to clone; dropping the last clone stops every model's thread.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: EngineOptions,
    catalogue: Catalogue,
    budget: u64,
    started: Instant,
    models: Mutex<HashMap<String, Arc<Entry>>>,
    /// Held while a model's place in the budget is found.
    loading: Mutex<()>,
    parking: Arc<ParkRoom>,
    /// Whether a file is an embedding model, by its path; read from its header once.
    embeds: Mutex<HashMap<PathBuf, (Stamp, bool)>>,
}

/// Size and time of a file: when they change, so did what it holds.
type Stamp = (u64, Option<SystemTime>);

/// What a loaded model takes of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residence {
    /// Tokens a sequence may have.
    pub context: u32,
    /// Bytes of weights and KV cache.
    pub bytes: u64,
    /// Of those, bytes on a GPU.
    pub gpu_bytes: u64,
    /// When it goes if nobody asks for it; `None` is never.
    pub until: Option<Instant>,
}

/// A model that was asked for at least once.
struct Entry {
    source: ModelSource,
    state: watch::Sender<State>,
    /// Tells a load in progress to stop.
    cancelled: AtomicBool,
    /// Bytes it takes or will take; 0 before its header is read and after it is gone.
    bytes: AtomicU64,
    /// Milliseconds since the engine started.
    last_used: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
enum State {
    Loading { progress: f32, since: Instant },
    Ready(Arc<Loaded>),
    Failed(EngineError),
    Gone,
}

impl Engine {
    /// Ends every model's thread and waits for it; blocks. A process that ends while one computes takes the code away that
    /// it runs in.
    pub fn stop(&self) {
        self.inner.stop();
    }

    /// Starts without loading anything.
    pub fn new(options: EngineOptions, catalogue: Catalogue) -> Self {
        if let Err(reason) = crate::cpu::select_forced(options.cpu.as_deref()) {
            tracing::warn!("{reason}");
        }
        let budget = options
            .memory_budget
            .unwrap_or_else(|| machine_memory() / 4 * 3);
        let parking = ParkRoom::new(
            options
                .model
                .park_bytes
                .unwrap_or_else(|| (machine_memory() / 8).min(8 << 30)),
        );
        let inner = Inner {
            options,
            catalogue,
            budget,
            started: Instant::now(),
            models: Mutex::new(HashMap::new()),
            loading: Mutex::new(()),
            parking: Arc::new(parking),
            embeds: Mutex::new(HashMap::new()),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Names to files.
    pub fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    /// Starts an answer; `model` of `None` is the default model. Loads the model if need be and waits
    /// [`EngineOptions::load_wait`] for it. Everything that is wrong with the request is reported here, before the
    /// first event.
    pub async fn generate(
        &self,
        model: Option<&str>,
        request: Request,
    ) -> Result<Generation, EngineError> {
        let source = self.inner.catalogue.resolve(model)?;
        let request = Arc::new(request);
        loop {
            let (entry, loaded) = self
                .ready(&source, Some(self.inner.options.load_wait))
                .await?;
            loaded.check(&request)?;
            // Before the work of preparing, so that the model does not count as idle meanwhile.
            let place = loaded.reserve(request.n, self.inner.options.queue_limit)?;
            let preparing = Arc::clone(&loaded);
            let asked = Arc::clone(&request);
            let (tasks, generation) = deep(move || preparing.prepare(&asked)).await??;
            // A thread that ended just now (keep-alive, eviction) refuses; the model is then loaded again.
            if loaded.send(Command::Run(tasks)).is_ok() {
                place.keep();
                return Ok(generation);
            }
            drop(place);
            entry.gone().await;
        }
    }

    /// Tokens of a request's prompt, as [`Engine::generate`] counts them. Loads the model as that does, and reports
    /// what is wrong with the prompt.
    pub async fn count(&self, model: Option<&str>, request: Request) -> Result<u32, EngineError> {
        let source = self.inner.catalogue.resolve(model)?;
        let (_, loaded) = self
            .ready(&source, Some(self.inner.options.load_wait))
            .await?;
        loaded.check(&request)?;
        deep(move || loaded.count(&request.prompt)).await?
    }

    /// Computes the vectors of texts. `model` of `None` is the default model if it embeds, else the first one of the
    /// catalogue that does. Loads the model as [`Engine::generate`] does. Dropping the future cancels the request.
    pub async fn embed(
        &self,
        model: Option<&str>,
        request: EmbedRequest,
    ) -> Result<Embeddings, EngineError> {
        let (inner, model) = (Arc::clone(&self.inner), model.map(ToOwned::to_owned));
        let source = deep(move || inner.embedder(model.as_deref())).await??;
        let request = Arc::new(request);
        loop {
            let (entry, loaded) = self
                .ready(&source, Some(self.inner.options.load_wait))
                .await?;
            let place = loaded.reserve(1, self.inner.options.queue_limit)?;
            let preparing = Arc::clone(&loaded);
            let asked = Arc::clone(&request);
            let (job, outcome) = deep(move || preparing.embedding(&asked)).await??;
            let prompt_tokens = job.tokens();
            if loaded.send(Command::Embed(job)).is_ok() {
                place.keep();
                let vectors = outcome.await.unwrap_or(Err(EngineError::Unloaded))?;
                return Ok(Embeddings {
                    model: source.name,
                    vectors,
                    prompt_tokens,
                });
            }
            drop(place);
            entry.gone().await;
        }
    }

    /// Whether a request for vectors that names no model finds one.
    pub fn has_embedder(&self) -> bool {
        self.inner.embedder(None).is_ok()
    }

    /// Loads a model and waits until it is ready, however long it takes.
    pub async fn load(&self, model: Option<&str>) -> Result<(), EngineError> {
        let source = self.inner.catalogue.resolve(model)?;
        self.ready(&source, None).await.map(drop)
    }

    /// Unloads a model as soon as its running requests ended; what waits for a slot is refused. False if it was not
    /// loaded.
    pub async fn unload(&self, model: &str) -> bool {
        let Some(entry) = self.inner.lock().get(model).cloned() else {
            return false;
        };
        if !entry.unload() {
            return false;
        }
        entry.gone().await;
        true
    }

    /// Has a loaded model stay this long after its last request, or for ever, instead of [`EngineOptions::keep_alive`];
    /// no time at all unloads it once it is idle. It is forgotten when the model goes.
    pub fn keep(&self, model: &str, keep_alive: Option<Duration>) {
        let Some(entry) = self.inner.lock().get(model).cloned() else {
            return;
        };
        if let State::Ready(loaded) = &*entry.state.borrow() {
            loaded.counters.keep(keep_alive);
            let _ = loaded.send(Command::Keep);
        }
    }

    /// What a loaded model takes of this machine; `None` if it is not loaded.
    pub fn residence(&self, model: &str) -> Option<Residence> {
        let entry = self.inner.lock().get(model).cloned()?;
        let State::Ready(loaded) = &*entry.state.borrow() else {
            return None;
        };
        let bytes = entry.bytes.load(Ordering::Relaxed);
        Some(Residence {
            context: loaded.plan.context,
            bytes,
            gpu_bytes: match llama::gpu_free_bytes() {
                0 => 0,
                _ => loaded.gpu_bytes(bytes),
            },
            until: loaded.counters.until(loaded.is_busy()),
        })
    }

    /// Whether a model embeds texts; `None` if its file cannot be read. Reads its header once.
    pub fn embeds(&self, source: &ModelSource) -> Option<bool> {
        self.inner.embeds(source)
    }

    /// Every known model and its counters: those of the catalogue first, then those loaded by path.
    pub fn status(&self) -> Vec<ModelStatus> {
        let entries = self.inner.lock();
        let mut sources = self.inner.catalogue.list();
        let mut by_path: Vec<ModelSource> = entries
            .values()
            .filter(|entry| {
                let name = &entry.source.name;
                // One that was removed while it was loaded can be named no more.
                std::path::Path::new(name).is_absolute()
                    && !sources.iter().any(|source| source.name == *name)
            })
            .map(|entry| entry.source.clone())
            .collect();
        by_path.sort_by(|a, b| a.name.cmp(&b.name));
        sources.append(&mut by_path);
        sources
            .iter()
            .map(|source| status_of(source, entries.get(&source.name).map(Arc::as_ref)))
            .collect()
    }

    /// Name of the CPU code in use (`zen4`, `haswell`, …).
    pub fn cpu(&self) -> &'static str {
        llama::initialise()
    }

    /// Name of the GPU that computes; `None` without one.
    pub fn gpu(&self) -> Option<String> {
        llama::gpu_name()
    }

    /// Names that [`EngineOptions::cpu`] may have on this machine, the best first.
    pub fn cpu_codes() -> Vec<&'static str> {
        crate::cpu::available().collect()
    }

    /// The model, loaded; waits for at most `patience`.
    async fn ready(
        &self,
        source: &ModelSource,
        patience: Option<Duration>,
    ) -> Result<(Arc<Entry>, Arc<Loaded>), EngineError> {
        let entry = loop {
            let entry = self.inner.entry(source);
            if entry.source.path == source.path {
                break entry;
            }
            // The name means another file since this one was loaded.
            entry.unload();
            entry.gone().await;
        };
        entry.last_used.store(
            self.inner.started.elapsed().as_millis() as u64,
            Ordering::Relaxed,
        );
        let mut state = entry.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Loading { .. }));
        let outcome = match patience {
            Some(patience) => match tokio::time::timeout(patience, settled).await {
                Ok(outcome) => outcome.map(|state| state.clone()),
                Err(_) => Ok(entry.state.borrow().clone()),
            },
            None => settled.await.map(|state| state.clone()),
        };
        match outcome {
            Ok(State::Ready(loaded)) => Ok((entry, loaded)),
            Ok(State::Failed(error)) => Err(error),
            Ok(State::Loading { progress, since }) => {
                let eta = remaining(progress, since);
                Err(EngineError::Loading {
                    name: source.name.clone(),
                    progress,
                    eta,
                })
            }
            Ok(State::Gone) | Err(_) => Err(EngineError::Unloaded),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        // The map is valid after any panic: it is only inserted into and read.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The embedding model that answers to a name. Reads headers.
    fn embedder(&self, name: Option<&str>) -> Result<ModelSource, EngineError> {
        let source = match self.catalogue.resolve(name) {
            Err(EngineError::UnknownModel {
                name,
                known,
                advice,
            }) => {
                let here = self.catalogue.list().into_iter();
                let embed = here.filter(|source| self.embeds(source) == Some(true));
                let names: Vec<String> = embed.map(|source| format!("`{}`", source.name)).collect();
                let advice = match names.as_slice() {
                    [] => advice,
                    names => format!(
                        "{advice}; of the models here, for embeddings: {}",
                        names.join(", ")
                    ),
                };
                return Err(EngineError::UnknownModel {
                    name,
                    known,
                    advice,
                });
            }
            resolved => resolved?,
        };
        if self.embeds(&source) != Some(false) {
            return Ok(source);
        }
        let others = name.is_none().then(|| self.catalogue.list());
        let mut others = others.into_iter().flatten();
        others
            .find(|other| self.embeds(other) == Some(true))
            .ok_or(EngineError::OnlyGenerates { name: source.name })
    }

    /// Whether a model embeds texts; `None` if its file cannot be read, which loading it explains.
    fn embeds(&self, source: &ModelSource) -> Option<bool> {
        let file = std::fs::metadata(&source.path).ok()?;
        let stamp = (file.len(), file.modified().ok());
        let known = || self.embeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, embeds)) = known().get(&source.path).filter(|known| known.0 == stamp) {
            return Some(*embeds);
        }
        let header = Header::read(&source.path).ok()?;
        let embeds = header.pooling.is_some();
        known().insert(source.path.clone(), (stamp, embeds));
        Some(embeds)
    }

    /// The entry of a model; starts loading it unless it is loaded or being loaded.
    fn entry(self: &Arc<Self>, source: &ModelSource) -> Arc<Entry> {
        let mut models = self.lock();
        if let Some(entry) = models.get(&source.name)
            && !matches!(*entry.state.borrow(), State::Failed(_) | State::Gone)
        {
            return Arc::clone(entry);
        }
        let (state, _) = watch::channel(State::Loading {
            progress: 0.0,
            since: Instant::now(),
        });
        let entry = Arc::new(Entry {
            source: source.clone(),
            state,
            cancelled: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            last_used: AtomicU64::new(0),
            thread: Mutex::new(None),
        });
        let (weak, working) = (Arc::downgrade(self), Arc::clone(&entry));
        let span = tracing::Span::current();
        let thread = std::thread::Builder::new()
            .name(format!("model {}", source.name))
            .stack_size(deep_stack())
            .spawn(move || live(&weak, &working, span));
        match thread {
            Ok(thread) => {
                *entry.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread)
            }
            Err(error) => entry.fail(error.to_string()),
        }
        models.insert(source.name.clone(), Arc::clone(&entry));
        entry
    }

    /// Makes `bytes` fit beside the other models by unloading idle ones, least recently used first, and returns how
    /// many bytes the newcomer may take. Blocks. The caller holds `loading`, so that what is found free stays free.
    fn make_room(&self, newcomer: &str, bytes: u64) -> Result<u64, EngineError> {
        loop {
            let others: Vec<Arc<Entry>> = self
                .lock()
                .values()
                .filter(|entry| entry.source.name != newcomer)
                .cloned()
                .collect();
            let taken: u64 = others
                .iter()
                .map(|entry| entry.bytes.load(Ordering::Relaxed))
                .sum();
            if taken.saturating_add(bytes) <= self.budget {
                return Ok(self.budget - taken);
            }
            let idle = others
                .iter()
                .filter(|entry| matches!(&*entry.state.borrow(), State::Ready(loaded) if !loaded.is_busy()))
                .min_by_key(|entry| entry.last_used.load(Ordering::Relaxed));
            let Some(victim) = idle else {
                return Err(EngineError::NoRoom {
                    name: newcomer.to_owned(),
                    needed_mib: bytes >> 20,
                    budget_mib: self.budget >> 20,
                    busy_mib: taken >> 20,
                });
            };
            tracing::info!(
                model = victim.source.name,
                "unloading an idle model to make room"
            );
            // False for one that is about to end by itself.
            victim.unload();
            block_on(victim.gone());
        }
    }
}

/// Runs `work` on a thread of its own with a stack for text of any shape.
async fn deep<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let span = tracing::Span::current();
    let failed = |reason: String| EngineError::Compute { reason };
    std::thread::Builder::new()
        .name("prepare".into())
        .stack_size(deep_stack())
        .spawn(move || done.send(span.in_scope(work)))
        .map_err(|error| failed(error.to_string()))?;
    outcome
        .await
        .map_err(|_| failed("preparing the request failed; see the log".into()))
}

/// Waits on a thread that serves nobody else.
fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    Some(runtime.block_on(future))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn stop(&self) {
        let entries: Vec<Arc<Entry>> = self.lock().drain().map(|(_, entry)| entry).collect();
        for entry in &entries {
            entry.cancelled.store(true, Ordering::Relaxed);
            if let State::Ready(loaded) = &*entry.state.borrow() {
                let _ = loaded.send(Command::Stop);
            }
        }
        for entry in entries {
            entry.join();
        }
    }
}

impl Entry {
    fn fail(&self, reason: String) {
        let name = self.source.name.clone();
        self.fail_with(EngineError::LoadFailed { name, reason });
    }

    fn fail_with(&self, error: EngineError) {
        tracing::warn!(%error, "model could not be loaded");
        self.bytes.store(0, Ordering::Relaxed);
        self.state.send_replace(State::Failed(error));
    }

    /// Resolves when the model is not there any more.
    async fn gone(&self) {
        let over = |state: &State| matches!(state, State::Failed(_) | State::Gone);
        let _ = self.state.subscribe().wait_for(over).await;
    }

    /// Asks the model's thread to end; false if there is none.
    fn unload(&self) -> bool {
        match &*self.state.borrow() {
            State::Ready(loaded) => loaded.send(Command::Unload).is_ok(),
            State::Loading { .. } => {
                self.cancelled.store(true, Ordering::Relaxed);
                true
            }
            State::Failed(_) | State::Gone => false,
        }
    }

    fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // A model thread that drops the last engine (through a request's end) must not wait for itself.
        if let Some(thread) =
            thread.filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

/// Tells those who wait for a model when its thread panicked.
struct Guard<'a>(&'a Entry);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its thread failed; see the log".into());
        }
    }
}

/// The life of a model's thread: load, work, go. Loading belongs to the span of whoever asked first.
fn live(engine: &Weak<Inner>, entry: &Entry, span: tracing::Span) {
    let _guard = Guard(entry);
    let Some((loaded, work, keep_alive)) = span.in_scope(|| come_up(engine, entry)) else {
        return;
    };
    drop(span);
    loaded.counters.keep(keep_alive);
    entry.state.send_replace(State::Ready(Arc::new(loaded)));
    if entry.cancelled.load(Ordering::Relaxed) {
        // Cancelled after the last look at progress, when there was nobody to tell yet.
        drop(work);
    } else {
        work();
    }
    entry.bytes.store(0, Ordering::Relaxed);
    entry.state.send_replace(State::Gone);
}

fn come_up(engine: &Weak<Inner>, entry: &Entry) -> Option<(Loaded, Work, Option<Duration>)> {
    let since = Instant::now();
    let header = match Header::read(&entry.source.path) {
        Ok(header) => header,
        Err(reason) => {
            entry.fail(reason);
            return None;
        }
    };
    let (options, plan, parking, keep_alive) = {
        let engine = engine.upgrade()?;
        let options = engine.options.model.clone();
        // The least that must fit: the weights and one context.
        let least = Plan::new(&header, &options, 0, 0).bytes;
        if least > engine.budget {
            entry.fail(format!(
                "it needs {} MiB and models may take {} MiB; choose a smaller model, a shorter context, or raise the \
                 memory budget",
                least >> 20,
                engine.budget >> 20
            ));
            return None;
        }
        let _loading = engine
            .loading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let room = match engine.make_room(&entry.source.name, least) {
            Ok(room) => room,
            Err(error) => {
                entry.fail_with(error);
                return None;
            }
        };
        let plan = Plan::new(&header, &options, room, llama::gpu_free_bytes());
        entry.bytes.store(plan.bytes, Ordering::Relaxed);
        let is_default = engine.catalogue.default_name() == Some(entry.source.name.as_str());
        (
            options,
            plan,
            Arc::clone(&engine.parking),
            engine.options.keep_alive.filter(|_| !is_default),
        )
    };
    let mut hear = |progress: f32| {
        entry.state.send_replace(State::Loading { progress, since });
        !entry.cancelled.load(Ordering::Relaxed)
    };
    match Loaded::load(&entry.source, header, plan, &options, parking, &mut hear) {
        Ok((loaded, work)) => {
            tracing::info!(
                model = entry.source.name,
                milliseconds = since.elapsed().as_millis() as u64,
                "model loaded"
            );
            Some((loaded, work, keep_alive))
        }
        Err(_) if entry.cancelled.load(Ordering::Relaxed) => {
            entry.bytes.store(0, Ordering::Relaxed);
            entry.state.send_replace(State::Gone);
            None
        }
        Err(reason) => {
            entry.fail(reason);
            None
        }
    }
}

fn remaining(progress: f32, since: Instant) -> Duration {
    let share = progress.clamp(0.01, 1.0);
    since
        .elapsed()
        .mul_f32((1.0 - share) / share)
        .max(Duration::from_millis(500))
}

fn status_of(source: &ModelSource, entry: Option<&Entry>) -> ModelStatus {
    let mut status = ModelStatus {
        name: source.name.clone(),
        state: ModelState::Idle,
        progress: None,
        eta_seconds: None,
        error: None,
        size_bytes: source.size(),
        architecture: None,
        parameters: None,
        context: None,
        dimensions: None,
        load: None,
    };
    match entry.map(|entry| entry.state.borrow().clone()) {
        Some(State::Loading { progress, since }) => {
            status.state = ModelState::Loading;
            status.progress = Some(progress);
            status.eta_seconds = Some(remaining(progress, since).as_secs_f32());
        }
        Some(State::Ready(loaded)) => {
            status.state = ModelState::Ready;
            status.architecture = Some(loaded.header.architecture.clone());
            status.parameters = Some(loaded.parameters());
            status.context = Some(loaded.plan.context);
            status.dimensions = loaded.dimensions();
            status.load = Some(loaded.counters.snapshot());
        }
        Some(State::Failed(error)) => {
            status.state = ModelState::Failed;
            status.error = Some(error.to_string());
        }
        Some(State::Gone) | None => {}
    }
    status
}
