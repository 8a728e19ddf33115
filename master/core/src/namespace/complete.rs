use quarry_types::{ErrorCode, InodeId, SessionId, limits::CHUNKS_PER_FILE, planted};

use super::{create, detach, walk, writer};
use crate::{
    command::Complete,
    keys,
    query::{self, ChunkView},
    reply::{Completed, Reply},
    rows::{Change, ChunkState, Entry, FileState, Inode, InodeState, Lease},
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Rows compared in one go.
const PAGE: usize = 1024;

/// Ends the writing of a file, if what the writer says it wrote is exactly what the rows hold (S4) and enough
/// durable replicas are known of each chunk (S1). An atomic file becomes visible and replaces what it may.
pub(crate) fn complete(write: &mut Write<'_, '_>, session: SessionId, command: &Complete) -> Result<Reply, Fault> {
    let id = command.inode;
    let (mut inode, lease) = writer::check(write, session, id, command.lease)?;
    let path = writer::living_path(write, id, &inode)?;
    if let Some(open) = lease.open.first() {
        return refuse(ErrorCode::Conflict, format!("chunk {open} of {path} is not sealed yet"));
    }
    let fewest = check_rows(write, command, &lease, &path)?;
    let mut replaces = InodeId(0);
    let replaced = if inode.is_pending() { create::replaced(write, &inode, &path)? } else { None };
    check_replicas(write, &inode, fewest, &path)?;
    if inode.is_pending() {
        if let Some((old, old_inode)) = replaced {
            replaces = old;
            let at = detach::collect_at(write, false)?;
            detach::detach(write, old, old_inode, at)?;
        }
        write.put(Table::Entry, keys::entry(inode.parent, &inode.name), &Entry { inode: id });
        write.count(|totals| totals.files += 1)?;
        inode.state = InodeState::Live;
        inode.length = command.length;
        inode.crc = command.crc;
        inode.modified_ms = write.wall_ms;
    }
    writer::revoke(write, &mut inode)?;
    write.put_inode(id, &inode);
    let told = FileState { replaced: replaces, ..FileState::of(id, &inode, path.clone()) };
    write.tell(Change::Completed(told));
    let file = walk::view(id, &inode, path);
    Ok(Reply::Completed(Completed { file, fewest_replicas: fewest.unwrap_or(0), wanted: inode.replicas }))
}

/// Compares the writer's chunks with the rows, without gap or overlap. Returns the fewest durable replicas of any of
/// them.
fn check_rows(write: &Write<'_, '_>, command: &Complete, lease: &Lease, path: &str) -> Result<Option<u32>, Fault> {
    let differs = |what: String| {
        refuse(
            ErrorCode::Mismatch,
            format!("{path} cannot be completed: {what}; what was written is not what is recorded"),
        )
    };
    if command.chunks.len() > CHUNKS_PER_FILE {
        return refuse(
            ErrorCode::InvalidArgument,
            format!("{path} is said to have more than {CHUNKS_PER_FILE} chunks"),
        );
    }
    if planted!("complete-after-abort") {
        return Ok(Some(u32::MAX));
    }
    let (mut at, mut crc, mut fewest) = (lease.start, lease.start_crc, None);
    let mut said = command.chunks.iter();
    loop {
        let page = query::rows_from(write.tables(), command.inode, at, PAGE)?;
        for ChunkView { id, record } in &page.chunks {
            let Some(chunk) = said.next() else { return differs(format!("chunk {id} is not among those named")) };
            let named = (chunk.chunk, chunk.offset, chunk.length, chunk.crc);
            if named != (*id, record.offset, record.length, record.crc) || record.state != ChunkState::Sealed {
                return differs(format!("chunk {} is named where chunk {id} is", chunk.chunk));
            }
            if record.offset != at {
                return differs(format!("chunk {id} begins at {}, and what is before ends at {at}", record.offset));
            }
            writer::extend(&mut at, &mut crc, record.length, record.crc);
            let replicas = record.holders.len() as u32;
            fewest = Some(fewest.map_or(replicas, |fewest: u32| fewest.min(replicas)));
        }
        if !page.more {
            break;
        }
    }
    if let Some(chunk) = said.next() {
        return differs(format!("chunk {} is named and does not exist", chunk.chunk));
    }
    if (at, crc) != (command.length, command.crc) {
        return differs(format!("it has {at} bytes with CRC {crc}, not {} with {}", command.length, command.crc));
    }
    Ok(fewest)
}

fn check_replicas(write: &Write<'_, '_>, inode: &Inode, fewest: Option<u32>, path: &str) -> Result<(), Fault> {
    let needed = write.settings()?.min_replicas.min(inode.replicas);
    match fewest.filter(|_| !planted!("forget-min-replicas")) {
        Some(fewest) if fewest < needed => refuse(
            ErrorCode::UnderReplicated,
            format!(
                "a chunk of {path} has {fewest} durable replicas and {needed} are needed; waiting for chunkservers"
            ),
        ),
        _ => Ok(()),
    }
}
