//! Who is who: keys, tickets, the roster and signed requests. No network.
#![allow(clippy::unwrap_used)]

mod answer;
mod identity;
mod roster;
mod signature;
mod ticket;
