//! A loaded model: how it comes up, and how a request becomes tasks for its thread.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::counters::Counters;
use crate::generation::{AdapterUse, EventReceiver, Prompt, Request};
use crate::grammar::{Grammar, GrammarFactory, Vocabulary};
use crate::kv::{KvCache, ParkRoom};
use crate::llama::{Adapter, Context, ContextOptions, Header, Model};
use crate::options::{ModelOptions, longest_word};
use crate::runner::{Command, Runner};
use crate::sampler::Sampler;
use crate::task::{AdapterSet, Job, Task};
use crate::template::{ChatTemplate, TemplateInput};
use crate::text::TextStream;
use crate::{Constraint, EngineError, ModelSource, Token};

/// Most tokens in one batch.
const BATCH: u32 = 512;
/// Longest context taken from a model's own metadata when none is configured, in tokens.
const DEFAULT_CONTEXT: u32 = 8192;
/// Most KV cells; llama.cpp counts them in 32 bits.
const MOST_CELLS: u64 = 1 << 30;
/// Sequence ids beyond the slots' own, for resident prefixes.
const RESIDENT: u32 = 28;
/// Most choices a request may ask for.
const MOST_CHOICES: u32 = 16;

/// Threads that a model of so many bytes is worth. They meet some hundred times for each token; a small model's work
/// between two meetings is so short that a second thread gains little, and when another program takes its core, the
/// first one waits for whole time slices.
fn worthwhile_threads(bytes: u64) -> u32 {
    u32::try_from(1 + (bytes >> 26)).unwrap_or(u32::MAX)
}

/// Physical cores this process may use: fewer than the machine has in a container or under an affinity mask.
fn usable_cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    num_cpus::get_physical().min(allowed) as u32
}

/// What it takes to run a model, decided from its header before anything is loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    /// Tokens a sequence may have.
    pub context: u32,
    /// KV cells for all sequences.
    pub cells: u32,
    /// Bytes of weights and KV cache.
    pub bytes: u64,
    /// Layers on the GPU; −1 is all.
    pub gpu_layers: i32,
}

impl Plan {
    /// Fits a model into `budget` bytes: the slots share the cells of two contexts if there is room, for they are rarely
    /// all at their end at once, and of one at least.
    pub fn new(header: &Header, options: &ModelOptions, budget: u64, gpu_free: u64) -> Self {
        let context = options
            .context
            .unwrap_or(header.context.min(DEFAULT_CONTEXT))
            .max(64);
        let per_token = header.kv_bytes_per_token(options.kv).max(1);
        let spare = budget.saturating_sub(header.bytes) / per_token;
        let wanted = u64::from(context) * u64::from(options.slots.min(2));
        let cells = wanted
            .min(spare)
            .max(u64::from(context))
            .min(MOST_CELLS)
            .next_multiple_of(256);
        let bytes = header.bytes.saturating_add(cells.saturating_mul(per_token));
        let gpu_layers = match options.gpu_layers {
            Some(layers) => i32::try_from(layers).unwrap_or(i32::MAX),
            None if gpu_free == 0 => 0,
            // A tenth stays free for compute buffers.
            None if bytes.saturating_add(bytes / 10) <= gpu_free => -1,
            None => {
                let share = u128::from(header.layers) * u128::from(gpu_free)
                    / (u128::from(bytes) * 11 / 10).max(1);
                i32::try_from(share).unwrap_or(i32::MAX)
            }
        };
        Self {
            context,
            cells: cells as u32,
            bytes,
            gpu_layers,
        }
    }
}

/// Places in the queue, given back unless they are kept.
#[derive(Debug)]
pub(crate) struct Place {
    loaded: Arc<Loaded>,
    tasks: u32,
}

impl Place {
    /// The tasks are on their way; whoever takes them out of the queue counts them out.
    pub fn keep(mut self) {
        self.tasks = 0;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let queued = &self.loaded.counters.queued;
        queued.fetch_sub(self.tasks, Ordering::AcqRel);
    }
}

/// A model whose thread runs.
#[derive(Debug)]
pub(crate) struct Loaded {
    name: String,
    pub header: Header,
    pub plan: Plan,
    pub counters: Arc<Counters>,
    model: Arc<Model>,
    template: ChatTemplate,
    /// Tokens that end a generation.
    ends: Vec<Token>,
    /// Bytes of the longest token.
    longest_piece: usize,
    /// By file, so that an adapter is loaded once.
    adapters: Mutex<HashMap<PathBuf, Arc<Adapter>>>,
    grammars: OnceLock<Result<GrammarFactory, EngineError>>,
    commands: UnboundedSender<Command>,
    /// Makes two seeds drawn in the same instant differ.
    seeds: AtomicU32,
}

impl Loaded {
    /// Loads weights and allocates the context; blocks. Returns the model and what its thread runs.
    pub fn load(
        source: &ModelSource,
        header: Header,
        plan: Plan,
        options: &ModelOptions,
        parking: Arc<ParkRoom>,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<(Self, Runner, UnboundedReceiver<Command>), String> {
        let model = Arc::new(Model::load(&source.path, plan.gpu_layers, progress)?);
        if !model.is_generative() {
            return Err(format!(
                "a `{}` model does not generate text",
                header.architecture
            ));
        }
        let template = match model.chat_template() {
            Some(text) => {
                ChatTemplate::new(&text).map_err(|error| format!("its chat template: {error}"))?
            }
            None => ChatTemplate::chatml(),
        };
        let threads = options
            .threads
            .unwrap_or_else(|| worthwhile_threads(header.bytes).min(usable_cores()));
        let whole_only = model.is_recurrent();
        let sequences = options.slots + if whole_only { options.slots } else { RESIDENT };
        let context = Context::new(
            &model,
            ContextOptions {
                cells: plan.cells,
                sequences,
                batch: BATCH,
                threads,
                kv: options.kv,
                flash_attention: options.fuses(plan.context, plan.gpu_layers != 0),
            },
        )?;
        let ends = (0..model.vocabulary_size() as Token)
            .filter(|token| model.is_end(*token))
            .collect();
        let longest_piece = (0..model.vocabulary_size() as Token)
            .map(|token| model.piece(token, true).len())
            .max()
            .unwrap_or(1);
        let counters = Arc::new(Counters::default());
        counters.slots.store(options.slots, Ordering::Relaxed);
        counters.kv_cells.store(plan.cells, Ordering::Relaxed);
        let kv = KvCache::new(plan.cells, sequences, parking, whole_only);
        let runner = Runner::new(context, kv, options.slots, BATCH, Arc::clone(&counters));
        let (commands, receiver) = unbounded_channel();
        let loaded = Self {
            name: source.name.clone(),
            header,
            plan,
            counters,
            model,
            template,
            ends,
            longest_piece,
            adapters: Mutex::new(HashMap::new()),
            grammars: OnceLock::new(),
            commands,
            seeds: AtomicU32::new(0),
        };
        Ok((loaded, runner, receiver))
    }

    /// Parameters of the model.
    pub fn parameters(&self) -> u64 {
        self.model.parameters()
    }

    /// Whether requests run or wait.
    pub fn is_busy(&self) -> bool {
        self.counters.slots_busy.load(Ordering::Relaxed)
            + self.counters.queued.load(Ordering::Relaxed)
            > 0
    }

    /// Counts `n` tasks as queued if they find a slot or a place among the `limit` that may wait.
    pub fn reserve(self: &Arc<Self>, n: u32, limit: usize) -> Result<Place, EngineError> {
        let slots = self.counters.slots.load(Ordering::Relaxed);
        let free = slots.saturating_sub(self.counters.slots_busy.load(Ordering::Relaxed)) as usize;
        let places = |free: usize| u32::try_from(limit.saturating_add(free)).unwrap_or(u32::MAX);
        if n > places(slots as usize) {
            return Err(EngineError::Invalid {
                field: "n",
                message: format!(
                    "n is {n}, and this node takes {} at once",
                    places(slots as usize)
                ),
            });
        }
        let queue = |queued: u32| {
            queued
                .checked_add(n)
                .filter(|queued| *queued <= places(free).max(slots))
        };
        match self
            .counters
            .queued
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, queue)
        {
            Ok(_) => Ok(Place {
                loaded: Arc::clone(self),
                tasks: n,
            }),
            Err(_) => Err(EngineError::QueueFull {
                name: self.name.clone(),
                limit,
            }),
        }
    }

    /// Sends a command to the thread; gives it back if the thread has ended.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.send(command).map_err(|refused| refused.0)
    }

    /// Turns a request that passed [`Loaded::check`] into tasks. What else can be wrong with it is found here. Blocks
    /// for as long as tokenising and compiling take, and may need a deep stack.
    pub fn prepare(&self, request: &Request) -> Result<(Vec<Task>, EventReceiver), EngineError> {
        let prompt = self.tokens(&request.prompt)?;
        let context = self.plan.context as usize;
        if prompt.len() >= context {
            return Err(EngineError::ContextExceeded {
                prompt_tokens: prompt.len(),
                context,
            });
        }
        let limit = match request.max_tokens {
            Some(most) => context.min(prompt.len() + most as usize),
            None => context,
        };
        let adapters = self.adapters(&request.adapters)?;
        let seed = request.sampling.seed.unwrap_or_else(|| self.fresh_seed());
        let (events, receiver) = unbounded_channel();
        let job = Arc::new(Job {
            events,
            prompt_tokens: prompt.len() as u32,
            cached_tokens: AtomicU32::new(0),
            completion_tokens: AtomicU32::new(0),
            unfinished: AtomicU32::new(request.n),
        });
        let mut sampling = request.sampling.clone().or(&self.header.sampling);
        if request.ignore_eos {
            sampling
                .logit_bias
                .extend(self.ends.iter().map(|token| (*token, f32::NEG_INFINITY)));
        }
        let tasks = (0..request.n)
            .map(|choice| {
                let mut sampler = Sampler::new(&sampling, seed.wrapping_add(choice.into()));
                sampler.observe_prompt(&prompt);
                Ok(Task {
                    job: Arc::clone(&job),
                    choice,
                    adapters: adapters.clone(),
                    tokens: prompt.clone(),
                    limit,
                    sampler,
                    grammar: self.grammar(&request.constraint)?,
                    text: TextStream::new(request.stop.clone()),
                    logprobs: request.logprobs,
                    started: false,
                })
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        Ok((tasks, receiver))
    }

    /// Refuses values that no request may have.
    pub fn check(&self, request: &Request) -> Result<(), EngineError> {
        let invalid = |field, message: String| Err(EngineError::Invalid { field, message });
        if !(1..=MOST_CHOICES).contains(&request.n) {
            return invalid(
                "n",
                format!("n must be 1 to {MOST_CHOICES}, not {}", request.n),
            );
        }
        if request.max_tokens == Some(0) {
            return invalid("max_tokens", "max_tokens must be at least 1".into());
        }
        if request.logprobs.is_some_and(|top| top > 20) {
            return invalid(
                "logprobs",
                "at most 20 alternatives can be reported per token".into(),
            );
        }
        if request.stop.len() > 16 || request.stop.iter().any(String::is_empty) {
            return invalid(
                "stop",
                "stop takes up to 16 texts, none of them empty".into(),
            );
        }
        request.sampling.validate(self.model.vocabulary_size())
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Vec<Token>, EngineError> {
        let invalid = |field, message: String| EngineError::Invalid { field, message };
        let mut tokens = match prompt {
            Prompt::Chat {
                messages,
                tools,
                variables,
            } => {
                if messages.is_empty() {
                    return Err(invalid(
                        "messages",
                        "messages must hold at least one message".into(),
                    ));
                }
                let name = |token: Option<Token>| {
                    let bytes = token
                        .map(|token| self.model.piece(token, true))
                        .unwrap_or_default();
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                let text = self.template.render(&TemplateInput {
                    messages,
                    tools,
                    variables,
                    bos: &name(self.model.bos()),
                    eos: &name(self.model.eos()),
                    add_generation_prompt: true,
                    now: SystemTime::now()
                        .duration_since(UNIX_EPOCH)
                        .unwrap_or(Duration::ZERO)
                        .as_secs() as i64,
                })?;
                self.tokenize("messages", &text)?
            }
            Prompt::Text(text) => self.tokenize("prompt", text)?,
            Prompt::Tokens(tokens) => {
                let size = self.model.vocabulary_size() as Token;
                if let Some(wrong) = tokens.iter().find(|token| !(0..size).contains(*token)) {
                    return Err(invalid(
                        "prompt",
                        format!("token {wrong} is not in the vocabulary (0 to {})", size - 1),
                    ));
                }
                tokens.clone()
            }
        };
        // A template that writes BOS itself, and a vocabulary that adds it: one is enough.
        if let Some(bos) = self.model.bos()
            && tokens.starts_with(&[bos, bos])
        {
            tokens.remove(0);
        }
        if tokens.is_empty() {
            return Err(invalid(
                "prompt",
                "the prompt is empty; give at least one token".into(),
            ));
        }
        Ok(tokens)
    }

    /// Tokens of a text that can fit the context; what cannot is refused without the work.
    fn tokenize(&self, field: &'static str, text: &str) -> Result<Vec<Token>, EngineError> {
        let context = self.plan.context as usize;
        let least = text.len() / self.longest_piece.max(1);
        if least > context {
            return Err(EngineError::ContextExceeded {
                prompt_tokens: least,
                context,
            });
        }
        let words = text.split(char::is_whitespace);
        let most = longest_word();
        if let Some(long) = words.map(str::len).find(|length| *length > most) {
            return Err(EngineError::Invalid {
                field,
                message: format!(
                    "a word of {long} bytes is too long; put a blank into it after {most} at the latest"
                ),
            });
        }
        Ok(self.model.tokenize(text.as_bytes(), true, true))
    }

    fn adapters(&self, wanted: &[AdapterUse]) -> Result<AdapterSet, EngineError> {
        let mut wanted: Vec<&AdapterUse> = wanted
            .iter()
            .filter(|adapter| adapter.scale != 0.0)
            .collect();
        if wanted.is_empty() {
            return Ok(AdapterSet::default());
        }
        wanted.sort_by(|a, b| a.path.cmp(&b.path));
        let mut loaded = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = DefaultHasher::new();
        let mut adapters = Vec::with_capacity(wanted.len());
        for AdapterUse { path, scale } in wanted {
            let adapter = match loaded.get(path) {
                Some(adapter) => Arc::clone(adapter),
                None => {
                    let adapter =
                        self.load_adapter(path)?
                            .map_err(|reason| EngineError::Invalid {
                                field: "adapters",
                                message: format!(
                                    "adapter {} does not fit this model: {reason}",
                                    path.display()
                                ),
                            })?;
                    loaded.insert(path.clone(), Arc::clone(&adapter));
                    adapter
                }
            };
            (path, scale.to_bits()).hash(&mut hasher);
            adapters.push((adapter, *scale));
        }
        // 0 is the key of no adapter.
        Ok(AdapterSet {
            key: hasher.finish().max(1),
            adapters,
        })
    }

    /// Has the model's thread load an adapter; the inner error is the file's.
    fn load_adapter(&self, path: &Path) -> Result<Result<Arc<Adapter>, String>, EngineError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.send(Command::LoadAdapter(path.to_owned(), reply))
            .map_err(|_| EngineError::Unloaded)?;
        outcome.blocking_recv().map_err(|_| EngineError::Unloaded)
    }

    fn grammar(&self, constraint: &Constraint) -> Result<Option<Grammar>, EngineError> {
        if *constraint == Constraint::None {
            return Ok(None);
        }
        // Built on the first constrained request: a trie over the whole vocabulary takes a while.
        let factory = self
            .grammars
            .get_or_init(|| GrammarFactory::new(self.vocabulary()));
        factory.as_ref().map_err(Clone::clone)?.compile(constraint)
    }

    fn vocabulary(&self) -> Vocabulary {
        let all = 0..self.model.vocabulary_size() as Token;
        let special: Vec<bool> = all
            .clone()
            .map(|token| self.model.is_control(token) || self.model.is_end(token))
            .collect();
        let tokens = all
            .map(|token| self.model.piece(token, special[token as usize]))
            .collect();
        let model = Arc::clone(&self.model);
        Vocabulary {
            tokens,
            special,
            eos: self.model.eos().or(self.ends.first().copied()).unwrap_or(0),
            end_of_generation: self.ends.clone(),
            tokenize: Arc::new(move |bytes| inner_tokens(&model, bytes)),
        }
    }

    fn fresh_seed(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_nanos() as u64;
        now ^ (u64::from(self.seeds.fetch_add(1, Ordering::Relaxed)) << 32)
    }
}

/// Tokens of a text in the middle of another. Vocabularies of the SentencePiece kind put a blank before the first
/// word of a text; here the first word is a control character, which is cut off again with its blank.
fn inner_tokens(model: &Model, bytes: &[u8]) -> Option<Vec<Token>> {
    let pieces = |tokens: &[Token]| -> Vec<u8> {
        let pieces = tokens.iter().flat_map(|token| model.piece(*token, false));
        pieces.collect()
    };
    let tokens = model.tokenize(bytes, false, false);
    if pieces(&tokens) == bytes {
        return Some(tokens);
    }
    const BEFORE: &[u8] = b"\x02";
    let before = model.tokenize(BEFORE, false, false);
    let mut tokens = model.tokenize(&[BEFORE, bytes].concat(), false, false);
    let rest = tokens.strip_prefix(before.as_slice())?;
    (pieces(rest) == bytes).then(|| tokens.split_off(before.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        // Qwen3 0.6B's shape: 28 layers, 8 KV heads of 128 for keys and for values.
        Header {
            architecture: "qwen3".into(),
            layers: 28,
            context: 40960,
            kv_elements: 28 * 8 * 256,
            bytes: 600 << 20,
            sampling: Default::default(),
        }
    }

    #[test]
    fn the_slots_share_two_contexts_when_there_is_room() {
        let plan = Plan::new(&header(), &ModelOptions::default(), 64 << 30, 0);
        assert_eq!(
            (plan.context, plan.cells, plan.gpu_layers),
            (8192, 2 * 8192, 0)
        );
        assert_eq!(plan.bytes, (600 << 20) + 2 * 8192 * 28 * 8 * 256 * 2);
    }

    #[test]
    fn slots_share_cells_when_memory_is_short_but_one_context_always_fits() {
        let plan = Plan::new(&header(), &ModelOptions::default(), 2 << 30, 0);
        assert!(plan.cells < 2 * 8192 && plan.cells >= 8192, "{plan:?}");
        let plan = Plan::new(&header(), &ModelOptions::default(), 0, 0);
        assert_eq!(plan.cells, 8192);
    }

    #[test]
    fn layers_go_to_the_gpu_as_far_as_its_memory_reaches() {
        let all = Plan::new(&header(), &ModelOptions::default(), 64 << 30, 80 << 30);
        assert_eq!(all.gpu_layers, -1);
        let some = Plan::new(&header(), &ModelOptions::default(), 64 << 30, 2 << 30);
        assert!((1..28).contains(&some.gpu_layers), "{some:?}");
        let told = ModelOptions {
            gpu_layers: Some(7),
            ..ModelOptions::default()
        };
        assert_eq!(
            Plan::new(&header(), &told, 64 << 30, 80 << 30).gpu_layers,
            7
        );
    }
}
