message! {
    /// A file's chunks are being told how many replicas it wants, by inode id.
    #[derive(Default)]
    pub struct Wanted as WantedWire {
        /// The file offset from which on they have not been told yet.
        from: u64 = (uint64, tag = "1"),
    }
}
record!(Wanted as WantedWire);
