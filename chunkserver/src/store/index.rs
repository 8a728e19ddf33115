//! The index of one data directory: what it knows about its replicas, in a metadata store.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use quarry_chunkserver_core::record::ReplicaRecord;
use quarry_env::{Batch, Kv, KvError, KvFactory, KvOptions, Space, SyncPoint};
use quarry_types::{ChunkId, Epoch, Leadership, Lineage};
use uuid::Uuid;

#[cfg(doc)]
use super::sync_points;

const META: Space = Space("meta");
const REPLICAS: Space = Space("replicas");
const TOMBSTONES: Space = Space("tombstones");
const ROSTER: Space = Space("roster");
/// When replicas were last verified, in wall-clock milliseconds. Apart from the records, so that it is never in the way of
/// a change that counts; a row without a record means nothing.
const VERIFIED: Space = Space("verified");

/// Small chunks, each with what its file would say beside its bytes; only where the record says so.
const BYTES: Space = Space("bytes");

const DIRECTORY: &[u8] = b"directory";
const START_COUNTER: &[u8] = b"start-counter";
const LEADERSHIP: &[u8] = b"leadership";
const WATERMARK: &[u8] = b"watermark";

/// Rows read at once.
const PAGE: usize = 1024;
/// Small: a record is some 50 bytes, and all of them are read once, at the start.
const OPTIONS_CACHE_BYTES: usize = 4 << 20;
/// The bytes of small chunks wait here: fewer and longer writes to the disk.
const OPTIONS_BUFFER_BYTES: usize = 16 << 20;

/// The index of one data directory.
pub(super) struct Index(Arc<dyn Kv>);

/// What an index says about its directory and server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// Absent in an index that was just made.
    pub(super) directory: Option<Uuid>,
    pub(super) start_counter: u64,
    pub(super) leadership: Option<Leadership>,
    pub(super) watermark: ChunkId,
    /// All directories that this server has ever had, as far as this one knows; of one that was given up, the end of the
    /// chunk ids that it held.
    pub(super) roster: Vec<(Uuid, Option<ChunkId>)>,
}

/// Changes of an index that happen together.
#[derive(Default)]
pub(super) struct Changes(Batch);

impl Changes {
    pub(super) fn len(&self) -> usize {
        self.0.changes.len()
    }

    pub(super) fn replica(mut self, chunk: ChunkId, record: &ReplicaRecord) -> Self {
        self.0.put(REPLICAS, chunk.0.to_be_bytes(), record.encode());
        self
    }

    pub(super) fn no_replica(mut self, chunk: ChunkId, old: &ReplicaRecord) -> Self {
        self.0.delete(REPLICAS, chunk.0.to_be_bytes());
        self.0.delete(VERIFIED, chunk.0.to_be_bytes());
        if old.in_index { self.no_bytes(chunk) } else { self }
    }

    /// The bytes of a chunk whose record says that they are here.
    pub(super) fn bytes(mut self, chunk: ChunkId, row: Vec<u8>) -> Self {
        self.0.put(BYTES, chunk.0.to_be_bytes(), row);
        self
    }

    pub(super) fn no_bytes(mut self, chunk: ChunkId) -> Self {
        self.0.delete(BYTES, chunk.0.to_be_bytes());
        self
    }

    pub(super) fn verified(mut self, chunk: ChunkId, wall_ms: u64) -> Self {
        self.0.put(VERIFIED, chunk.0.to_be_bytes(), wall_ms.to_le_bytes());
        self
    }

    pub(super) fn tombstone(mut self, chunk: ChunkId) -> Self {
        self.0.put(TOMBSTONES, chunk.0.to_be_bytes(), []);
        self
    }

    pub(super) fn watermark(mut self, watermark: ChunkId) -> Self {
        self.0.put(META, WATERMARK, watermark.0.to_le_bytes());
        self.0.delete_range(TOMBSTONES, 0u64.to_be_bytes(), watermark.0.to_be_bytes());
        self
    }

    pub(super) fn leadership(mut self, leadership: &Leadership) -> Self {
        self.0.put(META, LEADERSHIP, encode_leadership(leadership));
        self
    }

    pub(super) fn start(mut self, counter: u64, roster: &BTreeMap<Uuid, Option<ChunkId>>) -> Self {
        self.0.put(META, START_COUNTER, counter.to_le_bytes());
        for (directory, end) in roster {
            let end = end.map(|end| end.0.to_le_bytes().to_vec()).unwrap_or_default();
            self.0.put(ROSTER, *directory.as_bytes(), end);
        }
        self
    }

    pub(super) fn directory(mut self, directory: Uuid) -> Self {
        self.0.put(META, DIRECTORY, *directory.as_bytes());
        self
    }
}

fn encode_leadership(of: &Leadership) -> Vec<u8> {
    let mut out = of.lineage.number.to_le_bytes().to_vec();
    out.extend(of.lineage.id.as_bytes());
    out.extend(of.epoch.0.to_le_bytes());
    out
}

fn decode_leadership(bytes: &[u8]) -> Option<Leadership> {
    Some(Leadership {
        lineage: Lineage { number: number(bytes.get(..8)?)?, id: Uuid::from_slice(bytes.get(8..24)?).ok()? },
        epoch: Epoch(number(bytes.get(24..)?)?),
    })
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn chunk(key: &[u8]) -> Option<ChunkId> {
    key.try_into().ok().map(|bytes| ChunkId(u64::from_be_bytes(bytes)))
}

fn damaged(what: &str) -> KvError {
    KvError::Failed { path: "index".into(), message: format!("the row of {what} does not decode") }
}

impl Index {
    pub(super) fn open(kv: &dyn KvFactory, path: &Path) -> Result<Self, KvError> {
        let options = KvOptions {
            cache_bytes: OPTIONS_CACHE_BYTES,
            write_buffer_bytes: OPTIONS_BUFFER_BYTES,
            apart: &[BYTES],
            ..KvOptions::default()
        };
        kv.open(path, &[META, REPLICAS, TOMBSTONES, ROSTER, VERIFIED, BYTES], options).map(Index)
    }

    /// Every change is synced, also one whose loss would be harmless: of several that are not, a power loss can keep
    /// the later ones and lose the earlier, and an index with such a hole does not open ([`sync_points::IN_ORDER`]).
    pub(super) fn write(&self, changes: Changes, sync: SyncPoint) -> Result<(), KvError> {
        self.0.write(changes.0, Some(sync))
    }

    pub(super) fn meta(&self) -> Result<Meta, KvError> {
        fn row<T>(
            index: &Index,
            key: &[u8],
            name: &str,
            decode: impl Fn(&[u8]) -> Option<T>,
        ) -> Result<Option<T>, KvError> {
            let value = index.0.get(META, key)?;
            value.map(|bytes| decode(&bytes).ok_or_else(|| damaged(name))).transpose()
        }
        let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
        let mut roster = Vec::new();
        for (key, end) in self.0.scan(ROSTER, &[], None, PAGE)? {
            roster.push((uuid(&key).ok_or_else(|| damaged("a directory"))?, number(&end).map(ChunkId)));
        }
        Ok(Meta {
            directory: row(self, DIRECTORY, "the directory", uuid)?,
            start_counter: row(self, START_COUNTER, "the start counter", number)?.unwrap_or(0),
            leadership: row(self, LEADERSHIP, "the leadership", decode_leadership)?,
            watermark: ChunkId(row(self, WATERMARK, "the watermark", number)?.unwrap_or(0)),
            roster,
        })
    }

    /// Goes through all rows of a space, a page at a time.
    fn each(&self, space: Space, mut take: impl FnMut(ChunkId, &[u8]) -> Result<(), KvError>) -> Result<(), KvError> {
        let mut from = Vec::new();
        loop {
            let rows = self.0.scan(space, &from, None, PAGE)?;
            for (key, value) in &rows {
                take(chunk(key).ok_or_else(|| damaged("a chunk"))?, value)?;
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => {
                    from.clone_from(key);
                    from.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    pub(super) fn replicas(&self, mut take: impl FnMut(ChunkId, ReplicaRecord)) -> Result<(), KvError> {
        self.each(REPLICAS, |chunk, bytes| {
            take(chunk, ReplicaRecord::decode(bytes).map_err(|e| damaged(&format!("chunk {chunk} ({e})")))?);
            Ok(())
        })
    }

    pub(super) fn has_replicas(&self) -> Result<bool, KvError> {
        Ok(!self.0.scan(REPLICAS, &[], None, 1)?.is_empty())
    }

    /// The row of a chunk's bytes.
    pub(super) fn bytes(&self, chunk: ChunkId) -> Result<Option<Vec<u8>>, KvError> {
        self.0.get(BYTES, &chunk.0.to_be_bytes())
    }

    /// When replicas were last verified. What does not decode is as good as never.
    pub(super) fn verified(&self) -> Result<BTreeMap<ChunkId, u64>, KvError> {
        let mut all = BTreeMap::new();
        self.each(VERIFIED, |chunk, bytes| {
            all.extend(number(bytes).map(|stamp| (chunk, stamp)));
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn tombstones(&self, mut take: impl FnMut(ChunkId)) -> Result<(), KvError> {
        self.each(TOMBSTONES, |chunk, _| {
            take(chunk);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_leadership() {
        let leadership =
            Leadership { lineage: Lineage { number: 2, id: Uuid::from_bytes([9; 16]) }, epoch: Epoch(0x0102) };
        let mut golden = vec![2, 0, 0, 0, 0, 0, 0, 0];
        golden.extend([9; 16]);
        golden.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode_leadership(&leadership), golden);
        assert_eq!(decode_leadership(&golden), Some(leadership));
        assert_eq!(decode_leadership(&golden[1..]), None);
    }
}
