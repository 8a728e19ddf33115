//! What the index keeps about a replica, and how it may change.
//!
//! ```text
//! offset   bytes
//!      0       1  version: 2 of a replica whose bytes are in the index, of any other 1
//!      1       1  state: 1 open, 2 fenced, 3 sealed, 4 quarantined
//!      2       1  flags: 1 durable, 2 restarted, 4 cut pending; of version 2, and always there, 8 bytes in the index
//!      3       1  why it is quarantined, 0 when it is not
//!      4       8  length
//!     12       4  CRC-32 of the data up to the length
//!     16       4  CRC-32 of the last, partial block at the length
//!     20       8  flushed mark: length
//!     28       4  flushed mark: CRC-32 of the last, partial block
//!     32       4  CRC-32 of the 32 bytes before
//! ```
//! Numbers are little endian.
//!
//! A replica only ever moves down this list: open → fenced → sealed, and from each of them to quarantined. A copy is
//! sealed from the start, and takes the place of what was there. The methods here are the only places that make a
//! record with another state.

use bytes::{Buf, BufMut};
use quarry_types::{ChunkId, ChunkSums, ClusterId, Crc32, Receipt, ReplicaState, ServerId};

/// Version of the record's layout.
pub const VERSION: u8 = 1;
/// The same of a replica whose bytes are in the index: releases that would look for a file refuse it.
pub const VERSION_IN_INDEX: u8 = 2;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 36;

const HASHED_BYTES: usize = RECORD_BYTES - 4;
const DURABLE: u8 = 1;
const RESTARTED: u8 = 2;
const CUT_PENDING: u8 = 4;
const IN_INDEX: u8 = 8;

/// How far an open replica is known to be on the disk. The CRC is the writer's, of the block that the mark ends in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Bytes of data that were flushed.
    pub length: u64,
    /// CRC of the last, partial block; that of no bytes at a block's end.
    pub tail_crc: Crc32,
}

impl Mark {
    /// Where `sums` stand.
    #[must_use]
    pub fn of(sums: &ChunkSums) -> Self {
        Mark { length: sums.length(), tail_crc: sums.tail().0 }
    }
}

/// Why a replica is kept but never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// After a crash less was left than had been flushed: the disk lied or lost data.
    BelowFlushedMark = 1,
    /// It differs from what the master committed.
    Differs = 2,
    /// Its bytes, block CRCs or header fail their checksum.
    Checksum = 3,
    /// Its file is missing, cut short or unreadable.
    Missing = 4,
    /// The disk refused to make it durable; what is on the disk is unknown for good.
    SyncFailed = 5,
}

impl Quarantine {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::BelowFlushedMark, Self::Differs, Self::Checksum, Self::Missing, Self::SyncFailed]
            .into_iter()
            .find(|q| *q as u8 == byte)
    }

    /// In words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BelowFlushedMark => "after a restart less was left of it than had been made durable",
            Self::Differs => "it differs from the length and CRC that the master committed",
            Self::Checksum => "it fails its checksums",
            Self::Missing => "its file is missing, cut short or unreadable",
            Self::SyncFailed => "the disk failed to make it durable",
        }
    }
}

/// What the index keeps about a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// Its state.
    pub state: ReplicaState,
    /// Whether data and checksums up to `length` were on the disk before this record was written.
    pub durable: bool,
    /// Whether the server restarted while it was open.
    pub restarted: bool,
    /// Sealed, but bytes beyond the seal and the old CRC of its last block may still be in the file.
    pub cut_pending: bool,
    /// Its bytes are in a row of the index; it has no file.
    pub in_index: bool,
    /// Why it is quarantined.
    pub quarantine: Option<Quarantine>,
    /// Bytes; meaningful when fenced or sealed.
    pub length: u64,
    /// CRC of these bytes.
    pub crc: Crc32,
    /// CRC of the last, partial block at `length`.
    pub tail_crc: Crc32,
    /// What had been flushed while it was open.
    pub flushed: Mark,
}

/// Bytes that are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replica's record in the index is damaged or of a newer version")]
pub struct RecordError;

impl ReplicaRecord {
    /// A replica that takes its first bytes.
    #[must_use]
    pub fn open() -> Self {
        ReplicaRecord {
            state: ReplicaState::Open,
            durable: false,
            restarted: false,
            cut_pending: false,
            in_index: false,
            quarantine: None,
            length: 0,
            crc: Crc32::EMPTY,
            tail_crc: Crc32::EMPTY,
            flushed: Mark::default(),
        }
    }

    /// A copy of a sealed chunk: verified and on the disk before it has a record.
    #[must_use]
    pub fn copied(sums: &ChunkSums) -> Self {
        Self::open().fenced(sums, true, false).sealed(sums.length(), sums.combined(), sums.tail().0)
    }

    /// An open replica after a flush. A mark never moves back.
    #[must_use]
    pub fn flushed_to(self, mark: Mark) -> Self {
        if mark.length < self.flushed.length { self } else { ReplicaRecord { flushed: mark, ..self } }
    }

    /// A replica that refuses writes for good.
    #[must_use]
    pub fn fenced(self, sums: &ChunkSums, durable: bool, restarted: bool) -> Self {
        ReplicaRecord {
            state: ReplicaState::Fenced,
            durable,
            restarted,
            length: sums.length(),
            crc: sums.combined(),
            tail_crc: sums.tail().0,
            ..self
        }
    }

    /// A replica whose bytes are written together with this record.
    #[must_use]
    pub fn with_bytes_in_index(self) -> Self {
        ReplicaRecord { in_index: true, ..self }
    }

    /// A fenced replica whose data reached the disk after all.
    #[must_use]
    pub fn made_durable(self) -> Self {
        ReplicaRecord { durable: true, ..self }
    }

    /// A replica that agrees with what the master committed.
    #[must_use]
    pub fn sealed(self, length: u64, crc: Crc32, tail_crc: Crc32) -> Self {
        ReplicaRecord { state: ReplicaState::Sealed, cut_pending: length < self.length, length, crc, tail_crc, ..self }
    }

    /// A sealed replica whose file has been cut.
    #[must_use]
    pub fn cut_finished(self) -> Self {
        ReplicaRecord { cut_pending: false, ..self }
    }

    /// A replica that is kept but never served again.
    #[must_use]
    pub fn quarantined(self, why: Quarantine) -> Self {
        ReplicaRecord { state: ReplicaState::Quarantined, quarantine: self.quarantine.or(Some(why)), ..self }
    }

    /// Whether a read that names `length` and `crc` is for this replica.
    #[must_use]
    pub fn serves(&self, length: u64, crc: Crc32) -> bool {
        matches!(self.state, ReplicaState::Fenced | ReplicaState::Sealed) && self.length == length && self.crc == crc
    }

    /// What the server states about it. Only a replica whose length is settled has a receipt: an open one still
    /// grows, a quarantined one takes no part in anything (S1).
    #[must_use]
    pub fn receipt(&self, cluster: ClusterId, server: ServerId, chunk: ChunkId) -> Option<Receipt> {
        matches!(self.state, ReplicaState::Fenced | ReplicaState::Sealed).then_some(Receipt {
            cluster,
            server,
            chunk,
            length: self.length,
            crc: self.crc,
            durable: self.durable,
            restarted: self.restarted,
        })
    }

    /// The bytes of the index.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES);
        out.put_u8(if self.in_index { VERSION_IN_INDEX } else { VERSION });
        out.put_u8(match self.state {
            ReplicaState::Open => 1,
            ReplicaState::Fenced => 2,
            ReplicaState::Sealed => 3,
            ReplicaState::Quarantined => 4,
        });
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let states =
            flag(self.durable, DURABLE) | flag(self.restarted, RESTARTED) | flag(self.cut_pending, CUT_PENDING);
        out.put_u8(states | flag(self.in_index, IN_INDEX));
        out.put_u8(self.quarantine.map_or(0, |q| q as u8));
        out.put_u64_le(self.length);
        out.put_u32_le(self.crc.0);
        out.put_u32_le(self.tail_crc.0);
        out.put_u64_le(self.flushed.length);
        out.put_u32_le(self.flushed.tail_crc.0);
        out.put_u32_le(Crc32::of(&out).0);
        out
    }

    /// Reads the bytes of the index.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() != RECORD_BYTES {
            return Err(RecordError);
        }
        let (hashed, crc) = bytes.split_at(HASHED_BYTES);
        if crc != Crc32::of(hashed).0.to_le_bytes() {
            return Err(RecordError);
        }
        Self::decode_fields(hashed).ok_or(RecordError)
    }

    fn decode_fields(mut rest: &[u8]) -> Option<Self> {
        let in_index = match rest.try_get_u8().ok()? {
            VERSION => false,
            VERSION_IN_INDEX => true,
            _ => return None,
        };
        let state = match rest.try_get_u8().ok()? {
            1 => ReplicaState::Open,
            2 => ReplicaState::Fenced,
            3 => ReplicaState::Sealed,
            4 => ReplicaState::Quarantined,
            _ => return None,
        };
        let flags = rest.try_get_u8().ok()?;
        // A replica in the index came whole and durable.
        let whole = state != ReplicaState::Open && flags & DURABLE != 0;
        if (flags & IN_INDEX != 0) != in_index || in_index && !whole {
            return None;
        }
        Some(ReplicaRecord {
            state,
            durable: flags & DURABLE != 0,
            restarted: flags & RESTARTED != 0,
            cut_pending: flags & CUT_PENDING != 0,
            in_index,
            quarantine: Quarantine::from_byte(rest.try_get_u8().ok()?),
            length: rest.try_get_u64_le().ok()?,
            crc: Crc32(rest.try_get_u32_le().ok()?),
            tail_crc: Crc32(rest.try_get_u32_le().ok()?),
            flushed: Mark { length: rest.try_get_u64_le().ok()?, tail_crc: Crc32(rest.try_get_u32_le().ok()?) },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> ReplicaRecord {
        ReplicaRecord {
            state: ReplicaState::Sealed,
            durable: true,
            restarted: true,
            cut_pending: true,
            in_index: false,
            quarantine: None,
            length: 0x0102,
            crc: Crc32(0xaabb_ccdd),
            tail_crc: Crc32(0x1122_3344),
            flushed: Mark { length: 0x0101, tail_crc: Crc32(0x5566_7788) },
        }
    }

    #[test]
    fn golden_index_record() {
        let golden = [
            1, 3, 7, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0xdd, 0xcc, 0xbb, 0xaa, 0x44, 0x33, 0x22, 0x11, 1, 1, 0, 0, 0, 0, 0, 0,
            0x88, 0x77, 0x66, 0x55, 0x1d, 0xb7, 0xf9, 0xf3,
        ];
        let bytes = record().encode();
        assert_eq!(bytes, golden, "{:02x?}", &bytes[32..]);
        assert_eq!(ReplicaRecord::decode(&golden), Ok(record()));
    }

    #[test]
    fn golden_index_record_of_a_replica_with_its_bytes_in_the_index() {
        let golden = [
            2, 3, 15, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0xdd, 0xcc, 0xbb, 0xaa, 0x44, 0x33, 0x22, 0x11, 1, 1, 0, 0, 0, 0, 0,
            0, 0x88, 0x77, 0x66, 0x55, 0xa3, 0xa1, 0x90, 0x02,
        ];
        let bytes = record().with_bytes_in_index().encode();
        assert_eq!(bytes, golden, "{:02x?}", &bytes[32..]);
        assert_eq!(ReplicaRecord::decode(&golden), Ok(record().with_bytes_in_index()));
    }

    #[test]
    fn a_record_whose_version_and_flags_disagree_is_refused() {
        for (version, flags) in [(1, 15), (2, 7), (2, 14), (3, 7), (0, 7)] {
            let mut bytes = record().encode();
            (bytes[0], bytes[2]) = (version, flags);
            bytes.truncate(HASHED_BYTES);
            bytes.extend(Crc32::of(&bytes).0.to_le_bytes());
            assert_eq!(ReplicaRecord::decode(&bytes), Err(RecordError), "version {version}, flags {flags}");
        }
    }

    #[test]
    fn s1_a_quarantined_or_open_replica_has_no_receipt() {
        let (cluster, server) = (ClusterId::default(), ServerId::default());
        let fenced = ReplicaRecord::open().fenced(&ChunkSums::default(), true, false);
        assert!(ReplicaRecord::open().receipt(cluster, server, ChunkId(1)).is_none());
        assert!(fenced.receipt(cluster, server, ChunkId(1)).is_some_and(|r| r.durable && !r.restarted));
        let bad = fenced.quarantined(Quarantine::Checksum);
        assert!(bad.receipt(cluster, server, ChunkId(1)).is_none() && !bad.serves(0, Crc32::EMPTY));
        assert_eq!(
            bad.quarantined(Quarantine::Missing).quarantine,
            Some(Quarantine::Checksum),
            "the first reason stays"
        );
    }

    #[test]
    fn s1_a_flushed_mark_never_moves_back() {
        let at = |length| Mark { length, tail_crc: Crc32::EMPTY };
        let record = ReplicaRecord::open().flushed_to(at(10)).flushed_to(at(5));
        assert_eq!(record.flushed.length, 10);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(bit in 0usize..RECORD_BYTES * 8) {
            let mut bytes = record().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ReplicaRecord::decode(&bytes).is_err());
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = ReplicaRecord::decode(&bytes);
        }
    }
}
