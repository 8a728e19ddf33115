use quarry_types::{ErrorCode, SessionId};

use super::{walk, writer};
use crate::{
    command::OpenAppend,
    reply::{Reply, Writer},
    state::{Fault, Write, refuse},
};

/// Gives a lease on a closed file. Writing goes on in a new chunk: sealed is for ever.
pub(crate) fn open(write: &mut Write<'_, '_>, session: SessionId, command: &OpenAppend) -> Result<Reply, Fault> {
    let path = &command.path;
    let (id, mut inode) = walk::descend(write.tables(), &walk::names(path)?)?;
    if inode.is_directory() {
        return refuse(ErrorCode::IsADirectory, format!("{path} is a directory; only files can be appended to"));
    }
    if inode.lease.0 != 0 {
        return refuse(ErrorCode::LeaseHeld, format!("{path} is being written by another; try again when it is done"));
    }
    let lease = writer::grant(write, session, id, &mut inode)?;
    write.put_inode(id, &inode);
    let (replicas, length, crc) = (inode.replicas, inode.length, inode.crc);
    Ok(Reply::Writer(Writer { inode: id, lease, replicas, length, crc }))
}
