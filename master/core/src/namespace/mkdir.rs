use quarry_types::{ErrorCode, InodeId, ids::ROOT};

use super::walk;
use crate::{
    command::Mkdir,
    keys,
    reply::Reply,
    rows::{Change, Entry, Inode, Place},
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Makes a directory.
pub(crate) fn mkdir(write: &mut Write<'_, '_>, command: &Mkdir) -> Result<Reply, Fault> {
    let names = walk::names(&command.path)?;
    let path = walk::join(&names);
    let taken = |what: &str| refuse(ErrorCode::AlreadyExists, format!("{path} is there already, as a {what}"));
    let (id, inode) = if command.parents {
        make_all(write, &names)?
    } else {
        let Some((name, parents)) = names.split_last() else { return taken("directory") };
        let directory = walk::descend_to_directory(write.tables(), parents)?;
        if let Some((_, inode)) = walk::lookup(write.tables(), directory, name)? {
            return taken(if inode.is_directory() { "directory" } else { "file" });
        }
        make(write, directory, name, path.clone())?
    };
    Ok(Reply::File(walk::view(id, &inode, path)))
}

fn make(write: &mut Write<'_, '_>, parent: InodeId, name: &str, path: String) -> Result<(InodeId, Inode), Fault> {
    let id = InodeId(write.next_id(|counters| &mut counters.next_inode)?);
    let inode = Inode::directory(parent, name, write.wall_ms);
    write.put_inode(id, &inode);
    write.put(Table::Entry, keys::entry(parent, name), &Entry { inode: id });
    write.count(|totals| totals.directories += 1)?;
    write.tell(Change::DirectoryMade(Place::of(id, &inode, path)));
    Ok((id, inode))
}

/// Makes the directories of a path that are missing.
pub(crate) fn make_all(write: &mut Write<'_, '_>, names: &[&str]) -> Result<(InodeId, Inode), Fault> {
    let (mut id, mut inode) = walk::descend(write.tables(), &[])?;
    debug_assert_eq!(id, ROOT);
    for (depth, name) in names.iter().enumerate() {
        let path = || walk::join(names.get(..=depth).unwrap_or(names));
        (id, inode) = match walk::lookup(write.tables(), id, name)? {
            Some((below, found)) if found.is_directory() => (below, found),
            Some(_) => {
                return refuse(ErrorCode::NotADirectory, format!("{} is a file, not a directory", path()));
            }
            None => make(write, id, name, path())?,
        };
    }
    Ok((id, inode))
}
