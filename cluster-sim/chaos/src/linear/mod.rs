//! Histories: what clients asked of a few names and were told, and whether one namespace can have behaved so (S4).
//!
//! `history` and `model` also judge what real processes do (`tests/tests/linear.rs`).

#[cfg(test)]
mod bites;
pub mod history;
pub(crate) mod load;
pub mod model;
