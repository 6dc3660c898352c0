//! Rows of the benchmark, their table, and the files they are kept in.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Which way a figure should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times and sizes.
    Less,
}

/// One figure of ours and, if it was measured, the peer's.
pub struct Row {
    what: String,
    unit: &'static str,
    better: Better,
    aim: &'static str,
    /// Samples, ours first.
    samples: Vec<Vec<f64>>,
}

impl Row {
    /// `samples` has a list for us and one for the peer, if there is one.
    pub fn new(
        what: &str,
        unit: &'static str,
        better: Better,
        aim: &'static str,
        samples: Vec<Vec<f64>>,
    ) -> Self {
        Self {
            what: what.to_owned(),
            unit,
            better,
            aim,
            samples,
        }
    }

    /// This row's medians divided by another's, server by server.
    pub fn over(&self, what: &str, other: &Self, aim: &'static str) -> Self {
        let ratios = self
            .medians()
            .zip(other.medians())
            .map(|(ours, theirs)| vec![ours / theirs]);
        Self::new(what, "×", Better::More, aim, ratios.collect())
    }

    fn medians(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().map(|samples| median(samples))
    }

    fn figure(&self, index: usize) -> Option<f64> {
        self.samples.get(index).map(|samples| median(samples))
    }

    /// Ours over the peer's.
    fn ratio(&self) -> Option<f64> {
        Some(self.figure(0)? / self.figure(1)?)
    }

    /// The row as a line of text.
    pub fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or("–".to_owned(), show);
        let ratio = self
            .ratio()
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2} ×"));
        let cells = [
            &self.what,
            &number(self.figure(0)),
            &number(self.figure(1)),
            &ratio,
        ];
        format!(
            "{:<56} {:>10} {:>10} {:>8}  {} {}",
            cells[0], cells[1], cells[2], cells[3], self.unit, self.aim
        )
    }

    fn markdown(&self) -> String {
        let number = |value: Option<f64>| {
            value.map_or("–".to_owned(), |value| {
                format!("{} {}", show(value), self.unit)
            })
        };
        let ratio = self
            .ratio()
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2} ×"));
        let way = match self.better {
            Better::More => "more",
            Better::Less => "less",
        };
        let (ours, theirs) = (number(self.figure(0)), number(self.figure(1)));
        format!(
            "| {} | {ours} | {theirs} | {ratio} | {way} | {} |\n",
            self.what, self.aim
        )
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": self.unit, "more_is_better": self.better == Better::More, "aim": self.aim,
            "hearth": self.figure(0), "llama_server": self.figure(1), "ratio": self.ratio(), "samples": self.samples,
        })
    }
}

/// A figure with as many digits as it deserves.
pub fn show(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The one in the middle.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

/// Everything that is kept of one run.
pub struct Report {
    /// Facts about the run: name and value.
    facts: Vec<(&'static str, String)>,
    sections: Vec<(String, Vec<Row>)>,
}

impl Report {
    /// Notes the machine and the versions.
    pub fn new(
        hearth: &Path,
        peer: Option<&Path>,
        threads: usize,
        repeat: usize,
    ) -> Result<Self, String> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or("unknown");
        let mut facts = vec![
            ("date", output("date", &["-u", "+%Y-%m-%d"])),
            (
                "processor",
                cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            ),
            (
                "logical processors",
                std::thread::available_parallelism()
                    .map_or(0, usize::from)
                    .to_string(),
            ),
            ("system", output("uname", &["-sr"])),
            (
                "commit",
                output("git", &["describe", "--always", "--dirty"]),
            ),
            ("hearth", output(hearth, &["--version"])),
            ("threads", threads.to_string()),
            ("samples per row", repeat.to_string()),
        ];
        if let Some(peer) = peer {
            if !peer.is_file() {
                return Err(format!("--llama-server: {} is no file", peer.display()));
            }
            facts.push(("llama-server", output(peer, &["--version"])));
        }
        Ok(Self {
            facts,
            sections: Vec::new(),
        })
    }

    /// Adds a table.
    pub fn section(&mut self, title: &str, rows: Vec<Row>) {
        self.sections.push((title.to_owned(), rows));
    }

    /// Writes `bench/results/NAME-DATE.md` and `.json`.
    pub fn write(&self, name: &str) -> Result<(), String> {
        let folder = Path::new("bench/results");
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let date = &self.facts[0].1;
        for (extension, text) in [("md", self.markdown()), ("json", self.json())] {
            let path = folder.join(format!("{name}-{date}.{extension}"));
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("written: {}", path.display());
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = "# `cargo xtask bench serve`\n\n".to_owned();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "- {name}: {}", value.replace('\n', "; "));
        }
        for (title, rows) in &self.sections {
            let _ = write!(
                text,
                "\n## {title}\n\n| what | hearth | llama-server | ratio | better | aim |\n"
            );
            text.push_str("|---|---|---|---|---|---|\n");
            rows.iter().for_each(|row| text.push_str(&row.markdown()));
        }
        text
    }

    fn json(&self) -> String {
        let facts: serde_json::Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        let sections: Vec<Value> = self
            .sections
            .iter()
            .map(|(title, rows)| json!({"title": title, "rows": rows.iter().map(Row::json).collect::<Vec<_>>()}))
            .collect();
        format!("{:#}\n", json!({"run": facts, "sections": sections}))
    }
}

/// What a program prints, on whichever stream; a dash if it cannot be run.
pub fn output(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(args).output() else {
        return "–".to_owned();
    };
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8_lossy(&text).trim().to_owned()
}
