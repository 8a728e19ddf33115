//! The things of the world: chunks, servers, and the network between them. They know nothing of masters.
//!
//! | module | holds |
//! |---|---|
//! | [`chunks`] | which replica of which chunk is on which disk, in 16 bytes a chunk |
//! | [`server`] | a chunkserver: its disks, what it holds, and what is wrong with it |
//! | [`network`] | copies under way, and the bandwidth they share |
//! | [`layout`] | where the chunks of a new cluster are |

pub mod chunks;
pub mod layout;
pub mod network;
pub mod server;
