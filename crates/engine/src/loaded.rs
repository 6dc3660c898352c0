//! A loaded model: how it comes up, and how a request becomes tasks for its thread.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::chat::{Reasoning, Tool, ToolChoice, Tools};
use crate::counters::Counters;
use crate::dialect::{self, Dialect, Form, Opening};
use crate::embed::{self, EmbedRequest};
use crate::embedder::Embedder;
use crate::generation::{AdapterUse, Generation, Prompt, Request};
use crate::grammar::{Grammar, GrammarFactory, Vocabulary};
use crate::header::{self, Header};
use crate::kv::{KvCache, ParkRoom};
use crate::llama::{Adapter, Context, ContextOptions, Model, Pooling};
use crate::options::{ModelOptions, check_words};
use crate::plan::{BATCH, Plan, SEQUENCES, usable_cores, worthwhile_threads};
use crate::runner::{self, Command};
use crate::sampler::Sampler;
use crate::slots::Slots;
use crate::split::Splitter;
use crate::task::{AdapterSet, Job, Task, Thought};
use crate::template::{ChatTemplate, TemplateInput};
use crate::text::TextStream;
use crate::{Constraint, EngineError, ModelSource, Token};

/// Sequence ids beyond the slots' own, for resident prefixes.
const RESIDENT: u32 = 28;
/// Most choices a request may ask for.
const MOST_CHOICES: u32 = 16;

/// What a model's thread does once it is loaded, until it is told to unload or was idle for as long as its counters say.
pub(crate) type Work = Box<dyn FnOnce()>;

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
    path: PathBuf,
    pub header: Header,
    pub plan: Plan,
    pub counters: Arc<Counters>,
    model: Arc<Model>,
    template: ChatTemplate,
    dialect: Arc<Dialect>,
    /// The dialect's tags that are control tokens.
    tags: Vec<(String, Token)>,
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
    /// Loads weights and allocates the context; blocks. Returns the model and the work of its thread.
    pub fn load(
        source: &ModelSource,
        header: Header,
        plan: Plan,
        options: &ModelOptions,
        parking: Arc<ParkRoom>,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<(Self, Work), String> {
        let model = Arc::new(Model::load(&source.path, plan.gpu_layers, progress)?);
        let neither = format!(
            "Hearth can neither generate text nor embed it with a `{}` model",
            header.architecture
        );
        if !model.is_generative() {
            return Err(neither);
        }
        if header.pooling == Some(Pooling::Rank) {
            return Err("it scores texts (a reranker), which Hearth has no use for".into());
        }
        let embeds = header.pooling.is_some();
        let written = model.chat_template().filter(|_| !embeds);
        let template = match &written {
            Some(text) => {
                ChatTemplate::new(text).map_err(|error| format!("its chat template: {error}"))?
            }
            None => ChatTemplate::chatml(),
        };
        let one_token = |tag: &str| match model.tokenize(tag.as_bytes(), false, true)[..] {
            [token] => Some(token),
            _ => None,
        };
        let dialect = Dialect::of(&template, written.as_deref().unwrap_or_default(), &|tag| {
            one_token(tag).is_some()
        });
        let control = |tag: &&str| one_token(tag).filter(|token| model.is_control(*token));
        let tags = dialect.tags().into_iter();
        let tags = tags.filter_map(|tag| Some((tag.to_owned(), control(&tag)?)));
        let tags = tags.collect();
        let threads = options.threads.unwrap_or_else(|| match embeds {
            // A batch of many tokens divides well, whatever the model's size.
            true => usable_cores(),
            false => worthwhile_threads(header.bytes).min(usable_cores()),
        });
        let whole_only = model.is_recurrent();
        let sequences = match embeds {
            true => SEQUENCES,
            false => options.slots + if whole_only { options.slots } else { RESIDENT },
        };
        let context = Context::new(
            &model,
            ContextOptions {
                cells: plan.cells,
                sequences,
                batch: plan.batch,
                threads,
                kv: options.kv,
                // What attends to a long text at once has no room for its scores.
                flash_attention: options.fuses(plan.context, embeds || plan.gpu_layers != 0),
                pooling: header.pooling,
            },
        )?;
        if !header.encoder && !context.has_cache() {
            return Err(neither);
        }
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
        let (commands, receiver) = unbounded_channel();
        let work: Work = if embeds {
            let counters = Arc::clone(&counters);
            let embedder = Embedder::new(context, plan.batch, options.slots, counters);
            Box::new(move || runner::run(embedder, receiver))
        } else {
            let kv = KvCache::new(plan.cells, sequences, parking, whole_only);
            let slots = Slots::new(context, kv, options.slots, BATCH, Arc::clone(&counters));
            Box::new(move || runner::run(slots, receiver))
        };
        let loaded = Self {
            name: source.name.clone(),
            path: source.path.clone(),
            header,
            plan,
            counters,
            model,
            template,
            dialect: Arc::new(dialect),
            tags,
            ends,
            longest_piece,
            adapters: Mutex::new(HashMap::new()),
            grammars: OnceLock::new(),
            commands,
            seeds: AtomicU32::new(0),
        };
        Ok((loaded, work))
    }

    /// Parameters of the model.
    pub fn parameters(&self) -> u64 {
        self.model.parameters()
    }

    /// Of so many bytes, those on a GPU, where there is one.
    pub fn gpu_bytes(&self, bytes: u64) -> u64 {
        let on_gpu = match u32::try_from(self.plan.gpu_layers) {
            Ok(layers) => layers.min(self.header.layers),
            Err(_) => self.header.layers,
        };
        let share = u128::from(bytes) * u128::from(on_gpu) / u128::from(self.header.layers.max(1));
        u64::try_from(share).unwrap_or(bytes)
    }

    /// Elements of its vectors, if it is an embedding model.
    pub fn dimensions(&self) -> Option<u32> {
        self.header
            .pooling
            .map(|_| self.model.vector_length() as u32)
    }

    /// Turns a request for vectors into a job. What can be wrong with it is found here. Blocks for as long as
    /// tokenising takes, and may need a deep stack.
    pub fn embedding(
        &self,
        request: &EmbedRequest,
    ) -> Result<(embed::Job, embed::Outcome), EngineError> {
        embed::prepare(&self.model, &self.header, self.plan.context, request)
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
    pub fn prepare(&self, request: &Request) -> Result<(Vec<Task>, Generation), EngineError> {
        let (prompt, opening) = self.tokens(&request.prompt)?;
        let context = self.plan.context as usize;
        if prompt.len() >= context {
            return Err(EngineError::ContextExceeded {
                prompt_tokens: prompt.len(),
                context,
                trained: self.header.context as usize,
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
            reasoning_tokens: AtomicU32::new(0),
            unfinished: AtomicU32::new(request.n),
        });
        let mut sampling = request.sampling.clone().or(&self.header.sampling);
        if request.ignore_eos {
            sampling
                .logit_bias
                .extend(self.ends.iter().map(|token| (*token, f32::NEG_INFINITY)));
        }
        let no_tools = Tools::default();
        let (tools, reasoning) = match &request.prompt {
            Prompt::Chat(chat) => (&chat.tools, chat.reasoning),
            Prompt::Text(_) | Prompt::Tokens(_) => (&no_tools, Reasoning::default()),
        };
        let grammar = self.grammar(request, tools, opening)?;
        let tags: Arc<[Token]> = self.tags.iter().map(|(_, token)| *token).collect();
        // What was refused is closed as soon as it is opened; a constraint leaves no room for that.
        let is_refused = reasoning.enabled == Some(false) || reasoning.budget == Some(0);
        let watched =
            opening != Opening::Closed || (is_refused && request.constraint == Constraint::None);
        let budget = if is_refused {
            Some(0)
        } else {
            reasoning.budget
        };
        let thought = watched.then(|| self.thought(opening, budget, tools));
        let thought = thought.flatten();
        let tasks = (0..request.n)
            .map(|choice| {
                let mut sampler = Sampler::new(&sampling, seed.wrapping_add(choice.into()));
                sampler.observe_prompt(&prompt);
                Task {
                    job: Arc::clone(&job),
                    choice,
                    adapters: adapters.clone(),
                    tokens: prompt.clone(),
                    limit,
                    sampler,
                    grammar: grammar.as_ref().map(Grammar::at_start),
                    text: TextStream::new(request.stop.clone()),
                    tags: Arc::clone(&tags),
                    thought: thought.clone(),
                    logprobs: request.logprobs,
                    started: false,
                }
            })
            .collect();
        let splitters = match &request.prompt {
            Prompt::Chat(chat) => {
                let callable: Arc<[Tool]> = tools.callable().into();
                let inside = opening == Opening::Inside;
                let mut splitter = Splitter::new(Arc::clone(&self.dialect), callable, inside);
                if !chat.prefill.is_empty() {
                    splitter = splitter.continuing();
                }
                vec![splitter; request.n as usize]
            }
            Prompt::Text(_) | Prompt::Tokens(_) => Vec::new(),
        };
        let generation = Generation::new(self.name.clone(), receiver, splitters);
        Ok((tasks, generation))
    }

    fn thought(&self, opening: Opening, budget: Option<u32>, tools: &Tools) -> Option<Thought> {
        let tags = self.dialect.thinking.clone()?;
        let texts = self.dialect.after_reasoning(tools).into_iter();
        let closings: Vec<Vec<Token>> = texts
            .map(|text| self.model.tokenize(text.as_bytes(), false, true))
            .collect();
        Some(Thought::new(
            tags,
            opening == Opening::Inside,
            budget,
            closings.into(),
        ))
    }

    /// Refuses values that no request may have.
    pub fn check(&self, request: &Request) -> Result<(), EngineError> {
        if self.header.pooling.is_some() {
            return Err(EngineError::OnlyEmbeds {
                name: self.name.clone(),
            });
        }
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
        if let Prompt::Chat(chat) = &request.prompt {
            chat.tools.check()?;
            let forced = matches!(
                chat.tools.choice,
                ToolChoice::Required | ToolChoice::Named(_)
            );
            if !chat.prefill.is_empty() && (forced || request.constraint != Constraint::None) {
                return invalid(
                    "messages",
                    "messages: an answer that is begun already cannot be held to a schema, a grammar or a call; \
                     leave out its beginning"
                        .into(),
                );
            }
        }
        request.sampling.validate(self.model.vocabulary_size())
    }

    /// How many tokens a prompt has. Blocks, and may need a deep stack.
    pub fn count(&self, prompt: &Prompt) -> Result<u32, EngineError> {
        let (tokens, _) = self.tokens(prompt)?;
        Ok(tokens.len() as u32)
    }

    /// Tokens of a prompt, and where its answer stands with its reasoning.
    fn tokens(&self, prompt: &Prompt) -> Result<(Vec<Token>, Opening), EngineError> {
        let invalid = |field, message: String| EngineError::Invalid { field, message };
        let mut opening = Opening::Closed;
        let mut tokens = match prompt {
            Prompt::Chat(chat) => {
                if chat.messages.is_empty() {
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
                let shown: &[Tool] = match chat.tools.choice {
                    ToolChoice::None => &[],
                    _ => &chat.tools.definitions,
                };
                let calls = &self.dialect.calls;
                let definitions: Vec<Value> = if calls.shown {
                    shown.iter().map(dialect::definition).collect()
                } else {
                    Vec::new()
                };
                let mut reasoning = chat.reasoning;
                if !chat.prefill.is_empty() {
                    // What comes after reasoning is there already.
                    reasoning.enabled = Some(false);
                }
                let mut variables = chat.variables.clone();
                if let Some(enabled) = reasoning.enabled {
                    for name in ["enable_thinking", "thinking"] {
                        variables.entry(name).or_insert(enabled.into());
                    }
                }
                let mut text = self.template.render(&TemplateInput {
                    messages: &calls.fitting(&chat.messages, shown),
                    tools: &definitions,
                    variables: &variables,
                    bos: &name(self.model.bos()),
                    eos: &name(self.model.eos()),
                    add_generation_prompt: true,
                    now: SystemTime::now()
                        .duration_since(UNIX_EPOCH)
                        .unwrap_or(Duration::ZERO)
                        .as_secs() as i64,
                })?;
                opening = self.opening(&mut text, reasoning);
                if !chat.prefill.is_empty() {
                    text.push_str(self.dialect.before_text());
                    text.push_str(&chat.prefill);
                }
                self.tokenize("messages", &text)?
            }
            Prompt::Text(text) => self.tokenize("prompt", text)?,
            Prompt::Tokens(tokens) => {
                let checked = self.model.check_tokens(tokens);
                checked.map_err(|error| invalid("prompt", format!("prompt: {error}")))?;
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
        Ok((tokens, opening))
    }

    /// Where the answer to a rendered prompt stands with its reasoning. A template that opens it although there shall
    /// be none is answered by closing it.
    fn opening(&self, prompt: &mut String, reasoning: Reasoning) -> Opening {
        let Some(tags) = &self.dialect.thinking else {
            return Opening::Closed;
        };
        let refused = reasoning.enabled == Some(false) || reasoning.budget == Some(0);
        if self.dialect.ends_in_reasoning(prompt) {
            if !refused {
                return Opening::Inside;
            }
            prompt.truncate(prompt.trim_end().len());
            prompt.push_str(&format!("\n\n{}\n\n", tags.close));
        }
        if refused || self.dialect.ends_after_reasoning(prompt) {
            Opening::Closed
        } else {
            Opening::Free
        }
    }

    /// Tokens of a text that can fit the context; what cannot is refused without the work.
    fn tokenize(&self, field: &'static str, text: &str) -> Result<Vec<Token>, EngineError> {
        let context = self.plan.context as usize;
        let least = text.len() / self.longest_piece.max(1);
        if least > context {
            return Err(EngineError::ContextExceeded {
                prompt_tokens: least,
                context,
                trained: self.header.context as usize,
            });
        }
        check_words(text).map_err(|error| EngineError::Invalid {
            field,
            message: format!("{field}: {error}"),
        })?;
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
        if let Err(reason) = header::check_adapter(&self.path, path) {
            return Ok(Err(reason));
        }
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.send(Command::LoadAdapter(path.to_owned(), reply))
            .map_err(|_| EngineError::Unloaded)?;
        outcome.blocking_recv().map_err(|_| EngineError::Unloaded)
    }

    fn grammar(
        &self,
        request: &Request,
        tools: &Tools,
        opening: Opening,
    ) -> Result<Option<Grammar>, EngineError> {
        let control = |tag: &str| {
            let known = self.tags.iter().find(|(text, _)| text == tag);
            known.map(|(_, token)| *token)
        };
        let plain = Dialect::default();
        let dialect = match request.prompt {
            Prompt::Chat(_) => &*self.dialect,
            // What is continued is no answer, and is not split.
            Prompt::Text(_) | Prompt::Tokens(_) => &plain,
        };
        let form = Form::new(dialect, tools, opening, &request.constraint, &control);
        let Some(form) = form else { return Ok(None) };
        // Built on the first constrained request: a trie over the whole vocabulary takes a while.
        let factory = self
            .grammars
            .get_or_init(|| GrammarFactory::new(self.vocabulary()));
        let factory = factory.as_ref().map_err(Clone::clone)?;
        let error = match factory.compile_form(&form) {
            Ok(grammar) => return Ok(Some(grammar)),
            Err(error) => error,
        };
        // Whose fault is it?
        factory.compile(&request.constraint)?;
        for tool in tools.callable().iter().filter(|tool| tool.strict) {
            factory
                .compile(&dialect::arguments(tool))
                .map_err(|error| EngineError::Invalid {
                    field: "tools",
                    message: format!("tools: the parameters of `{}`: {error}", tool.name),
                })?;
        }
        let loosened = form.loosened(tools, |part| factory.compile(part).is_ok());
        if loosened == form {
            return Err(error);
        }
        factory.compile_form(&loosened).map(Some)
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
