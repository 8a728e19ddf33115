//! What lies on the simulated disks: read from them, past every process, and without asking anyone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use quarry_chunkserver_core::{
    layout::{DATA_OFFSET, HEADER_DATA_BYTES, Header},
    record::ReplicaRecord,
};
use quarry_env::Space;
use quarry_env_sim::{
    SimDisk,
    kv::{Rows, durable_rows, written_rows},
};
use quarry_types::{ChunkId, Crc32, ReplicaState};

use crate::cluster::DATA;

/// The space of an index that has the records of replicas.
pub const REPLICAS: &str = "replicas";
/// The one that has the bytes of small chunks: a row is a header of so many bytes, a CRC, and the chunk.
pub const BYTES: &str = "bytes";
const ROW_HEAD: usize = HEADER_DATA_BYTES + 4;
/// The one that has the tombstones.
pub const TOMBSTONES: &str = "tombstones";
/// The one that has the directory's own rows.
pub const META: &str = "meta";
/// Of these: whom it follows, what it began as, up to where tombstones went.
pub const LEADERSHIP: &[u8] = b"leadership";
pub const START_COUNTER: &[u8] = b"start-counter";
pub const WATERMARK: &[u8] = b"watermark";

/// What counts as being on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What no power loss can take.
    Durable,
    /// What the end of a process leaves: all that `buffered` durability promises.
    Written,
}

/// What a chunk was sealed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    pub length: u64,
    pub crc: Crc32,
}

/// The chunk of a key of [`REPLICAS`], and of the master's table of chunks.
pub fn chunk_of(key: &[u8]) -> ChunkId {
    ChunkId(u64::from_be_bytes(key.try_into().expect("a chunk's key has eight bytes")))
}

/// Of one chunkserver.
pub type Records = BTreeMap<ChunkId, ReplicaRecord>;

/// A space of a chunkserver's index.
pub fn index_rows(disk: &SimDisk, space: &'static str, kept: Kept) -> Rows {
    rows(disk, &Path::new(DATA).join("index"), space, kept)
}

/// A space of any store.
pub fn rows(disk: &SimDisk, store: &Path, space: &'static str, kept: Kept) -> Rows {
    match kept {
        Kept::Durable => durable_rows(disk, store, Space(space)),
        Kept::Written => written_rows(disk, store, Space(space)),
    }
}

/// The records of a chunkserver's index.
pub fn records(disk: &SimDisk, kept: Kept) -> Records {
    let rows = index_rows(disk, REPLICAS, kept);
    rows.iter().map(|(key, value)| (chunk_of(key), ReplicaRecord::decode(value).expect("records decode"))).collect()
}

/// The epoch of the leader that a chunkserver follows, also after a power loss. The cluster of these runs has one lineage.
pub fn followed(disk: &SimDisk) -> Option<u64> {
    epoch_of(index_rows(disk, META, Kept::Durable).get(LEADERSHIP)?)
}

/// The epoch in a row of [`LEADERSHIP`]: it stands behind the lineage's number and id.
pub fn epoch_of(row: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(row.get(24..)?.try_into().ok()?))
}

pub fn chunk_file(chunk: ChunkId) -> PathBuf {
    Path::new(DATA).join(format!("chunks/{:02x}/{:016x}.chunk", chunk.0 & 0xff, chunk.0))
}

/// Whether what `record` stands for serves the chunk that was sealed so, bytes and all. One that is longer and was not cut yet
/// does.
pub fn is_good(disk: &SimDisk, chunk: ChunkId, record: &ReplicaRecord, seal: Seal, kept: Kept) -> bool {
    let stands = match record.state {
        ReplicaState::Sealed => (record.length, record.crc) == (seal.length, seal.crc),
        ReplicaState::Fenced => (record.durable || kept == Kept::Written) && record.length >= seal.length,
        ReplicaState::Open | ReplicaState::Quarantined => false,
    };
    if !stands {
        return false;
    }
    if record.in_index {
        let row = index_rows(disk, BYTES, kept).remove(&chunk.0.to_be_bytes()[..]);
        return row.is_some_and(|row| holds(&row, ROW_HEAD, chunk, seal));
    }
    let path = chunk_file(chunk);
    let file = match kept {
        Kept::Durable => disk.durable(&path),
        Kept::Written => disk.contents(&path),
    };
    file.is_ok_and(|file| holds(&file, usize::try_from(DATA_OFFSET).expect("small"), chunk, seal))
}

fn holds(file: &[u8], from: usize, chunk: ChunkId, seal: Seal) -> bool {
    let to = from + usize::try_from(seal.length).expect("small");
    let whole = file.get(from..to).is_some_and(|data| Crc32::of(data) == seal.crc);
    whole && Header::decode(file).is_ok_and(|header| header.chunk == chunk)
}
