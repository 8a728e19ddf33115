//! The master's replicated state and its decisions, as plain data in and plain data out.
//!
//! Everything here is deterministic: time, chance and what servers say are resolved by the leader before a command
//! is proposed and travel in it. This crate must not know tokio, gRPC, RocksDB, files, sockets or clocks.
//!
//! | module | holds |
//! |---|---|
//! | [`command`] | what may change the replicated state, and its bytes in the log |
//! | [`reply`] | what applying a command answers, and its bytes in a session's results |
//! | [`tables`] | the sorted tables that the state lives in, and the overlay that a command writes to |
//! | [`rows`], [`keys`] | what the tables hold, byte for byte |
//! | [`feature`] | which commands may be applied while masters run different builds |
//! | [`apply`] | one command → changes and an answer; `namespace`, `chunks`, `sessions`, `cluster` hold one operation a file |
//! | `events` | what changed of late, for those who watch: written by apply, bounded |
//! | [`query`] | reads |
//! | [`agreement`] | whether all replicas hold the same |
//! | [`detector`], [`placement`], [`seal`] | decisions of the leader: who is alive, who takes a chunk, where a chunk ends |
//! | [`repair`] | what a chunk lacks, what is done about it, in which order and how fast |
//! | [`balance`] | who is too full, what moves where, and which chunks are read so much that they get one more replica |
//! | [`running`] | the leader's clock without the time in which it was stopped |
//! | [`staleness`] | whether a read that may be a little old is answered here |
//! | [`settings`] | what an operator may set, with defaults and bounds |
//! | [`limits`] | the numbers that bound the tables and the work of one command |

#[macro_use]
mod wire;

pub mod agreement;
pub mod apply;
pub mod balance;
mod chunks;
mod cluster;
pub mod command;
pub mod detector;
mod events;
pub mod feature;
pub mod keys;
pub mod limits;
mod namespace;
pub mod placement;
pub mod query;
pub mod repair;
pub mod reply;
pub mod rows;
pub mod running;
pub mod seal;
mod sessions;
pub mod settings;
pub mod staleness;
mod state;
pub mod tables;

pub use wire::DecodeError;
