use quarry_types::ErrorCode;

use crate::{
    command::ForgetDoomed,
    keys,
    limits::FORGET_MAX,
    reply::Reply,
    rows::ChunkState,
    state::{Fault, Write, less, refuse},
    tables::Table,
};

/// Drops the records of doomed chunks that no server holds any more. Chunks without a record are fine (a repetition);
/// one that is not doomed is refused.
pub(crate) fn forget(write: &mut Write<'_, '_>, command: &ForgetDoomed) -> Result<Reply, Fault> {
    if command.chunks.len() > FORGET_MAX {
        return refuse(ErrorCode::InvalidArgument, format!("one command forgets at most {FORGET_MAX} chunks"));
    }
    write.refuse_held("forgetting deleted chunks")?;
    for id in &command.chunks {
        let Some(chunk) = write.chunk(*id)? else { continue };
        if chunk.state != ChunkState::Doomed {
            return refuse(ErrorCode::Conflict, format!("chunk {id} belongs to inode {}", chunk.inode));
        }
        write.delete(Table::Chunk, keys::chunk(*id));
        write.delete(Table::Doomed, keys::chunk(*id));
        write.count(|totals| less(&mut totals.doomed))?;
    }
    Ok(Reply::DONE)
}
