//! What lies on the simulated disks: read from them, past every process, and without asking anyone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use quarry_chunkserver_core::{
    layout::{DATA_OFFSET, Header},
    record::ReplicaRecord,
};
use quarry_env::Space;
use quarry_env_sim::{SimDisk, kv::durable_rows};
use quarry_types::{ChunkId, Crc32, ReplicaState};

use super::cluster::DATA;

/// The space of an index that has the records of replicas.
pub const REPLICAS: &str = "replicas";

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

/// The records of a chunkserver's index, as far as no power loss can take them.
pub fn records(disk: &SimDisk) -> Records {
    let rows = durable_rows(disk, &Path::new(DATA).join("index"), Space(REPLICAS));
    rows.iter().map(|(key, value)| (chunk_of(key), ReplicaRecord::decode(value).expect("records decode"))).collect()
}

/// The epoch of the leader that a chunkserver follows. The cluster of these tests has one lineage.
pub fn followed(disk: &SimDisk) -> Option<u64> {
    let rows = durable_rows(disk, &Path::new(DATA).join("index"), Space("meta"));
    // Behind the lineage's number and id.
    Some(u64::from_le_bytes(rows.get(&b"leadership"[..])?.get(24..)?.try_into().ok()?))
}

pub fn chunk_file(chunk: ChunkId) -> PathBuf {
    Path::new(DATA).join(format!("chunks/{:02x}/{:016x}.chunk", chunk.0 & 0xff, chunk.0))
}

/// Whether what `record` stands for serves the chunk that was sealed so, bytes and all, also after a power loss. One that is
/// longer and was not cut yet does.
pub fn is_good(disk: &SimDisk, chunk: ChunkId, record: &ReplicaRecord, seal: Seal) -> bool {
    let stands = match record.state {
        ReplicaState::Sealed => (record.length, record.crc) == (seal.length, seal.crc),
        ReplicaState::Fenced => record.durable && record.length >= seal.length,
        ReplicaState::Open | ReplicaState::Quarantined => false,
    };
    stands && disk.durable(&chunk_file(chunk)).is_ok_and(|file| holds(&file, chunk, seal))
}

fn holds(file: &[u8], chunk: ChunkId, seal: Seal) -> bool {
    let from = usize::try_from(DATA_OFFSET).expect("small");
    let to = from + usize::try_from(seal.length).expect("small");
    let whole = file.get(from..to).is_some_and(|data| Crc32::of(data) == seal.crc);
    whole && Header::decode(file).is_ok_and(|header| header.chunk == chunk)
}
