//! The cluster in a bottle, with the real code: masters, chunkservers, clients and an operator in one process, on simulated
//! network, disks, clocks and chance (`env/sim`). A seed decides everything, so that a run that failed can be had again.
//!
//! | module | holds |
//! |---|---|
//! | [`scenario`] | what can be run |
//! | `shape` | what a seed picks: masters, servers, knobs, durability, workload, faults |
//! | `cluster`, `masters` | the machines, and what runs on them |
//! | `chaos`, `faults`, `moments` | what happens to them, within the fault budget, and the healing |
//! | `put`, `image`, `deposed`, `lapsed` | short scenarios with a plot of their own; `plot` is what they share |
//! | `worker`, `mortal`, `together`, `operator`, `linear` | who works meanwhile, and remembers what it was told |
//! | `books`, `truth`, `watched` | what is written to state, logs and disks, seen past every process |
//! | `checkers` | one file for each safety rule S1 to S11 |
//! | `settled` | what a cluster must come to when nothing fails any more |
//! | [`planted`] | bugs on purpose, and how many seeds they need to be caught |
//! | [`seeds`] | seeds in processes of their own; comparing two runs; what a replay shows |
//! | [`trace`] | what is said in a run |
//!
//! It must not be linked by anything that is shipped (`tests/tests/architecture.rs`).

// A run that finds something wrong ends by saying so: a panic is how, and there is nobody here whom it could hurt. The
// disks are simulated, and what stands on them in another form than expected is a finding as well.
#![allow(clippy::panic, clippy::expect_used, reason = "findings are panics")]

mod books;
mod calm;
mod chaos;
mod checkers;
mod cluster;
mod data;
mod deposed;
mod faults;
mod image;
mod lapsed;
pub mod linear;
mod masters;
mod moments;
mod mortal;
mod operator;
pub mod planted;
mod plot;
mod put;
pub mod scenario;
pub mod seeds;
mod settled;
mod shape;
mod together;
pub mod trace;
mod truth;
mod watched;
mod worker;

pub use scenario::Scenario;
