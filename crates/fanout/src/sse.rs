//! The event stream format (WHATWG HTML, "Server-sent events"), written and read.
//!
//! Crates that read it exist; the one in this tree (`sse-stream`) takes a field without a colon, an unknown field, a
//! second `event` and a `retry` that is no number for errors where the standard ignores or replaces, and others are bound
//! to one HTTP client. The reader here does no I/O, and follows the standard to the letter.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hearth_protocol::event::{Cursor, Refusal};

use crate::{Cut, EVENT_LIMIT, Error};

/// Bytes to send when there is nothing to say: a comment, which readers ignore and connections stay alive by.
pub const HEARTBEAT: &[u8] = b":\n\n";
/// How often to send [`HEARTBEAT`]; [`crate::SILENCE`] is three of them.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Kind of the message that tells a subscriber why it cannot go on after its cursor; its data is a [`Refusal`].
pub const RESYNC: &str = "resync";
/// Kind of the message before the end of a subscription that may simply be made again.
pub const CUT: &str = "cut";
/// Longest line, and most data of one message, that a [`Parser`] holds. No event comes near.
const LIMIT: usize = 4 * EVENT_LIMIT;

/// A state event: its cursor as id, its kind, and its JSON as data.
pub fn event(cursor: Cursor, kind: &str, json: &str) -> Bytes {
    let mut text = format!("id: {cursor}\nevent: {kind}\n");
    data(&mut text, json);
    text.into()
}

/// How long a client waits before it connects again, as the server wishes.
pub fn retry(delay: Duration) -> Bytes {
    format!("retry: {}\n\n", delay.as_millis()).into()
}

/// What a subscriber is told instead of events: a message of the kind [`RESYNC`], without an id, so that the subscriber's
/// cursor stays as it is. The stream ends after it.
pub fn resync(refusal: &Refusal) -> Bytes {
    let mut text = format!("event: {RESYNC}\n");
    data(
        &mut text,
        &serde_json::to_string(refusal).unwrap_or_default(),
    );
    text.into()
}

/// The last message of a subscription that is over.
pub fn farewell(cut: &Cut) -> Bytes {
    if let Cut::Failed(Error::Refused(refusal)) = cut {
        return resync(refusal);
    }
    let mut text = format!("event: {CUT}\n");
    data(&mut text, &cut.to_string());
    text.into()
}

/// The data of a message, which may have several lines, and its end.
fn data(text: &mut String, data: &str) {
    for line in data.split(['\n', '\r']) {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Message),
    /// How long to wait before the next connection.
    Retry(Duration),
}

/// A message of an event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The last id that the stream gave, with this message or an earlier one; empty if none.
    pub id: String,
    /// Its type; `message` if the stream named none.
    pub kind: String,
    /// Its data, lines joined with line feeds.
    pub data: String,
}

/// A line or a message longer than a [`Parser`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line or message of more than {LIMIT} bytes in the stream of events")]
pub struct TooLong;

/// Reads an event stream that arrives in pieces, cut anywhere.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line so far.
    line: Vec<u8>,
    /// The last byte was a carriage return, so a line feed belongs to it.
    returned: bool,
    /// A line was read, so that no byte order mark can follow.
    begun: bool,
    id: String,
    kind: String,
    data: String,
    items: VecDeque<Item>,
}

impl Parser {
    /// Takes the next piece. What it completes is given by [`Parser::next`].
    ///
    /// # Errors
    /// If a line or a message is too long. The stream is of no more use then.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), TooLong> {
        if self.returned && piece.first() == Some(&b'\n') {
            piece = &piece[1..];
        }
        // An empty piece says nothing about what comes after a carriage return.
        self.returned &= piece.is_empty();
        while let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.hold(&piece[..end])?;
            self.end_line()?;
            let returned = piece[end] == b'\r';
            piece = &piece[end + 1..];
            if returned {
                match piece.first() {
                    Some(b'\n') => piece = &piece[1..],
                    Some(_) => {}
                    None => self.returned = true,
                }
            }
        }
        self.hold(piece)
    }

    /// The next thing that the stream said. What is unfinished when the stream ends is nothing.
    #[expect(
        clippy::should_implement_trait,
        reason = "the end of what is there is not the end of the stream"
    )]
    pub fn next(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    fn hold(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + piece.len() > LIMIT {
            return Err(TooLong);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), TooLong> {
        let mut line = std::mem::take(&mut self.line);
        let result = self.take_line(&line);
        line.clear();
        self.line = line;
        result
    }

    fn take_line(&mut self, mut line: &[u8]) -> Result<(), TooLong> {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        // A line is whole here, so no character is cut; what is no UTF-8 is replaced, as the standard decodes.
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                if self.data.len() + value.len() > LIMIT {
                    return Err(TooLong);
                }
                self.data.extend([value, "\n"]);
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(milliseconds) = value.parse() {
                    let delay = Duration::from_millis(milliseconds);
                    self.items.push_back(Item::Retry(delay));
                }
            }
            // Comments have an empty name; other fields are ignored.
            _ => {}
        }
        Ok(())
    }

    /// The end of a message. One without data is none, but its id stays.
    fn dispatch(&mut self) {
        let kind = std::mem::take(&mut self.kind);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        self.items.push_back(Item::Message(Message {
            id: self.id.clone(),
            kind: if kind.is_empty() {
                "message".to_owned()
            } else {
                kind
            },
            data,
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hearth_protocol::event::Reason;
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<Item> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.feed(piece).unwrap();
        }
        std::iter::from_fn(|| parser.next()).collect()
    }

    fn message(id: &str, kind: &str, data: &str) -> Item {
        Item::Message(Message {
            id: id.to_owned(),
            kind: kind.to_owned(),
            data: data.to_owned(),
        })
    }

    #[test]
    fn the_examples_of_the_standard() {
        let stocks = "data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(
            read(&[stocks.as_bytes()]),
            [message("", "message", "YHOO\n+2\n10")]
        );
        let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            read(&[four.as_bytes()]),
            [
                message("1", "message", "first event"),
                message("", "message", "second event"),
                message("", "message", " third event"),
            ]
        );
        let empty = "data\n\ndata\ndata\n\ndata:";
        assert_eq!(
            read(&[empty.as_bytes()]),
            [message("", "message", ""), message("", "message", "\n")]
        );
        let same = "data:test\n\ndata: test\n\n";
        assert_eq!(
            read(&[same.as_bytes()]),
            [
                message("", "message", "test"),
                message("", "message", "test")
            ]
        );
    }

    #[test]
    fn fields_as_the_standard_has_them() {
        // Line endings, each alone and mixed.
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("event: a{end}data: b{end}{end}data: c{end}{end}");
            assert_eq!(
                read(&[text.as_bytes()]),
                [message("", "a", "b"), message("", "message", "c")]
            );
        }
        assert_eq!(
            read(&[b"data: a\r\rdata: b\n\r\ndata: c\r\n\n"]),
            [
                message("", "message", "a"),
                message("", "message", "b"),
                message("", "message", "c")
            ]
        );
        // A byte order mark at the start, and nowhere else.
        assert_eq!(
            read(&[b"\xef", b"\xbb\xbfdata: a\n\n"]),
            [message("", "message", "a")]
        );
        assert_eq!(read(&[b"\n\xef\xbb\xbfdata: a\n\n"]), []);
        assert_eq!(read(&[b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n"]), []);
        // Ids stay; one with NUL is ignored; one without a message counts too.
        assert_eq!(
            read(&[b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid: 3\n\ndata: c\n\n"]),
            [
                message("1", "message", "a"),
                message("1", "message", "b"),
                message("3", "message", "c")
            ]
        );
        // The last `event` counts, and only for its message.
        assert_eq!(
            read(&[b"event: a\nevent: b\ndata: 1\n\nevent: c\n\ndata: 2\n\n"]),
            [message("", "b", "1"), message("", "message", "2")]
        );
        // `retry` is digits alone.
        assert_eq!(
            read(&[b"retry: 10\nretry: +5\nretry: 1s\nretry:\nretry:  7\nretry: 99999999999999999999\n"]),
            [Item::Retry(Duration::from_millis(10))]
        );
        // Names are told apart by their case, and unknown ones ignored.
        assert_eq!(
            read(&[b"Data: a\ndatas: b\n data: c\nfoo\ndata: d\n\n"]),
            [message("", "message", "d")]
        );
        // What is no UTF-8.
        assert_eq!(
            read(&[b"data: a\xffb\xe2\x82\n\n"]),
            [message("", "message", "a\u{fffd}b\u{fffd}")]
        );
        // The end of a stream completes nothing.
        assert_eq!(read(&[b"data: a\n"]), []);
    }

    #[test]
    fn a_stream_cannot_fill_the_memory() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; LIMIT / 2];
        parser.feed(&piece).unwrap();
        parser.feed(&piece).unwrap();
        assert_eq!(parser.feed(b"x"), Err(TooLong));
        let mut parser = Parser::default();
        let mut line = b"data: ".to_vec();
        line.extend_from_slice(&piece);
        line.push(b'\n');
        parser.feed(&line).unwrap();
        assert_eq!(parser.feed(&line), Err(TooLong));
    }

    #[test]
    fn what_is_written_is_read() {
        let cursor = Cursor {
            epoch: 7,
            offset: 42,
        };
        let refusal = Refusal {
            reason: Reason::OtherEpoch,
            begin: Cursor::START,
            end: cursor,
            leads: true,
        };
        let mut stream = retry(Duration::from_secs(2)).to_vec();
        stream.extend_from_slice(HEARTBEAT);
        stream.extend_from_slice(&event(cursor, "member", r#"{"a":"b: c"}"#));
        stream.extend_from_slice(&farewell(&Cut::Slow));
        stream.extend_from_slice(&farewell(&Error::from(refusal).into()));
        let id = cursor.to_string();
        let said = serde_json::to_string(&refusal).unwrap();
        assert_eq!(
            read(&[&stream]),
            [
                Item::Retry(Duration::from_secs(2)),
                message(&id, "member", r#"{"a":"b: c"}"#),
                message(&id, CUT, &Cut::Slow.to_string()),
                message(&id, RESYNC, &said),
            ]
        );
    }

    proptest! {
        /// Wherever a stream is cut into pieces, it says the same.
        #[test]
        fn pieces_do_not_matter(
            text in "(data|event|id|retry|foo|é|\u{feff}|:| |\n|\r|\r\n|[0-9]|\u{1f525}|\0){0,60}",
            cuts in proptest::collection::vec(0usize..400, 0..20),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }

        #[test]
        fn any_data_is_read_as_it_was_written(text in "[^\r]{0,80}") {
            let stream = event(Cursor::START, "member", &text);
            let id = Cursor::START.to_string();
            prop_assert_eq!(read(&[&stream]), [message(&id, "member", &text)]);
        }
    }
}
