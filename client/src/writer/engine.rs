//! The task that writes one file: it takes bytes from the handle, sends them, and when a chunk breaks has it sealed
//! where it stands and goes on in a new one.

mod resume;
mod whole;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use quarry_env::{Clock, Instant};
use quarry_proto::v1;
use quarry_types::{Crc32, ErrorCode, ServerId, limits::WINDOW_BYTES};
use tokio::sync::{mpsc, oneshot};

use super::{
    Counters, Finished,
    opening::{self, Ahead, Wanted},
    permit::Permit,
    pipeline::{Ended, Pipeline, Sums},
    window::Window,
};
use crate::{
    ClientError,
    client::Shared,
    namespace::file,
    retry::Backoff,
    session::{HeldLease, namespace},
};

/// What the handle asks for, in order.
pub(super) enum Command {
    /// Write this; at most a packet.
    Data(Bytes),
    /// Say when everything before is durable.
    Flush(oneshot::Sender<()>),
    /// End the file.
    Finish(oneshot::Sender<Finished>),
}

/// The file that is being written.
pub(super) struct Target {
    pub(super) path: String,
    pub(super) inode: u64,
    pub(super) lease: HeldLease,
    pub(super) wanted: u32,
    /// Nobody sees it before it is complete.
    pub(super) atomic: bool,
}

pub(super) struct Engine {
    shared: Arc<Shared>,
    target: Target,
    inbox: mpsc::Receiver<Command>,
    /// Taken from the inbox to see what comes next.
    seen: Option<Command>,
    window: Window,
    /// Of everything accepted, computed as it came in.
    crc: Crc32,
    pipeline: Option<Pipeline>,
    /// Behind the current chunk.
    ahead: Option<Ahead>,
    /// Sealed by this writer, in file order.
    chunks: Vec<v1::ChunkRef>,
    /// Sealed by the master on fewer replicas than wanted: the next flush asks whether they are enough.
    weak: Vec<u64>,
    /// Sealed by the members; the master learns of it with the next call.
    seals: Vec<v1::SealedChunk>,
    /// What the file had before, and its CRC.
    base: (u64, Crc32),
    avoid: BTreeMap<ServerId, Instant>,
    /// File offset up to which every member made the bytes durable.
    durable: u64,
    /// File offset behind the last byte that was ever sent.
    highest_sent: u64,
    /// When the first of the failures happened since which nothing moved on.
    failing_since: Option<Instant>,
    backoff: Backoff,
    counters: Arc<Counters>,
    /// Who waits for a flush or for the end. They are answered, or dropped with the engine: by then it is known why it
    /// failed, and what was written has been given up.
    flushing: Option<oneshot::Sender<()>>,
    finishing: Option<oneshot::Sender<Finished>>,
}

impl Engine {
    pub(super) fn new(
        shared: &Arc<Shared>,
        target: Target,
        base: (u64, Crc32),
        inbox: mpsc::Receiver<Command>,
        counters: Arc<Counters>,
    ) -> Self {
        let at = base.0;
        Engine {
            shared: Arc::clone(shared),
            target,
            inbox,
            seen: None,
            window: Window::new(at),
            crc: base.1,
            pipeline: None,
            ahead: None,
            chunks: Vec::new(),
            weak: Vec::new(),
            seals: Vec::new(),
            base,
            avoid: BTreeMap::new(),
            durable: at,
            highest_sent: at,
            failing_since: None,
            backoff: Backoff::default(),
            counters,
            flushing: None,
            finishing: None,
        }
    }

    /// Writes until the handle ends the file or goes away. Whether it is to be completed.
    pub(super) async fn run(&mut self) -> Result<bool, ClientError> {
        loop {
            let command = if self.window.unsent() > 0 {
                self.send_one().await?;
                continue;
            } else {
                match self.wait().await? {
                    Some(command) => command,
                    None => continue,
                }
            };
            match command {
                Inbox::Closed => return Ok(false),
                Inbox::Took(Command::Data(bytes)) => self.accept(bytes),
                Inbox::Took(Command::Flush(reply)) => {
                    self.flushing = Some(reply);
                    self.flush().await?;
                    // A handle that went away does not want to know.
                    let _gone = self.flushing.take().map(|reply| reply.send(()));
                }
                Inbox::Took(Command::Finish(reply)) => {
                    self.finishing = Some(reply);
                    self.seal_last().await?;
                    return Ok(true);
                }
            }
        }
    }

    fn accept(&mut self, bytes: Bytes) {
        self.crc = self.crc.combine(Crc32::of(&bytes), bytes.len() as u64);
        self.window.push(bytes);
    }

    /// Waits for the handle or for the primary. `None`: look again.
    async fn wait(&mut self) -> Result<Option<Inbox>, ClientError> {
        let room = self.window.retained() < WINDOW_BYTES;
        if room && let Some(command) = self.seen.take() {
            return Ok(Some(Inbox::Took(command)));
        }
        let Engine { inbox, pipeline, .. } = self;
        let heard = async {
            match pipeline {
                Some(pipeline) => pipeline.heard().await,
                None => std::future::pending().await,
            }
        };
        let broken = tokio::select! {
            biased;
            heard = heard => heard.err(),
            command = inbox.recv(), if room => {
                return Ok(Some(command.map_or(Inbox::Closed, Inbox::Took)));
            }
        };
        self.settle();
        if let Some(broken) = broken {
            self.seal_broken(broken).await?;
        }
        Ok(None)
    }

    /// Releases what is acknowledged.
    fn settle(&mut self) {
        let Some(acked) = self.pipeline.as_ref().map(Pipeline::acked_offset) else { return };
        self.release(acked);
    }

    fn release(&mut self, to: u64) {
        if to > self.window.start() {
            self.failing_since = None;
            self.backoff = Backoff::default();
            for bytes in self.window.release(to) {
                self.shared.buffers.give(bytes);
            }
        }
    }

    /// Sends the next packet, in the current chunk or a new one.
    async fn send_one(&mut self) -> Result<(), ClientError> {
        if self.pipeline.as_ref().is_some_and(|pipeline| pipeline.room() == 0) {
            self.open_ahead(self.window.sent());
            return self.seal_current().await;
        }
        if self.pipeline.is_none() {
            return self.open_chunk().await;
        }
        let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
        let from = self.window.sent();
        let bytes = self.window.next_packet(pipeline.room());
        let full = bytes.len() as u64 == pipeline.room();
        let comes = self.comes();
        if full && comes == Comes::More {
            self.open_ahead(from + bytes.len() as u64);
        }
        let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
        let last = comes.ends_chunk(full);
        let sent = match pipeline.drain() {
            Ok(()) => pipeline.send(&bytes, last).await,
            Err(broken) => Err(broken),
        };
        let to = from + bytes.len() as u64;
        drop(bytes);
        self.count_sent(from, to);
        self.settle();
        match sent {
            Ok(()) => Ok(()),
            Err(broken) => self.seal_broken(broken).await,
        }
    }

    fn count_sent(&mut self, from: u64, to: u64) {
        self.counters.bytes_sent.fetch_add(to - from, Ordering::Relaxed);
        let again = to.min(self.highest_sent).saturating_sub(from);
        self.counters.resent.fetch_add(again, Ordering::Relaxed);
        self.highest_sent = self.highest_sent.max(to);
    }

    /// What comes behind the packet just taken from the window, as far as is known.
    fn comes(&mut self) -> Comes {
        if self.window.unsent() > 0 {
            return Comes::More;
        }
        if self.seen.is_none() {
            self.seen = self.inbox.try_recv().ok();
        }
        match self.seen {
            Some(Command::Data(_)) => Comes::More,
            Some(Command::Finish(_)) => Comes::End,
            Some(Command::Flush(_)) | None if self.finishing.is_some() => Comes::End,
            Some(Command::Flush(_)) | None => Comes::Unknown,
        }
    }

    fn doing(&self) -> String {
        format!("writing {}", self.target.path)
    }

    async fn open_chunk(&mut self) -> Result<(), ClientError> {
        let offset = self.window.sent();
        let opened = match self.ahead.take_if(|ahead| ahead.offset == offset) {
            Some(ahead) => ahead.opened().await?,
            None => {
                let wanted = self.wanted(offset);
                let permit = opening::grant(&self.shared, wanted).await?;
                match self.write_if_whole(permit).await? {
                    Some(permit) => Pipeline::open(&self.shared, permit).await,
                    None => return Ok(()),
                }
            }
        };
        self.counters.chunks.fetch_add(1, Ordering::Relaxed);
        match opened {
            Ok(pipeline) => {
                self.pipeline = Some(pipeline);
                Ok(())
            }
            Err((permit, broken)) => self.continue_after(permit, &Sums::default(), broken).await,
        }
    }

    /// Begins to open the chunk behind the current one, to which more bytes are known to come. The master lets only atomic files
    /// have more than one open chunk.
    fn open_ahead(&mut self, offset: u64) {
        if self.target.atomic && self.ahead.is_none() && self.shared.pool.has_spare() {
            let wanted = self.wanted(offset);
            self.ahead = Some(Ahead::begin(&self.shared, wanted));
        }
    }

    /// The chunk at `offset`, which ends before one that is there already. Takes the seals along.
    fn wanted(&mut self, offset: u64) -> Wanted {
        let now = self.shared.world.clock.now();
        self.avoid.retain(|_, until| now < *until);
        let room = self.ahead.as_ref().map_or(u64::MAX, |ahead| ahead.offset.saturating_sub(offset));
        Wanted {
            doing: self.doing(),
            inode: self.target.inode,
            lease: self.target.lease.lease,
            offset,
            limit_bytes: self.shared.config.chunk_bytes.min(room),
            // A call that fails ends the file.
            seals: std::mem::take(&mut self.seals),
            avoid: self.avoid.keys().map(|server| server.to_bytes().into()).collect(),
        }
    }

    /// Ends the current chunk, as all members agree.
    async fn seal_current(&mut self) -> Result<(), ClientError> {
        let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
        let ended = pipeline.seal().await;
        self.settle();
        match ended {
            Ok(ended) => {
                let Some(pipeline) = self.pipeline.take() else { return Ok(()) };
                self.note_sealed(&pipeline.permit, ended);
                pipeline.finish().await;
                Ok(())
            }
            Err(broken) => self.seal_broken(broken).await,
        }
    }

    fn note_sealed(&mut self, permit: &Permit, ended: Ended) {
        let Ended { length, crc, receipts } = ended;
        let (chunk, offset) = (permit.chunk, permit.offset);
        self.chunks.push(v1::ChunkRef { chunk, offset, length, crc: crc.0 });
        self.seals.push(v1::SealedChunk { chunk, offset, length, crc: crc.0, receipts });
        self.durable = offset + length;
        self.release(offset + length);
    }

    /// Sends and seals everything.
    async fn seal_last(&mut self) -> Result<(), ClientError> {
        loop {
            if self.window.unsent() > 0 {
                self.send_one().await?;
            } else if self.pipeline.is_some() {
                self.seal_current().await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Sends everything and makes it durable on every member, or on as many as a completion demands. A seal does so as
    /// well, where enough members survived.
    async fn flush(&mut self) -> Result<(), ClientError> {
        self.sync_members().await?;
        while let Some(chunk) = self.weak.last().copied() {
            self.seal_at_master(chunk, true).await?;
            self.weak.pop();
        }
        Ok(())
    }

    async fn sync_members(&mut self) -> Result<(), ClientError> {
        while self.durable < self.window.end() {
            if self.window.unsent() > 0 {
                self.send_one().await?;
                continue;
            }
            let Some(pipeline) = &mut self.pipeline else { return Ok(()) };
            if pipeline.is_ending() {
                // The end of a chunk makes it durable as well.
                self.seal_current().await?;
                continue;
            }
            let flushed = pipeline.flush().await;
            self.settle();
            match flushed {
                Ok(to) => self.durable = to,
                Err(broken) => self.seal_broken(broken).await?,
            }
        }
        Ok(())
    }

    /// Makes the file what was written.
    pub(super) async fn complete(&mut self) -> Result<Finished, ClientError> {
        let doing = format!("completing {}", self.target.path);
        let written = self.chunks.iter().fold(self.base, |(length, crc), chunk| {
            (length + chunk.length, crc.combine(Crc32(chunk.crc), chunk.length))
        });
        let (length, crc) = (self.window.end(), self.crc);
        if written != (length, crc) {
            let message = format!(
                "the chunks make {} bytes with CRC {}, but {length} with CRC {crc} were written; the file was damaged in \
                 this machine's memory, write it again",
                written.0, written.1
            );
            return Err(ClientError::new(ErrorCode::Corrupt, doing, message));
        }
        let (inode, lease) = (self.target.inode, self.target.lease.lease);
        let make = |op| v1::CompleteRequest {
            op: Some(op),
            inode,
            lease,
            length,
            crc: crc.0,
            chunks: self.chunks.clone(),
            seals: self.seals.clone(),
        };
        let reply = self
            .shared
            .sessions
            .mutate(&doing, make, |channel, request| {
                Box::pin(async move { namespace(channel).complete(request).await })
            })
            .await?;
        let wanted = if reply.wanted == 0 { self.target.wanted } else { reply.wanted };
        let file = file(&doing, reply.file)?;
        Ok(Finished { file, fewest_replicas: reply.fewest_replicas, wanted, stats: self.counters.stats() })
    }

    /// How long a call may take without anything moving.
    pub(super) fn deadline(&self) -> Duration {
        self.shared.config.deadline
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.world.clock)
    }

    /// Tells who waits for the end.
    pub(super) fn finished(&mut self, finished: Finished) {
        let _gone = self.finishing.take().map(|reply| reply.send(finished));
    }

    /// Gives the file up.
    pub(super) async fn abort(&mut self) -> Result<(), ClientError> {
        self.inbox.close();
        (self.pipeline, self.ahead) = (None, None);
        let doing = format!("giving up {}", self.target.path);
        let (inode, lease) = (self.target.inode, self.target.lease.lease);
        let make = |op| v1::AbortRequest { op: Some(op), inode, lease };
        self.shared
            .sessions
            .mutate(&doing, make, |channel, request| Box::pin(async move { namespace(channel).abort(request).await }))
            .await
            .map(|_| ())
    }

    /// Completes when the master says that the writer lease has ended.
    pub(super) fn lease_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        self.target.lease.lost.clone().cancelled_owned()
    }

    /// The error after that.
    pub(super) fn lease_error(&self) -> ClientError {
        let message = "the writer lease has ended: this client was silent for too long";
        ClientError::new(ErrorCode::LeaseLost, self.doing(), message)
    }
}

/// What follows a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// More bytes.
    More,
    /// The end of the file.
    End,
    /// Nothing yet.
    Unknown,
}

impl Comes {
    /// Whether the members are to end the chunk with the packet: the file ends with it, or the chunk is full and more comes. One
    /// behind which nothing is known to come stays open, however full: the master learns of its end with the next call, and until
    /// then those who read ask the members of an open chunk.
    fn ends_chunk(self, full: bool) -> bool {
        match self {
            Comes::More => full,
            Comes::End => true,
            Comes::Unknown => false,
        }
    }
}

/// What the handle said.
enum Inbox {
    Took(Command),
    Closed,
}
