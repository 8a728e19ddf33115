//! What this member holds at those entries of the log where the masters compare their states: hashed beside applying, from
//! the store as it was right after the entry, one at a time and at a bounded pace.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quarry_env::{KvError, Space, World, kv::Frozen};
use quarry_master_core::{
    agreement::{Digest, Hashing},
    keys,
    tables::Table,
};
use tokio_util::sync::CancellationToken;

use super::open::InUse;

/// Bytes of rows hashed in a second, at most: the disk and the cores belong to others.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// After so many bytes the pace is kept by a pause.
const PAUSE_AFTER: u64 = 1 << 20;
/// Rows read in one go.
const ROWS_STEP: usize = 256;
/// Digests that are remembered: those of the newest comparisons.
const KEPT: usize = 4;

/// What is known of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: not applied yet, too long ago, or it came while another one was hashed.
    Nothing,
    /// It is being hashed.
    Hashing,
    /// What this member held.
    Digest(Digest),
}

#[derive(Default)]
struct Kept {
    hashing: Option<u64>,
    done: VecDeque<(u64, Digest)>,
}

/// The digests of one member.
pub(crate) struct Digests {
    world: World,
    kept: Mutex<Kept>,
    stop: CancellationToken,
}

impl Digests {
    pub(crate) fn new(world: &World) -> Arc<Self> {
        Arc::new(Digests { world: world.clone(), kept: Mutex::default(), stop: CancellationToken::new() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing is left half-done under the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one is being hashed: another one that comes now is left out.
    pub(crate) fn is_busy(&self) -> bool {
        self.kept().hashing.is_some()
    }

    /// What is known of entry `index`.
    pub(crate) fn at(&self, index: u64) -> Known {
        let kept = self.kept();
        let done = kept.done.iter().find(|(at, _)| *at == index).map(|(_, digest)| Known::Digest(*digest));
        done.unwrap_or(if kept.hashing == Some(index) { Known::Hashing } else { Known::Nothing })
    }

    /// Hashes the state as it was right after entry `index`, in a task of its own, which keeps `in_use`.
    pub(crate) fn begin(self: &Arc<Self>, index: u64, state: Box<dyn Frozen>, in_use: InUse) {
        self.kept().hashing = Some(index);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let hashed = this.hash(state).await;
            let mut kept = this.kept();
            kept.hashing = None;
            match hashed {
                Ok(Some(digest)) => {
                    tracing::debug!(index, rows = digest.rows, "the state was hashed");
                    kept.done.push_back((index, digest));
                    while kept.done.len() > KEPT {
                        kept.done.pop_front();
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(index, %error, "the state could not be hashed"),
            }
            drop(kept);
            drop(in_use);
        });
    }

    /// Ends what is being hashed, soon.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// `None`: it was stopped.
    async fn hash(&self, state: Box<dyn Frozen>) -> Result<Option<Digest>, KvError> {
        let stopping = |lost: quarry_env::blocking::JobLost| KvError::Failed {
            path: "the state".into(),
            message: lost.to_string(),
        };
        let mut walk = Walk { state, hashing: Hashing::default(), table: 0, from: Vec::new() };
        let mut since_pause = 0;
        loop {
            if self.stop.is_cancelled() {
                let _letting_go = self.world.blocking.run(move || drop(walk)).await;
                return Ok(None);
            }
            let stepped = self.world.blocking.run(move || walk.step().map(|bytes| (walk, bytes))).await;
            let bytes;
            (walk, bytes) = stepped.map_err(stopping)??;
            let Some(bytes) = bytes else { break };
            since_pause += bytes;
            if since_pause >= PAUSE_AFTER {
                self.world.clock.sleep(Duration::from_millis(since_pause * 1000 / BYTES_PER_SECOND)).await;
                since_pause = 0;
            }
        }
        let hashed = self.world.blocking.run(move || {
            // Lets go of the store, which waits for a thread.
            drop(walk.state);
            walk.hashing.finish()
        });
        hashed.await.map(Some).map_err(stopping)
    }
}

/// A state that is being hashed, and how far.
struct Walk {
    state: Box<dyn Frozen>,
    hashing: Hashing,
    table: usize,
    from: Vec<u8>,
}

impl Walk {
    /// Hashes some more rows: how many bytes, or `None` behind the last. Blocks.
    fn step(&mut self) -> Result<Option<u64>, KvError> {
        let Some(table) = Table::ALL.get(self.table).copied() else { return Ok(None) };
        let rows = self.state.scan(Space(table.name()), &self.from, None, ROWS_STEP)?;
        let mut bytes = 0;
        for (key, value) in &rows {
            self.hashing.row(table, key, value);
            bytes += (key.len() + value.len()) as u64;
        }
        match rows.last() {
            Some((last, _)) if rows.len() == ROWS_STEP => self.from = keys::behind(last),
            _ => (self.table, self.from) = (self.table + 1, Vec::new()),
        }
        Ok(Some(bytes))
    }
}
