//! `hearth stop`: ends the node of this home and waits until it is gone.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::Context;
use crate::addressed;
use crate::client::ClientError;
use crate::failure::{Failure, Outcome};
use crate::record::NodeRecord;
use crate::screen::println;

/// Running answers get a moment to end, and models a moment to unload.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// Flags of `hearth stop`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth stop
  hearth stop --host 127.0.0.1:9000

Exit code 3 means that there was no node to stop.")]
pub struct StopArgs {}

/// Stops the node.
pub async fn run(context: &Context) -> Outcome {
    let (config, screen) = (&context.config, &context.screen);
    let (client, status) = match addressed::meant(config).await {
        Ok(running) => running,
        Err(failure) => {
            // What a killed node left behind would mislead the next command.
            if let Some(record) = NodeRecord::read(&config.home)
                && record.process_exists() == Some(false)
            {
                record.remove(&config.home);
            }
            return Err(failure);
        }
    };
    screen.progress(&format!(
        "stopping the node at {} (pid {})",
        client.place(),
        status.pid
    ));
    match client.json(hyper::Method::POST, "/shutdown", None).await {
        // It may be gone before its answer is.
        Ok(_)
        | Err(ClientError::NotHearth(_) | ClientError::Silent(_) | ClientError::Broken(_)) => {}
        Err(error) => return Err(error.failure(client.place())),
    }
    let record = NodeRecord {
        pid: status.pid,
        address: client.place().to_string(),
        version: status.version,
    };
    let asked = Instant::now();
    loop {
        let recorded = NodeRecord::read(&config.home).is_some_and(|now| now.pid == record.pid);
        let listens = !matches!(client.status().await, Err(ClientError::Unreachable(_)));
        if !recorded && !listens && record.process_exists() != Some(true) {
            break;
        }
        if asked.elapsed() > PATIENCE {
            screen.clear();
            return Err(Failure::new(format!(
                "the node (pid {}) did not end within {} s",
                record.pid,
                PATIENCE.as_secs()
            ))
            .fix(format!("end the process yourself: kill {}", record.pid)));
        }
        tokio::time::sleep(LOOK).await;
    }
    screen.clear();
    match screen.json {
        true => println(
            &json!({"stopped": true, "pid": record.pid, "address": record.address}).to_string(),
        ),
        false => println(&format!(
            "stopped the node at {} (pid {})",
            record.address, record.pid
        )),
    }
    Ok(())
}
