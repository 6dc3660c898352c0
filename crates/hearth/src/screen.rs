//! What people see: colours only where they are wanted, one progress line, simple tables.

use std::io::{IsTerminal, Write};

/// What the terminal can do and what was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Answer in JSON instead of words.
    pub json: bool,
    colour_out: bool,
    colour_err: bool,
    live: bool,
}

impl Screen {
    /// Looks at the standard streams, `NO_COLOR` and `TERM`.
    pub fn of_process(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let (out, err) = (
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        );
        Self {
            json,
            colour_out: out && !plain,
            colour_err: err && !plain,
            live: err && !json,
        }
    }

    /// Words without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self {
            json: false,
            colour_out: false,
            colour_err: false,
            live: false,
        }
    }

    /// Faint text for standard output.
    pub fn dim(&self, text: &str) -> String {
        paint(self.colour_out, "2", text)
    }

    /// Strong text for standard output.
    pub fn bold(&self, text: &str) -> String {
        paint(self.colour_out, "1", text)
    }

    /// Good news for standard output.
    pub fn green(&self, text: &str) -> String {
        paint(self.colour_out, "32", text)
    }

    /// A failure, for standard output.
    pub fn red(&self, text: &str) -> String {
        paint(self.colour_out, "31", text)
    }

    /// A warning, for standard output.
    pub fn yellow(&self, text: &str) -> String {
        paint(self.colour_out, "33", text)
    }

    /// Whether standard error shows colours.
    pub fn colour_err(&self) -> bool {
        self.colour_err
    }

    /// A remark on standard error, faint.
    pub fn note(&self, text: &str) {
        self.clear();
        eprintln!("{}", paint(self.colour_err, "2", text));
    }

    /// Whether somebody watches.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Text beside the answer, faint, for who watches.
    pub fn aside(&self, text: &str) {
        if self.live {
            eprint!("{}", paint(self.colour_err, "2", text));
        }
    }

    /// Replaces the progress line; nothing where nobody watches.
    pub fn progress(&self, text: &str) {
        if self.live {
            eprint!("\r\x1b[2K{}", paint(self.colour_err, "2", text));
            let _ = std::io::stderr().flush();
        }
    }

    /// Progress of loading a model.
    pub fn loading(&self, name: &str, progress: f32, eta: Option<f32>) {
        self.progress(&loading(name, progress, eta));
    }

    /// Takes the progress line away.
    pub fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[2K");
        }
    }

    /// Columns as wide as they must be; the first row is the heading.
    pub fn table(&self, rows: &[Vec<String>]) -> String {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            let line = line.join("  ");
            text += &if index == 0 {
                self.dim(line.trim_end())
            } else {
                line.trim_end().to_owned()
            };
            text.push('\n');
        }
        text
    }
}

/// A line about a model that loads. The time left is worth nothing before a part of the way is done.
fn loading(name: &str, progress: f32, eta: Option<f32>) -> String {
    let eta = eta
        .filter(|eta| *eta >= 1.0 && progress > 0.01)
        .map_or_else(String::new, |eta| format!(", about {eta:.0} s left"));
    let bar = bar(progress);
    format!("loading {name} {bar} {:3.0} %{eta}", progress * 100.0)
}

/// A share of a whole, from 0 to 1, as a bar.
pub fn bar(share: f32) -> String {
    const WIDTH: usize = 24;
    let filled = (share.clamp(0.0, 1.0) * WIDTH as f32).round() as usize;
    format!("{}{}", "━".repeat(filled), "─".repeat(WIDTH - filled))
}

/// Writes to standard output and ignores a reader that went away: `hearth run … | head -1` is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// [`print()`] and a line end.
pub fn println(text: &str) {
    print(&format!("{text}\n"));
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_told_before_a_part_of_the_way_is_done() {
        for (progress, eta, told) in [
            (0.0, Some(10.0), None),
            (0.01, Some(31.0), None),
            (0.2, Some(8.0), Some("about 8 s left")),
            (0.9, Some(0.5), None),
            (0.5, None, None),
        ] {
            let line = loading("qwen3", progress, eta);
            assert!(line.starts_with("loading qwen3 "), "{line}");
            match told {
                Some(told) => assert!(line.ends_with(told), "{line}"),
                None => assert!(line.ends_with('%'), "{line}"),
            }
        }
    }
}
