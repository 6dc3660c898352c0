//! `hearth mcp`: the memory for coding tools, on standard input and output; and what to write where so that they start it.
//!
//! The home's own database is opened, as `hearth memory import` does, whether a node runs or not. Several processes on one
//! store see each other's writes at once, so there is no node to find, and none that could go away in the middle of a
//! session.

use std::env::consts::EXE_EXTENSION;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use hearth_memory::Memories;
use hearth_node::mcp::{Scope, serve};
use hearth_protocol::memory::Search;
use serde_json::{Value, json};

use super::memory::own;
use super::{Context, quoted, runtime};
use crate::config::{Key, Origin};
use crate::failure::{Failure, Outcome};
use crate::screen::println;
use crate::version::VERSION;

/// Flags of `hearth mcp`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
EXAMPLES
  hearth mcp config claude                 how Claude Code gets to know it
  hearth mcp config cursor --project shop  what Cursor's file must hold
  hearth mcp --project shop                what the tool then runs

It speaks MCP, the Model Context Protocol: a message a line on standard input and output, until the input ends. A running node offers the same at http://localhost:8321/mcp, with ?project=NAME and ?read_only=true."
)]
pub struct McpArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Args)]
struct ScopeArgs {
    /// The project of every call that names none; without one such a call is about every project
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// Let memories be looked at, and not changed
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print what a coding tool must be told
    Config(ConfigArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth mcp config claude
  hearth mcp config vscode --project shop > .vscode/mcp.json
  hearth mcp config codex --read-only

Where it belongs is said on standard error. A file that holds other servers already gets the part about hearth alone.")]
struct ConfigArgs {
    /// The tool; `json` is what most others take
    #[arg(value_enum, value_name = "TOOL")]
    tool: Tool,
    #[command(flatten)]
    scope: ScopeArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    #[value(alias = "claude-code")]
    Claude,
    ClaudeDesktop,
    Codex,
    Cursor,
    Gemini,
    Json,
    Opencode,
    Vscode,
    Zed,
}

/// Runs the command.
///
/// # Errors
/// The home's memories cannot be opened, the project's name cannot be one, or the other end does not speak MCP.
pub fn run(context: &Context, args: &McpArgs) -> Outcome {
    if let Some(What::Config(args)) = &args.command {
        return config(context, args);
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(speak(context, &args.scope));
    // A read of standard input cannot be called off; the process ends without it.
    runtime.shutdown_background();
    ended
}

async fn speak(context: &Context, args: &ScopeArgs) -> Outcome {
    let memories = own(context).await?;
    check(&memories, args.project.as_deref())?;
    if std::io::stdin().is_terminal() {
        context.screen.note(
            "this speaks MCP with a coding tool, which starts it; `hearth mcp config --help` says how. Ctrl-D ends it",
        );
    }
    let scope = Scope {
        project: args.project.clone(),
        read_only: args.read_only,
    };
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    serve(memories, scope, VERSION, input, output)
        .await
        .map_err(|error| Failure::new(format!("the session ended: {error}")))
}

/// Whether this can be a project's name, said before a model stumbles over it in every call.
fn check(memories: &Memories, project: Option<&str>) -> Outcome {
    let search = Search {
        project: project.map(ToOwned::to_owned),
        limit: Some(1),
        ..Search::default()
    };
    match memories.list(&search, None) {
        Ok(_) => Ok(()),
        Err(error @ hearth_memory::Error::Invalid { .. }) => {
            Err(Failure::usage(format!("--{error}")))
        }
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// This program by the path that it was called by, in the folders of `path` if that was a name alone: what a link of a
/// package leads to may be gone after an update. `own` is where it lies, for when the other path leads to another file.
fn program(called: Option<&OsStr>, path: Option<&OsStr>, own: PathBuf) -> PathBuf {
    let mut called = PathBuf::from(called.unwrap_or_default());
    let is_name = called.components().count() == 1 && !called.has_root();
    if !EXE_EXTENSION.is_empty() && called.extension().is_none() {
        called.set_extension(EXE_EXTENSION);
    }
    let candidates: Vec<PathBuf> = match (is_name, path) {
        (false, _) => vec![called],
        (true, Some(path)) => std::env::split_paths(path)
            .map(|folder| folder.join(&called))
            .collect(),
        (true, None) => Vec::new(),
    };
    let real = own.canonicalize().ok();
    let is_own = |candidate: &PathBuf| real.is_some() && candidate.canonicalize().ok() == real;
    let found = candidates.into_iter().find(is_own);
    let found = found.and_then(|found| std::path::absolute(found).ok());
    found.unwrap_or(own)
}

fn config(context: &Context, args: &ConfigArgs) -> Outcome {
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(format!("where this program lies is not known: {error}")))?;
    let (called, path) = (std::env::args_os().next(), std::env::var_os("PATH"));
    let program = program(called.as_deref(), path.as_deref(), own);
    let mut words = vec!["mcp".to_owned()];
    let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    if let Some(project) = &args.scope.project {
        flag("--project", project);
    }
    // The tool starts it in some other folder, and many without the variables of this shell.
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map(|path| path.display().to_string())
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    };
    if let Some(file) = &context.global.config {
        flag("--config", &absolute(file)?);
    }
    if *context.config.origin(Key::Home) != Origin::Default {
        flag("--home", &absolute(&context.config.home)?);
    }
    if args.scope.read_only {
        words.push("--read-only".into());
    }
    let (place, text) = written(args.tool, &program.display().to_string(), &words);
    match context.screen.json {
        true => println(&json!({"place": place, "text": text}).to_string()),
        false => {
            context.screen.note(place);
            println(&text);
        }
    }
    Ok(())
}

/// Where a tool wants to be told, and what.
fn written(tool: Tool, program: &str, words: &[String]) -> (&'static str, String) {
    let server = json!({"command": program, "args": words});
    let under = |key: &str, server: Value| format!("{:#}", json!({key: {"hearth": server}}));
    match tool {
        Tool::Claude => {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let text = format!(
                "claude mcp add --scope user hearth -- {} {}",
                quoted(program),
                words.join(" ")
            );
            ("run this once:", text)
        }
        Tool::ClaudeDesktop => (
            "Settings, Developer, Edit Config: claude_desktop_config.json",
            under("mcpServers", server),
        ),
        Tool::Codex => {
            let words: Vec<String> = words.iter().map(|word| json!(word).to_string()).collect();
            let text = format!(
                "[mcp_servers.hearth]\ncommand = {}\nargs = [{}]",
                json!(program),
                words.join(", ")
            );
            ("~/.codex/config.toml:", text)
        }
        Tool::Cursor => (
            "~/.cursor/mcp.json, or .cursor/mcp.json in a project:",
            under("mcpServers", server),
        ),
        Tool::Gemini => ("~/.gemini/settings.json:", under("mcpServers", server)),
        Tool::Json => (
            "where your tool keeps its MCP servers:",
            under("mcpServers", server),
        ),
        Tool::Opencode => {
            let command: Vec<&str> = [program]
                .into_iter()
                .chain(words.iter().map(String::as_str))
                .collect();
            let server = json!({"type": "local", "command": command, "enabled": true});
            (
                "~/.config/opencode/opencode.json, or opencode.json in a project:",
                under("mcp", server),
            )
        }
        Tool::Vscode => {
            let server = json!({"type": "stdio", "command": program, "args": words});
            (
                ".vscode/mcp.json in a project, or `MCP: Open User Configuration`:",
                under("servers", server),
            )
        }
        Tool::Zed => ("Zed's settings.json:", under("context_servers", server)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_program_is_told_as_it_was_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "other", "opt"] {
            std::fs::create_dir(at(name)).expect(name);
        }
        let own = at("opt/hearth-1.2");
        for file in ["opt/hearth-1.2", "other/hearth"] {
            std::fs::write(at(file), "").expect(file);
        }
        std::os::unix::fs::symlink(&own, at("bin/hearth")).expect("a link");
        let told = |called: &str, path: &[&str]| {
            let folders = path.iter().map(|name| at(name));
            let path = std::env::join_paths(folders).expect("a path");
            program(Some(called.as_ref()), Some(&path), own.clone())
        };
        assert_eq!(told("hearth", &["other", "bin"]), at("bin/hearth"));
        let link = at("bin/hearth");
        assert_eq!(told(&link.display().to_string(), &[]), link);
        // Not another one of the same name, and not what a shell calls it.
        assert_eq!(told("hearth", &["other"]), own);
        assert_eq!(told("-sh", &["bin"]), own);
        assert_eq!(program(None, None, own.clone()), own);
    }

    #[test]
    fn every_tool_is_told_the_program_and_its_words() {
        let words = ["mcp".to_owned(), "--project".into(), "my \"shop\"".into()];
        for tool in Tool::value_variants() {
            let (place, text) = written(*tool, "/opt/hearth", &words);
            assert!(!place.is_empty());
            assert!(text.contains("hearth") && text.contains("mcp"), "{text}");
            let told: Value = match tool {
                Tool::Claude => {
                    assert!(
                        text.ends_with("-- /opt/hearth mcp --project 'my \"shop\"'"),
                        "{text}"
                    );
                    continue;
                }
                Tool::Codex => {
                    let read: toml::Table = text.parse().expect("TOML");
                    json!(read)["mcp_servers"]["hearth"].clone()
                }
                _ => {
                    let read: Value = serde_json::from_str(&text).expect("JSON");
                    let under = read.as_object().and_then(|all| all.values().next());
                    under.expect("servers")["hearth"].clone()
                }
            };
            match tool {
                Tool::Opencode => assert_eq!(
                    told["command"],
                    json!([&["/opt/hearth".to_owned()][..], &words].concat())
                ),
                _ => assert_eq!(
                    (&told["command"], &told["args"]),
                    (&json!("/opt/hearth"), &json!(words))
                ),
            }
        }
    }
}
