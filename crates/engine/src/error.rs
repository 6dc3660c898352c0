//! What can go wrong between a request and its last token, in terms a caller can act on.

use std::time::Duration;

/// Why a request could not be answered. Every variant says what to do next in its message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// No model of that name is known here.
    #[error("model `{name}` is not here; {advice}")]
    UnknownModel {
        /// Name as asked for.
        name: String,
        /// Comma-separated names that would have worked.
        known: String,
        /// What to do about it.
        advice: String,
    },
    /// The model is being loaded; try again after `eta`.
    #[error("model `{name}` is loading ({percent} %)", percent = (progress * 100.0).round())]
    Loading {
        /// Name of the model.
        name: String,
        /// Fraction loaded, 0 to 1.
        progress: f32,
        /// Estimated time left.
        eta: Duration,
    },
    /// The model file could not be loaded.
    #[error("model `{name}` could not be loaded: {reason}")]
    LoadFailed {
        /// Name of the model.
        name: String,
        /// What llama.cpp or the file system said.
        reason: String,
    },
    /// The models in use leave no room for this one; try again when one of them is idle.
    #[error(
        "model `{name}` needs {needed_mib} MiB, and of the {budget_mib} MiB that models may take, {busy_mib} MiB are in use by busy models; try again later or raise the memory budget"
    )]
    NoRoom {
        /// Name of the model.
        name: String,
        /// The least it needs.
        needed_mib: u64,
        /// What all models may take.
        budget_mib: u64,
        /// What the others take.
        busy_mib: u64,
    },
    /// As many requests wait as are allowed to.
    #[error("the queue of model `{name}` is full ({limit} waiting); try again in a moment")]
    QueueFull {
        /// Name of the model.
        name: String,
        /// Most requests that may wait.
        limit: usize,
    },
    /// The prompt does not fit the context. LiteLLM tells this error by `exceeds the available context size`.
    #[error(
        "the prompt has {prompt_tokens} tokens and the context holds {context}, so it exceeds the available context size{hint}",
        hint = shorter(*context, *trained)
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens a sequence may have.
        context: usize,
        /// Tokens the model was made for.
        trained: usize,
    },
    /// A text to embed does not fit the context.
    #[error(
        "input[{index}] has {tokens} tokens and at most {context} fit{hint}; divide it into shorter texts",
        hint = longer(*context, *trained)
    )]
    InputTooLong {
        /// Its place in the request, from 0.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens a text may have here.
        context: usize,
        /// Tokens the model was made for.
        trained: usize,
    },
    /// An embedding model was asked for text.
    #[error(
        "model `{name}` embeds texts and generates none; name another model for chats and completions"
    )]
    OnlyEmbeds {
        /// Name of the model.
        name: String,
    },
    /// A model that generates text was asked for vectors.
    #[error(
        "model `{name}` generates text; embeddings come from an embedding model; run `hearth pull nomic-embed-text`"
    )]
    OnlyGenerates {
        /// Name of the model.
        name: String,
    },
    /// A field of the request is wrong.
    #[error("{message}")]
    Invalid {
        /// The field, as a path in the engine's request (`sampling.temperature`, `constraint`, `messages`, …).
        field: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// llama.cpp failed in the middle of the work; the slot was reset.
    #[error("the engine failed while computing: {reason}")]
    Compute {
        /// What is known of the cause.
        reason: String,
    },
    /// The node is shutting down or the model was unloaded.
    #[error("the model was unloaded before the answer was complete; send the request again")]
    Unloaded,
}

/// What helps against a prompt that is too long: a larger context only where the model itself has one.
fn shorter(context: usize, trained: usize) -> String {
    match trained > context {
        true => format!(
            "; shorten the prompt or start the node with a larger --context (the model takes {trained})"
        ),
        false => "; the model itself takes no more: shorten the prompt or use another model".into(),
    }
}

/// What to say when the model itself takes longer texts than its context here.
fn longer(context: usize, trained: usize) -> String {
    match trained > context {
        true => format!(" (the model takes {trained}; start the node with a larger --context)"),
        false => String::new(),
    }
}
