//! Walks down from the root by names, and up from an inode by parent pointers.

use quarry_types::{
    ErrorCode, InodeId,
    ids::ROOT,
    limits::PATH_BYTES,
    name::{NameError, split_parent, split_path},
};

use crate::{
    keys,
    limits::ANCESTORS_MAX,
    reply::{FileView, Refusal},
    rows::{Entry, Inode, InodeState},
    state::{Fault, find, need, refuse},
    tables::{ReadTables, Table, TableError},
};

impl From<NameError> for Fault {
    fn from(error: NameError) -> Self {
        Fault::Refused(Refusal::new(ErrorCode::InvalidArgument, error.to_string()))
    }
}

/// The names of a path.
pub(crate) fn names(path: &str) -> Result<Vec<&str>, Fault> {
    Ok(split_path(path)?)
}

/// The parent's names and the last name of a path.
pub(crate) fn parent_and_name(path: &str) -> Result<(Vec<&str>, &str), Fault> {
    Ok(split_parent(path)?)
}

/// The path of names.
pub(crate) fn join(names: &[&str]) -> String {
    format!("/{}", names.join("/"))
}

/// The path of a name in a directory.
pub(crate) fn below(directory: &str, name: &str) -> String {
    if directory == "/" { format!("/{name}") } else { format!("{directory}/{name}") }
}

/// What `name` in `directory` names.
pub(crate) fn lookup(
    tables: &dyn ReadTables,
    directory: InodeId,
    name: &str,
) -> Result<Option<(InodeId, Inode)>, TableError> {
    let Some(entry) = find::<Entry>(tables, Table::Entry, &keys::entry(directory, name))? else { return Ok(None) };
    Ok(Some((entry.inode, need(tables, Table::Inode, &keys::inode(entry.inode))?)))
}

/// The root directory.
fn root(tables: &dyn ReadTables) -> Result<(InodeId, Inode), Fault> {
    match find(tables, Table::Inode, &keys::inode(ROOT))? {
        Some(inode) => Ok((ROOT, inode)),
        None => refuse(ErrorCode::Unavailable, "the cluster was not created yet; wait for the master to start"),
    }
}

/// What a path's names lead to.
pub(crate) fn descend(tables: &dyn ReadTables, names: &[&str]) -> Result<(InodeId, Inode), Fault> {
    let (mut id, mut inode) = root(tables)?;
    for (depth, name) in names.iter().enumerate() {
        if !inode.is_directory() {
            let path = join(names.get(..depth).unwrap_or_default());
            return refuse(ErrorCode::NotADirectory, format!("{path} is a file, not a directory"));
        }
        match lookup(tables, id, name)? {
            Some(found) => (id, inode) = found,
            None => {
                let path = join(names.get(..=depth).unwrap_or(names));
                return refuse(ErrorCode::NotFound, format!("{path} does not exist"));
            }
        }
    }
    Ok((id, inode))
}

/// The directory that a path's names lead to.
pub(crate) fn descend_to_directory(tables: &dyn ReadTables, names: &[&str]) -> Result<InodeId, Fault> {
    let (id, inode) = descend(tables, names)?;
    if !inode.is_directory() {
        return refuse(ErrorCode::NotADirectory, format!("{} is a file, not a directory", join(names)));
    }
    Ok(id)
}

/// The path of a directory by its parents; `None` when it or one of them was removed.
pub(crate) fn directory_path(tables: &dyn ReadTables, id: InodeId) -> Result<Option<String>, Fault> {
    climb(tables, id, |inode| inode.state == InodeState::Live)
}

fn climb(tables: &dyn ReadTables, id: InodeId, counts: impl Fn(&Inode) -> bool) -> Result<Option<String>, Fault> {
    let mut names: Vec<String> = Vec::new();
    let mut at = id;
    while at != ROOT {
        match find::<Inode>(tables, Table::Inode, &keys::inode(at))? {
            Some(inode) if inode.is_directory() && counts(&inode) => {
                names.push(inode.name);
                at = inode.parent;
            }
            _ => return Ok(None),
        }
        if names.len() > ANCESTORS_MAX {
            return refuse(
                ErrorCode::InvalidArgument,
                format!("inode {id} lies more than {ANCESTORS_MAX} directories deep; move it up"),
            );
        }
    }
    names.reverse();
    Ok(Some(format!("/{}", names.join("/"))))
}

/// The path that names a file or directory, or that will name a pending one; `None` when it or a directory above it
/// was removed.
pub(crate) fn path(tables: &dyn ReadTables, id: InodeId, inode: &Inode) -> Result<Option<String>, Fault> {
    if id == ROOT {
        return Ok(Some("/".into()));
    }
    if inode.state == InodeState::Removed {
        return Ok(None);
    }
    Ok(directory_path(tables, inode.parent)?.map(|directory| below(&directory, &inode.name)))
}

/// The path of something that an event tells of; `None` when it or a directory above it was removed. What is too deep or too
/// long to be named in a call cannot be watched either, and nothing may fail for its sake.
pub(crate) fn told_path(tables: &dyn ReadTables, id: InodeId, inode: &Inode) -> Result<Option<String>, TableError> {
    tellable(path(tables, id, inode))
}

/// The path of a directory that may have been removed, or one above it, by the names that they had then. `None` when one of
/// them was taken apart, and as in [`told_path`].
pub(crate) fn told_directory(tables: &dyn ReadTables, id: InodeId) -> Result<Option<String>, TableError> {
    tellable(climb(tables, id, |_| true))
}

fn tellable(found: Result<Option<String>, Fault>) -> Result<Option<String>, TableError> {
    match found {
        Ok(path) => Ok(path.filter(|path| path.len() <= PATH_BYTES)),
        Err(Fault::Refused(_)) => Ok(None),
        Err(Fault::Table(error)) => Err(error),
    }
}

/// An inode as users see it.
pub(crate) fn view(id: InodeId, inode: &Inode, path: String) -> FileView {
    FileView {
        path,
        inode: id,
        version: inode.version,
        kind: inode.kind,
        length: inode.length,
        crc: inode.crc,
        replicas: inode.replicas,
        modified_ms: inode.modified_ms,
        open: inode.lease.0 != 0,
        chunks: inode.chunks,
    }
}
