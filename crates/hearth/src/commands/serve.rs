//! `hearth serve`: a node in the foreground, for terminals and service managers.

use clap::Args;

use super::Context;
use crate::daemon::{self, Unstarted};
use crate::failure::Outcome;
use crate::flags::Tuning;
use crate::screen::println;

/// Flags of `hearth serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth serve
  hearth serve --model ~/models/qwen3-4b-q4_k_m.gguf --context 16384 --slots 2
  hearth serve --host 127.0.0.1:0 --home /tmp/second    a second node on a free port

Logs go to standard error, or with --log-to-file to HEARTH_HOME/logs (hearth logs). SIGINT and SIGTERM let running answers end for a moment; a second one stops at once.")]
pub struct ServeArgs {
    /// Log to a file that makes room, as a node in the background does
    #[arg(long)]
    pub log_to_file: bool,
    /// How the node and its models run.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Serves until told to stop.
pub async fn run(context: &Context, args: &ServeArgs) -> Outcome {
    match args.log_to_file {
        true => {
            for warning in &context.config.warnings {
                tracing::warn!("{warning}");
            }
        }
        false => context.warn(),
    }
    let served = serve(context).await;
    if let Err(failure) = &served
        && args.log_to_file
    {
        // Standard error says it as well, but the log should not just end.
        tracing::error!(fix = failure.fix, "{}", failure.message);
    }
    served
}

async fn serve(context: &Context) -> Outcome {
    let bound = daemon::bind(&context.config)
        .await
        .map_err(Unstarted::failure)?;
    if context.screen.json {
        println(&serde_json::json!(bound.record).to_string());
    }
    bound.serve(std::future::pending()).await
}
