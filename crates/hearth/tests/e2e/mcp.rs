//! The memory as coding tools have it: real packages and the protocol's own conformance runner, against `/mcp` of a node
//! and against `hearth mcp`; and what is typed or sent wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::clients::{installed, passes, scripts};
use crate::household::{Household, Ran};

/// A script that starts `hearth mcp` in a household of its own.
fn script(household: &Household, program: &str, name: &str) -> Command {
    let mut command = Command::new(installed(program));
    command
        .arg(scripts().join(name))
        .env("HOME", household.path())
        .env("HEARTH_HOME", household.home())
        .env("HEARTH_HOST", "127.0.0.1:0");
    command
}

#[test]
fn the_python_package_mcp_works() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut command = script(&household, "python/bin/python", "mcp_client.py");
    command
        .arg(format!("http://{}/mcp", node.address))
        .arg(env!("CARGO_BIN_EXE_hearth"));
    passes(command, 7);
}

#[test]
fn the_javascript_package_of_mcp_works() {
    let household = Household::new();
    let node = household.serve(&[]);
    let mut command = script(&household, "node/node_modules/.bin/node", "mcp_client.mjs");
    command
        .arg(format!("http://{}/mcp", node.address))
        .arg(env!("CARGO_BIN_EXE_hearth"))
        .arg(installed("node"));
    passes(command, 3);
}

/// Scenarios of the conformance runner that a memory cannot pass, or single checks (`SCENARIO/CHECK`), and why. Whatever
/// else fails is a fault of ours, and so is what is listed here and passes.
const APART: [(&str, &[&str]); 5] = [
    (
        "they call tools of the runner's own example server",
        &[
            "elicitation-sep1034-defaults",
            "elicitation-sep1330-enums",
            "http-custom-header-server-validation",
            "input-required-result-basic-elicitation",
            "input-required-result-basic-list-roots",
            "input-required-result-basic-sampling",
            "input-required-result-capability-check",
            "input-required-result-ignore-extra-params",
            "input-required-result-missing-input-response",
            "input-required-result-multi-round",
            "input-required-result-multiple-input-requests",
            "input-required-result-request-state",
            "input-required-result-result-type",
            "input-required-result-tampered-state",
            "json-schema-2020-12",
            "server-stateless/sep-2575-http-server-no-independent-requests-on-stream",
            "server-stateless/sep-2575-missing-capability-http-400",
            "server-stateless/sep-2575-server-no-log-without-loglevel",
            "server-stateless/sep-2575-server-rejects-undeclared-capability",
            "tools-call-audio",
            "tools-call-elicitation",
            "tools-call-embedded-resource",
            "tools-call-error",
            "tools-call-image",
            "tools-call-mixed-content",
            "tools-call-sampling",
            "tools-call-simple-text",
            "tools-call-with-logging",
            "tools-call-with-progress",
        ],
    ),
    (
        "they read resources, and get and complete prompts, of the runner's own example server",
        &[
            "completion-complete",
            "input-required-result-non-tool-request",
            "prompts-get-embedded-resource",
            "prompts-get-simple",
            "prompts-get-with-args",
            "prompts-get-with-image",
            "resources-read-binary",
            "resources-read-text",
            "resources-templates-read",
        ],
    ),
    (
        "nothing is logged to clients, which MCP gives up",
        &["logging-set-level"],
    ),
    (
        "nothing is told to clients that did not ask",
        &["resources-subscribe", "resources-unsubscribe"],
    ),
    (
        "no session is kept, and no answer is a stream",
        &[
            "server-sse-multiple-streams/server-sse-multiple-streams-session",
            "server-sse-polling",
        ],
    ),
];

/// Where a scenario or check is listed in [`APART`].
fn apart(scenario: &str, check: &str) -> Option<&'static str> {
    let single = format!("{scenario}/{check}");
    let all = APART.iter().flat_map(|(_, all)| all.iter().copied());
    all.into_iter()
        .find(|entry| *entry == scenario || *entry == single)
}

/// Checks of each scenario, with their outcome and what is said of it.
type Results = BTreeMap<String, Vec<(String, String, String)>>;

/// Runs the conformance runner.
fn conformance(url: &str, arguments: &[&str]) -> Results {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(installed("node/node_modules/.bin/node"))
        .arg(installed(
            "node/node_modules/@modelcontextprotocol/conformance/dist/index.js",
        ))
        .args(["server", "--url", url, "--output-dir"])
        .arg(folder.path())
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let results = results(folder.path());
    assert!(
        !results.is_empty(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    results
}

/// Each scenario has a folder `server-NAME-TIME` with a list of its checks.
fn results(folder: &Path) -> Results {
    const TIME: usize = "-2026-07-28T00-00-00-000Z".len();
    let mut results = Results::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let name = name.strip_prefix("server-").unwrap();
        let scenario = name[..name.len() - TIME].to_owned();
        let text = std::fs::read(entry.path().join("checks.json")).unwrap();
        let checks: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let checks = checks.iter().map(|check| {
            let said = text(&check["errorMessage"]);
            (text(&check["id"]), text(&check["status"]), said)
        });
        results.insert(scenario, checks.collect());
    }
    results
}

#[test]
fn the_conformance_runner_passes_at_the_door() {
    let household = Household::new();
    // Some checks read the first resource there is.
    household
        .hearth(&["memory", "add", "A memory to be read"])
        .ok();
    let node = household.serve(&[]);
    let url = format!("http://{}/mcp", node.address);
    let (mut passed, mut needed) = (0, BTreeSet::new());
    for version in ["2025-11-25", "2026-07-28"] {
        let arguments = ["--suite", "all", "--spec-version", version];
        for (scenario, checks) in conformance(&url, &arguments) {
            for (check, status, said) in checks {
                match &*status {
                    "SUCCESS" => passed += 1,
                    "FAILURE" | "WARNING" => {
                        let entry = apart(&scenario, &check);
                        assert!(entry.is_some(), "{version} {scenario}/{check}: {said}");
                        needed.extend(entry);
                    }
                    "INFO" | "SKIPPED" => {}
                    other => panic!("{scenario}/{check}: {other}"),
                }
            }
        }
    }
    let listed: BTreeSet<&str> = APART
        .iter()
        .flat_map(|(_, all)| all.iter().copied())
        .collect();
    let stale: Vec<_> = listed.difference(&needed).collect();
    assert!(stale.is_empty(), "they pass now: {stale:?}");
    assert!(passed >= 90, "only {passed} checks passed");
}

/// A bridge from HTTP to `hearth mcp`, for a runner that knows HTTP alone.
struct Bridge {
    child: Child,
    url: String,
}

impl Bridge {
    fn new(household: &Household) -> Self {
        let mut child = script(household, "node/node_modules/.bin/node", "mcp_bridge.mjs")
            .args([env!("CARGO_BIN_EXE_hearth"), "mcp"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut url).unwrap();
        Self {
            child,
            url: url.trim().to_owned(),
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_conformance_runner_passes_on_standard_streams() {
    let household = Household::new();
    household
        .hearth(&["memory", "add", "A memory to be read"])
        .ok();
    let bridge = Bridge::new(&household);
    // Those that are about messages and not about HTTP.
    for (version, scenario, least) in [
        ("2025-11-25", "server-initialize", 2),
        ("2025-11-25", "ping", 2),
        ("2025-11-25", "tools-list", 3),
        ("2025-11-25", "prompts-list", 2),
        ("2025-11-25", "resources-list", 2),
        ("2026-07-28", "tools-list", 4),
        ("2026-07-28", "resources-list", 2),
        ("2026-07-28", "sep-2164-resource-not-found", 3),
        ("2026-07-28", "caching", 8),
    ] {
        let arguments = ["--scenario", scenario, "--spec-version", version];
        let results = conformance(&bridge.url, &arguments);
        let checks = results.into_values().flatten();
        let (passed, others): (Vec<_>, Vec<_>) = checks
            .filter(|(_, status, _)| status != "INFO")
            .partition(|(_, status, _)| status == "SUCCESS");
        assert!(others.is_empty(), "{version} {scenario}: {others:?}");
        assert!(passed.len() >= least, "{version} {scenario}: {passed:?}");
    }
}

fn lines(messages: &[Value]) -> String {
    let lines: Vec<String> = messages
        .iter()
        .map(|message| format!("{message}\n"))
        .collect();
    lines.concat()
}

fn begin() -> Vec<Value> {
    let client = json!({"name": "tester", "version": "1"});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    vec![
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ]
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// What it wrote, each line a message.
fn answers(ran: Ran) -> Vec<Value> {
    let out = ran.ok();
    let answers = out.lines().map(|line| serde_json::from_str(line).unwrap());
    answers.collect()
}

#[test]
fn a_session_ends_with_its_input_and_what_it_saved_is_there() {
    let household = Household::new();
    let mut sent = begin();
    sent.push(call(
        1,
        "add_memory",
        json!({"text": "Saved by a coding tool"}),
    ));
    let ran = household.hearth_with_input(&["mcp", "--project", "shop"], &lines(&sent));
    assert_eq!(ran.err, "");
    let answers = answers(ran);
    assert_eq!(answers.len(), 2, "{answers:?}");
    let listed = household.hearth(&["memory", "list", "--json"]).json();
    let memory = &listed["memories"][0];
    assert_eq!(memory["text"], "Saved by a coding tool");
    assert_eq!(
        (&memory["project"], &memory["source"]),
        (&json!("shop"), &json!("tester"))
    );
    // Nobody said anything: that is no failure.
    assert_eq!(household.hearth_with_input(&["mcp"], "").ok(), "");
}

#[test]
fn what_a_tool_says_is_not_logged_even_where_everything_is() {
    let household = Household::new();
    let secret = "swordfish";
    let mut sent = begin();
    sent.push(call(1, "add_memory", json!({"text": secret})));
    sent.push(call(
        2,
        "search_memories",
        json!({"query": secret, "limit": secret}),
    ));
    sent.push(call(3, secret, json!({})));
    let input = format!("{}{{\"{secret}\"\n[\"{secret}\"]\n", lines(&sent));
    let ran = household.hearth_with_input(&["mcp", "-vv"], &input);
    assert!(!ran.err.contains(secret), "{}", ran.err);
    assert_eq!(answers(ran).len(), 6);
}

#[test]
fn a_project_that_cannot_be_one_and_a_home_that_cannot_be_opened_are_said_at_once() {
    let household = Household::new();
    let long = "x".repeat(101);
    let ran = household.hearth(&["mcp", "--project", &long]).ends_with(2);
    assert!(
        ran.err.contains("--project: ") && ran.err.contains("too long"),
        "{}",
        ran.err
    );
    std::fs::create_dir_all(household.home()).unwrap();
    std::fs::write(
        household.home().join("hearth.db"),
        "no database, but long enough to be looked at".repeat(99),
    )
    .unwrap();
    let ran = household.hearth(&["mcp"]).ends_with(1);
    assert!(ran.err.contains("hearth.db"), "{}", ran.err);
    assert_eq!(ran.out, "");
}

#[test]
fn what_is_printed_for_a_tool_starts_a_session() {
    let household = Household::new();
    let ran = household.hearth(&[
        "mcp",
        "config",
        "vscode",
        "--project",
        "shop",
        "--home",
        "elsewhere",
    ]);
    assert!(ran.err.contains(".vscode/mcp.json"), "{}", ran.err);
    let config = ran.json();
    let server = &config["servers"]["hearth"];
    assert_eq!(
        (&server["type"], &server["command"]),
        (&json!("stdio"), &json!(env!("CARGO_BIN_EXE_hearth")))
    );
    let words: Vec<&str> = server["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let answers = answers(household.hearth_with_input(&words, &lines(&begin())));
    assert!(
        answers[0]["result"]["instructions"]
            .as_str()
            .unwrap()
            .contains("project is shop")
    );
    // The tool may start it in any folder.
    assert!(household.path().join("elsewhere/hearth.db").exists());
    assert!(words.iter().any(|word| Path::new(word).is_absolute()));

    let claude = household
        .hearth(&["mcp", "config", "claude", "--json"])
        .json();
    let text = claude["text"].as_str().unwrap();
    assert!(
        text.starts_with("claude mcp add --scope user hearth -- ")
            && text.contains(" mcp --home /"),
        "{text}"
    );
    let ran = household.hearth(&["mcp", "config", "emacs"]).ends_with(2);
    assert!(
        ran.err.contains("claude") && ran.err.contains("opencode"),
        "{}",
        ran.err
    );
}
