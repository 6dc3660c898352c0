//! Which node a command is for: the one that was named, or that of this home. Never one that is only found instead, where
//! something is changed for good, and never one that keeps its models elsewhere, where the command itself works on the disk.

use std::path::Path;

use hearth_protocol::status::NodeStatus;

use crate::client::Client;
use crate::config::{Config, HostPort, Key, Origin};
use crate::failure::{Exit, Failure, Outcome};
use crate::record::NodeRecord;

/// Whether a flag or `HEARTH_HOST` names one node.
pub fn is_host_said(config: &Config) -> bool {
    let said = matches!(
        config.origin(Key::Host),
        Origin::Flag(_) | Origin::Environment(_)
    );
    said && config.host.port != 0
}

/// Where commands look for the node: where a flag or `HEARTH_HOST` says; else where the node of this home recorded
/// itself; else the configured address; and if there is none, where `OLLAMA_HOST` says.
pub fn place(config: &Config) -> Client {
    if is_host_said(config) {
        return Client::new(config.host.clone());
    }
    let recorded =
        NodeRecord::read(&config.home).and_then(|record| HostPort::parse(&record.address));
    let borrowed = match config.origin(Key::Host) {
        Origin::Default => config.ollama_host.clone(),
        _ => None,
    };
    Client::new(recorded.or(borrowed).unwrap_or_else(|| config.host.clone()))
}

/// The running node of this configuration with its status.
pub async fn running(config: &Config) -> Outcome<(Client, NodeStatus)> {
    let client = place(config);
    match client.status().await {
        Ok(status) => Ok((client, status)),
        Err(error) => Err(error.failure(client.place())),
    }
}

/// The running node for a command that changes something for good: who named a home and no address means the node of that
/// home, and no other that is found instead.
///
/// # Errors
/// There is no such node, with [`Exit::NoNode`].
pub async fn meant(config: &Config) -> Outcome<(Client, NodeStatus)> {
    let (client, status) = running(config).await?;
    let own = NodeRecord::read(&config.home).is_some_and(|record| record.pid == status.pid);
    if own || *config.origin(Key::Home) == Origin::Default || is_host_said(config) {
        return Ok((client, status));
    }
    let place = client.place();
    Err(Failure {
        exit: Exit::NoNode,
        ..Failure::new(format!(
            "no node of {} runs; the one at {place} (pid {}) is of another home",
            config.home.display(),
            status.pid
        ))
    }
    .fix(format!("if that one is meant, give --host {place}")))
}

/// Makes sure that the models folder of these settings is that of the node which `--host` or `HEARTH_HOST` names, or
/// which recorded itself in this home. Without such a node there is nothing to mistake.
///
/// # Errors
/// The node keeps its models elsewhere; or there is none at the address that a flag named, and no flag named a home.
pub async fn check(config: &Config) -> Outcome {
    let client = place(config);
    let record = NodeRecord::read(&config.home);
    let recorded = record.and_then(|record| HostPort::parse(&record.address));
    if !is_host_said(config) && recorded.as_ref() != Some(client.place()) {
        return Ok(());
    }
    let by_flag = |key| matches!(config.origin(key), Origin::Flag(_));
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) if by_flag(Key::Host) && !by_flag(Key::Home) => {
            return Err(error.failure(client.place()));
        }
        Err(_) => return Ok(()),
    };
    match status.models_folder {
        Some(folder) if !is_same(Path::new(&folder), &config.models_dir) => Err(elsewhere(
            client.place(),
            Path::new(&folder),
            &config.models_dir,
        )),
        _ => Ok(()),
    }
}

/// Whether two paths are one folder.
pub fn is_same(a: &Path, b: &Path) -> bool {
    a == b || same_file::is_same_file(a, b).unwrap_or(false)
}

fn elsewhere(place: &HostPort, its: &Path, own: &Path) -> Failure {
    let how = match its.parent() {
        Some(home) if its.ends_with("models") => format!("--home {}", home.display()),
        _ => format!("HEARTH_MODELS_DIR={}", its.display()),
    };
    Failure::usage(format!(
        "the node at {place} keeps its models in {}, and this command would work in {}",
        its.display(),
        own.display()
    ))
    .fix(format!(
        "give {how} to work on that node's models; leave out --host and HEARTH_HOST to work on these"
    ))
}
