//! What the master says about files and chunks.

use quarry_proto::{WireError, convert, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, InodeId, ReplicaState, ServerId};

/// File or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// A file or directory as the namespace knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its path from the root.
    pub path: String,
    /// What it is called independent of its name.
    pub inode: InodeId,
    /// Changes whenever the contents do.
    pub version: u64,
    /// File or directory.
    pub kind: FileKind,
    /// Bytes sealed; of a closed file, all.
    pub length: u64,
    /// CRC-32 (zlib's) of these bytes.
    pub crc: Crc32,
    /// Wanted replicas of each chunk; of a directory: of new files below it, 0: what the directory above it says.
    pub replicas: u32,
    /// Milliseconds since the Unix epoch, for display.
    pub modified_ms: u64,
    /// Whether a writer has it open.
    pub open: bool,
    /// How many chunks it has.
    pub chunks: u64,
}

impl TryFrom<v1::FileInfo> for FileInfo {
    type Error = WireError;
    fn try_from(from: v1::FileInfo) -> Result<Self, WireError> {
        let kind = match from.kind() {
            v1::FileKind::File => FileKind::File,
            v1::FileKind::Directory => FileKind::Directory,
            v1::FileKind::Unspecified => return Err(unknown("kind of file")),
        };
        Ok(FileInfo {
            path: from.path,
            inode: InodeId(from.inode),
            version: from.version,
            kind,
            length: from.length,
            crc: Crc32(from.crc),
            replicas: from.replicas,
            modified_ms: from.modified_ms,
            open: from.open,
            chunks: from.chunks,
        })
    }
}

/// State of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// Being written.
    Open,
    /// Immutable.
    Sealed,
    /// On its way to deletion.
    Doomed,
}

impl ChunkState {
    /// Its name in output: `open`, `sealed`, `doomed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ChunkState::Open => "open",
            ChunkState::Sealed => "sealed",
            ChunkState::Doomed => "doomed",
        }
    }
}

/// One chunkserver's copy of a chunk, as the master last heard of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Who has it.
    pub server: ServerId,
    /// Its data port as `HOST:PORT`.
    pub address: String,
    /// Its failure domain.
    pub rack: String,
    /// The replica's state.
    pub state: ReplicaState,
    /// Whether the server is alive.
    pub reachable: bool,
}

/// A chunk of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Its name.
    pub id: ChunkId,
    /// Where in the file it starts.
    pub offset: u64,
    /// Its bytes; 0 while it is open.
    pub length: u64,
    /// CRC-32 of these bytes.
    pub crc: Crc32,
    /// Its state.
    pub state: ChunkState,
    /// Who has it, best first.
    pub replicas: Vec<ReplicaInfo>,
}

impl TryFrom<v1::ChunkInfo> for ChunkInfo {
    type Error = WireError;
    fn try_from(from: v1::ChunkInfo) -> Result<Self, WireError> {
        let state = match from.state() {
            v1::ChunkState::Open => ChunkState::Open,
            v1::ChunkState::Sealed => ChunkState::Sealed,
            v1::ChunkState::Doomed => ChunkState::Doomed,
            v1::ChunkState::Unspecified => return Err(unknown("state of a chunk")),
        };
        let replicas = from.replicas.into_iter().map(ReplicaInfo::try_from).collect::<Result<_, _>>()?;
        Ok(ChunkInfo {
            id: ChunkId(from.chunk),
            offset: from.offset,
            length: from.length,
            crc: Crc32(from.crc),
            state,
            replicas,
        })
    }
}

impl TryFrom<v1::ReplicaInfo> for ReplicaInfo {
    type Error = WireError;
    fn try_from(from: v1::ReplicaInfo) -> Result<Self, WireError> {
        Ok(ReplicaInfo {
            server: convert::server(&from.server, "server")?,
            address: from.address,
            rack: from.rack,
            state: convert::replica_state(from.state)?,
            reachable: from.reachable,
        })
    }
}

/// Sums over everything below a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub files: u64,
    /// Directories, the path itself not counted.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of all their replicas.
    pub replica_bytes: u64,
}

impl From<v1::UsageReply> for Usage {
    fn from(from: v1::UsageReply) -> Self {
        Usage { files: from.files, directories: from.directories, bytes: from.bytes, replica_bytes: from.replica_bytes }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In name order.
    pub entries: Vec<FileInfo>,
    /// Goes on behind this page; empty when there is nothing more.
    pub token: bytes::Bytes,
}

fn unknown(what: &str) -> WireError {
    WireError::new(ErrorCode::VersionMismatch, format!("the master answers with an unknown {what}"))
}
