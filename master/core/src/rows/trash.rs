use quarry_types::InodeId;

message! {
    /// Something that was removed and can be taken back, by (directory, name, removal).
    pub struct Trash as TrashWire {
        /// What was removed: a file, or a directory with everything below it.
        inode: InodeId = (uint64, tag = "1"),
        /// The replicated time until which it can be taken back, in milliseconds.
        until_ms: u64 = (uint64, tag = "2"),
        /// When it was removed, for display.
        removed_ms: u64 = (uint64, tag = "3"),
    }
}
record!(Trash as TrashWire);
