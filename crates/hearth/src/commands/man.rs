//! `hearth man`: the manual, made from the very definitions that `--help` prints. Packages call it while they are built.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use jiff::Timestamp;

use crate::failure::{Failure, Outcome};
use crate::screen::{print, println};
use crate::version::VERSION;

/// Flags of `hearth man`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth man | man -l -
  hearth man --out ~/.local/share/man/man1

With ~/.local/bin in PATH `man hearth` finds the pages there; else `man -M ~/.local/share/man hearth` does. The pages have the date of SOURCE_DATE_EPOCH if that is set, else today's.")]
pub struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// Prints the page of the program, or writes all of them. A terminal does not show the page's format.
pub fn run(args: &ManArgs, command_line: Command, terminal: bool) -> Outcome {
    if terminal && args.out.is_none() {
        return Err(
            Failure::usage("the manual is for a formatter, and this is a terminal").fix(
                "read it with `hearth man | man -l -`, or keep it with `hearth man --out FOLDER`",
            ),
        );
    }
    let mut command_line = command_line.disable_help_subcommand(true);
    // Gives the commands below their full names.
    command_line.build();
    let date = date();
    let Some(folder) = &args.out else {
        let mut text = Vec::new();
        page(command_line, &date)
            .render(&mut text)
            .map_err(|error| Failure::new(format!("cannot write the page: {error}")))?;
        print(&String::from_utf8_lossy(&text));
        return Ok(());
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| write(command_line, &date, folder))
        .map_err(|error| Failure::file("write", folder, &error, "choose another with --out"))?;
    println(&format!("wrote the manual into {}", folder.display()));
    Ok(())
}

fn write(command: Command, date: &str, folder: &Path) -> std::io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        write(below.clone(), date, folder)?;
    }
    page(command, date).generate_to(folder).map(drop)
}

fn page(command: Command, date: &str) -> Man {
    Man::new(command)
        .date(date)
        .source(format!("hearth {VERSION}"))
        .manual("Hearth")
}

/// <https://reproducible-builds.org/specs/source-date-epoch/>
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
    let epoch = epoch.and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok());
    epoch
        .unwrap_or_else(Timestamp::now)
        .strftime("%Y-%m-%d")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_how_to_read_it() {
        let args = ManArgs { out: None };
        let told = run(&args, Command::new("hearth"), true).unwrap_err();
        assert!(told.to_string().contains("hearth man | man -l -"), "{told}");
    }
}
