//! A node dies or freezes while it is asked: when the next one's first token comes, and that nothing is lost or done twice.
//!
//! The node that is about to be asked is stopped first (SIGSTOP), so that the request is with it and before its first token
//! for certain; then it is killed, or stays as it is. Which one is asked is known: the same prompt went there before, and
//! the machine that has it cached is chosen again.

use std::time::Duration;

use serde_json::Value;

use super::node::{Connection, Node, Recipe, join, wait_until};
use super::requests::{DOORS, prompt};
use super::{Bench, NONE};
use crate::bench_memory::table::{Table, milliseconds};
use crate::bench_serve::report::median;

/// The model that the asking node does not have.
const MODEL: &str = "bench";
/// Silence after which a machine has failed, in milliseconds (`hearth_dispatch::Limits::silence`).
const SILENCE: f64 = 3_000.0;
/// How long a request is with the stopped node before that is killed.
const WITH_IT: Duration = Duration::from_millis(200);
/// Tokens of an answer.
const TOKENS: usize = 8;

/// What happened to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
}

/// One try.
#[derive(Default)]
struct Outcomes {
    /// From the fault to the first token of the other node, in milliseconds.
    from_fault: Vec<f64>,
    /// From when the failure could be known.
    from_detection: Vec<f64>,
    asked: usize,
    lost: usize,
    twice: usize,
    elsewhere: usize,
}

/// Measures both doors and both faults.
pub fn measure(bench: &mut Bench) -> Result<(), String> {
    let mut table = Table::new(
        "A node fails before its first token",
        "Milliseconds until the client has the first token of the next node. A killed process closes its TCP connections, \
         which is how it is known over signed HTTP; over iroh it is known by 3 s of silence, as a frozen one is (from the \
         request, because the node was stopped just before it). The aim is at most 250 ms after that. Lost: not answered \
         with every token. Twice: more than one node was told to end the run.",
        &[
            "door",
            "fault",
            "known by",
            "from the fault p50",
            "most",
            "after it is known p50",
            "most",
            "asked",
            "lost",
            "twice",
        ],
    );
    let tries = if bench.options.quick {
        3
    } else {
        4 * bench.options.repeat.max(1)
    };
    for (door, name) in DOORS {
        let folder = bench.folder.join(format!("failover-{door}"));
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        // The embedded model under another name, which the asking node does not have.
        let model = folder.join(format!("{MODEL}.gguf"));
        std::fs::copy(crate::cargo::root().join("models/ember/ember.gguf"), &model)
            .map_err(|error| format!("{}: {error}", model.display()))?;
        let model = model.display().to_string();
        let start = |name: &str| Recipe::new(&bench.hearth(), &folder, name, door);
        let near = start("near")?.start()?;
        let one = start("one")?.with(&["--model", &model]).start()?;
        let two = start("two")?.with(&["--model", &model]).start()?;
        let mut others = [one, two];
        for other in &others {
            join(&near, other)?;
        }
        for fault in [Fault::Killed, Fault::Frozen] {
            let mut outcomes = Outcomes::default();
            for number in 0..tries {
                once(&near, &mut others, fault, door, number, &mut outcomes)?;
            }
            table.row(row(name, door, fault, &outcomes));
        }
    }
    bench.add(table)
}

fn row(name: &str, door: &str, fault: Fault, outcomes: &Outcomes) -> Vec<String> {
    let most = |all: &[f64]| {
        let most = all.iter().copied().fold(f64::NAN, f64::max);
        if most.is_nan() {
            NONE.to_owned()
        } else {
            milliseconds(most)
        }
    };
    let is_closed = fault == Fault::Killed && door == "http";
    let mut cells = vec![
        name.to_owned(),
        match fault {
            Fault::Killed => "killed (SIGKILL)",
            Fault::Frozen => "frozen (SIGSTOP)",
        }
        .into(),
        if is_closed {
            "a closed connection"
        } else {
            "3 s of silence"
        }
        .into(),
    ];
    for all in [&outcomes.from_fault, &outcomes.from_detection] {
        cells.extend([milliseconds(median(all)), most(all)]);
    }
    cells.extend([outcomes.asked, outcomes.lost, outcomes.twice].map(|count| count.to_string()));
    if outcomes.elsewhere > 0 {
        println!(
            "  {name}: {} tries went to the other node and do not count",
            outcomes.elsewhere
        );
    }
    cells
}

fn once(
    near: &Node,
    others: &mut [Node; 2],
    fault: Fault,
    door: &str,
    number: usize,
    outcomes: &mut Outcomes,
) -> Result<(), String> {
    for name in NAMES {
        near.reaches(name, MODEL)?;
    }
    let body = prompt(MODEL, &format!("word number {number}"), TOKENS);
    let mut connection = Connection::new(&near.address())?;
    let before = connection.ask("POST", "/v1/chat/completions", Some(&body))?;
    let chosen = before
        .header("hearth-node")
        .and_then(|chosen| NAMES.iter().position(|name| *name == chosen));
    let Some(at) = chosen else {
        return Err(format!(
            "neither of the others answered: {:.500}",
            before.text()
        ));
    };
    let other = 1 - at;
    let completed = [ended(&others[0])?, ended(&others[1])?];
    others[at].signal("STOP")?;
    let begun = connection.send("POST", "/v1/chat/completions", Some(&body))?;
    let mut failed_at = begun;
    if fault == Fault::Killed {
        std::thread::sleep(WITH_IT);
        failed_at = std::time::Instant::now();
        others[at].kill()?;
    }
    let answer = connection.answer(begun);
    // It comes back, whatever came of the request.
    match fault {
        Fault::Killed => others[at].again()?,
        Fault::Frozen => others[at].signal("CONT")?,
    }
    let first = answer.as_ref().ok().and_then(|answer| answer.first);
    let fault_after = failed_at - begun;
    if first.is_some_and(|first| first < fault_after)
        || (fault == Fault::Frozen && first.is_some_and(|first| first.as_secs_f64() < 1.0))
    {
        outcomes.elsewhere += 1;
        return Ok(());
    }
    outcomes.asked += 1;
    let is_answered = answer.as_ref().is_ok_and(|answer| {
        let whole = answer.status() == 200 && answer.tokens() == before.tokens();
        whole && answer.text().contains("[DONE]")
    });
    match (is_answered, first) {
        (true, Some(first)) => {
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            outcomes.from_fault.push(milliseconds(first - fault_after));
            let is_closed = fault == Fault::Killed && door == "http";
            outcomes.from_detection.push(match is_closed {
                true => milliseconds(first - fault_after),
                false => milliseconds(first) - SILENCE,
            });
        }
        _ => {
            outcomes.lost += 1;
            let said = answer.map_or_else(|error| error, |answer| answer.text().to_owned());
            println!("  lost: {said:.300}");
        }
    }
    if fault == Fault::Frozen {
        // What it still has to do it has done then.
        wait_until("the frozen node to be idle", || {
            Ok(is_idle(&others[at].load()?))
        })?;
    }
    // A new process counts from nothing.
    let known = if fault == Fault::Killed {
        0
    } else {
        completed[at]
    };
    let ends = ended(&others[at])? - known + ended(&others[other])? - completed[other];
    if ends > 1 {
        outcomes.twice += 1;
    }
    Ok(())
}

const NAMES: [&str; 2] = ["one", "two"];

/// Runs that a node was told to bring to their end. Without being told it never ends one.
fn ended(node: &Node) -> Result<i64, String> {
    let mut door = Connection::new(&node.address())?;
    let answer = door.ask("GET", "/metrics", None)?;
    let lines = answer.text().lines().filter(|line| {
        let is_commit = line.starts_with("hearth_http_requests") && line.contains("/commit\"");
        is_commit && line.contains("204")
    });
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
    Ok(counts.sum())
}

fn is_idle(load: &Value) -> bool {
    load["slots_busy"].as_u64().unwrap_or_default() == 0
        && load["queued"].as_u64().unwrap_or_default() == 0
}
