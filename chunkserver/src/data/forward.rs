//! The next member of the pipeline.

use std::time::Duration;

use bytes::Bytes;
use quarry_client::frames::{self, Conn, ConnError, ConnReader, ConnWriter};
use quarry_env::{
    World,
    clock::{Elapsed, timeout},
};
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{Crc32, ErrorCode, ServerId, limits::CONNECT_DEADLINE};

use super::{
    grant::Permitted,
    limits::{MEMBER_DEADLINE, MEMBER_DEADLINE_STEP, OPEN_DEADLINE},
    streams::WriteState,
};
use crate::server::Context;

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
    /// The next member; `None` on the last.
    fn behind(context: &Context, permitted: &Permitted) -> Option<Self> {
        let (server, address) = permitted.next.clone()?;
        let deadline = MEMBER_DEADLINE + MEMBER_DEADLINE_STEP * permitted.behind.saturating_sub(1);
        Some(Peer { world: context.world.clone(), server, address, deadline })
    }

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
    takes_whole: bool,
}

/// Opens the write on the next member and, by it, on all behind. `None` on the last member.
///
/// # Errors
/// [`ErrorCode::PipelineBroken`] or the code of the member that refused, with its id.
pub(super) async fn open(
    context: &Context,
    permitted: &Permitted,
) -> Result<Option<(NextWriter, NextReader)>, WireError> {
    let Some(peer) = Peer::behind(context, permitted) else {
        return Ok(None);
    };
    let (conn, _) = converse(context, &peer, permitted, Ask::Open).await?;
    let Conn { reader, writer, takes_whole, .. } = conn;
    Ok(Some((NextWriter { peer: peer.clone(), writer }, NextReader { peer, reader, takes_whole })))
}

/// Writes a whole chunk on the next member and, by it, on all behind: their receipts. None on the last member.
///
/// # Errors
/// As of [`open`].
pub(super) async fn whole(
    context: &Context,
    permitted: &Permitted,
    data: &Bytes,
    crc: Crc32,
) -> Result<Vec<v1::Signed>, WireError> {
    let Some(peer) = Peer::behind(context, permitted) else {
        return Ok(Vec::new());
    };
    // Over all of it, connecting too: each member has answered before the one that waits for it gives up, and names its culprit.
    let asking = converse(context, &peer, permitted, Ask::Whole(data, crc));
    let (conn, receipts) = match timeout(&*peer.world.clock, peer.deadline, asking).await {
        Ok(written) => written?,
        Err(late) => return Err(peer.broken(&late.to_string())),
    };
    context.members.put(context.world.clock.now(), peer.server, peer.address, conn);
    Ok(receipts)
}

/// What the next member is asked for.
#[derive(Clone, Copy)]
enum Ask<'a> {
    /// To open the chunk.
    Open,
    /// To write all of it.
    Whole(&'a Bytes, Crc32),
}

impl Ask<'_> {
    /// The receipts of a chunk that was written.
    async fn of(self, peer: &Peer, permitted: &Permitted, conn: &mut Conn) -> Result<Vec<v1::Signed>, NotOpen> {
        match self {
            Ask::Open => ask_to_open(peer, permitted, conn).await.map(|()| Vec::new()),
            Ask::Whole(data, crc) => ask_to_write(permitted, conn, data, crc).await.map_err(NotOpen::Conn),
        }
    }
}

/// Asks the next member, over a connection that is idle or a new one.
async fn converse(
    context: &Context,
    peer: &Peer,
    permitted: &Permitted,
    ask: Ask<'_>,
) -> Result<(Conn, Vec<v1::Signed>), WireError> {
    if let Some(mut conn) = context.members.take(peer.world.clock.now(), peer.server, &peer.address) {
        match ask.of(peer, permitted, &mut conn).await {
            Ok(said) => return Ok((conn, said)),
            // It was closed while it was idle, most likely. If not, the member refuses the chunk that it has begun.
            Err(NotOpen::Conn(ConnError::Io { .. })) => {}
            Err(error) => return Err(error.of(peer)),
        }
    }
    let conn = frames::connect(&peer.world, &peer.address, permitted.cluster, peer.server, CONNECT_DEADLINE).await;
    // Who refuses the handshake is not the member that the grant means: the place in the pipeline is what broke.
    let mut conn = conn.map_err(|e| peer.broken(&e.to_string()))?;
    let said = ask.of(peer, permitted, &mut conn).await.map_err(|e| e.of(peer))?;
    Ok((conn, said))
}

async fn ask_to_write(
    permitted: &Permitted,
    conn: &mut Conn,
    data: &Bytes,
    crc: Crc32,
) -> Result<Vec<v1::Signed>, ConnError> {
    let (grant, position) = (Some(permitted.grant.clone()), permitted.position + 1);
    let request_id = permitted.request_id.clone();
    // One block at most.
    let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
    if conn.takes_whole {
        conn.writer.begin(v1::WriteWhole { grant, position, request_id, crc: crc.0 }, bytes).await?;
        conn.writer.payload(data).await?;
        conn.writer.flush().await?;
    } else {
        // One of an older release: the same in three frames.
        conn.writer.send(v1::OpenWrite { grant, position, request_id }).await?;
        match conn.reader.expect().await? {
            (Frame::OpenWriteReply(_), _) => {}
            (other, _) => return Err(conn.reader.unexpected(&other, "OpenWriteReply")),
        }
        conn.writer.begin(v1::Packet { offset: 0, piece_crcs: vec![crc.0], acked: 0 }, bytes).await?;
        conn.writer.payload_and_send(data, v1::Seal { length: u64::from(bytes), crc: crc.0 }).await?;
    }
    loop {
        match conn.reader.expect().await? {
            (Frame::SealReply(reply), _) => return Ok(reply.receipts),
            (Frame::Ack(_), _) => {}
            (other, _) => return Err(conn.reader.unexpected(&other, "SealReply")),
        }
    }
}

/// Why the next member did not do what it was asked for.
enum NotOpen {
    Conn(ConnError),
    Late(Elapsed),
}

impl NotOpen {
    fn of(self, peer: &Peer) -> WireError {
        match self {
            NotOpen::Conn(error) => peer.error(error),
            NotOpen::Late(late) => peer.broken(&format!("beginning the chunk: {late}")),
        }
    }
}

async fn ask_to_open(peer: &Peer, permitted: &Permitted, conn: &mut Conn) -> Result<(), NotOpen> {
    let open = v1::OpenWrite {
        grant: Some(permitted.grant.clone()),
        position: permitted.position + 1,
        request_id: permitted.request_id.clone(),
    };
    let asking = async {
        conn.writer.send(open).await?;
        match conn.reader.expect().await? {
            (Frame::OpenWriteReply(_), _) => Ok(()),
            (other, _) => Err(conn.reader.unexpected(&other, "OpenWriteReply")),
        }
    };
    match timeout(&*peer.world.clock, OPEN_DEADLINE * permitted.behind, asking).await {
        Ok(opened) => opened.map_err(NotOpen::Conn),
        Err(late) => Err(NotOpen::Late(late)),
    }
}

/// Keeps the connection for the next chunk that goes to the same member. For a conversation that has ended, with the seal.
pub(super) fn keep(context: &Context, writer: NextWriter, reader: NextReader) {
    let (NextWriter { peer, writer }, NextReader { reader, takes_whole, .. }) = (writer, reader);
    let conn = Conn { reader, writer, local_socket: None, takes_whole };
    context.members.put(context.world.clock.now(), peer.server, peer.address, conn);
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

    /// Sends the last part of the last packet's payload and the seal behind it, so that both arrive at once.
    pub(super) async fn last_payload(&mut self, part: &[u8], seal: v1::Seal) -> Result<(), WireError> {
        let sending = self.writer.payload_and_send(part, seal);
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

/// Takes what the next member says into the progress, until it has sealed, which gives the connection back, or the write has
/// failed.
pub(super) async fn listen(state: &WriteState, next: Option<NextReader>) -> Option<NextReader> {
    let NextReader { peer, mut reader, takes_whole } = next?;
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
            Ok(Err(e)) => {
                state.fail(e);
                return None;
            }
            // The write has failed already.
            Err(_) => return None,
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
            state.fail(peer.broken(&format!("it sent a {name} that does not belong there")));
            return None;
        }
        if sealed {
            return Some(NextReader { peer, reader, takes_whole });
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
