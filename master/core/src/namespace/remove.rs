use quarry_types::ErrorCode;

use super::{detach, trash, walk};
use crate::{
    command::Remove,
    keys,
    reply::Reply,
    rows::{Change, Place, Takeaway},
    settings::TRASH,
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Removes an entry. It lies in the trash first, unless it shall go now. Of a directory only the entry goes at once, which
/// hides all below it; when its time has come, the collector takes it apart in bounded steps.
pub(crate) fn remove(write: &mut Write<'_, '_>, command: &Remove) -> Result<Reply, Fault> {
    let path = &command.path;
    let (parents, name) = walk::parent_and_name(path)?;
    let directory = walk::descend_to_directory(write.tables(), &parents)?;
    let Some((id, mut inode)) = walk::lookup(write.tables(), directory, name)? else {
        return refuse(ErrorCode::NotFound, format!("{path} does not exist"));
    };
    if inode.is_directory() && !command.recursive {
        let end = keys::after(id.0);
        if !write.tables().scan(Table::Entry, &keys::entry(id, ""), end.as_deref(), 1)?.is_empty() {
            return refuse(ErrorCode::NotEmpty, format!("{path} is not empty; remove it recursively"));
        }
    }
    if !inode.is_directory() && path.ends_with('/') {
        return refuse(ErrorCode::NotADirectory, format!("{path} is a file, not a directory"));
    }
    write.delete(Table::Entry, keys::entry(directory, name));
    let kept_ms = if command.now { 0 } else { write.settings()?.get(&TRASH) };
    if kept_ms > 0 {
        trash::keep(write, id, &mut inode, kept_ms)?;
    }
    let place = Place::of(id, &inode, walk::below(&walk::join(&parents), name));
    write.tell(Change::Removed(Takeaway { place, kept_ms }));
    let at = detach::collect_at(write, command.now)?.saturating_add(kept_ms);
    detach::detach(write, id, inode, at)?;
    Ok(Reply::DONE)
}
