//! The commands.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::{Value, json};

use crate::household::{Household, until};

const QUESTION: &str = "What is Hearth?";

#[test]
fn a_node_serves_every_command_until_it_is_stopped() {
    let household = Household::new();
    let mut node = household.serve(&[]);

    let status = household.hearth(&["status", "--json"]).json();
    assert_eq!(status["pid"], node.child.id());
    assert_eq!(status["address"], node.address);
    assert_eq!(status["default_model"], "ember");
    let words = household.hearth(&["status"]).ok();
    assert!(
        words.contains(&node.address) && words.contains("ember (default)"),
        "{words}"
    );

    let likeliest = ["run", "--temperature", "0", "--max-tokens", "24", QUESTION];
    let answer = household.hearth(&likeliest).ok();
    assert!(!answer.trim().is_empty());
    let answer_json = household
        .hearth(&[&["--json"][..], &likeliest[..]].concat())
        .json();
    assert_eq!(answer_json["text"].as_str().unwrap().trim(), answer.trim());
    assert_eq!(answer_json["model"], "ember");
    assert!(answer_json["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    let piped = household
        .hearth_with_input(
            &["run", "--temperature", "0", "--max-tokens", "24", "-"],
            QUESTION,
        )
        .ok();
    assert_eq!(piped, answer, "the question through a pipe is another one");

    let models = household.hearth(&["models", "--json"]).json();
    assert_eq!(models["default"], "ember");
    assert_eq!(models["models"][0]["name"], "ember");
    assert_eq!(models["models"][0]["state"], "ready");
    assert_eq!(models["models"][0]["context"], 1024);
    let loads = household.hearth(&["status", "--json"]).json();
    assert!(
        loads["models"][0]["load"]["completed"].as_u64().unwrap() >= 3,
        "{loads}"
    );

    let stopped = household.hearth(&["stop", "--json"]).json();
    assert_eq!(
        stopped,
        json!({"stopped": true, "pid": node.child.id(), "address": node.address})
    );
    // `stop` returned, so the process has ended: no waiting here.
    assert!(
        node.child
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success()),
        "the node still runs"
    );
    assert!(!household.home().join("node.json").exists());
    assert!(
        household
            .hearth(&["stop"])
            .ends_with(3)
            .err
            .contains("no node runs")
    );
    assert!(
        household
            .hearth(&["status"])
            .ends_with(3)
            .err
            .contains("hearth up")
    );
}

#[test]
fn an_answer_fits_its_schema() {
    let household = Household::new();
    let _node = household.serve(&[]);
    let schema = json!({
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["mood", "count"],
        "additionalProperties": false,
    });
    std::fs::write(household.path().join("schema.json"), schema.to_string()).unwrap();
    let text = household
        .hearth(&[
            "run",
            "--schema",
            "schema.json",
            "--seed",
            "1",
            "how are you",
        ])
        .ok();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(
        ["good", "bad"].contains(&answer["mood"].as_str().unwrap()),
        "{text}"
    );
    assert!(
        (0..=9).contains(&answer["count"].as_i64().unwrap()),
        "{text}"
    );
    assert_eq!(answer.as_object().unwrap().len(), 2, "{text}");

    std::fs::write(household.path().join("broken.json"), "{").unwrap();
    let broken = household
        .hearth(&["run", "--schema", "broken.json", "hi"])
        .ends_with(2);
    assert!(
        broken.err.contains("--schema: broken.json is not JSON"),
        "{}",
        broken.err
    );
    std::fs::write(household.path().join("odd.json"), r#"{"type": "unicorn"}"#).unwrap();
    household
        .hearth(&["run", "--schema", "odd.json", "hi"])
        .ends_with(2);
}

#[test]
fn a_conversation_through_a_pipe_is_kept_where_it_was_told() {
    let household = Household::new();
    let _node = household.serve(&[]);
    let typed = "/system Be brief.\n\"\"\"\nWhat is\nHearth?\n\"\"\"\n/save talk.json\n/save talk.md\n/model\n/quit\nnever read\n";
    let out = household
        .hearth_with_input(&["chat", "--max-tokens", "8", "--temperature", "0"], typed)
        .ok();
    assert!(
        out.contains("saved to talk.json") && out.contains("* ember"),
        "{out}"
    );
    let talk: Value =
        serde_json::from_slice(&std::fs::read(household.path().join("talk.json")).unwrap())
            .unwrap();
    let roles: Vec<&str> = talk["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(talk["messages"][1]["content"], "What is\nHearth?");
    let said = talk["messages"][2]["content"].as_str().unwrap();
    assert!(!said.is_empty() && out.contains(said), "{out}");
    let markdown = std::fs::read_to_string(household.path().join("talk.md")).unwrap();
    assert!(
        markdown
            .starts_with("## System\n\nBe brief.\n\n## You\n\nWhat is\nHearth?\n\n## Hearth\n\n"),
        "{markdown}"
    );

    let wrong = household
        .hearth_with_input(&["chat"], "/modle\n")
        .ends_with(2);
    assert!(
        wrong.err.contains("there is no command /modle")
            && wrong.err.contains("did you mean /model?")
            && wrong.err.contains("/help"),
        "{}",
        wrong.err
    );
    let wrong = household
        .hearth_with_input(&["chat"], "/model nobody\n")
        .ends_with(2);
    assert!(
        wrong.err.contains("model `nobody` is not here") && wrong.err.contains("hearth list"),
        "{}",
        wrong.err
    );
    let wrong = household
        .hearth_with_input(&["chat"], "/model embr\n")
        .ends_with(2);
    assert!(wrong.err.contains("did you mean `ember`?"), "{}", wrong.err);
    // A model that is not here is said before the first question.
    let wrong = household.hearth(&["chat", "--model", "embr"]).ends_with(2);
    assert!(wrong.err.contains("did you mean `ember`?"), "{}", wrong.err);
    let help = household
        .hearth_with_input(&["chat"], "/help\n/exit\n")
        .ok();
    assert!(help.contains("/exit"), "{help}");

    // What went wrong is told, and the conversation goes on.
    let typed = "/modle\n/think\n/think off\n/think\n/think perhaps\n/save\nwhat is hearth\n/save on.json\n";
    let ran = household
        .hearth_with_input(&["chat", "--max-tokens", "8"], typed)
        .ends_with(2);
    for words in [
        "no command /modle",
        "/think takes on or off",
        "/save needs a file",
        "3 commands",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    for words in [
        "as it does by itself",
        "/think on changes that",
        "saved to on.json",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    let talk = std::fs::read(household.path().join("on.json")).unwrap();
    let talk: Value = serde_json::from_slice(&talk).unwrap();
    assert_eq!(talk["messages"].as_array().unwrap().len(), 2, "{talk}");
}

#[test]
fn a_misspelt_variable_is_told() {
    let household = Household::new();
    for arguments in [&["config", "show"][..], &["serve", "--host", "192.0.2.1:1"]] {
        let mut command = household.command(arguments);
        let output = command.env("HEARTH_PROT", "9000").output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            err.contains("warning: HEARTH_PROT is not a setting") && err.contains("HEARTH_HOST"),
            "{arguments:?}: {err}"
        );
    }
    let quiet = household.hearth(&["config", "show"]).ends_with(0);
    assert!(!quiet.err.contains("warning"), "{}", quiet.err);
}

#[test]
fn without_a_node_run_and_chat_answer_in_their_own_process() {
    let household = Household::new();
    let answer = household
        .hearth(&["run", "--json", "--max-tokens", "8", QUESTION])
        .json();
    assert_eq!(answer["model"], "ember");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    household
        .hearth_with_input(&["chat", "--max-tokens", "8"], QUESTION)
        .ok();
    assert!(
        !household.home().join("node.json").exists(),
        "a command pretends to be a node"
    );
    // The models can be listed without a node, the status cannot.
    assert_eq!(
        household.hearth(&["models", "--json"]).json()["models"][0]["state"],
        "idle"
    );
    household.hearth(&["status"]).ends_with(3);
    // Somebody who names a node wants that one and no other.
    let elsewhere = household
        .hearth(&["run", "--host", "127.0.0.1:1", "hi"])
        .ends_with(3);
    assert!(
        elsewhere.err.contains("no node runs at 127.0.0.1:1"),
        "{}",
        elsewhere.err
    );
    let unknown = household
        .hearth(&["run", "--model", "nobody", "hi"])
        .ends_with(2);
    assert!(
        unknown.err.contains("nobody") && unknown.err.contains("hearth list"),
        "{}",
        unknown.err
    );
}

#[test]
fn a_second_node_says_who_is_in_its_way() {
    let household = Household::new();
    let node = household.serve(&[]);
    let same_home = household.hearth(&["serve"]).ends_with(1);
    let already = format!(
        "a Hearth node already runs at {} (pid {}",
        node.address,
        node.child.id()
    );
    assert!(
        same_home.err.contains(&already) && same_home.err.contains("fix: "),
        "{}",
        same_home.err
    );

    let other = Household::new();
    let same_port = other
        .hearth(&["serve", "--host", &node.address])
        .ends_with(1);
    assert!(same_port.err.contains(&already), "{}", same_port.err);
    assert!(!other.home().join("node.json").exists());

    // `up` takes what is there.
    let up = household.hearth(&["up", "--json"]).json();
    assert_eq!(up["pid"], node.child.id());
}

#[test]
fn a_port_that_another_program_has_is_named_with_the_fix() {
    let household = Household::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for command in ["serve", "up"] {
        let taken = household
            .hearth(&[command, "--host", &address.to_string()])
            .ends_with(1);
        let expected = format!(
            "port {} of 127.0.0.1 is taken by another program",
            address.port()
        );
        assert!(
            taken.err.contains(&expected) && taken.err.contains("fix: "),
            "{command}: {}",
            taken.err
        );
    }
}

#[test]
fn up_leaves_a_node_behind_when_asked_to() {
    let household = Household::new();
    let up = household
        .hearth(&["up", "--detach", "--json", "--slots", "2"])
        .json();
    assert!(
        !up["first_answer"]["text"].as_str().unwrap().is_empty(),
        "{up}"
    );
    let status = household.hearth(&["status", "--json"]).json();
    assert_eq!(status["pid"], up["pid"]);
    assert_eq!(
        status["models"][0]["load"]["slots"], 2,
        "a flag did not reach the node"
    );
    household.hearth(&["stop"]).ok();
    household.hearth(&["status"]).ends_with(3);
}

/// The address of this machine in its network, if it is in one.
fn own_address() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it only chooses the way.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[test]
fn a_node_that_is_open_to_the_network_is_used_here_as_any_other() {
    let mut hosts = vec!["0.0.0.0".to_owned()];
    hosts.extend(own_address().map(|address| address.to_string()));
    for host in hosts {
        let household = Household::new();
        let up = household
            .hearth(&["up", "--detach", "--json", "--host", &format!("{host}:0")])
            .json();
        // What is printed and recorded is an address that works.
        let address = up["address"].as_str().unwrap();
        let mut addresses = vec![address.to_owned()];
        let port = address.rsplit_once(':').unwrap().1;
        addresses.extend(
            own_address()
                .filter(|_| host == "0.0.0.0")
                .map(|own| format!("{own}:{port}")),
        );
        for address in &addresses {
            let status = household
                .hearth(&["status", "--json", "--host", address])
                .json();
            assert_eq!(
                (&status["pid"], &status["address"]),
                (&up["pid"], &up["address"])
            );
            let request = format!(
                "GET / HTTP/1.1\r\nHost: {address}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
            );
            let page = exchange(address, &request);
            assert!(
                page.contains(&format!("http://{}/v1", up["address"].as_str().unwrap())),
                "{page}"
            );
        }
        let log = std::fs::read_to_string(household.home().join("logs/node.log")).unwrap();
        assert!(
            log.contains("other machines can reach /health there and nothing else"),
            "{log}"
        );
        household.hearth(&["stop"]).ok();
        household.hearth(&["status"]).ends_with(3);
    }
}

#[test]
fn commands_look_where_ollama_host_says_if_nothing_else_does() {
    let (household, elsewhere) = (Household::new(), Household::new());
    let node = household.serve(&[]);
    let found = |home: &Household, flags: &[&str], environment: &[(&str, &str)]| -> Value {
        let mut command = home.command(&[&["status", "--json"], flags].concat());
        command.env_remove("HEARTH_HOST");
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status["pid"].clone()
    };
    let own = json!(node.child.id());
    let address = node.address.as_str();
    let url = format!("http://{address}/");
    for host in [address, &url] {
        assert_eq!(
            found(&elsewhere, &[], &[("OLLAMA_HOST", host)]),
            own,
            "{host}"
        );
    }
    // A flag and HEARTH_HOST win over it, and a node of the same home is nearer.
    let nobody = ("OLLAMA_HOST", "127.0.0.1:1");
    assert_eq!(found(&elsewhere, &["--host", address], &[nobody]), own);
    assert_eq!(
        found(&elsewhere, &[], &[nobody, ("HEARTH_HOST", address)]),
        own
    );
    assert_eq!(found(&household, &[], &[nobody]), own);
}

/// What comes back on a connection of its own.
fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_node_that_refuses_this_machine_is_called_what_it_is() {
    let household = Household::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // As a node answers to other machines.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let body = r#"{"type":"/problems/not_local","title":"Forbidden","status":403,"detail":"only this machine"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    for command in ["stop", "status"] {
        let refused = household
            .hearth(&[command, "--host", &address])
            .ends_with(1);
        let expected =
            format!("the node at {address} refuses: only this machine\n  fix: use this command on");
        assert!(refused.err.contains(&expected), "{}", refused.err);
    }
}

#[test]
fn up_says_why_there_is_no_answer_and_ends() {
    let household = Household::new();
    std::fs::write(household.path().join("broken.gguf"), "GGUF and no more").unwrap();
    let failed = household
        .hearth(&["up", "--model", "broken.gguf"])
        .ends_with(1);
    assert!(
        failed
            .err
            .contains("error: model `broken` could not be loaded"),
        "{}",
        failed.err
    );
    assert!(!household.home().join("node.json").exists());
}

#[test]
fn a_detached_node_that_cannot_start_says_why() {
    let household = Household::new();
    let failed = household
        .hearth(&["up", "--detach", "--model", "nobody"])
        .ends_with(1);
    assert!(
        failed.err.contains("error: model `nobody` is not here"),
        "{}",
        failed.err
    );
}

#[cfg(unix)]
#[test]
fn a_terminated_node_ends_well() {
    let household = Household::new();
    let mut node = household.serve(&[]);
    let pid = node.child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let status = until("the node's end", || node.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert!(!household.home().join("node.json").exists());
}

#[test]
fn settings_are_shown_with_their_origin_and_mistakes_with_their_place() {
    let household = Household::new();
    let path = household.hearth(&["config", "path"]).ok();
    let path = std::path::Path::new(path.trim());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "slots = 3\nkeep_alive = \"5m\"\n").unwrap();
    let shown = household
        .hearth(&["config", "show", "--json", "--host", ":9000"])
        .json();
    assert_eq!(shown["slots"]["value"], "3");
    assert_eq!(shown["slots"]["origin"], format!("{}:1", path.display()));
    assert_eq!(shown["host"]["value"], "127.0.0.1:9000");
    assert_eq!(shown["host"]["origin"], "--host");
    assert_eq!(shown["context"]["origin"], "HEARTH_CONTEXT");
    assert_eq!(shown["kv"]["origin"], "default");

    std::fs::write(path, "slots = 3\n\nkeep_alvie = \"5m\"\n").unwrap();
    let unknown = household.hearth(&["serve"]).ends_with(2);
    assert_eq!(
        unknown.err,
        format!(
            "error: {}:3: unknown key `keep_alvie`\n  fix: did you mean `keep_alive`?\n",
            path.display()
        )
    );
    let unknown: Value =
        serde_json::from_str(&household.hearth(&["status", "--json"]).ends_with(2).err).unwrap();
    assert_eq!(unknown["error"]["exit"], 2);
    household.hearth(&["config", "path"]).ok();
}

#[test]
fn a_home_that_cannot_be_used_is_named() {
    let household = Household::new();
    std::fs::write(household.path().join("file"), "").unwrap();
    let failed = household
        .hearth(&["serve", "--home", "file/home"])
        .ends_with(1);
    assert!(
        failed.err.contains("cannot create the folder")
            && failed.err.contains("file/home")
            && failed.err.contains("fix: choose another folder"),
        "{}",
        failed.err
    );
}

#[test]
fn models_of_ones_own_are_asked_by_file_name_or_path() {
    let household = Household::new();
    // Writes the embedded model, which is then somebody's own twice.
    household.hearth(&["run", "--max-tokens", "1", "hi"]).ok();
    let models = household.home().join("models");
    let embedded = std::fs::read_dir(models.join("embedded"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::copy(&embedded, models.join("mine.gguf")).unwrap();
    std::fs::copy(&embedded, household.path().join("other.gguf")).unwrap();
    let _node = household.serve(&["--model", "other.gguf"]);
    let name = |arguments: &[&str]| {
        let all = [&["run", "--json", "--max-tokens", "1", "hi"], arguments].concat();
        household.hearth(&all).json()["model"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(name(&[]), "other");
    assert_eq!(name(&["--model", "mine"]), "mine");
    assert_eq!(name(&["--model", "ember"]), "ember");
    assert_eq!(
        name(&["--model", "./other.gguf"]),
        "other",
        "one file was loaded twice"
    );
    assert_eq!(
        household.hearth(&["models", "--json"]).json()["models"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    std::fs::write(models.join("broken.gguf"), "GGUF and no more").unwrap();
    let broken = household
        .hearth(&["run", "--model", "broken", "hi"])
        .ends_with(1);
    assert!(
        broken.err.contains("model `broken` could not be loaded"),
        "{}",
        broken.err
    );
}

#[test]
fn a_question_that_begins_with_a_models_name_is_remarked() {
    let household = Household::new();
    for (words, remark) in [
        (
            &["ember", QUESTION][..],
            Some("`ember` is a model; did you mean: hearth run --model ember \"What is Hearth?\""),
        ),
        (
            &["ember"],
            Some("`ember` is a model; did you mean: hearth chat --model ember\n"),
        ),
        (
            &["llama3.2", "hello"],
            Some("did you mean: hearth pull llama3.2, and then hearth run --model llama3.2"),
        ),
        (&["what", "is", "ember"], None),
        (&["ember is what"], None),
        (&["--model", "ember", "ember"], None),
    ] {
        let ran = household
            .hearth(&[&["run", "--max-tokens", "1"], words].concat())
            .ends_with(0);
        match remark {
            Some(remark) => assert!(ran.err.contains(remark), "{words:?}: {}", ran.err),
            None => assert!(!ran.err.contains("did you mean"), "{words:?}: {}", ran.err),
        }
    }
}

#[test]
fn a_host_that_cannot_be_looked_up_is_called_that() {
    let household = Household::new();
    let mut command = household.command(&["status"]);
    let output = command
        .env("HEARTH_HOST", "nobody.invalid")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("the name nobody.invalid cannot be looked up") && err.contains("HEARTH_HOST"),
        "{err}"
    );
}

#[test]
fn a_bench_of_a_model_shows_that_model_alone() {
    let household = Household::new();
    let bench = [
        "bench", "ember", "--prompt", "16", "--tokens", "8", "--repeat", "1",
    ];
    let out = household.hearth(&bench).ok();
    assert!(
        out.contains("first token") && !out.contains("MODEL") && !out.contains("qwen3"),
        "{out}"
    );
    let json = household.hearth(&[&bench[..], &["--json"]].concat()).json();
    assert_eq!(json["model"]["name"], "ember");
    assert!(json["models"].is_null(), "{json}");
}

#[test]
fn words_of_other_programs_are_understood_or_explained() {
    let household = Household::new();
    assert!(household.hearth(&["ls"]).ok().contains("ember"));
    let ran = household.hearth(&["ps"]).ends_with(3);
    assert!(ran.err.contains("no node runs"), "{}", ran.err);
    let ran = household.hearth(&["up", "--port", "9000"]).ends_with(2);
    assert!(ran.err.contains("--host :9000"), "{}", ran.err);
    let help = household.hearth(&["--help"]).ok();
    assert!(help.contains("Print the manual"), "{help}");
}
