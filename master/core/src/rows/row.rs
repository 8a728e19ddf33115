use quarry_types::ChunkId;

message! {
    /// A piece of a file, by (file, offset). Its length and CRC are in the chunk's record.
    pub struct Row as RowWire {
        /// The chunk that holds it.
        chunk: ChunkId = (uint64, tag = "1"),
    }
}
record!(Row as RowWire);
