//! A long text in pieces, each of which gets a vector of its own. Pure.
//!
//! An encoder reads some 256 tokens of a text and makes one vector of them: what stands behind them would not be found
//! by meaning, and what stands among many other things hardly.

/// Most bytes of a piece: a sentence or two. `cargo xtask bench memory` tells how well they are found.
pub(crate) const PIECE: usize = 200;

/// A text in pieces of whole sentences where these are short enough, of whole words otherwise. They follow each other
/// without a gap; a text that is short enough is one.
pub(crate) fn pieces(text: &str, most: usize) -> Vec<&str> {
    if text.len() <= most {
        return vec![text];
    }
    let mut pieces = Vec::new();
    let (mut start, mut end) = (0, 0);
    let ends = sentences(text).flat_map(|sentence| cut(sentence, most));
    for part in ends {
        if end + part.len() - start > most && end > start {
            pieces.push(&text[start..end]);
            start = end;
        }
        end += part.len();
    }
    pieces.push(&text[start..end]);
    pieces
}

/// Sentences and lines, with what separates them from the next.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut before = ' ';
    text.split_inclusive(move |c: char| {
        let ends = c == '\n' || matches!(before, '.' | '!' | '?') && c.is_whitespace();
        before = c;
        ends || matches!(c, '。' | '！' | '？')
    })
}

/// A sentence in parts of at most so many bytes, cut behind blanks where there are some.
fn cut(mut sentence: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while sentence.len() > most {
        let blanks = sentence.match_indices(char::is_whitespace);
        let ends = blanks.map(|(at, blank)| at + blank.len());
        let end = ends.take_while(|end| *end <= most).last();
        let chars = sentence.char_indices().map(|(at, _)| at);
        let end = end.or_else(|| chars.take_while(|at| *at <= most).last());
        // A character that is longer than a piece is one.
        let first = sentence.chars().next().map_or(0, char::len_utf8);
        let (part, rest) = sentence.split_at(end.unwrap_or(0).max(first));
        parts.push(part);
        sentence = rest;
    }
    parts.push(sentence);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_are_whole_sentences_or_words() {
        assert_eq!(pieces("One. Two. Three.", 100), ["One. Two. Three."]);
        assert_eq!(pieces("One. Two. Three.", 11), ["One. Two. ", "Three."]);
        assert_eq!(pieces("1.5 is not 15. So", 15), ["1.5 is not 15. ", "So"]);
        assert_eq!(pieces("a line\nand one\n", 8), ["a line\n", "and one\n"]);
        assert_eq!(pieces("one two three", 8), ["one two ", "three"]);
        assert_eq!(pieces("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(pieces("これ。それ。", 9), ["これ。", "それ。"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_too_long(text in "[a-z .\n。é]{0,300}", most in 4..80usize) {
            let pieces = pieces(&text, most);
            prop_assert_eq!(pieces.concat(), text.as_str());
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
        }
    }
}
