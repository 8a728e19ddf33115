use quarry_types::ChunkId;

use crate::command::{Durability, ServerWish, Verdict};

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
        /// Its start counter did not go forwards: everything on it must be verified before it counts (S11).
        old_image: bool = (bool, tag = "5"),
        /// What an operator wants of it.
        wish: ServerWish = (uint32, tag = "6"),
        /// Of a maintenance: the replicated time at which it ends, in milliseconds.
        maintenance_until_ms: u64 = (uint64, tag = "7"),
        /// The maintenance began with a graceful stop and ends when the server is back.
        automatic: bool = (bool, tag = "8"),
        /// What those who watch were told of it last.
        verdict: Verdict = (uint32, tag = "9"),
        /// Names its present start.
        start_id: u64 = (fixed64, tag = "10"),
        /// Chunks from this one on were placed after it started: what it has of them it has seen in this life. Of an older one that
        /// it does not know nobody can tell whether it was never asked, or has forgotten it with its disk (S11).
        first_chunk: ChunkId = (uint64, tag = "11"),
    }
}
record!(Server as ServerWire);

impl Server {
    /// What is wanted of it at a replicated time, in milliseconds: a maintenance that ran out is none any more.
    #[must_use]
    pub fn wish_at(&self, elapsed_ms: u64) -> ServerWish {
        match self.wish {
            ServerWish::Maintenance if elapsed_ms >= self.maintenance_until_ms => ServerWish::Active,
            wish => wish,
        }
    }
}
