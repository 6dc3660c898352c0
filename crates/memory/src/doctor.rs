//! Looking for damage, and mending it: the database is the truth, and everything else is made from it again.

use hearth_protocol::memory::{Examined, Finding};
use hearth_store::sqlite::{self, Transaction};

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
        let wrong: i64 = tx.query_row(
            "SELECT count(*) FROM memory_vector WHERE length(vector) != ?1",
            [4 * dimensions as i64],
            |row| row.get(0),
        )?;
        if wrong > 0 {
            found.push(Diagnosis::new(
                format!("{wrong} vectors are damaged"),
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

/// Lists of words that do not agree with the memories.
pub(crate) fn words(error: &sqlite::Error) -> Diagnosis {
    Diagnosis::new(
        format!("the lists of words do not agree with the memories ({error})"),
        Remedy::Words,
    )
}

/// Compares the lists of words with the memories.
pub(crate) fn check_words(tx: &Transaction<'_>) -> sqlite::Result<()> {
    tx.execute(
        "INSERT INTO memory_words (memory_words, rank) VALUES ('integrity-check', 1)",
        [],
    )?;
    Ok(())
}

/// Makes the lists of words again.
pub(crate) fn rebuild_words(tx: &Transaction<'_>) -> sqlite::Result<()> {
    tx.execute(
        "INSERT INTO memory_words (memory_words) VALUES ('rebuild')",
        [],
    )?;
    Ok(())
}

/// Throws away vectors that are damaged.
pub(crate) fn drop_damaged(tx: &Transaction<'_>, dimensions: usize) -> sqlite::Result<()> {
    tx.execute(
        "DELETE FROM memory_vector WHERE row IN (SELECT row FROM memory_vector WHERE length(vector) != ?1)",
        [4 * dimensions as i64],
    )?;
    // Their slots are gone: everything is numbered anew.
    crate::sqlite::renumber(tx)
}
