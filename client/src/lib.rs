//! The client of a Quarry cluster: files that are written to several machines and verified when they are read.
//!
//! It finds the leading master, retries what may be retried, writes chunks through a pipeline of chunkservers and goes on
//! elsewhere when one of them fails, and reads from another replica when one is slow, gone or wrong. See [`Client`] for
//! an example.
//!
//! | module | does |
//! |---|---|
//! | `client`, `namespace`, `trash` | the handle; names: look up, list, move, remove, take back |
//! | `stale` | look-ups that any master may answer, a little late |
//! | `admin`, `settings` | what operators ask, order and set |
//! | `watch` | what changes, as a stream |
//! | `writer` | a file being written: window, packets, seal-and-continue |
//! | `reader` | a file being read: verification, failover, hedging, fetching ahead |
//! | `masters`, `session`, `ops`, `retry` | the leader, at-most-once, the schedule of attempts |
//! | `pool`, `breaker`, `hedge` | connections to chunkservers, whom to ask last, when to ask a second |
//! | `local` | chunks of servers on the same machine, read from their files |
//! | [`channel`], [`leader`] | gRPC connections to masters; who leads when the one that led is silent |
//! | [`frames`] | the data port's frames on a byte stream |
//! | [`idle`] | connections that are used again |
//! | [`reused`] | memory that is written over again and again |
//!
//! This crate must not know how servers store or decide anything; it knows what `quarry-proto` says.
//!
//! # Cancelling
//! Futures of this crate may be dropped. A read that is dropped did nothing. A mutation that is dropped may or may not
//! have happened. What a [`FileWriter`] accepted stays accepted.

mod admin;
mod breaker;
mod buffers;
pub mod channel;
mod client;
mod config;
mod error;
pub mod frames;
mod hedge;
pub mod idle;
mod info;
pub mod leader;
mod local;
mod masters;
mod metadata;
mod namespace;
mod ops;
mod pool;
mod reader;
mod retry;
pub mod reused;
mod session;
mod settings;
mod stale;
mod trash;
mod watch;
mod writer;

pub use client::Client;
pub use config::{ClientConfig, CreateMode, CreateOptions};
pub use error::ClientError;
pub use info::{ChunkInfo, ChunkState, FileInfo, FileKind, ListPage, ReplicaInfo, Usage};
pub use metadata::MetadataBackup;
pub use quarry_types::{ChunkId, Crc32, ErrorCode, InodeId, Lineage, ReplicaState, Revision, RevisionError, ServerId};
pub use reader::{FileReader, ReadStats};
pub use settings::Setting;
pub use trash::TrashEntry;
pub use watch::{Change, ChangeKind, Event, FileChange, MoveChange, PlaceChange, Watch, WatchFrom, WatchOptions};
pub use writer::{FileWriter, Finished, WriteStats};
