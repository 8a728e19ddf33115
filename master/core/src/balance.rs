//! Evening out: who is too full, what moves where, and which chunks get one more replica because they are read much. Pure: the
//! leader's driver and its dry run call these functions.
//!
//! Balancing begins when a trigger is met, goes on until every server is within half of the band, and then moves nothing
//! before a trigger is met again. What is under way counts as if it had arrived, and everything is planned anew in each step.
//!
//! | module | holds |
//! |---|---|
//! | [`fill`] | how full servers are, and what triggers |
//! | [`plan`] | how much leaves whom, and toward whom |
//! | [`traffic`] | servers that are asked for much more than the others |
//! | [`hot`] | chunks that are read much |

pub mod fill;
pub mod hot;
pub mod plan;
pub mod traffic;

pub use fill::{Fill, Limits, Trigger, trigger};
pub use hot::Hot;
pub use plan::Plan;

#[cfg(test)]
mod tests;
