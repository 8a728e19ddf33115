use std::collections::BTreeSet;

use quarry_types::{
    ChunkId, Crc32, ErrorCode, SessionId,
    limits::{CHUNK_BYTES, CHUNKS_PER_FILE, FILE_BYTES, REPLICAS_MAX},
};

use super::writer;
use crate::{
    command::AddChunk,
    keys,
    limits::OPEN_CHUNKS_PER_FILE,
    query,
    reply::{AddedChunk, Reply},
    rows::{Chunk, ChunkState, Inode, Lease, Mark, Row},
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Commits a chunk's row and record, its members included, before anyone may write it.
pub(crate) fn add(write: &mut Write<'_, '_>, session: SessionId, command: &AddChunk) -> Result<Reply, Fault> {
    let (mut inode, mut lease) = writer::check(write, session, command.inode, command.lease)?;
    writer::living_path(write, command.inode, &inode)?;
    check_form(command)?;
    check_room(write, command, &inode, &lease)?;
    let id = ChunkId(write.next_id(|counters| &mut counters.next_chunk)?);
    let chunk = Chunk {
        inode: command.inode,
        offset: command.offset,
        state: ChunkState::Open,
        length: 0,
        crc: Crc32::EMPTY,
        limit: command.limit,
        wanted: inode.replicas,
        members: command.members.clone(),
        holders: Vec::new(),
    };
    write.put_chunk(id, &chunk);
    write.put(Table::Row, keys::row(command.inode, command.offset), &Row { chunk: id });
    write.put(Table::Open, keys::chunk(id), &Mark {});
    lease.open.push(id);
    write.put_lease(command.lease, &lease);
    inode.chunks += 1;
    write.put_inode(command.inode, &inode);
    write.count(|totals| {
        totals.chunks += 1;
        totals.open += 1;
    })?;
    Ok(Reply::Chunk(AddedChunk { chunk: id, members: chunk.members, limit: chunk.limit, wanted: chunk.wanted }))
}

fn check_form(command: &AddChunk) -> Result<(), Fault> {
    let bad = |message: String| refuse(ErrorCode::InvalidArgument, message);
    if command.limit == 0 || command.limit > CHUNK_BYTES {
        return bad(format!("a chunk of at most {} bytes; choose 1 to {CHUNK_BYTES}", command.limit));
    }
    if command.offset.checked_add(command.limit).is_none_or(|end| end > FILE_BYTES) {
        return bad(format!("a chunk at offset {} would make the file longer than {FILE_BYTES} bytes", command.offset));
    }
    let distinct: BTreeSet<_> = command.members.iter().collect();
    let count = command.members.len();
    if count == 0 || count > REPLICAS_MAX as usize || distinct.len() != count {
        return bad(format!("{count} members; a chunk has 1 to {REPLICAS_MAX} distinct ones"));
    }
    Ok(())
}

fn check_room(write: &Write<'_, '_>, command: &AddChunk, inode: &Inode, lease: &Lease) -> Result<(), Fault> {
    let file = command.inode;
    if inode.chunks >= CHUNKS_PER_FILE as u64 {
        let message = format!("inode {file} has {CHUNKS_PER_FILE} chunks, and takes no more; begin another file");
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if lease.visible {
        if let Some(open) = lease.open.first() {
            return refuse(ErrorCode::Conflict, format!("chunk {open} of inode {file} is not sealed yet"));
        }
        if command.offset != inode.length {
            let message = format!("inode {file} ends at {}, not at {}", inode.length, command.offset);
            return refuse(ErrorCode::Conflict, message);
        }
        return Ok(());
    }
    if lease.open.len() >= OPEN_CHUNKS_PER_FILE {
        let message = format!("inode {file} has {OPEN_CHUNKS_PER_FILE} open chunks; seal one first");
        return refuse(ErrorCode::Busy, message);
    }
    let next = query::rows(write.tables(), file, command.offset, 1)?.chunks;
    if let Some(next) = next.first().filter(|next| next.record.offset < command.offset + command.limit) {
        let message = format!(
            "a chunk at offset {} of at most {} bytes would overlap chunk {} at offset {}",
            command.offset, command.limit, next.id, next.record.offset
        );
        return refuse(ErrorCode::Conflict, message);
    }
    Ok(())
}
