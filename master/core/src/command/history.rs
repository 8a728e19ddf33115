use quarry_types::{ChunkId, Lineage, NodeId};

numbered! {
    /// Why a cluster's history went on from an earlier point.
    pub enum LineageCause {
        /// The state comes from a backup.
        Restored = 1,
        /// The majority of the masters was lost, and one that was left went on alone.
        Recovered = 2,
    }
}

message! {
    /// See [`super::Kind::BeginLineage`].
    pub struct BeginLineage as BeginLineageWire {
        /// The lineage that the state is of: the command does nothing to a state of another one.
        from: Lineage = (message, required, tag = "1"),
        /// The new one, with a higher number and an id of its own.
        to: Lineage = (message, required, tag = "2"),
        /// Why it begins.
        cause: LineageCause = (uint32, tag = "3"),
        /// The master that begins it, alone.
        node: NodeId = (uint64, tag = "4"),
    }
}

message! {
    /// See [`super::Kind::RaiseIds`].
    pub struct RaiseIds as RaiseIdsWire {
        /// The highest chunk id that a chunkserver reported.
        chunk: ChunkId = (uint64, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::ReleaseHold`].
    pub struct ReleaseHold as ReleaseHoldWire {}
}
