//! Names in the group's directory, its format, and sweeping up.

use std::{
    io,
    path::{Path, PathBuf},
};

use quarry_env::World;

use crate::{raft::GroupError, sync_points};

/// The format that this program writes and the newest that it reads.
const FORMAT: u64 = 1;
const FORMAT_PREFIX: &str = "quarry master group, format ";
/// Small files are at most this long, in bytes.
const SMALL_FILE_MAX: usize = 4096;

/// The directory of one member.
#[derive(Clone)]
pub(crate) struct Layout {
    world: World,
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(world: &World, dir: &Path) -> Self {
        Layout { world: world.clone(), dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.dir.join(format!("state-{name}"))
    }

    pub(crate) fn snapshot(&self, name: &str) -> PathBuf {
        self.dir.join(format!("snapshot-{name}"))
    }

    /// Where a snapshot from another member arrives.
    pub(crate) fn incoming(&self, name: &str) -> PathBuf {
        self.dir.join(format!("incoming-{name}"))
    }

    /// A name that was never used here: the index makes it readable, chance makes it new.
    pub(crate) fn new_name(&self, index: u64) -> String {
        format!("{index}-{:08x}", self.world.random.next_u64() >> 32)
    }

    /// Makes the directory, which must be empty or missing.
    pub(crate) fn prepare(&self) -> Result<(), GroupError> {
        let disk = &self.world.disk;
        let used = match disk.list(&self.dir) {
            Ok(entries) => !entries.is_empty(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(GroupError::io(&self.dir, error)),
        };
        if used {
            return Err(GroupError::NotEmpty { path: self.dir.display().to_string() });
        }
        disk.create_dir_all(&self.dir).map_err(|e| GroupError::io(&self.dir, e))
    }

    /// Says, durably, that the group was created: from here on it may vote. Syncing `GROUP`'s directory also makes the
    /// names of log and first state durable.
    pub(crate) fn mark_created(&self) -> Result<(), GroupError> {
        let path = self.dir.join("GROUP");
        let disk = &self.world.disk;
        let text = format!("{FORMAT_PREFIX}{FORMAT}\n");
        disk.write_small(&path, text.as_bytes(), sync_points::GROUP_CREATED).map_err(|e| GroupError::io(&path, e))?;
        let parent = self.dir.parent().unwrap_or(Path::new("."));
        disk.sync_dir(parent, sync_points::GROUP_NAME).map_err(|e| GroupError::io(parent, e))
    }

    /// Refuses a directory without a group, and one of a newer format.
    pub(crate) fn check_created(&self) -> Result<(), GroupError> {
        let path = self.dir.join("GROUP");
        let bytes = match self.world.disk.read_small(&path, SMALL_FILE_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(GroupError::NoGroup { path: self.dir.display().to_string() });
            }
            Err(error) => return Err(GroupError::io(&path, error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let found = text.trim_end().strip_prefix(FORMAT_PREFIX).and_then(|number| number.parse().ok());
        match found {
            Some(1..=FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(GroupError::Newer { path: path.display().to_string(), found, known: FORMAT })
            }
            _ => Err(GroupError::corrupt(&path, "it does not say which format the group has")),
        }
    }

    /// The name of the state in use; `None` before the first.
    pub(crate) fn current(&self) -> Result<Option<String>, GroupError> {
        let path = self.dir.join("CURRENT");
        let bytes = match self.world.disk.read_small(&path, SMALL_FILE_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(GroupError::io(&path, error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let name = text.trim_end();
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if plain { Ok(Some(name.to_owned())) } else { Err(GroupError::corrupt(&path, "it names no state directory")) }
    }

    /// Makes `name` the state in use, atomically and durably.
    pub(crate) fn switch_to(&self, name: &str) -> Result<(), GroupError> {
        let path = self.dir.join("CURRENT");
        let line = format!("{name}\n");
        self.world
            .disk
            .write_small(&path, line.as_bytes(), sync_points::STATE_CURRENT)
            .map_err(|e| GroupError::io(&path, e))
    }

    /// The names of everything called `<kind>-<name>`, sorted.
    pub(crate) fn names(&self, kind: &str) -> Result<Vec<String>, GroupError> {
        let entries = self.world.disk.list(&self.dir).map_err(|e| GroupError::io(&self.dir, e))?;
        let file_names = entries.iter().filter_map(|path| path.file_name()?.to_str());
        Ok(file_names.filter_map(|name| name.strip_prefix(kind)?.strip_prefix('-')).map(str::to_owned).collect())
    }

    /// Removes every state but `current`: what an interrupted or finished installation left.
    pub(crate) fn sweep_states(&self, current: &str) -> Result<(), GroupError> {
        for name in self.names("state")?.iter().filter(|name| *name != current) {
            self.remove(&self.state(name))?;
        }
        Ok(())
    }

    /// Removes snapshots that arrived in part: how much of their files is on the disk is not known any more.
    pub(crate) fn sweep_incoming(&self) -> Result<(), GroupError> {
        for name in self.names("incoming")? {
            self.remove(&self.incoming(&name))?;
        }
        Ok(())
    }

    /// Removes a directory and all below it.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), GroupError> {
        tracing::info!(path = %path.display(), "removing a directory that is no longer used");
        self.world.disk.remove_dir_all(path).map_err(|e| GroupError::io(path, e))
    }
}
