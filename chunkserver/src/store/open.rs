//! Opening the data directories.
//!
//! A wrong directory (another cluster's, another server's, a newer format, one in use) refuses the start: the operator has
//! mixed something up, and going on could lose data. A broken disk does not: it only takes its own chunks with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use quarry_chunkserver_core::{
    identity::{DirIdentity, IDENTITY_BYTES},
    inventory::{DigestKey, Inventory},
};
use quarry_client::reused::Reused;
use quarry_env::{Disk, World};
use quarry_types::{ChunkId, ClusterId, ErrorCode, Leadership, ServerId, ids::LeadershipRefusal, planted};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    DirConfig, StoreConfig, StoreError,
    config::{INDEX_BYTES_MAX, READ_MEMORY_KEPT},
    dir::{self, Dir, DirLock},
    health::Roster,
    index::{Changes, Index, Meta},
    shared::{Shared, State},
    sync_points,
    watched::{Watch, WatchedDisk},
};

/// Name of the identity file.
pub(super) const IDENTITY: &str = "IDENTITY";
/// A newer format's identity may be longer; it is read far enough to say so.
pub(super) const IDENTITY_LIMIT: usize = 64 * IDENTITY_BYTES;

const LOCK: &str = "LOCK";

/// A directory whose lock we hold and whose identity was read.
pub(super) struct Found<'a> {
    config: &'a DirConfig,
    watch: Arc<Watch>,
    lock: DirLock,
    /// Absent in a directory that is new.
    pub(super) identity: Option<DirIdentity>,
}

/// Why a directory was not opened.
pub(super) enum Trouble {
    /// The start is refused.
    Refused(StoreError),
    /// The disk failed.
    Broken(String),
}

fn refused(path: &Path, what: &str) -> Trouble {
    Trouble::Refused(StoreError::new(ErrorCode::Mismatch, format!("data directory {}: {what}", path.display())))
}

fn broken(path: &Path, doing: &str) -> impl Fn(io::Error) -> Trouble {
    let (path, doing) = (path.to_owned(), doing.to_owned());
    move |error| Trouble::Broken(StoreError::io(&path, &doing, &error).to_string())
}

impl Shared {
    /// Everything except the recovery of replicas.
    pub(super) fn open(mut world: World, config: &StoreConfig) -> Result<Self, StoreError> {
        let alarm = Arc::new(Notify::new());
        let watches: Vec<_> = config.dirs.iter().map(|dir| (dir.path.clone(), Arc::<Watch>::default())).collect();
        world.disk = Arc::new(WatchedDisk {
            disk: world.disk,
            clock: Arc::clone(&world.clock),
            watches: watches.clone(),
            alarm: Arc::clone(&alarm),
        });
        let mut found = Vec::new();
        let mut dirs = Vec::new();
        for (config, (_, watch)) in config.dirs.iter().zip(watches) {
            match look(&*world.disk, config, Arc::clone(&watch)) {
                Ok(dir) => found.push(dir),
                Err(Trouble::Refused(error)) => return Err(error),
                Err(Trouble::Broken(why)) => dirs.push(Arc::new(Dir::out_of_service(config, watch, None, why))),
            }
        }
        let (server, cluster) = agree(&world, &found, !dirs.is_empty())?;
        let mut metas = Vec::new();
        for dir in found {
            let config = dir.config;
            let (id, watch) = (dir.identity.map(|i| i.directory), Arc::clone(&dir.watch));
            match bring_up(&world, dir) {
                Ok((dir, meta, is_new)) => metas.push((Arc::new(dir), meta, is_new)),
                Err(Trouble::Refused(error)) => return Err(error),
                Err(Trouble::Broken(why)) => dirs.push(Arc::new(Dir::out_of_service(config, watch, id, why))),
            }
        }
        let start = Start::of(&metas)?;
        for (dir, meta, is_new) in &metas {
            let identity = DirIdentity { cluster, server, directory: dir.id.unwrap_or_default() };
            if let Err(why) = start.persist(&world, dir, meta, identity, *is_new) {
                dir.fail(&why.to_string());
            }
        }
        dirs.extend(metas.into_iter().map(|(dir, ..)| dir));
        dirs.sort_by(|a, b| a.path.cmp(&b.path));
        if !dirs.iter().any(|dir| dir.works()) {
            return Err(no_directory(&dirs));
        }
        let start_id = world.random.next_u64();
        Ok(Shared {
            state: std::sync::Mutex::new(State {
                cluster,
                leadership: start.leadership,
                replicas: Default::default(),
                copies: Default::default(),
                tombstones: Default::default(),
                watermark: start.watermark,
                inventory: Inventory::new(DigestKey::new(&config.key, server)),
                open: 0,
                roster: Roster { rows: start.roster, read: BTreeSet::new() },
                schedule: Default::default(),
                scrubbed: 0,
            }),
            world,
            durability: config.durability,
            index_bytes: config.index_bytes.min(INDEX_BYTES_MAX),
            server,
            start_counter: start.counter,
            start_id,
            dirs: std::sync::Mutex::new(dirs),
            poisoned: Default::default(),
            alarm,
            files: Default::default(),
            following: Default::default(),
            kept: Default::default(),
            probes: Default::default(),
            memory: Reused::new(READ_MEMORY_KEPT),
        })
    }
}

fn no_directory(dirs: &[Arc<Dir>]) -> StoreError {
    let why: Vec<_> = dirs.iter().filter_map(|dir| dir.index().err()).map(|e| e.to_string()).collect();
    let why = if why.is_empty() { "none was given; name one with --data".to_owned() } else { why.join("; ") };
    StoreError::new(ErrorCode::DiskFailed, format!("no data directory can be used: {why}"))
}

/// Locks a directory and reads whose it is. Changes nothing in one that is in use.
pub(super) fn look<'a>(disk: &dyn Disk, config: &'a DirConfig, watch: Arc<Watch>) -> Result<Found<'a>, Trouble> {
    let path = &config.path;
    disk.create_dir_all(path).map_err(broken(path, "create"))?;
    let lock = disk.lock(&path.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => refused(path, "another process is using it; stop that one first"),
        _ => broken(path, "lock")(error),
    })?;
    let file = path.join(IDENTITY);
    let identity = match disk.read_small(&file, IDENTITY_LIMIT) {
        Ok(bytes) => {
            Some(DirIdentity::decode(&bytes).map_err(|error| refused(path, &format!("{}: {error}", file.display())))?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(broken(&file, "read")(error)),
    };
    if identity.is_none() && has_chunks(disk, path).map_err(broken(path, "list"))? {
        return Err(refused(
            path,
            "it has chunk files but no IDENTITY; put the file back, or move the chunk files away to give them up",
        ));
    }
    Ok(Found { config, watch, lock, identity })
}

fn has_chunks(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    let chunks = dir::chunks(path);
    if !disk.exists(&chunks)? {
        return Ok(false);
    }
    for shelf in disk.list(&chunks)? {
        if !disk.list(&shelf)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who this server is: what its directories say, all the same. With none that says so it is a new one.
fn agree(world: &World, found: &[Found<'_>], some_broken: bool) -> Result<(ServerId, Option<ClusterId>), StoreError> {
    let known = || found.iter().filter_map(|dir| Some((&dir.config.path, dir.identity?)));
    let mut ids = BTreeSet::new();
    let mut cluster: Option<ClusterId> = None;
    let mut server: Option<ServerId> = None;
    for (path, identity) in known() {
        let mixed = |what: &str| {
            StoreError::new(
                ErrorCode::Mismatch,
                format!("data directory {}: {what}; give this chunkserver only its own directories", path.display()),
            )
        };
        if !ids.insert(identity.directory) {
            return Err(mixed("it is a copy of another of the directories given"));
        }
        if server.is_some_and(|server| server != identity.server) {
            return Err(mixed("it belongs to another server than the directories before it"));
        }
        if let (Some(a), Some(b)) = (cluster, identity.cluster)
            && a != b
        {
            return Err(mixed(&format!("it belongs to cluster {b}, the directories before it to {a}")));
        }
        server = Some(identity.server);
        cluster = cluster.or(identity.cluster);
    }
    match server {
        Some(server) => Ok((server, cluster)),
        None if some_broken => Err(StoreError::new(
            ErrorCode::DiskFailed,
            "no data directory that can be read says which server this is; starting with an empty one would make it a new \
             server: repair the failed directory, or leave it out to begin anew",
        )),
        None => Ok((ServerId::from_random(world.random.next_u128()), None)),
    }
}

/// Opens the index; lays out a new directory before.
pub(super) fn bring_up(world: &World, found: Found<'_>) -> Result<(Dir, Meta, bool), Trouble> {
    let path = &found.config.path;
    let is_new = found.identity.is_none();
    if is_new {
        lay_out(&*world.disk, path).map_err(broken(path, "lay out"))?;
    }
    let index = Index::open(&*world.kv, &dir::index_of(path)).map_err(|e| Trouble::Broken(e.to_string()))?;
    let mut meta = index.meta().map_err(|e| Trouble::Broken(e.to_string()))?;
    if is_new && index.has_replicas().map_err(|e| Trouble::Broken(e.to_string()))? {
        return Err(refused(
            path,
            "its index has chunks but there is no IDENTITY; put the file back, or move the whole directory away to give them up",
        ));
    }
    // What a first start that was cut off had begun goes on under its name, which the other rosters may have already.
    let begun = found.identity.map(|identity| identity.directory).or(meta.directory);
    let random = || uuid::Builder::from_random_bytes(world.random.next_u128().to_be_bytes()).into_uuid();
    let id = begun.unwrap_or_else(random);
    if is_new {
        world.disk.sync_dir(path, sync_points::DIR_CONTENTS).map_err(broken(path, "sync"))?;
        let changes = Changes::default().directory(id);
        index.write(changes, sync_points::DIR_ID).map_err(|e| Trouble::Broken(e.to_string()))?;
        meta.directory = Some(id);
    }
    // Without its index every chunk file would look like one that nothing claims, and be removed.
    if !is_new && meta.directory != Some(id) {
        return Err(Trouble::Broken(format!(
            "data directory {}: its index is lost or is that of another directory; put the right one back, or move the whole \
             directory away to give its chunks up",
            path.display()
        )));
    }
    let mounted = dir::is_mount(&*world.disk, path);
    Ok((Dir::new(found.config, found.watch, id, index, found.lock, mounted), meta, is_new))
}

/// Makes what a directory consists of, all by durable names, also where an earlier start was cut off.
fn lay_out(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for parent in path.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match disk.sync_dir(parent, sync_points::DIR_NAME) {
            // Nothing below it was named by us, then.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    let chunks = dir::chunks(path);
    for byte in 0..=u8::MAX {
        disk.create_dir_all(&chunks.join(dir::shelf_name(byte)))?;
    }
    disk.sync_dir(&chunks, sync_points::DIR_LAYOUT)
}

/// What the directories remember, taken together.
pub(super) struct Start {
    pub(super) counter: u64,
    pub(super) leadership: Option<Leadership>,
    pub(super) watermark: ChunkId,
    pub(super) roster: BTreeMap<Uuid, Option<ChunkId>>,
}

impl Start {
    fn of(metas: &[(Arc<Dir>, Meta, bool)]) -> Result<Self, StoreError> {
        let mut start = Start { counter: 1, leadership: None, watermark: ChunkId(0), roster: BTreeMap::new() };
        for (dir, meta, _) in metas {
            let counted = u64::from(!planted!("forget-start"));
            start.counter = start.counter.max(meta.start_counter.saturating_add(counted));
            start.watermark = start.watermark.max(meta.watermark);
            for (id, end) in meta.roster.iter().copied().chain(dir.id.map(|id| (id, None))) {
                // Who does not know that it was given up is not contradicted: fences are answered less readily then.
                start.roster.entry(id).and_modify(|known| *known = known.and(end)).or_insert(end);
            }
            let Some(theirs) = meta.leadership else { continue };
            match start.leadership.map_or(Ok(()), |ours| ours.accepts(&theirs)) {
                Ok(()) => start.leadership = Some(theirs),
                Err(LeadershipRefusal::Older) => {}
                Err(LeadershipRefusal::Sibling) => {
                    return Err(StoreError::new(
                        ErrorCode::Mismatch,
                        format!(
                            "data directory {}: its history forked off from that of the directories before it; give this \
                             chunkserver only its own directories",
                            dir.path.display()
                        ),
                    ));
                }
            }
        }
        Ok(start)
    }

    /// Counts the start. The identity of a new directory comes last: without it the directory is begun again.
    pub(super) fn persist(
        &self,
        world: &World,
        dir: &Dir,
        meta: &Meta,
        identity: DirIdentity,
        is_new: bool,
    ) -> Result<(), StoreError> {
        let mut changes = Changes::default().start(self.counter, &self.roster);
        if let Some(leadership) = self.leadership.filter(|ours| meta.leadership != Some(*ours)) {
            changes = changes.leadership(&leadership);
        }
        if self.watermark > meta.watermark {
            changes = changes.watermark(self.watermark);
        }
        dir.index()?.write(changes, sync_points::START)?;
        let path = dir.path.join(IDENTITY);
        let point = if is_new { sync_points::IDENTITY_NEW } else { sync_points::IDENTITY_CLUSTER };
        let bytes = identity.encode();
        // Of an old directory it changes only when a crash interrupted the first adoption.
        if is_new || world.disk.read_small(&path, IDENTITY_LIMIT).is_ok_and(|old| old != bytes) {
            world.disk.write_small(&path, &bytes, point).map_err(|e| StoreError::io(&path, "write", &e))?;
        }
        Ok(())
    }
}
