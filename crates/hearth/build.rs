//! Finds the embedded model and names it by its content.
//!
//! `HEARTH_EMBED_MODEL` embeds another GGUF file instead of `models/ember/ember.gguf`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=HEARTH_EMBED_MODEL");
    let path = std::env::var_os("HEARTH_EMBED_MODEL")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ember/ember.gguf")
        });
    println!("cargo:rerun-if-changed={}", path.display());
    match std::fs::read(&path) {
        Ok(bytes) if bytes.starts_with(b"GGUF") => {
            println!("cargo:rustc-env=HEARTH_EMBED_PATH={}", path.display());
            println!("cargo:rustc-env=HEARTH_EMBED_HASH={:016x}", fnv1a(&bytes));
        }
        Ok(_) => fail(&path, "is not a GGUF file"),
        Err(error) => fail(&path, &error.to_string()),
    }
}

fn fail(path: &Path, reason: &str) {
    println!(
        "cargo::error=the model to embed, {}: {reason}. Restore it from the repository, make it with \
         `cargo xtask train-ember`, or name another GGUF file in HEARTH_EMBED_MODEL",
        path.display()
    );
}

/// FNV-1a: names a file by its content; nothing relies on it being hard to collide.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
