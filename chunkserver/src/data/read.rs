//! Reads.

use std::sync::atomic::Ordering;

use quarry_client::frames::ConnWriter;
use quarry_env::Instant;
use quarry_proto::{WireError, v1};
use quarry_types::{
    ChunkId, Crc32, ErrorCode,
    limits::{BLOCK_BYTES, PACKET_BYTES},
};
use tracing::{debug, info};

use super::listen::{clean_request_id, send, tell};
use crate::{
    server::Context,
    store::{AtHand, ReplicaReader, Salvager, StoreError},
};

/// What is in memory is sent in parts of so many bytes.
const PART_BYTES: u64 = 4 * BLOCK_BYTES;

/// Serves one read. `false` when the connection is of no further use.
pub(super) async fn serve(context: &Context, writer: &mut ConnWriter, read: v1::Read) -> bool {
    let _copy = match read.copy {
        true => context.copy_reads.acquire().await.ok(),
        false => None,
    };
    let _reading = context.readers.begin_read(&read);
    // Each read holds a buffer or two: past the limit it waits, and the caller's deadline decides how long.
    let Ok(_permit) = context.reads.acquire().await else {
        return false;
    };
    context.active_reads.fetch_add(1, Ordering::Relaxed);
    let answered = answer(context, writer, &read).await;
    context.active_reads.fetch_sub(1, Ordering::Relaxed);
    let request_id = clean_request_id(&read.request_id);
    match answered {
        Ok(()) => {
            debug!(chunk = read.chunk, request_id, offset = read.offset, bytes = read.bytes, "read");
            true
        }
        Err(Stopped::Refused(error)) => {
            info!(chunk = read.chunk, request_id, code = %error.code, "read refused: {error}");
            tell(context, writer, &error.of_server(context.server)).await
        }
        Err(Stopped::Gone(error)) => {
            debug!(chunk = read.chunk, request_id, "the reader went away: {error}");
            false
        }
    }
}

enum Stopped {
    /// The caller is to be told.
    Refused(WireError),
    /// The caller cannot be told.
    Gone(WireError),
}

impl From<StoreError> for Stopped {
    fn from(from: StoreError) -> Self {
        Stopped::Refused(from.into())
    }
}

async fn answer(context: &Context, writer: &mut ConnWriter, read: &v1::Read) -> Result<(), Stopped> {
    let chunk = ChunkId(read.chunk);
    if read.copy
        && read.salvage
        && let Some(salvager) = salvager(context, read).await?
    {
        return salvage(context, writer, read, &salvager).await;
    }
    let reader = if read.open {
        context.store.open_reader(chunk).await?
    } else {
        context.store.reader(chunk, read.length, Crc32(read.crc)).await?
    };
    let readable = reader.readable();
    let end = read.offset.saturating_add(read.bytes).min(readable);
    if read.offset > readable {
        // Of an open chunk the caller may be ahead of what all members have: it gets nothing yet.
        return if read.open { finish(context, writer, readable).await } else { Err(past_end(chunk, read, readable)) };
    }
    let mut at = read.offset - read.offset % BLOCK_BYTES;
    if read.bytes == 0 {
        at = end;
    }
    while let Some(sent) = pass_on(context, writer, read, &reader, at, end).await? {
        at += sent;
        if at >= end {
            return Ok(());
        }
    }
    let mut next = if at < end { Some(piece(context, read, &reader, at, end).await?) } else { None };
    while let Some((data, block_crcs)) = next.take() {
        if data.is_empty() {
            break;
        }
        if read.copy {
            check(context, read, &data, &block_crcs).await?;
        }
        let offset = at;
        at += data.len() as u64;
        // The end leaves with the last blocks, so that whoever reads little is not woken twice.
        let last = (at >= end).then_some(v1::ReadEnd { readable });
        // The disk works on the next blocks while these leave.
        let (sent, following) = futures::join!(send_data(context, writer, offset, &data, block_crcs, last), async {
            if at < end { Some(piece(context, read, &reader, at, end).await) } else { None }
        });
        sent.map_err(Stopped::Gone)?;
        match following {
            Some(following) => next = Some(following?),
            None => return Ok(()),
        }
    }
    finish(context, writer, readable).await
}

/// Sends the next packet part by part, if its beginning is in memory; how many bytes. What was copied just now is still in the
/// processor's cache when it is sent, which for a whole packet it is not.
///
/// A part that cannot be read ends the connection: the caller has been told how long the packet is. What is wrong has been
/// noted by then, and whoever asks again is told.
async fn pass_on(
    context: &Context,
    writer: &mut ConnWriter,
    read: &v1::Read,
    reader: &ReplicaReader,
    at: u64,
    end: u64,
) -> Result<Option<u64>, Stopped> {
    // A copy is compared before it is sent.
    if read.copy || at >= end {
        return Ok(None);
    }
    let (clock, began) = (&*context.world.clock, context.world.clock.now());
    let Some(AtHand { bytes, block_crcs, first }) = reader.at_hand(at, packet_bytes(at, end), PART_BYTES)? else {
        return Ok(None);
    };
    let mut reading = clock.now().since(began);
    let meta = v1::ReadData { offset: at, block_crcs: block_crcs.into_iter().map(|crc| crc.0).collect() };
    let packet_end = at + bytes;
    let last = (packet_end >= end).then(|| v1::ReadEnd { readable: reader.readable() });
    let mut part = first;
    let mut sent_to = at;
    super::listen::timed(context, writer.begin(meta, u32::try_from(bytes).unwrap_or(u32::MAX)))
        .await
        .map_err(Stopped::Gone)?;
    loop {
        sent_to += part.len() as u64;
        let sending = async {
            match last.filter(|_| sent_to >= packet_end) {
                Some(last) => writer.payload_and_send(&part, last).await,
                None => writer.payload(&part).await,
            }
        };
        super::listen::timed(context, sending).await.map_err(Stopped::Gone)?;
        drop(part);
        if sent_to >= packet_end {
            break;
        }
        let began = clock.now();
        let next = reader.read(sent_to, (packet_end - sent_to).next_multiple_of(BLOCK_BYTES).min(PART_BYTES)).await;
        (part, _) = next.map_err(|error| {
            info!(chunk = read.chunk, code = %error.code(), "read cut off: {error}");
            Stopped::Gone(error.into())
        })?;
        if part.is_empty() {
            let message = format!("chunk {}: it ended while it was read", ChunkId(read.chunk));
            return Err(Stopped::Gone(WireError::new(ErrorCode::Unavailable, message)));
        }
        reading += clock.now().since(began);
    }
    super::listen::timed(context, writer.flush()).await.map_err(Stopped::Gone)?;
    let now = clock.now();
    context.traffic.served(&context.traffic.reads, bytes, Instant(now.0.saturating_sub(reading)), now);
    Ok(Some(bytes))
}

/// Bytes of the next packet: whole blocks.
fn packet_bytes(at: u64, end: u64) -> u64 {
    (end - at).next_multiple_of(BLOCK_BYTES).min(PACKET_BYTES)
}

/// The replica, if it is in quarantine; whole ones are read as always.
async fn salvager(context: &Context, read: &v1::Read) -> Result<Option<Salvager>, StoreError> {
    match context.store.salvager(ChunkId(read.chunk), read.length).await {
        Ok(salvager) => Ok(Some(salvager)),
        Err(error) if error.code() == ErrorCode::Mismatch => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends what can be read of the blocks that cover the range; the others are missing in the answer.
async fn salvage(
    context: &Context,
    writer: &mut ConnWriter,
    read: &v1::Read,
    salvager: &Salvager,
) -> Result<(), Stopped> {
    let end = read.offset.saturating_add(read.bytes).min(salvager.readable());
    let mut at = read.offset - read.offset % BLOCK_BYTES;
    while at < end {
        let wanted = packet_bytes(at, end);
        for (offset, data, slots) in salvager.read(at, wanted).await? {
            send_data(context, writer, offset, &data, slots, None).await.map_err(Stopped::Gone)?;
        }
        at += wanted;
    }
    finish(context, writer, salvager.readable()).await
}

/// A copy must not spread what is bad, and no client may have noticed it yet: it is compared here too, and a replica
/// that fails is checked as a whole, which takes it out of use.
async fn check(context: &Context, read: &v1::Read, data: &[u8], crcs: &[Crc32]) -> Result<(), StoreError> {
    if data.chunks(BLOCK_BYTES as usize).map(Crc32::of).eq(crcs.iter().copied()) {
        return Ok(());
    }
    let chunk = ChunkId(read.chunk);
    context.store.verify(chunk, read.length, Crc32(read.crc)).await?;
    Err(StoreError::new(ErrorCode::Corrupt, format!("chunk {chunk}: a block failed its checksum, and then did not")))
}

async fn piece(
    context: &Context,
    read: &v1::Read,
    reader: &ReplicaReader,
    at: u64,
    end: u64,
) -> Result<(bytes::Bytes, Vec<Crc32>), StoreError> {
    let wanted = packet_bytes(at, end);
    let (began, traffic) = (context.world.clock.now(), &context.traffic);
    let (data, crcs) = reader.read(at, wanted).await?;
    if read.copy {
        traffic.copied_out.fetch_add(data.len() as u64, Ordering::Relaxed);
    } else {
        traffic.served(&traffic.reads, data.len() as u64, began, context.world.clock.now());
    }
    Ok((data, crcs))
}

async fn send_data(
    context: &Context,
    writer: &mut ConnWriter,
    offset: u64,
    data: &[u8],
    block_crcs: Vec<Crc32>,
    last: Option<v1::ReadEnd>,
) -> Result<(), WireError> {
    let meta = v1::ReadData { offset, block_crcs: block_crcs.into_iter().map(|crc| crc.0).collect() };
    let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
    super::listen::timed(context, async {
        writer.begin(meta, bytes).await?;
        if let Some(last) = last {
            return writer.payload_and_send(data, last).await;
        }
        writer.payload(data).await?;
        writer.flush().await
    })
    .await
}

async fn finish(context: &Context, writer: &mut ConnWriter, readable: u64) -> Result<(), Stopped> {
    send(context, writer, v1::ReadEnd { readable }).await.map_err(Stopped::Gone)
}

fn past_end(chunk: ChunkId, read: &v1::Read, readable: u64) -> Stopped {
    let message = format!("chunk {chunk} has {readable} bytes, and the read begins at {}", read.offset);
    Stopped::Refused(WireError::new(ErrorCode::InvalidArgument, message))
}
