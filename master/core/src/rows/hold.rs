use quarry_types::ChunkId;

use crate::command::LineageCause;

message! {
    /// While it is there, nothing is deleted and no write is aborted (S6): the state began a new lineage from an earlier
    /// point, and no operator has looked yet at what the chunkservers have beyond it.
    pub struct Hold as HoldWire {
        /// Why the lineage began.
        cause: LineageCause = (uint32, tag = "1"),
        /// When, in milliseconds since the Unix epoch, for display.
        since_ms: u64 = (uint64, tag = "2"),
        /// Chunks below were given out in earlier lineages.
        first_chunk: ChunkId = (uint64, tag = "3"),
    }
}
record!(Hold as HoldWire);

impl Hold {
    /// Whether a chunk comes from an earlier lineage: what became of it there after the point from which this one went
    /// on is not known.
    #[must_use]
    pub fn is_inherited(&self, chunk: ChunkId) -> bool {
        chunk < self.first_chunk
    }
}
