use quarry_types::{ErrorCode, InodeId, ids::ROOT};

use super::Fault;
use crate::{
    command::Removal,
    keys,
    namespace::walk,
    reply::FileView,
    rows::{Inode, Trash},
    state::{bad_key, decode, need, refuse},
    tables::{ReadTables, Table},
};

/// Something that can be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashView {
    /// As it was removed.
    pub file: FileView,
    /// Which removal it was.
    pub removal: u64,
    /// When it was removed, for display.
    pub removed_ms: u64,
    /// How long it stays, in milliseconds of replicated time.
    pub left_ms: u64,
}

/// A page of what lies in the trash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrashPage {
    /// What was removed from directories that are there.
    pub entries: Vec<TrashView>,
    /// With the root: what was removed from directories that are gone, or in the trash themselves. It can be taken back
    /// after its directory was.
    pub hidden: Vec<Removal>,
    /// Goes on behind this page; empty on the last one. A page may be empty and have others behind it.
    pub token: Vec<u8>,
}

/// What was removed from the directory at `path` and from directories below it: the trash's rows behind `token` are gone
/// through, `limit` at most, whosever they are.
///
/// # Errors
/// Refused when the path is no directory's; a table error.
pub fn trash(tables: &dyn ReadTables, path: &str, token: &[u8], limit: usize) -> Result<TrashPage, Fault> {
    let names = walk::names(path)?;
    let top = walk::descend_to_directory(tables, &names)?;
    let top_path = walk::join(&names);
    let from = if token.is_empty() { Vec::new() } else { keys::behind(token) };
    if !token.is_empty() && keys::read_trash(token).is_none() {
        return refuse(
            ErrorCode::InvalidArgument,
            "the token is not one of a listing of the trash; list again without it",
        );
    }
    let now_ms = super::counters(tables)?.elapsed_ms;
    let rows = tables.scan(Table::Trash, &from, None, limit.max(1))?;
    let mut page = TrashPage::default();
    // Rows of one directory lie side by side.
    let mut last: Option<(InodeId, Option<String>)> = None;
    for (key, value) in &rows {
        let (parent, name, removal) = keys::read_trash(key).ok_or_else(|| bad_key(Table::Trash, key))?;
        let row: Trash = decode(Table::Trash, key, value)?;
        let directory = match last.take().filter(|(of, _)| *of == parent) {
            Some((_, path)) => path,
            None => walk::directory_path(tables, parent)?,
        };
        match &directory {
            Some(directory) if lies_in(directory, &top_path) && row.until_ms > now_ms => {
                let inode: Inode = need(tables, Table::Inode, &keys::inode(row.inode))?;
                page.entries.push(TrashView {
                    file: walk::view(row.inode, &inode, walk::below(directory, name)),
                    removal,
                    removed_ms: row.removed_ms,
                    left_ms: row.until_ms - now_ms,
                });
            }
            None if top == ROOT => page.hidden.push(Removal { inode: row.inode, removal }),
            _ => {}
        }
        last = Some((parent, directory));
    }
    if let Some((key, _)) = rows.last().filter(|_| rows.len() == limit.max(1)) {
        page.token.clone_from(key);
    }
    Ok(page)
}

/// Whether a directory is `top` or lies below it.
fn lies_in(directory: &str, top: &str) -> bool {
    top == "/" || directory.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
