//! A household from the command line: inviting, joining, asking, doctoring, removing and leaving, with homes of their own
//! on one machine.

use hearth_testkit::bert::{Bert, Pooling};
use serde_json::json;

use crate::household::{Household, Node, until};

fn node(home: &Household, name: &str) -> Node {
    home.serve(&["--name", name])
}

/// What `hearth doctor` found, whether it is well or not.
fn doctor(home: &Household, node: &Node) -> serde_json::Value {
    let ran = home.hearth(&["doctor", "--json", "--host", &node.address]);
    serde_json::from_str(&ran.out).unwrap()
}

/// A command about the node at this address, as JSON.
fn at(home: &Household, node: &Node, arguments: &[&str]) -> serde_json::Value {
    let place = ["--json", "--host", &node.address];
    home.hearth(&[arguments, &place].concat()).json()
}

fn ticket(home: &Household, node: &Node) -> String {
    let invitation = at(home, node, &["invite"]);
    invitation["ticket"].as_str().unwrap().to_owned()
}

#[test]
fn two_homes_on_one_machine_become_one_and_part_again() {
    let (one, two) = (Household::new(), Household::new());
    let (laptop, gpubox) = (node(&one, "laptop"), node(&two, "gpubox"));
    let alone = one.hearth(&["peers", "--host", &laptop.address]).ok();
    assert!(alone.contains("hearth invite"), "{alone}");
    let ticket = ticket(&one, &laptop);
    assert!(ticket.starts_with("HEARTH1"), "{ticket}");
    // However it was copied.
    let copied = format!(" {} ", ticket.to_lowercase());
    let said = two
        .hearth(&["join", &copied, "--host", &gpubox.address])
        .ok();
    assert!(said.contains("laptop (hub)"), "{said}");

    until("both are reached", || {
        let found = doctor(&one, &laptop);
        (found[0]["name"] == "gpubox" && found[0]["verdict"] == "usable").then_some(())
    });
    let drawn = one
        .hearth(&["doctor", "gpubox", "--host", &laptop.address])
        .ok();
    assert!(drawn.contains("✓ one token"), "{drawn}");
    let answer = one
        .hearth(&[
            "run",
            "--model",
            "gpubox/ember",
            "What is Hearth?",
            "--host",
            &laptop.address,
        ])
        .ok();
    assert!(answer.contains("Hearth"), "{answer}");

    at(&one, &laptop, &["peers", "rename", "gpubox", "study"]);
    until("the new name is known", || {
        let peers = at(&two, &gpubox, &["peers"]);
        (peers["name"] == "study").then_some(())
    });
    let nobody = one
        .hearth(&["doctor", "attic", "--host", &laptop.address])
        .ends_with(2);
    assert!(
        nobody.err.contains("it has laptop, study") || nobody.err.contains("study"),
        "{}",
        nobody.err
    );

    let peers = at(&one, &laptop, &["peers", "remove", "study"]);
    assert_eq!(peers["members"].as_array().unwrap().len(), 1);
    let left = at(&two, &gpubox, &["leave"]);
    assert!(left["household"].is_null(), "{left:#}");
    let again = two.hearth(&["leave", "--host", &gpubox.address]);
    assert_ne!(again.code, Some(0));
}

#[test]
fn a_machine_whose_node_does_not_run_joins_and_does_its_part_when_it_starts() {
    let (one, two) = (Household::new(), Household::new());
    let laptop = node(&one, "laptop");
    let ticket = ticket(&one, &laptop);
    // Whoever names a node means that one, and not this home.
    let nobody = two
        .hearth(&["join", &ticket, "--host", "127.0.0.1:1"])
        .ends_with(3);
    assert!(nobody.err.contains("127.0.0.1:1"), "{}", nobody.err);
    let joined = two.hearth(&["join", &ticket, "--json"]).json();
    assert_eq!(joined["members"].as_array().unwrap().len(), 2, "{joined:#}");
    let unseen = until("somebody looked for it", || {
        let found = doctor(&one, &laptop);
        (found[0]["broken"] == "path").then(|| found[0]["checks"].clone())
    });
    let path = unseen.as_array().unwrap().iter();
    let path = path.clone().find(|check| check["layer"] == "path").unwrap();
    assert_eq!(path["code"], "no_path", "{path:#}");
    let told = path["words"].as_str().unwrap();
    assert!(told.contains("never seen since it joined"), "{told}");
    assert!(path["fix"].as_str().unwrap().contains("hearth serve"));
    let gpubox = two.serve(&[]);
    until("it is reached", || {
        let found = doctor(&one, &laptop);
        (found[0]["verdict"] == "usable").then_some(())
    });
    let peers = at(&two, &gpubox, &["peers"]);
    assert_eq!(peers["is_hub"], false);
}

#[test]
fn a_machine_whose_node_does_not_run_leaves() {
    let (one, two) = (Household::new(), Household::new());
    let laptop = node(&one, "laptop");
    let ticket = ticket(&one, &laptop);
    let gpubox = node(&two, "gpubox");
    two.hearth(&["join", &ticket, "--host", &gpubox.address])
        .ok();
    drop(gpubox);
    let nobody = two.hearth(&["leave", "--host", "127.0.0.1:1"]).ends_with(3);
    assert!(nobody.err.contains("127.0.0.1:1"), "{}", nobody.err);
    let left = two.hearth(&["leave", "--json"]).json();
    assert_eq!(left["told"], true, "{left:#}");
    assert_eq!(left["was"], "gpubox", "{left:#}");
    assert!(left["household"].is_null(), "{left:#}");
    let peers = at(&one, &laptop, &["peers"]);
    assert_eq!(peers["members"].as_array().unwrap().len(), 1, "{peers:#}");
    let again = two.hearth(&["leave"]).ends_with(1);
    assert!(again.err.contains("no household"), "{}", again.err);

    drop(laptop);
    let hub = one.hearth(&["leave"]).ends_with(1);
    assert!(hub.err.contains("hearth up"), "{}", hub.err);
}

#[test]
fn what_another_machine_has_is_listed_and_used() {
    let (one, two) = (Household::new(), Household::new());
    let file = two.path().join("vectors.gguf");
    Bert::new(Pooling::Mean, 3).write(&file).unwrap();
    two.hearth(&["models", "import", "vectors.gguf"]).ok();
    let (laptop, gpubox) = (node(&one, "laptop"), node(&two, "gpubox"));
    let ticket = ticket(&one, &laptop);
    two.hearth(&["join", &ticket, "--host", &gpubox.address])
        .ok();
    let listed = until("its models are known", || {
        let listed = at(&one, &laptop, &["models"]);
        (listed["elsewhere"].as_array().unwrap().len() == 2).then_some(listed)
    });
    let elsewhere = &listed["elsewhere"];
    assert_eq!(elsewhere[0]["name"], "ember", "{elsewhere:#}");
    assert_eq!(elsewhere[1]["name"], "vectors:latest");
    assert_eq!(elsewhere[1]["machine"], "gpubox");
    assert_eq!(elsewhere[1]["embeds"], true);
    let table = one.hearth(&["models", "--host", &laptop.address]).ok();
    let row = |start: &str, end: &str| {
        let mut lines = table.lines();
        lines.any(|line| line.starts_with(start) && line.ends_with(end))
    };
    assert!(
        row("NAME", "MACHINE") && row("ember (default)", "here"),
        "{table}"
    );
    assert!(
        row("ember ", "gpubox") && row("vectors:latest ", "gpubox"),
        "{table}"
    );
    let shown = one
        .hearth(&["show", "vectors", "--host", &laptop.address])
        .ok();
    assert!(
        shown.contains("vectors:latest") && shown.contains("gpubox"),
        "{shown}"
    );
    let shown = at(&one, &laptop, &["models", "show", "gpubox/vectors"]);
    assert_eq!(shown["machine"], "gpubox", "{shown:#}");
    assert_eq!(shown["capabilities"], json!(["embedding"]), "{shown:#}");
    let nothing = one
        .hearth(&["show", "nothing", "--host", &laptop.address])
        .ends_with(2);
    assert!(nothing.err.contains("nothing"), "{}", nothing.err);
    // Alone nothing is said of machines.
    let disk = one.hearth(&["models", "--host", "127.0.0.1:1"]).ok();
    assert!(!disk.contains("MACHINE"), "{disk}");
    let peers = one.hearth(&["peers", "--host", &laptop.address]).ok();
    assert!(
        peers.contains("addresses") && peers.contains("://"),
        "{peers}"
    );

    let url = format!("http://{}/v1/embeddings", laptop.address);
    let body = json!({"model": "vectors", "input": "warm fire"}).to_string();
    let request = ureq::post(&url).content_type("application/json");
    let answer = request.send(&body).unwrap();
    assert_eq!(answer.headers()["hearth-node"], "gpubox");
}

#[test]
fn what_is_no_ticket_is_told_so() {
    let home = Household::new();
    let node = node(&home, "laptop");
    for (text, told) in [("hello", "no ticket"), ("HEARTH1AAAA", "copy it again")] {
        let ran = home
            .hearth(&["join", text, "--host", &node.address])
            .ends_with(2);
        assert!(ran.err.contains(told), "{text}: {}", ran.err);
    }
    let ran = home
        .hearth(&["invite", "--expires", "soon", "--host", &node.address])
        .ends_with(2);
    assert!(ran.err.contains("use 10m, 24h or 7d"), "{}", ran.err);
    // Whatever becomes of the node, its key is its owner's alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = std::fs::metadata(home.home().join("identity.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }
}
