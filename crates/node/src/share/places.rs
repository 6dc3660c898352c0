//! Places for transfers: few in all, because more would only make each slower, and fewer for one machine, so that it
//! cannot keep the others out.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files read at once.
const MOST: usize = 96;
/// Of these, by one address. One pull reads six; several machines may stand behind one address.
const MOST_OF_ONE: usize = 48;

/// Who holds how many places. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    peer: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    All,
    /// The one who asks holds as many as one may.
    One,
}

impl fmt::Display for Full {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(out, "{MOST} files are being read; try again in a moment"),
            Self::One => write!(
                out,
                "this address reads {MOST_OF_ONE} files at once already; end one of them first"
            ),
        }
    }
}

impl Places {
    /// A place for this peer.
    pub fn take(&self, peer: IpAddr) -> Result<Place, Full> {
        let peer = network(peer);
        let mut held = self.held();
        if held.values().sum::<usize>() >= MOST {
            return Err(Full::All);
        }
        let own = held.entry(peer).or_default();
        if *own >= MOST_OF_ONE {
            return Err(Full::One);
        }
        *own += 1;
        Ok(Place {
            places: self.clone(),
            peer,
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Numbers are whole even if somebody panicked beside them.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        if let Some(own) = held.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

/// What counts as one address: a machine has many of IPv6, all of one network of 64 bits.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_all_come_back() {
        let places = Places::default();
        let peer = |number: u8| IpAddr::from([192, 0, 2, number]);
        let mut taken: Vec<Place> = Vec::new();
        for number in 1..=2 {
            for _ in 0..MOST_OF_ONE {
                taken.push(places.take(peer(number)).unwrap());
            }
            let full = if number < 2 { Full::One } else { Full::All };
            assert_eq!(places.take(peer(number)).unwrap_err(), full);
        }
        assert_eq!(places.take(peer(5)).unwrap_err(), Full::All);
        taken.pop();
        taken.push(places.take(peer(5)).unwrap());
        drop(taken);
        assert!(places.held().is_empty());
    }

    #[test]
    fn the_many_addresses_of_one_machine_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1:2:3:4"), of("2001:db8::"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
