//! The trash: what was removed stays for a while, out of its directory and whole, and can be taken back.

use quarry_types::{ErrorCode, InodeId};

use super::walk;
use crate::{
    command::EmptyTrash,
    keys,
    limits::EMPTY_TRASH_MAX,
    reply::{Emptied, Reply},
    rows::{Change, Inode, InodeState, Mark, Place, Trash},
    state::{Fault, Write, less, refuse},
    tables::{Table, TableError},
};

/// Notes under which name an inode can be taken back for the next `kept_ms`. The caller removes its entry, detaches it
/// and stores it.
pub(super) fn keep(write: &mut Write<'_, '_>, id: InodeId, inode: &mut Inode, kept_ms: u64) -> Result<(), TableError> {
    let mut counters = write.counters()?;
    counters.removals += 1;
    inode.removal = counters.removals;
    let until_ms = counters.elapsed_ms.saturating_add(kept_ms);
    let row = Trash { inode: id, until_ms, removed_ms: write.wall_ms };
    write.put(Table::Trash, keys::trash(inode.parent, &inode.name, inode.removal), &row);
    write.put_counters(&counters);
    write.count(|totals| totals.trashed += 1)
}

/// Takes an inode out of the trash's index, if it is there; the caller stores it.
pub(super) fn forget(write: &mut Write<'_, '_>, inode: &mut Inode) -> Result<(), TableError> {
    if inode.removal != 0 {
        write.delete(Table::Trash, keys::trash(inode.parent, &inode.name, inode.removal));
        inode.removal = 0;
        write.count(|totals| less(&mut totals.trashed))?;
    }
    Ok(())
}

/// Gives things up that lie in the trash: the collector may take them apart from now on. What was taken back or
/// collected meanwhile is left alone.
pub(crate) fn empty(write: &mut Write<'_, '_>, command: &EmptyTrash) -> Result<Reply, Fault> {
    if command.removals.len() > EMPTY_TRASH_MAX {
        let message = format!("one command takes at most {EMPTY_TRASH_MAX} things out of the trash");
        return refuse(ErrorCode::InvalidArgument, message);
    }
    write.refuse_held("emptying the trash")?;
    let now_ms = write.counters()?.elapsed_ms;
    let (mut emptied, mut above) = (0, LastDirectory::default());
    for removal in &command.removals {
        let Some(mut inode) = write.inode(removal.inode)? else { continue };
        if inode.state != InodeState::Removed || inode.removal == 0 || inode.removal != removal.removal {
            continue;
        }
        forget(write, &mut inode)?;
        let path = above.path_of(write, &inode)?;
        write.tell(Change::Purged(Place::of(removal.inode, &inode, path)));
        write.delete(Table::Removed, keys::removed(inode.collect_at_ms, removal.inode));
        inode.collect_at_ms = now_ms;
        write.put(Table::Removed, keys::removed(now_ms, removal.inode), &Mark {});
        write.put_inode(removal.inode, &inode);
        emptied += 1;
    }
    Ok(Reply::Emptied(Emptied { emptied }))
}

/// Finds the paths that things in the trash had. Many come from one directory, so the last one's path is kept.
#[derive(Default)]
pub(super) struct LastDirectory(Option<(InodeId, Option<String>)>);

impl LastDirectory {
    /// The path under which something was removed, in its directory as that is called now, or was called when it was
    /// removed itself; empty when the directory is gone.
    pub(super) fn path_of(&mut self, write: &Write<'_, '_>, inode: &Inode) -> Result<String, TableError> {
        if self.0.as_ref().is_none_or(|(id, _)| *id != inode.parent) {
            self.0 = Some((inode.parent, walk::told_directory(write.tables(), inode.parent)?));
        }
        let directory = self.0.as_ref().and_then(|(_, path)| path.as_deref());
        Ok(directory.map_or_else(String::new, |directory| walk::below(directory, &inode.name)))
    }
}
