//! Safe wrapper over the part of llama.cpp's C API that the engine uses.
//!
//! Ownership follows the C library: a [`Model`] is immutable after loading and shared between threads, a [`Context`]
//! (KV cache and compute buffers) belongs to one thread, and a context keeps its model alive. Nothing here decides
//! anything; policy lives in the modules above.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock};

use llama_cpp_sys_2 as sys;

use crate::options::KvType;
use crate::{SeqId, Token};

/// Process-wide set-up: picks the CPU code and routes llama.cpp's log to `tracing`. Cheap after the first call.
pub(crate) fn initialise() -> &'static str {
    static CPU: OnceLock<&'static str> = OnceLock::new();
    CPU.get_or_init(|| {
        // SAFETY: `forward_log` has the C signature and lives for the whole program.
        unsafe { sys::llama_log_set(Some(forward_log), std::ptr::null_mut()) };
        let cpu = crate::cpu::select();
        // SAFETY: called once, before any other llama.cpp function that needs a backend.
        unsafe { sys::llama_backend_init() };
        cpu
    })
}

/// The first error line llama.cpp logged since the last call, taken: the C API reports failures as null pointers and says why only there.
fn take_error() -> Option<String> {
    first_error().lock().ok().and_then(|mut line| line.take())
}

fn first_error() -> &'static Mutex<Option<String>> {
    static FIRST: OnceLock<Mutex<Option<String>>> = OnceLock::new();
    FIRST.get_or_init(|| Mutex::new(None))
}

unsafe extern "C" fn forward_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim();
    if text.is_empty() || text.chars().all(|c| c == '.') {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            if let Ok(mut line) = first_error().lock() {
                // The first one says what is wrong, those after it only who gave up.
                line.get_or_insert_with(|| text.to_owned());
            }
            tracing::warn!(target: "llama", "{text}");
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::debug!(target: "llama", "{text}"),
        _ => tracing::trace!(target: "llama", "{text}"),
    }
}

/// How the vectors of a text's tokens become one (`<architecture>.pooling_type` of GGUF).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's.
    First,
    /// The last one's.
    Last,
    /// None: a head scores the text (a reranker).
    Rank,
}

impl Pooling {
    /// The pooling that a file states. An encoder that states none takes the mean, as sentence-transformers has it;
    /// any other model without one generates text.
    pub fn of(stated: Option<u32>, encoder: bool) -> Option<Self> {
        match stated {
            Some(1) => Some(Self::Mean),
            Some(2) => Some(Self::First),
            Some(3) => Some(Self::Last),
            Some(4) => Some(Self::Rank),
            _ => encoder.then_some(Self::Mean),
        }
    }

    fn raw(self) -> sys::llama_pooling_type {
        match self {
            Self::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
            Self::First => sys::LLAMA_POOLING_TYPE_CLS,
            Self::Last => sys::LLAMA_POOLING_TYPE_LAST,
            Self::Rank => sys::LLAMA_POOLING_TYPE_RANK,
        }
    }
}

/// Free memory in bytes over all GPUs; 0 without one.
pub(crate) fn gpu_free_bytes() -> u64 {
    initialise();
    let mut sum = 0u64;
    // SAFETY: indices are below the count, and the out-pointers are valid.
    unsafe {
        for index in 0..sys::ggml_backend_dev_count() {
            let device = sys::ggml_backend_dev_get(index);
            if sys::ggml_backend_dev_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_GPU {
                let (mut free, mut total) = (0usize, 0usize);
                sys::ggml_backend_dev_memory(device, &mut free, &mut total);
                sum += free as u64;
            }
        }
    }
    sum
}

/// What the first GPU is called by its driver; `None` without one.
pub(crate) fn gpu_name() -> Option<String> {
    initialise();
    // SAFETY: indices are below the count, and a description is a text that lives as long as its device.
    unsafe {
        for index in 0..sys::ggml_backend_dev_count() {
            let device = sys::ggml_backend_dev_get(index);
            if sys::ggml_backend_dev_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_GPU {
                let text = CStr::from_ptr(sys::ggml_backend_dev_description(device));
                return Some(text.to_string_lossy().into_owned());
            }
        }
    }
    None
}

/// A loaded model: weights and vocabulary.
#[derive(Debug)]
pub(crate) struct Model {
    model: NonNull<sys::llama_model>,
    vocab: NonNull<sys::llama_vocab>,
}

// SAFETY: llama.cpp does not change a model after loading, but for its list of adapters, which only the model's own
// thread changes (`Adapter::load`) or reads (decoding); all other functions used here take it as const.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a GGUF file. `progress` hears fractions from 0 to 1 and stops the load by returning false.
    pub fn load(
        path: &Path,
        gpu_layers: i32,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self, String> {
        unsafe extern "C" fn hear(fraction: f32, user: *mut c_void) -> bool {
            // SAFETY: `user` is the `&mut &mut dyn FnMut` below, alive for the whole load.
            let progress = unsafe { &mut *user.cast::<&mut dyn FnMut(f32) -> bool>() };
            progress(fraction)
        }
        initialise();
        take_error();
        let file = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| "path contains a NUL byte")?;
        let mut progress = progress;
        // SAFETY: parameters start from the library's defaults; the callback's user data outlives the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = gpu_layers;
            params.progress_callback = Some(hear);
            params.progress_callback_user_data = (&raw mut progress).cast();
            sys::llama_model_load_from_file(file.as_ptr(), params)
        };
        let model = NonNull::new(model)
            .ok_or_else(|| take_error().unwrap_or_else(|| "llama.cpp gave no reason".into()))?;
        // SAFETY: the model is live, and its vocabulary lives as long as it.
        let vocab = unsafe { sys::llama_model_get_vocab(model.as_ptr()) };
        let vocab = NonNull::new(vocab.cast_mut()).ok_or("the model has no vocabulary")?;
        Ok(Self { model, vocab })
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        // SAFETY: the model is live.
        unsafe { sys::llama_model_n_params(self.model.as_ptr()) }
    }

    /// Whether the model keeps a state that cannot be cut back to an earlier position (recurrent or hybrid).
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: the model is live.
        unsafe {
            sys::llama_model_is_recurrent(self.model.as_ptr())
                || sys::llama_model_is_hybrid(self.model.as_ptr())
        }
    }

    /// Whether the model generates text token after token (not an encoder alone, not a diffusion model).
    pub fn is_generative(&self) -> bool {
        // SAFETY: the model is live.
        unsafe {
            sys::llama_model_has_decoder(self.model.as_ptr())
                && !sys::llama_model_has_encoder(self.model.as_ptr())
                && !sys::llama_model_is_diffusion(self.model.as_ptr())
        }
    }

    /// Elements of the vectors that an embedding model makes.
    pub fn vector_length(&self) -> usize {
        // SAFETY: the model is live.
        unsafe { sys::llama_model_n_embd_out(self.model.as_ptr()) as usize }
    }

    /// The chat template in the file.
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: the model is live; the string, if any, lives as long as it.
        unsafe {
            let text = sys::llama_model_chat_template(self.model.as_ptr(), std::ptr::null());
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    }

    /// Tokens in the vocabulary.
    pub fn vocabulary_size(&self) -> usize {
        // SAFETY: the vocabulary is live.
        unsafe { sys::llama_vocab_n_tokens(self.vocab.as_ptr()) as usize }
    }

    /// Refuses tokens that are not in the vocabulary.
    pub fn check_tokens(&self, tokens: &[Token]) -> Result<(), String> {
        let size = self.vocabulary_size() as Token;
        match tokens.iter().find(|token| !(0..size).contains(*token)) {
            Some(wrong) => Err(format!(
                "token {wrong} is not in the model's vocabulary (0 to {}); send text",
                size - 1
            )),
            None => Ok(()),
        }
    }

    /// Beginning of sequence, if the vocabulary has one.
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is live.
        let token = unsafe { sys::llama_vocab_bos(self.vocab.as_ptr()) };
        (token >= 0).then_some(token)
    }

    /// End of sequence, if the vocabulary has one.
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is live.
        let token = unsafe { sys::llama_vocab_eos(self.vocab.as_ptr()) };
        (token >= 0).then_some(token)
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is live; out-of-range ids are refused by the callers' range check.
        unsafe { sys::llama_vocab_is_eog(self.vocab.as_ptr(), token) }
    }

    /// Whether a token is a control token that never appears as text.
    pub fn is_control(&self, token: Token) -> bool {
        // SAFETY: as above.
        unsafe { sys::llama_vocab_is_control(self.vocab.as_ptr(), token) }
    }

    /// The bytes of a token; control tokens give their name when `special`, else nothing.
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        let mut bytes = vec![0u8; 32];
        loop {
            // SAFETY: the buffer is writable for its length.
            let n = unsafe {
                sys::llama_token_to_piece(
                    self.vocab.as_ptr(),
                    token,
                    bytes.as_mut_ptr().cast(),
                    bytes.len() as i32,
                    0,
                    special,
                )
            };
            if n >= 0 {
                bytes.truncate(n as usize);
                return bytes;
            }
            bytes.resize(n.unsigned_abs() as usize, 0);
        }
    }

    /// Tokens of a text. `add_special` adds what the model wants around a document (BOS); `parse_special` recognises
    /// control tokens written out in the text.
    pub fn tokenize(&self, text: &[u8], add_special: bool, parse_special: bool) -> Vec<Token> {
        let mut tokens: Vec<Token> = vec![0; text.len() / 2 + 16];
        loop {
            // SAFETY: both buffers are valid for the lengths given.
            let n = unsafe {
                sys::llama_tokenize(
                    self.vocab.as_ptr(),
                    text.as_ptr().cast(),
                    text.len() as i32,
                    tokens.as_mut_ptr(),
                    tokens.len() as i32,
                    add_special,
                    parse_special,
                )
            };
            if n >= 0 {
                tokens.truncate(n as usize);
                return tokens;
            }
            tokens.resize(n.unsigned_abs() as usize, 0);
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: owned, freed once; every context holds an `Arc` to the model, so none is left.
        unsafe { sys::llama_model_free(self.model.as_ptr()) };
    }
}

/// How a context is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextOptions {
    /// KV cells, shared by all sequences.
    pub cells: u32,
    /// Sequence ids, 0 to `sequences` − 1.
    pub sequences: u32,
    /// Most tokens in one batch.
    pub batch: u32,
    /// Compute threads.
    pub threads: u32,
    /// KV cache types.
    pub kv: KvType,
    /// Attention in one fused pass.
    pub flash_attention: bool,
    /// Computes one vector per sequence instead of logits.
    pub pooling: Option<Pooling>,
}

/// A KV cache with its compute buffers and threads.
pub(crate) struct Context {
    context: NonNull<sys::llama_context>,
    memory: sys::llama_memory_t,
    // Freed after the context is (see `Drop`); its threads sleep by themselves when there is no graph.
    _pool: Option<ThreadPool>,
    vocabulary: usize,
    // Dropped last: the context uses the model.
    model: Arc<Model>,
}

// SAFETY: a context may move between threads as long as one uses it at a time, which `&mut self` ensures.
unsafe impl Send for Context {}

impl Context {
    /// Allocates a context.
    pub fn new(model: &Arc<Model>, options: ContextOptions) -> Result<Self, String> {
        take_error();
        let (type_k, type_v) = match options.kv {
            KvType::F16 => (sys::GGML_TYPE_F16, sys::GGML_TYPE_F16),
            KvType::Q8_0 => (sys::GGML_TYPE_Q8_0, sys::GGML_TYPE_Q8_0),
            KvType::Q8_0Q4_0 => (sys::GGML_TYPE_Q8_0, sys::GGML_TYPE_Q4_0),
            KvType::Q4_0Q8_0 => (sys::GGML_TYPE_Q4_0, sys::GGML_TYPE_Q8_0),
        };
        // SAFETY: parameters start from the library's defaults; the model is live and kept alive below.
        let context = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = options.cells;
            params.n_batch = options.batch;
            params.n_ubatch = options.batch;
            params.n_seq_max = options.sequences;
            params.n_outputs_max = match options.pooling {
                // Pooling takes every token's vector.
                Some(_) => options.batch,
                None => options.sequences.max(1),
            };
            params.embeddings = options.pooling.is_some();
            params.pooling_type = options
                .pooling
                .map_or(sys::LLAMA_POOLING_TYPE_NONE, Pooling::raw);
            params.n_threads = options.threads as i32;
            params.n_threads_batch = options.threads as i32;
            params.flash_attn_type = match options.flash_attention {
                // Where a device cannot, llama.cpp falls back.
                true => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
                false => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            };
            params.type_k = type_k;
            params.type_v = type_v;
            params.kv_unified = true;
            // A pruned sliding window could not be shared or cut back; the full one can.
            params.swa_full = true;
            params.no_perf = true;
            sys::llama_init_from_model(model.model.as_ptr(), params)
        };
        let context = NonNull::new(context).ok_or_else(|| {
            take_error().unwrap_or_else(|| "the context could not be allocated".into())
        })?;
        // SAFETY: the context is live; the memory lives as long as it.
        let memory = unsafe { sys::llama_get_memory(context.as_ptr()) };
        let pool = ThreadPool::attach(context, options.threads);
        Ok(Self {
            context,
            memory,
            _pool: pool,
            vocabulary: model.vocabulary_size(),
            model: Arc::clone(model),
        })
    }

    /// The model this context computes with.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Computes a batch; the KV of its tokens is stored under their sequences and positions.
    pub fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        take_error();
        let raw = batch.raw();
        // SAFETY: the batch's pointers are valid for `n_tokens` entries and the context is used by this thread alone.
        match unsafe { sys::llama_decode(self.context.as_ptr(), raw) } {
            0 => Ok(()),
            1 => Err(DecodeError::NoCells),
            code => Err(DecodeError::Failed(
                take_error().unwrap_or_else(|| format!("llama_decode returned {code}")),
            )),
        }
    }

    /// Logits computed for batch entry `index` of the last decode (its `logits` flag must have been set).
    pub fn logits(&mut self, index: usize) -> Option<&[f32]> {
        // SAFETY: llama.cpp returns null for an entry without logits, else a row of the vocabulary's size that is
        // valid until the next decode, which the borrow of `self` prevents.
        unsafe {
            let row = sys::llama_get_logits_ith(self.context.as_ptr(), index as i32);
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.vocabulary))
        }
    }

    /// Whether what was decoded is kept for later batches. Encoders keep nothing.
    pub fn has_cache(&self) -> bool {
        !self.memory.is_null()
    }

    /// The vector of a sequence of the last decode, in a context that pools.
    pub fn pooled(&mut self, sequence: SeqId) -> Option<&[f32]> {
        // SAFETY: llama.cpp returns null for a sequence it did not pool, else a row of the model's vector length that
        // is valid until the next decode, which the borrow of `self` prevents.
        unsafe {
            let row = sys::llama_get_embeddings_seq(self.context.as_ptr(), sequence);
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.model.vector_length()))
        }
    }

    /// Shares the cells of `from`'s first `tokens` positions with `to`, which must be empty.
    pub fn share(&mut self, from: SeqId, to: SeqId, tokens: usize) {
        // SAFETY: the ids are below the context's `n_seq_max`.
        unsafe { sys::llama_memory_seq_cp(self.memory, from, to, 0, tokens as i32) };
    }

    /// Forgets a sequence from position `from` on; false if this memory cannot be cut there.
    pub fn truncate(&mut self, sequence: SeqId, from: usize) -> bool {
        // SAFETY: as above.
        unsafe { sys::llama_memory_seq_rm(self.memory, sequence, from as i32, -1) }
    }

    /// Forgets a sequence.
    pub fn clear(&mut self, sequence: SeqId) {
        // SAFETY: as above; removing a whole sequence never fails.
        unsafe { sys::llama_memory_seq_rm(self.memory, sequence, -1, -1) };
    }

    /// Bytes that [`Context::save`] needs for a sequence now; 0 for one that cannot be saved.
    pub fn saved_size(&mut self, sequence: SeqId) -> usize {
        // SAFETY: the id is below the context's `n_seq_max`.
        unsafe { sys::llama_state_seq_get_size(self.context.as_ptr(), sequence) }
    }

    /// Copies a sequence's KV into `bytes`, which has the size that was just asked for.
    pub fn save(&mut self, sequence: SeqId, bytes: &mut [u8]) -> bool {
        // SAFETY: the id is valid, and llama.cpp writes at most the length given, or nothing and returns 0.
        let written = unsafe {
            sys::llama_state_seq_get_data(
                self.context.as_ptr(),
                bytes.as_mut_ptr(),
                bytes.len(),
                sequence,
            )
        };
        written == bytes.len()
    }

    /// Puts a saved KV back under `sequence`; false if there was no room for it.
    pub fn restore(&mut self, sequence: SeqId, bytes: &[u8]) -> bool {
        // SAFETY: the id is valid and the buffer was written by `save` of the same model and cache types.
        unsafe {
            sys::llama_state_seq_set_data(
                self.context.as_ptr(),
                bytes.as_ptr(),
                bytes.len(),
                sequence,
            ) > 0
        }
    }

    /// Applies exactly these adapters, with these scales, to what is decoded next.
    pub fn set_adapters(&mut self, adapters: &[(Arc<Adapter>, f32)]) -> Result<(), DecodeError> {
        let mut pointers: Vec<_> = adapters
            .iter()
            .map(|(adapter, _)| adapter.adapter.as_ptr())
            .collect();
        let mut scales: Vec<f32> = adapters.iter().map(|(_, scale)| *scale).collect();
        // SAFETY: both arrays have the length given, and the callers keep the adapters alive while they are set.
        let code = unsafe {
            sys::llama_set_adapters_lora(
                self.context.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                scales.as_mut_ptr(),
            )
        };
        if code == 0 {
            Ok(())
        } else {
            Err(DecodeError::Failed(
                "the adapters could not be applied".into(),
            ))
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned, freed once; the pool is detached first and freed after.
        unsafe {
            sys::llama_detach_threadpool(self.context.as_ptr());
            sys::llama_free(self.context.as_ptr());
        }
    }
}

/// Why a batch was not computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// No free KV cells for it; nothing changed.
    NoCells,
    /// Anything else; the sequences in the batch are lost.
    Failed(String),
}

/// A LoRA adapter loaded for one model.
#[derive(Debug)]
pub(crate) struct Adapter {
    adapter: NonNull<sys::llama_adapter_lora>,
    // The adapter's tensors belong to the model's devices.
    _model: Arc<Model>,
}

// SAFETY: immutable after loading.
unsafe impl Send for Adapter {}
// SAFETY: immutable after loading.
unsafe impl Sync for Adapter {}

impl Adapter {
    /// Loads a GGUF adapter file made for this model. Only on the thread that computes with the model.
    pub fn load(model: &Arc<Model>, path: &Path) -> Result<Arc<Self>, String> {
        take_error();
        let file = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| "path contains a NUL byte")?;
        // SAFETY: the model is live and the path NUL-terminated.
        let adapter = unsafe { sys::llama_adapter_lora_init(model.model.as_ptr(), file.as_ptr()) };
        let adapter = NonNull::new(adapter)
            .ok_or_else(|| take_error().unwrap_or_else(|| "llama.cpp gave no reason".into()))?;
        Ok(Arc::new(Self {
            adapter,
            _model: Arc::clone(model),
        }))
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // SAFETY: owned, freed once; contexts that had it set are told otherwise before (`set_adapters`).
        unsafe { sys::llama_adapter_lora_free(self.adapter.as_ptr()) };
    }
}

/// Compute threads that outlive one graph. Without them ggml starts and joins its threads for every token.
struct ThreadPool {
    pool: NonNull<sys::ggml_threadpool>,
    free: unsafe extern "C" fn(*mut sys::ggml_threadpool),
}

impl ThreadPool {
    /// Starts `threads` threads and gives them to the context. `None` where the CPU backend has no pools; the
    /// context then works without one.
    fn attach(context: NonNull<sys::llama_context>, threads: u32) -> Option<Self> {
        // SAFETY: the addresses come from the registered CPU backend under the names whose C signatures these are
        // (ggml-cpu.h); the selected variant's own functions must be used, not the statically linked ones.
        unsafe {
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            if device.is_null() {
                return None;
            }
            let registry = sys::ggml_backend_dev_backend_reg(device);
            let address = |name: &CStr| {
                NonNull::new(sys::ggml_backend_reg_get_proc_address(
                    registry,
                    name.as_ptr(),
                ))
            };
            type New =
                unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
            type Free = unsafe extern "C" fn(*mut sys::ggml_threadpool);
            let new: New = std::mem::transmute(address(c"ggml_threadpool_new")?);
            let free: Free = std::mem::transmute(address(c"ggml_threadpool_free")?);
            let mut params = sys::ggml_threadpool_params_default(threads as i32);
            let pool = NonNull::new(new(&mut params))?;
            sys::llama_attach_threadpool(context.as_ptr(), pool.as_ptr(), pool.as_ptr());
            Some(Self { pool, free })
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: owned, freed once, after the context was detached from it (fields drop after `Context::drop`).
        unsafe { (self.free)(self.pool.as_ptr()) };
    }
}

/// Tokens to compute in one call.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tokens: Vec<Token>,
    positions: Vec<i32>,
    counts: Vec<i32>,
    sequences: Vec<SeqId>,
    pointers: Vec<*mut SeqId>,
    logits: Vec<i8>,
}

// SAFETY: the raw pointers point into `sequences`, are rebuilt by `raw` before every use, and are never read by Rust.
unsafe impl Send for Batch {}

impl Batch {
    /// Empties the batch.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.counts.clear();
        self.sequences.clear();
        self.logits.clear();
    }

    /// Tokens in the batch.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Adds a token; returns its index for [`Context::logits`].
    pub fn push(&mut self, token: Token, position: usize, sequence: SeqId, logits: bool) -> usize {
        self.tokens.push(token);
        self.positions.push(position as i32);
        self.counts.push(1);
        self.sequences.push(sequence);
        self.logits.push(logits.into());
        self.tokens.len() - 1
    }

    fn raw(&mut self) -> sys::llama_batch {
        self.pointers.clear();
        let base = self.sequences.as_mut_ptr();
        for index in 0..self.sequences.len() {
            // SAFETY: `index` is within `sequences`.
            self.pointers.push(unsafe { base.add(index) });
        }
        sys::llama_batch {
            n_tokens: self.tokens.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.pointers.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }
}
