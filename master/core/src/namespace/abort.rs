use quarry_types::{ErrorCode, SessionId, planted};

use super::{detach, walk, writer};
use crate::{
    chunks::doom::doom,
    command::{Abort, ExpireLease},
    query,
    reply::Reply,
    rows::{Change, ChunkState, FileState, Inode, Lease},
    state::{Fault, Write, refuse},
    tables::TableError,
};

/// The writer gives up.
pub(crate) fn abort(write: &mut Write<'_, '_>, session: SessionId, command: &Abort) -> Result<Reply, Fault> {
    let (inode, lease) = writer::check(write, session, command.inode, command.lease)?;
    end(write, inode, &lease)
}

/// The writer did not renew its lease. One that has ended is fine.
pub(crate) fn expire(write: &mut Write<'_, '_>, command: &ExpireLease) -> Result<Reply, Fault> {
    let Some(lease) = write.lease(command.lease)? else { return Ok(Reply::DONE) };
    if !lease.visible {
        write.refuse_held("aborting a put that was not renewed")?;
    }
    match write.inode(lease.inode)? {
        Some(inode) if inode.lease == command.lease => end(write, inode, &lease),
        _ => Err(TableError(format!("lease {} is not the one of its inode {}", command.lease, lease.inode)).into()),
    }
}

/// An atomic put goes, inode and chunks together. A visible file keeps what is sealed: its open chunk must be sealed
/// first, by the leader, from what the members have.
fn end(write: &mut Write<'_, '_>, mut inode: Inode, lease: &Lease) -> Result<Reply, Fault> {
    if inode.is_pending() && planted!("complete-after-abort") {
        let chunks = query::rows(write.tables(), lease.inode, 0, 64)?.chunks.into_iter();
        for chunk in chunks.filter(|chunk| chunk.record.state == ChunkState::Sealed) {
            doom(write, chunk.id, chunk.record)?;
        }
        return Ok(Reply::DONE);
    }
    if inode.is_pending() {
        let at = detach::collect_at(write, true)?;
        detach::detach(write, lease.inode, inode, at)?;
        return Ok(Reply::DONE);
    }
    if let Some(open) = lease.open.first() {
        let message = format!("chunk {open} of inode {} is open; seal it first", lease.inode);
        return refuse(ErrorCode::Busy, message);
    }
    writer::revoke(write, &mut inode)?;
    write.put_inode(lease.inode, &inode);
    // Below a directory that was removed nobody sees it.
    if let Some(path) = walk::told_path(write.tables(), lease.inode, &inode)? {
        write.tell(Change::Abandoned(FileState::of(lease.inode, &inode, path)));
    }
    Ok(Reply::DONE)
}
