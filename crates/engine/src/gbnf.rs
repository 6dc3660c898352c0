//! GBNF, llama.cpp's grammar notation, translated into the Lark dialect of llguidance.
//!
//! Notation: llama.cpp `grammars/README.md`. Rules are translated one to one. Literals are divided into single
//! characters: llguidance's lexer takes the longest literal that matches, while GBNF has no lexer and any division
//! of the text counts.

use std::fmt::Write;

use crate::EngineError;

/// Deepest nesting of groups.
const DEEPEST: usize = 64;
/// Largest count in a repetition, as in llama.cpp.
const MOST_REPETITIONS: u32 = 2000;

/// The same grammar in Lark; errors name line and column.
pub(crate) fn to_lark(text: &str) -> Result<String, EngineError> {
    let mut parser = Parser {
        text,
        at: 0,
        lark: String::new(),
        names: Vec::new(),
        used: Vec::new(),
    };
    parser.grammar()?;
    Ok(parser.lark)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    lark: String,
    /// Rules that are defined, by name.
    names: Vec<&'a str>,
    /// Rules that are used, with the place of their first use.
    used: Vec<(&'a str, usize)>,
}

impl<'a> Parser<'a> {
    fn grammar(&mut self) -> Result<(), EngineError> {
        self.space(true);
        while self.at < self.text.len() {
            let start = self.at;
            let name = self
                .name()
                .ok_or_else(|| self.error(start, "expected a rule: name ::= …"))?;
            if self.names.contains(&name) {
                return Err(self.error(start, &format!("rule `{name}` is defined twice")));
            }
            self.names.push(name);
            self.space(true);
            if !self.eat("::=") {
                return Err(self.error(self.at, "expected `::=` after the rule's name"));
            }
            let lark = rule_name(name);
            let _ = write!(self.lark, "{lark}: ");
            self.space(true);
            self.alternatives(0)?;
            self.lark.push('\n');
            self.space(true);
        }
        if !self.names.contains(&"root") {
            return Err(self.error(
                self.at,
                "there is no rule `root`; the answer is what `root` matches",
            ));
        }
        match self
            .used
            .iter()
            .find(|(name, _)| !self.names.contains(name))
        {
            Some((name, at)) => {
                Err(self.error(*at, &format!("rule `{name}` is used but not defined")))
            }
            None => Ok(()),
        }
    }

    fn alternatives(&mut self, depth: usize) -> Result<(), EngineError> {
        if depth > DEEPEST {
            return Err(self.error(self.at, "groups are nested too deeply"));
        }
        loop {
            self.sequence(depth)?;
            // A rule goes on in the next line if that starts with `|`.
            let before = self.at;
            self.space(true);
            if !self.eat("|") {
                self.at = before;
                return Ok(());
            }
            self.lark.push_str(" | ");
            self.space(true);
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<(), EngineError> {
        let mut empty = true;
        loop {
            self.space(depth > 0);
            let start = self.lark.len();
            if !self.item(depth)? {
                break;
            }
            // Blanks may stand before a repetition, and one repetition may follow another.
            self.space(depth > 0);
            while self.repetition(start)? {
                self.space(depth > 0);
            }
            self.lark.push(' ');
            empty = false;
        }
        if empty {
            self.lark.push_str("\"\"");
        }
        Ok(())
    }

    /// One literal, class, group or rule; false if none starts here.
    fn item(&mut self, depth: usize) -> Result<bool, EngineError> {
        let start = self.at;
        match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => self.class()?,
            Some('.') => {
                self.at += 1;
                self.lark.push_str("/(?s:.)/");
            }
            Some('(') => {
                self.at += 1;
                self.lark.push('(');
                self.space(true);
                self.alternatives(depth + 1)?;
                self.space(true);
                if !self.eat(")") {
                    return Err(self.error(start, "this `(` is not closed"));
                }
                self.lark.push(')');
            }
            _ => {
                let Some(name) = self.name() else {
                    return Ok(false);
                };
                // The next rule's definition ends this one.
                let after = self.at;
                self.space(true);
                let defines = self.text[self.at..].starts_with("::=");
                self.at = after;
                if defines {
                    self.at = start;
                    return Ok(false);
                }
                self.used.push((name, start));
                self.lark.push_str(&rule_name(name));
            }
        }
        Ok(true)
    }

    /// `*`, `+`, `?` or a count after what was written from `start` on; false if none comes.
    fn repetition(&mut self, start: usize) -> Result<bool, EngineError> {
        let place = self.at;
        let suffix = match self.peek() {
            Some(sign @ ('*' | '+' | '?')) => {
                self.at += 1;
                sign.to_string()
            }
            Some('{') => {
                self.at += 1;
                let inside: String = self.text[self.at..]
                    .chars()
                    .take_while(|c| *c != '}')
                    .collect();
                self.at += inside.len();
                if !self.eat("}") {
                    return Err(self.error(place, "this `{` is not closed"));
                }
                let wrong = || {
                    self.error(
                        place,
                        "a repetition is {n}, {n,} or {n,m} with n ≤ m ≤ 2000",
                    )
                };
                let number = |text: &str| {
                    let number: u32 = text.trim().parse().ok()?;
                    (number <= MOST_REPETITIONS).then_some(number)
                };
                match inside.split_once(',') {
                    None => format!("{{{}}}", number(&inside).ok_or_else(wrong)?),
                    Some((low, high)) => {
                        let low = if low.trim().is_empty() {
                            Some(0)
                        } else {
                            number(low)
                        }
                        .ok_or_else(wrong)?;
                        if high.trim().is_empty() {
                            format!("{{{low},}}")
                        } else {
                            let high =
                                number(high).filter(|high| *high >= low).ok_or_else(wrong)?;
                            format!("{{{low},{high}}}")
                        }
                    }
                }
            }
            _ => return Ok(false),
        };
        // A suffix belongs to the whole literal, not to its last character.
        self.lark.insert(start, '(');
        let _ = write!(self.lark, "){suffix}");
        Ok(true)
    }

    fn literal(&mut self) -> Result<(), EngineError> {
        let start = self.at;
        self.at += 1;
        let mut any = false;
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.error(start, "this string is not closed")),
                Some('"') => {
                    self.at += 1;
                    break;
                }
                Some(_) => {
                    let character = self.character()?;
                    let _ = write!(
                        self.lark,
                        "{} ",
                        serde_json::Value::from(character.to_string())
                    );
                    any = true;
                }
            }
        }
        if !any {
            self.lark.push_str("\"\"");
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), EngineError> {
        let start = self.at;
        self.at += 1;
        let mut regex = String::from("/[");
        if self.eat("^") {
            regex.push('^');
        }
        let mut any = false;
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.error(start, "this `[` is not closed")),
                Some(']') => {
                    self.at += 1;
                    break;
                }
                Some(_) => {
                    let low = self.character()?;
                    push_in_class(&mut regex, low);
                    any = true;
                    let rest = &self.text[self.at..];
                    if rest.starts_with('-') && !rest.starts_with("-]") {
                        self.at += 1;
                        let place = self.at;
                        let high = self.character()?;
                        if high < low {
                            return Err(self.error(place, "the range ends before it starts"));
                        }
                        regex.push('-');
                        push_in_class(&mut regex, high);
                    }
                }
            }
        }
        if !any {
            return Err(self.error(start, "the class is empty and can match nothing"));
        }
        regex.push_str("]/");
        self.lark.push_str(&regex);
        Ok(())
    }

    /// A character of a literal or class, escapes resolved.
    fn character(&mut self) -> Result<char, EngineError> {
        let start = self.at;
        let mut next = || {
            let character = self.text[self.at..].chars().next();
            self.at += character.map_or(0, char::len_utf8);
            character
        };
        let escaped = match next() {
            Some('\\') => next(),
            Some(character) => return Ok(character),
            None => None,
        };
        let digits = match escaped {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(same @ ('\\' | '"' | '[' | ']' | '-' | '^' | '.' | '/')) => return Ok(same),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => {
                return Err(self.error(
                    start,
                    r#"known escapes are \n \r \t \\ \" \[ \] \- \xHH \uHHHH \UHHHHHHHH"#,
                ));
            }
        };
        let hex = self.text.get(self.at..self.at + digits);
        let value = hex
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .and_then(char::from_u32);
        self.at += digits;
        value.ok_or_else(|| self.error(start, "this escape names no character"))
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
            .unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, what: &str) -> bool {
        let there = self.text[self.at..].starts_with(what);
        if there {
            self.at += what.len();
        }
        there
    }

    /// Skips blanks and comments, and line ends where a rule may go on in the next line.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' => self.at += 1,
                '\n' if lines => self.at += 1,
                '#' => {
                    self.at += self.text[self.at..]
                        .find('\n')
                        .unwrap_or(self.text.len() - self.at)
                }
                _ => return,
            }
        }
    }

    fn error(&self, at: usize, what: &str) -> EngineError {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        EngineError::Invalid {
            field: "constraint",
            message: format!("the GBNF grammar is wrong in line {line}, column {column}: {what}"),
        }
    }
}

/// Lark wants lower-case names and starts with `start`; an escaped dash keeps `a-b` and `a_b` apart.
fn rule_name(name: &str) -> String {
    if name == "root" {
        return "start".into();
    }
    let mut lark = String::from("g_");
    for c in name.chars() {
        match c {
            '-' => lark.push_str("_d"),
            '_' => lark.push_str("_u"),
            upper if upper.is_ascii_uppercase() => {
                lark.push_str("_c");
                lark.push(upper.to_ascii_lowercase());
            }
            other => lark.push(other),
        }
    }
    lark
}

fn push_in_class(regex: &mut String, c: char) {
    let _ = write!(regex, "\\x{{{:x}}}", c as u32);
}
