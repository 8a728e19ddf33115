use quarry_types::{Crc32, InodeId, LeaseId};

use crate::command::CreateMode;
pub use crate::reply::FileKind;

numbered! {
    /// Where an inode is in its life. It moves forward, except that what lies in the trash can be live again.
    pub enum InodeState {
        /// An atomic put under way: no entry names it.
        Pending = 1,
        /// Named by one entry; alive if all its ancestors are as well.
        Live = 2,
        /// Removed, replaced or aborted: waits to be taken apart.
        Removed = 3,
    }
}

message! {
    /// A file or directory, by inode id.
    pub struct Inode as InodeWire {
        /// What it is.
        kind: FileKind = (uint32, tag = "1"),
        /// Where it is in its life.
        state: InodeState = (uint32, tag = "2"),
        /// The directory whose entry names it; of a pending one, will name it. The root is its own parent.
        parent: InodeId = (uint64, tag = "3"),
        /// Its name there.
        name: String = (string, tag = "4"),
        /// Changes whenever the contents do.
        version: u64 = (uint64, tag = "5"),
        /// Wanted replicas; of a directory: what new files below it want, 0: what the directory above it says.
        replicas: u32 = (uint32, tag = "6"),
        /// Bytes sealed, from the start without a gap; of a pending file 0.
        length: u64 = (uint64, tag = "7"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "8"),
        /// Chunk rows, open ones included.
        chunks: u64 = (uint64, tag = "9"),
        /// For display.
        modified_ms: u64 = (uint64, tag = "10"),
        /// The writer's lease; 0: closed.
        lease: LeaseId = (uint64, tag = "11"),
        /// Of a pending file: what its completion may replace.
        mode: CreateMode = (uint32, tag = "12"),
        /// See [`CreateMode::IfUnchanged`].
        expected_inode: InodeId = (uint64, tag = "13"),
        /// See [`CreateMode::IfUnchanged`].
        expected_version: u64 = (uint64, tag = "14"),
        /// Once removed: the replicated time from which it may be taken apart.
        collect_at_ms: u64 = (uint64, tag = "15"),
        /// The number of the removal that put it into the trash; 0: it is not there.
        removal: u64 = (uint64, tag = "16"),
    }
}
record!(Inode as InodeWire);

impl Inode {
    /// A live directory.
    #[must_use]
    pub fn directory(parent: InodeId, name: &str, modified_ms: u64) -> Self {
        Inode {
            kind: FileKind::Directory,
            state: InodeState::Live,
            parent,
            name: name.into(),
            version: 1,
            replicas: 0,
            length: 0,
            crc: Crc32::EMPTY,
            chunks: 0,
            modified_ms,
            lease: LeaseId(0),
            mode: CreateMode::Visible,
            expected_inode: InodeId(0),
            expected_version: 0,
            collect_at_ms: 0,
            removal: 0,
        }
    }

    /// Whether it is an atomic put under way.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state == InodeState::Pending
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}
