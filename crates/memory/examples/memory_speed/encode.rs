//! The encoder: one text at a time on one thread, many together, and how far int8 is from 32-bit floats.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hearth_encoder::reference::Reference;
use hearth_encoder::{Batch, Encoder, Kernel, Role};
use hearth_memory::Embed;
use serde_json::json;

use crate::texts::{self, Draw};
use crate::{Answer, times};

/// Texts encoded at a time where they are many.
const PIECE: usize = 4096;

/// An encoder and where it came from.
pub struct Opened {
    encoder: Encoder,
    folder: std::path::PathBuf,
    milliseconds: f64,
}

impl Opened {
    pub fn new(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let start = Instant::now();
        let encoder = Encoder::open(folder)?;
        Ok(Self {
            milliseconds: start.elapsed().as_secs_f64() * 1e3,
            encoder,
            folder: folder.to_owned(),
        })
    }

    pub fn about(&self) -> serde_json::Value {
        let kernels: Vec<&str> = Kernel::available()
            .iter()
            .map(|kernel| kernel.name())
            .collect();
        json!({
            "open_ms": self.milliseconds, "dimensions": self.encoder.dimensions(), "id": self.encoder.id(),
            "kernel": self.encoder.kernel().name(), "kernels": kernels,
        })
    }

    /// The encoder for a store, with so many threads for a batch (0: all cores).
    pub fn with_threads(&self, threads: usize) -> Arc<dyn Embed> {
        Arc::new(Threaded {
            encoder: self.encoder.clone(),
            threads,
        })
    }

    pub fn texts(&self, tokens: usize, count: usize) -> Answer {
        let mut draw = Draw::new(tokens as u64);
        let texts = (0..count)
            .map(|_| self.text_of(tokens, &mut draw))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(json!({"texts": texts}))
    }

    /// A text of exactly so many tokens.
    fn text_of(&self, tokens: usize, draw: &mut Draw) -> Result<String, Box<dyn Error>> {
        let mut text = String::new();
        loop {
            let longer = format!("{text}{} ", texts::word(draw));
            match self.encoder.count_tokens(&longer)? {
                count if count == tokens => return Ok(longer),
                count if count < tokens => text = longer,
                _ => {}
            }
        }
    }

    pub fn encode(&self, texts: &[String], rounds: usize, kernel: Option<&str>) -> Answer {
        let encoder = match kernel {
            None => self.encoder.clone(),
            Some(_) => self.encoder.clone().with_kernel(kernel_of(kernel)?)?,
        };
        let times = times(rounds, 2, |round| {
            let text = &texts[round % texts.len()];
            encoder
                .encode(text, Role::Plain)
                .map(|embedding| drop(black_box(embedding)))
        })?;
        Ok(json!({"times": times}))
    }

    pub fn batch(&self, texts: &[String], threads: usize) -> Answer {
        let batch = Batch {
            threads,
            progress: None,
        };
        let start = Instant::now();
        let embeddings = self.encoder.encode_batch(texts, Role::Plain, batch)?;
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize = embeddings.iter().map(|embedding| embedding.tokens).sum();
        Ok(json!({"texts": texts.len() as f64 / seconds, "tokens": tokens as f64 / seconds}))
    }

    pub fn compare(&self, texts: &[String], ours: &Path, exact: &Path) -> Answer {
        let embeddings = self
            .encoder
            .encode_batch(texts, Role::Plain, Batch::default())?;
        let mut file = BufWriter::new(std::fs::File::create(ours)?);
        for embedding in embeddings {
            write(&mut file, &embedding.vector)?;
        }
        file.flush()?;
        let reference = Reference::open(&self.folder)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pieces = std::thread::scope(|scope| {
            let threads: Vec<_> = texts
                .chunks(texts.len().div_ceil(cores).max(1))
                .map(|texts| {
                    let reference = &reference;
                    scope.spawn(move || {
                        texts
                            .iter()
                            .map(|text| reference.encode(text))
                            .collect::<Result<Vec<_>, _>>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a thread panicked"))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let mut file = BufWriter::new(std::fs::File::create(exact)?);
        for piece in pieces {
            for vector in piece? {
                write(&mut file, &vector)?;
            }
        }
        file.flush()?;
        Ok(json!({}))
    }

    pub fn vectors(&self, count: usize, queries: usize, notes: &Path, questions: &Path) -> Answer {
        let bytes = |count: usize| (count * self.encoder.dimensions() * 4) as u64;
        let start = Instant::now();
        let of = |path: &Path, count: usize, text: &dyn Fn(usize) -> String| {
            // Of an earlier run, if it was of this encoder and these texts.
            if path.metadata().is_ok_and(|file| file.len() >= bytes(count)) {
                let mut file = std::fs::File::open(path)?;
                let mut is_same = true;
                for number in [0, count - 1] {
                    let vector = self.encoder.encode(&text(number), Role::Passage)?.vector;
                    let mut row = vec![0; vector.len() * 4];
                    file.seek(SeekFrom::Start(bytes(number)))?;
                    file.read_exact(&mut row)?;
                    let ours = vector.iter().flat_map(|value| value.to_le_bytes());
                    is_same &= ours.eq(row);
                }
                if is_same {
                    return Ok::<_, Box<dyn Error>>(());
                }
            }
            let mut file = BufWriter::new(std::fs::File::create(path)?);
            for from in (0..count).step_by(PIECE) {
                let texts: Vec<String> = (from..count.min(from + PIECE)).map(text).collect();
                for embedding in
                    self.encoder
                        .encode_batch(&texts, Role::Passage, Batch::default())?
                {
                    write(&mut file, &embedding.vector)?;
                }
            }
            Ok(file.flush()?)
        };
        of(notes, count, &texts::note)?;
        of(questions, queries, &texts::question)?;
        Ok(json!({"seconds": start.elapsed().as_secs_f64()}))
    }
}

pub fn kernel_of(name: Option<&str>) -> Result<Kernel, Box<dyn Error>> {
    let Some(name) = name else {
        return Ok(Kernel::best());
    };
    let known = Kernel::available()
        .iter()
        .find(|kernel| kernel.name() == name);
    Ok(*known.ok_or_else(|| format!("this machine has no kernel {name}"))?)
}

fn write(file: &mut impl Write, vector: &[f32]) -> std::io::Result<()> {
    vector
        .iter()
        .try_for_each(|value| file.write_all(&value.to_le_bytes()))
}

struct Threaded {
    encoder: Encoder,
    threads: usize,
}

impl Embed for Threaded {
    fn id(&self) -> String {
        self.encoder.id()
    }

    fn dimensions(&self) -> usize {
        self.encoder.dimensions()
    }

    fn query(&self, text: &str) -> Result<Vec<f32>, String> {
        self.encoder.query(text)
    }

    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        let batch = Batch {
            threads: self.threads,
            progress: None,
        };
        let all = self.encoder.encode_batch(texts, Role::Passage, batch);
        let all = all.map_err(|error| error.to_string())?;
        Ok(all.into_iter().map(|embedding| embedding.vector).collect())
    }
}
