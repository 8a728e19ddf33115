//! Everything that two processes must agree on, and nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`v1`] | the gRPC services and messages, made from the `.proto` files |
//! | [`frame`] | the frames of the data port |
//! | [`convert`] | messages to and from the types of `quarry-types` |
//! | [`backup`] | the file that a backup of the metadata is |
//! | [`signed`] | messages that carry a signature |
//! | [`error`] | errors to and from gRPC statuses and failure frames |
//!
//! This crate must not know files, servers' state or who calls whom.

pub mod backup;
pub mod convert;
pub mod error;
pub mod frame;
pub mod signed;

pub use error::WireError;

/// The generated messages and services.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]
pub mod v1 {
    tonic::include_proto!("quarry.v1");
}

/// Version of the data port's frames and of the gRPC services. A peer that speaks another is refused with
/// both numbers.
pub const PROTOCOL_VERSION: u32 = 1;

/// gRPC metadata key of the request id, which goes from the CLI through master and chunkservers into every log line.
pub const REQUEST_ID: &str = "quarry-request-id";
