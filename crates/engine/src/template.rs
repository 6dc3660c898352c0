//! Chat templates from the GGUF, rendered with minijinja.
