//! `hearth run` and `hearth chat` with memory, on a node and without one.

use crate::household::Household;

fn all_of_it(household: &Household, id: &str) {
    let asked = |memory: &[&str]| {
        let question = ["run", "--max-tokens", "8"];
        household.hearth(&[&question[..], memory, &["what is hearth"]].concat())
    };
    let answer = asked(&["--memory", "--project", "home", "--json"]).json();
    let used = &answer["memory"]["used"];
    assert_eq!(used[0]["id"], id, "{answer}");
    assert_eq!(used[0]["text"], "Hearth runs in the cellar");
    // The answer alone is on standard output.
    let ran = asked(&["--memory"]).ends_with(0);
    let line = format!("{id}  Hearth runs in the cellar (note, home)");
    assert!(ran.err.contains(&line), "{}", ran.err);
    assert!(!ran.out.contains("mem-"), "{}", ran.out);
    assert!(ran.err.contains("searched by words alone: "), "{}", ran.err);
    let ran = asked(&["-p", "garden"]).ends_with(0);
    assert!(
        ran.err.contains("no memory fits the question"),
        "{}",
        ran.err
    );
    let refused = asked(&["--project", &"x".repeat(101)]).ends_with(2);
    assert!(refused.err.contains("project"), "{}", refused.err);
    let plain = household
        .hearth(&["run", "--max-tokens", "8", "--json", "what is hearth"])
        .json();
    assert!(plain.get("memory").is_none(), "{plain}");
    let talk = "what is hearth\nand what is hearth again\n";
    let flags = ["chat", "--project", "home", "--max-tokens", "8"];
    let said = household.hearth_with_input(&flags, talk).ok();
    assert_eq!(said.matches(&line).count(), 2, "{said}");
    // What is kept of a conversation is what was said, not what went with it.
    let talk = "what is hearth\n/save talk.json\n";
    household.hearth_with_input(&flags, talk).ok();
    let kept = std::fs::read_to_string(household.path().join("talk.json")).unwrap();
    assert!(!kept.contains("cellar"), "{kept}");
}

#[test]
fn memories_go_with_a_question_on_a_node_and_without_one() {
    let household = Household::new();
    let added = [
        "memory",
        "add",
        "Hearth runs in the cellar",
        "-p",
        "home",
        "--json",
    ];
    let added = household.hearth(&added).json();
    let id = added["memory"]["id"].as_str().unwrap().to_owned();
    all_of_it(&household, &id);
    let _node = household.serve(&[]);
    all_of_it(&household, &id);
}
