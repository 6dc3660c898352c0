//! What it takes to run a model, decided from its header before anything is loaded: the context, the cells of the KV
//! cache, the size of a batch, bytes, layers on a GPU and threads.

use crate::header::Header;
use crate::llama::Pooling;
use crate::options::ModelOptions;

/// Most tokens in one batch.
pub(crate) const BATCH: u32 = 512;
/// Longest context taken from a model's own metadata when none is configured, in tokens.
pub(crate) const DEFAULT_CONTEXT: u32 = 8192;
/// Most KV cells; llama.cpp counts them in 32 bits.
const MOST_CELLS: u64 = 1 << 30;
/// Sequences in one batch.
pub(crate) const SEQUENCES: u32 = 64;
/// llama.cpp reserves a row of the vocabulary's size for every token of a batch, though nobody reads it, and decoders
/// compute it. This many bytes of it, unless a text that has to be computed in one batch is longer.
const ROWS: u64 = 128 << 20;
/// Bytes that a batch and the KV cache may take when no context is configured: a long context is halved until they fit.
const WORKSPACE: u64 = 1 << 30;

/// Tokens that texts are packed to in one batch.
fn packed(header: &Header) -> u32 {
    let row = 4 * u64::from(header.vocabulary.max(1));
    u32::try_from(ROWS / row)
        .unwrap_or(u32::MAX)
        .clamp(SEQUENCES, BATCH)
}

/// Whether a text longer than a batch can be computed in several: each token sees only those before it, and the last
/// one stands for all.
fn divides(header: &Header) -> bool {
    header.causal && !header.encoder && header.pooling == Some(Pooling::Last)
}

/// Threads that a model of so many bytes is worth. They meet some hundred times for each token; a small model's work
/// between two meetings is so short that a second thread gains little, and when another program takes its core, the
/// first one waits for whole time slices.
pub(crate) fn worthwhile_threads(bytes: u64) -> u32 {
    u32::try_from(1 + (bytes >> 26)).unwrap_or(u32::MAX)
}

/// Physical cores this process may use: fewer than the machine has in a container or under an affinity mask.
pub(crate) fn usable_cores() -> u32 {
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
    /// Most tokens in one batch.
    pub batch: u32,
    /// Bytes of weights and KV cache.
    pub bytes: u64,
    /// Layers on the GPU; −1 is all.
    pub gpu_layers: i32,
}

impl Plan {
    /// Fits a model into `budget` bytes: the slots share the cells of two contexts if there is room, for they are rarely
    /// all at their end at once, and of one at least.
    pub fn new(header: &Header, options: &ModelOptions, budget: u64, gpu_free: u64) -> Self {
        let mut plan = match header.pooling {
            Some(_) => Self::embedding(header, options),
            None => Self::generating(header, options, budget),
        };
        let bytes = plan.bytes;
        plan.gpu_layers = match options.gpu_layers {
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
        plan
    }

    fn generating(header: &Header, options: &ModelOptions, budget: u64) -> Self {
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
        Self {
            context,
            cells: cells as u32,
            batch: BATCH,
            bytes: header.bytes.saturating_add(cells.saturating_mul(per_token)),
            gpu_layers: 0,
        }
    }

    /// What it takes to run an embedding model; it needs no budget to grow into.
    fn embedding(header: &Header, options: &ModelOptions) -> Self {
        let sized = |context: u32| {
            let packed = packed(header);
            let batch = match divides(header) {
                true => packed,
                false => packed.max(context),
            };
            let cells = context.max(batch).next_multiple_of(256);
            let tokens = u64::from(batch);
            let row = 4 * u64::from(header.vocabulary);
            let (rows, per_cell) = match header.encoder {
                true => (row, 0),
                false => (2 * row, header.kv_bytes_per_token(options.kv)),
            };
            // The mask says for each token which others it sees, once in 32 bits and once in 16.
            let mask = tokens * u64::from(cells) * 6;
            let work = tokens * rows + mask + u64::from(cells) * per_cell;
            (batch, cells, work)
        };
        // Learned positions end where the model's context does.
        let own = header.context.max(1);
        let context = match options.context {
            Some(context) => context.min(own),
            None => {
                let mut context = own.min(DEFAULT_CONTEXT);
                while context > BATCH && sized(context).2 > WORKSPACE {
                    context /= 2;
                }
                context
            }
        };
        let (batch, cells, work) = sized(context);
        Self {
            context,
            cells,
            batch,
            bytes: header.bytes.saturating_add(work),
            gpu_layers: 0,
        }
    }
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
            pooling: None,
            causal: true,
            encoder: false,
            vocabulary: 151_936,
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

    fn embedding(pooling: Pooling, context: u32, vocabulary: u32) -> Header {
        let encoder = pooling != Pooling::Last;
        Header {
            architecture: if encoder { "bert" } else { "qwen3" }.into(),
            layers: 12,
            context,
            kv_elements: 28 * 8 * 256,
            bytes: 100 << 20,
            sampling: Default::default(),
            pooling: Some(pooling),
            causal: !encoder,
            encoder,
            vocabulary,
        }
    }

    #[test]
    fn an_encoder_computes_its_longest_text_in_one_batch_and_never_more_than_it_knows() {
        let usual = ModelOptions::default();
        let bert = Plan::embedding(&embedding(Pooling::First, 512, 30_522), &usual);
        assert_eq!((bert.context, bert.batch), (512, 512));
        let told = ModelOptions {
            context: Some(4096),
            ..usual.clone()
        };
        assert_eq!(
            Plan::embedding(&embedding(Pooling::First, 512, 30_522), &told).context,
            512
        );
        let nomic = Plan::embedding(&embedding(Pooling::Mean, 2048, 30_522), &usual);
        assert_eq!((nomic.context, nomic.batch), (2048, 2048));
        // 250,002 rows of 8,192 tokens would be eight gigabytes.
        let large = embedding(Pooling::First, 8192, 250_002);
        let halved = Plan::embedding(&large, &usual);
        assert_eq!((halved.context, halved.batch), (1024, 1024));
        assert!(halved.bytes - large.bytes <= WORKSPACE);
        assert_eq!(Plan::embedding(&large, &told).context, 4096);
    }

    #[test]
    fn a_decoder_computes_long_texts_in_pieces() {
        let plan = Plan::embedding(
            &embedding(Pooling::Last, 32_768, 151_936),
            &ModelOptions::default(),
        );
        assert_eq!((plan.context, plan.batch), (4096, 220));
        assert!(plan.cells >= plan.context);
    }
}
