//! Which servers take a chunk: hard filters, then a weighted score, then a draw among the best.
//!
//! | module | holds |
//! |---|---|
//! | [`candidate`] | a chunkserver as the leader knows it |
//! | [`filter`] | what rules a candidate out, in order, with the figures |
//! | [`mod@score`] | the four terms of a score and their weights |
//! | [`draw`] | the choice among the best few |
//! | [`mod@place`] | servers for a new chunk |
//! | [`vitals`] | whether a server is well enough to be given something new |
//! | [`explain`] | every filter and every term of every candidate, in words |
//!
//! New chunks, repair, balancing, `quarry explain` and the simulator all go through here.

pub mod candidate;
pub mod draw;
pub mod explain;
pub mod filter;
pub mod place;
pub mod score;
pub mod vitals;

pub use candidate::Candidate;
pub use filter::Filter;
pub use place::{PlacementError, Request, place};
pub use score::{Score, Weights, score};
