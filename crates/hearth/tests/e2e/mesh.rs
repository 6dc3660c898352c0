//! A household of real machines: each a network namespace with a node of its own, on one network that the test makes and
//! breaks. No namespace has a way to the internet.
//!
//! They need root, `ip`, `nft` and `faketime`; without namespaces they say so and pass. What is said of each
//! fault is in `docs/FAULTS.md`.

#![cfg(target_os = "linux")]

mod faults;
mod firewall;
mod lan;
mod members;
mod one;
