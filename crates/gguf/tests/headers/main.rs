//! Headers of GGUF files, good and bad, through the public doors.
#![allow(clippy::unwrap_used)]

mod hostile;
mod meaning;
mod mutation;
mod round_trip;
mod split;
mod writer;
