//! Keeps the rules where they are: a VPN client writes its own ruleset anew when it reconnects, and ours go with the old
//! one.
//!
//! `nft monitor` says when something changes, so that a repair takes a fraction of a second; a look every [`POLL`] makes
//! up for what it misses, or for its absence.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::nft::Nft;
use super::plan::Plan;
use super::{FirewallError, Settings};

/// Longest time between two looks.
const POLL: Duration = Duration::from_secs(2);

/// Shortest time between two looks: others may change the ruleset all the time.
const REST: Duration = Duration::from_millis(250);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// What is owed is in; from now on it is kept there. Told once.
    Ready,
    /// Rules were missing, or had no use any more.
    Repaired(Plan),
    /// It could not be seen to. The next look comes; the same failure is told once.
    Failed(FirewallError),
    /// A look after a failure went well.
    Recovered,
}

enum Wake {
    Changed,
    Stop,
}

/// Ends a [`Watch`]; the rules stay.
#[derive(Debug, Clone)]
pub struct Stop(Sender<Wake>);

impl Stop {
    /// Ends it before its next look.
    pub fn stop(&self) {
        // One that has ended needs no telling.
        let _ = self.0.send(Wake::Stop);
    }
}

/// A watch over the rules.
#[derive(Debug)]
pub struct Watch {
    nft: Nft,
    wake: Sender<Wake>,
    woken: Receiver<Wake>,
}

impl Watch {
    /// Over this firewall.
    pub fn new(nft: Nft) -> Self {
        let (wake, woken) = channel();
        Self { nft, wake, woken }
    }

    /// What ends it.
    pub fn stop(&self) -> Stop {
        Stop(self.wake.clone())
    }

    /// Watches until it is stopped. Blocks. `settings` is asked before each look, because interfaces come and go.
    ///
    /// # Errors
    /// When nft is absent or not allowed at the start: nothing would be kept.
    pub fn run(
        self,
        mut settings: impl FnMut() -> Settings,
        mut tell: impl FnMut(Event),
    ) -> Result<(), FirewallError> {
        let mut monitor = Monitor::default();
        let mut ready = false;
        let mut failure: Option<String> = None;
        loop {
            // Before the look, so that no change falls between the two.
            monitor.see_to(&self.nft, &self.wake);
            match self.nft.install(&settings()) {
                Ok(plan) => {
                    if failure.take().is_some() {
                        tell(Event::Recovered);
                    }
                    if !plan.is_settled() {
                        tell(Event::Repaired(plan));
                    }
                    if !ready {
                        ready = true;
                        tell(Event::Ready);
                    }
                }
                Err(error) => {
                    let hopeless = matches!(
                        error,
                        FirewallError::Missing
                            | FirewallError::NotAllowed
                            | FirewallError::NotLinux
                    );
                    if hopeless && !ready {
                        return Err(error);
                    }
                    let words = error.to_string();
                    if failure.as_ref() != Some(&words) {
                        tell(Event::Failed(error));
                    }
                    failure = Some(words);
                }
            }
            if self.rest() {
                return Ok(());
            }
        }
    }

    /// Waits for the next look; true for the end.
    fn rest(&self) -> bool {
        let begun = Instant::now();
        let mut until = begun + POLL;
        loop {
            match self
                .woken
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                Ok(Wake::Changed) => until = until.min(begun + REST),
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// `nft monitor`, started again when it ended.
#[derive(Default)]
struct Monitor(Option<Child>);

impl Monitor {
    fn see_to(&mut self, nft: &Nft, wake: &Sender<Wake>) {
        let runs = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if self.0.as_mut().is_some_and(runs) {
            return;
        }
        self.0 = nft.monitor().ok();
        let Some(pipe) = self.0.as_mut().and_then(|child| child.stdout.take()) else {
            return;
        };
        let wake = wake.clone();
        std::thread::spawn(move || {
            // Ends with the monitor, which ends with the watch.
            for line in BufReader::new(pipe).lines() {
                if line.is_err() || wake.send(Wake::Changed).is_err() {
                    return;
                }
            }
        });
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
