use quarry_types::{ErrorCode, InodeId, ids::ROOT, planted};

use super::{detach, walk};
use crate::{
    command::Rename,
    keys,
    limits::ANCESTORS_MAX,
    reply::Reply,
    rows::{Change, Entry, Inode, Move},
    state::{Fault, Write, need, refuse},
    tables::Table,
};

/// Moves an entry; what lies below a directory moves with it in this one step.
pub(crate) fn rename(write: &mut Write<'_, '_>, command: &Rename) -> Result<Reply, Fault> {
    let (from, to) = (&command.from, &command.to);
    let (from_parents, from_name) = walk::parent_and_name(from)?;
    let (to_parents, to_name) = walk::parent_and_name(to)?;
    let from_directory = walk::descend_to_directory(write.tables(), &from_parents)?;
    let Some((id, mut inode)) = walk::lookup(write.tables(), from_directory, from_name)? else {
        return refuse(ErrorCode::NotFound, format!("{from} does not exist"));
    };
    if !inode.is_directory() && (from.ends_with('/') || to.ends_with('/')) {
        return refuse(ErrorCode::NotADirectory, format!("{from} is a file; write both names without '/' at the end"));
    }
    let to_directory = walk::descend_to_directory(write.tables(), &to_parents)?;
    let path = walk::below(&walk::join(&to_parents), to_name);
    if from_directory == to_directory && from_name == to_name {
        return Ok(Reply::File(walk::view(id, &inode, path)));
    }
    if inode.is_directory() && is_at_or_below(write, to_directory, id)? {
        return refuse(ErrorCode::Cycle, format!("{from} cannot move below itself to {to}"));
    }
    let mut replaced = InodeId(0);
    if let Some((old, old_inode)) = walk::lookup(write.tables(), to_directory, to_name)? {
        check_replace(command, &inode, &old_inode)?;
        replaced = old;
        let at = detach::collect_at(write, false)?;
        detach::detach(write, old, old_inode, at)?;
    }
    write.delete(Table::Entry, keys::entry(from_directory, from_name));
    write.put(Table::Entry, keys::entry(to_directory, to_name), &Entry { inode: id });
    inode.parent = to_directory;
    inode.name = to_name.into();
    write.put_inode(id, &inode);
    let from = walk::below(&walk::join(&from_parents), from_name);
    let directory = inode.is_directory();
    write.tell(Change::Renamed(Move { from, to: path.clone(), inode: id, directory, replaced }));
    Ok(Reply::File(walk::view(id, &inode, path)))
}

fn check_replace(command: &Rename, inode: &Inode, old: &Inode) -> Result<(), Fault> {
    let to = &command.to;
    if old.is_directory() {
        return refuse(ErrorCode::AlreadyExists, format!("{to} is a directory; name the place in it"));
    }
    if inode.is_directory() || !(command.replace || planted!("rename-over")) {
        return refuse(ErrorCode::AlreadyExists, format!("{to} is there already; remove it, or ask to replace it"));
    }
    Ok(())
}

/// Whether `directory` is `top` or lies below it.
fn is_at_or_below(write: &Write<'_, '_>, directory: InodeId, top: InodeId) -> Result<bool, Fault> {
    let mut at = directory;
    for _ in 0..ANCESTORS_MAX {
        if at == top {
            return Ok(true);
        }
        if at == ROOT {
            return Ok(false);
        }
        at = need::<Inode>(write.tables(), Table::Inode, &keys::inode(at))?.parent;
    }
    refuse(ErrorCode::InvalidArgument, format!("inode {directory} lies more than {ANCESTORS_MAX} directories deep"))
}
