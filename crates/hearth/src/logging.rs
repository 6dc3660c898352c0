//! Log lines to standard error. Only the executable installs a subscriber.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, LogOptions};
use crate::screen::Screen;

/// Installs the subscriber; `usual` holds unless the configuration or `-v` says otherwise.
pub fn install(options: &LogOptions, usual: LevelFilter, verbose: u8, screen: &Screen) {
    let level = match verbose {
        0 => options.level.unwrap_or(usual),
        1 => options.level.unwrap_or(usual).max(LevelFilter::DEBUG),
        _ => LevelFilter::TRACE,
    };
    let lines = fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(screen.colour_err())
        .with_target(false);
    // A subscriber is installed once per process; a second call would be a mistake without consequences.
    let _ = match options.format {
        LogFormat::Text => tracing::subscriber::set_global_default(lines.compact().finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
        }
    };
}
