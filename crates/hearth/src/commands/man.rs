//! `hearth man`: the manual, made from the very definitions that `--help` prints. Packages call it while they are built.

use std::path::PathBuf;

use clap::{Args, Command};

use crate::failure::{Failure, Outcome};
use crate::screen::{print, println};

/// Flags of `hearth man`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth man | man -l -
  hearth man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// Prints the page of the program, or writes all of them.
pub fn run(args: &ManArgs, command_line: Command) -> Outcome {
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command_line)
            .render(&mut page)
            .map_err(|error| Failure::new(format!("cannot write the page: {error}")))?;
        print(&String::from_utf8_lossy(&page));
        return Ok(());
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command_line, folder))
        .map_err(|error| Failure::file("write", folder, &error, "choose another with --out"))?;
    println(&format!("wrote the manual into {}", folder.display()));
    Ok(())
}
