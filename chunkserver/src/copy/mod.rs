//! Copies that the master orders: this server pulls a sealed chunk from others until it is a replica.
//!
//! | module | does |
//! |---|---|
//! | `running` | the copies under way: bounded, to be looked at and to be cancelled |
//! | `pull` | one chunk from its sources, one after another |
//! | `source` | reading from one source over its data port |
//! | `pace` | no faster than ordered |
//!
//! What becomes of the blocks is the store's affair.

mod pace;
mod pull;
mod running;
mod source;

use quarry_proto::{WireError, convert, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, Leadership, Receipt, ServerId};
pub(crate) use running::Copies;
use tracing::info;

use crate::{server::Context, store::CopyStart};

/// Sources that one order may name.
const SOURCES_MAX: usize = 16;

/// What is to be copied from where.
struct Order {
    chunk: ChunkId,
    length: u64,
    crc: Crc32,
    sources: Vec<(ServerId, String)>,
    bytes_per_second: u64,
}

impl TryFrom<v1::Copy> for Order {
    type Error = WireError;

    fn try_from(from: v1::Copy) -> Result<Self, WireError> {
        let seal = convert::required(from.seal, "seal")?;
        if from.sources.is_empty() || from.sources.len() > SOURCES_MAX {
            let message = format!("a copy from {} sources; 1 to {SOURCES_MAX} can be named", from.sources.len());
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
        let sources = from.sources.into_iter();
        let sources = sources.map(|source| Ok((convert::server(&source.server, "source")?, source.address)));
        Ok(Order {
            chunk: ChunkId(seal.chunk),
            length: seal.length,
            crc: Crc32(seal.crc),
            sources: sources.collect::<Result<_, WireError>>()?,
            bytes_per_second: from.bytes_per_second,
        })
    }
}

/// Carries an order of the leader `by` out, to the receipt of the new replica. Whatever ends it early, nothing is left
/// and all room is free again on return.
///
/// # Errors
/// Busy past the limit; Unavailable when it was cancelled; the store's; of the sources the most telling.
pub(crate) async fn carry_out(context: &Context, by: Leadership, order: v1::Copy) -> Result<Receipt, WireError> {
    let order = Order::try_from(order)?;
    let running = context.copies.enter(order.chunk)?;
    let started = context.store.begin_copy(by, order.chunk, order.length, order.crc).await?;
    let writer = match started {
        CopyStart::Here(receipt) => return Ok(receipt),
        CopyStart::Receiving(writer) => writer,
    };
    let pulled = tokio::select! {
        biased;
        why = running.cancelled() => Err(why),
        () = context.stopping.cancelled() => {
            Err(WireError::new(ErrorCode::Unavailable, format!("chunk {}: its copying ends with this server", order.chunk)))
        }
        pulled = pull::pull(context, &writer, &order, &running) => pulled,
    };
    let finished = match pulled {
        Ok(()) => writer.finish().await.map_err(WireError::from),
        Err(error) => Err(error),
    };
    match finished {
        Ok(receipt) => {
            info!(chunk = %order.chunk, bytes = order.length, "copied");
            Ok(receipt)
        }
        Err(error) => {
            writer.abandon().await;
            Err(error)
        }
    }
}
