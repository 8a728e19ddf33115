//! The chunk store: replicas in the data directories of one server.
//!
//! | module | does |
//! |---|---|
//! | `open`, `recover` | bring the directories into service, and the replicas back from a crash |
//! | `handles` | what a writer and a reader of one replica hold |
//! | `create`, `write` | a replica's writing life |
//! | `fence`, `commit`, `commit_many`, `remove` | its ends: fenced, sealed, deleted; tombstones |
//! | `read`, `salvage` | reads and checks; what can be read of a replica in quarantine |
//! | `copy`, `copy_writer`, `kept` | the receiving replica of a copy; the files of replicas that copies replaced |
//! | `adopt`, `probe` | which master is followed; whether the disks answer |
//! | `watched`, `health`, `restore` | what the disks' calls say about them; out of service; back in service while running |
//! | `synced_later` | replicas that are sealed before they are durable, which buffered durability allows |
//! | `scrub` | reads sealed replicas again, and when each was last verified |
//! | `dir`, `index`, `file`, `cache` | one data directory, its index, one chunk file, files kept open |
//! | `row` | small chunks, which are rows of the index and read as files |
//! | `replica`, `shared` | one replica in memory; what all operations share |
//! | [`sync_points`] | every sync, and what breaks without it |
//!
//! The work itself is written in blocking style; the methods of [`Store`] hand it to `World::blocking`. A replica's lock
//! is held while its file and its record change, so that what is acknowledged and what is fenced never overlap (S5).

mod adopt;
mod cache;
mod commit;
mod commit_many;
mod config;
mod copy;
mod copy_writer;
mod create;
mod dir;
mod error;
mod fence;
mod file;
mod handles;
mod health;
mod index;
mod kept;
mod open;
mod probe;
mod read;
mod recover;
mod remove;
mod replica;
mod restore;
mod row;
mod salvage;
mod scrub;
mod shared;
pub mod sync_points;
mod synced_later;
mod watched;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
pub use config::{
    Counts, DirConfig, DiskStatus, INDEX_BYTES, INDEX_BYTES_MAX, Identity, OPEN_FILES_MAX, OPEN_REPLICAS_MAX,
    StoreConfig,
};
use copy::Begun;
pub use copy::COPIES_MAX;
pub use copy_writer::{CopyStart, CopyWriter};
use dir::lock;
pub use error::StoreError;
use futures::{StreamExt, stream::FuturesUnordered};
use handles::Source;
pub use handles::{AtHand, ReplicaReader, ReplicaWriter};
pub use quarry_chunkserver_core::{
    Durability,
    inventory::{Change, Ranges, ReplicaItem, Sums},
};
use quarry_env::World;
use quarry_types::{ChunkId, ClusterId, Crc32, ErrorCode, Leadership, Receipt, ReplicaState};
pub(crate) use read::GivenOut;
pub use salvage::{Run, Salvager};
pub use scrub::{Check, ScrubStatus};
use shared::Shared;
pub use synced_later::DueSyncs;
use synced_later::SyncWhen;

/// The chunk store. Cheap to clone. Dropping a future of its methods does not stop the work.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

/// Runs blocking work of the store.
async fn work<T: Send + 'static>(
    shared: &Arc<Shared>,
    job: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let mine = Arc::clone(shared);
    shared.world.blocking.run(move || job(&mine)).await?
}

impl Store {
    /// Opens the data directories, finishes what a crash interrupted and fences what was open (S1).
    ///
    /// # Errors
    /// Another cluster's, another server's, a newer or a locked directory is refused. A directory whose disk fails is
    /// left out as long as one works.
    pub async fn open(world: World, config: StoreConfig) -> Result<Store, StoreError> {
        let blocking = Arc::clone(&world.blocking);
        let opened = blocking.run(move || {
            let shared = Shared::open(world, &config)?;
            shared.recover();
            Ok(Store(Arc::new(shared)))
        });
        opened.await?
    }

    /// Who this server is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let cluster = lock(&self.0.state).cluster;
        Identity { cluster, server: self.0.server, start_counter: self.0.start_counter, start_id: self.0.start_id }
    }

    /// The master this server follows; absent before the first.
    #[must_use]
    pub fn leadership(&self) -> Option<Leadership> {
        lock(&self.0.state).leadership
    }

    /// Follows a master: persists the cluster (the first time) and its leadership before returning. The caller has
    /// verified the signature.
    ///
    /// # Errors
    /// StaleLeader for an older or a sibling leadership, Mismatch for another cluster.
    pub async fn adopt(&self, cluster: ClusterId, leadership: Leadership) -> Result<(), StoreError> {
        work(&self.0, move |shared| shared.adopt(cluster, leadership)).await
    }

    /// Begins a replica of at most `limit_bytes`.
    ///
    /// # Errors
    /// Fenced when the chunk was fenced, deleted or created here before; NoSpace; Busy; Unavailable before the first
    /// [`Store::adopt`].
    pub async fn create(&self, chunk: ChunkId, limit_bytes: u64) -> Result<ReplicaWriter, StoreError> {
        let replica = work(&self.0, move |shared| shared.create(chunk, limit_bytes)).await?;
        Ok(ReplicaWriter::new(&self.0, replica))
    }

    /// Writes a replica of one block at most, with its end: [`Store::create`] and [`ReplicaWriter::append_last`] in one, which
    /// costs less.
    ///
    /// # Errors
    /// As of both. After an error the chunk must be fenced.
    pub async fn write_whole(
        &self,
        chunk: ChunkId,
        limit_bytes: u64,
        data: Bytes,
        crc: Crc32,
    ) -> Result<Receipt, StoreError> {
        work(&self.0, move |shared| shared.write_whole(chunk, limit_bytes, &data, crc)).await
    }

    /// Refuses further writes for good, makes durable what is there, and says what it is. Of a chunk that was never
    /// here it leaves a durable tombstone and states length 0 (S5).
    ///
    /// # Errors
    /// Corrupt for a quarantined replica, DiskFailed when what the disk has is unknown.
    pub async fn fence(&self, chunk: ChunkId) -> Result<Receipt, StoreError> {
        work(&self.0, move |shared| shared.fence(chunk)).await
    }

    /// Seals the replica as the master committed it; a longer one that agrees so far is cut (S2).
    ///
    /// # Errors
    /// StaleLeader when `by` is not the followed leader any more; NoReplica; Mismatch when the replica is shorter or was
    /// sealed otherwise; Corrupt when it differs (it is then quarantined).
    pub async fn commit_seal(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<Receipt, StoreError> {
        self.committed(by, chunk, length, crc, SyncWhen::Now).await
    }

    /// The same, as durable as this server promises its writers: with buffered durability what a writer sealed is synced later,
    /// by [`Store::due_syncs`], and the receipt says that it is not durable.
    ///
    /// # Errors
    /// As [`Store::commit_seal`].
    pub async fn commit_seal_as_promised(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<Receipt, StoreError> {
        self.committed(by, chunk, length, crc, self.promised()).await
    }

    /// Commits seals (chunk, length, CRC) as [`Store::commit_seal_as_promised`] does, of those chunks of which nothing but the
    /// record changes: they share a sync. What the answer has no receipt of is as it was, and is to be committed by itself.
    ///
    /// # Errors
    /// StaleLeader when `by` is not the followed leader any more.
    pub async fn commit_records(
        &self,
        by: Leadership,
        seals: Vec<(ChunkId, u64, Crc32)>,
    ) -> Result<BTreeMap<ChunkId, Receipt>, StoreError> {
        let sync = self.promised();
        work(&self.0, move |shared| shared.commit_records(by, &seals, sync)).await
    }

    /// When a committed seal makes durable what its writer did not.
    fn promised(&self) -> SyncWhen {
        match self.0.durability {
            Durability::Sealed => SyncWhen::Now,
            Durability::Buffered => SyncWhen::Later,
        }
    }

    async fn committed(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
        sync: SyncWhen,
    ) -> Result<Receipt, StoreError> {
        work(&self.0, move |shared| shared.commit_seal(by, chunk, length, crc, sync)).await
    }

    /// Removes the replica, whatever its state, and leaves a durable tombstone (S6). Ends a copy of the chunk that is on
    /// its way here. What a directory out of service holds is not reached: it comes back with the directory, and the master
    /// finds it as an orphan.
    ///
    /// # Errors
    /// StaleLeader when `by` is not the followed leader any more; Busy; DiskFailed.
    pub async fn delete(&self, by: Leadership, chunk: ChunkId) -> Result<(), StoreError> {
        work(&self.0, move |shared| shared.delete(by, chunk)).await
    }

    /// Removes replicas as [`Store::delete`] does, of those chunks at which nobody is: they share a sync. What the answer does not
    /// name is as it was, and is to be deleted by itself.
    ///
    /// # Errors
    /// StaleLeader when `by` is not the followed leader any more.
    pub async fn delete_many(&self, by: Leadership, chunks: Vec<ChunkId>) -> Result<BTreeSet<ChunkId>, StoreError> {
        work(&self.0, move |shared| shared.delete_many(by, &chunks)).await
    }

    /// Removes the replica as [`Store::delete`] does if it is sealed with this length and CRC; fine when it is gone. One
    /// in quarantine is named by length 0 and the CRC of no bytes.
    ///
    /// # Errors
    /// StaleLeader when `by` is not the followed leader any more; Mismatch; Busy; DiskFailed.
    pub async fn drop_surplus(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<(), StoreError> {
        work(&self.0, move |shared| shared.drop_surplus(by, chunk, length, crc)).await
    }

    /// Begins to receive a copy of a sealed chunk. A tombstone is no obstacle; a replica that is good already needs no
    /// copy; one in quarantine or too short stands until the copy takes its place.
    ///
    /// # Errors
    /// Conflict when the chunk is being written here; Mismatch when it was sealed otherwise; Busy when it is being copied
    /// already, or [`COPIES_MAX`] others are; NoSpace; StaleLeader; InvalidArgument for a seal that no chunk has.
    pub async fn begin_copy(
        &self,
        by: Leadership,
        chunk: ChunkId,
        length: u64,
        crc: Crc32,
    ) -> Result<CopyStart, StoreError> {
        let shared = Arc::clone(&self.0);
        Ok(match work(&self.0, move |shared| shared.begin_copy(by, chunk, length, crc)).await? {
            Begun::Here(receipt) => CopyStart::Here(receipt),
            Begun::Receiving(copy) => CopyStart::Receiving(CopyWriter::new(shared, copy)),
        })
    }

    /// Removes files of replicas in quarantine that copies replaced and that this process has seen for longer than
    /// `keep`; how many.
    ///
    /// # Errors
    /// Unavailable while the process stops.
    pub async fn remove_kept(&self, keep: Duration) -> Result<usize, StoreError> {
        work(&self.0, move |shared| Ok(shared.remove_kept(keep))).await
    }

    /// Reads the whole replica and compares it with its checksums and with the committed seal; quarantines what differs.
    ///
    /// # Errors
    /// NoReplica; Mismatch when it was never sealed like this; Corrupt.
    pub async fn verify(&self, chunk: ChunkId, length: u64, crc: Crc32) -> Result<Receipt, StoreError> {
        work(&self.0, move |shared| shared.verify(chunk, length, crc)).await
    }

    /// Reads a settled replica with exactly this length and CRC.
    ///
    /// # Errors
    /// NoReplica; Mismatch; Corrupt (the replica is then quarantined).
    pub async fn reader(&self, chunk: ChunkId, length: u64, crc: Crc32) -> Result<ReplicaReader, StoreError> {
        if let Some((replica, file)) = self.0.settled_at_hand(chunk, length, crc) {
            return Ok(ReplicaReader::new(&self.0, replica, Source::Settled(file)));
        }
        let (replica, file) = work(&self.0, move |shared| shared.open_settled(chunk, length, crc)).await?;
        let source = file.map_or(Source::Empty, Source::Settled);
        Ok(ReplicaReader::new(&self.0, replica, source))
    }

    /// Opens the file of a sealed replica with exactly this length and CRC, to be given to another process, which verifies what
    /// it reads.
    ///
    /// # Errors
    /// NoReplica; Mismatch; Corrupt (the replica is then quarantined).
    pub(crate) async fn give_out(&self, chunk: ChunkId, length: u64, crc: Crc32) -> Result<GivenOut, StoreError> {
        work(&self.0, move |shared| shared.give_out(chunk, length, crc)).await
    }

    /// Reads what can be read of a replica in quarantine, of a chunk of `length` bytes. Nothing is verified but whose
    /// file it is.
    ///
    /// # Errors
    /// NoReplica; Mismatch when it is not in quarantine; Corrupt when the file is not the chunk's or cannot be read.
    pub async fn salvager(&self, chunk: ChunkId, length: u64) -> Result<Salvager, StoreError> {
        let wreck = work(&self.0, move |shared| shared.open_wreck(chunk, length)).await?;
        Ok(Salvager::new(Arc::clone(&self.0), wreck))
    }

    /// Reads a replica that is being written, up to what every member has.
    ///
    /// # Errors
    /// NoReplica; Fenced when it is not open any more: the master knows its seal.
    pub async fn open_reader(&self, chunk: ChunkId) -> Result<ReplicaReader, StoreError> {
        let replica = work(&self.0, move |shared| shared.find_open(chunk)).await?;
        Ok(ReplicaReader::new(&self.0, replica, Source::Open))
    }

    /// All replicas, by chunk, and the number they hold at.
    #[must_use]
    pub fn inventory(&self) -> (u64, Vec<ReplicaItem>) {
        let state = lock(&self.0.state);
        (state.inventory.number(), state.inventory.items().collect())
    }

    /// The changes after `number` and the number they lead to; `None` when a full report is needed.
    #[must_use]
    pub fn changes_since(&self, number: u64) -> Option<(u64, Vec<Change>)> {
        let state = lock(&self.0.state);
        Some((state.inventory.number(), state.inventory.changes_since(number)?))
    }

    /// The inventory's number and its digest at it.
    #[must_use]
    pub fn digest(&self) -> (u64, u64) {
        let state = lock(&self.0.state);
        (state.inventory.number(), state.inventory.digest())
    }

    /// The inventory's number and the sums that its digest is made of.
    #[must_use]
    pub fn sums(&self) -> (u64, Sums) {
        let state = lock(&self.0.state);
        (state.inventory.number(), state.inventory.sums())
    }

    /// How many replicas there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = lock(&self.0.state);
        Counts {
            replicas: state.inventory.len(),
            open: state.inventory.count(ReplicaState::Open),
            quarantined: state.inventory.count(ReplicaState::Quarantined),
            tombstones: state.tombstones.len() as u64,
        }
    }

    /// No open chunk has an id below `watermark`: tombstones below it go, and such chunks are refused from now on.
    ///
    /// # Errors
    /// DiskFailed.
    pub async fn watermark(&self, watermark: ChunkId) -> Result<(), StoreError> {
        if watermark <= lock(&self.0.state).watermark {
            return Ok(());
        }
        work(&self.0, move |shared| shared.set_watermark(watermark)).await
    }

    /// Touches the disks in service, all at once, until one answers.
    ///
    /// # Errors
    /// DiskFailed when none does. Has no deadline of its own: one that hangs is waited for.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let mut touched: FuturesUnordered<_> = self.0.working().map(|dir| self.probe_dir(dir)).collect();
        let mut result = Err(StoreError::new(
            ErrorCode::DiskFailed,
            "no data directory of this chunkserver answers; check its disks, then restart it",
        ));
        while let Some(answer) = touched.next().await {
            result = answer;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn probe_dir(&self, dir: Arc<dir::Dir>) -> Result<(), StoreError> {
        self.0.probes.begin(&dir)?;
        work(&self.0, move |shared| {
            let answer = shared.probe(&dir);
            shared.probes.end(&dir);
            answer
        })
        .await
    }
}

#[cfg(test)]
mod tests;
