//! The writes under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarry_proto::WireError;
use quarry_types::{ChunkId, ErrorCode};
use tokio::sync::Notify;

use super::{limits::WRITES_MAX, progress::Progress};

/// One write's [`Progress`], shared by the tasks that carry it out.
pub(crate) struct WriteState {
    progress: Mutex<Progress>,
    moved: Notify,
    failed: Notify,
}

impl WriteState {
    pub(super) fn new(last: bool) -> Arc<Self> {
        Arc::new(WriteState { progress: Mutex::new(Progress::new(last)), moved: Notify::new(), failed: Notify::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the progress and wakes the one that replies.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        let out = change(&mut self.lock());
        self.moved.notify_one();
        out
    }

    /// Ends the write with `error`, unless it failed before.
    pub(super) fn fail(&self, error: WireError) {
        self.update(|progress| progress.fail(error));
        self.failed.notify_waiters();
    }

    /// Completes on the next [`WriteState::update`], also when that was before the call. For one waiter.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Completes when the write has failed.
    pub(super) async fn failed(&self) -> WireError {
        loop {
            let failed = self.failed.notified();
            tokio::pin!(failed);
            // Listen first, look then: a failure between the two is not missed.
            failed.as_mut().enable();
            if let Some(error) = self.lock().failure() {
                return error.clone();
            }
            failed.await;
        }
    }

    /// Runs `work` unless the write fails first.
    pub(super) async fn unless_failed<T>(&self, work: impl Future<Output = T>) -> Result<T, WireError> {
        tokio::select! {
            biased;
            error = self.failed() => Err(error),
            out = work => Ok(out),
        }
    }
}

/// The writes under way on a server, by chunk.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<BTreeMap<ChunkId, Arc<WriteState>>>,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChunkId, Arc<WriteState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a write; it is removed when the result is dropped.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] at the limit, [`ErrorCode::Fenced`] when the chunk is being written already: a replica
    /// takes the bytes of one stream.
    pub(super) fn enter(self: &Arc<Self>, chunk: ChunkId, state: &Arc<WriteState>) -> Result<Entered, WireError> {
        let mut open = self.lock();
        if open.len() >= WRITES_MAX {
            let message = format!("{WRITES_MAX} writes are under way, which is the limit; try again or elsewhere");
            return Err(WireError::new(ErrorCode::Busy, message));
        }
        if open.contains_key(&chunk) {
            let message = format!("chunk {chunk} is being written on another connection; ask for a new chunk");
            return Err(WireError::new(ErrorCode::Fenced, message));
        }
        open.insert(chunk, Arc::clone(state));
        Ok(Entered { all: Arc::clone(self), chunk })
    }

    /// How many writes are under way.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The chunk was fenced or deleted: its writer learns it now. The store refuses its writes in any case.
    pub(crate) fn cut(&self, chunk: ChunkId, error: WireError) {
        let state = self.lock().get(&chunk).cloned();
        if let Some(state) = state {
            state.fail(error);
        }
    }

    /// Ends all writes.
    pub(crate) fn cut_all(&self, error: &WireError) {
        let states: Vec<_> = self.lock().values().cloned().collect();
        for state in states {
            state.fail(error.clone());
        }
    }
}

/// A write's place among [`Streams`].
pub(super) struct Entered {
    all: Arc<Streams>,
    chunk: ChunkId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.lock().remove(&self.chunk);
    }
}
