//! What can change.

use quarry_proto::{WireError, convert, v1};
use quarry_types::{Crc32, InodeId, Lineage, ServerId};
use v1::event::Change as Sent;

/// Kinds of changes, to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Files and directories.
    Names,
    /// Chunkservers: registered, and what operators want of them.
    Servers,
    /// Chunkservers: dead, partitioned, alive again.
    Verdicts,
    /// Settings, leaders, lineages.
    Cluster,
}

impl From<ChangeKind> for v1::ChangeKind {
    fn from(from: ChangeKind) -> Self {
        match from {
            ChangeKind::Names => v1::ChangeKind::Names,
            ChangeKind::Servers => v1::ChangeKind::Servers,
            ChangeKind::Verdicts => v1::ChangeKind::Verdicts,
            ChangeKind::Cluster => v1::ChangeKind::Cluster,
        }
    }
}

/// What changed. Paths are those of the moment of the change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A file is visible from now on, and is being written.
    Created(FileChange),
    /// A write has ended: the file is whole. A file of an atomic put is visible from now on.
    Completed(FileChange),
    /// A visible file that is being written has become longer.
    Grown(FileChange),
    /// The writer of a visible file gave up or was lost; what is sealed stays.
    Abandoned(FileChange),
    /// A directory was made.
    DirectoryMade(PlaceChange),
    /// A file or directory has another path, with everything below it.
    Renamed(MoveChange),
    /// A file or directory was removed, with everything below it.
    Removed {
        /// What.
        place: PlaceChange,
        /// How long it can be taken back, in milliseconds; 0: not at all.
        kept_ms: u64,
    },
    /// Something that was removed is back, with everything below it.
    Undeleted(MoveChange),
    /// What lay in the trash is gone for good. Its path is that of its directory's last name, and empty when that is gone.
    Purged(PlaceChange),
    /// Another number of copies is wanted.
    ReplicasSet {
        /// Of what.
        place: PlaceChange,
        /// Wanted copies; of a directory: of new files below it, 0: what the directory above says.
        replicas: u32,
    },
    /// A chunkserver registered that was not known, or that is at another address, in another rack or was started again.
    ServerRegistered {
        /// Which.
        server: ServerId,
        /// Where its data port is.
        address: String,
        /// Its failure domain.
        rack: String,
        /// Counts its starts.
        start_counter: u64,
        /// Its start counter went backwards: what it holds does not count before it was verified.
        old_image: bool,
        /// It was not known before.
        new: bool,
    },
    /// Something else is wanted of a chunkserver.
    ServerWished {
        /// Which.
        server: ServerId,
        /// active, draining, maintenance or decommissioned
        wish: &'static str,
        /// Of a maintenance: how long, in milliseconds. That it is over is not told.
        for_ms: u64,
        /// It follows from a graceful stop, or from the end of one.
        automatic: bool,
    },
    /// Everything on a chunkserver that came back with an old image has been verified.
    ServerTrusted {
        /// Which.
        server: ServerId,
    },
    /// A chunkserver is dead, partitioned, or alive again.
    ServerJudged {
        /// Which.
        server: ServerId,
        /// What was told before: alive, partitioned or dead.
        from: String,
        /// What is believed now.
        to: String,
    },
    /// Settings were changed: names, and values as people write them.
    SettingsChanged(Vec<(String, String)>),
    /// A master process began to lead.
    EpochBegun {
        /// Counts leaderships.
        epoch: u64,
        /// The number of the master.
        master: u64,
    },
    /// The metadata was restored or recovered; the first change of the new lineage.
    LineageBegun {
        /// The new lineage.
        lineage: Lineage,
        /// restored or recovered
        cause: String,
    },
    /// Deletions and aborts are held back no more after a restore.
    HoldReleased,
    /// Something that this release does not know.
    Unknown,
}

/// A file as a change left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// The file, independent of its name.
    pub inode: InodeId,
    /// Changes whenever the contents do.
    pub version: u64,
    /// Bytes.
    pub length: u64,
    /// Their CRC-32.
    pub crc: Crc32,
    /// The file that it took the place of.
    pub replaced: Option<InodeId>,
}

/// A file, or a directory with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceChange {
    /// Its path.
    pub path: String,
    /// Which, independent of its name.
    pub inode: InodeId,
    /// Whether it is a directory.
    pub directory: bool,
}

/// A file, or a directory with everything below it, that has another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveChange {
    /// The path that it had.
    pub from: String,
    /// The path that it has.
    pub to: String,
    /// Which, independent of its name.
    pub inode: InodeId,
    /// Whether it is a directory.
    pub directory: bool,
    /// The file that it took the place of.
    pub replaced: Option<InodeId>,
}

fn replaced(inode: u64) -> Option<InodeId> {
    Some(InodeId(inode)).filter(|inode| inode.0 != 0)
}

impl From<v1::FileChange> for FileChange {
    fn from(from: v1::FileChange) -> Self {
        FileChange {
            path: from.path,
            inode: InodeId(from.inode),
            version: from.version,
            length: from.length,
            crc: Crc32(from.crc),
            replaced: replaced(from.replaced),
        }
    }
}

impl From<v1::PlaceChange> for PlaceChange {
    fn from(from: v1::PlaceChange) -> Self {
        PlaceChange { path: from.path, inode: InodeId(from.inode), directory: from.directory }
    }
}

impl From<v1::PlaceChange> for MoveChange {
    fn from(from: v1::PlaceChange) -> Self {
        MoveChange {
            from: from.from,
            to: from.path,
            inode: InodeId(from.inode),
            directory: from.directory,
            replaced: replaced(from.replaced),
        }
    }
}

fn wish(number: i32) -> &'static str {
    match v1::ServerWish::try_from(number) {
        Ok(v1::ServerWish::Active) => "active",
        Ok(v1::ServerWish::Draining) => "draining",
        Ok(v1::ServerWish::Maintenance) => "maintenance",
        Ok(v1::ServerWish::Decommissioned) => "decommissioned",
        Ok(v1::ServerWish::Unspecified) | Err(_) => "unknown",
    }
}

impl TryFrom<Option<Sent>> for Change {
    type Error = WireError;

    fn try_from(from: Option<Sent>) -> Result<Self, WireError> {
        let server = |is: &v1::ServerChange| convert::server(&is.server, "server");
        Ok(match from {
            Some(Sent::Created(file)) => Change::Created(file.into()),
            Some(Sent::Completed(file)) => Change::Completed(file.into()),
            Some(Sent::Grown(file)) => Change::Grown(file.into()),
            Some(Sent::Abandoned(file)) => Change::Abandoned(file.into()),
            Some(Sent::DirectoryMade(place)) => Change::DirectoryMade(place.into()),
            Some(Sent::Renamed(step)) => Change::Renamed(step.into()),
            Some(Sent::Removed(gone)) => Change::Removed { kept_ms: gone.kept_ms, place: gone.into() },
            Some(Sent::Undeleted(step)) => Change::Undeleted(step.into()),
            Some(Sent::Purged(place)) => Change::Purged(place.into()),
            Some(Sent::ReplicasSet(set)) => Change::ReplicasSet { replicas: set.replicas, place: set.into() },
            Some(Sent::ServerRegistered(is)) => Change::ServerRegistered {
                server: server(&is)?,
                address: is.address,
                rack: is.rack,
                start_counter: is.start_counter,
                old_image: is.old_image,
                new: is.new,
            },
            Some(Sent::ServerWished(is)) => Change::ServerWished {
                server: server(&is)?,
                wish: wish(is.wish),
                for_ms: is.for_ms,
                automatic: is.automatic,
            },
            Some(Sent::ServerTrusted(is)) => Change::ServerTrusted { server: server(&is)? },
            Some(Sent::ServerJudged(is)) => Change::ServerJudged { server: server(&is)?, from: is.was, to: is.is },
            Some(Sent::SettingsChanged(set)) => {
                Change::SettingsChanged(set.settings.into_iter().map(|one| (one.name, one.value)).collect())
            }
            Some(Sent::EpochBegun(begun)) => Change::EpochBegun { epoch: begun.epoch, master: begun.master },
            Some(Sent::LineageBegun(begun)) => {
                let revision = v1::Revision {
                    lineage_number: begun.lineage_number,
                    lineage_id: begun.lineage_id,
                    ..v1::Revision::default()
                };
                Change::LineageBegun {
                    lineage: quarry_types::Revision::try_from(revision)?.lineage,
                    cause: begun.cause,
                }
            }
            Some(Sent::HoldReleased(_)) => Change::HoldReleased,
            None => Change::Unknown,
        })
    }
}
