use quarry_types::InodeId;

message! {
    /// A name in a directory, by (directory, name).
    pub struct Entry as EntryWire {
        /// What it names.
        inode: InodeId = (uint64, tag = "1"),
    }
}
record!(Entry as EntryWire);
