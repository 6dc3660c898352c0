//! From token bytes to text: UTF-8 is never split, stop texts never leak.
//!
//! Tokens are byte strings; a character or a stop text may span several of them. What cannot be decided yet is held
//! back: the start of an incomplete character, and any ending that could still become a stop text.

/// Text that may be sent now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Whole characters, free of stop texts.
    pub text: String,
    /// The stop text that was found; nothing may follow.
    pub stop: Option<String>,
}

/// The text of one choice as its tokens come in.
#[derive(Debug, Clone)]
pub struct TextStream {
    stops: Vec<String>,
    /// Bytes that are not a whole character yet.
    bytes: Vec<u8>,
    /// Characters that may be the start of a stop text.
    held: String,
}

impl TextStream {
    /// A stream that ends before the one of these texts that is complete first.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self {
            stops,
            bytes: Vec::new(),
            held: String::new(),
        }
    }

    /// Takes a token's bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Chunk {
        let decoded = self.decode(bytes);
        self.held.push_str(&decoded);
        // The stop text that is complete first, as if the text came letter by letter: the same cut however it is
        // divided into tokens. Of those that end together, the longest.
        let first = self
            .stops
            .iter()
            .filter_map(|stop| {
                let at = self.held.find(stop.as_str())?;
                Some((at + stop.len(), at, stop))
            })
            .min();
        if let Some((_, at, stop)) = first {
            let stop = stop.clone();
            self.held.truncate(at);
            return Chunk {
                text: std::mem::take(&mut self.held),
                stop: Some(stop),
            };
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop))
            .max()
            .unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        Chunk {
            text: std::mem::replace(&mut self.held, tail),
            stop: None,
        }
    }

    /// Takes a token's bytes in which no stop text counts; nor does one that began before them.
    pub fn pass(&mut self, bytes: &[u8]) -> Chunk {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&self.decode(bytes));
        Chunk { text, stop: None }
    }

    /// The characters that are whole with these bytes.
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.bytes.extend_from_slice(bytes);
        let whole = self.bytes.len() - incomplete(&self.bytes);
        let decoded: Vec<u8> = self.bytes.drain(..whole).collect();
        String::from_utf8_lossy(&decoded).into_owned()
    }

    /// What is still held back, when no more tokens come. An incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.bytes);
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&rest));
        text
    }
}

/// Bytes at the end that start a character which the next token may complete.
pub(crate) fn incomplete(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let needed = match bytes[at] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        // A start byte with wrong continuations is invalid already, not incomplete.
        return match std::str::from_utf8(&bytes[at..]) {
            Err(error) if back < needed && error.error_len().is_none() => back,
            _ => 0,
        };
    }
    0
}

/// Length of the longest ending of `text` that is a proper start of `stop`, in bytes.
fn overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    (1..=most)
        .rev()
        .find(|length| {
            text.is_char_boundary(text.len() - length)
                && stop
                    .as_bytes()
                    .starts_with(&text.as_bytes()[text.len() - length..])
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_in_two_tokens_comes_out_whole() {
        let mut stream = TextStream::new(vec![]);
        assert_eq!(stream.push(&[b'a', 0xF0, 0x9F]).text, "a");
        assert_eq!(stream.push(&[0x94, 0xA5]).text, "🔥");
        assert_eq!(stream.push(&[0xE2]).text, "");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }

    #[test]
    fn bytes_that_are_no_character_do_not_block_the_stream() {
        let mut stream = TextStream::new(vec![]);
        assert_eq!(
            stream.push(&[0xFF, b'a', 0xE2, b'b']).text,
            "\u{FFFD}a\u{FFFD}b"
        );
    }

    #[test]
    fn a_stop_text_in_two_tokens_never_shows() {
        let mut stream = TextStream::new(vec!["END".into()]);
        assert_eq!(
            stream.push(b"the E"),
            Chunk {
                text: "the ".into(),
                stop: None
            }
        );
        assert_eq!(
            stream.push(b"NTRY"),
            Chunk {
                text: "ENTRY".into(),
                stop: None
            }
        );
        assert_eq!(
            stream.push(b" EN"),
            Chunk {
                text: " ".into(),
                stop: None
            }
        );
        assert_eq!(
            stream.push(b"D more"),
            Chunk {
                text: "".into(),
                stop: Some("END".into())
            }
        );
    }

    proptest! {
        /// However the bytes are divided, the stream is the text up to the first stop, and each step only whole
        /// characters of it.
        #[test]
        fn any_division_gives_the_same_text(
            text in "[abé🔥]{0,40}",
            stops in prop::collection::vec("[abé🔥]{1,4}", 0..3),
            cuts in prop::collection::vec(1usize..5, 1..60),
        ) {
            let mut stream = TextStream::new(stops.clone());
            let mut out = String::new();
            let (mut rest, mut stopped) = (text.as_bytes(), false);
            for cut in cuts.iter().cycle().take(text.len()) {
                let (token, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                let chunk = stream.push(token);
                out.push_str(&chunk.text);
                stopped = chunk.stop.is_some();
                if stopped || rest.is_empty() {
                    break;
                }
            }
            if !stopped {
                out.push_str(&stream.finish());
            }
            let cut = stops
                .iter()
                .filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at)))
                .min();
            prop_assert_eq!(stopped, cut.is_some());
            prop_assert_eq!(&out, &text[..cut.map_or(text.len(), |(_, at)| at)]);
            for stop in &stops {
                prop_assert!(!out.contains(stop.as_str()));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_passed_between_what_is_pushed_keeps_its_place(pieces in prop::collection::vec((any::<bool>(), "[ab]{0,3}"), 0..20)) {
            let mut stream = TextStream::new(vec!["abc".into()]);
            let mut out = String::new();
            for (pass, piece) in &pieces {
                let chunk = match pass {
                    true => stream.pass(piece.as_bytes()),
                    false => stream.push(piece.as_bytes()),
                };
                out += &chunk.text;
            }
            out += &stream.finish();
            let all: String = pieces.into_iter().map(|(_, piece)| piece).collect();
            prop_assert_eq!(out, all);
        }
    }
}
