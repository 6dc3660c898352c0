//! Which machine answers a prompt, and what happens when it does not: pure decisions, given the facts and the time.
//!
//! - [`choice`]: this machine and its peers, ranked by when the first token and the end are to be expected, with the
//!   reason in words;
//! - [`affinity`]: which machine holds the start of a conversation in its prefix cache;
//! - [`run`]: the asker's side of one request, from the first machine asked to the end of the answer: what is silence, who
//!   comes next, what the client hears;
//! - [`serving`]: the side of the machine that was asked.
//!
//! [`run`] and [`serving`] together keep the promise that **a request is never run twice to its end**: a machine finishes a
//! run only after its asker committed to it, and an asker commits to one machine, once. `tests/simulation.rs` holds both to
//! it over networks that lose, delay and part.
//!
//! This crate refuses I/O, clocks, and any knowledge of how a machine is reached or what a token is.

pub mod affinity;
pub mod choice;
pub mod run;
pub mod serving;

pub use affinity::Affinity;
pub use choice::{Candidate, Choice, Demand, Excluded, ModelState, Path, Why, excluded, rank};
pub use run::{Attempt, Failure, Frame, Input, Limits, Output, Run};
pub use serving::{Act, CommitWhen, Serving, Stop};
