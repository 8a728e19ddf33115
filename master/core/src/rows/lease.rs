use quarry_types::{ChunkId, Crc32, InodeId, SessionId};

message! {
    /// The right of one session to write one file, by lease id.
    pub struct Lease as LeaseWire {
        /// Who has it.
        session: SessionId = (uint64, tag = "1"),
        /// Which file.
        inode: InodeId = (uint64, tag = "2"),
        /// The file's length when the lease began.
        start: u64 = (uint64, tag = "3"),
        /// CRC of what was there then.
        start_crc: Crc32 = (fixed32, tag = "4"),
        /// Whether the file is visible while it is written.
        visible: bool = (bool, tag = "5"),
        /// Its chunks that are not sealed yet.
        open: Vec<ChunkId> = (uint64, repeated, tag = "6"),
    }
}
record!(Lease as LeaseWire);
