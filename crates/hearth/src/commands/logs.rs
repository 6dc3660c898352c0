//! `hearth logs`: what a node in the background said, across the files that were put aside.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use same_file::Handle;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use super::Context;
use crate::config::{MOST_FILES, log_level};
use crate::failure::{Failure, Outcome};
use crate::log_file::{aged, newest};
use crate::screen::Screen;

const LOOK: Duration = Duration::from_millis(200);
/// Lines shown unless told otherwise.
const LINES: usize = 100;
/// Fields by which a request is found: its id in the span of the request, and the id of its trace.
const REQUEST_FIELDS: [&str; 3] = ["id", "request_id", "trace_id"];

/// Flags of `hearth logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth logs
  hearth logs --follow --level warn
  hearth logs --request req_1f6c0c1b2f0e4a7d     what one request met; the node sends its id as x-request-id
  hearth logs --json -n 1000 | jq .message
  sudo hearth logs --home /var/lib/hearth       of a service that was installed with --system

The log is written by a node that runs in the background (hearth up --detach, hearth service). A node in a terminal logs
there. log_file_size and log_files set how much is kept.")]
pub struct LogsArgs {
    /// Go on as the node writes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Show that many of the last lines [default: 100; with --request all]
    #[arg(short = 'n', long, value_name = "LINES")]
    pub lines: Option<usize>,
    /// Only what is as severe as this or more: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = |text: &str| log_level(text).ok_or("use error, warn, info, debug or trace"))]
    pub level: Option<LevelFilter>,
    /// Only the lines of this request or trace
    #[arg(long, value_name = "ID")]
    pub request: Option<String>,
}

/// Prints the last lines, and with `--follow` those that come.
pub async fn run(context: &Context, args: &LogsArgs) -> Outcome {
    let home = &context.config.home;
    let wanted = Wanted {
        level: args.level,
        request: args.request.clone(),
    };
    let most = args.lines.unwrap_or(match args.request {
        Some(_) => usize::MAX,
        None => LINES,
    });
    let mut tail = Tail::open(home)?;
    if tail.current.is_none() && !args.follow {
        return Err(
            Failure::new(format!("there is no log at {}", newest(home).display()))
                .fix("a node writes one when it runs in the background: hearth up --detach, or hearth service install"),
        );
    }
    let show = |entries: &[Entry]| show(entries, &context.screen);
    let found = tail.last(most, &wanted)?;
    if let (Some(id), true) = (&args.request, found.is_empty()) {
        context.screen.note(&format!(
            "no line names {id}: at log_level info the node logs requests that fail and models that are loaded; with \
             log_level debug it logs every request"
        ));
    }
    if !show(&found) || !args.follow {
        return Ok(());
    }
    loop {
        let entries = wanted.of(tail.more()?);
        if !show(&entries) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Prints entries; `false` when nobody reads any more.
fn show(entries: &[Entry], screen: &Screen) -> bool {
    let mut text = String::new();
    for entry in entries {
        match screen.json {
            true => text += &entry.json(),
            false => text += &entry.words(screen),
        }
        text.push('\n');
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

/// What was asked for.
struct Wanted {
    level: Option<LevelFilter>,
    request: Option<String>,
}

impl Wanted {
    fn of(&self, lines: Vec<String>) -> Vec<Entry> {
        lines
            .into_iter()
            .map(Entry::read)
            .filter(|entry| self.has(entry))
            .collect()
    }

    fn has(&self, entry: &Entry) -> bool {
        let severe = self
            .level
            .is_none_or(|least| entry.level().is_some_and(|level| level <= least));
        severe
            && self
                .request
                .as_ref()
                .is_none_or(|request| entry.is_of(request))
    }
}

/// One line of the log.
struct Entry {
    line: String,
    /// Empty for a line that is no JSON object.
    fields: Map<String, Value>,
}

impl Entry {
    fn read(line: String) -> Self {
        let fields = serde_json::from_str(&line).unwrap_or_default();
        Self { line, fields }
    }

    fn level(&self) -> Option<LevelFilter> {
        self.fields.get("level")?.as_str()?.parse().ok()
    }

    fn spans(&self) -> impl Iterator<Item = &Map<String, Value>> {
        let spans = self.fields.get("spans").and_then(Value::as_array);
        spans.into_iter().flatten().filter_map(Value::as_object)
    }

    fn is_of(&self, request: &str) -> bool {
        self.spans().chain([&self.fields]).any(|fields| {
            REQUEST_FIELDS
                .map(|name| fields.get(name))
                .iter()
                .flatten()
                .any(|id| *id == request)
        })
    }

    /// The line as the node wrote it; what is no JSON becomes the message of an object.
    fn json(&self) -> String {
        match self.fields.is_empty() {
            true => serde_json::json!({"message": self.line}).to_string(),
            false => self.line.clone(),
        }
    }

    fn words(&self, screen: &Screen) -> String {
        if self.fields.is_empty() {
            return self.line.clone();
        }
        let text = |name| self.fields.get(name).and_then(Value::as_str);
        let level = text("level").unwrap_or("-");
        let level = format!("{level:>5}");
        let level = match self.level() {
            Some(LevelFilter::ERROR) => screen.red(&level),
            Some(LevelFilter::WARN) => screen.yellow(&level),
            Some(LevelFilter::INFO) => screen.green(&level),
            _ => screen.dim(&level),
        };
        let mut words = format!(
            "{} {level} {}",
            screen.dim(text("timestamp").unwrap_or("-")),
            text("message").unwrap_or_default()
        );
        let own = self.fields.iter().filter(|(name, _)| {
            !["timestamp", "level", "message", "spans", "span"].contains(&name.as_str())
        });
        let around = self
            .spans()
            .flat_map(|span| span.iter().filter(|(name, _)| *name != "name"));
        for (name, value) in own.chain(around) {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            words += &screen.dim(&format!(" {name}={value}"));
        }
        words
    }
}

/// The newest log, read to its end and watched from there.
struct Tail {
    home: PathBuf,
    current: Option<Handle>,
    /// A line that the node has not finished.
    begun: Vec<u8>,
}

impl Tail {
    fn open(home: &Path) -> Outcome<Self> {
        let mut tail = Self {
            home: home.to_owned(),
            current: None,
            begun: Vec::new(),
        };
        tail.current = tail.handle(0)?;
        Ok(tail)
    }

    fn handle(&self, age: u32) -> Outcome<Option<Handle>> {
        let path = aged(&self.home, age);
        match Handle::from_path(&path) {
            Ok(handle) => Ok(Some(handle)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(
                "read",
                &path,
                &error,
                "read it as the user whom the node runs as, or name its home with --home",
            )),
        }
    }

    /// The last `most` lines that are wanted, the oldest first.
    fn last(&mut self, most: usize, wanted: &Wanted) -> Outcome<Vec<Entry>> {
        let mut newest_first: Vec<Vec<Entry>> = Vec::new();
        let mut found = 0;
        let mut take = |lines: Vec<String>| {
            let mut entries = wanted.of(lines);
            let spare = (found + entries.len()).saturating_sub(most);
            entries.drain(..spare.min(entries.len()));
            found += entries.len();
            newest_first.push(entries);
            found < most
        };
        let lines = self.rest()?;
        let mut more = take(lines);
        for age in 1.. {
            let Some(mut older) = self.handle(age)?.filter(|_| more) else {
                break;
            };
            // The node may have put aside what was just read.
            if self.current.as_ref() == Some(&older) {
                continue;
            }
            let bytes = read(&mut older, &aged(&self.home, age))?;
            more = take(lines_of(&bytes));
        }
        Ok(newest_first.into_iter().rev().flatten().collect())
    }

    /// The lines that were finished since the last look, in this file and in those that followed it.
    fn more(&mut self) -> Outcome<Vec<String>> {
        let mut lines = self.rest()?;
        while let Some(next) = self.successor()? {
            // The last lines before the change may have come after the look above.
            lines.extend(self.rest()?);
            lines.extend(lines_of(&std::mem::take(&mut self.begun)));
            self.current = Some(next);
            lines.extend(self.rest()?);
        }
        Ok(lines)
    }

    /// The file that came after the current one, if the node has gone on to it.
    fn successor(&self) -> Outcome<Option<Handle>> {
        let Some(current) = &self.current else {
            return self.handle(0);
        };
        // Without a newest one, the node is just about to open it.
        if self.handle(0)?.is_none_or(|newest| newest == *current) {
            return Ok(None);
        }
        loop {
            // If the current one was dropped, all that is here came after it, and the oldest comes first.
            let (mut after, mut at) = (None, None);
            for age in 0..=MOST_FILES {
                match self.handle(age)? {
                    Some(handle) if handle == *current => {
                        at = Some(age);
                        break;
                    }
                    Some(handle) => after = Some(handle),
                    None => {}
                }
            }
            let stayed = match at {
                Some(age) => self.handle(age)?.is_some_and(|handle| handle == *current),
                None => true,
            };
            // Files that changed their names meanwhile would be passed over.
            if stayed {
                return Ok(after);
            }
        }
    }

    /// Finished lines of the current file from where the last look ended.
    fn rest(&mut self) -> Outcome<Vec<String>> {
        let path = newest(&self.home);
        let Some(current) = &mut self.current else {
            return Ok(Vec::new());
        };
        self.begun.extend(read(current, &path)?);
        let end = self
            .begun
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.begun.drain(..end).collect();
        Ok(lines_of(&whole))
    }
}

fn read(handle: &mut Handle, path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    handle
        .as_file_mut()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes)
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted {
        level: None,
        request: None,
    };

    fn write(home: &Path, age: u32, text: &str) {
        std::fs::create_dir_all(home.join("logs")).unwrap();
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(aged(home, age));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// As the node does it.
    fn put_aside(home: &Path, kept: u32) {
        for age in (1..kept).rev() {
            let _ = std::fs::rename(aged(home, age - 1), aged(home, age));
        }
    }

    fn plain(entries: Vec<Entry>) -> Vec<String> {
        entries.into_iter().map(|entry| entry.line).collect()
    }

    #[test]
    fn the_last_lines_are_found_across_files() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        write(home, 2, "a\nb\n");
        write(home, 1, "c\nd\n");
        write(home, 0, "e\nunfinished");
        let last = |most| plain(Tail::open(home).unwrap().last(most, &ALL).unwrap());
        assert_eq!(last(usize::MAX), ["a", "b", "c", "d", "e"]);
        assert_eq!(last(2), ["d", "e"]);
        assert_eq!(last(4), ["b", "c", "d", "e"]);
        assert!(last(0).is_empty());
    }

    #[test]
    fn following_loses_no_line_however_often_the_file_changes() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let mut tail = Tail::open(home).unwrap();
        assert!(tail.more().unwrap().is_empty());
        write(home, 0, "a\nb");
        assert_eq!(tail.more().unwrap(), ["a"]);
        write(home, 0, "b\nc\n");
        put_aside(home, 4);
        assert_eq!(tail.more().unwrap(), ["bb", "c"]);
        write(home, 0, "d\n");
        put_aside(home, 4);
        write(home, 0, "e\n");
        put_aside(home, 4);
        write(home, 0, "f\n");
        assert_eq!(tail.more().unwrap(), ["d", "e", "f"]);
        // Even the file that was being read is gone.
        for line in ["g\n", "h\n", "i\n", "j\n"] {
            put_aside(home, 3);
            write(home, 0, line);
        }
        std::fs::remove_file(aged(home, 3)).unwrap();
        assert_eq!(tail.more().unwrap(), ["h", "i", "j"]);
    }

    #[test]
    fn lines_are_found_by_severity_and_request() {
        let lines = || {
            [
                r#"{"timestamp":"T","level":"INFO","message":"serving","address":"127.0.0.1:1"}"#,
                r#"{"timestamp":"T","level":"WARN","message":"slow","spans":[{"id":"req_1","method":"POST","name":"request"}]}"#,
                r#"{"timestamp":"T","level":"ERROR","message":"broken","spans":[{"id":"req_2","trace_id":"4bf9","name":"request"}]}"#,
                "words of a library",
            ]
            .map(ToOwned::to_owned)
            .to_vec()
        };
        let found = |level, request: Option<&str>| {
            let wanted = Wanted {
                level,
                request: request.map(ToOwned::to_owned),
            };
            let entries = wanted.of(lines());
            let message = |entry: &Entry| {
                entry.fields.get("message").map_or_else(
                    || entry.line.clone(),
                    |text| text.as_str().unwrap_or("?").to_owned(),
                )
            };
            entries.iter().map(message).collect::<Vec<_>>()
        };
        assert_eq!(found(None, None).len(), 4);
        assert_eq!(found(Some(LevelFilter::WARN), None), ["slow", "broken"]);
        assert_eq!(found(None, Some("req_1")), ["slow"]);
        assert_eq!(found(None, Some("4bf9")), ["broken"]);
        assert!(found(Some(LevelFilter::ERROR), Some("req_1")).is_empty());

        let words: Vec<String> = ALL
            .of(lines())
            .iter()
            .map(|entry| entry.words(&Screen::plain()))
            .collect();
        assert_eq!(
            words,
            [
                "T  INFO serving address=127.0.0.1:1",
                "T  WARN slow id=req_1 method=POST",
                "T ERROR broken id=req_2 trace_id=4bf9",
                "words of a library",
            ]
        );
        let stray = &ALL.of(lines())[3];
        assert_eq!(stray.json(), r#"{"message":"words of a library"}"#);
    }
}
