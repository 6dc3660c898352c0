//! One text to a vector, or many on several threads.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::folder::{Config, Pooling, Prompts};
use crate::forward::{Model, Space};
use crate::kernel::Kernel;
use crate::parallel;
use crate::tokens::{Splitter, Tokens};
use crate::weights::Weights;

/// Changes when the arithmetic does: vectors made before and after are not to be compared.
const ARITHMETIC: &str = "hearth encoder 1";

/// Tokens that go through the model together in a batch.
const TOGETHER: usize = 64;

/// What a text is for. Some models are trained with a different beginning for each; see [`Prompts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// The text as it is.
    #[default]
    Plain,
    /// A question, or anything else that looks for others.
    Query,
    /// What is stored and found.
    Passage,
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The vector, of length one.
    pub vector: Vec<f32>,
    /// Tokens that were read, those the tokenizer adds included.
    pub tokens: usize,
    /// Whether the text was longer than [`Encoder::max_tokens`], and its end not read.
    pub truncated: bool,
}

/// How a batch is worked on.
#[derive(Clone, Copy, Default)]
pub struct Batch<'a> {
    /// Most threads to use; 0 is one for each core.
    pub threads: usize,
    /// Told now and then, from any thread, how many texts are done; may break the batch off.
    pub progress: Option<&'a (dyn Fn(usize) -> ControlFlow<()> + Sync)>,
}

/// A sentence encoder. Cloning it is cheap, and any number of threads may use it at once.
#[derive(Clone)]
pub struct Encoder {
    model: Arc<Loaded>,
    kernel: Kernel,
    prompts: Arc<Prompts>,
}

struct Loaded {
    model: Model,
    splitter: Splitter,
    digest: [u8; 32],
    /// Memory of passes that are over, for those to come.
    spaces: Mutex<Vec<Space>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoder({})", self.id())
    }
}

impl Encoder {
    /// Opens a model's folder in the layout of sentence-transformers: `config.json`, `model.safetensors` (F32, F16 or
    /// BF16) and `tokenizer.json` (or `vocab.txt`); where they are there, `modules.json`, `1_Pooling/config.json`,
    /// `sentence_bert_config.json` and `config_sentence_transformers.json` too. The folder's files must not be changed
    /// in place while the encoder lives; they may be replaced or removed.
    ///
    /// # Errors
    /// If a file is missing or damaged, or asks for something else than BERT with absolute positions, erf GELU, and
    /// pooling by mean or first token. The error names file and field.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = Config::read(folder)?;
        let weights = Weights::open(folder)?;
        let (splitter, digest, model) = std::thread::scope(|scope| {
            let splitter = scope.spawn(|| Splitter::open(folder, &config));
            let model = weights
                .tensors()
                .and_then(|tensors| Model::load(&tensors, config.clone()));
            let digest = weights.digest();
            let splitter = match splitter.join() {
                Ok(splitter) => splitter,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (splitter, digest, model)
        });
        let (model, (splitter, tokenizer)) = (model?, splitter?);
        let digest = Sha256::new()
            .chain_update(ARITHMETIC)
            .chain_update(digest)
            .chain_update(Sha256::digest(tokenizer))
            .chain_update(format!(
                "{:?}",
                Config {
                    prompts: Prompts::default(),
                    ..config.clone()
                }
            ))
            .finalize();
        Ok(Self {
            model: Arc::new(Loaded {
                model,
                splitter,
                digest: digest.into(),
                spaces: Mutex::default(),
            }),
            kernel: Kernel::best(),
            prompts: Arc::new(config.prompts),
        })
    }

    /// The same encoder on another kernel. Its vectors are the same too.
    ///
    /// # Errors
    /// If this machine cannot run it; see [`Kernel::available`].
    pub fn with_kernel(self, kernel: Kernel) -> Result<Self, Error> {
        match kernel.routines() {
            Some(_) => Ok(Self { kernel, ..self }),
            None => Err(Error::Kernel {
                wanted: kernel.name(),
                known: Kernel::available()
                    .iter()
                    .map(|kernel| kernel.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// The same encoder with other prompts than its folder names, for models whose folder does not.
    pub fn with_prompts(self, prompts: Prompts) -> Self {
        Self {
            prompts: Arc::new(prompts),
            ..self
        }
    }

    /// Values of a vector.
    pub fn dimensions(&self) -> usize {
        self.model.model.config.hidden
    }

    /// Longest text in tokens, those the tokenizer adds included. The rest of a longer text is not read; the embedding
    /// says so.
    pub fn max_tokens(&self) -> usize {
        self.model.model.config.max_tokens
    }

    /// How the vectors of a text's tokens become one.
    pub fn pooling(&self) -> Pooling {
        self.model.model.config.pooling
    }

    /// What is put before a text, by its role.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Names weights, configuration, tokenizer, prompts and arithmetic: 64 hexadecimal digits. Two encoders of the same
    /// id give the same vectors, and vectors of different ids are not to be compared. The kernel plays no part in it.
    pub fn id(&self) -> String {
        let digest = Sha256::new()
            .chain_update(self.model.digest)
            .chain_update(format!("{:?}", self.prompts))
            .finalize();
        digest
            .iter()
            .fold(String::with_capacity(64), |mut id, byte| {
                // Writing to a string cannot fail.
                let _ = write!(id, "{byte:02x}");
                id
            })
    }

    /// Tokens of a text without a prompt, those the tokenizer adds included, however long it is.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn count_tokens(&self, text: &str) -> Result<usize, Error> {
        self.model.splitter.count(text)
    }

    /// Encodes one text, on the calling thread. A text longer than [`Encoder::max_tokens`] is cut.
    ///
    /// # Errors
    /// If the tokenizer fails, or damaged weights give no numbers.
    pub fn encode(&self, text: &str, role: Role) -> Result<Embedding, Error> {
        let mut held = Held::new(&self.model);
        let mut one = self.encode_piece(&[text], role, held.space())?;
        one.pop().ok_or(Error::NotFinite)
    }

    /// Encodes many texts, and gives their embeddings in the same order. Each is what [`Encoder::encode`] gives.
    ///
    /// # Errors
    /// The first text that cannot be encoded ends the batch; so does `progress`, with [`Error::Cancelled`].
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
        batch: Batch<'_>,
    ) -> Result<Vec<Embedding>, Error> {
        let threads = match batch.threads {
            0 => parallel::cores(),
            threads => threads,
        };
        // Small enough that threads finish about together, large enough that texts can share a pass.
        let piece = texts.len().div_ceil(threads * 4).clamp(1, 32);
        let pieces: Vec<&[T]> = texts.chunks(piece).collect();
        let done = AtomicUsize::new(0);
        let results = parallel::run(
            pieces.len(),
            threads,
            || Held::new(&self.model),
            |held, at| {
                let texts = pieces[at];
                let embeddings = self.encode_piece(texts, role, held.space())?;
                let done = done.fetch_add(texts.len(), Ordering::Relaxed) + texts.len();
                match batch.progress.map(|progress| progress(done)) {
                    Some(ControlFlow::Break(())) => Err(Error::Cancelled),
                    _ => Ok(embeddings),
                }
            },
        )?;
        Ok(results.into_iter().flatten().collect())
    }

    /// Some texts on one thread, as many together as make about [`TOGETHER`] tokens.
    fn encode_piece<T: AsRef<str>>(
        &self,
        texts: &[T],
        role: Role,
        space: &mut Space,
    ) -> Result<Vec<Embedding>, Error> {
        let tokens = texts
            .iter()
            .map(|text| self.split(text.as_ref(), role))
            .collect::<Result<Vec<_>, _>>()?;
        let mut vectors = Vec::with_capacity(texts.len());
        let mut group: Vec<&[u32]> = Vec::new();
        let mut count = 0;
        for tokens in &tokens {
            if count > 0 && count + tokens.numbers.len() > TOGETHER {
                self.forward(&group, space, &mut vectors)?;
                group.clear();
                count = 0;
            }
            group.push(&tokens.numbers);
            count += tokens.numbers.len();
        }
        self.forward(&group, space, &mut vectors)?;
        let embeddings = vectors.into_iter().zip(&tokens);
        Ok(embeddings
            .map(|(vector, tokens)| Embedding {
                vector,
                tokens: tokens.numbers.len(),
                truncated: tokens.truncated,
            })
            .collect())
    }

    fn split(&self, text: &str, role: Role) -> Result<Tokens, Error> {
        let prompt = match role {
            Role::Plain => "",
            Role::Query => &self.prompts.query,
            Role::Passage => &self.prompts.passage,
        };
        match prompt.is_empty() {
            true => self.model.splitter.split(text),
            false => self.model.splitter.split(&format!("{prompt}{text}")),
        }
    }

    fn forward(
        &self,
        texts: &[&[u32]],
        space: &mut Space,
        out: &mut Vec<Vec<f32>>,
    ) -> Result<(), Error> {
        match self.kernel.routines() {
            Some(routines) => self.model.model.forward(routines, texts, space, out),
            None => unreachable!("`with_kernel` asked for this kernel's routines"),
        }
    }
}

impl Loaded {
    fn take(&self) -> Space {
        let mut spaces = self.spaces.lock().unwrap_or_else(|lock| lock.into_inner());
        spaces.pop().unwrap_or_default()
    }

    fn give_back(&self, space: Space) {
        let mut spaces = self.spaces.lock().unwrap_or_else(|lock| lock.into_inner());
        spaces.push(space);
    }
}

/// A thread's memory during a pass.
struct Held<'a> {
    model: &'a Loaded,
    space: Option<Space>,
}

impl<'a> Held<'a> {
    fn new(model: &'a Loaded) -> Self {
        Self {
            model,
            space: Some(model.take()),
        }
    }

    fn space(&mut self) -> &mut Space {
        self.space.get_or_insert_default()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(space) = self.space.take() {
            self.model.give_back(space);
        }
    }
}
