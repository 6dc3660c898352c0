//! Places for transfers: few in all, because more would only make each slower, and fewer for one machine, so that it
//! cannot keep the others out.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files read at once.
const MOST: usize = 64;
/// Of these, by one address.
const MOST_OF_ONE: usize = 16;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_all_come_back() {
        let places = Places::default();
        let peer = |number: u8| IpAddr::from([192, 0, 2, number]);
        let mut taken: Vec<Place> = Vec::new();
        for number in 1..=4 {
            for _ in 0..MOST_OF_ONE {
                taken.push(places.take(peer(number)).unwrap());
            }
            let full = if number < 4 { Full::One } else { Full::All };
            assert_eq!(places.take(peer(number)).unwrap_err(), full);
        }
        assert_eq!(places.take(peer(5)).unwrap_err(), Full::All);
        taken.pop();
        taken.push(places.take(peer(5)).unwrap());
        drop(taken);
        assert!(places.held().is_empty());
    }
}
