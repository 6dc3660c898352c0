//! Reading what people have already: Markdown, the notes of coding tools, decision records, JSON lines, and the exports
//! of ChatGPT and Claude. Pure: bytes in, memories out.

use hearth_protocol::memory::{Exported, MOST_TAGS, MOST_TEXT, Memory, NewMemory};
use jiff::Timestamp;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde_json::Value;

use crate::gate;

/// Longest note that a section of a document becomes, in bytes; longer ones are divided between paragraphs. An encoder
/// reads some 256 tokens of each.
const LONGEST_NOTE: usize = 1_500;
/// Longest decision, in bytes; longer ones are divided.
const LONGEST_DECISION: usize = MOST_TEXT / 2;
/// Longest heading that is put before what stands under it, in bytes.
const LONGEST_HEADING: usize = 500;
/// Longest turn of a conversation that is kept in one, in bytes; longer ones are divided between paragraphs.
const LONGEST_TURN: usize = 4_000;
/// Files in which coding tools keep what they are told about a project.
const TOOL_FILES: [&str; 8] = [
    "claude.md",
    "claude.local.md",
    "agents.md",
    "gemini.md",
    "copilot-instructions.md",
    "conventions.md",
    ".cursorrules",
    ".windsurfrules",
];
/// Folders in which decision records lie.
const DECISION_FOLDERS: [&str; 3] = ["adr", "adrs", "decisions"];

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Contents {
    /// Things to remember, and when they were written if the file says so.
    New(Vec<(NewMemory, Option<Timestamp>)>),
    /// Memories of an export of Hearth's, with their ids and times.
    Memories(Vec<Exported>),
}

/// Why a file cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is none of the kinds that are known.
    #[error("it is no Markdown, text, JSON lines, or export of ChatGPT or Claude")]
    Unknown,
    /// It is not UTF-8.
    #[error("it is not UTF-8 (byte {0})")]
    NotText(usize),
    /// A line or the whole is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Whether a file's name says that something can be read from it.
pub fn is_known(path: &str) -> bool {
    let name = name_of(path);
    let endings = [
        ".md",
        ".markdown",
        ".mdc",
        ".txt",
        ".jsonl",
        ".ndjson",
        ".json",
    ];
    TOOL_FILES.contains(&name.as_str()) || endings.iter().any(|ending| name.ends_with(ending))
}

/// Whether a file is an export of Hearth's: it brings back what was forgotten since, so it is only imported when somebody
/// means it.
pub fn is_export(path: &str, bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let name = name_of(path);
    if [".jsonl", ".ndjson"].iter().any(|end| name.ends_with(end)) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let first = lines.find(|line| !line.trim_ascii().is_empty());
        first.is_some_and(|line| serde_json::from_slice(line).is_ok_and(|line| is_exported(&line)))
    } else if name.ends_with(".json") {
        let all: Option<Vec<Value>> = serde_json::from_slice(bytes).ok();
        all.is_some_and(|all| all.first().is_some_and(is_exported))
    } else {
        false
    }
}

/// Whether an object is a memory of an export.
fn is_exported(object: &Value) -> bool {
    object.get("id").is_some() && object.get("written").is_some()
}

fn name_of(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    name.to_lowercase()
}

/// Reads a file. Its path decides the kind, and becomes the memories' source.
///
/// # Errors
/// If it is of no known kind, or damaged; nothing is read of it then.
pub fn read(path: &str, bytes: &[u8]) -> Result<Contents, Unreadable> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text =
        std::str::from_utf8(bytes).map_err(|error| Unreadable::NotText(error.valid_up_to()))?;
    let name = name_of(path);
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let new = |notes: Vec<NewMemory>| {
        let sourced = notes.into_iter().map(|note| {
            let source = Some(path.to_owned());
            (NewMemory { source, ..note }, None)
        });
        Ok(Contents::New(sourced.collect()))
    };
    if TOOL_FILES.contains(&name.as_str()) {
        new(rules(text))
    } else if ends(&[".md", ".markdown", ".mdc"]) {
        let folder = path
            .rsplit(['/', '\\'])
            .nth(1)
            .unwrap_or_default()
            .to_lowercase();
        match DECISION_FOLDERS.contains(&folder.as_str()) {
            true => new(decision(text).unwrap_or_else(|| notes(text))),
            false => new(notes(text)),
        }
    } else if ends(&[".txt"]) {
        let pieces = pieces(text, LONGEST_NOTE).into_iter();
        new(pieces.map(|text| note("note", text)).collect())
    } else if ends(&[".jsonl", ".ndjson"]) {
        lines(text, path)
    } else if ends(&[".json"]) {
        json(text, path)
    } else {
        Err(Unreadable::Unknown)
    }
}

fn note(kind: &str, text: String) -> NewMemory {
    NewMemory {
        text,
        kind: Some(kind.to_owned()),
        ..NewMemory::default()
    }
}

/// A part of a document under its headings.
struct Section<'a> {
    /// The headings above it, the outermost first.
    path: Vec<String>,
    text: &'a str,
}

impl Section<'_> {
    /// The headings above it and what parts them from it; empty if there are none.
    fn heading(&self, end: &str) -> String {
        let heading = self.path.join(" > ");
        match first_of(&heading, LONGEST_HEADING) {
            "" => String::new(),
            heading => format!("{heading}{end}"),
        }
    }
}

/// Whether nothing is in it that could be kept.
fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c.is_control())
}

/// The beginning of a text, of at most so many bytes.
fn first_of(text: &str, most: usize) -> &str {
    let parts = cut(text.trim(), most).into_iter();
    parts.into_iter().next().unwrap_or_default()
}

/// The sections of a document.
fn sections(text: &str) -> Vec<Section<'_>> {
    let text = without_front_matter(text);
    let mut sections = Vec::new();
    let mut path: Vec<(HeadingLevel, String)> = Vec::new();
    let (mut from, mut heading) = (0, None::<(HeadingLevel, String)>);
    let names =
        |path: &[(HeadingLevel, String)]| path.iter().map(|(_, name)| name.clone()).collect();
    for (event, range) in Parser::new_ext(text, Options::all()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                sections.push(Section {
                    path: names(&path),
                    text: &text[from..range.start],
                });
                heading = Some((level, String::new()));
                from = range.end;
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((level, name)) = heading.take() {
                    path.retain(|(above, _)| *above < level);
                    path.push((level, name.trim().to_owned()));
                }
            }
            Event::Text(part) | Event::Code(part) => {
                if let Some((_, name)) = &mut heading {
                    name.push_str(&part);
                }
            }
            _ => {}
        }
    }
    sections.push(Section {
        path: names(&path),
        text: text.get(from..).unwrap_or_default(),
    });
    sections.retain(|section| !is_blank(section.text));
    sections
}

/// YAML between lines of dashes at the start says nothing that a person would look for.
fn without_front_matter(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("---\n") else {
        return text;
    };
    rest.split_once("\n---\n").map_or(text, |(_, body)| body)
}

/// Each section of a document as a note, long ones in pieces.
fn notes(text: &str) -> Vec<NewMemory> {
    let mut notes = Vec::new();
    for section in sections(text) {
        let heading = section.heading("\n");
        let pieces = pieces(section.text, LONGEST_NOTE).into_iter();
        notes.extend(pieces.map(|text| note("note", format!("{heading}{text}"))));
    }
    notes
}

/// A text in pieces of whole paragraphs, of at most so many bytes.
fn pieces(text: &str, most: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for paragraph in text
        .split("\n\n")
        .map(str::trim_end)
        .filter(|part| !is_blank(part))
    {
        for part in cut(paragraph, most) {
            if is_blank(part) {
                continue;
            }
            match pieces.last_mut() {
                Some(last) if last.len() + part.len() + 2 <= most => {
                    last.push_str("\n\n");
                    last.push_str(part);
                }
                _ => pieces.push(part.trim_start_matches('\n').to_owned()),
            }
        }
    }
    pieces
}

/// A text in parts of at most so many bytes, cut at blanks where there are some.
fn cut(mut text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while text.len() > most {
        let mut end = most;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let end = text[..end]
            .rfind(char::is_whitespace)
            .filter(|at| *at > 0)
            .unwrap_or(end);
        parts.push(&text[..end]);
        text = text[end..].trim_start();
    }
    parts.push(text);
    parts
}

/// What a coding tool is told about a project: each item of a list by itself, under its headings, and what stands
/// between the lists.
fn rules(text: &str) -> Vec<NewMemory> {
    let mut rules = Vec::new();
    for section in sections(text) {
        let heading = section.heading(": ");
        let mut add = |text: &str| {
            let pieces = pieces(text, LONGEST_NOTE).into_iter();
            rules.extend(pieces.map(|piece| format!("{heading}{}", piece.trim())));
        };
        let (mut depth, mut from) = (0, 0);
        for (event, range) in Parser::new_ext(section.text, Options::all()).into_offset_iter() {
            match event {
                Event::Start(Tag::List(_)) => {
                    if depth == 0 {
                        add(&section.text[from..range.start]);
                        from = range.end;
                    }
                    depth += 1;
                }
                Event::End(TagEnd::List(_)) => depth -= 1,
                Event::Start(Tag::Item) if depth == 1 => {
                    let item = section.text[range].trim();
                    add(item.strip_prefix(['-', '*', '+']).unwrap_or(item).trim());
                }
                _ => {}
            }
        }
        add(section.text.get(from..).unwrap_or_default());
    }
    rules
        .into_iter()
        .map(|text| note("preference", text))
        .collect()
}

/// A decision record (Nygard, or MADR): its title, and what was decided, with what follows from it. One, if it is not
/// very long.
fn decision(text: &str) -> Option<Vec<NewMemory>> {
    let sections = sections(text);
    let title = sections.iter().find_map(|section| section.path.first())?;
    let part = |names: &[&str]| {
        sections.iter().find(|section| {
            let name = section
                .path
                .last()
                .map(|name| name.to_lowercase())
                .unwrap_or_default();
            names.iter().any(|wanted| name.starts_with(wanted))
        })
    };
    let decided = part(&["decision outcome", "decision", "we decided"])?;
    let mut text = decided.text.trim().to_owned();
    if let Some(follows) = part(&["consequences", "positive consequences"]) {
        text += &format!("\n\n{}", follows.text.trim());
    }
    let status = part(&["status"])
        .map(|section| section.text.to_lowercase())
        .unwrap_or_default();
    // What was replaced or turned down is worth knowing, and not worth following.
    let confidence = ["superseded", "deprecated", "rejected"]
        .iter()
        .any(|word| status.contains(word))
        .then_some(0.3);
    let title = first_of(title, LONGEST_HEADING);
    let parts = pieces(&text, LONGEST_DECISION).into_iter();
    let decisions = parts.map(|part| NewMemory {
        confidence,
        ..note("decision", format!("{title}\n{part}"))
    });
    Some(decisions.collect())
}

/// JSON lines: an export of Hearth's, or objects with the fields of a new memory.
fn lines(text: &str, path: &str) -> Result<Contents, Unreadable> {
    let objects = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let mut memories = Vec::new();
    let mut new = Vec::new();
    for (at, line) in objects {
        let wrong = |error: serde_json::Error| Unreadable::Line {
            line: at + 1,
            reason: error.to_string(),
        };
        // With the field's name.
        let refused = |error: crate::Error| Unreadable::Line {
            line: at + 1,
            reason: error.to_string(),
        };
        let mut value: Value = serde_json::from_str(line).map_err(wrong)?;
        if is_exported(&value) {
            // By itself: what is wrong in a flattened field is not told by its name.
            let holders = value.as_object_mut().and_then(|one| one.remove("holders"));
            let holders = holders.map(serde_json::from_value::<Option<Vec<String>>>);
            let holders = holders.transpose().map_err(wrong)?.flatten();
            let memory = serde_json::from_value::<Memory>(value).map_err(wrong)?;
            let memory = gate::restored(memory).map_err(refused)?;
            for holder in holders.iter().flatten() {
                gate::source("holders", Some(holder)).map_err(refused)?;
            }
            memories.push(Exported { memory, holders });
        } else {
            let memory = serde_json::from_value::<NewMemory>(value).map_err(wrong)?;
            gate::check(&memory).map_err(refused)?;
            if memory.supersedes.is_some() {
                let how = "a file cannot take a memory's place; leave it out, or use `hearth memory add --supersedes`";
                return Err(refused(crate::Error::invalid("supersedes", how)));
            }
            let source = memory.source.clone().or_else(|| Some(path.to_owned()));
            new.push((NewMemory { source, ..memory }, None));
        }
    }
    match (memories.is_empty(), new.is_empty()) {
        (false, false) => Err(Unreadable::Line {
            line: 1,
            reason: "some lines are memories of an export and others are not; divide the file"
                .into(),
        }),
        (false, true) => Ok(Contents::Memories(memories)),
        (true, _) => Ok(Contents::New(new)),
    }
}

/// A JSON file: an export of ChatGPT or Claude, or a list of memories.
fn json(text: &str, path: &str) -> Result<Contents, Unreadable> {
    let value: Value = serde_json::from_str(text).map_err(|error| Unreadable::Line {
        line: error.line(),
        reason: error.to_string(),
    })?;
    let Value::Array(all) = &value else {
        return Err(Unreadable::Unknown);
    };
    if all.iter().any(|one| one.get("mapping").is_some()) {
        return Ok(conversations(all, path, chatgpt));
    }
    if all.iter().any(|one| one.get("chat_messages").is_some()) {
        return Ok(conversations(all, path, claude));
    }
    let lines: Vec<String> = all.iter().map(Value::to_string).collect();
    lines_of(&lines, path)
}

fn lines_of(all: &[String], path: &str) -> Result<Contents, Unreadable> {
    lines(&all.join("\n"), path).map_err(|error| match error {
        Unreadable::Line { line, reason } => Unreadable::Line {
            line,
            reason: format!("element {line} of the list: {reason}"),
        },
        other => other,
    })
}

/// Something that was said.
struct Turn {
    by_person: bool,
    text: String,
    at: Option<Timestamp>,
}

/// Each question with its answer, under the conversation's title.
fn conversations(all: &[Value], path: &str, turns: impl Fn(&Value) -> Vec<Turn>) -> Contents {
    let mut memories = Vec::new();
    for conversation in all {
        let title = ["title", "name"]
            .iter()
            .find_map(|key| conversation.get(key)?.as_str());
        let title = title
            .map(str::trim)
            .filter(|title| !is_blank(title))
            .map_or("Conversation", |title| first_of(title, LONGEST_HEADING));
        let mut asked: Option<Turn> = None;
        for turn in turns(conversation) {
            if turn.by_person {
                asked = Some(turn);
                continue;
            }
            let Some(question) = asked.take() else {
                continue;
            };
            for text in exchange(&question.text, &turn.text) {
                let memory = NewMemory {
                    source: Some(path.to_owned()),
                    tags: vec!["conversation".into()],
                    ..note("conversation", format!("{title}\n{text}"))
                };
                debug_assert!(memory.tags.len() <= MOST_TAGS);
                memories.push((memory, question.at));
            }
        }
    }
    Contents::New(memories)
}

/// A question and its answer. Long ones are divided: the end of the one and the beginning of the other stay together.
fn exchange(question: &str, answer: &str) -> Vec<String> {
    let divided = |text: &str| match text.trim() {
        text if text.len() <= LONGEST_TURN => vec![text.to_owned()],
        text => pieces(text, LONGEST_TURN),
    };
    let mut questions = divided(question);
    let mut answers = divided(answer).into_iter();
    let asked = questions.pop().unwrap_or_default();
    let answered = answers.next().unwrap_or_default();
    let mut all: Vec<String> = questions.iter().map(|part| format!("Q: {part}")).collect();
    all.push(format!("Q: {asked}\nA: {answered}"));
    all.extend(answers.map(|part| format!("A: {part}")));
    all
}

fn seconds(value: Option<&Value>) -> Option<Timestamp> {
    let seconds = value?.as_f64()?;
    Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()
}

/// ChatGPT keeps a tree of messages, of which the path from the root to the current node was last seen.
fn chatgpt(conversation: &Value) -> Vec<Turn> {
    let mapping = &conversation["mapping"];
    let mut turns = Vec::new();
    let mut at = conversation["current_node"].as_str();
    let most = mapping.as_object().map_or(0, serde_json::Map::len);
    // No longer than there are nodes: a damaged file may go in a circle.
    for _ in 0..most {
        let Some(node) = at.and_then(|id| mapping.get(id)) else {
            break;
        };
        let message = &node["message"];
        let role = message["author"]["role"].as_str().unwrap_or_default();
        let parts = message["content"]["parts"].as_array();
        let text: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let text = text.join("\n");
        if matches!(role, "user" | "assistant") && !text.trim().is_empty() {
            turns.push(Turn {
                by_person: role == "user",
                text,
                at: seconds(message.get("create_time")),
            });
        }
        at = node["parent"].as_str();
    }
    turns.reverse();
    joined(turns)
}

fn claude(conversation: &Value) -> Vec<Turn> {
    let messages = conversation["chat_messages"].as_array();
    let turns = messages.into_iter().flatten().filter_map(|message| {
        let blocks = message["content"].as_array();
        let blocks: Vec<&str> = blocks
            .into_iter()
            .flatten()
            .filter_map(|block| block["text"].as_str())
            .collect();
        let text = match blocks.is_empty() {
            true => message["text"].as_str().unwrap_or_default().to_owned(),
            false => blocks.join("\n"),
        };
        let at = message["created_at"]
            .as_str()
            .and_then(|time| time.parse().ok());
        let by_person = message["sender"].as_str()? == "human";
        (!text.trim().is_empty()).then_some(Turn {
            by_person,
            text,
            at,
        })
    });
    joined(turns.collect())
}

/// What one said in several messages is one turn.
fn joined(turns: Vec<Turn>) -> Vec<Turn> {
    let mut out: Vec<Turn> = Vec::new();
    for turn in turns {
        match out.last_mut() {
            Some(last) if last.by_person == turn.by_person => {
                last.text.push_str("\n\n");
                last.text.push_str(&turn.text);
            }
            _ => out.push(turn),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn texts(path: &str, text: &str) -> Vec<String> {
        match read(path, text.as_bytes()).unwrap() {
            Contents::New(new) => new.into_iter().map(|(new, _)| new.text).collect(),
            Contents::Memories(memories) => {
                memories.into_iter().map(|one| one.memory.text).collect()
            }
        }
    }

    #[test]
    fn each_section_of_a_document_is_a_note_under_its_headings() {
        let text = "---\ntitle: x\n---\nIntro.\n\n# Server\n\nIt listens.\n\n## Port\n\nOn 8321.\n\n# Other\n\nNo.\n";
        assert_eq!(
            texts("notes/a.md", text),
            [
                "Intro.",
                "Server\nIt listens.",
                "Server > Port\nOn 8321.",
                "Other\nNo."
            ]
        );
        let long = format!("# Long\n\n{}", "A sentence of some words.\n\n".repeat(200));
        let pieces = texts("a.md", &long);
        assert!(pieces.len() > 2);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() < LONGEST_NOTE + 20 && piece.starts_with("Long\n"))
        );
    }

    #[test]
    fn each_rule_of_a_coding_tool_is_a_preference() {
        let text = "# Rules\n\nBe brief.\n\n## Tests\n\n- Run `cargo test`\n- Never skip\n  them\n\nThat is all.\n";
        assert_eq!(
            texts("shop/CLAUDE.md", text),
            [
                "Rules: Be brief.",
                "Rules > Tests: Run `cargo test`",
                "Rules > Tests: Never skip\n  them",
                "Rules > Tests: That is all."
            ]
        );
    }

    #[test]
    fn a_decision_record_is_one_decision() {
        let text = "# 5. Use SQLite\n\n## Status\n\nSuperseded by 9\n\n## Context\n\nLong.\n\n## Decision\n\nOne file.\n\n## Consequences\n\nEasy.\n";
        let Contents::New(new) = read("docs/adr/0005-x.md", text.as_bytes()).unwrap() else {
            panic!()
        };
        let (memory, _) = &new[0];
        assert_eq!(
            (new.len(), memory.text.as_str()),
            (1, "5. Use SQLite\nOne file.\n\nEasy.")
        );
        assert_eq!(
            (memory.kind.as_deref(), memory.confidence),
            (Some("decision"), Some(0.3))
        );
        // What is no record is a document.
        assert_eq!(texts("docs/adr/README.md", "# Why\n\nSo."), ["Why\nSo."]);
    }

    #[test]
    fn empty_items_and_blanks_are_passed_over() {
        let rules = "# Rules\n\n- \n- Be brief\n-\n- **Never** skip\n\n1. \n";
        let found = texts("CLAUDE.md", rules);
        assert_eq!(found[..2], ["Rules: Be brief", "Rules: **Never** skip"]);
        assert!(texts("CLAUDE.md", "- \n").is_empty());
        assert!(texts("a.md", "# A\n\n\u{1}\u{2}\n").is_empty());
        let blanks = format!("# A\n\n{}word\n", " ".repeat(1_600));
        assert_eq!(texts("a.md", &blanks), ["A\nword"]);
        let heading = format!("# {}\n\nSo.", "x".repeat(MOST_TEXT));
        assert!(texts("a.md", &heading)[0].ends_with("x\nSo."));
    }

    #[test]
    fn what_is_long_is_divided_and_nothing_is_dropped() {
        let long = |name: &str, count: usize| -> String {
            (0..count)
                .map(|n| format!("{name}{n:05}. And so on.\n\n"))
                .collect()
        };
        let all_in = |found: &[String], name: &str, count: usize| {
            (0..count).all(|n| {
                let word = format!("{name}{n:05}.");
                found.iter().filter(|text| text.contains(&word)).count() == 1
            })
        };
        let record = format!("# Title\n\n## Decision\n\n{}", long("d", 4_000));
        let found = texts("adr/1.md", &record);
        assert!(found.len() > 1 && all_in(&found, "d", 4_000));
        assert!(
            found
                .iter()
                .all(|text| text.starts_with("Title\n") && text.len() <= MOST_TEXT)
        );
        let claude = serde_json::json!([{"name": "Ports", "chat_messages": [
            {"sender": "human", "text": long("q", 400)},
            {"sender": "assistant", "text": long("a", 1_000)}]}]);
        let found = texts("c.json", &claude.to_string());
        assert!(all_in(&found, "q", 400) && all_in(&found, "a", 1_000));
        assert!(
            found
                .iter()
                .all(|text| text.starts_with("Ports\n") && text.len() < 9_000)
        );
        assert!(
            found
                .iter()
                .any(|text| text.contains("q00399.") && text.contains("\nA: a00000."))
        );
    }

    #[test]
    fn conversations_become_questions_with_their_answers() {
        let chatgpt = r#"[{"title": "Ports", "current_node": "c", "mapping": {
            "r": {"parent": null, "message": null},
            "a": {"parent": "r", "message": {"author": {"role": "user"}, "create_time": 1700000000.5, "content": {"parts": ["Which port?"]}}},
            "b": {"parent": "a", "message": {"author": {"role": "assistant"}, "content": {"parts": ["8321", {"x": 1}]}}},
            "o": {"parent": "a", "message": {"author": {"role": "assistant"}, "content": {"parts": ["another branch"]}}},
            "c": {"parent": "b", "message": {"author": {"role": "user"}, "content": {"parts": ["unanswered"]}}}}}]"#;
        let Contents::New(new) = read("conversations.json", chatgpt.as_bytes()).unwrap() else {
            panic!()
        };
        assert_eq!(new.len(), 1);
        assert_eq!(new[0].0.text, "Ports\nQ: Which port?\nA: 8321");
        assert_eq!(new[0].1.unwrap().as_millisecond(), 1_700_000_000_500);
        let claude = r#"[{"name": "Ports", "chat_messages": [
            {"sender": "human", "text": "Which", "created_at": "2026-01-02T03:04:05Z"},
            {"sender": "human", "text": "port?"},
            {"sender": "assistant", "text": "", "content": [{"type": "text", "text": "8321"}]}]}]"#;
        let Contents::New(new) = read("c.json", claude.as_bytes()).unwrap() else {
            panic!()
        };
        assert_eq!(new[0].0.text, "Ports\nQ: Which\n\nport?\nA: 8321");
        assert_eq!(new[0].1.unwrap().to_string(), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn damage_is_told_with_its_line() {
        let error = |path: &str, bytes: &[u8]| read(path, bytes).unwrap_err().to_string();
        assert!(error("a.jsonl", b"{\"text\": \"x\"}\n{\"text\": 1}").starts_with("line 2: "));
        assert!(error("a.jsonl", b"{\"txt\": \"x\"}").contains("txt"));
        assert!(error("a.json", b"[1, 2").starts_with("line 1: "));
        assert!(error("a.json", b"{}").contains("export of ChatGPT"));
        assert!(error("a.md", b"ab\xFF").contains("byte 2"));
        assert!(error("a.bin", b"").contains("Markdown"));
        let circle = r#"[{"current_node": "a", "mapping": {"a": {"parent": "a"}}}]"#;
        assert!(texts("a.json", circle).is_empty());
    }

    proptest! {
        #[test]
        fn no_document_is_too_odd(text in "(#{0,4} ?|- |\n|\\* |[a-zé`>]{1,9}| |---\n|1\\. ){0,60}", path in prop::sample::select(vec!["a.md", "CLAUDE.md", "adr/1.md", "a.txt", "a.json", "a.jsonl"])) {
            if let Ok(Contents::New(new)) = read(path, text.as_bytes()) {
                for (memory, _) in new {
                    prop_assert!(gate::check(&memory).is_ok(), "{:?}", memory.text);
                    prop_assert!(!memory.text.ends_with(':'), "{:?}", memory.text);
                }
            }
        }
    }
}
