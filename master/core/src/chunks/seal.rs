use quarry_types::{ChunkId, Crc32, ErrorCode};

use super::doom::doom;
use crate::{
    cluster::lineage::held,
    command::SealedChunk,
    keys,
    namespace::walk,
    reply::SealedAt,
    rows::{Change, Chunk, ChunkState, FileState, InodeState},
    state::{Fault, Write, less, refuse},
    tables::{Table, TableError},
};

fn sealed_at(id: ChunkId, chunk: &Chunk) -> SealedAt {
    SealedAt { chunk: id, length: chunk.length, crc: chunk.crc, replicas: chunk.holders.len() as u32 }
}

/// Gives an open chunk its one length and CRC (S2): a compare-and-set on (chunk, open). The same again is fine and
/// may add holders; another length or CRC is refused. A chunk of length 0 is doomed and its offset is free again.
pub(crate) fn seal(write: &mut Write<'_, '_>, command: &SealedChunk) -> Result<SealedAt, Fault> {
    let id = command.chunk;
    let Some(mut chunk) = write.chunk(id)? else {
        return refuse(ErrorCode::NotFound, format!("there is no chunk {id}"));
    };
    let same = chunk.length == command.length && chunk.crc == command.crc;
    match chunk.state {
        ChunkState::Sealed if same => {
            chunk.add_holders(&command.holders);
            write.put_chunk(id, &chunk);
            return Ok(sealed_at(id, &chunk));
        }
        ChunkState::Doomed if same => return Ok(sealed_at(id, &chunk)),
        ChunkState::Sealed => {
            let message = format!(
                "chunk {id} was sealed at {} bytes with CRC {}, not at {} with {}",
                chunk.length, chunk.crc, command.length, command.crc
            );
            return refuse(ErrorCode::Conflict, message);
        }
        ChunkState::Doomed => return refuse(ErrorCode::NotFound, format!("chunk {id} is on its way to deletion")),
        ChunkState::Open => {}
    }
    // The members that would be heard now may have less than was sealed there after the point from which this lineage went
    // on; and what lies beyond a seal is cut.
    if let Some(hold) = write.hold()?.filter(|hold| hold.is_inherited(id)) {
        return Err(held(&hold, "sealing a chunk that was open in an earlier lineage").into());
    }
    if command.length > chunk.limit || (command.length == 0 && command.crc != Crc32::EMPTY) {
        let message = format!(
            "chunk {id} cannot be sealed at {} bytes with CRC {}: its limit is {} bytes",
            command.length, command.crc, chunk.limit
        );
        return refuse(ErrorCode::InvalidArgument, message);
    }
    update_file(write, id, &chunk, command)?;
    if command.length == 0 {
        let at = SealedAt { chunk: id, length: 0, crc: Crc32::EMPTY, replicas: 0 };
        doom(write, id, chunk)?;
        return Ok(at);
    }
    chunk.state = ChunkState::Sealed;
    chunk.length = command.length;
    chunk.crc = command.crc;
    chunk.add_holders(&command.holders);
    write.put_chunk(id, &chunk);
    write.delete(Table::Open, keys::chunk(id));
    write.count(|totals| less(&mut totals.open))?;
    Ok(sealed_at(id, &chunk))
}

/// Tells the file and its lease that the chunk is not open any more.
fn update_file(write: &mut Write<'_, '_>, id: ChunkId, chunk: &Chunk, command: &SealedChunk) -> Result<(), Fault> {
    let Some(mut inode) = write.inode(chunk.inode)? else {
        return Err(TableError(format!("open chunk {id} belongs to inode {}, which is gone", chunk.inode)).into());
    };
    if inode.lease.0 != 0
        && let Some(mut lease) = write.lease(inode.lease)?
    {
        lease.open.retain(|open| *open != id);
        write.put_lease(inode.lease, &lease);
    }
    if command.length == 0 {
        less(&mut inode.chunks);
    } else if inode.state == InodeState::Live || inode.removal != 0 {
        // A visible file has one open chunk at most, and it lies at the end.
        if chunk.offset != inode.length {
            let message = format!("chunk {id} lies at {} of a file of {} bytes", chunk.offset, inode.length);
            return Err(TableError(message).into());
        }
        inode.length += command.length;
        inode.crc = inode.crc.combine(command.crc, command.length);
        inode.version += 1;
        inode.modified_ms = write.wall_ms;
        // Nobody sees one in the trash, or below a directory that was removed.
        if let Some(path) = walk::told_path(write.tables(), chunk.inode, &inode)? {
            write.tell(Change::Grown(FileState::of(chunk.inode, &inode, path)));
        }
    }
    write.put_inode(chunk.inode, &inode);
    Ok(())
}
