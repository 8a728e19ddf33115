//! The connection over which one chunk is written.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use quarry_env::clock::timeout;
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{Crc32, ErrorCode, ServerId, sums};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::permit::Permit;
use crate::{
    client::Shared,
    frames::{Conn, ConnError, ConnReader, ConnWriter},
    pool::{Pooled, Slot, Target},
};

/// Frames from the primary that may wait to be looked at. Acks are the most frequent ones, one a packet.
const EVENTS: usize = 64;

/// The pipeline failed; the chunk must be sealed where it stands.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) error: WireError,
    /// Who is to blame, as far as known.
    pub(super) culprit: Option<ServerId>,
}

/// What came from the primary.
enum Event {
    Ack(u64),
    Flushed(u64),
    Sealed(Vec<v1::Signed>),
    Failed(ConnError),
}

/// How sending failed.
enum Failed {
    /// The primary said so, or said nothing.
    Told(WireError),
    /// The connection broke; the primary may have said why before.
    Sending(ConnError),
}

/// A chunk that every member agreed to end.
pub(super) struct Ended {
    pub(super) length: u64,
    pub(super) crc: Crc32,
    pub(super) receipts: Vec<v1::Signed>,
}

/// A chunk being written.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    pub(super) permit: Permit,
    stall: Duration,
    slot: Slot,
    takes_whole: bool,
    writer: ConnWriter,
    reader: AbortOnDropHandle<ConnReader>,
    events: mpsc::Receiver<Event>,
    sums: Sums,
    flushed: u64,
    receipts: Option<Vec<v1::Signed>>,
    /// The members were asked to end it.
    ending: bool,
}

/// What the chunk is made of so far.
#[derive(Debug, Default)]
pub(super) struct Sums {
    sent: u64,
    crc: Crc32,
    acked: u64,
    acked_crc: Crc32,
    /// Length and CRC of the chunk behind each unacknowledged packet.
    marks: VecDeque<(u64, Crc32)>,
}

impl Sums {
    pub(super) fn push(&mut self, crc: Crc32, bytes: u64) {
        self.crc = self.crc.combine(crc, bytes);
        self.sent += bytes;
        self.marks.push_back((self.sent, self.crc));
    }

    fn ack(&mut self, length: u64) {
        while let Some((end, crc)) = self.marks.front().copied().filter(|(end, _)| *end <= length) {
            (self.acked, self.acked_crc) = (end, crc);
            self.marks.pop_front();
        }
    }

    /// The longest prefix not beyond `length` whose CRC is known, with that CRC.
    pub(super) fn known_prefix(&self, length: u64) -> (u64, Crc32) {
        let mark = self.marks.iter().rev().find(|(end, _)| *end <= length);
        mark.copied().unwrap_or((self.acked, self.acked_crc))
    }
}

impl Pipeline {
    /// Connects to the primary and opens the chunk on all members.
    pub(super) async fn open(shared: &Arc<Shared>, permit: Permit) -> Result<Pipeline, (Permit, Broken)> {
        let Some((server, address)) = permit.members.first().cloned() else {
            let error = WireError::new(ErrorCode::Internal, "a chunk without members");
            return Err((permit, Broken { error, culprit: None }));
        };
        let target = Target { cluster: permit.cluster, server, address };
        match connect(shared, &target, &permit).await {
            Ok(pooled) => Ok(Pipeline::start(shared, permit, pooled)),
            Err(error) => {
                let culprit = blame(&error, server);
                Err((permit, Broken { error, culprit }))
            }
        }
    }

    fn start(shared: &Arc<Shared>, permit: Permit, pooled: Pooled) -> Self {
        let (to, events) = mpsc::channel(EVENTS);
        let Conn { reader, writer, takes_whole, .. } = pooled.conn;
        let reader = AbortOnDropHandle::new(tokio::spawn(listen(reader, to)));
        let stall = permit.stall(shared);
        Pipeline {
            shared: Arc::clone(shared),
            permit,
            stall,
            slot: pooled.slot,
            takes_whole,
            writer,
            reader,
            events,
            sums: Sums::default(),
            flushed: 0,
            receipts: None,
            ending: false,
        }
    }

    /// Bytes the chunk may still take.
    pub(super) fn room(&self) -> u64 {
        self.permit.limit - self.sums.sent
    }

    /// Whether something sent was not acknowledged yet.
    pub(super) fn waits(&self) -> bool {
        self.sums.acked < self.sums.sent
    }

    /// Whether the members were asked to end it.
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// The file offset up to which every member has the bytes.
    pub(super) fn acked_offset(&self) -> u64 {
        self.permit.offset + self.sums.acked
    }

    /// What remains to be known after the pipeline broke.
    pub(super) fn into_parts(self) -> (Permit, Sums) {
        (self.permit, self.sums)
    }

    /// Sends the next bytes, which must fit the room; behind the last ones, the seal. Acks are taken meanwhile.
    pub(super) async fn send(&mut self, bytes: &Bytes, last: bool) -> Result<(), Broken> {
        let length = bytes.len() as u64;
        let mut piece_crcs = Vec::new();
        let (mut packet_crc, mut at) = (Crc32::EMPTY, 0usize);
        for piece in sums::pieces(self.sums.sent, length) {
            let end = at + piece as usize;
            let crc = Crc32::of(&bytes[at..end]);
            packet_crc = packet_crc.combine(crc, piece);
            piece_crcs.push(crc.0);
            at = end;
        }
        let packet = v1::Packet { offset: self.sums.sent, piece_crcs, acked: self.sums.acked };
        self.sums.push(packet_crc, length);
        // A packet is at most 1 MiB.
        let payload_bytes = u32::try_from(length).unwrap_or(u32::MAX);
        self.ending = last;
        let failed = self.send_packet(packet, payload_bytes, bytes).await;
        let error = match failed {
            Ok(()) => return Ok(()),
            Err(Failed::Told(error)) => error,
            Err(Failed::Sending(error)) => self.reason(error).await,
        };
        Err(self.broken(error))
    }

    async fn send_packet(&mut self, packet: v1::Packet, payload_bytes: u32, bytes: &[u8]) -> Result<(), Failed> {
        let Pipeline { writer, events, shared, stall, sums, flushed, receipts, ending, .. } = self;
        let seal = ending.then_some(v1::Seal { length: sums.sent, crc: sums.crc.0 });
        let sending = async {
            writer.begin(packet, payload_bytes).await?;
            match seal {
                Some(seal) => writer.payload_and_send(bytes, seal).await,
                None => {
                    writer.payload(bytes).await?;
                    writer.flush().await
                }
            }
        };
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                event = events.recv(), if receipts.is_none() => {
                    take(event, sums, flushed, receipts).map_err(Failed::Told)?;
                }
                sent = &mut sending => return sent.map_err(Failed::Sending),
                () = shared.world.clock.sleep(*stall) => return Err(Failed::Told(stalled(*stall, "takes no bytes"))),
            }
        }
    }

    /// Takes what the primary sent already, without waiting.
    pub(super) fn drain(&mut self) -> Result<(), Broken> {
        loop {
            let event = match self.events.try_recv() {
                Ok(event) => Some(event),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) if self.receipts.is_some() => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
            if let Err(failed) = take(event, &mut self.sums, &mut self.flushed, &mut self.receipts) {
                return Err(self.broken(failed));
            }
        }
    }

    /// Waits for something from the primary; without end while nothing is due. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Result<(), Broken> {
        if self.receipts.is_some() {
            // It was the last thing that the primary had to say.
            return std::future::pending().await;
        }
        let waits = self.waits();
        let Pipeline { events, shared, stall, sums, flushed, receipts, .. } = self;
        let failed = tokio::select! {
            biased;
            event = events.recv() => match take(event, sums, flushed, receipts) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            },
            () = shared.world.clock.sleep(*stall), if waits => stalled(*stall, "acknowledges nothing"),
        };
        Err(self.broken(failed))
    }

    /// Waits until everything sent is durable on every member; returns the file offset behind it.
    pub(super) async fn flush(&mut self) -> Result<u64, Broken> {
        let length = self.sums.sent;
        self.command(v1::Flush { length }).await?;
        while self.flushed < length {
            self.due("makes nothing durable").await?;
        }
        self.sums.ack(length);
        Ok(self.permit.offset + length)
    }

    /// Ends the chunk on every member.
    pub(super) async fn seal(&mut self) -> Result<Ended, Broken> {
        let (length, crc) = (self.sums.sent, self.sums.crc);
        if !self.ending {
            self.ending = true;
            self.command(v1::Seal { length, crc: crc.0 }).await?;
        }
        let receipts = loop {
            if let Some(receipts) = self.receipts.take() {
                break receipts;
            }
            self.due("does not end the chunk").await?;
        };
        self.permit.check(&receipts, length, crc).map_err(|error| Broken { error, culprit: None })?;
        self.sums.ack(length);
        Ok(Ended { length, crc, receipts })
    }

    /// Gives the connection back after the chunk was sealed.
    pub(super) async fn finish(self) {
        if let Ok(reader) = self.reader.await {
            let conn = Conn { reader, writer: self.writer, local_socket: None, takes_whole: self.takes_whole };
            self.shared.pool.put(Pooled { conn, slot: self.slot });
        }
    }

    async fn command(&mut self, frame: impl Into<Frame>) -> Result<(), Broken> {
        let world = &self.shared.world;
        let failed = match timeout(&*world.clock, self.stall, self.writer.send(frame)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => self.reason(error).await,
            Err(_) => stalled(self.stall, "takes no bytes"),
        };
        Err(self.broken(failed))
    }

    /// Waits for the next event, which must come: acks are progress as well.
    async fn due(&mut self, but: &str) -> Result<(), Broken> {
        let world = &self.shared.world;
        let failed = match timeout(&*world.clock, self.stall, self.events.recv()).await {
            Ok(event) => match take(event, &mut self.sums, &mut self.flushed, &mut self.receipts) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            },
            Err(_) => stalled(self.stall, but),
        };
        Err(self.broken(failed))
    }

    /// Sending failed; what the primary said before it closed the connection is the better reason.
    async fn reason(&mut self, error: ConnError) -> WireError {
        let said = async {
            while let Some(event) = self.events.recv().await {
                if let Event::Failed(failed @ ConnError::Refused { .. }) = event {
                    return Some(refusal(failed));
                }
            }
            None
        };
        let said = timeout(&*self.shared.world.clock, Duration::from_millis(500), said).await;
        said.ok().flatten().unwrap_or_else(|| refusal(error))
    }

    fn broken(&self, error: WireError) -> Broken {
        let culprit = self.permit.members.first().and_then(|(primary, _)| blame(&error, *primary));
        Broken { error, culprit }
    }
}

/// Who is to blame for `error`, which the connection to `primary` brought.
pub(super) fn blame(error: &WireError, primary: ServerId) -> Option<ServerId> {
    match error.code {
        // The chunk was ended by somebody else, or our knowledge is old: no server failed.
        ErrorCode::Fenced | ErrorCode::StaleLeader | ErrorCode::Unauthorized | ErrorCode::VersionMismatch => None,
        _ => error.server.or(Some(primary)),
    }
}

/// A failure that the primary told keeps its code and who failed; the address is in the message either way.
pub(super) fn refusal(error: ConnError) -> WireError {
    match error {
        ConnError::Refused { source, .. } => source,
        other => other.into(),
    }
}

fn stalled(limit: Duration, what: &str) -> WireError {
    WireError::new(ErrorCode::DeadlineExceeded, format!("the primary {what} for {limit:?}"))
}

/// Notes one event; an error when the pipeline failed.
fn take(
    event: Option<Event>,
    sums: &mut Sums,
    flushed: &mut u64,
    receipts: &mut Option<Vec<v1::Signed>>,
) -> Result<(), WireError> {
    match event {
        Some(Event::Ack(length)) if length <= sums.sent => sums.ack(length),
        Some(Event::Flushed(length)) if length <= sums.sent => *flushed = (*flushed).max(length),
        Some(Event::Ack(length) | Event::Flushed(length)) => {
            let message = format!("the primary acknowledged {length} bytes, but {} were sent", sums.sent);
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
        Some(Event::Sealed(signed)) => *receipts = Some(signed),
        Some(Event::Failed(error)) => return Err(refusal(error)),
        None => return Err(WireError::new(ErrorCode::Unavailable, "the primary ended the write")),
    }
    Ok(())
}

/// Passes on what the primary sends, until the chunk is sealed or the connection fails.
async fn listen(mut reader: ConnReader, to: mpsc::Sender<Event>) -> ConnReader {
    loop {
        let event = match reader.expect().await {
            Ok((Frame::Ack(ack), _)) => Event::Ack(ack.length),
            Ok((Frame::FlushReply(reply), _)) => Event::Flushed(reply.length),
            Ok((Frame::SealReply(reply), _)) => Event::Sealed(reply.receipts),
            Ok((other, _)) => Event::Failed(reader.unexpected(&other, "Ack, FlushReply or SealReply")),
            Err(error) => Event::Failed(error),
        };
        let last = matches!(event, Event::Sealed(_) | Event::Failed(_));
        if to.send(event).await.is_err() || last {
            return reader;
        }
    }
}

/// A connection on which every member has the chunk open.
async fn connect(shared: &Shared, target: &Target, permit: &Permit) -> Result<Pooled, WireError> {
    let members = u32::try_from(permit.members.len()).unwrap_or(u32::MAX);
    let limit = shared.config.stall.saturating_mul(members.saturating_add(1));
    let mut fresh = false;
    loop {
        let mut pooled = shared.pool.get(target, fresh).await?;
        let open = v1::OpenWrite {
            grant: Some(permit.grant.clone()),
            position: 0,
            request_id: shared.config.request_id.clone(),
        };
        let Conn { reader, writer, .. } = &mut pooled.conn;
        let opening = async {
            writer.send(open).await?;
            match reader.expect().await? {
                (Frame::OpenWriteReply(_), _) => Ok(()),
                (other, _) => Err(reader.unexpected(&other, "OpenWriteReply")),
            }
        };
        match timeout(&*shared.world.clock, limit, opening).await {
            Ok(Ok(())) => return Ok(pooled),
            // The server closed an idle connection, and so it did not begin anything.
            Ok(Err(ConnError::Io { .. })) if pooled.slot.reused && !fresh => fresh = true,
            Ok(Err(error)) => return Err(refusal(error)),
            Err(elapsed) => {
                let message = format!("chunkserver {} at {}: {elapsed}", target.server, target.address);
                return Err(WireError::new(ErrorCode::DeadlineExceeded, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_the_crc_of_each_unacknowledged_prefix_is_known() {
        let mut sums = Sums::default();
        for part in [&b"ab"[..], b"cde", b"f"] {
            sums.push(Crc32::of(part), part.len() as u64);
        }
        assert_eq!(sums.known_prefix(1), (0, Crc32::EMPTY));
        assert_eq!(sums.known_prefix(4), (2, Crc32::of(b"ab")));
        assert_eq!(sums.known_prefix(9), (6, Crc32::of(b"abcdef")));
        sums.ack(5);
        assert_eq!((sums.acked, sums.acked_crc), (5, Crc32::of(b"abcde")));
        assert_eq!(sums.known_prefix(5), (5, Crc32::of(b"abcde")));
    }

    #[test]
    fn an_ack_of_what_was_not_sent_is_refused() {
        let mut sums = Sums::default();
        sums.push(Crc32::of(b"ab"), 2);
        assert!(take(Some(Event::Ack(3)), &mut sums, &mut 0, &mut None).is_err());
        assert!(take(Some(Event::Ack(2)), &mut sums, &mut 0, &mut None).is_ok());
        assert_eq!(sums.acked, 2);
    }

    #[test]
    fn the_member_that_a_failure_names_is_avoided() {
        let (primary, other) = (ServerId::from_random(1), ServerId::from_random(2));
        let failed = WireError::new(ErrorCode::PipelineBroken, "x").of_server(other);
        assert_eq!(blame(&failed, primary), Some(other));
        assert_eq!(blame(&WireError::new(ErrorCode::Unavailable, "x"), primary), Some(primary));
        assert_eq!(blame(&WireError::new(ErrorCode::Fenced, "x").of_server(primary), primary), None);
    }
}
