//! The thread of a model: takes what the engine asks, gives its [`Workload`] one turn after the other, and ends when told
//! to or when nobody asked for long enough. Requests come in and events go out through channels; nothing else touches
//! the model's context.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use crate::EngineError;
use crate::counters::Counters;
use crate::embed;
use crate::llama::Adapter;
use crate::task::Task;

/// How long nothing must run before there is leisure: who got an answer often asks on at once.
const SETTLE: Duration = Duration::from_millis(100);

/// Where an outcome is waited for.
pub(crate) type Reply<T> = tokio::sync::oneshot::Sender<Result<T, String>>;

/// What the engine asks of a model's thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Answer the choices of a request. For a model that generates.
    Run(Vec<Task>),
    /// Compute the vectors of a request. For an embedding model.
    Embed(embed::Job),
    /// Load an adapter. Here, because llama.cpp notes it in the model, which a running batch reads.
    LoadAdapter(PathBuf, Reply<Arc<Adapter>>),
    /// Look again how long to wait for the next command.
    Keep,
    /// End after the running tasks; what waits is refused.
    Unload,
    /// End now; what runs is refused too.
    Stop,
}

impl Command {
    /// Refuses what the engine does not send to models of this kind.
    pub fn refuse(self, counters: &Counters) {
        match self {
            Self::Run(tasks) => {
                counters.leave_queue(tasks.len());
                for task in tasks {
                    task.fail(EngineError::Unloaded);
                }
            }
            Self::Embed(job) => {
                counters.leave_queue(1);
                job.fail(EngineError::Unloaded);
            }
            Self::LoadAdapter(_, reply) => {
                let _ = reply.send(Err("an embedding model takes no adapters".into()));
            }
            Self::Keep | Self::Unload | Self::Stop => {}
        }
    }
}

/// What a model's thread works on.
pub(crate) trait Workload {
    /// Where it tells how far it is.
    fn counters(&self) -> &Counters;

    /// Whether nothing runs or waits.
    fn is_idle(&self) -> bool;

    /// Takes new work.
    fn take(&mut self, command: Command);

    /// Drops the work of clients that went away, begins what there is room for, and computes one batch.
    fn turn(&mut self);

    /// Whether there is something to do when nothing has run for a moment.
    fn has_leisure(&self) -> bool {
        false
    }

    /// A little of that.
    fn leisure(&mut self) {}

    /// Refuses what waits.
    fn refuse_waiting(&mut self);

    /// Refuses what runs.
    fn refuse_running(&mut self);

    /// Brings the counters up to date.
    fn publish(&self);
}

/// Works until told to unload, or until idle for as long as the counters say.
pub(crate) fn run(mut workload: impl Workload, mut commands: UnboundedReceiver<Command>) {
    let mut unloading = false;
    loop {
        let first = if workload.is_idle() {
            workload.publish();
            if unloading {
                return;
            }
            // Who waited for the model to load needs a moment to send its work.
            let keep_alive = workload.counters().rest().map(|time| time.max(SETTLE));
            // A request that is being prepared has its place in the queue already.
            let expecting = workload.counters().queued.load(Ordering::Acquire) > 0;
            // What goes at once needs no preparation for what may come.
            let settling = workload.has_leisure() && keep_alive != Some(SETTLE);
            let patience = match settling || expecting {
                true => Some(SETTLE),
                false => keep_alive,
            };
            match receive(&mut commands, patience) {
                Some(command) => Some(command),
                None if (settling || expecting) && !commands.is_closed() => {
                    workload.leisure();
                    continue;
                }
                None => {
                    // Work that arrives between the time-out and the close is not lost: it is refused below.
                    commands.close();
                    unloading = true;
                    None
                }
            }
        } else {
            None
        };
        let mut next = first.map_or_else(|| commands.try_recv(), Ok);
        loop {
            match next {
                Ok(Command::Unload) => unloading = true,
                Ok(Command::Stop) => {
                    unloading = true;
                    workload.refuse_running();
                }
                Ok(command) => workload.take(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    unloading = true;
                    break;
                }
            }
            next = commands.try_recv();
        }
        if unloading {
            // Who comes from now on is told at once and loads the model again.
            commands.close();
            workload.refuse_waiting();
        }
        workload.turn();
        workload.publish();
    }
}

/// The next command; `None` when none came for `keep_alive` or nobody can send one any more.
fn receive(
    commands: &mut UnboundedReceiver<Command>,
    keep_alive: Option<Duration>,
) -> Option<Command> {
    let Some(keep_alive) = keep_alive else {
        return commands.blocking_recv();
    };
    let timer = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .ok()?;
    timer.block_on(async {
        tokio::time::timeout(keep_alive, commands.recv())
            .await
            .ok()
            .flatten()
    })
}
