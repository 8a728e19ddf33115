//! Files on this machine: what `put` reads and `get` writes.
#![expect(clippy::disallowed_methods, reason = "local files are what the user named; only the cluster is injected")]

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use quarry_env::World;
use quarry_types::ErrorCode;

use crate::error::{CliError, Outcome};

/// Local files are read and written in pieces of this size.
pub const PIECE_BYTES: usize = 1 << 20;

/// What a local path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalKind {
    File,
    Directory,
    Symlink,
    /// A device, pipe or socket; says which.
    Special(&'static str),
}

impl LocalKind {
    fn of(metadata: &Metadata) -> LocalKind {
        let kind = metadata.file_type();
        if kind.is_file() {
            LocalKind::File
        } else if kind.is_dir() {
            LocalKind::Directory
        } else if kind.is_symlink() {
            LocalKind::Symlink
        } else if kind.is_fifo() {
            LocalKind::Special("named pipe")
        } else if kind.is_socket() {
            LocalKind::Special("socket")
        } else {
            LocalKind::Special("device")
        }
    }
}

/// What is at `path`, links followed; `None` when there is nothing.
pub fn look(path: &Path) -> Outcome<Option<LocalKind>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(LocalKind::of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::file("look at", path, &error)),
    }
}

/// Refuses a path where something is already, unless that is to be replaced.
pub fn may_be_made(path: &Path, overwrite: bool) -> Outcome {
    if overwrite || look(path)?.is_none() {
        return Ok(());
    }
    let message = format!("local {} is there already; name another file, or add --overwrite", path.display());
    Err(CliError::new(ErrorCode::AlreadyExists, message))
}

/// The entries of a local directory with what they are (links not followed), in name order.
pub fn entries(path: &Path) -> Outcome<Vec<(OsString, LocalKind)>> {
    let list = || {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            found.push((entry.file_name(), LocalKind::of(&entry.metadata()?)));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    };
    list().map_err(|error| CliError::file("list", path, &error))
}

/// Makes a directory with its parents, unless it exists.
pub fn make_directory(path: &Path) -> Outcome {
    fs::create_dir_all(path).map_err(|error| CliError::file("make directory", path, &error))
}

/// The text of a small file; `None` when there is none.
pub fn read_text(path: &Path) -> Outcome<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::file("read", path, &error)),
    }
}

/// The last `bytes` bytes of a file, from the beginning of a line on; empty when it cannot be read.
pub fn tail(path: &Path, bytes: u64) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(bytes);
        io::Seek::seek(&mut file, io::SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(bytes).read_to_end(&mut tail)?;
        Ok::<_, io::Error>((start, String::from_utf8_lossy(&tail).into_owned()))
    };
    match read() {
        Ok((0, text)) => text,
        Ok((_, text)) => text.split_once('\n').map(|(_, rest)| rest.to_string()).unwrap_or(text),
        Err(_) => String::new(),
    }
}

/// Replaces a small file at once: after a crash it has the old text or the new one.
pub fn replace_text(path: &Path, text: &str) -> Outcome {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| CliError::file("write", path, &error))
}

/// Removes a file, unless there is none.
pub fn remove(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CliError::file("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Opens a log file to add to it.
pub fn open_log(path: &Path) -> Outcome<File> {
    OpenOptions::new().append(true).create(true).open(path).map_err(|error| CliError::file("open", path, &error))
}

/// Takes the lock on a file, which lasts until the result is dropped or the process ends; `None` when another
/// process has it.
pub fn lock(path: &Path) -> Outcome<Option<File>> {
    let failed = |error| CliError::file("lock", path, &error);
    let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// A local file, or standard input, to read from the beginning to the end.
pub struct Source {
    world: World,
    file: Arc<File>,
    path: PathBuf,
    length: Option<u64>,
    buffer: BytesMut,
}

impl Source {
    /// Opens a regular file. Refuses anything else: reading a pipe or device may never end.
    pub fn open(world: &World, path: &Path) -> Outcome<Source> {
        let failed = |error| CliError::file("open", path, &error);
        // Without O_NONBLOCK, opening a named pipe that took the file's place would wait for a writer.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NONBLOCK);
        let file = options.open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        match LocalKind::of(&metadata) {
            LocalKind::File => {}
            LocalKind::Directory => return Err(is_directory(path)),
            LocalKind::Symlink | LocalKind::Special(_) => return Err(is_special(path, LocalKind::of(&metadata))),
        }
        Ok(Self::new(world, file, path.to_path_buf(), Some(metadata.len())))
    }

    /// Standard input.
    pub fn stdin(world: &World) -> Outcome<Source> {
        use std::os::fd::AsFd;
        let path = PathBuf::from("standard input");
        let own = io::stdin().as_fd().try_clone_to_owned().map_err(|error| CliError::file("open", &path, &error))?;
        Ok(Self::new(world, File::from(own), path, None))
    }

    fn new(world: &World, file: File, path: PathBuf, length: Option<u64>) -> Source {
        Source { world: world.clone(), file: Arc::new(file), path, length, buffer: BytesMut::new() }
    }

    /// How long the file was when it was opened; unknown of standard input.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; empty at the end. Pieces are full ones, but for the last.
    pub async fn next(&mut self) -> Outcome<Bytes> {
        let (file, mut buffer) = (self.file.clone(), std::mem::take(&mut self.buffer));
        let wanted = self.length.map_or(PIECE_BYTES, |length| {
            // A small file needs a small buffer. One byte more shows the end, or that the file has grown.
            usize::try_from(length).unwrap_or(PIECE_BYTES).saturating_add(1).min(PIECE_BYTES)
        });
        let read = self.world.blocking.run(move || {
            buffer.resize(wanted, 0);
            let mut filled = 0;
            while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
                match (&*file).read(room) {
                    Ok(0) => break,
                    Ok(bytes) => filled += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let piece = buffer.split_to(filled).freeze();
            buffer.clear();
            Ok((piece, buffer))
        });
        let read = read.await.map_err(|lost| CliError::local(lost.to_string()))?;
        let (piece, buffer) = read.map_err(|error| CliError::file("read", &self.path, &error))?;
        self.buffer = buffer;
        Ok(piece)
    }
}

/// The refusal of a directory where a file is needed.
pub fn is_directory(path: &Path) -> CliError {
    CliError::new(
        ErrorCode::IsADirectory,
        format!("local {} is a directory; add -r to copy it with all below it", path.display()),
    )
}

fn is_directory_instead(path: &Path) -> CliError {
    CliError::local(format!("local {} is a directory, a file would go there", path.display()))
}

/// The refusal of what is neither file nor directory.
pub fn is_special(path: &Path, kind: LocalKind) -> CliError {
    let what = if let LocalKind::Special(what) = kind { what } else { "special file" };
    CliError::local(format!(
        "local {} is a {what}, not a regular file; name a regular file, or pipe it into `quarry put -`",
        path.display()
    ))
}

/// A local file being written. Under its final name nothing shows before [`Target::commit`]; dropping it earlier
/// removes what was written.
pub struct Target {
    world: World,
    file: Arc<File>,
    path: PathBuf,
    /// Where the bytes are until the commit; `None` when they go straight to a device or pipe.
    temporary: Option<PathBuf>,
}

impl Target {
    /// Begins to write what will be at `path`. A device or a pipe that is there already is written to, not
    /// replaced; a link is followed.
    pub fn create(world: &World, path: &Path) -> Outcome<Target> {
        let failed = |error| CliError::file("write", path, &error);
        let path = match look(path)? {
            Some(LocalKind::Directory) => {
                return Err(is_directory_instead(path));
            }
            Some(LocalKind::Special(_)) => {
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                return Ok(Target { world: world.clone(), file: Arc::new(file), path: path.into(), temporary: None });
            }
            Some(_) => fs::canonicalize(path).map_err(failed)?,
            None => path.to_path_buf(),
        };
        let temporary = path.with_file_name(format!(".quarry-get-{:016x}.tmp", world.random.next_u64()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(failed)?;
        // What is replaced keeps its permissions: what was private stays private.
        if let Ok(replaced) = fs::metadata(&path) {
            file.set_permissions(replaced.permissions()).map_err(failed)?;
        }
        Ok(Target { world: world.clone(), file: Arc::new(file), path, temporary: Some(temporary) })
    }

    /// Begins to write what will be at `path`, in a file beside it that ends in `.part` and that only its owner may read. What an
    /// interrupted command left there is written over.
    pub fn create_part(world: &World, path: &Path) -> Outcome<Target> {
        match look(path)? {
            None | Some(LocalKind::File) => {}
            Some(LocalKind::Directory) => return Err(is_directory_instead(path)),
            Some(kind) => return Err(is_special(path, kind)),
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |error| CliError::file("write", &part, &error);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&part).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(CliError::local(format!("another command is writing local {}", part.display())));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        Ok(Target { world: world.clone(), file: Arc::new(file), path: path.into(), temporary: Some(part) })
    }

    /// Writes a piece.
    pub async fn write(&mut self, piece: Bytes) -> Outcome {
        let file = self.file.clone();
        self.run(move || (&*file).write_all(&piece)).await
    }

    /// Makes it durable and visible under its final name.
    pub async fn commit(mut self) -> Outcome {
        if let Some(temporary) = &self.temporary {
            let file = self.file.clone();
            self.run(move || file.sync_all()).await?;
            fs::rename(temporary, &self.path).map_err(|error| CliError::file("write", &self.path, &error))?;
            self.temporary = None;
            let directory =
                self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
            self.run(move || OpenOptions::new().read(true).open(directory)?.sync_all()).await?;
        }
        Ok(())
    }

    async fn run(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Outcome {
        let done = self.world.blocking.run(work).await.map_err(|lost| CliError::local(lost.to_string()))?;
        done.map_err(|error| CliError::file("write", &self.path, &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The command fails already, and says why.
            let _left_behind = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use quarry_env::kv::NoKv;

    use super::*;

    fn world() -> World {
        World::real(Arc::new(NoKv))
    }

    fn names(directory: &Path) -> Vec<OsString> {
        entries(directory).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[tokio::test]
    async fn a_target_shows_only_when_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "old").unwrap();
        let mut target = Target::create(&world(), &path).unwrap();
        target.write(Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(target);
        assert_eq!(names(dir.path()), ["x"]);
        let mut target = Target::create(&world(), &path).unwrap();
        target.write(Bytes::from_static(b"new")).await.unwrap();
        target.commit().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[tokio::test]
    async fn what_is_written_in_part_is_private_alone_and_shows_only_when_committed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(dir.path().join("x.part"), "left by an interrupted command").unwrap();
        let mut target = Target::create_part(&world(), &path).unwrap();
        assert!(Target::create_part(&world(), &path).is_err(), "somebody is at it");
        target.write(Bytes::from_static(b"new")).await.unwrap();
        assert!(!path.exists());
        target.commit().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["x"]);
        drop(Target::create_part(&world(), &path.with_extension("y")).unwrap());
        assert_eq!(names(dir.path()), ["x"]);
        let target = Target::create_part(&world(), &dir.path().join("z")).unwrap();
        let mode = fs::metadata(dir.path().join("z.part")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        drop(target);
    }

    #[tokio::test]
    async fn a_link_is_followed_and_a_device_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        Target::create(&world(), &link).unwrap().commit().await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"");
        let mut null = Target::create(&world(), Path::new("/dev/null")).unwrap();
        null.write(Bytes::from_static(b"gone")).await.unwrap();
        null.commit().await.unwrap();
        assert!(matches!(look(Path::new("/dev/null")), Ok(Some(LocalKind::Special("device")))));
    }

    #[tokio::test]
    async fn a_source_gives_all_bytes_in_full_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 5] {
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            fs::write(&path, &data).unwrap();
            let mut source = Source::open(&world(), &path).unwrap();
            let mut read = Vec::new();
            loop {
                let piece = source.next().await.unwrap();
                if piece.is_empty() {
                    break;
                }
                read.extend_from_slice(&piece);
            }
            assert!(read == data, "{length}");
        }
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Source::open(&world(), &pipe).err().unwrap().to_string();
        assert!(error.contains("named pipe"), "{error}");
        let error = Source::open(&world(), dir.path()).err().unwrap().to_string();
        assert!(error.contains("-r"), "{error}");
        assert_eq!(Source::open(&world(), &dir.path().join("no")).err().unwrap().exit_number(), 3);
    }
}
