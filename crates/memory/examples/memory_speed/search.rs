//! A store of memories from its own door: imports, searches, single writes.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hearth_memory::{Embed, Memories, Place, TABLES};
use hearth_protocol::memory::{NewMemory, Search};
use hearth_store::Store;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{Answer, texts, times};

/// Notes of one file of an import.
const FILE: usize = 1000;
/// Sections of one Markdown document.
const SECTIONS: usize = 20;

/// What is imported.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// JSON lines, in files of 1,000.
    Lines,
    /// Markdown documents of 20 sections.
    Markdown,
}

/// A store in a folder of its own.
pub struct Stored {
    memories: Memories,
    held: usize,
    asked: usize,
}

impl Stored {
    /// An empty one; without an encoder it searches words alone.
    pub fn new(folder: &Path, encoder: Option<Arc<dyn Embed>>) -> Result<Self, Box<dyn Error>> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        let store = Store::open(&folder.join("hearth.db"), &[TABLES])?;
        let place = Place {
            vectors: Some(folder.join("memory.vectors")),
            encoder: encoder.map(source),
        };
        Ok(Self {
            memories: Memories::open(store, place)?,
            held: 0,
            asked: 0,
        })
    }

    pub fn grow(&mut self, to: usize, form: Form) -> Answer {
        let from = self.held;
        let mut seconds = 0.0;
        let mut stored = 0;
        let each = match form {
            Form::Lines => FILE,
            Form::Markdown => SECTIONS,
        };
        let mut at = from;
        while at < to {
            let end = to.min(at + each);
            let (path, text) = file(at, end, form)?;
            let usual = NewMemory {
                project: (form == Form::Markdown).then(|| texts::project(at / SECTIONS)),
                ..NewMemory::default()
            };
            let start = Instant::now();
            let imported =
                self.memories
                    .import(&path, text.as_bytes(), &usual, Timestamp::now())?;
            seconds += start.elapsed().as_secs_f64();
            stored += imported.stored;
            at = end;
        }
        if stored as usize != to.saturating_sub(from) {
            return Err(format!("{stored} of {} notes were new", to - from).into());
        }
        let start = Instant::now();
        self.memories.upkeep(&mut |_, _| true)?;
        seconds += start.elapsed().as_secs_f64();
        self.held = to.max(from);
        Ok(json!({"seconds": seconds, "rate": stored as f64 / seconds}))
    }

    pub fn search(&mut self, count: usize, project: bool) -> Answer {
        let memories = &self.memories;
        let first = self.asked;
        // Beside the ones that are counted some that warm up.
        let times = times(count, 5, |round| {
            let search = Search {
                query: texts::question(first + round),
                project: project.then(|| texts::project(first + round)),
                limit: Some(10),
                ..Search::default()
            };
            black_box(memories.search(&search, Timestamp::now())?);
            Ok::<_, hearth_memory::Error>(())
        })?;
        self.asked += count + 5;
        Ok(json!({"times": times}))
    }

    pub fn add(&mut self, count: usize) -> Answer {
        let first = self.held;
        let memories = &self.memories;
        let times = times(count, 5, |round| -> Result<(), Box<dyn Error>> {
            let number = 10_000_000 + first + round;
            let new = NewMemory {
                text: texts::note(number),
                project: Some(texts::project(number)),
                ..NewMemory::default()
            };
            memories.add(&new, Timestamp::now())?;
            Ok(())
        })?;
        self.held += count + 5;
        Ok(json!({"times": times}))
    }
}

/// An encoder that is open, as a store asks for it.
pub fn source(encoder: Arc<dyn Embed>) -> hearth_memory::Source {
    Arc::new(move || Ok(Arc::clone(&encoder)))
}

/// A file of the notes `from..to`.
fn file(from: usize, to: usize, form: Form) -> Result<(String, String), std::fmt::Error> {
    let mut text = String::new();
    for number in from..to {
        match form {
            Form::Lines => {
                let line = json!({"text": texts::note(number), "project": texts::project(number)});
                writeln!(text, "{line}")?;
            }
            Form::Markdown => writeln!(text, "## Section {number}\n\n{}\n", texts::note(number))?,
        }
    }
    let ending = match form {
        Form::Lines => "jsonl",
        Form::Markdown => "md",
    };
    Ok((format!("notes-{from}.{ending}"), text))
}
