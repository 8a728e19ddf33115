use quarry_types::{Crc32, InodeId, ServerId};

numbered! {
    /// Where a chunk is in its life. It only ever moves forward.
    pub enum ChunkState {
        /// Being written.
        Open = 1,
        /// Immutable, with one length and CRC (S2).
        Sealed = 2,
        /// To be deleted, irrevocably (S6).
        Doomed = 3,
    }
}

message! {
    /// A chunk's record, by chunk id. It is there from before the chunk's grant is signed until no server holds a
    /// replica of it.
    pub struct Chunk as ChunkWire {
        /// The file it was added to.
        inode: InodeId = (uint64, tag = "1"),
        /// Its offset there.
        offset: u64 = (uint64, tag = "2"),
        /// Where it is in its life.
        state: ChunkState = (uint32, tag = "3"),
        /// Bytes, once sealed.
        length: u64 = (uint64, tag = "4"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "5"),
        /// Longest it may become.
        limit: u64 = (uint64, tag = "6"),
        /// Wanted replicas.
        wanted: u32 = (uint32, tag = "7"),
        /// Who writes it, the primary first; once sealed, hints where to look.
        members: Vec<ServerId> = (bytes = "vec", repeated, tag = "8"),
        /// Servers whose receipts stated the sealed length and CRC, durably.
        holders: Vec<ServerId> = (bytes = "vec", repeated, tag = "9"),
    }
}
record!(Chunk as ChunkWire);

impl Chunk {
    /// The bytes of the file that nothing else may take: all it may become while it is open.
    #[must_use]
    pub fn reach(&self) -> u64 {
        if self.state == ChunkState::Open { self.limit } else { self.length }
    }

    /// Adds holders that are not there yet, as far as [`crate::limits::HOLDERS_MAX`] allows.
    pub fn add_holders(&mut self, servers: &[ServerId]) {
        for server in servers {
            if self.holders.len() < crate::limits::HOLDERS_MAX && !self.holders.contains(server) {
                self.holders.push(*server);
            }
        }
    }
}
