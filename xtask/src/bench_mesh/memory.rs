//! Searches in another node's memories, beside one's own.

use serde_json::json;

use super::requests::{DOORS, meet, two};
use super::{Bench, added, quantiles};
use crate::bench_memory::table::{Table, milliseconds};
use crate::bench_serve::report::{median, show};

/// What article 44 of those the design began with measured between machines on a private network: memories, p50 and p95
/// in milliseconds. Its own search took 14.8 and 18.3.
const ARTICLE: [(usize, f64, f64); 3] = [(10, 41.8, 52.6), (100, 39.5, 56.6), (500, 45.0, 85.2)];
/// Things that memories and questions are about.
const THINGS: [&str; 8] = [
    "printer",
    "router",
    "boiler",
    "garden",
    "bicycle",
    "piano",
    "freezer",
    "telescope",
];
const PLACES: [&str; 8] = [
    "cellar", "attic", "kitchen", "garage", "hall", "shed", "library", "balcony",
];

/// Measures both doors.
pub fn measure(bench: &mut Bench) -> Result<(), String> {
    let asked = if bench.options.quick { 30 } else { 100 };
    let how = match bench.options.encoder.is_some() {
        true => "by meaning and words",
        false => "by words alone",
    };
    let mut table = Table::new(
        &format!("Searching another node's memories, {how}"),
        "Milliseconds. Here: `POST /memory/search` of a node; there: `POST /peer/memory/search` of another one with the same \
         memories, from a client that has the first one's key; both on warm connections on loopback. The article's are \
         another's, measured over a network between two machines, where its own search took 14.8 (p95 18.3).",
        &[
            "memories",
            "door",
            "here p50",
            "p95",
            "there p50",
            "p95",
            "added",
            "article p50",
            "p95",
        ],
    );
    let mut worker = bench.worker("mesh_speed")?;
    for (door, name) in DOORS {
        let [near, far] = two(bench, "memory", door)?;
        far.ask(
            "POST",
            "/household/memory/share",
            Some(&json!({"shared": true})),
        )?;
        meet(&mut worker, &near, "far")?;
        let mut stored = 0;
        for (size, article_half, article_most) in ARTICLE {
            for number in stored..size {
                let note = json!({"text": note(number), "project": "home"});
                for node in [&near, &far] {
                    node.ask("POST", "/memory", Some(&note))?;
                }
            }
            stored = size;
            let (mut here, mut there, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
            for turn in 0..=bench.options.repeat {
                // Every question is new: no answer is kept from an earlier one.
                let query = format!("where is the {} number {turn}", THINGS[turn % THINGS.len()]);
                let mut question = json!({
                    "do": "ask", "method": "POST", "path": "/memory/search", "here": true, "rounds": asked,
                    "body": {"query": query, "limit": 10},
                });
                let own = worker.times(&question)?;
                question["here"] = false.into();
                question["path"] = "/peer/memory/search".into();
                let answer = worker.ask(&question)?;
                if answer["count"].as_u64().unwrap_or_default() == 0 {
                    return Err("the other node found nothing, and should have".into());
                }
                let theirs = crate::bench_memory::worker::numbers(&answer["times"]);
                // The first turn opens what is opened once.
                if turn > 0 {
                    pairs.push((median(&own), median(&theirs)));
                    here.extend(own);
                    there.extend(theirs);
                }
            }
            let (here, there) = (quantiles(&here), quantiles(&there));
            table.row(vec![
                size.to_string(),
                name.into(),
                milliseconds(here.0),
                milliseconds(here.1),
                milliseconds(there.0),
                milliseconds(there.1),
                milliseconds(added(&pairs)),
                show(article_half),
                show(article_most),
            ]);
        }
    }
    bench.add(table)
}

/// Notes that differ enough to be kept apart.
fn note(number: usize) -> String {
    let (thing, place) = (THINGS[number % 8], PLACES[number / 8 % 8]);
    let code = number * 7919 % 10_007;
    format!(
        "The {thing} with the label {code} stands in the {place} of house {number}; its key hangs at hook {code}."
    )
}
