//! A store as it was at one moment.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use quarry_env::{
    KvError, Space,
    kv::{Frozen, Pair},
};
use rocksdb::{ReadOptions, Snapshot};

use crate::{error::failed, store::Store};

/// A range to read, and where to.
struct Ask {
    space: Space,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    limit: usize,
    answer: SyncSender<Result<Vec<Pair>, KvError>>,
}

/// A snapshot in the hands of a thread of its own: the library ties a snapshot's life to a borrow of its store, and a borrow
/// lives in one place. The thread ends with this.
pub(crate) struct Held {
    store: Arc<Store>,
    /// `None` while it is being dropped.
    asks: Option<SyncSender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Takes a snapshot of `store` as it is when this returns.
    pub(crate) fn new(store: Arc<Store>) -> Result<Self, KvError> {
        let (taken, is_taken) = sync_channel(1);
        let (asks, asked) = sync_channel(1);
        let of_thread = Arc::clone(&store);
        let named = std::thread::Builder::new().name("frozen-store".into());
        let thread = named.spawn(move || {
            let snapshot = of_thread.snapshot();
            // Whoever waits for it takes it as failed when this cannot be said.
            let _waits = taken.send(());
            serve(&of_thread, &snapshot, &asked);
        });
        let thread = thread.map_err(|e| failed(store.path(), format!("no thread for a snapshot: {e}")))?;
        is_taken.recv().map_err(|_| failed(store.path(), "the thread of a snapshot ended"))?;
        Ok(Held { store, asks: Some(asks), thread: Some(thread) })
    }
}

fn serve(store: &Store, snapshot: &Snapshot<'_>, asked: &Receiver<Ask>) {
    for Ask { space, from, to, limit, answer } in asked {
        let mut read = ReadOptions::default();
        read.set_snapshot(snapshot);
        // What is read once must not push out of the cache what is read often.
        read.fill_cache(false);
        // An asker that went away does not want it.
        let pairs = store.pairs(read, space, &from, to.as_deref());
        let _gone = answer.send(pairs.and_then(|pairs| pairs.take(limit).collect()));
    }
}

impl Frozen for Held {
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        let ended = || failed(self.store.path(), "the thread of a snapshot ended");
        let (answer, answered) = sync_channel(1);
        let ask = Ask { space, from: from.to_vec(), to: to.map(<[u8]>::to_vec), limit, answer };
        self.asks.as_ref().ok_or_else(ended)?.send(ask).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.asks = None;
        // The thread holds the store: whoever has dropped this may open it again.
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
