use quarry_types::NodeId;

message! {
    /// See [`super::Kind::RaiseLevel`]. The leader has made sure that every member knows the level.
    pub struct RaiseLevel as RaiseLevelWire {
        /// The new level; the one in force does nothing, a lower one is refused.
        level: u32 = (uint32, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::CompareStates`].
    pub struct CompareStates as CompareStatesWire {}
}

message! {
    /// How far a master had acknowledged the log, of entries that were committed: no later log of it ends before.
    pub struct LogMark as LogMarkWire {
        /// The master.
        node: NodeId = (uint64, tag = "1"),
        /// An entry that it had made durable.
        index: u64 = (uint64, tag = "2"),
    }
}

message! {
    /// See [`super::Kind::MarkLogs`].
    pub struct MarkLogs as MarkLogsWire {
        /// Of every member, at most [`crate::limits::MASTERS_MAX`]; marks of others stay as they are.
        logs: Vec<LogMark> = (message, repeated, tag = "1"),
    }
}
