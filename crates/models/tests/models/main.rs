//! Models on their way to the disk, over real sockets and with real files, and everything that can go wrong there.
#![allow(clippy::unwrap_used)]

mod encoders;
mod faults;
mod household;
mod interrupted;
mod keeping;
mod pulling;
mod secure;
mod sharing;
mod split;
