//! Tables of retrieval quality.

use serde_json::{Value, json};

use super::table::{Table, count};
use super::worker::numbers;
use super::{Bench, questions};

/// Classes of questions, as the data name them.
const CLASSES: [&str; 9] = [
    "paraphrase",
    "identifier",
    "mixed",
    "temporal",
    "project",
    "multiple",
    "confusable",
    "long",
    "all",
];
const SCORES: [&str; 5] = ["R@1", "R@5", "R@10", "MRR", "nDCG@10"];

pub(super) fn measure(bench: &mut Bench) -> Result<(), String> {
    let answer = bench
        .ours
        .ask(&json!({"do": "quality", "folder": questions()}))?;
    let number = |part: &str| count(answer[part].as_u64().unwrap_or_default() as usize);
    let about = format!(
        "{} questions, {} memories",
        number("questions"),
        number("memories")
    );
    let beside = format!("{about}, beside {} other notes", number("distractors"));
    for (title, rows) in [
        (format!("Retrieval, {about}: R@5 by class"), "rows"),
        (format!("Retrieval, {beside}: R@5 by class"), "crowded"),
    ] {
        let columns: Vec<&str> = [""].into_iter().chain(CLASSES).collect();
        let note = "Of each class the part of what was wanted that is among the first five.";
        classes(bench, Table::new(&title, note, &columns), &answer[rows], 1)?;
    }
    for (title, rows) in [
        (format!("Retrieval, {about}: nDCG@10 by class"), "rows"),
        (format!("Retrieval, {beside}: nDCG@10 by class"), "crowded"),
    ] {
        let columns: Vec<&str> = [""].into_iter().chain(CLASSES).collect();
        classes(bench, Table::new(&title, "", &columns), &answer[rows], 4)?;
    }
    let mut table = Table::new(
        "Retrieval, the test half",
        "The half that nothing was chosen on.",
        &[&[""][..], &SCORES].concat(),
    );
    for row in list(&answer["test_half"]) {
        scores(&mut table, row, &row["classes"]["all"]["means"]);
    }
    add(bench, table)?;
    for (title, rows) in [
        ("Fusions", "ablation"),
        ("Fusions beside other notes", "crowded_ablation"),
    ] {
        let mut table = Table::new(
            title,
            "Weights of meaning in a convex combination, and reciprocal ranks.",
            &[
                "", "tune R@5", "nDCG@10", "test R@1", "R@5", "R@10", "MRR", "nDCG@10",
            ],
        );
        for row in list(&answer[rows]) {
            let (tune, test) = (numbers(&row["tune"]), numbers(&row["test"]));
            if let [_, five, _, _, gain] = tune[..] {
                let figures = [&[five, gain][..], &test].concat();
                let mut cells = vec![name(row)];
                cells.extend(figures.iter().map(|figure| format!("{figure:.3}")));
                table.row(cells);
            }
        }
        add(bench, table)?;
    }
    let missed = list(&answer["missed"]).count();
    let mut table = Table::new(
        "Questions with nothing among the first five",
        "",
        &["question", "wanted"],
    );
    for row in list(&answer["missed"]) {
        let wanted = list(&row["wanted"]).filter_map(Value::as_str);
        let question = row["question"].as_str().unwrap_or_default().to_owned();
        table.row(vec![question, wanted.collect::<Vec<_>>().join(", ")]);
    }
    table.keep(answer["missed"].clone());
    if missed > 0 {
        add(bench, table)?;
    }
    haystack(bench)?;
    relevance(bench)
}

/// Each question's answer in one of many sessions.
fn haystack(bench: &mut Bench) -> Result<(), String> {
    let sizes: &[(usize, usize)] = match bench.options.quick {
        true => &[(50, 12)],
        false => &[(50, 120), (500, 24)],
    };
    for (sessions, asked) in sizes {
        let ask = json!({"do": "haystack", "sessions": sessions, "questions": asked});
        let answer = bench.ours.ask(&ask)?;
        let mut table = Table::new(
            &format!("Haystack: {asked} questions, each with {sessions} sessions of its own"),
            "Generated conversations of some 5 to 9 unrelated remarks, of which one answers.",
            &[&[""][..], &SCORES].concat(),
        );
        for row in list(&answer["rows"]) {
            scores(&mut table, row, &row["means"]);
        }
        add(bench, table)?;
    }
    Ok(())
}

/// What rules for what is related hide and let through.
fn relevance(bench: &mut Bench) -> Result<(), String> {
    if bench.options.encoder.is_none() {
        return Ok(());
    }
    let ask = json!({"do": "relevance", "folder": questions()});
    let answer = bench.ours.ask(&ask)?;
    let mut table = Table::new(
        "What counts as related, beside what has a word of the query",
        "Scores of the test half, and R@5 of the other one; among the labelled memories alone, and beside other notes.",
        &[
            "",
            "tune R@5",
            "test R@1",
            "R@5",
            "R@10",
            "MRR",
            "nDCG@10",
            "beside others R@5",
            "nDCG@10",
        ],
    );
    for row in list(&answer["rows"]) {
        let (tune, test) = (numbers(&row["few"]["tune"]), numbers(&row["few"]["test"]));
        let many = numbers(&row["many"]["test"]);
        if let ([_, tuned, ..], [_, five, _, _, gain]) = (&tune[..], &many[..]) {
            let figures = [&[*tuned][..], &test, &[*five, *gain]].concat();
            let figures = figures.iter().map(|figure| format!("{figure:.3}"));
            table.row([name(row)].into_iter().chain(figures).collect());
        }
    }
    table.keep(answer["rows"].clone());
    bench.report.add(table)?;
    let sizes: Vec<String> = numbers(&answer["sizes"])
        .iter()
        .map(|size| format!("of {size}"))
        .collect();
    let sizes = sizes.iter().map(String::as_str);
    let columns: Vec<&str> = [""]
        .into_iter()
        .chain(sizes)
        .chain(["unrelated, given", "related, hidden"])
        .collect();
    for half in ["tune", "test"] {
        let mut table = Table::new(
            &format!("Short notes, {half} half: unrelated queries that get an answer"),
            "By the notes of a store. Then unrelated notes that are given, and related ones without a word of the query that are hidden.",
            &columns,
        );
        for row in list(&answer["rows"]) {
            let stores: Vec<&Value> = list(&row["short"][half]).collect();
            let share = |store: &Value, part: &str, of: &str| {
                let number = |field: &str| store[field].as_f64().unwrap_or(f64::NAN);
                format!("{:.3}", number(part) / number(of))
            };
            let mut cells = vec![name(row)];
            cells.extend(
                stores
                    .iter()
                    .map(|store| share(store, "answered", "strange")),
            );
            if let Some(all) = stores.last() {
                cells.push(share(all, "given", "unrelated"));
                cells.push(share(all, "hidden", "related"));
            }
            table.row(cells);
        }
        bench.report.add(table)?;
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn name(row: &Value) -> String {
    row["name"].as_str().unwrap_or_default().to_owned()
}

fn scores(table: &mut Table, row: &Value, means: &Value) {
    let figures = numbers(means);
    let figures = figures.iter().map(|figure| format!("{figure:.3}"));
    table.row([name(row)].into_iter().chain(figures).collect());
}

/// One score of every class.
fn classes(bench: &mut Bench, mut table: Table, rows: &Value, score: usize) -> Result<(), String> {
    for row in list(rows) {
        let figures = CLASSES.iter().map(|class| {
            let means = numbers(&row["classes"][class]["means"]);
            means
                .get(score)
                .map_or("–".to_owned(), |mean| format!("{mean:.2}"))
        });
        table.row([name(row)].into_iter().chain(figures).collect());
    }
    table.keep(rows.clone());
    add(bench, table)
}

/// Without an encoder some tables have nothing to say.
fn add(bench: &mut Bench, table: Table) -> Result<(), String> {
    match table.is_empty() {
        true => Ok(()),
        false => bench.report.add(table),
    }
}
