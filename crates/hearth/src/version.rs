//! The version of this executable.

/// As packages and other nodes know it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
