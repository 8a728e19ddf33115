use quarry_types::ChunkId;

use crate::{
    keys,
    rows::{Chunk, ChunkState, Mark},
    state::{Fault, Write, less},
    tables::Table,
};

/// Marks a chunk for deletion, irrevocably, and takes its row out of its file. Only after this is committed may a
/// server be told to delete (S6).
pub(crate) fn doom(write: &mut Write<'_, '_>, id: ChunkId, mut chunk: Chunk) -> Result<(), Fault> {
    if chunk.state == ChunkState::Doomed {
        return Ok(());
    }
    let was_open = chunk.state == ChunkState::Open;
    chunk.state = ChunkState::Doomed;
    write.put_chunk(id, &chunk);
    write.delete(Table::Row, keys::row(chunk.inode, chunk.offset));
    write.put(Table::Doomed, keys::chunk(id), &Mark {});
    if was_open {
        write.delete(Table::Open, keys::chunk(id));
    }
    write.count(|totals| {
        less(&mut totals.chunks);
        if was_open {
            less(&mut totals.open);
        }
        totals.doomed += 1;
    })?;
    Ok(())
}
