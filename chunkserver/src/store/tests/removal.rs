use quarry_env::OpenMode;
use quarry_env_sim::DiskOp;

use super::*;

#[tokio::test]
async fn s6_a_deleted_chunk_stays_deleted_and_refused() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    sealed(&store, CHUNK, &data(CHUNK, 3000)).await;
    let path = rig.file(CHUNK);
    store.delete(followed(&store), CHUNK).await.unwrap();
    store.delete(followed(&store), CHUNK).await.unwrap();
    assert!(rig.disk().files().iter().all(|(file, _)| *file != path));
    assert_eq!(store.disks().await.unwrap()[0].used_bytes, 0);
    for store in [store.clone(), rig.power_cycle(store).await] {
        if store.identity().start_counter == 1 {
            continue;
        }
        assert_eq!(code(store.reader(CHUNK, 3000, Crc32(0)).await), Some(ErrorCode::NoReplica));
        assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
        assert!(store.inventory().1.is_empty());
    }
}

#[tokio::test]
async fn s6_a_delete_before_the_chunk_leaves_a_tombstone() {
    let rig = Rig::new(2);
    let store = rig.start().await;
    store.delete(followed(&store), CHUNK).await.unwrap();
    let store = rig.power_cycle(store).await;
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
}

#[tokio::test]
async fn s6_deleting_an_open_replica_ends_its_writer() {
    let rig = Rig::new(3);
    let store = rig.start().await;
    let writer = written(&store, CHUNK, b"bytes").await;
    store.delete(followed(&store), CHUNK).await.unwrap();
    assert_eq!(code(append(&writer, b"more").await), Some(ErrorCode::Fenced));
    assert_eq!(store.counts(), Counts { tombstones: 1, ..Counts::default() });
}

#[tokio::test]
async fn s6_a_file_that_came_back_is_removed_but_no_other() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    let bytes = data(CHUNK, 3000);
    sealed(&store, CHUNK, &bytes).await;
    let gone = ChunkId(0x207);
    sealed(&store, gone, &data(gone, 100)).await;
    let path = rig.file(gone);
    // The unlinking fails; the tombstone stands.
    rig.disk().fail_next_under(&path, DiskOp::Remove, std::io::ErrorKind::Other);
    store.delete(followed(&store), gone).await.unwrap();
    let disk = rig.disk().mount();
    let mine = std::path::Path::new("/a/chunks/07/notes.txt");
    disk.open(mine, OpenMode::CreateNew).unwrap();
    assert!(disk.exists(&path).unwrap());
    let store = rig.restart(store).await;
    let disk = rig.disk().mount();
    assert!(!disk.exists(&path).unwrap(), "the deleted chunk's file");
    assert!(disk.exists(mine).unwrap(), "what is not ours");
    holds(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn s7_changes_are_numbered_and_lead_to_the_same_inventory() {
    let rig = Rig::new(5);
    let store = rig.start().await;
    sealed(&store, ChunkId(1), &data(ChunkId(1), 10)).await;
    let (number, items) = store.inventory();
    assert_eq!(items.len(), 1);
    let before = store.digest();
    assert_eq!(before.0, number);
    let writer = written(&store, ChunkId(2), b"x").await;
    let open = store.digest();
    append(&writer, b"y").await.unwrap();
    assert_eq!(store.digest(), open, "a growing replica does not change the inventory");
    store.fence(ChunkId(2)).await.unwrap();
    store.delete(followed(&store), ChunkId(1)).await.unwrap();
    let (last, changes) = store.changes_since(number).unwrap();
    assert_eq!(changes.len() as u64, last - number);
    let ends: Vec<_> = changes.iter().map(|c| (c.chunk.0, c.item.map(|i| i.state))).collect();
    assert_eq!(ends, [(2, Some(ReplicaState::Open)), (2, Some(ReplicaState::Fenced)), (1, None)]);
    assert_eq!(store.changes_since(last + 1), None);
    let digest = store.digest().1;
    let store = rig.restart(store).await;
    assert_eq!(store.digest().1, digest, "the digest depends on what is there, not on how it came");
}

#[tokio::test]
async fn s9_tombstones_are_bounded_by_refusing() {
    let rig = Rig::new(9);
    let store = rig.start().await;
    let bytes = data(CHUNK, 100);
    sealed(&store, CHUNK, &bytes).await;
    let many = (0..fence::TOMBSTONES_MAX as u64).map(|n| (ChunkId((1 << 40) + n), true));
    lock(&store.0.state).tombstones.extend(many);
    assert_eq!(code(store.fence(ChunkId(1)).await), Some(ErrorCode::Busy));
    assert_eq!(code(store.delete(followed(&store), CHUNK).await), Some(ErrorCode::Busy));
    holds(&store, CHUNK, &bytes).await.unwrap();
    assert_eq!(store.counts().tombstones, fence::TOMBSTONES_MAX as u64);
    store.watermark(ChunkId(CHUNK.0 + 1)).await.unwrap();
    store.delete(followed(&store), CHUNK).await.unwrap();
    assert_eq!(state(&store, CHUNK), None);
}

#[tokio::test]
async fn s6_many_deleted_at_once_are_gone_for_good_and_the_rest_is_as_it_was() {
    let rig = Rig::with_dirs(20, ["/a", "/b"]);
    let store = rig.start().await;
    let ids: Vec<_> = (1..=40).map(ChunkId).collect();
    for chunk in &ids {
        let bytes = data(*chunk, if chunk.0 % 2 == 0 { 3000 } else { 70_000 });
        let writer = store.create(*chunk, LIMIT).await.unwrap();
        append_last(&writer, &bytes).await.unwrap();
    }
    let writer = written(&store, CHUNK, b"still open").await;
    let kept = ids[39];
    // Once named twice, and one that is not here.
    let mut named = ids[..39].to_vec();
    named.extend([ids[3], CHUNK, ChunkId(999)]);
    let done = store.delete_many(followed(&store), named).await.unwrap();
    assert_eq!(done, ids[..39].iter().copied().chain([CHUNK]).collect());
    assert_eq!(code(append(&writer, b"more").await), Some(ErrorCode::Fenced));
    assert_eq!(store.counts(), Counts { replicas: 1, tombstones: 40, ..Counts::default() });
    let files =
        rig.disk().files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "chunk")).count();
    assert_eq!(files, 0, "the one that is kept is in the index");
    let used: u64 = store.disks().await.unwrap().iter().map(|disk| disk.used_bytes).sum();
    assert_eq!(used, 3000);
    let stale = store.delete_many(leadership(0), vec![kept]).await;
    assert_eq!(code(stale), Some(ErrorCode::StaleLeader));
    drop(writer);
    let store = rig.power_cycle(store).await;
    for chunk in done {
        assert_eq!(state(&store, chunk), None);
        assert_eq!(code(store.create(chunk, LIMIT).await), Some(ErrorCode::Fenced));
    }
    holds(&store, kept, &data(kept, 3000)).await.unwrap();
}

#[tokio::test]
async fn s9_many_deleted_at_once_keep_to_the_room_for_tombstones() {
    let rig = Rig::new(21);
    let store = rig.start().await;
    for chunk in 1..=3 {
        sealed(&store, ChunkId(chunk), b"x").await;
    }
    {
        let mut state = lock(&store.0.state);
        let free = 1_000_000..1_000_000 + crate::store::fence::TOMBSTONES_MAX as u64 - 2;
        state.tombstones.extend(free.map(|chunk| (ChunkId(chunk), true)));
    }
    let done = store.delete_many(followed(&store), (1..=3).map(ChunkId).collect()).await.unwrap();
    assert_eq!(done, [1, 2].map(ChunkId).into());
    assert_eq!(code(store.delete(followed(&store), ChunkId(3)).await), Some(ErrorCode::Busy));
    assert_eq!(state(&store, ChunkId(3)), Some(ReplicaState::Sealed));
}
