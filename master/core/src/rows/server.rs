use crate::command::Durability;

message! {
    /// A chunkserver that registered, by server id.
    pub struct Server as ServerWire {
        /// Where its data port is.
        address: String = (string, tag = "1"),
        /// Its failure domain.
        rack: String = (string, tag = "2"),
        /// Counts its starts.
        start_counter: u64 = (uint64, tag = "3"),
        /// What its acknowledgements mean.
        durability: Durability = (uint32, tag = "4"),
        /// Its start counter went backwards: everything on it must be verified before it counts (S11).
        old_image: bool = (bool, tag = "5"),
    }
}
record!(Server as ServerWire);
