//! Verifies and carries out what the leader tells.

use futures::{StreamExt, stream};
use quarry_proto::{
    WireError, convert, signed,
    v1::{self, command::Body},
};
use quarry_types::{ChunkId, Crc32, ErrorCode, Leadership, Receipt, limits::REPORT_PAGE};
use tracing::{info, warn};

use super::{peers, register::follow};
use crate::{copy, server::Context, store::StoreError};

/// Chunks of one command that are worked on at once.
const CHUNKS_AT_ONCE: usize = 4;

/// Whether a command waits for one of the places of those that are carried out at once. Copies take long and have a
/// limit of their own; what ends them never waits for anything, and a peer that is looked for has no time.
pub(super) fn takes_a_place(command: &v1::Command) -> bool {
    !matches!(command.body, Some(Body::Copy(_) | Body::CancelCopies(_) | Body::ProbePeers(_)))
}

/// Carries out a command that was given in `registration` and says how it went. Every command can be given twice.
pub(super) async fn carry_out(context: &Context, registration: u64, command: v1::Command) -> v1::CommandResult {
    let id = command.id;
    match obeyed(context, registration, command).await {
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
    Drop(ChunkId, u64, Crc32),
    Verify(ChunkId, u64, Crc32),
}

/// Under whose authority an order is carried out.
#[derive(Clone, Copy)]
struct By {
    leadership: Leadership,
    registration: u64,
}

async fn obeyed(context: &Context, registration: u64, command: v1::Command) -> Result<v1::CommandResult, WireError> {
    // Persisted before anything is done: after a crash this server must still refuse the one before (S5).
    let leadership = follow(context, &convert::required(command.leadership, "leadership")?).await?;
    let by = By { leadership, registration };
    match convert::required(command.body, "body")? {
        Body::Copy(order) => Ok(copied(context, leadership, order).await),
        Body::CancelCopies(cancel) => {
            context.copies.cancel(cancel.chunks.into_iter().map(ChunkId));
            Ok(v1::CommandResult::default())
        }
        Body::ProbePeers(probe) => {
            Ok(v1::CommandResult { reached: peers::reach(context, probe.peers).await?, ..Default::default() })
        }
        Body::Fence(fence) => each(context, by, command.id, "fence", ids(fence.chunks, Order::Fence)).await,
        Body::CommitSeals(commit) => {
            each(context, by, command.id, "commit seals", seals(commit.seals, Order::Commit)).await
        }
        Body::Delete(delete) => each(context, by, command.id, "delete", ids(delete.chunks, Order::Delete)).await,
        Body::Verify(verify) => each(context, by, command.id, "verify", seals(verify.seals, Order::Verify)).await,
        Body::DropSurplus(drop) => each(context, by, command.id, "drop surplus", seals(drop.seals, Order::Drop)).await,
    }
}

fn ids(chunks: Vec<u64>, order: fn(ChunkId) -> Order) -> Vec<Order> {
    chunks.into_iter().map(|chunk| order(ChunkId(chunk))).collect()
}

fn seals(seals: Vec<v1::CommittedSeal>, order: fn(ChunkId, u64, Crc32) -> Order) -> Vec<Order> {
    seals.into_iter().map(|seal| order(ChunkId(seal.chunk), seal.length, Crc32(seal.crc))).collect()
}

/// Carries out a copy: a receipt, or why there is none.
async fn copied(context: &Context, by: Leadership, order: v1::Copy) -> v1::CommandResult {
    let chunk = order.seal.map_or(0, |seal| seal.chunk);
    let mut result = v1::CommandResult::default();
    match copy::carry_out(context, by, order).await {
        Ok(receipt) => result.receipts.push(signed::sign(&context.key, &v1::Receipt::from(receipt))),
        Err(error) => {
            let error = error.of_server(context.server);
            warn!(chunk = %ChunkId(chunk), code = %error.code, "copy failed: {error}");
            result.failures.push(v1::ChunkFailure { chunk, error: Some((&error).into()) });
        }
    }
    result
}

/// Carries out the same for many chunks.
async fn each(
    context: &Context,
    by: By,
    command: u64,
    name: &str,
    orders: Vec<Order>,
) -> Result<v1::CommandResult, WireError> {
    if orders.len() > REPORT_PAGE {
        let message = format!("a command for {} chunks; at most {REPORT_PAGE} go into one", orders.len());
        return Err(WireError::new(ErrorCode::InvalidArgument, message));
    }
    info!(command, chunks = orders.len(), "{name}");
    let (mut result, orders) = written_down(context, by, orders).await;
    let mut done = stream::iter(orders).map(|order| one(context, by, order)).buffered(CHUNKS_AT_ONCE);
    while let Some((chunk, outcome)) = done.next().await {
        match outcome {
            Ok(Some(receipt)) => result.receipts.push(signed::sign(&context.key, &v1::Receipt::from(receipt))),
            Ok(None) => {}
            Err(error) => {
                let error = WireError::from(error).of_server(context.server);
                warn!(command, %chunk, code = %error.code, "{name} failed: {error}");
                result.failures.push(v1::ChunkFailure { chunk: chunk.0, error: Some((&error).into()) });
            }
        }
    }
    Ok(result)
}

/// Carries out at once those orders that only change a record, and deletions; the others are left.
async fn written_down(context: &Context, by: By, orders: Vec<Order>) -> (v1::CommandResult, Vec<Order>) {
    let orders = deleted(context, by, orders).await;
    committed(context, by, orders).await
}

async fn deleted(context: &Context, by: By, mut orders: Vec<Order>) -> Vec<Order> {
    let chunk = |order: &Order| match *order {
        Order::Delete(chunk) => Some(chunk),
        _ => None,
    };
    let chunks: Vec<_> = orders.iter().filter_map(chunk).collect();
    if chunks.len() < 2 {
        return orders;
    }
    // Why something was not done is said of each of those that are left.
    let Ok(_present) = context.removals.begin(by.registration).await else { return orders };
    let done = context.store.delete_many(by.leadership, chunks).await.unwrap_or_default();
    orders.retain(|order| chunk(order).is_none_or(|chunk| !done.contains(&chunk)));
    context.copies.cancel(done.iter().copied());
    for chunk in done {
        end_writing(context, chunk);
    }
    orders
}

async fn committed(context: &Context, by: By, mut orders: Vec<Order>) -> (v1::CommandResult, Vec<Order>) {
    let mut result = v1::CommandResult::default();
    let seal = |order: &Order| match *order {
        Order::Commit(chunk, length, crc) => Some((chunk, length, crc)),
        _ => None,
    };
    let seals: Vec<_> = orders.iter().filter_map(seal).collect();
    if seals.len() < 2 {
        return (result, orders);
    }
    // Why something was not done is said of each of those that are left.
    let receipts = context.store.commit_records(by.leadership, seals).await.unwrap_or_default();
    let done = |receipt: &Receipt| (receipt.chunk, receipt.length, receipt.crc);
    orders.retain(|order| seal(order).is_none_or(|seal| receipts.get(&seal.0).map(done) != Some(seal)));
    for receipt in receipts.into_values() {
        end_writing(context, receipt.chunk);
        result.receipts.push(signed::sign(&context.key, &v1::Receipt::from(receipt)));
    }
    (result, orders)
}

/// Whoever still writes the chunk is told.
fn end_writing(context: &Context, chunk: ChunkId) {
    let message = format!("chunk {chunk} was fenced by the master; ask it where to go on");
    context.streams.cut(chunk, WireError::new(ErrorCode::Fenced, message).of_server(context.server));
}

async fn one(context: &Context, by: By, order: Order) -> (ChunkId, Result<Option<Receipt>, StoreError>) {
    let store = &context.store;
    let (chunk, ends_writing, outcome) = match order {
        Order::Fence(chunk) => (chunk, true, store.fence(chunk).await.map(Some)),
        Order::Commit(chunk, length, crc) => {
            (chunk, true, store.commit_seal_as_promised(by.leadership, chunk, length, crc).await.map(Some))
        }
        Order::Delete(chunk) => {
            let deleted = match context.removals.begin(by.registration).await {
                Ok(_present) => store.delete(by.leadership, chunk).await,
                Err(over) => Err(over),
            };
            // The store has ended it; this only lets it know at once.
            context.copies.cancel([chunk]);
            (chunk, true, deleted.map(|()| None))
        }
        Order::Drop(chunk, length, crc) => {
            let dropped = match context.removals.begin(by.registration).await {
                Ok(_present) => store.drop_surplus(by.leadership, chunk, length, crc).await,
                Err(over) => Err(over),
            };
            (chunk, false, dropped.map(|()| None))
        }
        Order::Verify(chunk, length, crc) => (chunk, false, store.verify(chunk, length, crc).await.map(Some)),
    };
    if ends_writing {
        end_writing(context, chunk);
    }
    (chunk, outcome)
}
