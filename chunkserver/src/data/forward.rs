//! The next member of the pipeline.

use std::time::Duration;

use quarry_client::frames::{self, Conn, ConnError, ConnReader, ConnWriter};
use quarry_env::{World, clock::timeout};
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{ErrorCode, ServerId, limits::CONNECT_DEADLINE};

use super::{
    grant::Permitted,
    limits::{MEMBER_DEADLINE, MEMBER_DEADLINE_STEP, OPEN_DEADLINE},
    streams::WriteState,
};

/// How often it is looked whether the next member is late.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Who the next member is, and how long it may take.
#[derive(Clone)]
struct Peer {
    world: World,
    server: ServerId,
    address: String,
    deadline: Duration,
}

impl Peer {
    fn broken(&self, why: &str) -> WireError {
        let message = format!("chunkserver {} at {}, next in the pipeline: {why}", self.server, self.address);
        WireError::new(ErrorCode::PipelineBroken, message).of_server(self.server)
    }

    /// What it said of itself or of one behind it passes as it is.
    fn error(&self, error: ConnError) -> WireError {
        match error {
            ConnError::Refused { source, .. } => source.of_server(self.server),
            other => self.broken(&other.to_string()),
        }
    }
}

/// Sends to the next member.
pub(super) struct NextWriter {
    peer: Peer,
    writer: ConnWriter,
}

/// Hears from the next member.
pub(super) struct NextReader {
    peer: Peer,
    reader: ConnReader,
}

/// Opens the write on the next member and, by it, on all behind. `None` on the last member.
///
/// # Errors
/// [`ErrorCode::PipelineBroken`] or the code of the member that refused, with its id.
pub(super) async fn open(world: &World, permitted: &Permitted) -> Result<Option<(NextWriter, NextReader)>, WireError> {
    let Some((server, address)) = permitted.next.clone() else {
        return Ok(None);
    };
    let deadline = MEMBER_DEADLINE + MEMBER_DEADLINE_STEP * permitted.behind.saturating_sub(1);
    let peer = Peer { world: world.clone(), server, address, deadline };
    let conn = frames::connect(world, &peer.address, permitted.cluster, server, CONNECT_DEADLINE).await;
    // Who refuses the handshake is not the member that the grant means: the place in the pipeline is what broke.
    let mut conn = conn.map_err(|e| peer.broken(&e.to_string()))?;
    let open = v1::OpenWrite {
        grant: Some(permitted.grant.clone()),
        position: permitted.position + 1,
        request_id: permitted.request_id.clone(),
    };
    let limit = OPEN_DEADLINE * permitted.behind;
    match timeout(&*world.clock, limit, ask_to_open(&mut conn, open)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(peer.error(e)),
        Err(late) => return Err(peer.broken(&format!("opening the chunk: {late}"))),
    }
    let Conn { reader, writer, .. } = conn;
    Ok(Some((NextWriter { peer: peer.clone(), writer }, NextReader { peer, reader })))
}

async fn ask_to_open(conn: &mut Conn, open: v1::OpenWrite) -> Result<(), ConnError> {
    conn.writer.send(open).await?;
    match conn.reader.expect().await? {
        (Frame::OpenWriteReply(_), _) => Ok(()),
        (other, _) => Err(conn.reader.unexpected(&other, "OpenWriteReply")),
    }
}

impl NextWriter {
    /// Sends a packet's header and meta.
    pub(super) async fn begin(&mut self, packet: v1::Packet, bytes: u32) -> Result<(), WireError> {
        let sending = self.writer.begin(packet, bytes);
        timed(&self.peer, sending).await
    }

    /// Sends the next part of a packet's payload.
    pub(super) async fn payload(&mut self, part: &[u8]) -> Result<(), WireError> {
        let sending = self.writer.payload(part);
        timed(&self.peer, sending).await
    }

    /// Hands over what was sent.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        let sending = self.writer.flush();
        timed(&self.peer, sending).await
    }

    /// Sends a frame without payload.
    pub(super) async fn send(&mut self, frame: impl Into<Frame>) -> Result<(), WireError> {
        let sending = self.writer.send(frame);
        timed(&self.peer, sending).await
    }
}

async fn timed(peer: &Peer, sending: impl Future<Output = Result<(), ConnError>>) -> Result<(), WireError> {
    match timeout(&*peer.world.clock, peer.deadline, sending).await {
        Ok(sent) => sent.map_err(|e| peer.error(e)),
        Err(late) => Err(peer.broken(&late.to_string())),
    }
}

/// Takes what the next member says into the progress, until it has sealed or the write has failed.
pub(super) async fn listen(state: &WriteState, next: Option<NextReader>) {
    let Some(NextReader { peer, mut reader }) = next else {
        return;
    };
    loop {
        let heard = state.unless_failed(async {
            let frame = reader.expect();
            tokio::pin!(frame);
            loop {
                tokio::select! {
                    biased;
                    frame = &mut frame => return frame.map_err(|e| peer.error(e)),
                    () = peer.world.clock.sleep(LOOK_INTERVAL) => late(state, &peer)?,
                }
            }
        });
        let frame = match heard.await {
            Ok(Ok((frame, _))) => frame,
            Ok(Err(e)) => return state.fail(e),
            // The write has failed already.
            Err(_) => return,
        };
        let now = peer.world.clock.now();
        let sealed = matches!(frame, Frame::SealReply(_));
        let name = frame.name();
        let fits = state.update(|progress| match frame {
            Frame::Ack(ack) => progress.behind_wrote(ack.length, now),
            Frame::FlushReply(_) => progress.behind_flushed(now),
            Frame::SealReply(reply) => progress.behind_sealed(reply.receipts, now),
            _ => false,
        });
        if !fits {
            return state.fail(peer.broken(&format!("it sent a {name} that does not belong there")));
        }
        if sealed {
            return;
        }
    }
}

fn late(state: &WriteState, peer: &Peer) -> Result<(), WireError> {
    let since = state.lock().owed_since();
    match since {
        Some(since) if peer.world.clock.now().since(since) > peer.deadline => {
            Err(peer.broken(&format!("nothing was acknowledged for {:?}", peer.deadline)))
        }
        _ => Ok(()),
    }
}
