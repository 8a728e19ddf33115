//! The store's promises, on a simulated disk and on a real one.

mod copies;
mod damage;
mod dirs;
mod fences;
mod health;
mod must_sync;
mod power;
mod real;
mod removal;
mod restart;
mod scrubbing;
mod seals;
mod small;
mod writing;

use bytes::Bytes;
use quarry_env_sim::{SimDisk, SimMachine};
use quarry_types::{ClusterKey, Epoch, ErrorCode, Lineage, limits::BLOCK_BYTES, sums::pieces};
use uuid::Uuid;

use super::*;

const BLOCK: usize = BLOCK_BYTES as usize;
const LIMIT: u64 = quarry_types::limits::CHUNK_BYTES;
const CHUNK: ChunkId = ChunkId(0x0107);

/// A chunkserver's machine and what its store is opened with.
struct Rig {
    machine: SimMachine,
    config: StoreConfig,
}

impl Rig {
    fn new(seed: u64) -> Self {
        Rig { machine: SimMachine::new("chunkserver", seed), config: config(["/a"]) }
    }

    fn with_dirs<const N: usize>(seed: u64, dirs: [&str; N]) -> Self {
        Rig { config: config(dirs), ..Rig::new(seed) }
    }

    fn buffered(seed: u64) -> Self {
        let mut rig = Rig::new(seed);
        rig.config.durability = Durability::Buffered;
        rig
    }

    fn disk(&self) -> &SimDisk {
        self.machine.disk()
    }

    async fn try_start(&self) -> Result<Store, StoreError> {
        Store::open(self.machine.boot(), self.config.clone()).await
    }

    /// Starts a process that follows epoch 1.
    async fn start(&self) -> Store {
        let store = self.try_start().await.unwrap();
        store.adopt(cluster(), leadership(1)).await.unwrap();
        store
    }

    /// `kill -9`: what was written stays.
    async fn restart(&self, store: Store) -> Store {
        drop(store);
        self.machine.kill();
        self.start().await
    }

    async fn restart_following(&self, store: Store, epoch: u64) -> Store {
        drop(store);
        self.machine.kill();
        let store = self.try_start().await.unwrap();
        assert_eq!(store.leadership(), Some(leadership(epoch)));
        store
    }

    /// A power loss: what was not synced may be gone.
    async fn power_cycle(&self, store: Store) -> Store {
        drop(store);
        self.machine.power_loss();
        self.start().await
    }

    fn file(&self, chunk: ChunkId) -> std::path::PathBuf {
        let name = format!("{:016x}.chunk", chunk.0);
        let files = self.disk().files();
        files.into_iter().map(|(path, _)| path).find(|path| path.ends_with(&name)).unwrap()
    }
}

fn config<const N: usize>(dirs: [&str; N]) -> StoreConfig {
    StoreConfig {
        dirs: dirs.into_iter().map(|path| DirConfig { path: path.into(), capacity: None }).collect(),
        key: ClusterKey::new([7; 32]),
        durability: Durability::Sealed,
        index_bytes: INDEX_BYTES,
    }
}

fn cluster() -> ClusterId {
    ClusterId::from_bytes(&[0xc1; 16]).unwrap()
}

fn leadership(epoch: u64) -> Leadership {
    Leadership { lineage: Lineage { number: 1, id: Uuid::from_u128(1) }, epoch: Epoch(epoch) }
}

/// The leader whose orders are carried out; before there is one, somebody whose are not.
fn followed(store: &Store) -> Leadership {
    store.leadership().unwrap_or(leadership(0))
}

/// Bytes that differ from chunk to chunk and from block to block.
fn data(chunk: ChunkId, length: usize) -> Vec<u8> {
    let word = |i: usize| (chunk.0 ^ (i as u64 / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..length).map(|i| word(i)[i % 8]).collect()
}

/// The pieces of `bytes` at `offset`, with their CRCs.
fn with_crcs(offset: u64, bytes: &[u8]) -> Vec<(Crc32, u64)> {
    let mut at = 0;
    pieces(offset, bytes.len() as u64)
        .map(|piece| {
            let end = at + piece as usize;
            let crc = Crc32::of(&bytes[at..end]);
            at = end;
            (crc, piece)
        })
        .collect()
}

async fn append(writer: &ReplicaWriter, bytes: &[u8]) -> Result<(), StoreError> {
    let offset = writer.length();
    writer.append(offset, with_crcs(offset, bytes), Bytes::copy_from_slice(bytes)).await
}

/// Writes what is missing of `all`, which is then to be the whole chunk.
async fn append_last(writer: &ReplicaWriter, all: &[u8]) -> Result<Receipt, StoreError> {
    let offset = writer.length();
    let rest = &all[offset as usize..];
    let (length, crc) = (all.len() as u64, Crc32::of(all));
    writer.append_last(offset, with_crcs(offset, rest), Bytes::copy_from_slice(rest), length, crc).await
}

/// A replica with these bytes, written in packets of an odd size.
async fn written(store: &Store, chunk: ChunkId, bytes: &[u8]) -> ReplicaWriter {
    let writer = store.create(chunk, LIMIT).await.unwrap();
    for packet in bytes.chunks(40_000) {
        append(&writer, packet).await.unwrap();
    }
    writer
}

async fn sealed(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Receipt {
    let writer = written(store, chunk, bytes).await;
    writer.seal(bytes.len() as u64, Crc32::of(bytes)).await.unwrap();
    store.commit_seal(followed(store), chunk, bytes.len() as u64, Crc32::of(bytes)).await.unwrap()
}

async fn begin_copy(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Result<CopyStart, StoreError> {
    store.begin_copy(followed(store), chunk, bytes.len() as u64, Crc32::of(bytes)).await
}

/// A copy of these bytes that has none of them yet.
async fn copying(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Result<CopyWriter, StoreError> {
    match begin_copy(store, chunk, bytes).await? {
        CopyStart::Receiving(writer) => Ok(writer),
        CopyStart::Here(receipt) => panic!("{receipt:?}"),
    }
}

/// Gives a copy a range of whole blocks.
async fn give(writer: &CopyWriter, bytes: &[u8], range: std::ops::Range<usize>) {
    for (at, block) in (range.start..).step_by(BLOCK).zip(bytes[range.clone()].chunks(BLOCK)) {
        let bad = writer.take(at as u64, vec![Crc32::of(block)], Bytes::copy_from_slice(block)).await.unwrap();
        assert_eq!(bad, 0);
    }
}

/// A whole copy, or why not.
async fn copied(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Result<Receipt, StoreError> {
    let writer = copying(store, chunk, bytes).await?;
    let crcs = bytes.chunks(BLOCK).map(Crc32::of).collect();
    let received = writer.take(0, crcs, Bytes::copy_from_slice(bytes)).await;
    match received {
        Ok(_) => writer.finish().await,
        Err(error) => Err(error),
    }
}

/// Reads like a client: names what it expects and verifies every block.
async fn read(store: &Store, chunk: ChunkId, length: u64, crc: Crc32) -> Result<Vec<u8>, StoreError> {
    let reader = store.reader(chunk, length, crc).await?;
    assert_eq!(reader.readable(), length);
    let mut all = Vec::new();
    while (all.len() as u64) < length {
        let (bytes, crcs) = reader.read(all.len() as u64, 3 * BLOCK_BYTES).await?;
        let blocks: Vec<_> = bytes.chunks(BLOCK).map(Crc32::of).collect();
        if blocks != crcs {
            return Err(StoreError::new(ErrorCode::Corrupt, "the client found a bad block"));
        }
        all.extend_from_slice(&bytes);
    }
    assert_eq!(Crc32::of(&all), crc, "blocks that verify make the sealed CRC");
    Ok(all)
}

async fn holds(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Result<(), String> {
    match read(store, chunk, bytes.len() as u64, Crc32::of(bytes)).await {
        Ok(all) if all == bytes => Ok(()),
        Ok(_) => Err(format!("chunk {chunk} reads wrong bytes")),
        Err(error) => Err(error.to_string()),
    }
}

fn state(store: &Store, chunk: ChunkId) -> Option<ReplicaState> {
    store.inventory().1.into_iter().find(|item| item.chunk == chunk).map(|item| item.state)
}

fn code<T>(result: Result<T, StoreError>) -> Option<ErrorCode> {
    result.err().map(|error| error.code())
}
