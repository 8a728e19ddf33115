//! A chunkserver: keeps replicas of chunks on its disks, takes bytes from writers, passes them on, and gives them back.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | settings: command line, environment, file |
//! | [`server`] | a running server: starts and stops the rest |
//! | `control` | the conversation with the master that leads |
//! | `data` | the data port: writes, the pipeline, reads |
//! | [`store`] | the replicas: files, index, recovery, seals, fences, tombstones |
//!
//! Decisions and formats are in `quarry-chunkserver-core`. This crate must not know the namespace: a chunk is a number.

pub mod config;
mod control;
mod data;
pub mod server;
pub mod store;
