//! Completions in real shells, with models whose names have a `:`.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use crate::household::{Household, Ran};

/// A home with models, and `hearth` in the `PATH`.
struct Desk {
    household: Household,
}

impl Desk {
    fn new() -> Self {
        let household = Household::new();
        let models = household.home().join("models");
        std::fs::create_dir_all(&models).unwrap();
        for name in ["qwen3:1.7b", "qwen3:4b", "smol"] {
            std::fs::write(models.join(format!("{name}.gguf")), "").unwrap();
        }
        Self { household }
    }

    fn run(&self, shell: &str, script: &str) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_hearth"));
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", program.parent().unwrap().display());
        // The household's environment, with another program.
        let hearth = self.household.command::<&str>(&[]);
        let mut command = Command::new(shell);
        command
            .arg("-c")
            .arg(script)
            .current_dir(self.household.path())
            .env("PATH", path);
        for (name, value) in hearth.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ran::new(&[shell], command.output().unwrap()).ok()
    }

    /// What bash would offer after this line, each as it would be typed in place of the word's last part.
    fn bash(&self, line: &str) -> Vec<String> {
        // What readline does: it cuts the line at COMP_WORDBREAKS and calls the function.
        let script = format!(
            r#"
            source <(hearth completions bash)
            COMP_WORDBREAKS=$' \t\n"\'@><=;|&(:'
            COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}}
            rest=$COMP_LINE COMP_WORDS=() blank=yes
            while [[ -n $rest ]]; do
                case $rest in
                    [[:blank:]]*) rest=${{rest#?}} blank=yes ;;
                    [\"]*) COMP_WORDS+=("$rest") rest= blank= ;;
                    [=:]*) COMP_WORDS+=("${{rest:0:1}}") rest=${{rest#?}} blank= ;;
                    *) word=${{rest%%[[:blank:]=:]*}} COMP_WORDS+=("$word") rest=${{rest#"$word"}} blank= ;;
                esac
            done
            [[ -n $blank ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            _hearth
            printf '%s\n' "${{COMPREPLY[@]}}"
            "#
        );
        let said = self.run("bash", &script);
        said.lines()
            .filter(|line| !line.is_empty())
            .map(ToOwned::to_owned)
            .collect()
    }
}

fn is_here(shell: &str) -> bool {
    let here = Command::new(shell).args(["-c", "exit"]).output();
    let here = here.is_ok_and(|output| output.status.success());
    if !here {
        eprintln!("skipped: {shell} is not here");
    }
    here
}

#[test]
fn bash_completes_names_with_a_colon() {
    if !is_here("bash") {
        return;
    }
    let desk = Desk::new();
    for (line, expected) in [
        ("hearth run --model qw", &["qwen3:1.7b", "qwen3:4b"][..]),
        // Readline takes what follows the colon for the word.
        ("hearth run --model qwen3:", &["1.7b", "4b"]),
        ("hearth chat --model qwen3:1", &["1.7b"]),
        ("hearth chat --model=qwen3:1", &["1.7b"]),
        ("hearth serve --model=sm", &["smol"]),
        ("hearth run --model \"qwen3:4", &["qwen3:4b"]),
        ("hearth rm qwen3:4", &["4b"]),
        ("hearth models show sm", &["smol"]),
        ("hearth pull qwen3:0", &["0.6b"]),
        ("hearth serv", &["serve", "service"]),
        ("hearth service ins", &["install"]),
        ("hearth up --det", &["--detach"]),
        ("hearth  completions   fi", &["fish"]),
    ] {
        assert_eq!(desk.bash(line), expected, "{line}");
    }
    // A file that is no model is not offered as one.
    std::fs::write(desk.household.path().join("mine.gguf"), "").unwrap();
    std::fs::write(desk.household.path().join("mine.txt"), "").unwrap();
    assert_eq!(desk.bash("hearth run --model ./mi"), ["./mine.gguf"]);
    assert!(
        desk.bash("hearth run --model ")
            .contains(&"ember".to_owned())
    );
}

#[test]
fn zsh_completes_names_with_a_colon() {
    if !is_here("zsh") {
        return;
    }
    let desk = Desk::new();
    // Without a terminal there is no line to complete; the function hands its candidates to _describe, as
    // `name:description` with the colons of names escaped.
    let script = r#"
        function compdef() { }
        function _describe() { print -rl -- "${(P@)@[-1]}"; }
        source <(hearth completions zsh)
        words=(hearth run --model qwen3:) CURRENT=4
        _clap_dynamic_completer_hearth
    "#;
    assert_eq!(desk.run("zsh", script), "qwen3\\:1.7b\nqwen3\\:4b\n");
}

#[test]
fn fish_completes_names_with_a_colon() {
    if !is_here("fish") {
        return;
    }
    let desk = Desk::new();
    let script =
        "hearth completions fish | source; complete --do-complete 'hearth run --model qwen3:'";
    let said = desk.run("fish", script);
    let names: Vec<&str> = said
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default())
        .collect();
    assert_eq!(names, ["qwen3:1.7b", "qwen3:4b"]);
}

#[test]
fn every_shell_has_a_script() {
    let household = Household::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = household.hearth(&["completions", shell]).ok();
        assert!(
            script.contains("HEARTH_COMPLETE") && script.contains("hearth"),
            "{shell}: {script}"
        );
    }
    household.hearth(&["completions", "tcsh-ish"]).ends_with(2);
}
