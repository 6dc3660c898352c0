//! When a peer counts as bad, and when as good again: quick to believe a plain answer, slow to believe one bad moment, and
//! not to be played with by one that fails and works in turns. Pure.

/// Failures in a row after which a peer is bad, if none of them is hard.
const FAILURES: u32 = 2;
/// Time in which a peer that goes bad [`TRIPS`] times has to work [`SUCCESSES`] times in a row before it is good again.
const WINDOW: u64 = 300_000;
/// See [`WINDOW`].
const TRIPS: usize = 3;
/// See [`WINDOW`].
const SUCCESSES: u32 = 3;

/// One peer's, or one of its models', good and bad moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Debounce {
    bad: bool,
    failures: u32,
    successes: u32,
    /// When it went bad lately; [`TRIPS`] at most.
    trips: Vec<u64>,
    /// When it worked last.
    worked: Option<u64>,
}

impl Debounce {
    /// It worked.
    pub fn success(&mut self, now: u64) {
        self.worked = Some(now);
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        // The distance counts, whichever way the clock jumped.
        let lately = self
            .trips
            .iter()
            .filter(|trip| trip.abs_diff(now) <= WINDOW);
        let needed = if lately.count() >= TRIPS {
            SUCCESSES
        } else {
            1
        };
        if self.successes >= needed {
            self.bad = false;
        }
    }

    /// It did not. A hard failure is one that the other side told.
    pub fn failure(&mut self, now: u64, hard: bool) {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if !self.bad && (hard || self.failures >= FAILURES) {
            self.bad = true;
            if self.trips.len() == TRIPS {
                self.trips.remove(0);
            }
            self.trips.push(now);
        }
    }

    /// Whether it is bad.
    pub fn is_bad(&self) -> bool {
        self.bad
    }

    /// When it worked last.
    pub fn worked(&self) -> Option<u64> {
        self.worked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_bad_moment_is_forgiven_and_two_are_not() {
        let mut peer = Debounce::default();
        peer.success(0);
        peer.failure(1, false);
        assert!(!peer.is_bad());
        peer.failure(2, false);
        assert!(peer.is_bad());
        peer.success(3);
        assert!(!peer.is_bad());
        peer.failure(4, true);
        assert!(peer.is_bad(), "who says it himself is believed at once");
    }

    proptest! {
        /// However results alternate, in whatever rhythm and with whatever jumps of the clock within the window, a peer
        /// turns bad three times at most; with soft failures never.
        #[test]
        fn alternating_results_do_not_flap(
            times in prop::collection::vec(0..WINDOW, 1..400),
            hard in any::<bool>(),
        ) {
            let mut peer = Debounce::default();
            let mut turns = 0;
            for (index, now) in times.iter().enumerate() {
                let before = peer.is_bad();
                if index % 2 == 0 {
                    peer.failure(*now, hard);
                } else {
                    peer.success(*now);
                }
                turns += usize::from(before != peer.is_bad());
            }
            prop_assert!(turns <= if hard { 2 * TRIPS } else { 0 }, "{turns} turns");
        }

        /// Of any results, a turn to the bad after the third within the window has three successes before it.
        #[test]
        fn turns_are_bounded_by_successes(results in prop::collection::vec((any::<bool>(), any::<bool>()), 1..400)) {
            let mut peer = Debounce::default();
            let mut trips = 0usize;
            for (index, (works, hard)) in results.iter().enumerate() {
                let before = peer.is_bad();
                if *works {
                    peer.success(index as u64);
                } else {
                    peer.failure(index as u64, *hard);
                }
                trips += usize::from(!before && peer.is_bad());
            }
            let successes = results.iter().filter(|(works, _)| *works).count();
            prop_assert!(trips <= TRIPS + successes / SUCCESSES as usize + 1);
        }

        /// It always comes back: enough successes in a row make it good.
        #[test]
        fn good_times_are_believed(results in prop::collection::vec((any::<bool>(), any::<u64>()), 0..100), now in any::<u64>()) {
            let mut peer = Debounce::default();
            for (works, at) in results {
                if works { peer.success(at) } else { peer.failure(at, true) }
            }
            for _ in 0..SUCCESSES {
                peer.success(now);
            }
            prop_assert!(!peer.is_bad());
        }
    }
}
