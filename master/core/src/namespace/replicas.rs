//! How many replicas files want.

use quarry_types::{ChunkId, ErrorCode, InodeId, ids::ROOT, limits::REPLICAS_MAX};

use super::walk;
use crate::{
    command::{FollowWanted, SetReplicas},
    keys,
    limits::{ANCESTORS_MAX, FOLLOW_MAX},
    query::{self, ChunkView},
    reply::{Followed, Reply},
    rows::{Change, Inode, InodeState, Place, ReplicasSet, Wanted},
    state::{Fault, Write, bad_key, decode, need, refuse},
    tables::Table,
};

/// Rows of one file that are read at once.
const PAGE: u32 = 256;

/// What a new file in `directory` wants when it does not say: what the nearest directory above it says that says
/// anything, else the cluster's setting.
pub(super) fn below(write: &Write<'_, '_>, directory: InodeId) -> Result<u32, Fault> {
    let mut at = directory;
    for _ in 0..ANCESTORS_MAX {
        let inode: Inode = need(write.tables(), Table::Inode, &keys::inode(at))?;
        if inode.replicas != 0 {
            return Ok(inode.replicas);
        }
        if at == ROOT {
            return Ok(write.settings()?.default_replicas);
        }
        at = inode.parent;
    }
    refuse(ErrorCode::InvalidArgument, format!("inode {directory} lies more than {ANCESTORS_MAX} directories deep"))
}

/// Changes what a file wants, or new files below a directory. New chunks want it at once; those that are there follow in
/// bounded steps, since a file may have more of them than a command may touch.
pub(crate) fn set(write: &mut Write<'_, '_>, command: &SetReplicas) -> Result<Reply, Fault> {
    if command.replicas > REPLICAS_MAX {
        let message = format!("{} cannot want {} replicas; choose 1 to {REPLICAS_MAX}", command.path, command.replicas);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    let names = walk::names(&command.path)?;
    let (id, mut inode) = walk::descend(write.tables(), &names)?;
    let replicas = match command.replicas {
        0 if !inode.is_directory() => below(write, inode.parent)?,
        said => said,
    };
    if inode.replicas != replicas {
        inode.replicas = replicas;
        write.put_inode(id, &inode);
        if inode.chunks > 0 {
            write.put(Table::Wanted, keys::inode(id), &Wanted::default());
        }
        let place = Place::of(id, &inode, walk::join(&names));
        write.tell(Change::ReplicasSet(ReplicasSet { place, replicas }));
    }
    Ok(Reply::File(walk::view(id, &inode, walk::join(&names))))
}

/// Lets chunks want what their files want, in bounded steps.
pub(crate) fn follow(write: &mut Write<'_, '_>, command: &FollowWanted) -> Result<Reply, Fault> {
    let limit = command.limit.clamp(1, FOLLOW_MAX);
    let (mut worked, mut chunks) = (0, Vec::new());
    let more = loop {
        // A page at once, as the collector does.
        let left = (limit - worked.min(limit)).max(1) as usize;
        let page = write.tables().scan(Table::Wanted, &[], None, left)?;
        if page.is_empty() || worked >= limit {
            break !page.is_empty();
        }
        for (key, value) in page {
            if worked < limit {
                let id = InodeId(keys::read_one(&key).ok_or_else(|| bad_key(Table::Wanted, &key))?);
                let row: Wanted = decode(Table::Wanted, &key, &value)?;
                worked += 1 + follow_file(write, id, &row, (limit - worked).min(PAGE), &mut chunks)?;
            }
        }
    };
    Ok(Reply::Followed(Followed { worked, more, chunks }))
}

/// Goes through at most `budget` rows of one file; returns how many.
fn follow_file(
    write: &mut Write<'_, '_>,
    id: InodeId,
    row: &Wanted,
    budget: u32,
    changed: &mut Vec<ChunkId>,
) -> Result<u32, Fault> {
    let end_of_file = |write: &mut Write<'_, '_>| write.delete(Table::Wanted, keys::inode(id));
    // What is being taken apart needs no replicas; what lies in the trash may come back.
    let inode = match write.inode(id)? {
        Some(inode) if inode.state != InodeState::Removed || inode.removal != 0 => inode,
        _ => {
            end_of_file(write);
            return Ok(0);
        }
    };
    let page = query::rows_from(write.tables(), id, row.from, budget as usize)?;
    for ChunkView { id, record } in &page.chunks {
        if record.wanted != inode.replicas {
            let mut record = record.clone();
            record.wanted = inode.replicas;
            write.put_chunk(*id, &record);
            changed.push(*id);
        }
    }
    match page.chunks.last() {
        Some(last) if page.more => {
            let from = last.record.offset.saturating_add(1);
            write.put(Table::Wanted, keys::inode(id), &Wanted { from });
        }
        _ => end_of_file(write),
    }
    Ok(page.chunks.len() as u32)
}
