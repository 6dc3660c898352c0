//! The same request answered here and by another node, through each door.

use std::time::Duration;

use serde_json::{Value, json};

use super::node::{Connection, Node, Recipe, join};
use super::{Bench, NONE, added, quantiles};
use crate::bench_memory::table::{Table, milliseconds};
use crate::bench_memory::worker::Worker;
use crate::bench_serve::report::median;

/// The doors, by the scheme of their addresses, and what people call them.
pub const DOORS: [(&str, &str); 2] = [("http", "signed HTTP"), ("quic", "iroh")];
/// Tokens of the long answers.
const LONG: usize = 64;
/// Bytes of a bare round trip: about a signed request's head.
const ECHO: usize = 512;

/// Two nodes with the embedded model, `near` and `far`; `far` is reached through one door.
pub fn two(bench: &Bench, part: &str, door: &str) -> Result<[Node; 2], String> {
    let folder = bench.folder.join(format!("{part}-{door}"));
    let near = recipe(bench, &folder, "near", door)?.start()?;
    let far = recipe(bench, &folder, "far", door)?.start()?;
    join(&near, &far)?;
    near.reaches("far", "ember")?;
    Ok([near, far])
}

fn recipe(
    bench: &Bench,
    folder: &std::path::Path,
    name: &str,
    door: &str,
) -> Result<Recipe, String> {
    let recipe = Recipe::new(&bench.hearth(), folder, name, door)?;
    if let Some(encoder) = &bench.options.encoder {
        let place = recipe.home().join("encoders");
        let failed = |error: std::io::Error| format!("{}: {error}", place.display());
        std::fs::create_dir_all(&place).map_err(failed)?;
        let encoder = encoder.canonicalize().map_err(failed)?;
        #[cfg(unix)]
        std::os::unix::fs::symlink(encoder, place.join("minilm")).map_err(failed)?;
        #[cfg(not(unix))]
        return Err(format!("{}: only on Unix", encoder.display()));
    }
    Ok(recipe)
}

/// What one kind of request took here and there, in milliseconds, pair by pair.
#[derive(Default)]
struct Pairs {
    first: Vec<(f64, f64)>,
    whole: Vec<(f64, f64)>,
}

/// Measures both doors.
pub fn measure(bench: &mut Bench) -> Result<(), String> {
    let pairs = if bench.options.quick { 15 } else { 40 };
    let mut table = Table::new(
        "A request that another node answers, beside one answered here",
        "Milliseconds, at the client of a node on loopback, streamed, greedy, the embedded model on one thread at both. \
         What is added is the median over pairs asked one after the other; the aim is at most 1 ms for a request. The \
         article measured about 20 ms on a real network, for searches.",
        &[
            "door",
            "what",
            "here p50",
            "p95",
            "there p50",
            "p95",
            "added",
        ],
    );
    let mut trips = Table::new(
        "Round trips",
        "Milliseconds. Bare: 512 bytes there and back over TCP, or over a stream of QUIC, on loopback, between two tasks of \
         one process: no request through that door is faster. `/peer/echo`: the shortest request, through the door, to a node.",
        &[
            "door",
            "bare p50",
            "p95",
            "/peer/echo p50",
            "p95",
            "echo/bare",
        ],
    );
    let mut worker = bench.worker("mesh_speed")?;
    for (door, name) in DOORS {
        let [near, far] = two(bench, "requests", door)?;
        meet(&mut worker, &near, "far")?;
        let (mut bare, mut echo, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let over = if door == "quic" { "quic" } else { "tcp" };
        let (mut short, mut long) = (Pairs::default(), Pairs::default());
        let mut tokens = Vec::new();
        let mut connection = Connection::new(&near.address())?;
        for turn in 0..bench.options.repeat {
            let ask = json!({"do": "echo", "over": over, "bytes": ECHO, "rounds": 10 * pairs});
            let some = worker.times(&ask)?;
            let ask =
                json!({"do": "ask", "method": "GET", "path": "/peer/echo", "rounds": 10 * pairs});
            let asked = worker.times(&ask)?;
            ratios.push(median(&asked) / median(&some));
            bare.extend(some);
            echo.extend(asked);
            // The first ones load, connect and fill the prefix cache.
            for pair in 0..pairs + if turn == 0 { 10 } else { 2 } {
                let is_warm = pair >= if turn == 0 { 10 } else { 2 };
                // Whoever is second meets the other's warm processor.
                let far_first = pair % 2 == 1;
                let one = both(&mut connection, 1, far_first)?;
                let many = both(&mut connection, LONG, far_first)?;
                if !is_warm {
                    continue;
                }
                short.first.push((one[0].0, one[1].0));
                short.whole.push((one[0].1, one[1].1));
                long.first.push((many[0].0, many[1].0));
                long.whole.push((many[0].1, many[1].1));
                let each = |at: usize| (many[at].1 - one[at].1) / (LONG - 1) as f64;
                tokens.push((each(0), each(1)));
            }
        }
        for (what, pairs) in [
            ("first token", &short.first),
            ("all of 1 token", &short.whole),
            ("all of 64 tokens", &long.whole),
        ] {
            let (here, there): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            let (here, there) = (quantiles(&here), quantiles(&there));
            table.row(vec![
                name.into(),
                what.into(),
                milliseconds(here.0),
                milliseconds(here.1),
                milliseconds(there.0),
                milliseconds(there.1),
                milliseconds(added(pairs)),
            ]);
        }
        let (here, there): (Vec<f64>, Vec<f64>) = tokens.iter().copied().unzip();
        table.row(vec![
            name.into(),
            "each further token".into(),
            milliseconds(median(&here)),
            NONE.into(),
            milliseconds(median(&there)),
            NONE.into(),
            format!("{:.1} µs", added(&tokens) * 1e3),
        ]);
        let (bare, echo) = (quantiles(&bare), quantiles(&echo));
        trips.row(vec![
            name.into(),
            milliseconds(bare.0),
            milliseconds(bare.1),
            milliseconds(echo.0),
            milliseconds(echo.1),
            format!("{:.1} ×", median(&ratios)),
        ]);
        drop((near, far));
    }
    bench.add(table)?;
    bench.add(trips)
}

/// The worker asks as `near`, of the member `name`.
pub fn meet(worker: &mut Worker, near: &Node, name: &str) -> Result<(), String> {
    let far = near.member(name)?;
    let meet = json!({
        "do": "meet", "key": near.key(), "node": far["node"], "addresses": far["addresses"],
    });
    worker.ask(&meet)?;
    worker.ask(&json!({"do": "here", "address": near.address()}))?;
    Ok(())
}

/// First token and whole answer in milliseconds, here and there.
fn both(
    connection: &mut Connection,
    tokens: usize,
    far_first: bool,
) -> Result<[(f64, f64); 2], String> {
    let mut ask = |node: &str| -> Result<(f64, f64), String> {
        let body = prompt(&format!("{node}/ember"), "a word", tokens);
        let answer = connection.ask("POST", "/v1/chat/completions", Some(&body))?;
        if answer.status() != 200 || answer.header("hearth-node") != Some(node) {
            return Err(format!("{node} did not answer: {:.500}", answer.text()));
        }
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let first = answer.first.ok_or("an answer without a token")?;
        Ok((milliseconds(first), milliseconds(answer.whole)))
    };
    Ok(match far_first {
        true => {
            let far = ask("far")?;
            [ask("near")?, far]
        }
        false => [ask("near")?, ask("far")?],
    })
}

/// A streamed chat of exactly so many tokens.
pub fn prompt(model: &str, text: &str, tokens: usize) -> Value {
    json!({
        "model": model, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "stream": true,
        "messages": [{"role": "user", "content": text}],
    })
}
