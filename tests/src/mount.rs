//! A file system of its own that can be taken away, or that fails, under a running server. Needs root.
//!
//! The name of its directory tells the process: what a killed run has left is unmounted by the next.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::namespace::run;

const PREFIX: &str = "quarry-mount-";

/// A file system. Dropping it unmounts and removes it.
pub struct Mount {
    /// Where it is mounted.
    pub at: PathBuf,
    dir: TempDir,
}

impl Mount {
    fn new() -> Result<Self, String> {
        unmount_leftovers();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|e| e.to_string())?;
        let at = dir.path().join("disk");
        fs::create_dir(&at).map_err(|e| e.to_string())?;
        Ok(Mount { at, dir })
    }

    /// One in memory.
    ///
    /// # Errors
    /// Why this machine does not let us.
    pub fn memory(bytes: u64) -> Result<Self, String> {
        let mount = Mount::new()?;
        mount.mount_memory(bytes)?;
        Ok(mount)
    }

    /// An ext4 in a file.
    ///
    /// # Errors
    /// Why this machine does not let us.
    pub fn ext4(bytes: u64) -> Result<Self, String> {
        let mount = Mount::new()?;
        let image = mount.dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&image).arg(&mount.at))?;
        Ok(mount)
    }

    /// Mounts an empty one in memory, after [`Mount::take_away`].
    ///
    /// # Errors
    /// What `mount` says.
    pub fn mount_memory(&self, bytes: u64) -> Result<(), String> {
        let options = format!("size={bytes}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "quarry-test"]).arg(&self.at)).map(drop)
    }

    /// Takes it away although it is in use: its path is an empty directory from now on.
    ///
    /// # Errors
    /// What `umount` says.
    pub fn take_away(&self) -> Result<(), String> {
        unmount(&self.at)
    }

    /// Has an ext4 do what it does when it finds itself damaged: it can only be read from now on.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn abort(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.at)).map(drop)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nothing is mounted any more after it was taken away.
        let _gone = unmount(&self.at);
    }
}

fn unmount(at: &Path) -> Result<(), String> {
    run(Command::new("umount").arg("-l").arg(at)).map(drop)
}

/// What runs that were killed have left.
fn unmount_leftovers() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        let named = at.parent().and_then(|dir| dir.file_name()?.to_str()?.strip_prefix(PREFIX));
        let Some(pid) = named.and_then(|name| name.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() && unmount(at).is_ok() {
            let _removed = at.parent().map(fs::remove_dir_all);
        }
    }
}
