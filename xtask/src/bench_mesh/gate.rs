//! What a signed request costs at the gate, and what a follower does that takes a whole state anew.

use std::process::Command;

use serde_json::{Value, json};

use super::Bench;
use crate::bench_memory::table::{Table, count, milliseconds};
use crate::bench_serve::report::{median, show};

/// Records of a whole state.
const MEMBERS: usize = 100_000;

/// Signing, checking and refusing.
pub fn measure(bench: &mut Bench) -> Result<(), String> {
    let mut worker = bench.worker("mesh_speed")?;
    let requests = if bench.options.quick { 2_000 } else { 20_000 };
    let mut table = Table::new(
        "The gate of the signed HTTP door, one thread",
        "A second. Checking is signature, times, target, copies, and the body's digest. A copy is refused after its \
         signature was checked; a request for another node before. Bare: Ed25519 alone over 500 bytes, strict, which is \
         the limit.",
        &[
            "body",
            "signed",
            "checked",
            "copies refused",
            "strays refused",
            "bare signing",
            "bare checking",
            "checked/bare",
        ],
    );
    for (bytes, name) in [(0, "none"), (1 << 10, "1 KiB"), (64 << 10, "64 KiB")] {
        let requests = if bytes > 1 << 10 {
            requests / 10
        } else {
            requests
        };
        let mut turns = Vec::new();
        for _ in 0..bench.options.repeat {
            turns.push(worker.ask(&json!({"do": "gate", "count": requests, "bytes": bytes}))?);
        }
        let all =
            |name: &str| -> Vec<f64> { turns.iter().map(|turn| number(&turn[name])).collect() };
        let mut cells = vec![name.to_owned()];
        for name in [
            "sign_per_s",
            "check_per_s",
            "copies_per_s",
            "strays_per_s",
            "ed25519_sign_per_s",
            "ed25519_verify_per_s",
        ] {
            cells.push(count(median(&all(name)) as usize));
        }
        let ratios = all("check_per_s")
            .into_iter()
            .zip(all("ed25519_verify_per_s"));
        let ratios: Vec<f64> = ratios.map(|(checked, bare)| checked / bare).collect();
        cells.push(format!("{:.2}", median(&ratios)));
        table.row(cells);
    }
    bench.add(table)
}

/// A whole state from hub to follower, step by step.
pub fn resync(bench: &mut Bench) -> Result<(), String> {
    let members = if bench.options.quick {
        MEMBERS / 5
    } else {
        MEMBERS
    };
    let turns = bench.options.repeat.min(3);
    let mut worker = bench.worker("mesh_speed")?;
    let mut steps: Vec<(&str, Vec<f64>)> = [
        "read and encode, at the hub",
        "transfer over loopback",
        "parse",
        "check every seal",
        "store in SQLite, on the disk",
        "take into the roster",
    ]
    .map(|step| (step, Vec::new()))
    .to_vec();
    let (mut verifies, mut bytes, mut appends) = (Vec::new(), 0, Vec::new());
    for _ in 0..turns {
        let lines = fanout_speed(bench, members)?;
        let told = |what: &str| -> Result<&Value, String> {
            let line = lines
                .iter()
                .find(|line| line["what"].as_str().is_some_and(|it| it.starts_with(what)));
            line.ok_or(format!("fanout_speed says nothing of `{what}`"))
        };
        let state = told("resync")?;
        appends.push(told("append")?.clone());
        bytes = state["bytes"].as_u64().unwrap_or_default();
        let sent = worker.ask(&json!({"do": "transfer", "bytes": bytes}))?;
        let seals = worker.ask(&json!({"do": "seals", "count": members}))?;
        if seals["taken"].as_u64() != Some(members as u64) {
            return Err(format!("the roster did not take every record: {seals}"));
        }
        let bare = worker.ask(&json!({"do": "gate", "count": 2_000, "bytes": 0}))?;
        verifies.push(number(&bare["ed25519_verify_per_s"]));
        let figures = [
            &state["read_and_encode_ms"],
            &sent["ms"],
            &state["parse_ms"],
            &seals["open_ms"],
            &state["store_ms"],
            &seals["roster_ms"],
        ];
        for ((_, all), figure) in steps.iter_mut().zip(figures) {
            all.push(number(figure));
        }
    }
    let mut table = Table::new(
        &format!(
            "A whole state of {} records, from hub to follower",
            count(members)
        ),
        &format!(
            "Milliseconds of each step, {} bytes in all. Bare Ed25519 checks {} signatures a second on one core: so many \
             records take {} ms at least.",
            count(bytes as usize),
            count(median(&verifies) as usize),
            milliseconds(members as f64 / median(&verifies) * 1e3),
        ),
        &["step", "ms", "records/s"],
    );
    let mut sum = 0.0;
    for (step, all) in &steps {
        let took = median(all);
        sum += took;
        table.row(vec![
            (*step).to_owned(),
            milliseconds(took),
            count((members as f64 / took * 1e3) as usize),
        ]);
    }
    table.row(vec![
        "all".into(),
        milliseconds(sum),
        count((members as f64 / sum * 1e3) as usize),
    ]);
    bench.add(table)?;
    let mut table = Table::new(
        "Events appended to the log, SQLite, each transaction on the disk",
        "A second.",
        &["what", "events/s"],
    );
    for (name, what) in [
        ("one_a_transaction_per_s", "one in a transaction"),
        ("hundred_a_transaction_per_s", "a hundred in a transaction"),
    ] {
        let all: Vec<f64> = appends.iter().map(|line| number(&line[name])).collect();
        table.row(vec![what.into(), show(median(&all))]);
    }
    bench.add(table)
}

/// The lines that the example prints.
fn fanout_speed(bench: &Bench, members: usize) -> Result<Vec<Value>, String> {
    let mut command = Command::new(bench.example("fanout_speed"));
    command.args([members.to_string(), "100".into()]);
    let output = command
        .output()
        .map_err(|error| format!("fanout_speed: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("fanout_speed failed: {said}"));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(serde_json::from_str);
    lines
        .collect::<Result<_, _>>()
        .map_err(|error| format!("fanout_speed: {error} in {text:.200}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
