//! Reading ahead: the next chunks are fetched while the present one is used.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quarry_env::net::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    opened::{Opened, Part},
    range::RangeReader,
};
use crate::ClientError;

/// Chunks fetched at once.
const STREAMS: usize = 2;
/// Packets of one chunk that wait to be used.
const PACKETS: usize = 8;
/// The same behind the place where reading began: it may be a short look.
const PACKETS_FIRST: usize = 4;

type Received = Result<Bytes, ClientError>;

/// One chunk being fetched.
struct Stream {
    packets: mpsc::Receiver<Received>,
    _task: AbortOnDropHandle<()>,
}

/// The bytes of a file in order, from some offset on.
pub(super) struct Ahead {
    file: Arc<Opened>,
    streams: VecDeque<Stream>,
    /// File offset at which the next stream begins.
    next: u64,
    /// Looking for the chunk of the next stream.
    locating: Option<BoxFuture<'static, Result<Part, ClientError>>>,
    used: u64,
}

impl Ahead {
    pub(super) fn new(file: &Arc<Opened>, from: u64) -> Self {
        Ahead { file: Arc::clone(file), streams: VecDeque::new(), next: from, locating: None, used: 0 }
    }

    /// The next bytes; `None` at the end of the file.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            if let Err(error) = self.poll_begin(cx) {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(first) = self.streams.front_mut() else {
                return if self.next >= self.file.length { Poll::Ready(None) } else { Poll::Pending };
            };
            match ready!(first.packets.poll_recv(cx)) {
                Some(received) => {
                    self.used += 1;
                    return Poll::Ready(Some(received));
                }
                None => {
                    self.streams.pop_front();
                }
            }
        }
    }

    /// Begins streams until enough are under way.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Result<(), ClientError> {
        // A second chunk is fetched once somebody reads on.
        let streams = if self.used < PACKETS_FIRST as u64 { 1 } else { STREAMS };
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
            self.next += part.to - part.from;
            let packets = if self.used == 0 && self.streams.is_empty() { PACKETS_FIRST } else { PACKETS };
            let (to, packets) = mpsc::channel(packets);
            let reader = RangeReader::new(&self.file, part.chunk, part.from, part.to);
            let task = AbortOnDropHandle::new(tokio::spawn(fetch(reader, to)));
            self.streams.push_back(Stream { packets, _task: task });
        }
        Ok(())
    }
}

async fn fetch(mut reader: RangeReader, to: mpsc::Sender<Received>) {
    loop {
        let received = match reader.next().await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let last = received.is_err();
        if to.send(received).await.is_err() || last {
            return;
        }
    }
}
