//! Looking for damage, and mending it: the database is the truth, and everything else is made from it again.

use hearth_protocol::memory::{Examined, Finding};
use hearth_store::sqlite::{self, ErrorCode, Transaction};

use crate::sqlite::each_vector;

/// What mends a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The lists of words are made again.
    Words,
    /// The file of vectors is made again.
    Vectors,
    /// Vectors that are damaged or lack are made again.
    Encode,
    /// Nothing here does.
    None,
}

/// A finding and what mends it.
pub(crate) struct Diagnosis {
    pub problem: String,
    pub remedy: Remedy,
}

impl Diagnosis {
    fn new(problem: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            problem: problem.into(),
            remedy,
        }
    }

    fn told(&self, mended: bool) -> Finding {
        let remedy = match (self.remedy, mended) {
            (Remedy::Words, false) => "`hearth memory doctor --fix` makes the lists of words again",
            (Remedy::Words, true) => "the lists of words were made again",
            (Remedy::Vectors, false) => "`hearth memory doctor --fix` makes the file again",
            (Remedy::Vectors, true) => "the file was made again",
            (Remedy::Encode, false) => "`hearth memory doctor --fix` encodes them",
            (Remedy::Encode, true) => "they were encoded",
            (Remedy::None, _) => {
                "export what can be read (hearth memory export), move the database away, and import it"
            }
        };
        Finding {
            problem: self.problem.clone(),
            remedy: remedy.into(),
            mended,
        }
    }
}

/// Findings as people are told; `mended` says which remedies were applied.
pub(crate) fn told(all: &[Diagnosis], mended: &[Remedy]) -> Examined {
    let findings = all
        .iter()
        .map(|diagnosis| diagnosis.told(mended.contains(&diagnosis.remedy)))
        .collect();
    Examined { findings }
}

/// What is wrong with the database. `dimensions` is the encoder's, if there is one.
pub(crate) fn examine(
    tx: &Transaction<'_>,
    dimensions: Option<usize>,
) -> sqlite::Result<Vec<Diagnosis>> {
    let mut found = Vec::new();
    // The lists of words are remembered by a connection, and forgotten when they are next asked: another process may have
    // put them together anew, and what is remembered would not be found.
    tx.query_row(
        "SELECT count(*) FROM (SELECT 1 FROM memory_words LIMIT 1)",
        [],
        |_| Ok(()),
    )?;
    let lines: Vec<String> = tx
        .prepare("PRAGMA integrity_check(10)")?
        .query_map([], |row| row.get(0))?
        .collect::<sqlite::Result<_>>()?;
    for line in lines.into_iter().filter(|line| line != "ok") {
        // The lists of words are made from the table and can be made again.
        let remedy = match line.contains("memory_words") {
            true => Remedy::Words,
            false => Remedy::None,
        };
        found.push(Diagnosis::new(format!("the database: {line}"), remedy));
    }
    if let Some(dimensions) = dimensions {
        let wrong = damaged(tx, dimensions)?.len();
        if wrong > 0 {
            found.push(Diagnosis::new(
                format!("vectors of {wrong} memories are damaged or lack"),
                Remedy::Encode,
            ));
        }
        let without = crate::sqlite::unencoded_count(tx)?;
        if without > 0 {
            found.push(Diagnosis::new(
                format!("{without} memories have no vector yet, and are found by words alone"),
                Remedy::Encode,
            ));
        }
    }
    Ok(found)
}

/// A file of vectors that does not fit.
pub(crate) fn file(trouble: &str) -> Diagnosis {
    Diagnosis::new(format!("the file of vectors {trouble}"), Remedy::Vectors)
}

/// Rows of the file that are not what they should be.
pub(crate) fn rows(count: usize) -> Diagnosis {
    let problem = format!("{count} vectors in the file are not those of the database");
    Diagnosis::new(problem, Remedy::Vectors)
}

/// Lists of words that do not agree with the memories.
fn words(error: &sqlite::Error) -> Diagnosis {
    Diagnosis::new(
        format!("the lists of words do not agree with the memories ({error})"),
        Remedy::Words,
    )
}

/// Compares the lists of words with the memories; what is wrong with them, if anything is.
pub(crate) fn check_words(tx: &Transaction<'_>) -> sqlite::Result<Option<Diagnosis>> {
    let checked = tx.execute(
        "INSERT INTO memory_words (memory_words, rank) VALUES ('integrity-check', 1)",
        [],
    );
    match checked {
        Ok(_) => Ok(None),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            Ok(Some(words(&error)))
        }
        Err(error) => Err(error),
    }
}

/// Makes the lists of words again.
pub(crate) fn rebuild_words(tx: &Transaction<'_>) -> sqlite::Result<()> {
    tx.execute(
        "INSERT INTO memory_words (memory_words) VALUES ('rebuild')",
        [],
    )?;
    Ok(())
}

/// Memories with a vector that is none, or that are said to have vectors and have none, or the other way round.
fn damaged(tx: &Transaction<'_>, dimensions: usize) -> sqlite::Result<Vec<i64>> {
    let mut rows: Vec<i64> = tx
        .prepare(
            "SELECT row FROM memory WHERE encoded != (row IN (SELECT row FROM memory_vector))",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<sqlite::Result<_>>()?;
    each_vector(tx, |row, vector| {
        let length: f32 = vector.iter().map(|value| value * value).sum();
        // Not a comparison that a number that is none would pass.
        let is_one = (0.98..1.02).contains(&length);
        if vector.len() != dimensions || !is_one {
            rows.push(row);
        }
    })?;
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

/// Throws away the vectors of memories of which one is damaged.
pub(crate) fn drop_damaged(tx: &Transaction<'_>, dimensions: usize) -> sqlite::Result<()> {
    for row in damaged(tx, dimensions)? {
        tx.execute("DELETE FROM memory_vector WHERE row = ?1", [row])?;
        tx.execute("UPDATE memory SET encoded = 0 WHERE row = ?1", [row])?;
    }
    // Their slots are gone: everything is numbered anew.
    crate::sqlite::renumber(tx)
}
