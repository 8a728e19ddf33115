//! What applying a command answers.

use quarry_types::{
    ChunkId, Crc32, Epoch, ErrorCode, InodeId, Leadership, LeaseId, Lineage, NodeId, ServerId, SessionId,
};

use crate::wire::DecodeError;

/// What applying a command answers: the same on every replica.
pub type Outcome = Result<Reply, Refusal>;

message! {
    /// A command changed nothing (but the seals it carried and the session's books), and why.
    pub struct Refusal as RefusalWire {
        /// Which of the error table.
        code: ErrorCode = (uint32, tag = "1"),
        /// What failed, where, and what to do.
        message: String = (string, tag = "2"),
    }
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }
}

choice! {
    /// What a command that was carried out answers.
    pub enum Reply as ReplyWire, ReplyOneof = "ReplyOneof", tags "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 30" {
        /// Nothing to say.
        Done(Done) = (message, tag = "1"),
        /// The leadership that [`crate::command::BeginEpoch`] began.
        Leads(Leads) = (message, tag = "2"),
        /// The session that was opened.
        Session(OpenedSession) = (message, tag = "3"),
        /// The right to write a file.
        Writer(Writer) = (message, tag = "4"),
        /// The chunk that was added.
        Chunk(AddedChunk) = (message, tag = "5"),
        /// The file that was completed.
        Completed(Completed) = (message, tag = "6"),
        /// The file or directory that was made, moved, taken back or changed.
        File(FileView) = (message, tag = "7"),
        /// Where a chunk was sealed.
        Sealed(SealedAt) = (message, tag = "8"),
        /// How far a step of collecting came.
        Collected(Collected) = (message, tag = "9"),
        /// What is known of a registered server.
        Server(RegisteredServer) = (message, tag = "10"),
        /// The replicated time.
        Time(ReplicatedTime) = (message, tag = "11"),
        /// How far a step of following wanted replicas came.
        Followed(Followed) = (message, tag = "12"),
        /// How much was taken out of the trash.
        Emptied(Emptied) = (message, tag = "13"),
        /// The number of a new master.
        Master(NumberedMaster) = (message, tag = "14"),
        /// At which entry states are compared.
        Comparison(Comparison) = (message, tag = "30"),
    }
}

impl Reply {
    /// Nothing to say.
    pub const DONE: Reply = Reply::Done(Done {});
}

message! {
    /// See [`Reply::Done`].
    pub struct Done as DoneWire {}
}

message! {
    /// See [`Reply::Leads`].
    pub struct Leads as LeadsWire {
        /// The cluster's lineage.
        lineage: Lineage = (message, required, tag = "1"),
        /// The new epoch.
        epoch: Epoch = (uint64, tag = "2"),
    }
}

impl Leads {
    /// What goes into grants and proofs.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership { lineage: self.lineage, epoch: self.epoch }
    }
}

message! {
    /// See [`Reply::Master`].
    pub struct NumberedMaster as NumberedMasterWire {
        /// Never given to another.
        node: NodeId = (uint64, tag = "1"),
    }
}

message! {
    /// See [`Reply::Comparison`].
    pub struct Comparison as ComparisonWire {
        /// Of the entry in the log.
        index: u64 = (uint64, tag = "1"),
    }
}

message! {
    /// See [`Reply::Session`].
    pub struct OpenedSession as OpenedSessionWire {
        /// The session.
        session: SessionId = (uint64, tag = "1"),
    }
}

message! {
    /// See [`Reply::Writer`].
    pub struct Writer as WriterWire {
        /// The file.
        inode: InodeId = (uint64, tag = "1"),
        /// The right to write it.
        lease: LeaseId = (uint64, tag = "2"),
        /// Wanted replicas.
        replicas: u32 = (uint32, tag = "3"),
        /// Where writing goes on.
        length: u64 = (uint64, tag = "4"),
        /// CRC of what is before.
        crc: Crc32 = (fixed32, tag = "5"),
    }
}

message! {
    /// See [`Reply::Chunk`]. Of a repeated call: as it was the first time.
    pub struct AddedChunk as AddedChunkWire {
        /// The chunk.
        chunk: ChunkId = (uint64, tag = "1"),
        /// Who writes it, the primary first.
        members: Vec<ServerId> = (bytes = "vec", repeated, tag = "2"),
        /// Longest it may become.
        limit: u64 = (uint64, tag = "3"),
        /// Wanted replicas.
        wanted: u32 = (uint32, tag = "4"),
    }
}

message! {
    /// See [`Reply::Completed`].
    pub struct Completed as CompletedWire {
        /// The file as it is now.
        file: FileView = (message, required, tag = "1"),
        /// Fewest durable replicas of any chunk written under the lease; 0 when there is none.
        fewest_replicas: u32 = (uint32, tag = "2"),
        /// Wanted replicas.
        wanted: u32 = (uint32, tag = "3"),
    }
}

numbered! {
    /// What an inode is.
    pub enum FileKind {
        /// Bytes.
        File = 1,
        /// Names.
        Directory = 2,
    }
}

message! {
    /// A file or directory as users see it.
    pub struct FileView as FileViewWire {
        /// From the root.
        path: String = (string, tag = "1"),
        /// Which, independent of its name.
        inode: InodeId = (uint64, tag = "2"),
        /// Changes whenever the contents do.
        version: u64 = (uint64, tag = "3"),
        /// What it is.
        kind: FileKind = (uint32, tag = "4"),
        /// Bytes sealed; of a closed file, all.
        length: u64 = (uint64, tag = "5"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "6"),
        /// Wanted replicas; of a directory: what new files below it want, 0: what the directory above it says.
        replicas: u32 = (uint32, tag = "7"),
        /// For display.
        modified_ms: u64 = (uint64, tag = "8"),
        /// Whether a writer has it open.
        open: bool = (bool, tag = "9"),
        /// Chunk rows, open ones included.
        chunks: u64 = (uint64, tag = "10"),
    }
}

message! {
    /// See [`Reply::Sealed`].
    pub struct SealedAt as SealedAtWire {
        /// The chunk.
        chunk: ChunkId = (uint64, tag = "1"),
        /// Its bytes; 0: nothing of it is kept and its offset is free again.
        length: u64 = (uint64, tag = "2"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "3"),
        /// Durable replicas known.
        replicas: u32 = (uint32, tag = "4"),
    }
}

message! {
    /// See [`Reply::Collected`].
    pub struct Collected as CollectedWire {
        /// Rows and entries gone through.
        worked: u32 = (uint32, tag = "1"),
        /// More is due already.
        more: bool = (bool, tag = "2"),
    }
}

message! {
    /// See [`Reply::Server`].
    pub struct RegisteredServer as RegisteredServerWire {
        /// Its start counter went backwards, now or earlier, and nothing has verified its disks since.
        old_image: bool = (bool, tag = "1"),
    }
}

message! {
    /// See [`Reply::Time`].
    pub struct ReplicatedTime as ReplicatedTimeWire {
        /// Since the cluster's creation, in milliseconds.
        elapsed_ms: u64 = (uint64, tag = "1"),
    }
}

message! {
    /// See [`Reply::Followed`].
    pub struct Followed as FollowedWire {
        /// Rows gone through.
        worked: u32 = (uint32, tag = "1"),
        /// More is to do already.
        more: bool = (bool, tag = "2"),
        /// The chunks that want another number of replicas now than before.
        chunks: Vec<ChunkId> = (uint64, repeated, tag = "3"),
    }
}

message! {
    /// See [`Reply::Emptied`].
    pub struct Emptied as EmptiedWire {
        /// Removals that were still in the trash.
        emptied: u64 = (uint64, tag = "1"),
    }
}

choice! {
    /// An outcome in bytes.
    enum Answer as AnswerWire, AnswerOneof = "AnswerOneof", tags "1, 2" {
        Done(Reply) = (message, tag = "1"),
        Refused(Refusal) = (message, tag = "2"),
    }
}

/// The bytes of an outcome.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    let answer = match outcome {
        Ok(reply) => Answer::Done(reply.clone()),
        Err(refusal) => Answer::Refused(refusal.clone()),
    };
    crate::wire::encode_versioned(&crate::wire::Field::to_raw(&answer))
}

/// Back from bytes.
///
/// # Errors
/// [`DecodeError`] when they are damaged or of a newer version.
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    let raw: AnswerWire = crate::wire::decode_versioned("outcome", bytes)?;
    Ok(match <Answer as crate::wire::Field>::from_raw(raw)? {
        Answer::Done(reply) => Ok(reply),
        Answer::Refused(refusal) => Err(refusal),
    })
}
