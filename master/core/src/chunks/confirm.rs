use quarry_types::{ErrorCode, limits::REPLICAS_MAX};

use crate::{
    command::ConfirmReplicas,
    limits::HOLDERS_MAX,
    reply::{Reply, SealedAt},
    rows::ChunkState,
    state::{Fault, Write, refuse},
};

const _: () = assert!(HOLDERS_MAX >= REPLICAS_MAX as usize);

/// More servers hold a sealed chunk durably.
pub(crate) fn confirm(write: &mut Write<'_, '_>, command: &ConfirmReplicas) -> Result<Reply, Fault> {
    let id = command.chunk;
    let Some(mut chunk) = write.chunk(id)? else {
        return refuse(ErrorCode::NotFound, format!("there is no chunk {id}"));
    };
    match chunk.state {
        ChunkState::Sealed => {}
        ChunkState::Open => return refuse(ErrorCode::Conflict, format!("chunk {id} is not sealed yet")),
        ChunkState::Doomed => return refuse(ErrorCode::NotFound, format!("chunk {id} is on its way to deletion")),
    }
    chunk.holders.retain(|holder| !command.gone.contains(holder));
    chunk.add_holders(&command.servers);
    write.put_chunk(id, &chunk);
    let replicas = chunk.holders.len() as u32;
    Ok(Reply::Sealed(SealedAt { chunk: id, length: chunk.length, crc: chunk.crc, replicas }))
}
