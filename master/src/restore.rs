//! Making a master from a backup: an explicit act on one node, into an empty directory (S6, S11).
//!
//! The backup is read twice: once to see that it is whole and of this key's cluster, before anything is made, and once into
//! the directory. `IDENTITY` is written last, so that an interrupted restore leaves a directory that nothing starts in.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quarry_env::{Disk, DiskFile, OpenMode, World};
use quarry_master_core::command::LineageCause;
use quarry_proto::{
    backup::{self, Event, Reader},
    v1,
};
use quarry_types::{ClusterId, ClusterKey, Lineage, NodeId, limits};

use crate::{
    error::MasterError,
    identity::{self, Identity},
    raft::{
        Belonging,
        alone::{self, Beginning, Origin},
    },
    store::{Layout, Snapshot},
    sync_points,
};

/// What `restore` was told.
#[derive(Clone, Debug)]
pub struct RestoreConfig {
    /// The directory to make, missing or empty.
    pub data: PathBuf,
    /// The cluster's key.
    pub key_file: PathBuf,
    /// The backup.
    pub from: PathBuf,
    /// Where others will reach this master.
    pub advertise: String,
    /// The number of the new lineage; `None`: the backup's and one more.
    pub lineage: Option<u64>,
}

/// A master that was made from a backup or from what was left.
#[derive(Clone, Copy, Debug)]
pub struct NewLineage {
    /// The cluster.
    pub cluster: ClusterId,
    /// This master in its group of one.
    pub node: NodeId,
    /// The lineage that began.
    pub lineage: Lineage,
}

/// Bytes read from the backup at once.
const READ_BYTES: usize = 1 << 20;

impl RestoreConfig {
    /// With the defaults for a data directory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, key_file: impl Into<PathBuf>, from: impl Into<PathBuf>) -> Self {
        RestoreConfig {
            data: data.into(),
            key_file: key_file.into(),
            from: from.into(),
            advertise: format!("127.0.0.1:{}", limits::MASTER_PORT),
            lineage: None,
        }
    }
}

/// Makes a group of one from a backup, in a new lineage, with deletions and aborts held back.
///
/// # Errors
/// When the backup is damaged, the key is another cluster's, the directory is not empty, or the disk fails.
pub async fn restore(world: &World, config: &RestoreConfig) -> Result<NewLineage, MasterError> {
    let (blocking_world, blocking_config) = (world.clone(), config.clone());
    let prepared = world.blocking.run(move || unpack(&blocking_world, &blocking_config)).await??;
    let Unpacked { header, cluster, key, unfinished, snapshot, received } = prepared;
    let path = config.data.join(Identity::FIRST_GROUP);
    let beginning = Beginning {
        origin: Origin::Checkpoint(snapshot.path().join("kv")),
        cause: LineageCause::Restored,
        number: config.lineage,
        address: config.advertise.clone(),
    };
    let begun = alone::begin(world, &path, Belonging { cluster, key }, beginning).await;
    let begun = begun.map_err(|e| MasterError::Group { path, message: e.to_string() })?;
    tracing::info!(index = header.index, "the state of the backup is in place");
    let disk = world.disk.clone();
    let identity = world
        .blocking
        .run(move || {
            disk.remove_dir_all(&received).map_err(MasterError::file("remove", &received))?;
            unfinished.finish(&*disk, Identity { cluster, node: begun.node, group: 0 })
        })
        .await??;
    Ok(NewLineage { cluster: identity.cluster, node: identity.node, lineage: begun.lineage })
}

/// A backup in files.
struct Unpacked {
    header: v1::BackupHeader,
    cluster: ClusterId,
    key: ClusterKey,
    unfinished: identity::Unfinished,
    snapshot: Snapshot,
    received: PathBuf,
}

fn unpack(world: &World, config: &RestoreConfig) -> Result<Unpacked, MasterError> {
    let disk = &*world.disk;
    let file = disk.open(&config.from, OpenMode::Read).map_err(MasterError::file("open the backup", &config.from))?;
    let file: Arc<dyn DiskFile> = file.into();
    let key = identity::read_key(disk, &config.key_file)?;
    let (header, cluster) = check(&config.from, &*file, &key)?;
    if let Some(number) = config.lineage.filter(|number| *number <= header.lineage_number) {
        let why = format!("the backup is of lineage {}, and {number} is not above it", header.lineage_number);
        return Err(MasterError::Refused(why));
    }
    let unfinished = identity::adopt(disk, &config.data, &config.key_file, key.clone())?;
    let layout = Layout::new(world, &config.data);
    let received = layout.incoming("backup");
    disk.create_dir_all(&received.join("kv")).map_err(MasterError::file("create", &received))?;
    place(disk, &config.from, &*file, &received)?;
    let snapshot = Snapshot::load(world, &received).ok().flatten();
    let fits = |snapshot: &Snapshot| snapshot.mark().is_some_and(|mark| mark.index == header.index);
    let snapshot = snapshot.filter(fits).ok_or_else(|| {
        MasterError::Refused(format!(
            "{}: it does not hold the state that it names; use another one",
            config.from.display()
        ))
    })?;
    Ok(Unpacked { header, cluster, key, unfinished, snapshot, received })
}

fn refused(path: &Path, why: impl std::fmt::Display) -> MasterError {
    MasterError::Refused(format!("{}: {why}", path.display()))
}

/// Calls `take` for everything in the backup.
fn read(
    path: &Path,
    file: &dyn DiskFile,
    mut take: impl FnMut(Event) -> Result<(), MasterError>,
) -> Result<(), MasterError> {
    let failed = |e: io::Error| MasterError::file("read", path)(e);
    let length = file.len().map_err(failed)?;
    let (mut reader, mut at, mut buffer) = (Reader::new(), 0, vec![0; READ_BYTES]);
    while at < length {
        let some = usize::try_from(length - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        let part = buffer.get_mut(..some).unwrap_or_default();
        file.read_exact_at(part, at).map_err(failed)?;
        reader.feed(part);
        at += some as u64;
        while let Some(event) = reader.next().map_err(|e| refused(path, e))? {
            take(event)?;
        }
    }
    reader.finish().map_err(|e| refused(path, e))
}

/// Reads all of the backup, and what it is of.
fn check(path: &Path, file: &dyn DiskFile, key: &ClusterKey) -> Result<(v1::BackupHeader, ClusterId), MasterError> {
    let mut found = None;
    read(path, file, |event| {
        if let Event::Header { header, signed } = event {
            if !backup::verify(key, &signed) {
                return Err(refused(
                    path,
                    "the key is not the one of the cluster that this backup is of; name its own with --key-file",
                ));
            }
            found = Some(header);
        }
        Ok(())
    })?;
    let header = found.ok_or_else(|| refused(path, "it has no header"))?;
    let cluster = ClusterId::from_bytes(&header.cluster).ok_or_else(|| refused(path, "it names no cluster"))?;
    Ok((header, cluster))
}

/// Writes the files of the backup, durably.
fn place(disk: &dyn Disk, path: &Path, file: &dyn DiskFile, to: &Path) -> Result<(), MasterError> {
    let (mut files, mut open): (Vec<v1::SnapshotFile>, Option<Box<dyn DiskFile>>) = (Vec::new(), None);
    read(path, file, |event| {
        let name = |place: usize| files.get(place).map(|file| to.join(&file.name)).unwrap_or_else(|| to.to_owned());
        let create = |at: &Path| disk.open(at, OpenMode::CreateNew).map_err(MasterError::file("create", at));
        match event {
            Event::Header { header, .. } => files = header.files,
            Event::Piece { place, offset, bytes } => {
                let at = name(place);
                let into = match open.take() {
                    Some(into) => into,
                    None => create(&at)?,
                };
                into.write_all_at(&bytes, offset).map_err(MasterError::file("write", &at))?;
                open = Some(into);
            }
            Event::FileEnd { place } => {
                let at = name(place);
                let into = match open.take() {
                    Some(into) => into,
                    // An empty one has no pieces.
                    None => create(&at)?,
                };
                into.sync_data(sync_points::SNAPSHOT_RECEIVED).map_err(MasterError::file("sync", &at))?;
            }
            Event::End => {}
        }
        Ok(())
    })?;
    let kv = to.join("kv");
    disk.sync_dir(&kv, sync_points::SNAPSHOT_RECEIVED).map_err(MasterError::file("sync", &kv))
}
