//! Tables: in the terminal, in Markdown, and as JSON.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bench_serve::report::{output, show};

/// A table of figures.
pub struct Table {
    title: String,
    note: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    /// What the programs answered, where there is more of it than the table shows.
    data: Value,
}

impl Table {
    /// An empty one; the first column says what a row is of.
    pub fn new(title: &str, note: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            note: note.to_owned(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
            data: Value::Null,
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keeps what was answered.
    pub fn keep(&mut self, data: Value) {
        self.data = data;
    }

    /// Columns of equal width.
    pub fn text(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().chain([&self.columns]);
            cells
                .filter_map(|row| row.get(at))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("\n{}\n", self.title);
        for row in [&self.columns].into_iter().chain(&self.rows) {
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match at {
                    0 => write!(text, "  {cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n\n", self.title);
        if !self.note.is_empty() {
            let _ = writeln!(text, "{}\n", self.note);
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &line(&self.columns);
        text += &format!("|---{}|\n", "|---:".repeat(self.columns.len().max(1) - 1));
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }
}

/// Everything that is kept of one run.
pub struct Report {
    /// Of the files, before the date.
    name: &'static str,
    /// Where the files go.
    folder: PathBuf,
    facts: Vec<(String, String)>,
    tables: Vec<Table>,
}

impl Report {
    /// Notes the machine.
    pub fn new(name: &'static str) -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or("unknown")
            .trim_start_matches([' ', '\t', ':'])
            .to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let mut report = Self {
            name,
            folder: "bench/results".into(),
            facts: Vec::new(),
            tables: Vec::new(),
        };
        report.fact("date", &output("date", &["-u", "+%Y-%m-%d"]));
        report.fact("processor", &cpu);
        report.fact("logical processors", &cores.to_string());
        report.fact("system", &output("uname", &["-sr"]));
        let commit = output("git", &["describe", "--always", "--dirty"]);
        report.fact("commit", &commit);
        report
    }

    /// Keeps it in another folder than `bench/results`: what is no figure to show.
    pub fn within(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Notes something about the run.
    pub fn fact(&mut self, name: &str, value: &str) {
        self.facts.push((name.to_owned(), value.to_owned()));
    }

    /// Shows a table and keeps it, in a file too: what is measured is not lost with what fails later.
    pub fn add(&mut self, table: Table) -> Result<(), String> {
        print!("{}", table.text());
        self.tables.push(table);
        let folder = &self.folder;
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let date = &self.facts[0].1;
        for (ending, text) in [("md", self.markdown()), ("json", self.json())] {
            let path = folder.join(format!("{}-{date}.{ending}", self.name));
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        // `memory-quick` is a run of `memory`.
        let bench = self.name.split('-').next().unwrap_or_default();
        let mut text = format!("# `cargo xtask bench {bench}`\n\n");
        for (name, value) in &self.facts {
            let _ = writeln!(text, "- {name}: {value}");
        }
        self.tables
            .iter()
            .for_each(|table| text += &table.markdown());
        text
    }

    fn json(&self) -> String {
        let facts: serde_json::Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|table| {
                json!({
                    "title": table.title, "note": table.note, "columns": table.columns, "rows": table.rows,
                    "data": table.data,
                })
            })
            .collect();
        format!("{:#}\n", json!({"run": facts, "sections": tables}))
    }
}

/// Milliseconds, with as many digits as they deserve.
pub fn milliseconds(value: f64) -> String {
    match value {
        ..0.1 => format!("{value:.4}"),
        0.1..1.0 => format!("{value:.3}"),
        _ => show(value),
    }
}

/// How many times.
pub fn times(value: f64) -> String {
    format!("{value:.2} ×")
}

/// A count, with commas between thousands.
pub fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(100), "100");
        assert_eq!(milliseconds(0.01234), "0.0123");
        assert_eq!(milliseconds(0.1234), "0.123");
        assert_eq!(milliseconds(12.34), "12.3");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new("T", "", &["what", "a"]);
        table.row(vec!["x".into(), "12".into()]);
        assert_eq!(table.text(), "\nT\n  what   a\n  x     12\n");
    }
}
