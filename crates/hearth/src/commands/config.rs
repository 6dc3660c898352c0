//! `hearth config`: every setting, and who set it.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use crate::screen::{Screen, print, println};

/// Flags of `hearth config`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth config show
  hearth config show --json
  $EDITOR \"$(hearth config path)\"

The file is flat TOML, for example:
  host = \"127.0.0.1:8321\"
  model = \"qwen3-4b-q4_k_m\"
  context = 16384
  memory_budget = \"8GiB\"
  keep_alive = \"30m\"")]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print each value and where it came from
    #[command(after_help = "\
EXAMPLES
  hearth config show
  HEARTH_SLOTS=8 hearth config show --json")]
    Show,
    /// Print where the configuration file is, or would be
    #[command(after_help = "\
EXAMPLES
  hearth config path
  cat \"$(hearth config path)\"")]
    Path,
}

impl ConfigArgs {
    /// Whether the settings themselves are not needed, so that a broken file can be found.
    pub fn only_path(&self) -> bool {
        matches!(self.command, What::Path)
    }
}

/// Prints every setting.
pub fn show(context: &Context) {
    let (config, screen) = (&context.config, &context.screen);
    context.warn();
    if screen.json {
        println(&config.json().to_string());
        return;
    }
    let mut rows = vec![["SETTING", "VALUE", "FROM"].map(String::from).to_vec()];
    for shown in &config.shown {
        rows.push(vec![
            shown.key.name().into(),
            shown.value.clone(),
            shown.origin.to_string(),
        ]);
    }
    print(&screen.table(&rows));
    let there = if config.file.is_file() {
        ""
    } else {
        " (not there)"
    };
    println(&screen.dim(&format!("file: {}{there}", config.file.display())));
}

/// Prints where the file is.
pub fn path(file: &Path, screen: &Screen) {
    match screen.json {
        true => println(&json!({"path": file, "exists": file.is_file()}).to_string()),
        false => println(&file.display().to_string()),
    }
}
