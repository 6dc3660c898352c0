//! `hearth completions`: so that the shell knows the commands, their flags, and the models of this machine.
//!
//! The printed script asks this program at each Tab, with the words so far after `--` and `HEARTH_COMPLETE` naming the
//! shell ([`answer`]). clap_complete's engine finds the candidates. Its scripts are used but for bash, which cuts words at
//! each `:` before a completion sees them, so that `qwen3:1.7b` would be three words; ours joins them again.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Command};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
    complete,
};
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};

use crate::config::Sources;
use crate::failure::Outcome;
use crate::screen::print;
use crate::{daemon, ember};

/// Names the shell that asks.
const VARIABLE: &str = "HEARTH_COMPLETE";
const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);
/// What flags and arguments that take a model call it.
const MODEL: &str = "MODEL";

/// Flags of `hearth completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth completions bash > ~/.local/share/bash-completion/completions/hearth
  hearth completions zsh > ~/.zfunc/_hearth
  hearth completions fish > ~/.config/fish/completions/hearth.fish
  hearth completions powershell >> $PROFILE

Write the file anew after an update. It completes commands, flags, files, and the models of this machine.")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// The shells.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Shell {
    /// GNU bash, 3.2 or newer
    Bash,
    /// Elvish
    Elvish,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
    /// zsh
    Zsh,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Outcome {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Zsh => &Zsh,
    };
    let mut script = Vec::new();
    // Writing to memory does not fail.
    let _ = shell.write_registration(VARIABLE, "hearth", "hearth", "hearth", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Answers a shell that asks, and ends the process then. Nothing may have been printed before.
pub fn answer(command_line: impl Fn() -> Command) {
    CompleteEnv::with_factory(|| naming_models(command_line()))
        .var(VARIABLE)
        .bin("hearth")
        .completer("hearth")
        .shells(SHELLS)
        .complete();
}

/// Completes every argument that is called [`MODEL`] from the models of this machine, and what can be pulled from the
/// catalogue.
fn naming_models(command: Command) -> Command {
    let pulls = command.get_name() == "pull";
    let is = |arg: &clap::Arg, name: &str| {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().any(|own| own.as_str() == name)
    };
    command
        .mut_args(|arg| {
            if is(&arg, MODEL) {
                arg.add(ArgValueCompleter::new(models))
            } else if pulls && is(&arg, "NAME") {
                arg.add(ArgValueCandidates::new(pullable))
            } else {
                arg
            }
        })
        .mut_subcommands(naming_models)
}

/// Short names of the catalogue.
fn pullable() -> Vec<CompletionCandidate> {
    let known = hearth_models::catalogue::all().iter();
    let names = known.map(hearth_models::catalogue::Known::full_name);
    let encoders = hearth_models::catalogue::encoders().iter();
    let names = names.chain(encoders.map(|encoder| encoder.name.clone()));
    names.map(CompletionCandidate::new).collect()
}

/// Models whose names go on from here, and files that could be one.
fn models(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = names().unwrap_or_default();
    let begun = current.to_string_lossy();
    let mut candidates: Vec<CompletionCandidate> = names
        .into_iter()
        .filter(|name| name.starts_with(begun.as_ref()))
        .map(CompletionCandidate::new)
        .collect();
    // Of the files of this folder nobody thinks before they say so.
    if begun.contains(std::path::is_separator) || (candidates.is_empty() && !begun.is_empty()) {
        let is_model = |path: &Path| path.extension().is_some_and(|ending| ending == "gguf");
        candidates.extend(PathCompleter::file().filter(is_model).complete(current));
    }
    candidates
}

/// From the disk, without asking a node: somebody waits for the Tab.
fn names() -> Outcome<Vec<String>> {
    let config = Sources::of_process(None, Vec::new())?.resolve()?;
    let (catalogue, _) = daemon::known(&config, &ember::path(&config.home));
    let sources = catalogue.list();
    Ok(sources.into_iter().map(|source| source.name).collect())
}

/// bash, with words as the program will get them.
struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        // bash 3.2 has no mapfile and no compopt; macOS still ships it.
        let script = r#"_NAME() {
    local line=${COMP_LINE:0:COMP_POINT} breaks= word current kept= quoted= i
    local -a words=()
    # bash cuts words at each character of COMP_WORDBREAKS. What no blank separates is one word again.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $i -eq 0 || $line == [[:blank:]]* ]]; then
            line=${line#"${line%%[![:blank:]]*}"}
            words+=("")
        fi
        # The cursor may stand inside the last one.
        [[ $line == "$word"* ]] || word=$line
        words[${#words[@]} - 1]+=$word
        line=${line#"$word"}
    done
    current=${words[${#words[@]} - 1]}
    # A candidate takes the place of what follows the last cut.
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
    # Inside quotes there are no cuts, and the quote itself is not the program's.
    if [[ $current == [\"\']* ]]; then
        quoted=yes breaks= current=${current:1}
        words[${#words[@]} - 1]=$current
    fi
    [[ -n $breaks ]] && kept=${current%"${current##*[$breaks]}"}
    COMPREPLY=()
    while IFS= read -r word; do
        word=${word#"$kept"}
        [[ $word == *[[:blank:]]* && -z $quoted ]] && printf -v word %q "$word"
        COMPREPLY+=("$word")
    done < <(VARIABLE=bash COMPLETER -- "${words[@]}" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:/] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
complete -o bashdefault -o default -F _NAME BIN
"#;
        let script = script
            .replace("NAME", name)
            .replace("BIN", bin)
            .replace("COMPLETER", completer)
            .replace("VARIABLE", variable);
        out.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        current_dir: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        // The script sends no word after the cursor's.
        let last = words.len().saturating_sub(1);
        for candidate in complete(command, words, last, current_dir)? {
            writeln!(out, "{}", candidate.get_value().to_string_lossy())?;
        }
        Ok(())
    }
}
