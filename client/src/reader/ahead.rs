//! Reading ahead: the next ranges of a file are fetched while the present one is used.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quarry_env::net::BoxFuture;
use quarry_types::{ChunkId, limits::PACKET_BYTES};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    conversation::Verified,
    opened::{Opened, Part},
    range::RangeReader,
    whole::{Verdict, WholeCheck},
};
use crate::{ChunkInfo, ChunkState, ClientError};

/// Ranges fetched at once.
const STREAMS: usize = 2;
/// Packets of one range, all of which may wait to be used: the ranges come in at the same time, whichever is used first.
const PACKETS: u64 = 8;
/// The same where reading began: it may be a short look.
const PACKETS_FIRST: u64 = 4;

type Received = Result<Verified, ClientError>;

/// One range being fetched.
struct Stream {
    packets: mpsc::Receiver<Received>,
    /// The sealed chunk of which it is a part, if all of that is fetched: only then can it be compared with what the master
    /// recorded.
    part_of: Option<ChunkInfo>,
    chunk: ChunkId,
    /// Another stream is under way in the same chunk, and counts for both where readers are counted.
    beside: bool,
    _task: AbortOnDropHandle<()>,
}

impl Stream {
    fn begin(reader: RangeReader, packets: u64, part_of: Option<ChunkInfo>) -> Stream {
        let (to, packets) = mpsc::channel(packets as usize);
        let (chunk, beside) = (reader.chunk(), reader.is_beside());
        Stream { packets, part_of, chunk, beside, _task: AbortOnDropHandle::new(tokio::spawn(fetch(reader, to))) }
    }
}

/// The bytes of a file in order, from some offset on.
pub(super) struct Ahead {
    file: Arc<Opened>,
    streams: VecDeque<Stream>,
    /// File offset at which the next stream begins.
    next: u64,
    /// The chunk in which that is, is fetched from its start on.
    from_start: bool,
    /// Looking for the chunk of the next stream.
    locating: Option<BoxFuture<'static, Result<Part, ClientError>>>,
    /// What came of the chunk that is used at present, if it is to be compared as a whole.
    whole: WholeCheck,
    /// The chunk that is read again because what came of it is not what the master recorded; in the file.
    doubted: Option<Range<u64>>,
    used: u64,
}

impl Ahead {
    pub(super) fn new(file: &Arc<Opened>, from: u64) -> Self {
        Ahead {
            file: Arc::clone(file),
            streams: VecDeque::new(),
            next: from,
            from_start: false,
            locating: None,
            whole: WholeCheck::default(),
            doubted: None,
            used: 0,
        }
    }

    /// The chunk of which something was handed out that may not be the recorded bytes.
    pub(super) fn doubted(&self) -> Option<Range<u64>> {
        self.doubted.clone()
    }

    /// The next bytes; `None` at the end of the file.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientError>>> {
        loop {
            if let Err(error) = self.poll_begin(cx) {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(first) = self.streams.front_mut() else {
                return if self.next >= self.file.length { Poll::Ready(None) } else { Poll::Pending };
            };
            match ready!(first.packets.poll_recv(cx)) {
                Some(Ok(verified)) => {
                    if let Some(bytes) = self.judge(verified) {
                        self.used += 1;
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    // A chunk that was read again to its end is the recorded one: otherwise an error would have come before.
                    self.doubted = None;
                    self.streams.pop_front();
                }
            }
        }
    }

    /// Begins streams until enough are under way.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Result<(), ClientError> {
        // A second range is fetched once somebody reads on.
        let streams = if self.used < PACKETS_FIRST { 1 } else { STREAMS };
        while self.streams.len() < streams && self.next < self.file.length {
            let (file, at) = (Arc::clone(&self.file), self.next);
            let locating = self.locating.get_or_insert_with(|| Box::pin(async move { file.part(at).await }));
            let Poll::Ready(found) = locating.as_mut().poll(cx) else { return Ok(()) };
            self.locating = None;
            let part = match found {
                Ok(part) => part,
                // What was fetched before comes first; the error comes again.
                Err(_) if !self.streams.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            };
            self.begin(part);
        }
        Ok(())
    }

    /// Begins to fetch the first range of `part`.
    fn begin(&mut self, part: Part) {
        let Part { chunk, from, to } = part;
        let packets = if self.used == 0 && self.streams.is_empty() { PACKETS_FIRST } else { PACKETS };
        self.from_start = from == 0 || self.from_start;
        // Of one that is being written only its members know how far it can be read: they are asked once.
        let open = chunk.state == ChunkState::Open;
        let end = if open { to } else { to.min((from / PACKET_BYTES + packets) * PACKET_BYTES) };
        let part_of = (self.from_start && !open && to == chunk.length).then(|| chunk.clone());
        self.next += end - from;
        // The next range is of another chunk, or goes on in this one.
        self.from_start &= end < to;
        let others = self.streams.iter().map(|other| (other.chunk, other.beside));
        let beside = has_counted(others, chunk.id);
        let reader = RangeReader::unjudged(&self.file, chunk, from, end, beside);
        self.streams.push_back(Stream::begin(reader, packets, part_of));
    }

    /// What may be handed out of the packet that came from the first stream: all of it, unless it ends a chunk that is not the
    /// recorded one. That is then read again, from one replica after the other (S3).
    fn judge(&mut self, verified: Verified) -> Option<Bytes> {
        let Verified { bytes, crcs, .. } = verified;
        let Some(chunk) = self.streams.front().and_then(|first| first.part_of.as_ref()) else { return Some(bytes) };
        let delivered = self.whole.bytes();
        self.whole.push(&crcs, bytes.len() as u64);
        if self.whole.bytes() < chunk.length {
            return Some(bytes);
        }
        let chunk = chunk.clone();
        let whole = std::mem::take(&mut self.whole);
        if whole.judge(chunk.length, chunk.crc) == Verdict::Right {
            return Some(bytes);
        }
        tracing::info!(chunk = %chunk.id, "its blocks do not make the recorded CRC {}; it is read again", chunk.crc);
        self.doubted = Some(chunk.offset..chunk.offset + chunk.length);
        self.streams.pop_front();
        let again = RangeReader::again(&self.file, chunk, whole, delivered);
        self.streams.push_front(Stream::begin(again, PACKETS, None));
        None
    }
}

/// Whether one of the `streams`, each with whether it counts beside another, already counts for reading `chunk`.
fn has_counted(mut streams: impl Iterator<Item = (ChunkId, bool)>, chunk: ChunkId) -> bool {
    streams.any(|(other, beside)| other == chunk && !beside)
}

async fn fetch(mut reader: RangeReader, to: mpsc::Sender<Received>) {
    loop {
        let received = match reader.next_blocks().await {
            Ok(Some(verified)) => Ok(verified),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let last = received.is_err();
        if to.send(received).await.is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_streams_in_one_chunk_one_counts_at_any_time() {
        let mut streams = VecDeque::new();
        for n in 0..20 {
            let chunk = ChunkId(n / 7);
            let beside = has_counted(streams.iter().copied(), chunk);
            streams.push_back((chunk, beside));
            let counting = |chunk| streams.iter().filter(|(other, beside)| *other == chunk && !beside).count();
            assert_eq!(counting(chunk), 1, "{streams:?}");
            if streams.len() == STREAMS {
                streams.pop_front();
            }
        }
    }
}
