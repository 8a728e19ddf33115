//! Verifies and carries out what the leader tells.

use futures::{StreamExt, stream};
use quarry_proto::{
    WireError, convert, signed,
    v1::{self, command::Body},
};
use quarry_types::{ChunkId, Crc32, ErrorCode, Receipt, limits::REPORT_PAGE};
use tracing::{info, warn};

use super::register::follow;
use crate::{server::Context, store::StoreError};

/// Chunks of one command that are worked on at once.
const CHUNKS_AT_ONCE: usize = 4;

/// Carries out a command and says how it went. Every command can be given twice.
pub(super) async fn carry_out(context: &Context, command: v1::Command) -> v1::CommandResult {
    let id = command.id;
    match obeyed(context, command).await {
        Ok(result) => v1::CommandResult { id, ..result },
        Err(error) => refused(context, id, error),
    }
}

/// The answer to a command that is not carried out at all.
pub(super) fn refused(context: &Context, id: u64, error: WireError) -> v1::CommandResult {
    warn!(command = id, code = %error.code, "command refused: {error}");
    let error = error.of_server(context.server);
    v1::CommandResult { id, refused: Some((&error).into()), ..Default::default() }
}

/// What is to be done to one chunk.
#[derive(Clone, Copy)]
enum Order {
    Fence(ChunkId),
    Commit(ChunkId, u64, Crc32),
    Delete(ChunkId),
    Verify(ChunkId, u64, Crc32),
}

async fn obeyed(context: &Context, command: v1::Command) -> Result<v1::CommandResult, WireError> {
    // Persisted before anything is done: after a crash this server must still refuse the one before (S5).
    follow(context, &convert::required(command.leadership, "leadership")?).await?;
    let (name, orders) = orders(convert::required(command.body, "body")?);
    if orders.len() > REPORT_PAGE {
        let message = format!("a command for {} chunks; at most {REPORT_PAGE} go into one", orders.len());
        return Err(WireError::new(ErrorCode::InvalidArgument, message));
    }
    info!(command = command.id, chunks = orders.len(), "{name}");
    let mut result = v1::CommandResult::default();
    let mut done = stream::iter(orders).map(|order| one(context, order)).buffered(CHUNKS_AT_ONCE);
    while let Some((chunk, outcome)) = done.next().await {
        match outcome {
            Ok(Some(receipt)) => result.receipts.push(signed::sign(&context.key, &v1::Receipt::from(receipt))),
            Ok(None) => {}
            Err(error) => {
                let error = WireError::from(error).of_server(context.server);
                warn!(command = command.id, %chunk, code = %error.code, "{name} failed: {error}");
                result.failures.push(v1::ChunkFailure { chunk: chunk.0, error: Some((&error).into()) });
            }
        }
    }
    Ok(result)
}

fn orders(body: Body) -> (&'static str, Vec<Order>) {
    let ids = |chunks: Vec<u64>, order: fn(ChunkId) -> Order| chunks.into_iter().map(|c| order(ChunkId(c))).collect();
    let seals = |seals: Vec<v1::CommittedSeal>, order: fn(ChunkId, u64, Crc32) -> Order| {
        seals.into_iter().map(|s| order(ChunkId(s.chunk), s.length, Crc32(s.crc))).collect()
    };
    match body {
        Body::Fence(fence) => ("fence", ids(fence.chunks, Order::Fence)),
        Body::CommitSeals(commit) => ("commit seals", seals(commit.seals, Order::Commit)),
        Body::Delete(delete) => ("delete", ids(delete.chunks, Order::Delete)),
        Body::Verify(verify) => ("verify", seals(verify.seals, Order::Verify)),
    }
}

async fn one(context: &Context, order: Order) -> (ChunkId, Result<Option<Receipt>, StoreError>) {
    let store = &context.store;
    let (chunk, ends_writing, outcome) = match order {
        Order::Fence(chunk) => (chunk, true, store.fence(chunk).await.map(Some)),
        Order::Commit(chunk, length, crc) => (chunk, true, store.commit_seal(chunk, length, crc).await.map(Some)),
        Order::Delete(chunk) => (chunk, true, store.delete(chunk).await.map(|()| None)),
        Order::Verify(chunk, length, crc) => (chunk, false, store.verify(chunk, length, crc).await.map(Some)),
    };
    if ends_writing {
        let message = format!("chunk {chunk} was fenced by the master; ask it where to go on");
        context.streams.cut(chunk, WireError::new(ErrorCode::Fenced, message).of_server(context.server));
    }
    (chunk, outcome)
}
