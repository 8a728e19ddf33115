//! Who a data directory belongs to.
//!
//! `IDENTITY` is written last when a directory is made, so a directory without one was never finished. `LOCK` is held
//! while a process uses the directory. The key is a file of its own and never enters `IDENTITY`: there only stands a
//! check that tells whether the key at hand is the cluster's.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use quarry_env::{Disk, Random};
use quarry_types::{ClusterId, ClusterKey, NodeId, auth::Purpose};

use crate::{error::MasterError, sync_points};

/// The version of the data directory's layout that this build writes; one without `group` is as in version 1.
pub const FORMAT: i64 = 2;
const FORMAT_ONE_GROUP: i64 = 1;
/// The identity's file name in the data directory.
pub const IDENTITY_FILE: &str = "IDENTITY";
const LOCK_FILE: &str = "LOCK";
const ROLE: &str = "master";
/// Small files are read whole; nothing of ours is longer.
const SMALL_FILE_BYTES: usize = 4096;
/// Bytes of the key check: enough to notice a mix-up, too few to serve as a signature.
const KEY_CHECK_BYTES: usize = 8;

/// What `IDENTITY` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This master in its group.
    pub node: NodeId,
    /// Which of the groups whose files lie in the data directory; 0: the first one.
    pub group: u64,
}

impl Identity {
    /// The directory of the first group's files in the data directory.
    pub const FIRST_GROUP: &str = "group";

    /// The directory of the group's files in the data directory.
    #[must_use]
    pub fn group_dir(&self) -> String {
        match self.group {
            0 => Self::FIRST_GROUP.into(),
            number => format!("{}-{number:08x}", Self::FIRST_GROUP),
        }
    }

    fn to_text(self, key: &ClusterKey) -> String {
        let (cluster, node, check) = (self.cluster, self.node.0, key_check(key, self.cluster));
        let (format, group) = match self.group {
            0 => (FORMAT_ONE_GROUP, String::new()),
            number => (FORMAT, format!("group = {number}\n")),
        };
        format!(
            "format = {format}\nrole = \"{ROLE}\"\ncluster = \"{cluster}\"\nnode = {node}\n{group}key-check = \"{check}\"\n"
        )
    }
}

/// A data directory that this process uses; dropping it lets others.
pub struct DataDir {
    /// What it says it is.
    pub identity: Identity,
    /// The cluster's key.
    pub key: ClusterKey,
    path: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl DataDir {
    /// Makes the directory another master's of the same cluster, in one atomic step.
    pub(crate) fn switch(&self, disk: &dyn Disk, identity: Identity) -> Result<Identity, MasterError> {
        write_identity(disk, &self.path, identity, &self.key)
    }
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataDir").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn refused(path: &Path, why: impl std::fmt::Display) -> MasterError {
    MasterError::Refused(format!("{}: {why}", path.display()))
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Send + Sync>, MasterError> {
    let path = dir.join(LOCK_FILE);
    disk.lock(&path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            refused(dir, "another process uses this data directory; stop it first or name another with --data")
        }
        _ => MasterError::file("lock", path)(e),
    })
}

/// Opens and locks a data directory made by `init`.
///
/// # Errors
/// When it was not made by `init`, is of a newer format, of something else than a master, in use, or when the key is not
/// its cluster's. Nothing was changed then.
pub fn open(disk: &dyn Disk, dir: &Path, key_file: &Path) -> Result<DataDir, MasterError> {
    let path = dir.join(IDENTITY_FILE);
    let text = disk.read_small(&path, SMALL_FILE_BYTES).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => refused(
            dir,
            "not a master's data directory (it has no IDENTITY file). `quarry-master join --data DIR` makes one more master of \
             a cluster in an empty directory, also in the place of one that was lost; `quarry-master init` a new cluster",
        ),
        _ => MasterError::file("read", &path)(e),
    })?;
    let (identity, check) = parse(&path, &String::from_utf8_lossy(&text))?;
    let lock = lock(disk, dir)?;
    let key = read_key(disk, key_file)?;
    if key_check(&key, identity.cluster) != check {
        return Err(refused(
            key_file,
            format!("this is not the key of cluster {} in {}", identity.cluster, dir.display()),
        ));
    }
    Ok(DataDir { identity, key, path: dir.into(), _lock: lock })
}

/// A directory on its way to become a data directory: locked, with its key at hand, without `IDENTITY` yet.
pub(crate) struct Unfinished {
    dir: PathBuf,
    key: ClusterKey,
    _lock: Box<dyn Send + Sync>,
}

/// Makes and locks an empty directory. A key file in it is no obstacle where `key_file` is to be there already.
fn make(disk: &dyn Disk, dir: &Path, key_file: Option<&Path>) -> Result<Box<dyn Send + Sync>, MasterError> {
    disk.create_dir_durably(dir, sync_points::DATA_DIR).map_err(MasterError::file("create", dir))?;
    refuse_filled(disk, dir, key_file)?;
    lock(disk, dir)
}

fn refuse_filled(disk: &dyn Disk, dir: &Path, key_file: Option<&Path>) -> Result<(), MasterError> {
    let present = disk.list(dir).map_err(MasterError::file("list", dir))?;
    match present.iter().find(|found| Some(found.as_path()) != key_file) {
        None => Ok(()),
        Some(found) => {
            let why = format!("not empty (it holds {}); a master is made in an empty one", found.display());
            Err(refused(dir, why))
        }
    }
}

/// Begins a data directory for a new cluster, with a new key.
pub(crate) fn begin(
    disk: &dyn Disk,
    random: &dyn Random,
    dir: &Path,
    key_file: &Path,
) -> Result<Unfinished, MasterError> {
    if disk.exists(key_file).map_err(MasterError::file("look at", key_file))? {
        return Err(refused(
            key_file,
            "a key file is there already, and a new cluster has a new key; name another with --key-file",
        ));
    }
    let lock = make(disk, dir, None)?;
    let mut bytes = [0; quarry_types::auth::KEY_BYTES];
    random.fill(&mut bytes);
    let key = ClusterKey::new(bytes);
    write_key(disk, key_file, &key)?;
    Ok(Unfinished { dir: dir.into(), key, _lock: lock })
}

/// Whether a master could be made in `dir` with this key, which it reads. Changes nothing.
pub(crate) fn look_first(disk: &dyn Disk, dir: &Path, key_file: &Path) -> Result<ClusterKey, MasterError> {
    let key = read_key(disk, key_file)?;
    if disk.exists(dir).map_err(MasterError::file("look at", dir))? {
        refuse_filled(disk, dir, Some(key_file))?;
    }
    Ok(key)
}

/// Begins a data directory for a cluster that exists: with its key, which may be the only thing in the directory.
pub(crate) fn adopt(disk: &dyn Disk, dir: &Path, key_file: &Path, key: ClusterKey) -> Result<Unfinished, MasterError> {
    let lock = make(disk, dir, Some(key_file))?;
    Ok(Unfinished { dir: dir.into(), key, _lock: lock })
}

impl Unfinished {
    /// The cluster's key.
    pub(crate) fn key(&self) -> &ClusterKey {
        &self.key
    }

    /// Makes it a data directory: from here on `open` accepts it.
    pub(crate) fn finish(self, disk: &dyn Disk, identity: Identity) -> Result<Identity, MasterError> {
        write_identity(disk, &self.dir, identity, &self.key)
    }
}

fn write_identity(disk: &dyn Disk, dir: &Path, identity: Identity, key: &ClusterKey) -> Result<Identity, MasterError> {
    let (path, text) = (dir.join(IDENTITY_FILE), identity.to_text(key));
    disk.write_small(&path, text.as_bytes(), sync_points::IDENTITY).map_err(MasterError::file("write", &path))?;
    Ok(identity)
}

fn parse(path: &Path, text: &str) -> Result<(Identity, String), MasterError> {
    let damaged = || refused(path, "damaged: restore it from a backup, or this master cannot tell what it is");
    let table: toml::Table = text.parse().map_err(|_| damaged())?;
    let format = table.get("format").and_then(toml::Value::as_integer).ok_or_else(damaged)?;
    if !(FORMAT_ONE_GROUP..=FORMAT).contains(&format) {
        let why = format!("format {format}, and this build knows {FORMAT}; run the build that made it, or a newer one");
        return Err(refused(path, why));
    }
    let text_of = |key: &str| table.get(key).and_then(toml::Value::as_str).ok_or_else(damaged);
    if text_of("role")? != ROLE {
        return Err(refused(path, format!("the data directory of a {}, not of a master", text_of("role")?)));
    }
    let node = table.get("node").and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok());
    let group = match table.get("group") {
        None => 0,
        Some(group) => group.as_integer().and_then(|n| u64::try_from(n).ok()).ok_or_else(damaged)?,
    };
    let identity = Identity {
        cluster: text_of("cluster")?.parse().map_err(|_| damaged())?,
        node: NodeId(node.ok_or_else(damaged)?),
        group,
    };
    Ok((identity, text_of("key-check")?.into()))
}

/// Tells whether a key is the cluster's without telling the key.
fn key_check(key: &ClusterKey, cluster: ClusterId) -> String {
    let mac = key.sign(Purpose::Registration, format!("key check of cluster {cluster}").as_bytes());
    mac.iter().take(KEY_CHECK_BYTES).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn read_key(disk: &dyn Disk, path: &Path) -> Result<ClusterKey, MasterError> {
    let bytes = disk.read_small(path, SMALL_FILE_BYTES).map_err(MasterError::file("read the cluster key", path))?;
    let key = std::str::from_utf8(&bytes).ok().and_then(ClusterKey::from_file);
    key.ok_or_else(|| refused(path, "not a key file (64 hex digits)"))
}

/// Writes the key so that at no moment others than the owner could read it.
fn write_key(disk: &dyn Disk, path: &Path, key: &ClusterKey) -> Result<(), MasterError> {
    let failed = |e| MasterError::file("write the cluster key", path)(e);
    let file = disk.open(path, quarry_env::OpenMode::CreateNew).map_err(failed)?;
    disk.make_private(path).map_err(failed)?;
    file.write_all_at(key.to_file().as_bytes(), 0).map_err(failed)?;
    file.sync_data(sync_points::KEY).map_err(failed)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(parent, sync_points::KEY).map_err(failed)
}
