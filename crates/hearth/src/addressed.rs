//! Whose models a command works on that reads and writes the disk: those of the node that it was sent to, or nobody's.
//!
//! Such a command asks no node to do its work, so an address alone would not lead it to the right folder.

use std::path::Path;

use crate::answer;
use crate::config::{Config, HostPort, Key, Origin};
use crate::failure::{Failure, Outcome};
use crate::record::NodeRecord;

/// Makes sure that the models folder of these settings is that of the node which `--host` or `HEARTH_HOST` names, or
/// which recorded itself in this home. Without such a node there is nothing to mistake.
///
/// # Errors
/// The node keeps its models elsewhere; or there is none at the address that a flag named, and no flag named a home.
pub async fn check(config: &Config) -> Outcome {
    let client = answer::place(config);
    let record = NodeRecord::read(&config.home);
    let recorded = record.and_then(|record| HostPort::parse(&record.address));
    if !answer::is_host_said(config) && recorded.as_ref() != Some(client.place()) {
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
