message! {
    /// A row whose key says it all: an open chunk, a doomed chunk, a removed inode.
    pub struct Mark as MarkWire {}
}
record!(Mark as MarkWire);
