//! Data directories that fail, are replaced and come back while the server runs.

use std::{io::ErrorKind, path::Path, time::Duration};

use quarry_env_sim::{DiskOp, Injected};

use super::{
    dirs::{spread, two},
    *,
};

const EIO: Injected = Injected::Os(5);

/// What is left of a store's directories: the reasons of those out of service.
async fn failed(store: &Store) -> [Option<String>; 2] {
    let disks = store.disks().await.unwrap();
    [disks[0].failed.clone(), disks[1].failed.clone()]
}

/// Moves a directory away as an unmount does.
fn unmount(rig: &Rig, dir: &str) {
    rig.disk().mount().rename(Path::new(dir), Path::new("/away")).unwrap();
}

fn mount_again(rig: &Rig, dir: &str) {
    rig.disk().mount().rename(Path::new("/away"), Path::new(dir)).unwrap();
}

#[tokio::test]
async fn a_directory_that_vanishes_loses_only_its_own_chunks_and_comes_back() {
    let rig = two();
    let store = rig.start().await;
    let [lost, kept] = spread(&store).await;
    let open = ChunkId(50);
    let writer = written(&store, open, &data(open, 5000)).await;
    let before = store.digest().0;
    unmount(&rig, "/a");
    // Reads that come before anybody looked condemn nothing.
    assert_eq!(code(store.reader(lost[0], 9000, Crc32::of(&data(lost[0], 9000))).await), Some(ErrorCode::DiskFailed));
    store.look_after_disks().await;
    let [a, b] = failed(&store).await;
    assert!(a.is_some_and(|why| why.contains("IDENTITY is gone")) && b.is_none());
    let (number, changes) = store.changes_since(before).unwrap();
    assert!(number > before && changes.iter().filter(|change| change.item.is_none()).count() >= lost.len());
    for chunk in &lost {
        assert_eq!(state(&store, *chunk), None);
        assert_eq!(code(store.fence(*chunk).await), Some(ErrorCode::DiskFailed), "it is not unknown");
    }
    for chunk in &kept {
        holds(&store, *chunk, &data(*chunk, 9000)).await.unwrap();
    }
    drop(writer);
    sealed(&store, ChunkId(100), &data(ChunkId(100), 10)).await;
    store.look_after_disks().await;
    assert!(failed(&store).await[0].as_ref().is_some_and(|why| why.contains("it is not there")));

    mount_again(&rig, "/a");
    store.look_after_disks().await;
    assert_eq!(failed(&store).await, [None, None]);
    for chunk in lost.iter().chain(&kept) {
        holds(&store, *chunk, &data(*chunk, 9000)).await.unwrap();
    }
    let store = rig.power_cycle(store).await;
    for chunk in lost.iter().chain(&kept) {
        holds(&store, *chunk, &data(*chunk, 9000)).await.unwrap();
    }
}

#[tokio::test]
async fn s5_a_directory_is_replaced_by_an_empty_one_and_what_it_refused_stays_refused() {
    let rig = two();
    let store = rig.start().await;
    let [lost, kept] = spread(&store).await;
    let fenced = ChunkId(70);
    store.fence(fenced).await.unwrap();
    let deleted = lost[0];
    store.delete(leadership(1), deleted).await.unwrap();
    unmount(&rig, "/a");
    store.look_after_disks().await;
    rig.disk().mount().create_dir_all(Path::new("/a")).unwrap();
    store.look_after_disks().await;
    assert_eq!(failed(&store).await, [None, None]);
    let disks = store.disks().await.unwrap();
    assert_eq!((disks[0].used_bytes, disks[0].chunks), (0, 0));
    for id in 200..204 {
        sealed(&store, ChunkId(id), &data(ChunkId(id), 9000)).await;
    }
    assert!(store.disks().await.unwrap()[0].used_bytes > 0, "the new disk takes chunks");
    // The old one is given up; a crash and a loss of the other one later, what it refused is refused all the same.
    let refused = async |store: &Store| {
        for chunk in [fenced, deleted, lost[1]] {
            assert_eq!(code(store.create(chunk, LIMIT).await), Some(ErrorCode::Fenced), "{chunk}");
        }
        let answer = store.fence(lost[1]).await;
        assert_eq!(code(answer), Some(ErrorCode::DiskFailed), "it had bytes of it, so it cannot say that it had none");
    };
    refused(&store).await;
    let store = rig.power_cycle(store).await;
    refused(&store).await;
    holds(&store, kept[0], &data(kept[0], 9000)).await.unwrap();
    // Once no open chunk can lie in what was lost, unknown chunks are unknown again.
    store.watermark(ChunkId(210)).await.unwrap();
    assert_eq!(store.fence(ChunkId(300)).await.unwrap().length, 0);
    let store = rig.power_cycle(store).await;
    assert_eq!(store.fence(ChunkId(301)).await.unwrap().length, 0);
}

/// Chunks of a directory that was replaced stay known as lost, and the new one has the same path.
#[tokio::test]
async fn s1_what_was_lost_with_a_replaced_directory_is_not_committed_or_deleted_in_the_new_one() {
    let rig = two();
    let store = rig.start().await;
    let fenced = async |ids: std::ops::Range<u64>| {
        let mut seals = Vec::new();
        for chunk in ids.map(ChunkId) {
            let bytes = data(chunk, 9000);
            written(&store, chunk, &bytes).await.seal(9000, Crc32::of(&bytes)).await.unwrap();
            seals.push((chunk, 9000, Crc32::of(&bytes)));
        }
        let in_a = |seal: &(ChunkId, u64, Crc32)| rig.file(seal.0).starts_with("/a");
        seals.into_iter().filter(in_a).collect::<Vec<_>>()
    };
    let lost = fenced(100..106).await;
    unmount(&rig, "/a");
    store.look_after_disks().await;
    rig.disk().mount().create_dir_all(Path::new("/a")).unwrap();
    store.look_after_disks().await;
    assert_eq!(failed(&store).await, [None, None]);
    let new = fenced(1..7).await;
    assert!(!lost.is_empty() && !new.is_empty());
    let all = new.iter().chain(&lost).copied().collect();
    let receipts = store.commit_records(followed(&store), all).await.unwrap();
    let chunks = |seals: &[(ChunkId, u64, Crc32)]| seals.iter().map(|seal| seal.0).collect::<Vec<_>>();
    assert_eq!(receipts.into_keys().collect::<Vec<_>>(), chunks(&new));
    let all = new.iter().chain(&lost).map(|seal| seal.0).collect();
    let deleted = store.delete_many(followed(&store), all).await.unwrap();
    assert_eq!(deleted.into_iter().collect::<Vec<_>>(), chunks(&new));
}

#[tokio::test]
async fn s5_fences_of_a_failed_directory_survive_a_restart_without_it() {
    let rig = two();
    let store = rig.start().await;
    let [lost, _] = spread(&store).await;
    let deleted = lost[0];
    store.delete(leadership(1), deleted).await.unwrap();
    unmount(&rig, "/a");
    store.look_after_disks().await;
    drop(store);
    rig.machine.power_loss();
    rig.disk().break_under(Path::new("/a"), EIO);
    let store = rig.start().await;
    for chunk in [deleted, lost[1]] {
        assert_eq!(code(store.create(chunk, LIMIT).await), Some(ErrorCode::Fenced), "{chunk}");
    }
}

#[tokio::test]
async fn s1_a_failed_sync_poisons_the_directory_until_it_is_replaced_or_restarted() {
    let rig = two();
    let store = rig.start().await;
    let [lost, kept] = spread(&store).await;
    let chunk = ChunkId(60);
    let writer = written(&store, chunk, &data(chunk, 5000)).await;
    let slot = usize::from(rig.file(chunk).starts_with("/b"));
    rig.disk().fail_next_under(&rig.file(chunk), DiskOp::Sync, EIO);
    assert_eq!(code(writer.flush(5000).await), Some(ErrorCode::DiskFailed));
    store.disk_alarm().await;
    store.look_after_disks().await;
    assert!(failed(&store).await[slot].as_ref().is_some_and(|why| why.contains("sync")));
    store.look_after_disks().await;
    let why = failed(&store).await[slot].clone().unwrap();
    assert!(why.contains("replace the disk"), "a working disk is no reason to trust it: {why}");
    let here = if slot == 0 { &kept } else { &lost };
    holds(&store, here[0], &data(here[0], 9000)).await.unwrap();
    let store = rig.restart(store).await;
    assert_eq!(failed(&store).await, [None, None]);
    assert_eq!(state(&store, chunk), Some(ReplicaState::Quarantined), "the replica stays condemned");
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_not_taken_in() {
    let rig = two();
    let store = rig.start().await;
    let mut other = Rig::with_dirs(9, ["/c"]);
    other.machine = rig.machine.clone();
    drop(other.start().await);
    unmount(&rig, "/a");
    rig.disk().mount().rename(Path::new("/c"), Path::new("/a")).unwrap();
    store.look_after_disks().await;
    store.look_after_disks().await;
    let why = failed(&store).await[0].clone().unwrap();
    assert!(why.contains("belongs to chunkserver"), "{why}");
    sealed(&store, CHUNK, &data(CHUNK, 10)).await;
    assert!(rig.file(CHUNK).starts_with("/b"));
    // A copy of another directory of this server is not either.
    rig.disk().mount().rename(Path::new("/a"), Path::new("/c")).unwrap();
    rig.disk().mount().create_dir_all(Path::new("/a")).unwrap();
    let identity = rig.disk().mount().read_small(Path::new("/b/IDENTITY"), 1000).unwrap();
    rig.disk().mount().write_small(Path::new("/a/IDENTITY"), &identity, sync_points::IDENTITY_NEW).unwrap();
    store.look_after_disks().await;
    let why = failed(&store).await[0].clone().unwrap();
    assert!(why.contains("a copy of another"), "{why}");
}

#[tokio::test]
async fn the_only_directory_may_fail_and_come_back() {
    let rig = Rig::new(3);
    let store = rig.start().await;
    sealed(&store, CHUNK, &data(CHUNK, 300)).await;
    let tombstone = ChunkId(8);
    store.fence(tombstone).await.unwrap();
    unmount(&rig, "/a");
    store.look_after_disks().await;
    assert_eq!(code(store.has_disk()), Some(ErrorCode::DiskFailed));
    assert_eq!(code(store.create(ChunkId(9), LIMIT).await), Some(ErrorCode::DiskFailed));
    mount_again(&rig, "/a");
    store.look_after_disks().await;
    store.has_disk().unwrap();
    holds(&store, CHUNK, &data(CHUNK, 300)).await.unwrap();
    assert_eq!(code(store.create(tombstone, LIMIT).await), Some(ErrorCode::Fenced));
}

#[tokio::test]
async fn one_unreadable_file_is_one_replica_and_many_are_the_disk() {
    let rig = two();
    let store = rig.start().await;
    let [in_a, _] = spread(&store).await;
    let chunk = in_a[0];
    let check =
        |store: Store, chunk: ChunkId| async move { store.verify(chunk, 9000, Crc32::of(&data(chunk, 9000))).await };
    rig.disk().fail_next_under(&rig.file(chunk), DiskOp::Read, EIO);
    assert_eq!(code(check(store.clone(), chunk).await), Some(ErrorCode::Corrupt));
    store.look_after_disks().await;
    assert_eq!(failed(&store).await, [None, None]);
    assert_eq!(state(&store, chunk), Some(ReplicaState::Quarantined));
    assert_eq!(store.disks().await.unwrap()[0].errors, 1);
    for _ in 0..8 {
        rig.disk().fail_next_under(&rig.file(in_a[1]), DiskOp::Open, ErrorKind::Other);
        let _failed = check(store.clone(), in_a[1]).await;
    }
    store.look_after_disks().await;
    assert!(failed(&store).await[0].is_some());
}

#[tokio::test]
async fn an_unreadable_open_file_at_the_start_costs_its_own_replica() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    sealed(&store, ChunkId(1), &data(ChunkId(1), 300)).await;
    let _writer = written(&store, CHUNK, &data(CHUNK, 3000)).await;
    drop(store);
    rig.machine.kill();
    rig.disk().fail_next_under(&rig.file(CHUNK), DiskOp::Read, EIO);
    let store = rig.start().await;
    assert_eq!(store.disks().await.unwrap()[0].failed, None);
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
    holds(&store, ChunkId(1), &data(ChunkId(1), 300)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_refuses_writes_is_out_at_once() {
    for number in [5, 13, 30] {
        let rig = two();
        let store = rig.start().await;
        let [_, kept] = spread(&store).await;
        rig.disk().fail_next_under(Path::new("/a/PROBE"), DiskOp::Create, Injected::Os(number));
        store.look_after_disks().await;
        assert!(failed(&store).await[0].is_some(), "{number}");
        holds(&store, kept[0], &data(kept[0], 9000)).await.unwrap();
        // It works again.
        store.look_after_disks().await;
        assert_eq!(failed(&store).await, [None, None], "{number}");
    }
}

/// What hangs, hangs alone.
#[tokio::test(start_paused = true)]
async fn a_directory_that_does_not_answer_is_out_and_the_others_are_not() {
    let rig = two();
    let mut world = rig.machine.boot();
    let hanging = std::sync::Arc::new(Hanging::default());
    world.disk = std::sync::Arc::new(HangingDisk { disk: world.disk, hanging: hanging.clone() });
    world.blocking = quarry_env::World::real(std::sync::Arc::new(quarry_env::kv::NoKv)).blocking;
    let store = Store::open(world, rig.config.clone()).await.unwrap();
    store.adopt(cluster(), leadership(1)).await.unwrap();
    hanging.hang(true);
    let (looked_at, hung) = (store.clone(), store.0.dirs()[0].clone());
    let looking = tokio::spawn(async move { looked_at.look_after(0).await });
    while !hung.busy.load(std::sync::atomic::Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
    // Paused time stands while blocking work runs.
    tokio::time::advance(Duration::from_secs(11)).await;
    looking.await.unwrap();
    // The first still hangs.
    store.look_after_disks().await;
    let [a, b] = failed(&store).await;
    hanging.hang(false);
    assert!(a.is_some_and(|why| why.contains("has not answered")) && b.is_none());
    assert!(rig.disk().files().iter().any(|(path, _)| path == Path::new("/b/PROBE")), "it was looked at");
}

#[derive(Default)]
struct Hanging(std::sync::Mutex<bool>, std::sync::Condvar);

impl Hanging {
    fn hang(&self, on: bool) {
        *self.0.lock().unwrap() = on;
        self.1.notify_all();
    }

    /// A test that fails must not leave a thread behind that waits for ever.
    fn pass(&self, path: &Path) {
        let mut hangs = self.0.lock().unwrap();
        while *hangs && path.starts_with("/a") {
            hangs = self.1.wait(hangs).unwrap();
        }
    }
}

/// Every open below `/a` waits.
struct HangingDisk {
    disk: std::sync::Arc<dyn quarry_env::Disk>,
    hanging: std::sync::Arc<Hanging>,
}

impl quarry_env::Disk for HangingDisk {
    fn open(&self, path: &Path, mode: quarry_env::OpenMode) -> std::io::Result<Box<dyn quarry_env::DiskFile>> {
        self.hanging.pass(path);
        self.disk.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> std::io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn sync_dir(&self, path: &Path, point: quarry_env::SyncPoint) -> std::io::Result<()> {
        self.disk.sync_dir(path, point)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> std::io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        self.disk.list(path)
    }
    fn exists(&self, path: &Path) -> std::io::Result<bool> {
        self.disk.exists(path)
    }
    fn space(&self, path: &Path) -> std::io::Result<quarry_env::DiskSpace> {
        self.disk.space(path)
    }
    fn lock(&self, path: &Path) -> std::io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}
