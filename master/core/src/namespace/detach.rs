use quarry_types::InodeId;

use super::writer;
use crate::{
    keys,
    rows::{Inode, InodeState, Mark},
    state::{Write, less},
    tables::{Table, TableError},
};

/// When something removed now may be taken apart: after the readers' grace, or at once.
pub(crate) fn collect_at(write: &Write<'_, '_>, now: bool) -> Result<u64, TableError> {
    let elapsed_ms = write.counters()?.elapsed_ms;
    let grace_ms = if now { 0 } else { write.settings()?.reader_grace_ms };
    Ok(elapsed_ms.saturating_add(grace_ms))
}

/// Makes an inode whose entry is gone wait for the collector. Its writer loses the lease at once; its chunks can be
/// read by inode until they are doomed.
pub(crate) fn detach(
    write: &mut Write<'_, '_>,
    id: InodeId,
    mut inode: Inode,
    collect_at_ms: u64,
) -> Result<(), TableError> {
    if inode.state == InodeState::Removed {
        return Ok(());
    }
    writer::revoke(write, &mut inode)?;
    let was_live = inode.state == InodeState::Live;
    let directory = inode.is_directory();
    inode.state = InodeState::Removed;
    inode.collect_at_ms = collect_at_ms;
    write.put_inode(id, &inode);
    write.put(Table::Removed, keys::removed(collect_at_ms, id), &Mark {});
    write.count(|totals| {
        totals.removed += 1;
        if was_live && directory {
            less(&mut totals.directories);
        } else if was_live {
            less(&mut totals.files);
        }
    })
}
