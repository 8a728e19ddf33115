//! A file being written.
//!
//! The handle collects bytes into packets and passes them to a task of its own (the `engine`), which sends them down the
//! pipeline of the current chunk. What is accepted and not yet acknowledged is kept in a `window`, so that it can be sent
//! again into another chunk.

mod engine;
mod opening;
mod permit;
mod pipeline;
mod whole;
mod window;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use quarry_env::clock::timeout;
use quarry_proto::v1;
use quarry_types::{Crc32, ErrorCode, limits};
use tokio::{
    io::AsyncWrite,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::{CancellationToken, PollSender};

use crate::{
    ClientError, CreateMode, CreateOptions, FileInfo, buffers::BUFFER_BYTES, client::Shared, namespace::check_path,
    session::namespace,
};
use engine::{Command, Engine, Target};

/// A file that failed is given up within this, or by the master when the lease runs out.
const ABORT_PATIENCE: Duration = Duration::from_secs(3);
/// Packets that wait for the engine.
const INBOX: usize = 2;
/// Bytes given at once that are passed on as they are instead of being copied into a packet.
const PASS_ON_BYTES: usize = 64 << 10;

/// What a writer did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Payload bytes sent to chunkservers, those sent again included.
    pub bytes_sent: u64,
    /// Of these, bytes sent again.
    pub resent: u64,
    /// Chunks begun.
    pub chunks: u64,
    /// Chunks that were sealed short because a member or a connection failed.
    pub seals_on_failure: u64,
}

/// A file that was written to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The file as it is now visible.
    pub file: FileInfo,
    /// Fewest durable replicas of any chunk written; 0 when none was.
    pub fewest_replicas: u32,
    /// Wanted replicas.
    pub wanted: u32,
    /// What writing it took.
    pub stats: WriteStats,
}

#[derive(Default)]
struct Counters {
    bytes_sent: AtomicU64,
    resent: AtomicU64,
    chunks: AtomicU64,
    seals_on_failure: AtomicU64,
}

impl Counters {
    fn stats(&self) -> WriteStats {
        WriteStats {
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            resent: self.resent.load(Ordering::Relaxed),
            chunks: self.chunks.load(Ordering::Relaxed),
            seals_on_failure: self.seals_on_failure.load(Ordering::Relaxed),
        }
    }
}

/// A file being written, made by [`Client::create`](crate::Client::create) and [`Client::append`](crate::Client::append).
///
/// Bytes go out in packets of up to 1 MiB; at most 8 MiB are under way, and about 12 MiB are held in all. When a
/// chunkserver fails, writing goes on in a new chunk and only bytes that were not acknowledged are sent again.
///
/// A file is complete only after [`FileWriter::finish`]. Dropping the writer gives the file up in the background: an
/// atomic file leaves nothing, a visible one keeps what was sealed.
///
/// [`AsyncWrite::poll_flush`] starts sending what was written and waits for nothing; [`FileWriter::flush_durable`] waits
/// until it is durable. `shutdown` does the same as `flush`.
///
/// # Cancelling
/// All methods may be cancelled. What was accepted, see [`FileWriter::position`], stays accepted.
pub struct FileWriter {
    shared: Arc<Shared>,
    path: String,
    to_engine: PollSender<Command>,
    fill: BytesMut,
    position: u64,
    failure: Arc<Mutex<Option<ClientError>>>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    /// How giving up ended.
    aborted: oneshot::Receiver<Result<(), ClientError>>,
}

impl FileWriter {
    pub(crate) async fn create(shared: &Arc<Shared>, path: &str, options: &CreateOptions) -> Result<Self, ClientError> {
        let doing = format!("creating {path}");
        check_path(&doing, path)?;
        let (mode, expected_inode, expected_version) = match options.mode {
            CreateMode::Replace => (v1::CreateMode::Replace, 0, 0),
            CreateMode::FailIfPresent => (v1::CreateMode::FailIfPresent, 0, 0),
            CreateMode::IfUnchanged { inode, version } => (v1::CreateMode::IfUnchanged, inode.0, version),
            CreateMode::Visible => (v1::CreateMode::Visible, 0, 0),
        };
        let make = |op| v1::CreateRequest {
            op: Some(op),
            path: path.into(),
            mode: mode.into(),
            expected_inode,
            expected_version,
            replicas: options.replicas,
            parents: options.parents,
        };
        let reply = shared
            .sessions
            .mutate(&doing, make, |channel, request| Box::pin(async move { namespace(channel).create(request).await }))
            .await?;
        Ok(FileWriter::start(shared, path, reply, options.mode != CreateMode::Visible))
    }

    pub(crate) async fn append(shared: &Arc<Shared>, path: &str) -> Result<Self, ClientError> {
        let doing = format!("opening {path} for appending");
        check_path(&doing, path)?;
        let make = |op| v1::OpenAppendRequest { op: Some(op), path: path.into() };
        let reply = shared
            .sessions
            .mutate(&doing, make, |channel, request| {
                Box::pin(async move { namespace(channel).open_append(request).await })
            })
            .await?;
        Ok(FileWriter::start(shared, path, reply, false))
    }

    fn start(shared: &Arc<Shared>, path: &str, reply: v1::WriterReply, atomic: bool) -> Self {
        let base = (reply.length, Crc32(reply.crc));
        let target = Target {
            path: path.into(),
            inode: reply.inode,
            lease: shared.sessions.leases.hold(reply.lease),
            wanted: reply.replicas,
            atomic,
        };
        let (to_engine, inbox) = mpsc::channel(INBOX);
        let counters = Arc::<Counters>::default();
        let failure = Arc::<Mutex<Option<ClientError>>>::default();
        let cancel = CancellationToken::new();
        let (abort_ended, aborted) = oneshot::channel();
        let engine = Engine::new(shared, target, base, inbox, Arc::clone(&counters));
        shared.writers.spawn(drive(engine, cancel.clone(), Arc::clone(&failure), abort_ended));
        FileWriter {
            shared: Arc::clone(shared),
            path: path.into(),
            to_engine: PollSender::new(to_engine),
            fill: BytesMut::new(),
            position: base.0,
            failure,
            counters,
            cancel,
            aborted,
        }
    }

    /// The file offset of the next byte: of everything accepted so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> WriteStats {
        self.counters.stats()
    }

    /// Writes `bytes`; long ones are not copied. Waits while too much is under way.
    ///
    /// # Errors
    /// Why the file cannot be written further. The writer is of no use after that.
    pub async fn write_bytes(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        self.check_length(bytes.len())?;
        if bytes.len() < PASS_ON_BYTES {
            while !bytes.is_empty() {
                let taken = std::future::poll_fn(|cx| self.poll_copy(cx, &bytes)).await?;
                let _copied = bytes.split_to(taken);
            }
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_push(cx)).await?;
        while !bytes.is_empty() {
            let to_boundary = BUFFER_BYTES - self.in_packet();
            std::future::poll_fn(|cx| self.poll_room(cx)).await?;
            let part = bytes.split_to(to_boundary.min(bytes.len()));
            self.position += part.len() as u64;
            self.pass(Command::Data(part))?;
        }
        Ok(())
    }

    /// Waits until everything written so far is durable on every member that writes it (on a cluster whose durability
    /// is `buffered`: until every member has it).
    ///
    /// # Errors
    /// Why the file cannot be written further. The writer is of no use after that.
    pub async fn flush_durable(&mut self) -> Result<(), ClientError> {
        std::future::poll_fn(|cx| self.poll_push(cx)).await?;
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        let (reply, flushed) = oneshot::channel();
        self.pass(Command::Flush(reply))?;
        flushed.await.map_err(|_| self.failure())
    }

    /// Ends the file: when this returns, each of its chunks has at least as many durable replicas as the cluster
    /// demands, and an atomic file is visible.
    ///
    /// Cancelling it gives the file up, unless it was complete already.
    ///
    /// # Errors
    /// [`ErrorCode::UnderReplicated`] when too few replicas became durable in time; [`ErrorCode::Conflict`] or
    /// [`ErrorCode::AlreadyExists`] when the name was taken meanwhile; [`ErrorCode::LeaseLost`];
    /// [`ErrorCode::OutcomeUnknown`] when nobody knows whether it was completed; and others.
    pub async fn finish(mut self) -> Result<Finished, ClientError> {
        std::future::poll_fn(|cx| self.poll_push(cx)).await?;
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        let (reply, finished) = oneshot::channel();
        self.pass(Command::Finish(reply))?;
        finished.await.map_err(|_| self.failure())
    }

    /// Gives the file up: an atomic one leaves nothing, a visible one keeps what was sealed.
    ///
    /// # Errors
    /// When the master could not be told; it gives the file up by itself when the lease runs out.
    pub async fn abort(mut self) -> Result<(), ClientError> {
        self.cancel.cancel();
        match (&mut self.aborted).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(()),
        }
    }

    /// Bytes of the packet that the position lies in. Packets end where multiples of their size end in the file.
    fn in_packet(&self) -> usize {
        // Below 1 MiB.
        (self.position % limits::PACKET_BYTES) as usize
    }

    fn check_length(&self, more: usize) -> Result<(), ClientError> {
        if self.position.saturating_add(more as u64) <= limits::FILE_BYTES {
            return Ok(());
        }
        let message = format!("the file would become longer than {} bytes", limits::FILE_BYTES);
        Err(ClientError::new(ErrorCode::InvalidArgument, format!("writing {}", self.path), message))
    }

    /// Copies the beginning of `bytes` into the packet being filled.
    fn poll_copy(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, ClientError>> {
        if !self.fill.is_empty() && self.in_packet() == 0 {
            ready!(self.poll_push(cx))?;
        }
        if self.fill.capacity() == 0 {
            self.fill = self.shared.buffers.take();
        }
        let taken = (BUFFER_BYTES - self.in_packet()).min(bytes.len());
        self.fill.extend_from_slice(&bytes[..taken]);
        self.position += taken as u64;
        if self.in_packet() == 0 {
            // A full packet goes at once if there is room for it; else the next call waits for that.
            if let Poll::Ready(Err(error)) = self.poll_push(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// Passes on what was filled.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.fill.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_room(cx))?;
        let bytes = std::mem::take(&mut self.fill).freeze();
        Poll::Ready(self.pass(Command::Data(bytes)))
    }

    /// Waits for room in the inbox.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.to_engine.poll_reserve(cx).map_err(|_| self.failure())
    }

    fn pass(&mut self, command: Command) -> Result<(), ClientError> {
        self.to_engine.send_item(command).map_err(|_| self.failure())
    }

    /// Why the engine has ended.
    fn failure(&self) -> ClientError {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.unwrap_or_else(|| {
            let message = "the file was given up, or the runtime is shutting down";
            ClientError::new(ErrorCode::Unavailable, format!("writing {}", self.path), message)
        })
    }
}

impl AsyncWrite for FileWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let writer = self.get_mut();
        writer.check_length(buf.len())?;
        writer.poll_copy(cx, buf).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_push(cx).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // Without effect on an engine that has ended.
        self.cancel.cancel();
    }
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").field("path", &self.path).field("position", &self.position).finish_non_exhaustive()
    }
}

/// Runs the engine to its end and cleans up behind it.
async fn drive(
    mut engine: Engine,
    cancel: CancellationToken,
    failure: Arc<Mutex<Option<ClientError>>>,
    abort_ended: oneshot::Sender<Result<(), ClientError>>,
) {
    let lost = engine.lease_lost();
    let written = tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(false),
        () = lost => Err(engine.lease_error()),
        written = engine.run() => written,
    };
    let ended = match written {
        // Completion ends the lease, so its loss means nothing from here on.
        Ok(true) => tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(()),
            finished = engine.complete() => match finished {
                Ok(finished) => return engine.finished(finished),
                Err(error) => Err(error),
            },
        },
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    let failed = ended.is_err();
    if let Err(error) = ended {
        let no_lease = error.code() == ErrorCode::LeaseLost;
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        if no_lease {
            return;
        }
    }
    // Whoever waits for the end learns of the failure after this: then its room is free again, unless no master answers.
    let patience = if failed { ABORT_PATIENCE } else { engine.deadline() };
    let outcome = match timeout(&*engine.clock(), patience, engine.abort()).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(ClientError::new(ErrorCode::DeadlineExceeded, "giving a file up", elapsed.to_string())),
    };
    if let Err(error) = &outcome {
        tracing::debug!(%error, "a file could not be given up; the master does so when its lease runs out");
    }
    let _gone = abort_ended.send(outcome);
}
