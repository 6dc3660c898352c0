//! Which requests were here before. Pure.
//!
//! A request's number (nonce) is remembered until its signature expires, in the bucket of that second: both are signed, so
//! a copy looks into the same bucket. Each member has room of its own, and all nodes that are none have one room together,
//! so that nobody can push out what another one sent. A full room takes nothing more: rather no request than one twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use hearth_protocol::household::NodeId;

use crate::refusal::{Code, Refusal};

/// Requests of one member that are remembered at once: over 4,000 a second for as long as a signature of ours holds.
const ROOM: usize = 131_072;
/// The same for all others together. They have little to ask: to join.
const ROOM_OF_STRANGERS: usize = 1024;

pub(super) type Nonce = [u8; 16];

/// What was here, of everybody.
#[derive(Debug, Default)]
pub(super) struct Replays {
    members: HashMap<NodeId, Seen>,
    strangers: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    /// By the second in which the signatures expire.
    buckets: BTreeMap<u64, HashSet<(NodeId, Nonce)>>,
    count: usize,
    /// Of the seconds up to this one all is forgotten. A clock that is put back does not make them new.
    forgotten: u64,
}

impl Replays {
    /// Remembers a request whose signature is good, and holds until `expires`.
    ///
    /// # Errors
    /// It was here, may have been here, or there is no room.
    pub fn remember(
        &mut self,
        node: NodeId,
        is_member: bool,
        nonce: Nonce,
        expires: u64,
        now: u64,
    ) -> Result<(), Refusal> {
        let (seen, room) = match is_member {
            true => (self.members.entry(node).or_default(), ROOM),
            false => (&mut self.strangers, ROOM_OF_STRANGERS),
        };
        seen.forget(now);
        if expires <= seen.forgotten || seen.holds(&(node, nonce), expires) {
            return Err(Refusal::new(
                Code::Replayed,
                "this request was here before; sign each one anew",
            ));
        }
        if seen.count >= room {
            return Err(Refusal::new(
                Code::TooManyRequests,
                "more requests than this node can tell from copies; send fewer, or wait a minute",
            ));
        }
        seen.buckets
            .entry(expires)
            .or_default()
            .insert((node, nonce));
        seen.count += 1;
        Ok(())
    }
}

impl Seen {
    fn holds(&self, request: &(NodeId, Nonce), expires: u64) -> bool {
        let bucket = self.buckets.get(&expires);
        bucket.is_some_and(|bucket| bucket.contains(request))
    }

    fn forget(&mut self, now: u64) {
        while let Some(first) = self.buckets.first_entry()
            && *first.key() < now
        {
            self.forgotten = *first.key();
            self.count -= first.remove().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn nonce(number: usize) -> Nonce {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn a_full_room_takes_nothing_more_and_leaves_the_others_alone() {
        let mut replays = Replays::default();
        for number in 0..ROOM {
            let new = replays.remember(node(1), true, nonce(number), 30, 0);
            assert!(new.is_ok());
        }
        let mut code = |of: u8, is_member, number, expires, now| {
            let told = replays.remember(node(of), is_member, nonce(number), expires, now);
            told.err().map(|refusal| refusal.code)
        };
        assert_eq!(code(1, true, ROOM, 30, 1), Some(Code::TooManyRequests));
        assert_eq!(
            code(1, true, 7, 30, 1),
            Some(Code::Replayed),
            "none was pushed out"
        );
        assert_eq!(
            code(2, true, 7, 30, 1),
            None,
            "another member has its own room"
        );
        for number in 0..ROOM_OF_STRANGERS {
            assert_eq!(code(3, false, number, 30, 1), None);
        }
        assert_eq!(code(4, false, 0, 30, 1), Some(Code::TooManyRequests));
        assert_eq!(
            code(2, true, 8, 30, 1),
            None,
            "strangers take no member's room"
        );
        assert_eq!(
            code(1, true, ROOM, 61, 31),
            None,
            "there is room when time has passed"
        );
        assert_eq!(
            code(1, true, 7, 30, 20),
            Some(Code::Replayed),
            "a clock put back"
        );
    }

    proptest! {
        /// Whatever comes in whatever order, and however the clock goes: no request twice.
        #[test]
        fn nothing_passes_twice(
            asked in prop::collection::vec((0_u8..3, 0_usize..6, 1_u64..60, 0_u64..90), 1..80),
        ) {
            let mut replays = Replays::default();
            let mut passed = HashSet::new();
            for (of, number, expires, now) in asked {
                let told = replays.remember(node(of), of == 0, nonce(number), expires, now);
                if told.is_ok() {
                    prop_assert!(passed.insert((of, number, expires)));
                }
            }
        }
    }
}
