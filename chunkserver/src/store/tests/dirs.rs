use std::{io::ErrorKind, path::Path};

use quarry_env::OpenMode;
use quarry_env_sim::DiskOp;

use super::*;

/// Chunks spread over both directories, with those in each.
pub(super) async fn spread(store: &Store) -> [Vec<ChunkId>; 2] {
    let mut in_dirs = [vec![], vec![]];
    for id in 1..=6 {
        let chunk = ChunkId(id);
        let before = store.disks().await.unwrap();
        sealed(store, chunk, &data(chunk, 9000)).await;
        let after = store.disks().await.unwrap();
        in_dirs[usize::from(after[1].used_bytes > before[1].used_bytes)].push(chunk);
    }
    assert!(in_dirs.iter().all(|chunks| !chunks.is_empty()), "{in_dirs:?}");
    in_dirs
}

/// Two directories with limits, so that the emptier one is chosen.
pub(super) fn two() -> Rig {
    let mut rig = Rig::with_dirs(1, ["/a", "/b"]);
    rig.disk().set_capacity(Some(1 << 40));
    rig.config.dirs.iter_mut().for_each(|dir| dir.capacity = Some(1 << 30));
    rig
}

#[tokio::test]
async fn s8_a_failed_index_takes_only_its_own_chunks() {
    let rig = two();
    let store = rig.start().await;
    let [lost, kept] = spread(&store).await;
    rig.disk().break_under(Path::new("/a"), ErrorKind::Other);
    assert_eq!(code(store.delete(followed(&store), lost[0]).await), Some(ErrorCode::DiskFailed));
    for chunk in &lost {
        assert_eq!(code(store.reader(*chunk, 9000, Crc32::of(&data(*chunk, 9000))).await), Some(ErrorCode::DiskFailed));
        assert_eq!(code(store.fence(*chunk).await), Some(ErrorCode::DiskFailed));
        assert_eq!(state(&store, *chunk), None, "the master is told that it is not here");
    }
    for chunk in &kept {
        holds(&store, *chunk, &data(*chunk, 9000)).await.unwrap();
    }
    sealed(&store, ChunkId(100), &data(ChunkId(100), 10)).await;
    let disks = store.disks().await.unwrap();
    assert!(disks[0].failed.is_some() && disks[1].failed.is_none());
    store.probe().await.unwrap();
}

#[tokio::test]
async fn s1_a_server_that_lost_a_directory_never_says_that_it_saw_nothing() {
    let rig = two();
    let store = rig.start().await;
    let [lost, kept] = spread(&store).await;
    drop(store);
    rig.machine.kill();
    rig.disk().fail_next_under(Path::new("/a/IDENTITY"), DiskOp::Open, ErrorKind::Other);
    let store = rig.start().await;
    assert_eq!(code(store.fence(lost[0]).await), Some(ErrorCode::DiskFailed), "it may have acknowledged bytes of it");
    assert_eq!(code(store.create(lost[0], LIMIT).await), Some(ErrorCode::Fenced), "and takes no more of it");
    holds(&store, kept[0], &data(kept[0], 9000)).await.unwrap();

    // The same without the directory in the settings: the others remember that there was one.
    drop(store);
    rig.machine.kill();
    let mut fewer = rig.config.clone();
    fewer.dirs.remove(0);
    let store = Store::open(rig.machine.boot(), fewer).await.unwrap();
    assert_eq!(code(store.fence(lost[1]).await), Some(ErrorCode::DiskFailed));
    drop(store);
    // And back again.
    rig.machine.kill();
    let store = rig.start().await;
    holds(&store, lost[0], &data(lost[0], 9000)).await.unwrap();
    assert_eq!(store.fence(ChunkId(500)).await.unwrap().length, 0);
}

#[tokio::test]
async fn s11_wrong_directories_are_refused() {
    let rig = Rig::with_dirs(2, ["/a"]);
    let mut other = Rig::with_dirs(3, ["/b"]);
    other.machine = rig.machine.clone();
    drop(rig.start().await);
    let theirs = other.try_start().await.unwrap();
    theirs.adopt(ClusterId::from_bytes(&[2; 16]).unwrap(), leadership(1)).await.unwrap();
    drop(theirs);

    let open = |dirs: StoreConfig| Store::open(rig.machine.boot(), dirs);
    let error = open(config(["/a", "/b"])).await.err().unwrap();
    assert_eq!(error.code(), ErrorCode::Mismatch, "{error}");

    let disk = rig.disk().mount();
    let identity = disk.read_small(Path::new("/a/IDENTITY"), 1000).unwrap();
    let point = sync_points::IDENTITY_NEW;
    let mut newer = identity.clone();
    newer[8] = 2;
    disk.write_small(Path::new("/a/IDENTITY"), &newer, point).unwrap();
    let error = open(config(["/a"])).await.err().unwrap();
    assert!(error.to_string().contains("newer release"), "{error}");

    let mut damaged = identity.clone();
    damaged[20] ^= 1;
    disk.write_small(Path::new("/a/IDENTITY"), &damaged, point).unwrap();
    assert_eq!(code(open(config(["/a"])).await), Some(ErrorCode::Mismatch));

    disk.write_small(Path::new("/a/IDENTITY"), &identity, point).unwrap();
    let running = open(config(["/a"])).await.unwrap();
    let error = open(config(["/a"])).await.err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(running);
    assert_eq!(code(open(config([])).await), Some(ErrorCode::DiskFailed));
}

#[tokio::test]
async fn s11_a_lost_index_or_identity_never_makes_chunks_look_unclaimed() {
    for lost in ["/a/index", "/a/IDENTITY"] {
        let rig = Rig::new(4);
        let store = rig.start().await;
        sealed(&store, CHUNK, &data(CHUNK, 100)).await;
        drop(store);
        rig.machine.kill();
        let disk = rig.disk().mount();
        if lost.ends_with("index") {
            disk.remove_dir_all(Path::new(lost)).unwrap();
        } else {
            disk.remove_file(Path::new(lost)).unwrap();
        }
        let error = rig.try_start().await.err().unwrap();
        assert!(error.to_string().contains("/a"), "{error}");
        assert!(disk.exists(&rig.file(CHUNK)).unwrap(), "{lost}");
    }
}

#[tokio::test]
async fn s11_a_directory_is_added_to_a_server() {
    let rig = two();
    let mut one = rig.config.clone();
    one.dirs.pop();
    let store = Store::open(rig.machine.boot(), one).await.unwrap();
    store.adopt(cluster(), leadership(3)).await.unwrap();
    let server = store.identity().server;
    drop(store);
    rig.machine.power_loss();
    let store = rig.try_start().await.unwrap();
    assert_eq!((store.identity().server, store.identity().cluster), (server, Some(cluster())));
    assert_eq!(store.identity().start_counter, 2);
    spread(&store).await;
    drop(store);
    rig.machine.power_loss();
    // The new directory alone knows all that matters.
    let mut other = rig.config.clone();
    other.dirs.remove(0);
    let store = Store::open(rig.machine.boot(), other).await.unwrap();
    assert_eq!((store.leadership(), store.identity().start_counter), (Some(leadership(3)), 3));
}

#[tokio::test]
async fn s8_a_full_directory_refuses_bytes_and_still_fences() {
    let mut rig = Rig::new(5);
    rig.config.dirs[0].capacity = Some(3 << 20);
    rig.disk().set_capacity(Some(1 << 30));
    let store = rig.start().await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    let mut wrote = 0;
    let error = loop {
        match append(&writer, &data(CHUNK, 100_000)).await {
            Ok(()) => wrote += 100_000,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::NoSpace, "{error}");
    assert!(wrote > 2 << 20 && wrote < 3 << 20, "{wrote}");
    writer.flush(wrote).await.unwrap();
    assert_eq!(code(store.create(ChunkId(9), LIMIT).await), Some(ErrorCode::NoSpace));
    assert_eq!(store.fence(CHUNK).await.unwrap().length, wrote);
    let disks = store.disks().await.unwrap();
    assert_eq!((disks[0].capacity_bytes, disks[0].used_bytes), (3 << 20, 8192 + wrote));
    let store = rig.restart(store).await;
    assert_eq!(store.disks().await.unwrap()[0].used_bytes, 8192 + wrote);
    store.delete(followed(&store), CHUNK).await.unwrap();
    store.create(ChunkId(9), LIMIT).await.unwrap();
}

#[tokio::test]
async fn s8_a_disk_that_others_fill_is_no_worse() {
    let rig = Rig::new(6);
    rig.disk().set_capacity(Some(64 << 20));
    let store = rig.start().await;
    let writer = written(&store, CHUNK, &data(CHUNK, 50_000)).await;
    let hog = rig.disk().mount().open(Path::new("/hog"), OpenMode::CreateNew).unwrap();
    hog.set_len(63 << 20).unwrap();
    assert_eq!(code(append(&writer, b"more").await), Some(ErrorCode::NoSpace));
    assert_eq!(store.fence(CHUNK).await.unwrap().length, 50_000, "there is still room for a fence");
    store.fence(ChunkId(77)).await.unwrap();
    assert_eq!(store.disks().await.unwrap()[0].available_bytes, 0);
}

#[tokio::test]
async fn s8_a_write_that_fails_leaves_what_was_acknowledged() {
    for error in [ErrorKind::StorageFull, ErrorKind::Other] {
        let rig = Rig::new(7);
        let store = rig.start().await;
        let bytes = data(CHUNK, 70_000);
        let writer = written(&store, CHUNK, &bytes).await;
        rig.disk().fail_next_under(&rig.file(CHUNK), DiskOp::Write, error);
        let failed = append(&writer, b"more").await.unwrap_err();
        assert_eq!(failed.code() == ErrorCode::NoSpace, error == ErrorKind::StorageFull);
        assert_eq!(append(&writer, b"more").await.unwrap_err(), failed, "nothing follows a write that broke off");
        assert_eq!(store.fence(CHUNK).await.unwrap().length, 70_000);
        let store = rig.power_cycle(store).await;
        holds(&store, CHUNK, &bytes).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_created_leaves_an_empty_fenced_replica() {
    let rig = Rig::new(8);
    let store = rig.start().await;
    rig.disk().fail_next_under(Path::new("/a/chunks"), DiskOp::Create, ErrorKind::Other);
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    assert_eq!(code(append(&writer, b"x").await), Some(ErrorCode::DiskFailed));
    assert_eq!(store.fence(CHUNK).await.unwrap().length, 0);
    assert_eq!(store.disks().await.unwrap()[0].used_bytes, 0);
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
}

#[tokio::test]
async fn s11_a_first_start_may_be_cut_off_at_any_change() {
    let changes = |rig: &Rig| rig.disk().changes();
    let one = Rig::with_dirs(0, ["/data/a"]);
    drop(one.start().await);
    for after in 0..changes(&one) {
        cut_off_in_first_start(after, ["/data/a"]).await;
    }
    // Of several, what is special comes at the end.
    let two = Rig::with_dirs(0, ["/data/a", "/data/b"]);
    drop(two.start().await);
    for after in changes(&two) - 40..changes(&two) {
        cut_off_in_first_start(after, ["/data/a", "/data/b"]).await;
    }
}

async fn cut_off_in_first_start<const N: usize>(after: u64, dirs: [&str; N]) {
    for power in [false, true] {
        let rig = Rig::with_dirs(after, dirs);
        rig.disk().power_off_after(after);
        if let Ok(store) = rig.try_start().await {
            let _cut_off = store.adopt(cluster(), leadership(1)).await;
        }
        if power {
            rig.machine.power_loss();
        } else {
            rig.machine.kill();
        }
        let store = rig.start().await;
        assert_eq!(store.fence(ChunkId(1)).await.map(|r| r.length), Ok(0), "{after}: it never had a chunk");
        let server = store.identity().server;
        sealed(&store, CHUNK, &data(CHUNK, 100)).await;
        let store = rig.power_cycle(store).await;
        assert_eq!(store.identity().server, server, "{after}, power loss {power}");
        holds(&store, CHUNK, &data(CHUNK, 100)).await.unwrap();
    }
}
