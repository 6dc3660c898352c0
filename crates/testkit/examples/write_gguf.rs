//! Writes a random-weight model: `write_gguf SHAPE QUANTISATION PATH [SEED]`.

use std::path::Path;
use std::process::ExitCode;

use hearth_testkit::gguf::{Quantisation, Shape, write};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let [shape, quantisation, path, seed @ ..] = args else {
        return Err("usage: write_gguf tiny|qwen3-0.6b F16|Q8_0|Q4_K_M PATH [SEED]".to_owned());
    };
    let shape =
        Shape::named(shape).ok_or_else(|| format!("unknown shape {shape}; tiny or qwen3-0.6b"))?;
    let quantisation = Quantisation::named(quantisation)
        .ok_or_else(|| format!("unknown quantisation {quantisation}; F16, Q8_0 or Q4_K_M"))?;
    let seed = match seed.first() {
        Some(text) => text
            .parse()
            .map_err(|_| format!("the seed {text} is not a number"))?,
        None => 1,
    };
    write(Path::new(path), &shape, quantisation, seed).map_err(|error| format!("{path}: {error}"))
}
