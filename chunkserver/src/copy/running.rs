//! The copies under way to this server.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use quarry_proto::{WireError, v1};
use quarry_types::{ChunkId, ErrorCode};
use tokio_util::sync::CancellationToken;

use crate::store::COPIES_MAX;

/// The copies under way, at most [`COPIES_MAX`].
#[derive(Default)]
pub(crate) struct Copies(Mutex<BTreeMap<ChunkId, Arc<Copy>>>);

#[derive(Default)]
struct Copy {
    done: AtomicU64,
    cancelled: CancellationToken,
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChunkId, Arc<Copy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a copy as under way until the result is dropped.
    ///
    /// # Errors
    /// Busy.
    pub(super) fn enter(&self, chunk: ChunkId) -> Result<Running<'_>, WireError> {
        let busy = |why: String| WireError::new(ErrorCode::Busy, format!("chunk {chunk}: {why}; try again later"));
        let mut copies = self.lock();
        if copies.contains_key(&chunk) {
            return Err(busy("it is being copied to this server already".into()));
        }
        if copies.len() >= COPIES_MAX {
            return Err(busy(format!("{COPIES_MAX} chunks are being copied to this server, which is the limit")));
        }
        let copy = Arc::<Copy>::default();
        copies.insert(chunk, Arc::clone(&copy));
        Ok(Running { all: self, chunk, copy })
    }

    /// Ends the copies of these chunks.
    pub(crate) fn cancel(&self, chunks: impl IntoIterator<Item = ChunkId>) {
        let copies = self.lock();
        for copy in chunks.into_iter().filter_map(|chunk| copies.get(&chunk)) {
            copy.cancelled.cancel();
        }
    }

    /// Ends all of them: who ordered them does not lead any more.
    pub(crate) fn cancel_all(&self) {
        for copy in self.lock().values() {
            copy.cancelled.cancel();
        }
    }

    /// How far they are.
    pub(crate) fn progress(&self) -> Vec<v1::CopyProgress> {
        let progress = |(chunk, copy): (&ChunkId, &Arc<Copy>)| v1::CopyProgress {
            chunk: chunk.0,
            bytes_done: copy.done.load(Ordering::Relaxed),
        };
        self.lock().iter().map(progress).collect()
    }
}

/// A copy's place among [`Copies`].
pub(super) struct Running<'a> {
    all: &'a Copies,
    chunk: ChunkId,
    copy: Arc<Copy>,
}

impl Running<'_> {
    pub(super) fn set_done(&self, bytes: u64) {
        self.copy.done.store(bytes, Ordering::Relaxed);
    }

    /// Waits until it is to end, and says why. Cancel-safe.
    pub(super) async fn cancelled(&self) -> WireError {
        self.copy.cancelled.cancelled().await;
        let message = format!("chunk {}: its copying was cancelled by the master, or by a newer one", self.chunk);
        WireError::new(ErrorCode::Unavailable, message)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.chunk);
    }
}
