use quarry_types::{ChunkId, Crc32, InodeId, LeaseId, ServerId, SessionId};

message! {
    /// Makes an operation take effect at most once.
    pub struct OpId as OpIdWire {
        /// The conversation.
        session: SessionId = (uint64, tag = "1"),
        /// Counts from 1.
        sequence: u64 = (uint64, tag = "2"),
        /// The client never retries a sequence below this.
        acknowledged_below: u64 = (uint64, tag = "3"),
    }
}

message! {
    /// See [`super::Kind::Client`].
    pub struct ClientCommand as ClientCommandWire {
        /// Which operation of which session.
        op: OpId = (message, required, tag = "1"),
        /// What it does.
        mutation: Mutation = (message, required, tag = "2"),
    }
}

choice! {
    /// An operation of a client.
    pub enum Mutation as MutationWire, MutationOneof = "MutationOneof", tags "1, 2, 3, 4, 5, 6, 7, 8, 9, 10" {
        /// Makes a file and gives its writer a lease.
        Create(Create) = (message, tag = "1"),
        /// Gives a lease on a closed file.
        OpenAppend(OpenAppend) = (message, tag = "2"),
        /// Commits a chunk row and its record.
        AddChunk(AddChunk) = (message, tag = "3"),
        /// Ends a write.
        Complete(Complete) = (message, tag = "4"),
        /// Gives a write up.
        Abort(Abort) = (message, tag = "5"),
        /// Makes a directory.
        Mkdir(Mkdir) = (message, tag = "6"),
        /// Moves an entry.
        Rename(Rename) = (message, tag = "7"),
        /// Removes an entry.
        Remove(Remove) = (message, tag = "8"),
        /// Takes something back that was removed.
        Undelete(Undelete) = (message, tag = "9"),
        /// Changes how many replicas a file wants, or new files in a directory.
        SetReplicas(SetReplicas) = (message, tag = "10"),
    }
}

numbered! {
    /// When a file becomes visible, and over what.
    pub enum CreateMode {
        /// On completion; replaces a file of that name then.
        Replace = 0,
        /// On completion; fails if the name is taken, now or then.
        FailIfPresent = 1,
        /// On completion; replaces only the inode and version named.
        IfUnchanged = 2,
        /// At once; fails if the name is taken.
        Visible = 3,
    }
}

message! {
    /// See [`Mutation::Create`].
    pub struct Create as CreateWire {
        /// Where.
        path: String = (string, tag = "1"),
        /// When visible, and over what.
        mode: CreateMode = (uint32, tag = "2"),
        /// With [`CreateMode::IfUnchanged`]: the file to be replaced.
        expected_inode: InodeId = (uint64, tag = "3"),
        /// With [`CreateMode::IfUnchanged`]: its version.
        expected_version: u64 = (uint64, tag = "4"),
        /// Wanted replicas; 0: the cluster's default.
        replicas: u32 = (uint32, tag = "5"),
        /// Make missing parent directories.
        parents: bool = (bool, tag = "6"),
    }
}

message! {
    /// See [`Mutation::OpenAppend`].
    pub struct OpenAppend as OpenAppendWire {
        /// Which file.
        path: String = (string, tag = "1"),
    }
}

message! {
    /// Where a chunk ends, from receipts that the leader verified.
    pub struct SealedChunk as SealedChunkWire {
        /// The chunk.
        chunk: ChunkId = (uint64, tag = "1"),
        /// Its bytes; 0: nothing of it is kept.
        length: u64 = (uint64, tag = "2"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "3"),
        /// Servers whose durable replica has this length and CRC.
        holders: Vec<ServerId> = (bytes = "vec", repeated, tag = "4"),
    }
}

message! {
    /// See [`Mutation::AddChunk`].
    pub struct AddChunk as AddChunkWire {
        /// The file.
        inode: InodeId = (uint64, tag = "1"),
        /// The right to write it.
        lease: LeaseId = (uint64, tag = "2"),
        /// Where in the file the chunk begins.
        offset: u64 = (uint64, tag = "3"),
        /// Longest it may become.
        limit: u64 = (uint64, tag = "4"),
        /// Who writes it, the primary first.
        members: Vec<ServerId> = (bytes = "vec", repeated, tag = "5"),
        /// Chunks of the file that ended since the last call. They are facts: they stay when this call is refused
        /// for another reason than the lease.
        seals: Vec<SealedChunk> = (message, repeated, tag = "6"),
    }
}

message! {
    /// A chunk as its writer knows it.
    pub struct ChunkRef as ChunkRefWire {
        /// The chunk.
        chunk: ChunkId = (uint64, tag = "1"),
        /// Its file offset.
        offset: u64 = (uint64, tag = "2"),
        /// Its bytes.
        length: u64 = (uint64, tag = "3"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "4"),
    }
}

message! {
    /// See [`Mutation::Complete`].
    pub struct Complete as CompleteWire {
        /// The file.
        inode: InodeId = (uint64, tag = "1"),
        /// The right to write it.
        lease: LeaseId = (uint64, tag = "2"),
        /// Bytes of the whole file.
        length: u64 = (uint64, tag = "3"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "4"),
        /// Every chunk written under the lease, in file order.
        chunks: Vec<ChunkRef> = (message, repeated, tag = "5"),
        /// As in [`AddChunk::seals`].
        seals: Vec<SealedChunk> = (message, repeated, tag = "6"),
    }
}

message! {
    /// See [`Mutation::Abort`].
    pub struct Abort as AbortWire {
        /// The file.
        inode: InodeId = (uint64, tag = "1"),
        /// The right to write it.
        lease: LeaseId = (uint64, tag = "2"),
    }
}

message! {
    /// See [`Mutation::Mkdir`].
    pub struct Mkdir as MkdirWire {
        /// Where.
        path: String = (string, tag = "1"),
        /// Make missing parents, and be content if it exists.
        parents: bool = (bool, tag = "2"),
    }
}

message! {
    /// See [`Mutation::Rename`].
    pub struct Rename as RenameWire {
        /// What.
        from: String = (string, tag = "1"),
        /// Where to.
        to: String = (string, tag = "2"),
        /// Replace a file there.
        replace: bool = (bool, tag = "3"),
    }
}

message! {
    /// See [`Mutation::Remove`].
    pub struct Remove as RemoveWire {
        /// What.
        path: String = (string, tag = "1"),
        /// Directories with all below them.
        recursive: bool = (bool, tag = "2"),
        /// Give the space back without waiting in the trash or for readers.
        now: bool = (bool, tag = "3"),
    }
}

message! {
    /// See [`Mutation::Undelete`].
    pub struct Undelete as UndeleteWire {
        /// As it was removed.
        path: String = (string, tag = "1"),
        /// Which of those removed under that path; 0: the last.
        inode: InodeId = (uint64, tag = "2"),
        /// Under which path it comes back; empty: the same.
        to: String = (string, tag = "3"),
    }
}

message! {
    /// See [`Mutation::SetReplicas`].
    pub struct SetReplicas as SetReplicasWire {
        /// Which file or directory.
        path: String = (string, tag = "1"),
        /// Of a file: wanted replicas, 0: what its directory says. Of a directory: what new files below it want, 0: what
        /// the directory above it says.
        replicas: u32 = (uint32, tag = "2"),
    }
}
