//! `kill -9` of a real process, on RocksDB, at each change of its files around a snapshot, a purge and an installation.
//!
//! The test starts its own binary again as the process to be killed. That one counts what it changes through
//! `World`; at the change it was told, it says which one it is and stands still, and is killed there.
#![expect(clippy::disallowed_methods, reason = "it starts and kills a process, and waits for it")]

use std::{
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Command as Process, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quarry_env::{Batch, Disk, DiskFile, DiskSpace, Kv, KvError, KvFactory, KvOptions, OpenMode, Space, SyncPoint};

use super::*;
use crate::store::Layout;

/// Tells the process to be killed where its files are, and at which change to stop.
pub(super) const DIR: &str = "QUARRY_TEST_KILLED_DIR";
pub(super) const AT: &str = "QUARRY_TEST_KILLED_AT";
const TEST: &str = "raft::tests::killed::s11_a_kill_at_any_change_of_the_files_loses_nothing";
const ACKNOWLEDGED: &str = "acknowledged ";
const STOPPED: &str = "stopped before ";
/// More changes than the work makes: it must end by itself at some point.
pub(super) const CHANGES_MAX: u64 = 400;

/// Counts changes; stands still at the one it was told.
struct Brake {
    changes: AtomicU64,
    at: u64,
}

impl Brake {
    fn before(&self, what: impl FnOnce() -> String) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        if number == self.at {
            println!("{STOPPED}{}", what());
        }
        if number >= self.at {
            // Until it is killed.
            loop {
                std::thread::park();
            }
        }
    }
}

struct Braked<T: ?Sized>(Arc<T>, Arc<Brake>);

struct BrakedFile(Box<dyn DiskFile>, Arc<Brake>);

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Disk for Braked<dyn Disk> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            self.1.before(|| format!("creating {}", name(path)));
        }
        Ok(Box::new(BrakedFile(self.0.open(path, mode)?, Arc::clone(&self.1))))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.1.before(|| format!("making {}", name(path)));
        self.0.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        self.1.before(|| format!("syncing names: {}", point.0));
        self.0.sync_dir(path, point)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.1.before(|| format!("renaming to {}", name(to)));
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.1.before(|| format!("removing {}", name(path)));
        self.0.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.1.before(|| format!("removing {}", name(path)));
        self.0.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
}

impl DiskFile for BrakedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.before(|| "writing a file".into());
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        self.1.before(|| format!("syncing a file: {}", point.0));
        self.0.sync_data(point)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.1.before(|| "cutting a file".into());
        self.0.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl KvFactory for Braked<dyn KvFactory> {
    fn open(&self, path: &Path, spaces: &[Space], options: KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        self.1.before(|| format!("opening the store {}", name(path)));
        Ok(Arc::new(Braked(self.0.open(path, spaces, options)?, Arc::clone(&self.1))))
    }
}

impl Kv for Braked<dyn Kv> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.0.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<quarry_env::kv::Pair>, KvError> {
        self.0.scan(space, from, to, limit)
    }

    fn get_at_hand(&self, space: Space, key: &[u8]) -> Result<quarry_env::kv::AtHand<Option<Vec<u8>>>, KvError> {
        self.0.get_at_hand(space, key)
    }

    fn scan_at_hand(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<quarry_env::kv::AtHand<Vec<quarry_env::kv::Pair>>, KvError> {
        self.0.scan_at_hand(space, from, to, limit)
    }

    fn last(&self, space: Space) -> Result<Option<quarry_env::kv::Pair>, KvError> {
        self.0.last(space)
    }

    fn write(&self, batch: Batch, sync: Option<SyncPoint>) -> Result<(), KvError> {
        self.1.before(|| format!("writing to a store: {}", sync.map_or("not synced", |point| point.0)));
        self.0.write(batch, sync)
    }

    fn flush(&self, point: SyncPoint) -> Result<(), KvError> {
        self.1.before(|| format!("flushing a store: {}", point.0));
        self.0.flush(point)
    }

    fn checkpoint(&self, to: &Path) -> Result<(), KvError> {
        self.1.before(|| format!("making the checkpoint {}", name(to)));
        self.0.checkpoint(to)
    }

    fn freeze(self: Arc<Self>) -> Result<Box<dyn quarry_env::kv::Frozen>, KvError> {
        Arc::clone(&self.0).freeze()
    }
}

pub(super) fn braked(at: u64) -> World {
    let brake = Arc::new(Brake { changes: AtomicU64::new(0), at });
    let real = real();
    World { disk: Arc::new(Braked(real.disk, Arc::clone(&brake))), kv: Arc::new(Braked(real.kv, brake)), ..real }
}

fn group_config() -> GroupConfig {
    GroupConfig { keep_log: 2, ..config() }
}

/// What the process to be killed does: opening, which restores the state from a snapshot, commands, a snapshot in
/// the place of that one, the purge behind it, and commands.
async fn victim(dir: &Path, at: u64) {
    let group = Group::open(&braked(at), dir, us(), group_config()).await.unwrap();
    led(&group).await;
    for n in 100..104 {
        if n == 102 {
            let upto = group.snapshot().await.unwrap();
            group.purged(upto - 2).await;
        }
        println!("{ACKNOWLEDGED}{}", session(&group, n).await.unwrap().0);
    }
    group.shutdown().await;
}

/// A group with a snapshot, a purged log, and no state: a machine on which an installation is due.
async fn prepared(dir: &Path) -> Vec<SessionId> {
    let world = real();
    Group::create(&world, dir, me(), us(), first()).await.unwrap();
    let group = Group::open(&world, dir, us(), group_config()).await.unwrap();
    led(&group).await;
    let mut acknowledged = Vec::new();
    for n in 0..6 {
        acknowledged.push(session(&group, n).await.unwrap());
    }
    let upto = group.snapshot().await.unwrap();
    group.purged(upto - 2).await;
    acknowledged.push(session(&group, 6).await.unwrap());
    group.shutdown().await;
    drop(group);
    let layout = Layout::new(&world, dir);
    world.disk.remove_dir_all(&layout.state(&layout.current().unwrap().unwrap())).unwrap();
    acknowledged
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The process to be killed; it does not outlive its guard.
struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Runs the victim, which is the test of this name, until it stops before change `at`, and kills it: what it had acknowledged,
/// and where it stopped.
pub(super) fn killed(test: &str, dir: &Path, at: u64) -> (Vec<SessionId>, Option<String>) {
    let process = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(DIR, dir)
        .env(AT, at.to_string())
        .stdout(Stdio::piped())
        .spawn();
    let mut victim = Victim(process.unwrap());
    let (mut acknowledged, mut stopped) = (Vec::new(), None);
    for line in BufReader::new(victim.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix(ACKNOWLEDGED) {
            acknowledged.push(SessionId(id.parse().unwrap()));
        }
        if let Some(what) = line.strip_prefix(STOPPED) {
            stopped = Some(what.to_owned());
            victim.0.kill().unwrap();
        }
    }
    let ended = victim.0.wait().unwrap();
    assert_eq!(ended.success(), stopped.is_none(), "at change {at}: {ended}");
    (acknowledged, stopped)
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_kill_at_any_change_of_the_files_loses_nothing() {
    if let (Ok(dir), Ok(at)) = (std::env::var(DIR), std::env::var(AT)) {
        println!();
        return victim(Path::new(&dir), at.parse().unwrap()).await;
    }
    let temp = tempfile::tempdir().unwrap();
    let origin = temp.path().join("origin");
    let before = prepared(&origin).await;
    let mut points = Vec::new();
    for at in 0..CHANGES_MAX {
        let dir = temp.path().join(format!("at-{at}"));
        copy(&origin, &dir);
        let (acknowledged, stopped) = killed(TEST, &dir, at);
        let world = real();
        let group = Group::open(&world, &dir, us(), group_config()).await;
        let group = group.unwrap_or_else(|e| panic!("killed before {stopped:?} (change {at}): {e}"));
        led(&group).await;
        for id in before.iter().chain(&acknowledged) {
            assert!(has_session(&group, *id).await, "killed before {stopped:?} (change {at}): {id} is missing");
        }
        let next = session(&group, 200).await.unwrap();
        assert!(!before.contains(&next) && !acknowledged.contains(&next));
        group.shutdown().await;
        drop(group);
        std::fs::remove_dir_all(&dir).unwrap();
        match stopped {
            Some(what) => points.push(what),
            None => break,
        }
    }
    println!("killed before each of {} changes: {points:#?}", points.len());
    assert!(u64::try_from(points.len()).unwrap() < CHANGES_MAX, "the work does not end");
    for point in [
        "making the checkpoint kv",
        "syncing a file: master: snapshot taken",
        "syncing names: master: snapshot taken",
        "syncing names: master: snapshot's name",
        "syncing a file: master: current state",
        "renaming to CURRENT",
        "syncing names: master: current state",
        "writing to a store: master: log entries",
        "writing to a store: not synced",
    ] {
        assert!(points.iter().any(|what| what == point), "{point:?} is not among {points:#?}");
    }
    let removed = |prefix| points.iter().any(|what| what.starts_with(prefix));
    assert!(removed("making the checkpoint state-") && removed("removing snapshot-"), "{points:#?}");
}
