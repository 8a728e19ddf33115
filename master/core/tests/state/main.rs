//! Scenarios over the replicated state, named after the rules they keep.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests assert")]

mod formats;
mod levels;
mod names;
mod oracle;
mod overlay;
mod replicas;
mod s10_time;
mod s11_members;
mod s1_durable;
mod s2_one_truth;
mod s4_namespace;
mod s4_sessions;
mod s6_deletion;
mod s6_hold;
mod trash;
mod usage;
mod watch;
mod world;
