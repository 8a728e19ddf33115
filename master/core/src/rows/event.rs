//! What changed, as those who watch are told it. Paths are those of the moment of the change.

use quarry_types::{Crc32, Epoch, InodeId, Lineage, NodeId, ServerId};

use super::Inode;
use crate::command::{LineageCause, ServerWish, Verdict};

message! {
    /// A file as a change left it.
    pub struct FileState as FileStateWire {
        /// Its path.
        path: String = (string, tag = "1"),
        /// The file.
        inode: InodeId = (uint64, tag = "2"),
        /// Changes whenever the contents do.
        version: u64 = (uint64, tag = "3"),
        /// Bytes that are sealed.
        length: u64 = (uint64, tag = "4"),
        /// Their CRC.
        crc: Crc32 = (fixed32, tag = "5"),
        /// The file that it replaced; 0: none.
        replaced: InodeId = (uint64, tag = "6"),
    }
}

message! {
    /// A file or directory, by its path.
    pub struct Place as PlaceWire {
        /// Its path, or the one that it had; empty when the directory that it was in is gone.
        path: String = (string, tag = "1"),
        /// Which.
        inode: InodeId = (uint64, tag = "2"),
        /// Whether it is a directory: then what lies below is meant too.
        directory: bool = (bool, tag = "3"),
    }
}

message! {
    /// A file or directory, with everything below it, that has another path now.
    pub struct Move as MoveWire {
        /// The path that it had.
        from: String = (string, tag = "1"),
        /// The path that it has.
        to: String = (string, tag = "2"),
        /// Which.
        inode: InodeId = (uint64, tag = "3"),
        /// Whether it is a directory.
        directory: bool = (bool, tag = "4"),
        /// The file that it replaced; 0: none.
        replaced: InodeId = (uint64, tag = "5"),
    }
}

message! {
    /// See [`Change::Removed`].
    pub struct Takeaway as TakeawayWire {
        /// What.
        place: Place = (message, required, tag = "1"),
        /// How long it can be taken back, in milliseconds of replicated time; 0: not at all.
        kept_ms: u64 = (uint64, tag = "2"),
    }
}

message! {
    /// See [`Change::ReplicasSet`].
    pub struct ReplicasSet as ReplicasSetWire {
        /// What.
        place: Place = (message, required, tag = "1"),
        /// Wanted replicas; of a directory: of new files below it, 0: what the directory above says.
        replicas: u32 = (uint32, tag = "2"),
    }
}

message! {
    /// See [`Change::ServerRegistered`].
    pub struct ServerRegistered as ServerRegisteredWire {
        /// Which.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// Where its data port is.
        address: String = (string, tag = "2"),
        /// Its failure domain.
        rack: String = (string, tag = "3"),
        /// Counts its starts.
        start_counter: u64 = (uint64, tag = "4"),
        /// Its start counter went backwards.
        old_image: bool = (bool, tag = "5"),
        /// It was not known before.
        new: bool = (bool, tag = "6"),
    }
}

message! {
    /// See [`Change::ServerTrusted`].
    pub struct ServerTrusted as ServerTrustedWire {
        /// Which.
        server: ServerId = (bytes = "vec", tag = "1"),
    }
}

message! {
    /// See [`Change::ServerWished`].
    pub struct ServerWished as ServerWishedWire {
        /// Which.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// What is wanted of it.
        wish: ServerWish = (uint32, tag = "2"),
        /// Of a maintenance: how long, in milliseconds of replicated time. It ends without another event.
        for_ms: u64 = (uint64, tag = "3"),
        /// It follows from a graceful stop, or from the end of one.
        automatic: bool = (bool, tag = "4"),
    }
}

message! {
    /// See [`Change::ServerJudged`].
    pub struct ServerJudged as ServerJudgedWire {
        /// Which.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// What was told of it before.
        from: Verdict = (uint32, tag = "2"),
        /// What is believed of it now.
        to: Verdict = (uint32, tag = "3"),
    }
}

message! {
    /// See [`Change::SettingsChanged`].
    pub struct SettingsChanged as SettingsChangedWire {
        /// Those that have another value.
        changed: Vec<SettingChange> = (message, repeated, tag = "1"),
    }
}

message! {
    /// A setting that was changed.
    pub struct SettingChange as SettingChangeWire {
        /// Its name in [`crate::settings`].
        name: String = (string, tag = "1"),
        /// Its value, in the unit of that table.
        value: u64 = (uint64, tag = "2"),
        /// It has its default again.
        unset: bool = (bool, tag = "3"),
    }
}

message! {
    /// See [`Change::EpochBegun`].
    pub struct EpochBegun as EpochBegunWire {
        /// The epoch.
        epoch: Epoch = (uint64, tag = "1"),
        /// Who leads in it.
        node: NodeId = (uint64, tag = "2"),
    }
}

message! {
    /// See [`Change::LineageBegun`].
    pub struct LineageBegun as LineageBegunWire {
        /// The lineage.
        lineage: Lineage = (message, required, tag = "1"),
        /// Why.
        cause: LineageCause = (uint32, tag = "2"),
    }
}

message! {
    /// See [`Change::HoldReleased`].
    pub struct HoldReleased as HoldReleasedWire {}
}

choice! {
    /// What changed. Tags are never used again for something else.
    pub enum Change as ChangeWire, ChangeOneof = "ChangeOneof", tags "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18" {
        /// A file is visible from now on, and is being written.
        Created(FileState) = (message, tag = "1"),
        /// A write has ended: the file is whole. An atomic put is visible from now on.
        Completed(FileState) = (message, tag = "2"),
        /// A visible file that is being written has become longer.
        Grown(FileState) = (message, tag = "3"),
        /// The writer of a visible file gave up or was lost; what is sealed stays.
        Abandoned(FileState) = (message, tag = "4"),
        /// A directory was made.
        DirectoryMade(Place) = (message, tag = "5"),
        /// Something has another path, with everything below it.
        Renamed(Move) = (message, tag = "6"),
        /// Something was removed, with everything below it.
        Removed(Takeaway) = (message, tag = "7"),
        /// Something that was removed is back, with everything below it.
        Undeleted(Move) = (message, tag = "8"),
        /// What lay in the trash is gone for good.
        Purged(Place) = (message, tag = "9"),
        /// Another number of replicas is wanted.
        ReplicasSet(ReplicasSet) = (message, tag = "10"),
        /// A chunkserver registered that was not known, or as something else than before.
        ServerRegistered(ServerRegistered) = (message, tag = "11"),
        /// Something else is wanted of a chunkserver.
        ServerWished(ServerWished) = (message, tag = "12"),
        /// Everything on a chunkserver that came back with an old image has been verified.
        ServerTrusted(ServerTrusted) = (message, tag = "13"),
        /// A chunkserver is dead, partitioned, or alive again.
        ServerJudged(ServerJudged) = (message, tag = "14"),
        /// Settings were changed.
        SettingsChanged(SettingsChanged) = (message, tag = "15"),
        /// A master process began to lead.
        EpochBegun(EpochBegun) = (message, tag = "16"),
        /// The history went on from an earlier point; the first event of the new lineage.
        LineageBegun(LineageBegun) = (message, tag = "17"),
        /// Deletions and aborts are held back no more.
        HoldReleased(HoldReleased) = (message, tag = "18"),
    }
}

message! {
    /// An event, by (index in the log, position among the events of one command, from 1).
    pub struct Event as EventWire {
        /// The leader's wall clock in milliseconds since the Unix epoch, for display only (S10).
        wall_ms: u64 = (uint64, tag = "1"),
        /// What changed.
        change: Change = (message, required, tag = "2"),
    }
}
record!(Event as EventWire);

message! {
    /// Which events are kept. Without this row none are written: a state that an older build made has none before a command
    /// begins them, so that all masters begin at the same place in the log.
    pub struct Events as EventsWire {
        /// The command with which the events of this lineage begin; those before it are of another one, or were not written.
        begin: u64 = (uint64, tag = "1"),
        /// The last event that was removed to keep the table bounded; 0: none yet.
        swept_index: u64 = (uint64, tag = "2"),
        /// Its position.
        swept_position: u64 = (uint64, tag = "3"),
        /// The last event; where there is none, the command with which they begin.
        last_index: u64 = (uint64, tag = "4"),
        /// Its position, or 0.
        last_position: u64 = (uint64, tag = "5"),
        /// Events in the table.
        count: u64 = (uint64, tag = "6"),
        /// Bytes of their rows, keys included.
        bytes: u64 = (uint64, tag = "7"),
        /// Events since the bounds were looked at.
        unchecked: u64 = (uint64, tag = "8"),
    }
}
record!(Events as EventsWire);

impl Events {
    /// Events begin with the command at `index`.
    #[must_use]
    pub fn beginning(index: u64) -> Self {
        Events {
            begin: index,
            swept_index: 0,
            swept_position: 0,
            last_index: index,
            last_position: 0,
            count: 0,
            bytes: 0,
            unchecked: 0,
        }
    }

    /// The last event, as (index, position).
    #[must_use]
    pub fn last(&self) -> (u64, u64) {
        (self.last_index, self.last_position)
    }

    /// All events of this lineage behind this (index, position) are kept; of those up to it some may be gone.
    #[must_use]
    pub fn kept_behind(&self) -> (u64, u64) {
        (self.begin, 0).max((self.swept_index, self.swept_position))
    }
}

impl FileState {
    /// A file as `inode` says, under `path`.
    #[must_use]
    pub fn of(id: InodeId, inode: &Inode, path: String) -> Self {
        let (version, length, crc) = (inode.version, inode.length, inode.crc);
        FileState { path, inode: id, version, length, crc, replaced: InodeId(0) }
    }
}

impl Place {
    /// What `inode` is, under `path`.
    #[must_use]
    pub fn of(id: InodeId, inode: &Inode, path: String) -> Self {
        Place { path, inode: id, directory: inode.is_directory() }
    }
}

impl Change {
    /// The paths that it is about; none of what is about the cluster as a whole.
    #[must_use]
    pub fn paths(&self) -> [Option<&str>; 2] {
        match self {
            Change::Created(file) | Change::Completed(file) | Change::Grown(file) | Change::Abandoned(file) => {
                [Some(&file.path), None]
            }
            Change::DirectoryMade(place) | Change::Purged(place) => [Some(&place.path), None],
            Change::Removed(Takeaway { place, .. }) | Change::ReplicasSet(ReplicasSet { place, .. }) => {
                [Some(&place.path), None]
            }
            Change::Renamed(step) | Change::Undeleted(step) => [Some(&step.from), Some(&step.to)],
            Change::ServerRegistered(_)
            | Change::ServerWished(_)
            | Change::ServerTrusted(_)
            | Change::ServerJudged(_)
            | Change::SettingsChanged(_)
            | Change::EpochBegun(_)
            | Change::LineageBegun(_)
            | Change::HoldReleased(_) => [None, None],
        }
    }
}
