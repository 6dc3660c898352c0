//! A needle among sessions: each question's answer stands in one note of a conversation among many others, as in
//! LongMemEval. Everything is drawn from templates with fixed seeds; nothing is of that set.
//!
//! Every question has sessions of its own, which are a project, so that one store holds them all.

use std::sync::Arc;

use hearth_memory::{Embed, Fusion};
use jiff::civil::{Date, date};
use serde_json::json;

use crate::Answer;
use crate::quality::Filled;
use crate::score::Scores;
use crate::texts::Draw;

/// The day of the first session.
const FIRST: Date = date(2025, 9, 1);
/// Days over which the sessions are spread.
const DAYS: usize = 360;
/// Remarks of a session.
const REMARKS: std::ops::Range<usize> = 5..9;

/// Something that a person says once: how it is said and how it is asked for. `{0}` is what it is about, `{1}` what is
/// asked for.
struct Fact {
    said: [&'static str; 2],
    asked: [&'static str; 2],
    about: [&'static str; 8],
    told: [&'static str; 8],
}

/// One question with its sessions.
struct Needle {
    question: String,
    /// Texts and days of the sessions, the oldest first.
    sessions: Vec<(String, Date)>,
    answer: usize,
}

/// Fills `{0}` and `{1}`.
fn fill(template: &str, about: &str, told: &str) -> String {
    template.replace("{0}", about).replace("{1}", told)
}

/// A remark about some fact, and which it is: kind, thing, and value.
fn remark(draw: &mut Draw, kind: usize, about: usize, told: usize) -> String {
    let fact = &FACTS[kind];
    fill(draw.one(&fact.said), fact.about[about], fact.told[told])
}

/// A session around the remark, if there is one, that says nothing else about `kept`.
fn session(draw: &mut Draw, needle: Option<String>, kept: (usize, usize)) -> String {
    let count = REMARKS.start + draw.below(REMARKS.len());
    let place = draw.below(count);
    let mut lines = Vec::with_capacity(count + 1);
    for at in 0..count {
        if at == place {
            lines.extend(needle.clone());
        }
        if draw.below(2) == 0 {
            lines.push(fill(draw.one(&TALK), draw.one(&TOPICS), draw.one(&MOODS)));
            continue;
        }
        let (mut kind, about) = (draw.below(FACTS.len()), draw.below(8));
        if (kind, about) == kept {
            kind = (kind + 1) % FACTS.len();
        }
        let told = draw.below(8);
        lines.push(remark(draw, kind, about, told));
    }
    lines.join(" ")
}

fn needle(seed: usize, count: usize) -> Needle {
    let mut draw = Draw::new(0x4ea7 + seed as u64);
    let kind = seed % FACTS.len();
    let about = draw.below(8);
    let told = draw.below(8);
    let answer = count / 3 + draw.below((count - count / 3).max(1));
    // Of every fourth question an older session says something else, which no longer holds.
    let older = (seed % 4 == 3).then(|| draw.below((count / 3).max(1)));
    let sessions = (0..count).map(|at| {
        let said = if at == answer {
            let now = remark(&mut draw, kind, about, told);
            Some(if older.is_some() {
                format!("This has changed: {now}")
            } else {
                now
            })
        } else if Some(at) == older {
            Some(remark(&mut draw, kind, about, (told + 1) % 8))
        } else {
            None
        };
        let day = FIRST.saturating_add(jiff::Span::new().days((at * DAYS / count) as i64));
        (session(&mut draw, said, (kind, about)), day)
    });
    let sessions = sessions.collect();
    let fact = &FACTS[kind];
    Needle {
        question: fill(draw.one(&fact.asked), fact.about[about], ""),
        sessions,
        answer,
    }
}

/// How well the sessions with the answers are found.
pub fn measure(sessions: usize, questions: usize, encoder: Option<Arc<dyn Embed>>) -> Answer {
    let needles: Vec<Needle> = (0..questions).map(|seed| needle(seed, sessions)).collect();
    let mut stores = vec![("words only", Fusion::Weighted(0.0), Filled::new(None)?)];
    if encoder.is_some() {
        let meaning = Fusion::Weighted(1.0);
        stores.push(("vectors only", meaning, Filled::new(encoder)?));
    }
    for (.., filled) in &mut stores {
        for (number, needle) in needles.iter().enumerate() {
            filled.import(&project(number), &needle.sessions)?;
        }
    }
    let mut rows = Vec::new();
    let score = |filled: &Filled, fusion: Fusion| -> Result<[f64; 5], Box<dyn std::error::Error>> {
        let mut scores = Scores::default();
        for (number, needle) in needles.iter().enumerate() {
            let project = project(number);
            let found = filled.find(&needle.question, Some(&project), fusion)?;
            let wanted = format!("{project}/{}", needle.answer);
            scores.add(&found, &[&wanted]);
        }
        Ok(scores.means())
    };
    for (name, fusion, filled) in &stores {
        rows.push(json!({"name": name, "means": score(filled, *fusion)?}));
    }
    if let Some((.., filled)) = stores.get(1) {
        let means = score(filled, Fusion::USUAL)?;
        rows.push(json!({"name": "fused, as searches are", "means": means}));
        for (name, fusion) in crate::quality::fusions() {
            let means = score(filled, fusion)?;
            rows.push(json!({"name": name, "means": means}));
        }
    }
    Ok(json!({"sessions": sessions, "questions": questions, "rows": rows}))
}

fn project(number: usize) -> String {
    format!("person-{number}")
}

const FACTS: [Fact; 12] = [
    Fact {
        said: [
            "I finally bought the {0}; it cost me {1}.",
            "The {0} set me back {1}, more than I had planned.",
        ],
        asked: [
            "How much did I pay for the {0}?",
            "What was the price of my {0}?",
        ],
        about: [
            "espresso machine",
            "road bike",
            "standing desk",
            "noise-cancelling headphones",
            "sewing machine",
            "tent",
            "piano",
            "winter coat",
        ],
        told: [
            "140 euros",
            "219 euros",
            "385 euros",
            "470 euros",
            "612 euros",
            "780 euros",
            "935 euros",
            "1,240 euros",
        ],
    },
    Fact {
        said: [
            "My appointment with the {0} is on {1}.",
            "They moved me to {1} at the {0}.",
        ],
        asked: [
            "When do I have to be at the {0}?",
            "On which day do I see the {0}?",
        ],
        about: [
            "dentist",
            "tax adviser",
            "physiotherapist",
            "eye doctor",
            "bank",
            "vet",
            "notary",
            "hairdresser",
        ],
        told: [
            "3 March",
            "17 April",
            "9 May",
            "28 June",
            "12 July",
            "5 August",
            "21 September",
            "30 October",
        ],
    },
    Fact {
        said: [
            "{0} told me to read {1}, and I put it on my list.",
            "On the recommendation of {0} I started {1}.",
        ],
        asked: [
            "Which book did {0} recommend to me?",
            "What should I read according to {0}?",
        ],
        about: [
            "Priya",
            "my boss",
            "Uncle Leo",
            "Hannah",
            "the librarian",
            "Matteo",
            "my neighbour Grace",
            "Professor Lind",
        ],
        told: [
            "The Master and Margarita",
            "Middlemarch",
            "The Dispossessed",
            "Invisible Cities",
            "Beloved",
            "Stoner",
            "The Leopard",
            "Kristin Lavransdatter",
        ],
    },
    Fact {
        said: [
            "The {0} we adopted is called {1}.",
            "We named our {0} {1}; the children voted.",
        ],
        asked: ["What is the name of our {0}?", "What did we call the {0}?"],
        about: [
            "cat", "dog", "tortoise", "parrot", "rabbit", "hamster", "pony", "goldfish",
        ],
        told: [
            "Biscuit", "Ziggy", "Olive", "Captain", "Momo", "Pickles", "Saturn", "Juniper",
        ],
    },
    Fact {
        said: [
            "It takes me {1} to get to {0}, door to door.",
            "I timed the way to {0}: {1}.",
        ],
        asked: [
            "How long does it take me to reach {0}?",
            "How far away in time is {0}?",
        ],
        about: [
            "the office",
            "the climbing gym",
            "my mother's house",
            "the university",
            "the allotment",
            "the airport",
            "choir practice",
            "the swimming pool",
        ],
        told: [
            "12 minutes",
            "19 minutes",
            "25 minutes",
            "34 minutes",
            "41 minutes",
            "50 minutes",
            "an hour and a quarter",
            "two hours",
        ],
    },
    Fact {
        said: [
            "For my {0} I use {1}, that is the whole secret.",
            "The trick with my {0} is {1}.",
        ],
        asked: [
            "What is the secret ingredient of my {0}?",
            "What do I put into my {0} to make it special?",
        ],
        about: [
            "chilli",
            "apple pie",
            "lentil soup",
            "salad dressing",
            "goulash",
            "pancakes",
            "tomato sauce",
            "hummus",
        ],
        told: [
            "dark chocolate",
            "cardamom",
            "a spoon of miso",
            "pomegranate syrup",
            "smoked paprika",
            "buttermilk",
            "anchovies",
            "roasted garlic",
        ],
    },
    Fact {
        said: [
            "In {0} we stayed at {1}, which was lovely.",
            "Our room in {0} was at {1}.",
        ],
        asked: [
            "Where did we sleep when we visited {0}?",
            "What was the hotel in {0}?",
        ],
        about: [
            "Porto",
            "Tallinn",
            "Kraków",
            "Granada",
            "Edinburgh",
            "Ljubljana",
            "Ghent",
            "Palermo",
        ],
        told: [
            "the Blue Heron",
            "Casa Amarela",
            "the Old Customs House",
            "Pension Sonnblick",
            "the Weaver's Yard",
            "Hotel Meridian",
            "the Three Ravens",
            "Villa Lucia",
        ],
    },
    Fact {
        said: [
            "Careful when we cook for {0}: no {1}.",
            "{0} cannot eat {1}, I must remember that.",
        ],
        asked: [
            "What must I not serve to {0}?",
            "Which food does {0} have to avoid?",
        ],
        about: [
            "Samira",
            "my father-in-law",
            "Jonas",
            "the twins",
            "Beatriz",
            "my colleague Ravi",
            "Aunt Colette",
            "Dmitri",
        ],
        told: [
            "peanuts",
            "shellfish",
            "gluten",
            "celery",
            "eggs",
            "lactose",
            "strawberries",
            "sesame",
        ],
    },
    Fact {
        said: [
            "The code for the {0} is {1}.",
            "To open the {0} one types {1}.",
        ],
        asked: [
            "What is the code of the {0}?",
            "Which number opens the {0}?",
        ],
        about: [
            "bicycle lock",
            "garage",
            "holiday flat",
            "locker at the gym",
            "office safe",
            "garden gate",
            "suitcase",
            "mailbox",
        ],
        told: [
            "4071", "9926", "1538", "6640", "2217", "8093", "3352", "7784",
        ],
    },
    Fact {
        said: [
            "I water the {0} {1}, otherwise it sulks.",
            "The {0} gets its water {1}.",
        ],
        asked: [
            "How often does the {0} need water?",
            "When do I water the {0}?",
        ],
        about: [
            "orchid",
            "monstera",
            "lemon tree",
            "bonsai",
            "fern",
            "cactus",
            "peace lily",
            "olive tree",
        ],
        told: [
            "every other day",
            "on Sundays",
            "every ten days",
            "twice a month",
            "each morning",
            "once in three weeks",
            "on Wednesdays and Saturdays",
            "every fifth day",
        ],
    },
    Fact {
        said: ["{0} works at {1} these days.", "{0} has a job with {1}."],
        asked: ["Who employs {0}?", "Where does {0} work?"],
        about: [
            "my brother",
            "Ines",
            "our former flatmate",
            "Oskar",
            "cousin Mei",
            "my oldest friend",
            "the man from the ferry",
            "Fatima",
        ],
        told: [
            "a wind farm",
            "the natural history museum",
            "a brewery in Leeds",
            "the national railway",
            "a small publisher",
            "the cancer clinic",
            "a game studio",
            "the port authority",
        ],
    },
    Fact {
        said: [
            "The warranty of the {0} ends in {1}.",
            "Until {1} they repair the {0} for free.",
        ],
        asked: [
            "Until when is the {0} under warranty?",
            "When does the guarantee of the {0} expire?",
        ],
        about: [
            "washing machine",
            "laptop",
            "dishwasher",
            "e-reader",
            "boiler",
            "vacuum cleaner",
            "camera",
            "electric toothbrush",
        ],
        told: [
            "January 2027",
            "May 2027",
            "August 2027",
            "December 2027",
            "March 2028",
            "July 2028",
            "October 2028",
            "February 2029",
        ],
    },
];

const TALK: [&str; 10] = [
    "We talked about {0}, and I was rather {1}.",
    "I asked for ideas about {0}.",
    "The conversation turned to {0}; the mood was {1}.",
    "I wanted a short explanation of {0} that a child understands.",
    "There was a long list of tips about {0}, most of which I knew.",
    "I am {1} when it comes to {0}.",
    "Next week I want to come back to {0}.",
    "I asked to have an email about {0} rewritten so that it sounds less {1}.",
    "A plan for {0} was made, with a step for each day.",
    "Somebody at work is {1} because of {0}.",
];
const TOPICS: [&str; 24] = [
    "the history of cathedrals",
    "training for a half marathon",
    "house prices",
    "learning Portuguese",
    "the garden in autumn",
    "a speech for a wedding",
    "the school's timetable",
    "black holes",
    "insulating the attic",
    "a birthday party",
    "old films",
    "sleeping better",
    "the new tram line",
    "a spreadsheet for the budget",
    "hiking boots",
    "interview questions",
    "sourdough",
    "bird song",
    "the rules of cricket",
    "decluttering",
    "volcanoes",
    "a leaking tap",
    "the elections",
    "knitting patterns",
];
const MOODS: [&str; 10] = [
    "enthusiastic",
    "tired",
    "sceptical",
    "curious",
    "impatient",
    "calm",
    "confused",
    "cheerful",
    "strict",
    "grateful",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_answer_stands_in_its_session_and_a_newer_one_is_last() {
        for seed in 0..24 {
            let needle = needle(seed, 40);
            assert_eq!(needle.sessions.len(), 40);
            let kind = &FACTS[seed % FACTS.len()];
            let about = kind
                .about
                .iter()
                .find(|about| needle.question.contains(**about));
            let about = about.unwrap();
            let says = |text: &str| {
                kind.said.iter().any(|said| {
                    let told = kind.told.iter();
                    told.map(|told| fill(said, about, told))
                        .any(|said| text.contains(&said))
                })
            };
            let saying: Vec<usize> = (0..40).filter(|at| says(&needle.sessions[*at].0)).collect();
            assert_eq!(saying.last(), Some(&needle.answer), "seed {seed}");
            assert_eq!(
                saying.len(),
                if seed % 4 == 3 { 2 } else { 1 },
                "seed {seed}"
            );
        }
    }
}
