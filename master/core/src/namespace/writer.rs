//! What the operations of a file's writer share.

use quarry_types::{Crc32, ErrorCode, InodeId, LeaseId, SessionId};

use super::walk;
use crate::{
    chunks::seal::seal,
    command::SealedChunk,
    keys,
    limits::LEASES_MAX,
    rows::{Inode, InodeState, Lease},
    state::{Fault, Write, less, refuse},
    tables::{Table, TableError},
};

/// Gives `session` the right to write a file, and notes it in `inode`, which the caller stores.
pub(crate) fn grant(
    write: &mut Write<'_, '_>,
    session: SessionId,
    id: InodeId,
    inode: &mut Inode,
) -> Result<LeaseId, Fault> {
    if write.totals()?.leases >= LEASES_MAX {
        return refuse(ErrorCode::Busy, format!("{LEASES_MAX} files are being written; try again when some are done"));
    }
    let lease = LeaseId(write.next_id(|counters| &mut counters.next_lease)?);
    let visible = inode.state == InodeState::Live;
    let row = Lease { session, inode: id, start: inode.length, start_crc: inode.crc, visible, open: Vec::new() };
    write.put_lease(lease, &row);
    write.count(|totals| totals.leases += 1)?;
    inode.lease = lease;
    Ok(lease)
}

/// Ends the lease in `inode`, if there is one; the caller stores the inode.
pub(crate) fn revoke(write: &mut Write<'_, '_>, inode: &mut Inode) -> Result<(), TableError> {
    if inode.lease.0 != 0 {
        write.delete(Table::Lease, keys::lease(inode.lease));
        write.count(|totals| less(&mut totals.leases))?;
        inode.lease = LeaseId(0);
    }
    Ok(())
}

/// The file and the lease of a writer, if the lease is still its own.
pub(crate) fn check(
    write: &Write<'_, '_>,
    session: SessionId,
    id: InodeId,
    lease: LeaseId,
) -> Result<(Inode, Lease), Fault> {
    let lost = || format!("the lease {lease} on inode {id} has ended: it ran out, or the file was removed or replaced");
    let Some(row) = write.lease(lease)? else { return refuse(ErrorCode::LeaseLost, lost()) };
    if row.inode != id || row.session != session {
        return refuse(ErrorCode::LeaseLost, lost());
    }
    match write.inode(id)? {
        Some(inode) if inode.lease == lease => Ok((inode, row)),
        _ => Err(TableError(format!("lease {lease} is not the one of its inode {id}")).into()),
    }
}

/// The path of a file that is being written, while its directory is alive.
pub(crate) fn living_path(write: &Write<'_, '_>, id: InodeId, inode: &Inode) -> Result<String, Fault> {
    match walk::path(write.tables(), id, inode)? {
        Some(path) => Ok(path),
        None => refuse(
            ErrorCode::NotFound,
            format!("the directory of {:?} (inode {id}) was removed while it was written", inode.name),
        ),
    }
}

/// Records seals that came with a writer's call.
pub(crate) fn take_seals(
    write: &mut Write<'_, '_>,
    session: SessionId,
    id: InodeId,
    lease: LeaseId,
    seals: &[SealedChunk],
) -> Result<(), Fault> {
    check(write, session, id, lease)?;
    for command in seals {
        if write.chunk(command.chunk)?.is_some_and(|chunk| chunk.inode != id) {
            let message = format!("chunk {} does not belong to inode {id}", command.chunk);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        seal(write, command)?;
    }
    Ok(())
}

/// Bytes from `at` on that a chunk adds to those that `crc` covers.
pub(crate) fn extend(at: &mut u64, crc: &mut Crc32, length: u64, of: Crc32) {
    *at = at.saturating_add(length);
    *crc = crc.combine(of, length);
}
