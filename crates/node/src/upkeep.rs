//! Looking after the memories as long as a process serves them: what was read is noted, what has no vector is encoded,
//! files are written, and in a process that lives long the approximate index grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_memory::Memories;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// How often.
const EVERY: Duration = Duration::from_secs(30);

/// Goes on until it is dropped.
pub(crate) struct Upkeep {
    task: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
}

impl Upkeep {
    /// Begins at once. Searches of more than `exact_until` memories get the approximate index; with `None` all are exact.
    pub(crate) fn begin(memories: Memories, exact_until: Option<usize>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(look_after(memories, exact_until, Arc::clone(&stopping)));
        Self { task, stopping }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.task.abort();
        // What is done at the moment ends at its next step, so that the process can.
        self.stopping.store(true, Ordering::Relaxed);
    }
}

async fn look_after(memories: Memories, exact_until: Option<usize>, stopping: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let memories = memories.clone();
        let stopping = Arc::clone(&stopping);
        let upkeep = move || {
            let goes_on = || !stopping.load(Ordering::Relaxed);
            memories.upkeep(&mut |_, _| goes_on())?;
            match exact_until {
                Some(until) => memories.approximate(until, &goes_on),
                None => Ok(()),
            }
        };
        match tokio::task::spawn_blocking(upkeep).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "memories could not be looked after"),
            Err(error) => tracing::warn!(%error, "memories could not be looked after"),
        }
    }
}
