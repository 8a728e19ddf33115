use quarry_types::{
    ChunkId, ClusterId, InodeId, LeaseId, NodeId, ServerId, SessionId,
    limits::{READER_GRACE, REPLICAS_DEFAULT, REPLICAS_MIN},
};
use uuid::Uuid;

numbered! {
    /// What an operator wants of a chunkserver.
    pub enum ServerWish {
        /// Takes part in everything.
        Active = 0,
        /// Is emptied: takes nothing new, and what it holds is copied elsewhere.
        Draining = 1,
        /// Is expected to be away for a while.
        Maintenance = 2,
        /// Is emptied and then never let in again.
        Decommissioned = 3,
    }
}

impl ServerWish {
    /// The word that users see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ServerWish::Active => "active",
            ServerWish::Draining => "draining",
            ServerWish::Maintenance => "maintenance",
            ServerWish::Decommissioned => "decommissioned",
        }
    }
}

numbered! {
    /// What a chunkserver's acknowledgement of a flush or a seal means.
    pub enum Durability {
        /// The bytes survive a power loss.
        Sealed = 0,
        /// Acknowledged without fsync.
        Buffered = 1,
    }
}

message! {
    /// What an operator may set.
    pub struct Settings as SettingsWire {
        /// Durable replicas that a completion waits for (or all, for a file that wants fewer).
        min_replicas: u32 = (uint32, tag = "1"),
        /// Wanted replicas of a file that does not say.
        default_replicas: u32 = (uint32, tag = "2"),
        /// Replaced and removed inodes keep their chunks for readers for this long, in replicated milliseconds.
        reader_grace_ms: u64 = (uint64, tag = "3"),
        /// What was set of the table in [`crate::settings`]; what is not there has its default, also one that a later
        /// build changes.
        knobs: Vec<Knob> = (message, repeated, tag = "4"),
    }
}

message! {
    /// One setting of the table in [`crate::settings`].
    pub struct Knob as KnobWire {
        /// Its name there.
        name: String = (string, tag = "1"),
        /// In the unit that the table gives.
        value: u64 = (uint64, tag = "2"),
    }
}
record!(Settings as SettingsWire);

impl Default for Settings {
    fn default() -> Self {
        Settings {
            min_replicas: REPLICAS_MIN,
            default_replicas: REPLICAS_DEFAULT,
            reader_grace_ms: READER_GRACE.as_millis() as u64,
            knobs: Vec::new(),
        }
    }
}

message! {
    /// See [`super::Kind::CreateCluster`].
    pub struct CreateCluster as CreateClusterWire {
        /// The cluster's name for ever.
        cluster: ClusterId = (bytes = "vec", tag = "1"),
        /// The id of its first lineage.
        lineage_id: Uuid = (bytes = "vec", tag = "2"),
        /// Its first settings.
        settings: Settings = (message, required, tag = "3"),
    }
}

message! {
    /// See [`super::Kind::BeginEpoch`].
    pub struct BeginEpoch as BeginEpochWire {
        /// Who begins to lead.
        node: NodeId = (uint64, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::NumberMaster`]. Done twice it gives two numbers: one that nobody uses does no harm.
    pub struct NumberMaster as NumberMasterWire {}
}

message! {
    /// See [`super::Kind::Tick`].
    pub struct Tick as TickWire {
        /// What the leader's monotonic clock moved on by; capped at [`crate::limits::TICK_MS_MAX`].
        elapsed_ms: u64 = (uint64, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::OpenSession`].
    pub struct OpenSession as OpenSessionWire {
        /// Random, [`crate::limits::NONCE_BYTES`] long.
        nonce: Vec<u8> = (bytes = "vec", tag = "1"),
    }
}

message! {
    /// See [`super::Kind::CloseSession`].
    pub struct CloseSession as CloseSessionWire {
        /// The session.
        session: SessionId = (uint64, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::ExpireSessions`].
    pub struct ExpireSessions as ExpireSessionsWire {
        /// At most [`crate::limits::EXPIRE_SESSIONS_MAX`].
        sessions: Vec<SessionId> = (uint64, repeated, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::ConfirmReplicas`].
    pub struct ConfirmReplicas as ConfirmReplicasWire {
        /// A sealed chunk.
        chunk: ChunkId = (uint64, tag = "1"),
        /// Servers whose verified receipts state its length and CRC, durably.
        servers: Vec<ServerId> = (bytes = "vec", repeated, tag = "2"),
        /// Holders that reported without it since: not where to look any more.
        gone: Vec<ServerId> = (bytes = "vec", repeated, tag = "3"),
    }
}

message! {
    /// See [`super::Kind::ExpireLease`].
    pub struct ExpireLease as ExpireLeaseWire {
        /// The lease.
        lease: LeaseId = (uint64, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::CollectRemoved`].
    pub struct CollectRemoved as CollectRemovedWire {
        /// Rows and entries to go through; capped at [`crate::limits::COLLECT_MAX`].
        limit: u32 = (uint32, tag = "1"),
    }
}

message! {
    /// One removal that put something into the trash.
    pub struct Removal as RemovalWire {
        /// What was removed.
        inode: InodeId = (uint64, tag = "1"),
        /// Its number: another removal of the same inode is another one.
        removal: u64 = (uint64, tag = "2"),
    }
}

message! {
    /// See [`super::Kind::EmptyTrash`].
    pub struct EmptyTrash as EmptyTrashWire {
        /// At most [`crate::limits::EMPTY_TRASH_MAX`].
        removals: Vec<Removal> = (message, repeated, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::FollowWanted`].
    pub struct FollowWanted as FollowWantedWire {
        /// Rows to go through; capped at [`crate::limits::FOLLOW_MAX`].
        limit: u32 = (uint32, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::ForgetDoomed`].
    pub struct ForgetDoomed as ForgetDoomedWire {
        /// At most [`crate::limits::FORGET_MAX`].
        chunks: Vec<ChunkId> = (uint64, repeated, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::PutServer`].
    pub struct PutServer as PutServerWire {
        /// The chunkserver.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// Where its data port is.
        address: String = (string, tag = "2"),
        /// Its failure domain.
        rack: String = (string, tag = "3"),
        /// Counts its starts.
        start_counter: u64 = (uint64, tag = "4"),
        /// What its acknowledgements mean.
        durability: Durability = (uint32, tag = "5"),
        /// Names this start: another one at each.
        start_id: u64 = (fixed64, tag = "6"),
    }
}

message! {
    /// See [`super::Kind::PutSettings`].
    pub struct PutSettings as PutSettingsWire {
        /// The new settings.
        settings: Settings = (message, required, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::TrustServer`].
    pub struct TrustServer as TrustServerWire {
        /// The chunkserver.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// The start that was verified; another one since then keeps the mark.
        start_counter: u64 = (uint64, tag = "2"),
        /// Its name.
        start_id: u64 = (fixed64, tag = "3"),
    }
}

message! {
    /// See [`super::Kind::SetServer`].
    pub struct SetServer as SetServerWire {
        /// The chunkserver.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// What is wanted of it.
        wish: ServerWish = (uint32, tag = "2"),
        /// Of a maintenance: how long, in milliseconds of replicated time.
        for_ms: u64 = (uint64, tag = "3"),
        /// It follows from a graceful stop: it does not end a wish that an operator expressed.
        automatic: bool = (bool, tag = "4"),
    }
}
