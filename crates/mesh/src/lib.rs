//! The mesh: who the nodes of a household are, how they reach each other, and what is wrong when they do not.

pub mod diagnosis;
pub mod doors;
pub mod firewall;
pub mod http;
pub mod identity;
pub mod peers;
pub mod quic;
pub mod refusal;
pub mod roster;
pub mod signature;
pub mod ticket;
