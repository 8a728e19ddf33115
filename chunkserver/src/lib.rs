//! A chunkserver: keeps replicas of chunks on its disks, takes bytes from writers, passes them on, and gives them back.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | settings: command line, environment, file |
//! | [`server`] | a running server: starts and stops the rest |
//! | `copy` | pulls sealed chunks from other servers |
//! | `control` | the conversation with the master that leads |
//! | `data` | the data port: writes, the pipeline, reads |
//! | [`store`] | the replicas: files, index, recovery, seals, fences, tombstones, the disks' health |
//! | `scrub` | reads sealed replicas again in the background |
//! | `vitals`, `traffic`, `readers`, `cpu` | looks after the disks; the figures that beats and metrics show |
//! | `http` | metrics, and whether the server is ready |
//!
//! Decisions and formats are in `quarry-chunkserver-core`. This crate must not know the namespace: a chunk is a number.

pub mod config;
mod control;
mod copy;
mod cpu;
mod data;
mod http;
mod readers;
mod scrub;
pub mod server;
pub mod store;
mod traffic;
mod vitals;
