use quarry_types::InodeId;

use super::{detach, trash};
use crate::{
    chunks::doom::doom,
    command::CollectRemoved,
    keys,
    limits::COLLECT_MAX,
    reply::{Collected, Reply},
    rows::{Change, Entry, Inode, Place, Row},
    state::{Fault, Write, bad_key, decode, less, need},
    tables::{Table, TableError},
};

/// Takes removed inodes apart whose time has come, in bounded steps: entries of directories, then rows of files, whose
/// chunks are doomed.
pub(crate) fn collect(write: &mut Write<'_, '_>, command: &CollectRemoved) -> Result<Reply, Fault> {
    write.refuse_held("taking apart what was removed")?;
    let limit = command.limit.clamp(1, COLLECT_MAX);
    let due = keys::after(write.counters()?.elapsed_ms);
    let (mut worked, mut above) = (0, trash::LastDirectory::default());
    let more = loop {
        // A page at once: to look for the first one again after each would walk over all that went before it.
        let left = (limit - worked.min(limit)).max(1) as usize;
        let page = write.tables().scan(Table::Removed, &[], due.as_deref(), left)?;
        if page.is_empty() || worked >= limit {
            break !page.is_empty();
        }
        for (key, _) in page {
            if worked < limit {
                let (_, id) = keys::read_two(&key).ok_or_else(|| bad_key(Table::Removed, &key))?;
                worked += take_apart(write, &mut above, key, InodeId(id), limit - worked)?;
            }
        }
    };
    Ok(Reply::Collected(Collected { worked, more }))
}

/// At most `budget` steps on one inode; returns how many.
fn take_apart(
    write: &mut Write<'_, '_>,
    above: &mut trash::LastDirectory,
    mark: Vec<u8>,
    id: InodeId,
    budget: u32,
) -> Result<u32, Fault> {
    let mut inode: Inode = need(write.tables(), Table::Inode, &keys::inode(id))?;
    if inode.removal != 0 {
        trash::forget(write, &mut inode)?;
        let path = above.path_of(write, &inode)?;
        write.tell(Change::Purged(Place::of(id, &inode, path)));
        write.put_inode(id, &inode);
    }
    let steps =
        if inode.is_directory() { empty(write, id, &inode, budget)? } else { doom_rows(write, id, inode, budget)? };
    if steps < budget {
        write.delete(Table::Inode, keys::inode(id));
        write.delete(Table::Removed, mark);
        write.count(|totals| less(&mut totals.removed))?;
        return Ok(steps + 1);
    }
    Ok(steps)
}

/// Takes entries out of a removed directory. What they name waits from now on by itself, and its time has come too.
fn empty(write: &mut Write<'_, '_>, id: InodeId, inode: &Inode, budget: u32) -> Result<u32, TableError> {
    let end = keys::after(id.0);
    let entries = write.tables().scan(Table::Entry, &keys::entry(id, ""), end.as_deref(), budget as usize)?;
    for (key, value) in &entries {
        let entry: Entry = decode(Table::Entry, key, value)?;
        let child: Inode = need(write.tables(), Table::Inode, &keys::inode(entry.inode))?;
        write.delete(Table::Entry, key.clone());
        detach::detach(write, entry.inode, child, inode.collect_at_ms)?;
    }
    Ok(entries.len() as u32)
}

/// Dooms chunks of a removed file.
fn doom_rows(write: &mut Write<'_, '_>, id: InodeId, mut inode: Inode, budget: u32) -> Result<u32, Fault> {
    let end = keys::after(id.0);
    let rows = write.tables().scan(Table::Row, &keys::row(id, 0), end.as_deref(), budget as usize)?;
    for (key, value) in &rows {
        let row: Row = decode(Table::Row, key, value)?;
        let chunk = need(write.tables(), Table::Chunk, &keys::chunk(row.chunk))?;
        doom(write, row.chunk, chunk)?;
        less(&mut inode.chunks);
    }
    write.put_inode(id, &inode);
    Ok(rows.len() as u32)
}
