//! Real client libraries against the real executable, and the examples, which are what people copy.
//!
//! `cargo xtask test` installs the packages under the build folder; without them these tests fail and say so.

use std::path::{Path, PathBuf};
use std::process::Command;

use hearth_testkit::bert::{Bert, Pooling};
use hearth_testkit::sentence;

use crate::household::Household;

pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients")
}

/// A file under the folder that `cargo xtask test` fills.
pub fn installed(name: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(target)
        .join("clients")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing; run the tests through `cargo xtask test`",
        path.display()
    );
    path
}

pub fn passes(mut script: Command, checks: usize) {
    let output = script.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{script:?}\n{out}\n{err}");
    assert_eq!(
        out.lines().filter(|line| line.starts_with("ok ")).count(),
        checks,
        "{out}"
    );
}

/// A household with an embedding model, `bert`, and an encoder, `minilm`, beside the embedded one.
fn embedding_household() -> Household {
    let household = Household::new();
    let models = household.home().join("models");
    std::fs::create_dir_all(&models).unwrap();
    let bert = Bert::new(Pooling::Mean, 1);
    bert.write(&models.join("bert.gguf")).unwrap();
    sentence::write(&household.home().join("encoders/minilm"), 1).unwrap();
    household
}

#[test]
fn the_python_package_openai_works() {
    let household = embedding_household();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("python/bin/python"));
    script
        .arg(scripts().join("openai_client.py"))
        .arg(format!("http://{}/v1", node.address));
    passes(script, 12);
}

#[test]
fn the_javascript_package_openai_works() {
    let household = embedding_household();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("node/node_modules/.bin/node"));
    script
        .arg(scripts().join("openai_client.mjs"))
        .arg(format!("http://{}/v1", node.address))
        .arg(installed("node"));
    passes(script, 9);
}

#[test]
fn the_python_package_openai_works_on_responses() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("python/bin/python"));
    script
        .arg(scripts().join("openai_responses.py"))
        .arg(format!("http://{}/v1", node.address));
    passes(script, 10);
}

#[test]
fn the_javascript_package_openai_works_on_responses() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("node/node_modules/.bin/node"));
    script
        .arg(scripts().join("openai_responses.mjs"))
        .arg(format!("http://{}/v1", node.address))
        .arg(installed("node"));
    passes(script, 8);
}

/// A script of one of the frameworks in Python.
fn framework_passes(script: &str, checks: usize) {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut command = Command::new(installed("frameworks/bin/python"));
    command
        .arg(scripts().join(script))
        .arg(format!("http://{}/v1", node.address));
    passes(command, checks);
}

#[test]
fn langchain_works() {
    framework_passes("langchain_client.py", 8);
}

#[test]
fn litellm_works() {
    framework_passes("litellm_client.py", 6);
}

#[test]
fn llama_index_works() {
    framework_passes("llama_index_client.py", 7);
}

#[test]
fn the_javascript_package_ai_works() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("node/node_modules/.bin/node"));
    script
        .arg(scripts().join("ai_sdk_client.mjs"))
        .arg(format!("http://{}/v1", node.address))
        .arg(installed("node"));
    passes(script, 7);
}

#[test]
fn the_python_package_anthropic_works() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("python/bin/python"));
    script
        .arg(scripts().join("anthropic_client.py"))
        .arg(format!("http://{}", node.address));
    passes(script, 12);
}

#[test]
fn the_javascript_package_anthropic_works() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("node/node_modules/.bin/node"));
    script
        .arg(scripts().join("anthropic_client.mjs"))
        .arg(format!("http://{}", node.address))
        .arg(installed("node"));
    passes(script, 8);
}

#[test]
fn the_python_package_ollama_works() {
    let household = embedding_household();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("python/bin/python"));
    script
        .arg(scripts().join("ollama_client.py"))
        .arg(format!("http://{}", node.address));
    passes(script, 11);
}

#[test]
fn the_javascript_package_ollama_works() {
    let household = embedding_household();
    let node = household.serve(&[]);
    let mut script = Command::new(installed("node/node_modules/.bin/node"));
    script
        .arg(scripts().join("ollama_client.mjs"))
        .arg(format!("http://{}", node.address))
        .arg(installed("node"));
    passes(script, 9);
}

/// How an example is run; its packages are those of the tests.
fn runner(example: &Path) -> Command {
    match example.extension().and_then(|ending| ending.to_str()) {
        Some("sh") => {
            let mut command = Command::new("sh");
            command.arg(example);
            command
        }
        Some("py") => {
            let mut command = Command::new(installed("python/bin/python"));
            command.arg(example);
            command
        }
        Some("mjs") => {
            // Node.js looks for packages beside the script and above it.
            let folder = installed("node").join("examples");
            let copy = folder.join(example.file_name().unwrap());
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::copy(example, &copy).unwrap();
            let mut command = Command::new(installed("node/node_modules/.bin/node"));
            command.arg(copy);
            command
        }
        _ => panic!("nobody knows how to run {}", example.display()),
    }
}

#[test]
fn every_example_works() {
    let household = Household::new();
    let node = household.serve(&[]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    // People take one of them along, without what lies around it.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for example in std::fs::read_dir(folder).unwrap() {
        let example = example.unwrap();
        let copy = elsewhere.path().join(example.file_name());
        std::fs::copy(example.path(), &copy).unwrap();
        let mut command = runner(&copy);
        let output = command
            .env("HEARTH_URL", format!("http://{}/v1", node.address))
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{command:?}\n{out}\n{err}");
        assert!(!out.trim().is_empty(), "{command:?} says nothing\n{err}");
        assert!(!out.contains("data: "), "{command:?} shows the wire\n{out}");
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} examples were seen");
}

/// Every route with every kind of value that its description allows, and many that it does not.
#[test]
fn schemathesis_finds_no_failure_of_the_node() {
    let household = Household::new();
    let node = household.serve(&["--offline"]);
    // What is not shared answers 503 to everything, and nothing behind it would be tried.
    household
        .hearth(&["memory", "share", "--all", "--host", &node.address])
        .ok();
    let output = Command::new(installed("fuzz/bin/schemathesis"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", node.address))
        .args(["--checks", "not_a_server_error", "--seed", "1"])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "10",
        ])
        .args([
            "--suppress-health-check",
            "all",
            "--generation-database",
            "none",
        ])
        // The first ends the node, the second takes all cores for seconds, the third would close what was opened above.
        .args(["--exclude-path", "/shutdown", "--exclude-path", "/machine"])
        .args(["--exclude-path", "/household/memory/share"])
        .args(["--request-timeout", "60", "--no-color"])
        .current_dir(household.home())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}");
    let tested = out
        .lines()
        .find_map(|line| line.trim().strip_prefix("Tested: "));
    let tested: usize = tested.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(tested >= 35, "{out}");
}

#[test]
fn a_subscriber_goes_on_where_it_was_when_the_hub_comes_back() {
    use std::io::{BufRead, BufReader};

    let (one, two) = (Household::new(), Household::new());
    let mut hub = one.serve(&["--name", "laptop"]);
    let address = hub.address.clone();
    let at = ["--json", "--host", &address];
    let invitation = one.hearth(&[&["invite"][..], &at].concat()).json();
    let mut script = Command::new(installed("node/node_modules/.bin/node"))
        .arg(scripts().join("events_client.mjs"))
        .arg(format!("http://{address}/events"))
        .arg(installed("node"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
    let mut says = |what: &str| {
        let line = said.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(what)));
        assert!(line.is_some(), "the client ended before it said `{what}`");
    };
    says("ok open");
    let other = two.serve(&[]);
    let ticket = invitation["ticket"].as_str().unwrap();
    two.hearth(&["join", ticket, "--host", &other.address]).ok();
    // Whatever the machine calls itself, this is news.
    one.hearth(
        &[
            &["peers", "rename", &name_of(&two, &other.address), "gpubox"][..],
            &at,
        ]
        .concat(),
    )
    .ok();
    says("ok joined");
    hub.child.kill().unwrap();
    hub.child.wait().unwrap();
    let _hub = one.serve(&["--name", "laptop", "--host", &address]);
    says("ok open again");
    one.hearth(&[&["peers", "rename", "gpubox", "study"][..], &at].concat())
        .ok();
    says("ok renamed");
    assert!(script.wait().unwrap().success());
}

/// What its household calls the machine of this node.
fn name_of(home: &Household, address: &str) -> String {
    let peers = home.hearth(&["peers", "--json", "--host", address]).json();
    peers["name"].as_str().unwrap().to_owned()
}
