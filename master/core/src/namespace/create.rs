use quarry_types::{Crc32, ErrorCode, InodeId, LeaseId, SessionId, limits::REPLICAS_MAX};

use super::{mkdir, replicas, walk, writer};
use crate::{
    command::{Create, CreateMode},
    keys,
    reply::{FileKind, Reply, Writer},
    rows::{Change, Entry, FileState, Inode, InodeState},
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Makes a file and gives its writer a lease. An atomic one has no entry before its completion.
pub(crate) fn create(write: &mut Write<'_, '_>, session: SessionId, command: &Create) -> Result<Reply, Fault> {
    let (parents, name) = walk::parent_and_name(&command.path)?;
    if command.path.ends_with('/') {
        let message = format!("{} ends with '/', which a file's name does not", command.path);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if command.replicas > REPLICAS_MAX {
        let message = format!("{} cannot have {} replicas; {REPLICAS_MAX} is the most", command.path, command.replicas);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    let parent = if command.parents {
        mkdir::make_all(write, &parents)?.0
    } else {
        walk::descend_to_directory(write.tables(), &parents)?
    };
    let replicas = match command.replicas {
        0 => replicas::below(write, parent)?,
        wanted => wanted,
    };
    let visible = command.mode == CreateMode::Visible;
    let mut inode = Inode {
        kind: FileKind::File,
        state: if visible { InodeState::Live } else { InodeState::Pending },
        parent,
        name: name.into(),
        version: 1,
        replicas,
        length: 0,
        crc: Crc32::EMPTY,
        chunks: 0,
        modified_ms: write.wall_ms,
        lease: LeaseId(0),
        mode: command.mode,
        expected_inode: command.expected_inode,
        expected_version: command.expected_version,
        collect_at_ms: 0,
        removal: 0,
    };
    // Said now as well as at the completion, so that nobody sends gigabytes for nothing.
    replaced(write, &inode, &command.path)?;
    let id = InodeId(write.next_id(|counters| &mut counters.next_inode)?);
    let lease = writer::grant(write, session, id, &mut inode)?;
    write.put_inode(id, &inode);
    if visible {
        write.put(Table::Entry, keys::entry(parent, name), &Entry { inode: id });
        write.count(|totals| totals.files += 1)?;
        let path = walk::below(&walk::join(&parents), name);
        write.tell(Change::Created(FileState::of(id, &inode, path)));
    }
    Ok(Reply::Writer(Writer { inode: id, lease, replicas, length: 0, crc: Crc32::EMPTY }))
}

/// What the file would replace under its name; refused when its mode does not allow that.
pub(crate) fn replaced(write: &Write<'_, '_>, inode: &Inode, path: &str) -> Result<Option<(InodeId, Inode)>, Fault> {
    let present = walk::lookup(write.tables(), inode.parent, &inode.name)?;
    match (&present, inode.mode) {
        (Some((_, found)), CreateMode::Replace | CreateMode::IfUnchanged) if found.is_directory() => {
            refuse(ErrorCode::IsADirectory, format!("{path} is a directory; write to a name in it"))
        }
        (Some(_), CreateMode::FailIfPresent | CreateMode::Visible) => {
            refuse(ErrorCode::AlreadyExists, format!("{path} is there already; remove it, or ask to replace it"))
        }
        (Some((id, found)), CreateMode::IfUnchanged)
            if *id == inode.expected_inode && found.version == inode.expected_version =>
        {
            Ok(present)
        }
        (_, CreateMode::IfUnchanged) => {
            refuse(ErrorCode::Conflict, format!("{path} has changed since it was read; read it again and decide anew"))
        }
        _ => Ok(present),
    }
}
