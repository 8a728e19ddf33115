//! One write, from `OpenWrite` to `SealReply`.
//!
//! Four things go on at once: receiving (and forwarding while a packet still arrives), the disk, hearing from
//! the members behind, and replying to the one before. They share a [`WriteState`] and nothing else; the first
//! failure ends them all.

use std::sync::Arc;

use quarry_client::frames::{Conn, ConnReader, ConnWriter};
use quarry_env::clock::timeout;
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, ServerId, sums};
use tokio::sync::mpsc;
use tracing::{debug, info, trace, warn};

use super::{
    buffers::StreamBuffers,
    forward::{self, NextReader, NextWriter},
    grant::{self, Permitted},
    limits::{LINGER, QUEUED_PACKETS, REASON_DEADLINE, STALL_DEADLINE, WRITE_IDLE_DEADLINE},
    local::{self, Append, Seal, Step},
    progress::Say,
    streams::{Entered, WriteState},
};
use crate::{server::Context, store::ReplicaWriter};

/// A write that has begun on this member and on all behind.
struct Begun {
    permitted: Permitted,
    state: Arc<WriteState>,
    replica: ReplicaWriter,
    next: Option<(NextWriter, NextReader)>,
    _entered: Entered,
}

/// Serves one write. `true` when the connection can be used for another conversation.
pub(super) async fn serve(context: &Context, conn: &mut Conn, open: v1::OpenWrite) -> bool {
    let begun = match begin(context, open).await {
        Ok(begun) => begun,
        Err(error) => {
            info!(code = %error.code, "write refused: {error}");
            super::listen::tell(context, &mut conn.writer, &error).await;
            return false;
        }
    };
    let (chunk, request_id) = (begun.permitted.chunk, begun.permitted.request_id.clone());
    match carry_out(context, conn, begun).await {
        Ok(()) => {
            debug!(%chunk, request_id, "chunk sealed by its writer");
            true
        }
        Err(error) => {
            warn!(%chunk, request_id, code = %error.code, "write ended early: {error}");
            false
        }
    }
}

async fn begin(context: &Context, open: v1::OpenWrite) -> Result<Begun, WireError> {
    let own = |error: WireError| error.of_server(context.server);
    let permitted = grant::check(context, open).await.map_err(own)?;
    let state = WriteState::new(permitted.next.is_none());
    let entered = context.streams.enter(permitted.chunk, &state).map_err(own)?;
    let here = async { context.store.create(permitted.chunk, permitted.limit_bytes).await.map_err(|e| own(e.into())) };
    let (replica, next) = futures::join!(here, forward::open(context, &permitted));
    // What fails here is told before what fails behind: it is nearer to the cause.
    let (replica, next) = (replica?, next?);
    debug!(chunk = %permitted.chunk, request_id = permitted.request_id, position = permitted.position, "write begins");
    Ok(Begun { permitted, state, replica, next, _entered: entered })
}

async fn carry_out(context: &Context, conn: &mut Conn, begun: Begun) -> Result<(), WireError> {
    let Begun { permitted, state, replica, next, _entered } = begun;
    let Conn { reader, writer, .. } = conn;
    super::listen::send(context, writer, v1::OpenWriteReply {}).await.map_err(|e| e.of_server(context.server))?;
    let (next_writer, next_reader) = next.map_or((None, None), |(writer, reader)| (Some(writer), Some(reader)));
    let (steps, queue) = mpsc::channel(QUEUED_PACKETS);
    let receive = Receive {
        context,
        state: &state,
        replica: &replica,
        permitted: &permitted,
        buffers: context.buffers.stream(),
        next: next_writer,
        steps,
        end: 0,
    };
    let work = async {
        futures::join!(
            receive.run(reader),
            local::run(context, &state, &replica, queue),
            forward::listen(&state, next_reader)
        )
    };
    let reply = reply(context, &state, writer, &replica, permitted.position == 0);
    tokio::pin!(work, reply);
    let mut worked = None;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut reply => break outcome,
            done = &mut work, if worked.is_none() => worked = Some(done),
        }
    };
    if worked.is_none() {
        // After a failure, closing with bytes unread would reset the connection and could take the failure from the caller, so
        // what it has under way is received and dropped. After the seal there is nothing left to wait for.
        worked = timeout(&*context.world.clock, LINGER, work).await.ok();
    }
    if let (Ok(()), Some((Some(writer), (), Some(reader)))) = (&outcome, worked) {
        forward::keep(context, writer, reader);
    }
    outcome
}

/// Says to the one before what the progress allows, until the chunk is sealed or the write has failed.
async fn reply(
    context: &Context,
    state: &WriteState,
    writer: &mut ConnWriter,
    replica: &ReplicaWriter,
    primary: bool,
) -> Result<(), WireError> {
    loop {
        let (say, failure) = {
            let mut progress = state.lock();
            let failure = progress.failure().cloned();
            // Nothing is acknowledged after a failure.
            (if failure.is_none() { progress.next() } else { None }, failure)
        };
        if let Some(error) = failure {
            super::listen::tell(context, writer, &error).await;
            return Err(error);
        }
        let sent = match say {
            None => {
                state.moved().await;
                continue;
            }
            Some(Say::Ack(length)) => {
                if primary {
                    // What all from the first member on have, all have.
                    replica.set_acked(length);
                }
                super::listen::send(context, writer, v1::Ack { length }).await
            }
            Some(Say::Flushed(length)) => super::listen::send(context, writer, v1::FlushReply { length }).await,
            Some(Say::Sealed(receipts)) => {
                return super::listen::send(context, writer, v1::SealReply { receipts }).await;
            }
        };
        if let Err(error) = sent {
            state.fail(error);
        }
    }
}

/// The receiving side of a write.
struct Receive<'a> {
    context: &'a Context,
    state: &'a WriteState,
    replica: &'a ReplicaWriter,
    permitted: &'a Permitted,
    buffers: StreamBuffers,
    next: Option<NextWriter>,
    steps: mpsc::Sender<Step>,
    /// Where the chunk ends, as far as it was received.
    end: u64,
}

impl Receive<'_> {
    /// Receives until the seal, which gives back what sends to the next member, or the end of the connection; after a failure
    /// it only takes what comes.
    async fn run(mut self, reader: &mut ConnReader) -> Option<NextWriter> {
        loop {
            match self.step(reader).await {
                Ok(true) => {}
                Ok(false) => return self.next,
                Err(error) => {
                    self.state.fail(error.of_server(self.context.server));
                    self.next = None;
                    reader.wake_for_anything();
                    while matches!(reader.next().await, Ok(Some(_))) {}
                    return None;
                }
            }
        }
    }

    /// Handles one frame; `false` after the seal.
    async fn step(&mut self, reader: &mut ConnReader) -> Result<bool, WireError> {
        let clock = &*self.context.world.clock;
        let next = match timeout(clock, WRITE_IDLE_DEADLINE, reader.next()).await {
            Ok(next) => next?,
            Err(late) => return Err(WireError::new(ErrorCode::DeadlineExceeded, format!("the writer: {late}"))),
        };
        let Some((frame, bytes)) = next else {
            return Err(WireError::new(ErrorCode::Unavailable, "the writer went away"));
        };
        match frame {
            Frame::Packet(packet) => {
                if let Some(seal) = self.packet(reader, packet, bytes).await? {
                    return self.seal(seal).await.map(|()| false);
                }
            }
            Frame::Flush(flush) => {
                self.at_end("flush", flush.length)?;
                if !self.state.update(|progress| progress.flush_asked(flush.length)) {
                    return Err(WireError::new(ErrorCode::Busy, "too many flushes without waiting for their replies"));
                }
                self.state.update(|progress| progress.flush_forwarded(clock.now()));
                self.forward_frame(flush).await?;
                self.queue(Step::Flush(flush.length)).await?;
            }
            Frame::Seal(seal) => {
                self.at_end("seal", seal.length)?;
                self.state.update(|progress| progress.seal_forwarded(clock.now()));
                self.forward_frame(seal).await?;
                return self.seal(seal).await.map(|()| false);
            }
            other => return Err(reader.unexpected(&other, "Packet, Flush or Seal").into()),
        }
        Ok(true)
    }

    fn at_end(&self, what: &str, length: u64) -> Result<(), WireError> {
        if length == self.end {
            return Ok(());
        }
        let message = format!("{what} at {length}, but {} bytes were sent", self.end);
        Err(WireError::new(ErrorCode::InvalidArgument, message))
    }

    /// Checks a packet against the stream; the pieces it must come in.
    fn shape(&self, packet: &v1::Packet, bytes: u32) -> Result<Vec<(Crc32, u64)>, WireError> {
        let bad = |message: String| Err(WireError::new(ErrorCode::InvalidArgument, message));
        let bytes = u64::from(bytes);
        if bytes == 0 || packet.offset != self.end || packet.acked > self.end {
            return bad(format!(
                "a packet of {bytes} bytes at {} does not continue a chunk of {}",
                packet.offset, self.end
            ));
        }
        if self.end + bytes > self.permitted.limit_bytes {
            let limit = self.permitted.limit_bytes;
            return bad(format!("a packet reaches {}, past the granted {limit} bytes", self.end + bytes));
        }
        let lengths: Vec<u64> = sums::pieces(packet.offset, bytes).collect();
        if lengths.len() != packet.piece_crcs.len() {
            return bad(format!("a packet of {} pieces carries {} CRCs", lengths.len(), packet.piece_crcs.len()));
        }
        Ok(packet.piece_crcs.iter().map(|crc| Crc32(*crc)).zip(lengths).collect())
    }

    /// Receives a packet, verifies each piece and passes it on before the next has arrived; with the seal, if it is right behind.
    async fn packet(
        &mut self,
        reader: &mut ConnReader,
        packet: v1::Packet,
        bytes: u32,
    ) -> Result<Option<v1::Seal>, WireError> {
        let pieces = self.shape(&packet, bytes)?;
        let offset = packet.offset;
        let (chunk, server) = (self.permitted.chunk, self.context.server);
        let request_id = self.permitted.request_id.as_str();
        trace!(target: "quarry::pipeline", %server, chunk = chunk.0, offset, bytes, request_id, "packet_begin");
        self.replica.set_acked(packet.acked);
        let buffer = self.state.unless_failed(self.buffers.take()).await?;
        let mut buffer = buffer.ok_or_else(|| WireError::new(ErrorCode::Unavailable, "stopping"))?;
        let forwarded = match &mut self.next {
            Some(next) => self.state.unless_failed(next.begin(packet, bytes)).await?,
            None => Ok(()),
        };
        self.or_reason(forwarded).await?;
        let last = pieces.len() - 1;
        let end = offset + u64::from(bytes);
        let mut at = offset;
        let mut seal = None;
        for (i, (crc, length)) in pieces.iter().enumerate() {
            // A piece is at most a block.
            let part = buffer.grow(*length as usize).ok_or_else(|| misfit(chunk))?;
            match timeout(&*self.context.world.clock, STALL_DEADLINE, reader.long_payload(part)).await {
                Ok(received) => received?,
                Err(late) => return Err(stalled(&late.to_string())),
            }
            if Crc32::of(part) != *crc {
                return Err(corrupt(chunk, at, server));
            }
            at += length;
            if i < last {
                self.pass_on(part).await?;
                continue;
            }
            let behind = reader.at_hand(|frame| match frame {
                Frame::Seal(seal) if seal.length == end => Some(seal),
                _ => None,
            });
            seal = behind.await?;
            self.pass_on_last(part, end, seal).await?;
        }
        trace!(target: "quarry::pipeline", %server, chunk = chunk.0, offset, bytes, request_id, "packet_end");
        self.end = end;
        self.queue(Step::Append(Append { offset, pieces, bytes: buffer.freeze() })).await?;
        Ok(seal)
    }

    async fn pass_on(&mut self, part: &[u8]) -> Result<(), WireError> {
        let Some(next) = &mut self.next else { return Ok(()) };
        let forwarded = self.state.unless_failed(next.payload(part)).await?;
        self.or_reason(forwarded).await
    }

    /// Passes on the end of a packet that ends at `end`, and the seal behind it.
    async fn pass_on_last(&mut self, part: &[u8], end: u64, seal: Option<v1::Seal>) -> Result<(), WireError> {
        let Some(next) = &mut self.next else { return Ok(()) };
        // Before the last bytes leave: the answer may be faster than the next line.
        let now = self.context.world.clock.now();
        self.state.update(|progress| {
            progress.forwarded(end, now);
            if seal.is_some() {
                progress.seal_forwarded(now);
            }
        });
        let sending = async {
            match seal {
                Some(seal) => next.last_payload(part, seal).await,
                None => {
                    next.payload(part).await?;
                    next.flush().await
                }
            }
        };
        let forwarded = self.state.unless_failed(sending).await?;
        self.or_reason(forwarded).await
    }

    async fn seal(&mut self, seal: v1::Seal) -> Result<(), WireError> {
        self.queue(Step::Seal(Seal { length: seal.length, crc: Crc32(seal.crc) })).await
    }

    async fn forward_frame(&mut self, frame: impl Into<Frame>) -> Result<(), WireError> {
        let sent = match &mut self.next {
            Some(next) => self.state.unless_failed(next.send(frame)).await?,
            None => Ok(()),
        };
        self.or_reason(sent).await
    }

    /// Sending to the next member failed: it may have said why, which arrives on the other half of the connection.
    async fn or_reason(&mut self, sent: Result<(), WireError>) -> Result<(), WireError> {
        let Err(error) = sent else {
            return Ok(());
        };
        let reason = timeout(&*self.context.world.clock, REASON_DEADLINE, self.state.failed()).await;
        Err(reason.unwrap_or(error))
    }

    async fn queue(&mut self, step: Step) -> Result<(), WireError> {
        let queued = self.state.unless_failed(self.steps.send(step)).await?;
        queued.map_err(|_| WireError::new(ErrorCode::Internal, "the disk side of this write has ended"))
    }
}

fn misfit(chunk: ChunkId) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, format!("a packet for chunk {chunk} is longer than a packet may be"))
}

fn stalled(late: &str) -> WireError {
    WireError::new(ErrorCode::DeadlineExceeded, format!("a packet stopped half-way: {late}"))
}

pub(super) fn corrupt(chunk: ChunkId, at: u64, server: ServerId) -> WireError {
    let message =
        format!("bytes for chunk {chunk} at offset {at} arrived at chunkserver {server} with a wrong checksum");
    WireError::new(ErrorCode::Corrupt, message).of_server(server)
}
