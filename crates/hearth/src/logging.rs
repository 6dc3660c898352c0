//! Where log lines go: to standard error, or to the [log file](crate::log_file) of a node in the background. Only the
//! executable installs a subscriber.

use std::panic;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{LogFormat, LogOptions};
use crate::log_file::LogFile;
use crate::screen::Screen;

/// Installs the subscriber; `usual` holds unless the configuration or `-v` says otherwise. With a file, lines go there as
/// JSON whatever the format, and so does a panic, which nobody would see on a terminal that is gone.
pub fn install(
    options: &LogOptions,
    usual: LevelFilter,
    verbose: u8,
    screen: &Screen,
    file: Option<LogFile>,
) {
    let level = match verbose {
        0 => options.level.unwrap_or(usual),
        1 => options.level.unwrap_or(usual).max(LevelFilter::DEBUG),
        _ => LevelFilter::TRACE,
    };
    // A subscriber is installed once per process; a second call would be a mistake without consequences.
    let _ = match (file, options.format) {
        (Some(file), _) => {
            let lines = fmt()
                .with_max_level(level)
                .with_writer(Mutex::new(file))
                .with_ansi(false)
                .with_target(false)
                .log_internal_errors(false)
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .finish();
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |what| {
                tracing::error!("{what}");
                usual(what);
            }));
            tracing::subscriber::set_global_default(lines.with(discreet()))
        }
        (None, format) => {
            let lines = fmt()
                .with_max_level(level)
                .with_writer(std::io::stderr)
                .with_ansi(screen.colour_err())
                .with_target(false);
            match format {
                LogFormat::Text => {
                    let lines = lines.compact().finish();
                    tracing::subscriber::set_global_default(lines.with(discreet()))
                }
                LogFormat::Json => {
                    let lines = lines.json().flatten_event(true).with_current_span(false);
                    let lines = lines.finish();
                    tracing::subscriber::set_global_default(lines.with(discreet()))
                }
            }
        }
    };
}

/// Everything but what `rmcp` logs: at every level it tells what a client sent, which nobody asked to be kept.
fn discreet() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target("rmcp", LevelFilter::OFF)
}
