//! Two homes on one machine: no command works on the other one's things unless it is told to.

use hearth_testkit::gguf::{Quantisation, Shape, write};

use crate::household::{Household, Ran};

/// A home with a model `mine`.
fn with_model() -> Household {
    let household = Household::new();
    let shape = Shape {
        layers: 1,
        ..Shape::TINY
    };
    let file = household.path().join("mine.gguf");
    write(&file, &shape, Quantisation::Q4KM, 1).unwrap();
    household.hearth(&["models", "import", "mine.gguf"]).ok();
    household
}

fn has(household: &Household, name: &str) -> bool {
    household.hearth(&["show", name]).code == Some(0)
}

#[test]
fn what_works_on_the_disk_refuses_a_node_that_keeps_its_models_elsewhere() {
    let (own, other) = (with_model(), with_model());
    let (_node, node) = (own.serve(&[]), other.serve(&[]));
    let (host, home) = (node.address.as_str(), other.home());
    let home = home.to_str().unwrap();
    for command in [
        &["rm", "mine"][..],
        &["models", "rm", "mine"],
        &["models", "copy", "mine", "second"],
        &["models", "import", "mine.gguf", "--name", "second"],
        &["models", "verify"],
        &["models", "prune"],
        &["show", "mine"],
        &["pull", "qwen3:0.6b"],
    ] {
        let ran = own
            .hearth(&[command, &["--host", host]].concat())
            .ends_with(2);
        assert!(
            ran.err.contains(&format!("keeps its models in {home}"))
                && ran.err.contains(&format!("give --home {home}")),
            "{command:?}: {}",
            ran.err
        );
    }
    assert!(has(&own, "mine") && has(&other, "mine"));
    assert!(!has(&own, "second") && !has(&other, "second"));

    own.hearth(&["rm", "mine", "--host", host, "--home", home])
        .ok();
    assert!(has(&own, "mine") && !has(&other, "mine"));
    let nobody = ["rm", "mine", "--host", "127.0.0.1:1"];
    let ran = own.hearth(&nobody).ends_with(3);
    assert!(ran.err.contains("no node runs"), "{}", ran.err);

    // What is listed is the node's, and so is the folder.
    let listed = own.hearth(&["models", "--json", "--host", host]).json();
    assert_eq!(listed["folder"], format!("{home}/models"));
    let listed = own.hearth(&["models", "--host", host]).ok();
    assert!(
        listed.contains(&format!("models folder: {home}/models")),
        "{listed}"
    );
}

#[test]
fn up_takes_no_node_of_another_home_for_its_own() {
    let (own, other) = (Household::new(), Household::new());
    let node = other.serve(&[]);
    let up = ["up", "--detach", "--host", &node.address];
    let told = format!(
        "a node of another home runs at {} (pid {}",
        node.address,
        node.child.id()
    );
    for more in [&[][..], &["--share-models", "on"]] {
        let ran = own.hearth(&[&up[..], more].concat()).ends_with(1);
        assert!(
            ran.err.contains(&told) && ran.err.contains("its own --home and --host"),
            "{}",
            ran.err
        );
    }
    // Who named no home uses what is there, as it is.
    let without_home = |more: &[&str]| {
        let arguments = [&up[..], &["--json"], more].concat();
        let mut command = own.command(&arguments);
        command.env_remove("HEARTH_HOME");
        Ran::new(&arguments, command.output().unwrap())
    };
    assert_eq!(without_home(&[]).json()["pid"], node.child.id());
    let ran = without_home(&["--slots", "2"]).ends_with(1);
    assert!(ran.err.contains("a node of another home"), "{}", ran.err);
}

#[test]
fn nothing_is_changed_for_good_at_a_node_of_another_home_unless_it_is_named() {
    let (own, other) = (Household::new(), Household::new());
    let mut node = other.serve(&[]);
    let at_home = |arguments: &[&str]| {
        let mut command = own.command(arguments);
        command
            .env_remove("HEARTH_HOST")
            .env("OLLAMA_HOST", &node.address);
        Ran::new(arguments, command.output().unwrap())
    };
    for arguments in [
        &["stop"][..],
        &["invite"],
        &["peers"],
        &["peers", "remove", "x"],
    ] {
        let ran = at_home(arguments).ends_with(3);
        let fix = format!("give --host {}", node.address);
        assert!(
            ran.err.contains("is of another home") && ran.err.contains(&fix),
            "{arguments:?}: {}",
            ran.err
        );
    }
    // The home itself is of no household, whatever that node is of.
    let left = at_home(&["leave"]).ends_with(1);
    assert!(left.err.contains("no household"), "{}", left.err);
    assert!(node.child.try_wait().unwrap().is_none(), "the node ended");
    own.hearth(&["stop", "--host", &node.address]).ok();
}

#[test]
fn what_to_try_next_leads_to_the_same_node() {
    let household = Household::new();
    let flags = ["--home", "other home", "--host", "127.0.0.1:0"];
    let said = household
        .hearth(&[&["up", "--detach"][..], &flags].concat())
        .ok();
    let home = household.path().join("other home");
    let record = std::fs::read(home.join("node.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let address = record["address"].as_str().unwrap();
    let lead = format!("--home 'other home' --host {address}");
    household
        .hearth(&["stop", "--home", "other home", "--host", address])
        .ok();
    for command in ["chat", "stop"] {
        assert!(said.contains(&format!("{command} {lead}\n")), "{said}");
    }
    assert!(said.contains("logs --home 'other home'\n"), "{said}");
}
