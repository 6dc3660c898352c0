//! Who is connected, and how many may be: pure, so that the bounds can be tested alone.
//!
//! Strangers share few places, however many keys they make up, and so cannot keep a member out. One key has few places,
//! and its newest connection takes the oldest one's: after a restart it is the newest that lives.

use std::collections::HashMap;
use std::time::Instant;

use hearth_protocol::household::NodeId;

/// Connections that all strangers together may make to this node.
pub const STRANGERS: usize = 16;
/// Connections with one key; another one takes the oldest one's place.
pub const PER_KEY: usize = 4;

/// What kind of connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// We dialled it.
    Dialled,
    /// A member dialled us.
    Member,
    /// Somebody else dialled us.
    Stranger,
}

#[derive(Debug)]
struct Place<C> {
    number: u64,
    class: Class,
    since: Instant,
    connection: C,
}

/// All connections.
#[derive(Debug)]
pub struct Table<C> {
    next: u64,
    places: HashMap<NodeId, Vec<Place<C>>>,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self {
            next: 0,
            places: HashMap::new(),
        }
    }
}

/// A connection that has a place now.
#[derive(Debug, PartialEq, Eq)]
pub struct Entered<C> {
    /// Its name in the table.
    pub number: u64,
    /// The connection of the same key whose place it took.
    pub displaced: Option<C>,
}

/// There is no place for another stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<C: Clone> Table<C> {
    /// Gives a connection a place.
    pub fn enter(
        &mut self,
        peer: NodeId,
        class: Class,
        connection: C,
        now: Instant,
        is_live: impl Fn(&C) -> bool,
    ) -> Result<Entered<C>, Full> {
        self.places.retain(|_, places| {
            places.retain(|place| is_live(&place.connection));
            !places.is_empty()
        });
        let oldest = self.places.get(&peer).filter(|own| own.len() >= PER_KEY);
        let swaps = oldest.is_some_and(|own| own[0].class == Class::Stranger);
        if class == Class::Stranger && !swaps && self.strangers() >= STRANGERS {
            return Err(Full);
        }
        let number = self.next;
        self.next += 1;
        let places = self.places.entry(peer).or_default();
        let displaced = (places.len() >= PER_KEY).then(|| places.remove(0).connection);
        places.push(Place {
            number,
            class,
            since: now,
            connection,
        });
        Ok(Entered { number, displaced })
    }

    fn strangers(&self) -> usize {
        let all = self.places.values().flatten();
        all.filter(|place| place.class == Class::Stranger).count()
    }

    /// A stranger became a member.
    pub fn promote(&mut self, peer: NodeId, number: u64) {
        let mut places = self.places.get_mut(&peer).into_iter().flatten();
        if let Some(place) = places.find(|place| place.number == number) {
            place.class = Class::Member;
        }
    }

    /// The newest live connection with a peer, and since when it is.
    pub fn newest(&self, peer: NodeId, is_live: impl Fn(&C) -> bool) -> Option<(C, Instant)> {
        let places = self.places.get(&peer)?;
        let place = places
            .iter()
            .rev()
            .find(|place| is_live(&place.connection))?;
        Some((place.connection.clone(), place.since))
    }

    /// Forgets a connection that ended.
    pub fn remove(&mut self, peer: NodeId, number: u64) {
        if let Some(places) = self.places.get_mut(&peer) {
            places.retain(|place| place.number != number);
            if places.is_empty() {
                self.places.remove(&peer);
            }
        }
    }

    /// Forgets a peer.
    pub fn take(&mut self, peer: NodeId) -> Vec<C> {
        let places = self.places.remove(&peer).unwrap_or_default();
        places.into_iter().map(|place| place.connection).collect()
    }

    /// Forgets everybody.
    pub fn take_all(&mut self) -> Vec<C> {
        let all = std::mem::take(&mut self.places).into_values().flatten();
        all.map(|place| place.connection).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// What happens to a table: somebody of a few keys connects, or the connection made so many before dies.
    #[derive(Debug, Clone)]
    enum Event {
        Enters(u8, Class),
        Dies(usize),
        Joins(u8),
    }

    fn event() -> impl Strategy<Value = Event> {
        let class = prop_oneof![
            1 => Just(Class::Dialled),
            1 => Just(Class::Member),
            4 => Just(Class::Stranger),
        ];
        prop_oneof![
            4 => (0..30_u8, class).prop_map(|(key, class)| Event::Enters(key, class)),
            1 => (0..20_usize).prop_map(Event::Dies),
            1 => (0..30_u8).prop_map(Event::Joins),
        ]
    }

    fn peer(key: u8) -> NodeId {
        NodeId([key; 32])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bounds_hold_whoever_connects(events in proptest::collection::vec(event(), 0..150)) {
            let mut table = Table::default();
            let (mut dead, mut made, mut newest) = (HashSet::new(), 0_usize, HashMap::new());
            for event in events {
                match event {
                    Event::Enters(key, class) => {
                        let number = made;
                        made += 1;
                        let now = Instant::now();
                        let live = |connection: &usize| !dead.contains(connection);
                        match table.enter(peer(key), class, number, now, live) {
                            Ok(entered) => {
                                prop_assert_ne!(entered.displaced, Some(number));
                                newest.insert(key, (number, entered.number));
                                dead.extend(entered.displaced);
                            }
                            Err(Full) => prop_assert_eq!(class, Class::Stranger),
                        }
                    }
                    Event::Dies(back) => {
                        dead.extend(made.checked_sub(back + 1));
                    }
                    Event::Joins(key) => {
                        if let Some((_, number)) = newest.get(&key) {
                            table.promote(peer(key), *number);
                        }
                    }
                }
                let live = |connection: &usize| !dead.contains(connection);
                prop_assert!(table.strangers() <= STRANGERS);
                for (key, (number, _)) in &newest {
                    prop_assert!(table.places.get(&peer(*key)).map_or(0, Vec::len) <= PER_KEY);
                    if live(number) {
                        prop_assert_eq!(table.newest(peer(*key), live).unwrap().0, *number);
                    }
                }
            }
            for (key, (_, number)) in newest {
                table.remove(peer(key), number);
                table.take(peer(key));
            }
            prop_assert!(table.take_all().is_empty());
        }
    }

    #[test]
    fn strangers_never_keep_a_member_out() {
        let mut table = Table::default();
        let mut enter = |key, class| {
            let entered = table.enter(peer(key), class, key, Instant::now(), |_| true);
            entered.map(|entered| entered.displaced)
        };
        for key in 0..STRANGERS as u8 {
            assert_eq!(enter(key, Class::Stranger), Ok(None));
        }
        assert_eq!(enter(100, Class::Stranger), Err(Full));
        assert_eq!(enter(101, Class::Member), Ok(None));
        assert_eq!(enter(102, Class::Dialled), Ok(None));
    }
}
