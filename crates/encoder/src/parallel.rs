//! Numbered jobs on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads to use where the caller does not say: as many as the process may run at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs jobs 0 to `jobs` on at most `threads` threads, this one among them, and gives their results in order. Each
/// thread makes itself a `state` first. After an error no new job begins; the first error by number is returned.
pub(crate) fn run<S, T: Send, E: Send>(
    jobs: usize,
    threads: usize,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(jobs));
    let work = || {
        let mut state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= jobs {
                return;
            }
            let result = job(&mut state, number);
            if result.is_err() {
                next.store(jobs, Ordering::Relaxed);
            }
            let mut results = results.lock().unwrap_or_else(|lock| lock.into_inner());
            results.push((number, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(jobs) {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(|lock| lock.into_inner());
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
