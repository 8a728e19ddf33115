//! What a request must be before anything is asked of the group. A refused one has changed nothing.

use quarry_master_core::command::{CreateMode, Mutation, OpId};
use quarry_types::{
    ErrorCode, SessionId,
    limits::{CHUNK_BYTES, CHUNKS_PER_FILE, FILE_BYTES, REPLICAS_MAX},
    name,
};

use crate::error::{Fault, fault};

fn invalid(why: impl Into<String>) -> Fault {
    fault(ErrorCode::InvalidArgument, why)
}

pub(super) fn op(op: &OpId) -> Result<(), Fault> {
    session(op.session)?;
    if op.sequence == 0 {
        return Err(invalid("op.sequence is 0; operations of a session count from 1"));
    }
    if op.acknowledged_below > op.sequence {
        return Err(invalid(format!(
            "op.acknowledged_below {} is above op.sequence {}: the operation says that it will never be retried",
            op.acknowledged_below, op.sequence
        )));
    }
    Ok(())
}

pub(super) fn session(session: SessionId) -> Result<(), Fault> {
    if session.0 == 0 { Err(invalid("session is missing; open one first")) } else { Ok(()) }
}

pub(super) fn path(path: &str) -> Result<(), Fault> {
    name::split_path(path).map(|_| ()).map_err(|e| invalid(e.to_string()))
}

/// A path that names something in a directory.
fn entry(path: &str) -> Result<(), Fault> {
    name::split_parent(path).map(|_| ()).map_err(|e| invalid(e.to_string()))
}

pub(super) fn mutation(mutation: &Mutation) -> Result<(), Fault> {
    match mutation {
        Mutation::Create(create) => {
            entry(&create.path)?;
            if create.replicas > REPLICAS_MAX {
                return Err(invalid(format!("replicas {} is above {REPLICAS_MAX}", create.replicas)));
            }
            if create.mode == CreateMode::IfUnchanged && create.expected_inode.0 == 0 {
                return Err(invalid("expected_inode is missing; stat the file that is to be replaced"));
            }
            Ok(())
        }
        Mutation::OpenAppend(append) => entry(&append.path),
        Mutation::AddChunk(add) => {
            if add.limit == 0 || add.limit > CHUNK_BYTES {
                return Err(invalid(format!("limit_bytes {} is not in 1..={CHUNK_BYTES}", add.limit)));
            }
            if add.offset.checked_add(add.limit).is_none_or(|end| end > FILE_BYTES) {
                return Err(invalid(format!("a file cannot be longer than {FILE_BYTES} bytes")));
            }
            Ok(())
        }
        Mutation::Complete(complete) => {
            if complete.chunks.len() > CHUNKS_PER_FILE {
                return Err(invalid(format!("a completion names at most {CHUNKS_PER_FILE} chunks")));
            }
            if complete.length > FILE_BYTES {
                return Err(invalid(format!("a file cannot be longer than {FILE_BYTES} bytes")));
            }
            Ok(())
        }
        Mutation::Abort(_) => Ok(()),
        // `mkdir -p /` is content with the root.
        Mutation::Mkdir(mkdir) if mkdir.parents => path(&mkdir.path),
        Mutation::Mkdir(mkdir) => entry(&mkdir.path),
        Mutation::Rename(rename) => entry(&rename.from).and_then(|()| entry(&rename.to)),
        Mutation::Remove(remove) => entry(&remove.path),
        Mutation::Undelete(undelete) if undelete.to.is_empty() => entry(&undelete.path),
        Mutation::Undelete(undelete) => entry(&undelete.path).and_then(|()| entry(&undelete.to)),
        Mutation::SetReplicas(set) if set.replicas > REPLICAS_MAX => {
            Err(invalid(format!("replicas {} is above {REPLICAS_MAX}", set.replicas)))
        }
        Mutation::SetReplicas(set) => path(&set.path),
    }
}
