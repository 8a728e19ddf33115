//! Repair: what a chunk needs, what is done about it, in which order and how fast. Pure: the leader's driver, `quarry explain`
//! and the simulator call these functions.
//!
//! | module | holds |
//! |---|---|
//! | [`facts`] | a chunk and the cluster as the leader knows them |
//! | [`need`] | what a chunk lacks or has too much of |
//! | [`mod@decide`] | the next step for one chunk, or why there is none |
//! | [`rank`] | which chunk comes first |
//! | [`queue`] | every chunk that is not as it should be: the ledger |
//! | [`budget`] | how many copies at once, and how many bytes |
//! | [`mod@brake`] | too many servers went at once |
//! | [`policy`] | what an operator set |

pub mod brake;
pub mod budget;
pub mod decide;
pub mod facts;
pub mod need;
pub mod policy;
pub mod queue;
pub mod rank;

pub use brake::brake;
pub use decide::{Decision, Reason, decide};
pub use facts::{ChunkFacts, Cluster, Holder, Quality};
pub use need::{Need, assess};
pub use policy::Policy;
pub use queue::Queue;
