//! What people type who come from other programs, and how the same is said here: a hint under the error of the command
//! line.

use clap::error::{ContextKind, ContextValue};

/// A word of the command line that is none, and what to do instead.
const SLIPS: [(&[&str], &str); 8] = [
    (
        &["--port", "-p"],
        "the port is part of the address: --host :PORT, such as --host :9000",
    ),
    (
        &["-y", "--yes"],
        "only `hearth firewall install` and `hearth doctor --fix` ask back: leave that flag out elsewhere",
    ),
    (
        &["on", "off"],
        "the value of --offline follows after `=`: --offline=on or --offline=off",
    ),
    (
        &["get"],
        "`hearth config show` prints every setting and where it came from",
    ),
    (
        &["set", "edit", "unset"],
        "settings are lines of a file, such as `slots = 4`; `hearth config path` names it, flags and HEARTH_* variables win \
         over it",
    ),
    (
        &["start"],
        "`hearth up --detach` starts a node, `hearth service install` has the system start it",
    ),
    (
        &["restart"],
        "stop the node and start it again: hearth stop, then hearth up --detach",
    ),
    (
        &["create"],
        "`hearth models import FILE --name NAME` takes in a .gguf file, `hearth models copy` gives a second name",
    ),
];

/// Adds what was probably meant.
pub fn explain(mut error: clap::Error) -> clap::Error {
    let wrong = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    let word = wrong.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        _ => None,
    });
    let hint = word.and_then(|word| {
        let has = |names: &[&str]| names.contains(&word.as_str());
        SLIPS.into_iter().find(|(names, _)| has(names))
    });
    if let Some((_, hint)) = hint {
        let hint = ContextValue::StyledStrs(vec![hint.into()]);
        error.insert(ContextKind::Suggested, hint);
        // What is only spelt alike would mislead.
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn words_of_other_programs_are_answered_with_ours() {
        for (line, expected) in [
            ("up --port 9000", "--host :9000"),
            ("serve -p 9000", "--host :9000"),
            ("models rm -y x", "leave that flag out"),
            ("config get host", "hearth config show"),
            ("config set host x", "hearth config path"),
            ("start", "hearth up --detach"),
            ("serve --offline on", "--offline=on"),
        ] {
            let words = ["hearth"].into_iter().chain(line.split(' '));
            let error = explain(Cli::try_parse_from(words).unwrap_err());
            let said = error.to_string();
            assert!(said.contains(expected), "{line}: {said}");
        }
    }

    #[test]
    fn other_mistakes_keep_their_words() {
        let error = || Cli::try_parse_from(["hearth", "up", "--detahc"]).unwrap_err();
        assert_eq!(explain(error()).to_string(), error().to_string());
    }
}
