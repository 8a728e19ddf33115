//! Requests of clients as commands of the core.

use std::time::Duration;

use quarry_env::World;
use quarry_master_core::{
    command::{ChunkRef, CreateMode, OpId},
    reply::{FileKind, FileView},
    staleness::Allowed,
};
use quarry_proto::{WireError, convert, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, SessionId};
use tonic::metadata::MetadataMap;

use crate::{error::fault, reading::Reading, service::grpc_deadline};

/// How a read is to be answered that came now.
pub(super) fn reading(world: &World, metadata: &MetadataMap, stale_ok: Option<v1::StaleOk>) -> Reading {
    let asked = stale_ok.filter(|stale_ok| stale_ok.within_ms > 0);
    let allowed = asked.map(|asked| Allowed { within: Duration::from_millis(asked.within_ms), seen: asked.seen });
    Reading { came: world.clock.boot(), patience: grpc_deadline(metadata), allowed }
}

pub(super) fn op(op: Option<v1::OpId>) -> Result<OpId, WireError> {
    let op = convert::required(op, "op")?;
    Ok(OpId { session: SessionId(op.session), sequence: op.sequence, acknowledged_below: op.acknowledged_below })
}

pub(super) fn create_mode(number: i32) -> Result<CreateMode, WireError> {
    match v1::CreateMode::try_from(number) {
        Ok(v1::CreateMode::Replace) => Ok(CreateMode::Replace),
        Ok(v1::CreateMode::FailIfPresent) => Ok(CreateMode::FailIfPresent),
        Ok(v1::CreateMode::IfUnchanged) => Ok(CreateMode::IfUnchanged),
        Ok(v1::CreateMode::Visible) => Ok(CreateMode::Visible),
        Err(_) => Err(fault(ErrorCode::InvalidArgument, format!("mode {number} is not a create mode"))),
    }
}

pub(super) fn chunk_ref(chunk: v1::ChunkRef) -> ChunkRef {
    ChunkRef { chunk: ChunkId(chunk.chunk), offset: chunk.offset, length: chunk.length, crc: Crc32(chunk.crc) }
}

pub(super) fn file(view: FileView) -> v1::FileInfo {
    let kind = match view.kind {
        FileKind::File => v1::FileKind::File,
        FileKind::Directory => v1::FileKind::Directory,
    };
    v1::FileInfo {
        path: view.path,
        inode: view.inode.0,
        version: view.version,
        kind: kind.into(),
        length: view.length,
        crc: view.crc.0,
        replicas: view.replicas,
        modified_ms: view.modified_ms,
        open: view.open,
        chunks: view.chunks,
    }
}
