use quarry_types::{ErrorCode, InodeId, limits::LIST_PAGE};

use super::Fault;
use crate::{
    keys,
    namespace::walk,
    reply::FileView,
    rows::{Entry, Inode},
    state::{bad_key, decode, find, need, refuse},
    tables::{ReadTables, Table, TableError},
};

/// One page of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// In name order.
    pub entries: Vec<FileView>,
    /// Goes on behind this page; empty on the last one.
    pub token: Vec<u8>,
}

/// What a path names.
///
/// # Errors
/// Refused when it names nothing; [`TableError`].
pub fn resolve(tables: &dyn ReadTables, path: &str) -> Result<InodeId, Fault> {
    Ok(walk::descend(tables, &walk::names(path)?)?.0)
}

/// What a path names, and what is known of it.
///
/// # Errors
/// Refused when it names nothing; [`TableError`].
pub fn stat(tables: &dyn ReadTables, path: &str) -> Result<FileView, Fault> {
    let names = walk::names(path)?;
    let (id, inode) = walk::descend(tables, &names)?;
    Ok(walk::view(id, &inode, walk::join(&names)))
}

/// The path of an inode; `None` when it has none (any more).
///
/// # Errors
/// [`TableError`]; refused when it lies too deep.
pub fn path_of(tables: &dyn ReadTables, id: InodeId) -> Result<Option<String>, Fault> {
    match inode(tables, id)? {
        Some(inode) => walk::path(tables, id, &inode),
        None => Ok(None),
    }
}

/// An inode by its id, removed and pending ones included; `None` when there is none (any more).
///
/// # Errors
/// [`TableError`].
pub fn inode(tables: &dyn ReadTables, id: InodeId) -> Result<Option<Inode>, TableError> {
    find(tables, Table::Inode, &keys::inode(id))
}

/// A page of at most `limit` entries ([`LIST_PAGE`] if that is less). `token` is empty to start, then the one of the
/// page before. The path of a file is a listing of that file alone.
///
/// # Errors
/// Refused when the path names nothing, or another directory than the token's; [`TableError`].
pub fn list(tables: &dyn ReadTables, path: &str, token: &[u8], limit: usize) -> Result<ListPage, Fault> {
    let names = walk::names(path)?;
    let (id, inode) = walk::descend(tables, &names)?;
    let directory = walk::join(&names);
    if !inode.is_directory() {
        return Ok(ListPage { entries: vec![walk::view(id, &inode, directory)], token: Vec::new() });
    }
    let from = match token {
        [] => keys::entry(id, ""),
        _ => match keys::read_entry(token) {
            Some((of, _)) if of == id => keys::behind(token),
            Some(_) => {
                return refuse(ErrorCode::Conflict, format!("{directory} is another directory now; list it again"));
            }
            None => {
                return refuse(ErrorCode::InvalidArgument, "the token is not one of a listing; list again without it");
            }
        },
    };
    let limit = limit.clamp(1, LIST_PAGE);
    let page = tables.scan(Table::Entry, &from, keys::after(id.0).as_deref(), limit)?;
    let mut entries = Vec::with_capacity(page.len());
    for (key, value) in &page {
        let (_, name) = keys::read_entry(key).ok_or_else(|| bad_key(Table::Entry, key))?;
        let entry: Entry = decode(Table::Entry, key, value)?;
        let inode: Inode = need(tables, Table::Inode, &keys::inode(entry.inode))?;
        entries.push(walk::view(entry.inode, &inode, walk::below(&directory, name)));
    }
    let token = if page.len() == limit { page.last().map(|(key, _)| key.clone()) } else { None };
    Ok(ListPage { entries, token: token.unwrap_or_default() })
}
