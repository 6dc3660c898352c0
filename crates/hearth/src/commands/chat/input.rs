//! Where lines come from: an editor with history in a terminal, plain lines through a pipe.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use rustyline::Editor;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;

use crate::failure::{Failure, Outcome};
use crate::screen::{Screen, println};

const PROMPT: &str = "> ";
const MORE: &str = ". ";
const QUOTES: &str = "\"\"\"";
const HISTORY: usize = 1_000;

/// One message typed, however many lines it took.
pub enum Line {
    /// The text.
    Text(String),
    /// Nobody will type any more.
    End,
}

/// The source of lines.
pub enum Input {
    /// Somebody types.
    Terminal(Box<Editor<(), FileHistory>>, PathBuf),
    /// A program writes.
    Pipe(std::io::Lines<std::io::StdinLock<'static>>),
}

enum Raw {
    Line(String),
    Interrupted,
    End,
}

impl Input {
    /// Looks at standard input.
    pub fn new(home: &Path) -> Outcome<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Pipe(std::io::stdin().lock().lines()));
        }
        let failed =
            |error: ReadlineError| Failure::new(format!("the terminal cannot be used: {error}"));
        let settings = rustyline::Config::builder()
            .max_history_size(HISTORY)
            .map_err(failed)?
            .auto_add_history(false)
            .build();
        let mut editor = Editor::with_config(settings).map_err(failed)?;
        let file = home.join("chat_history");
        // The first time there is none.
        let _ = editor.load_history(&file);
        Ok(Self::Terminal(Box::new(editor), file))
    }

    /// Whether somebody types.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(..))
    }

    /// The next message: a line, or several joined by a trailing backslash or enclosed in `"""`.
    pub fn read(&mut self, screen: &Screen) -> Outcome<Line> {
        let mut warned = false;
        let mut lines: Vec<String> = Vec::new();
        let mut quoted = false;
        loop {
            let raw = self.line(if lines.is_empty() && !quoted {
                PROMPT
            } else {
                MORE
            })?;
            let line = match raw {
                Raw::Line(line) => line,
                Raw::End if lines.is_empty() => return Ok(Line::End),
                Raw::End => break,
                Raw::Interrupted if warned && lines.is_empty() => return Ok(Line::End),
                Raw::Interrupted => {
                    warned = lines.is_empty();
                    if warned {
                        println(&screen.dim("(Ctrl-C again or Ctrl-D leaves)"));
                    }
                    lines.clear();
                    quoted = false;
                    continue;
                }
            };
            warned = false;
            match join(&mut lines, &mut quoted, line) {
                More::Yes => {}
                More::No => break,
            }
        }
        let text = lines.join("\n");
        self.remember(&text);
        Ok(Line::Text(text))
    }

    fn line(&mut self, prompt: &str) -> Outcome<Raw> {
        match self {
            Self::Terminal(editor, _) => match editor.readline(prompt) {
                Ok(line) => Ok(Raw::Line(line)),
                Err(ReadlineError::Interrupted) => Ok(Raw::Interrupted),
                Err(ReadlineError::Eof) => Ok(Raw::End),
                Err(error) => Err(Failure::new(format!(
                    "the terminal cannot be read: {error}"
                ))),
            },
            Self::Pipe(lines) => match lines.next() {
                Some(Ok(line)) => Ok(Raw::Line(line)),
                Some(Err(error)) => Err(Failure::usage(format!(
                    "standard input is not readable text: {error}"
                ))),
                None => Ok(Raw::End),
            },
        }
    }

    /// Keeps a message for the arrow keys of this and later conversations.
    fn remember(&mut self, text: &str) {
        if let Self::Terminal(editor, file) = self
            && !text.trim().is_empty()
        {
            let _ = editor.add_history_entry(text);
            if let Some(folder) = file.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            // A history that cannot be kept is no reason to stop talking.
            let _ = editor.append_history(file);
        }
    }
}

enum More {
    Yes,
    No,
}

/// Adds a line to a message; says whether the message goes on.
fn join(lines: &mut Vec<String>, quoted: &mut bool, mut line: String) -> More {
    if *quoted {
        if let Some(end) = line.trim_end().strip_suffix(QUOTES) {
            if !end.is_empty() {
                lines.push(end.to_owned());
            }
            return More::No;
        }
        lines.push(line);
        return More::Yes;
    }
    if lines.is_empty()
        && let Some(start) = line.trim_start().strip_prefix(QUOTES)
    {
        if let Some(whole) = start.trim_end().strip_suffix(QUOTES) {
            lines.push(whole.to_owned());
            return More::No;
        }
        if !start.is_empty() {
            lines.push(start.to_owned());
        }
        *quoted = true;
        return More::Yes;
    }
    let goes_on = line.ends_with('\\');
    if goes_on {
        line.pop();
    }
    lines.push(line);
    if goes_on { More::Yes } else { More::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(typed: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        let (mut lines, mut quoted) = (Vec::new(), false);
        for line in typed {
            if let More::No = join(&mut lines, &mut quoted, (*line).to_owned()) {
                all.push(lines.join("\n"));
                lines.clear();
                quoted = false;
            }
        }
        all
    }

    #[test]
    fn messages_span_lines_by_backslash_or_quotes() {
        assert_eq!(messages(&["one", "two"]), ["one", "two"]);
        assert_eq!(
            messages(&["one\\", "two\\", "three", "four"]),
            ["one\ntwo\nthree", "four"]
        );
        assert_eq!(
            messages(&["\"\"\"", "one\\", "", "two", "\"\"\"", "three"]),
            ["one\\\n\ntwo", "three"]
        );
        assert_eq!(
            messages(&["\"\"\"one", "two\"\"\"", "three"]),
            ["one\ntwo", "three"]
        );
        assert_eq!(messages(&["\"\"\"one\"\"\""]), ["one"]);
    }
}
