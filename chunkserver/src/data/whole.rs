//! A small chunk, written and ended in one conversation: what [`super::write`] does for any chunk, of one block at most.
//!
//! The block is received and verified, and then written here and behind at the same time.

use bytes::{Bytes, BytesMut};
use quarry_client::frames::{Conn, ConnReader};
use quarry_env::clock::timeout;
use quarry_proto::{WireError, signed, v1};
use quarry_types::{Crc32, ErrorCode, limits::BLOCK_BYTES};
use tracing::{debug, info};

use super::{
    forward,
    grant::{self, Permitted},
    limits::STALL_DEADLINE,
    streams::WriteState,
    write::corrupt,
};
use crate::server::Context;

/// Serves one such write of so many bytes. `true` when the connection can be used for another conversation.
pub(super) async fn serve(context: &Context, conn: &mut Conn, whole: v1::WriteWhole, bytes: u32) -> bool {
    match carry_out(context, &mut conn.reader, whole, bytes).await {
        Ok(receipts) => super::listen::send(context, &mut conn.writer, v1::SealReply { receipts }).await.is_ok(),
        Err(error) => {
            info!(code = %error.code, "write of a whole chunk failed: {error}");
            super::listen::fail(context, conn, &error).await;
            false
        }
    }
}

async fn carry_out(
    context: &Context,
    reader: &mut ConnReader,
    whole: v1::WriteWhole,
    bytes: u32,
) -> Result<Vec<v1::Signed>, WireError> {
    let own = |error: WireError| error.of_server(context.server);
    let v1::WriteWhole { grant, position, request_id, crc } = whole;
    let open = v1::OpenWrite { grant, position, request_id };
    let permitted = grant::check(context, open).await.map_err(own)?;
    let state = WriteState::new(permitted.next.is_none());
    // Bounds what is held as well: one block each.
    let _entered = context.streams.enter(permitted.chunk, &state).map_err(own)?;
    let received = state.unless_failed(receive(context, reader, &permitted, bytes, Crc32(crc))).await?;
    let data = received.map_err(own)?;
    let here = async {
        let written = context.store.write_whole(permitted.chunk, permitted.limit_bytes, data.clone(), Crc32(crc)).await;
        let receipt = written.map_err(|error| own(error.into()))?;
        context.traffic.wrote_last(data.len() as u64, context.world.clock.now());
        Ok::<_, WireError>(receipt)
    };
    let behind = forward::whole(context, &permitted, &data, Crc32(crc));
    let both = async { futures::join!(here, behind) };
    // Whoever ends the write from outside, by a fence, says why. What was begun here goes on, and is refused by the store.
    let (here, behind) = state.unless_failed(both).await?;
    // What fails here is told before what fails behind: it is nearer to the cause.
    let receipt = signed::sign(&context.key, &v1::Receipt::from(here?));
    let receipts: Vec<_> = std::iter::once(receipt).chain(behind?).collect();
    debug!(chunk = %permitted.chunk, request_id = permitted.request_id, "chunk written whole");
    Ok(receipts)
}

async fn receive(
    context: &Context,
    reader: &mut ConnReader,
    permitted: &Permitted,
    bytes: u32,
    crc: Crc32,
) -> Result<Bytes, WireError> {
    let most = permitted.limit_bytes.min(BLOCK_BYTES);
    if bytes == 0 || u64::from(bytes) > most {
        let message = format!("a whole chunk {} of {bytes} bytes; 1 to {most} can be written at once", permitted.chunk);
        return Err(WireError::new(ErrorCode::InvalidArgument, message));
    }
    let mut data = BytesMut::zeroed(bytes as usize);
    match timeout(&*context.world.clock, STALL_DEADLINE, reader.long_payload(&mut data)).await {
        Ok(received) => received?,
        Err(late) => {
            let message = format!("a chunk stopped half-way: {late}");
            return Err(WireError::new(ErrorCode::DeadlineExceeded, message));
        }
    }
    if Crc32::of(&data) != crc {
        return Err(corrupt(permitted.chunk, 0, context.server));
    }
    Ok(data.freeze())
}
