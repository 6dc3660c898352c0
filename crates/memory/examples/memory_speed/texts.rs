//! Texts for speed: notes, questions and sentences drawn from lists of words, the same ones every time.
//!
//! How many words there are decides how often each stands in a store, and with it what a search by words costs: besides
//! the lists here, all longer words of `bench/retrieval` are drawn.

use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Steele, Lea and Flood: splitmix64.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.number() % count as u64) as usize
    }

    pub fn one<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Projects that the notes belong to.
pub const PROJECTS: usize = 10;

pub fn project(note: usize) -> String {
    format!("project-{}", note % PROJECTS)
}

/// The note of this number, about 20 tokens; no two are the same.
pub fn note(number: usize) -> String {
    let mut draw = Draw::new(number as u64 + 1);
    let sentence = sentence(&mut draw);
    match draw.below(3) {
        0 => format!("{sentence} See ticket {number}."),
        1 => format!("Note {number}: {sentence}"),
        _ => format!("{sentence} ({number})"),
    }
}

/// A question of about 10 tokens, another for every number.
pub fn question(number: usize) -> String {
    let mut draw = Draw::new(!(number as u64));
    let (a, b) = (thing(&mut draw), thing(&mut draw));
    let (doing, how, who) = (draw.one(&VERBS), draw.one(&ADJECTIVES), draw.one(&PEOPLE));
    let place = draw.one(&PLACES);
    match draw.below(6) {
        0 => format!("why did {who} {doing} the {how} {a} {number}"),
        1 => format!("what was decided about the {a} and the {b} in {place} {number}"),
        2 => format!("how do we {doing} a {a} {number}"),
        3 => format!("where does {who} keep the {a}? {number}"),
        4 => format!("{how} {a} {b} {number}"),
        _ => format!("error {number} while the {a} was {how}"),
    }
}

/// So many sentences, of 3 to 35 tokens.
pub fn sentences(count: usize) -> Vec<String> {
    let mut draw = Draw::new(0x5eed);
    (0..count).map(|_| sentence(&mut draw)).collect()
}

/// Some word.
pub fn word(draw: &mut Draw) -> &'static str {
    draw.one(&NOUNS)
}

/// Three times of four one of the longer words of the labelled memories.
fn thing(draw: &mut Draw) -> &'static str {
    static WORDS: OnceLock<Vec<&'static str>> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let memories = include_str!("../../../../bench/retrieval/memories.jsonl");
        let words = memories.split(|c: char| !c.is_alphabetic());
        let long = words.filter(|word| word.len() > 4 && word.chars().all(char::is_lowercase));
        let each: BTreeSet<&str> = long.collect();
        each.into_iter().collect()
    });
    match draw.below(4) {
        0 => draw.one(&NOUNS),
        _ => draw.one(words),
    }
}

fn sentence(draw: &mut Draw) -> String {
    let number = draw.below(9000);
    let (a, b, c) = (thing(draw), thing(draw), thing(draw));
    let (doing, how, when) = (draw.one(&VERBS), draw.one(&ADJECTIVES), draw.one(&TIMES));
    let (who, place) = (draw.one(&PEOPLE), draw.one(&PLACES));
    match draw.below(12) {
        0 => format!("{who} will {doing} the {how} {a} {when}."),
        1 => format!("We {doing} every {a} in {place} with a {b}."),
        2 => format!("The {a} of the {b} costs {number} euros, but the {c} is {how}."),
        3 => format!(
            "{when}, {who} decided that the {a} must not {doing} the {b}; it was too {how}."
        ),
        4 => format!("{how} {a}, {how} {b}."),
        5 => format!(
            "Error {number}: the {a} could not {doing} the {b} while the {c} was {how}, see {place}."
        ),
        6 => format!(
            "In {place} everybody knows the {how} {a}, yet {who} still has to {doing} one {when} with a {b} and a {c}."
        ),
        7 => format!("{a}, {b} and {c}: {number} things to {doing} {when}, said {who}."),
        8 => format!("Decision: {doing} the {a} instead of the {b}, because the {c} is {how}."),
        9 => format!("{who} prefers the {how} {a} to a {b} from {place}."),
        10 => format!("The {a} listens on port {number} and talks to the {b} {when}."),
        _ => format!(
            "To {doing} a {a}, first look at the {b}, then ask {who} in {place} for the {how} {c}."
        ),
    }
}

const NOUNS: [&str; 96] = [
    "river",
    "database",
    "garden",
    "engine",
    "letter",
    "window",
    "contract",
    "melody",
    "bridge",
    "kernel",
    "harbour",
    "recipe",
    "meeting",
    "battery",
    "forest",
    "password",
    "museum",
    "bicycle",
    "thread",
    "invoice",
    "mountain",
    "server",
    "painting",
    "kitchen",
    "network",
    "theory",
    "market",
    "camera",
    "island",
    "protocol",
    "teacher",
    "compiler",
    "lamp",
    "storm",
    "library",
    "budget",
    "horse",
    "deadline",
    "vaccine",
    "orchestra",
    "certificate",
    "queue",
    "passport",
    "turbine",
    "spreadsheet",
    "violin",
    "backup",
    "staircase",
    "container",
    "dictionary",
    "anchor",
    "firewall",
    "greenhouse",
    "ledger",
    "microscope",
    "newsletter",
    "oven",
    "pipeline",
    "quarry",
    "robot",
    "satellite",
    "telescope",
    "umbrella",
    "valve",
    "warehouse",
    "checksum",
    "zipper",
    "airport",
    "blanket",
    "cathedral",
    "dashboard",
    "elevator",
    "festival",
    "glacier",
    "helmet",
    "interview",
    "journal",
    "keyboard",
    "lighthouse",
    "migration",
    "notebook",
    "orchard",
    "parser",
    "quilt",
    "railway",
    "schema",
    "tariff",
    "upgrade",
    "village",
    "whistle",
    "allergy",
    "branch",
    "cache",
    "dentist",
    "exam",
    "fuse",
];
const VERBS: [&str; 40] = [
    "repair",
    "paint",
    "measure",
    "forget",
    "sell",
    "index",
    "describe",
    "cross",
    "compile",
    "borrow",
    "deliver",
    "open",
    "compress",
    "question",
    "plant",
    "replace",
    "translate",
    "remember",
    "delay",
    "encrypt",
    "archive",
    "balance",
    "cancel",
    "deploy",
    "empty",
    "finance",
    "guard",
    "heat",
    "import",
    "join",
    "knit",
    "label",
    "merge",
    "narrow",
    "order",
    "polish",
    "review",
    "schedule",
    "test",
    "unload",
];
const ADJECTIVES: [&str; 40] = [
    "quiet",
    "broken",
    "expensive",
    "ancient",
    "asynchronous",
    "bright",
    "unexpected",
    "frozen",
    "portable",
    "gentle",
    "corrupt",
    "distant",
    "wooden",
    "redundant",
    "famous",
    "narrow",
    "hungry",
    "immutable",
    "salty",
    "careful",
    "annual",
    "blue",
    "crowded",
    "digital",
    "empty",
    "fragile",
    "generic",
    "hidden",
    "idle",
    "juicy",
    "late",
    "muddy",
    "nervous",
    "obsolete",
    "public",
    "rusty",
    "shared",
    "temporary",
    "urban",
    "volatile",
];
const TIMES: [&str; 16] = [
    "yesterday",
    "on Monday",
    "after the release",
    "every spring",
    "at midnight",
    "in 1987",
    "before lunch",
    "twice a year",
    "during the war",
    "as soon as it rains",
    "next quarter",
    "on 3 March",
    "when the tests pass",
    "in the summer holidays",
    "once a week",
    "at 9:30",
];
const PEOPLE: [&str; 20] = [
    "she",
    "the mayor",
    "our customer",
    "a nurse",
    "the operator",
    "my neighbour",
    "nobody",
    "the committee",
    "an old sailor",
    "the new developer",
    "a child",
    "the physicist",
    "Aunt Ruth",
    "the auditor",
    "team blue",
    "the landlord",
    "Dr Okafor",
    "the intern",
    "a plumber",
    "the reviewer",
];
const PLACES: [&str; 16] = [
    "Lisbon",
    "the basement",
    "a small village",
    "the data centre",
    "Antarctica",
    "the log file",
    "our school",
    "São Paulo",
    "the second chapter",
    "the production cluster",
    "Kyoto",
    "a train station",
    "the attic",
    "staging",
    "the shared folder",
    "Nairobi",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn notes_and_questions_repeat_themselves_only_by_number() {
        let notes: HashSet<String> = (0..5000).map(note).collect();
        assert_eq!(notes.len(), 5000);
        assert_eq!(note(17), note(17));
        let questions: HashSet<String> = (0..5000).map(question).collect();
        assert_eq!(questions.len(), 5000);
    }
}
