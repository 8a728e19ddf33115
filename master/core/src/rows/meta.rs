use quarry_types::{ClusterId, Epoch, Leadership, Lineage, NodeId, SessionId};

use crate::command::LogMark;

message! {
    /// Which cluster this is.
    pub struct Cluster as ClusterWire {
        /// Its name for ever.
        cluster: ClusterId = (bytes = "vec", tag = "1"),
        /// The stretch of its history.
        lineage: Lineage = (message, required, tag = "2"),
        /// Sessions below were opened in earlier lineages, and have ended.
        first_session: SessionId = (uint64, tag = "3"),
    }
}
record!(Cluster as ClusterWire);

message! {
    /// Numbers that only grow.
    pub struct Counters as CountersWire {
        /// Raised whenever a master process begins to lead.
        epoch: Epoch = (uint64, tag = "1"),
        /// Who began it.
        leader: NodeId = (uint64, tag = "2"),
        /// Replicated time, in milliseconds (S10).
        elapsed_ms: u64 = (uint64, tag = "3"),
        /// The next chunk's id: every id below was given out.
        next_chunk: u64 = (uint64, tag = "4"),
        /// The next inode's id.
        next_inode: u64 = (uint64, tag = "5"),
        /// The next lease's id.
        next_lease: u64 = (uint64, tag = "6"),
        /// The next session's id.
        next_session: u64 = (uint64, tag = "7"),
        /// How often something went into the trash.
        removals: u64 = (uint64, tag = "8"),
        /// The number of the master that joined last; 0: only the first was ever there, which has number 1.
        last_master: NodeId = (uint64, tag = "9"),
    }
}
record!(Counters as CountersWire);

impl Counters {
    /// What goes into grants and proofs.
    #[must_use]
    pub fn leadership(&self, cluster: &Cluster) -> Leadership {
        Leadership { lineage: cluster.lineage, epoch: self.epoch }
    }
}

message! {
    /// What apply may do; absent: [`crate::feature::FIRST_LEVEL`].
    pub struct FeatureLevel as FeatureLevelWire {
        /// It only grows.
        level: u32 = (uint32, tag = "1"),
    }
}
record!(FeatureLevel as FeatureLevelWire);

message! {
    /// How far each master had acknowledged the log, by id.
    pub struct LogMarks as LogMarksWire {
        /// Those that were members when it was written.
        logs: Vec<LogMark> = (message, repeated, tag = "1"),
    }
}
record!(LogMarks as LogMarksWire);

message! {
    /// How many rows there are, kept by every command that makes or removes one. Below a removed directory, files
    /// and directories count until the collector comes by.
    #[derive(Default)]
    pub struct Totals as TotalsWire {
        /// Visible files.
        files: u64 = (uint64, tag = "1"),
        /// Directories, without the root.
        directories: u64 = (uint64, tag = "2"),
        /// Open and sealed chunks.
        chunks: u64 = (uint64, tag = "3"),
        /// Open ones among them.
        open: u64 = (uint64, tag = "4"),
        /// Chunks waiting to be deleted on their servers.
        doomed: u64 = (uint64, tag = "5"),
        /// Inodes waiting to be taken apart.
        removed: u64 = (uint64, tag = "6"),
        /// Writer leases.
        leases: u64 = (uint64, tag = "7"),
        /// Sessions.
        sessions: u64 = (uint64, tag = "8"),
        /// Chunkservers ever registered.
        servers: u64 = (uint64, tag = "9"),
        /// What lies in the trash; of a directory with all below it only the directory counts.
        trashed: u64 = (uint64, tag = "10"),
    }
}
record!(Totals as TotalsWire);
