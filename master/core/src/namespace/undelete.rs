use quarry_types::{ErrorCode, InodeId};

use super::{trash, walk};
use crate::{
    command::Undelete,
    keys, query,
    reply::Reply,
    rows::{Change, Entry, Inode, InodeState, Move, Trash},
    state::{Fault, Write, decode, less, need, refuse},
    tables::Table,
};

/// Takes something back that was removed, with everything below a directory, in this one step: below it nothing was
/// touched as long as it lay in the trash.
pub(crate) fn undelete(write: &mut Write<'_, '_>, command: &Undelete) -> Result<Reply, Fault> {
    let from = &command.path;
    let to = if command.to.is_empty() { from } else { &command.to };
    let (to_parents, to_name) = walk::parent_and_name(to)?;
    let (id, mut inode) = removed(write, command)?;
    if !inode.is_directory() && (from.ends_with('/') || to.ends_with('/')) {
        return refuse(ErrorCode::NotADirectory, format!("{from} is a file; write both names without '/' at the end"));
    }
    let directory = walk::descend_to_directory(write.tables(), &to_parents)?;
    if walk::lookup(write.tables(), directory, to_name)?.is_some() {
        let message = format!("{to} is there already; take {from} back under another name with --to");
        return refuse(ErrorCode::AlreadyExists, message);
    }
    // Once sealed it belongs to the file: one that comes back before would end in front of it.
    if !inode.is_directory() && !query::rows_from(write.tables(), id, inode.length, 1)?.chunks.is_empty() {
        let message = format!("{from} was being written when it was removed, and its last chunk is not sealed yet");
        return refuse(ErrorCode::Busy, message);
    }
    trash::forget(write, &mut inode)?;
    write.delete(Table::Removed, keys::removed(inode.collect_at_ms, id));
    write.put(Table::Entry, keys::entry(directory, to_name), &Entry { inode: id });
    inode.state = InodeState::Live;
    inode.collect_at_ms = 0;
    inode.parent = directory;
    inode.name = to_name.into();
    write.put_inode(id, &inode);
    let is_directory = inode.is_directory();
    write.count(|totals| {
        less(&mut totals.removed);
        *(if is_directory { &mut totals.directories } else { &mut totals.files }) += 1;
    })?;
    let path = walk::below(&walk::join(&to_parents), to_name);
    let from = walk::join(&walk::names(from)?);
    let told = Move { from, to: path.clone(), inode: id, directory: is_directory, replaced: InodeId(0) };
    write.tell(Change::Undeleted(told));
    Ok(Reply::File(walk::view(id, &inode, path)))
}

/// What was removed under the path, while it can be taken back.
fn removed(write: &Write<'_, '_>, command: &Undelete) -> Result<(InodeId, Inode), Fault> {
    let path = &command.path;
    let (parents, name) = walk::parent_and_name(path)?;
    let directory = match walk::descend_to_directory(write.tables(), &parents) {
        Err(Fault::Refused(refusal)) if refusal.code == ErrorCode::NotFound => {
            let message = format!("{}; take that directory back first, then {name:?} in it", refusal.message);
            return refuse(ErrorCode::NotFound, message);
        }
        found => found?,
    };
    let nothing =
        |what: String| refuse(ErrorCode::NotFound, format!("{what}; `quarry trash` lists what can come back"));
    let key = if command.inode.0 == 0 {
        let (first, end) = keys::trash_range(directory, name);
        let found = write.tables().scan(Table::Trash, &first, Some(&end), 1)?;
        let Some((key, _)) = found.into_iter().next() else { return nothing(format!("{path} is not in the trash")) };
        key
    } else {
        match write.inode(command.inode)? {
            Some(inode) if inode.removal != 0 && inode.parent == directory && inode.name == name => {
                keys::trash(directory, name, inode.removal)
            }
            _ => return nothing(format!("inode {} was not removed as {path}, or is gone", command.inode)),
        }
    };
    let Some(value) = write.tables().get(Table::Trash, &key)? else {
        return nothing(format!("{path} is not in the trash"));
    };
    let row: Trash = decode(Table::Trash, &key, &value)?;
    if write.counters()?.elapsed_ms >= row.until_ms {
        return nothing(format!("the time of {path} in the trash is over"));
    }
    Ok((row.inode, need(write.tables(), Table::Inode, &keys::inode(row.inode))?))
}
