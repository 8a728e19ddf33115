use super::*;

#[tokio::test]
async fn s1_restart_fences_open_replicas() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let bytes = data(CHUNK, 2 * BLOCK + 500);
    let writer = written(&store, CHUNK, &bytes).await;
    writer.flush(bytes.len() as u64).await.unwrap();
    append(&writer, b"not flushed").await.unwrap();
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Open));
    let store = rig.restart(store).await;
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Fenced));
    assert_eq!(code(append(&writer, b"x").await), Some(ErrorCode::DiskFailed), "the old process is dead");
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    let receipt = store.fence(CHUNK).await.unwrap();
    assert_eq!((receipt.length, receipt.crc), (bytes.len() as u64, Crc32::of(&bytes)));
    assert!(receipt.restarted && receipt.durable);
    holds(&store, CHUNK, &bytes).await.unwrap();
    let again = rig.restart(store).await.fence(CHUNK).await.unwrap();
    assert_eq!(again, receipt, "a second restart changes nothing");
}

#[tokio::test]
async fn s1_replica_below_its_flushed_mark_takes_no_part() {
    let rig = Rig::new(2);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 500);
    let writer = written(&store, CHUNK, &bytes).await;
    writer.flush(bytes.len() as u64).await.unwrap();
    // The disk loses what it had confirmed.
    rig.disk().corrupt(&rig.file(CHUNK), 8192 + 10).unwrap();
    let store = rig.restart(store).await;
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
    assert_eq!(code(store.fence(CHUNK).await), Some(ErrorCode::Corrupt));
    assert_eq!(code(store.commit_seal(followed(&store), CHUNK, 5, Crc32(1)).await), Some(ErrorCode::Corrupt));
    assert_eq!(store.counts().quarantined, 1);
}

#[tokio::test]
async fn s1_a_restarted_member_says_so_even_with_no_bytes() {
    let rig = Rig::new(3);
    let store = rig.start().await;
    let _writer = written(&store, CHUNK, b"some bytes").await;
    let store = rig.power_cycle(store).await;
    let receipt = store.fence(CHUNK).await.unwrap();
    assert_eq!((receipt.length, receipt.restarted), (0, true));
    let never_seen = store.fence(ChunkId(0x999)).await.unwrap();
    assert_eq!((never_seen.length, never_seen.restarted), (0, false));
}

#[tokio::test]
async fn s1_a_failed_sync_condemns_the_replica_for_good() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    let bytes = data(CHUNK, 3000);
    let writer = written(&store, CHUNK, &bytes).await;
    rig.disk().fail_next_under(&rig.file(CHUNK), quarry_env_sim::DiskOp::Sync, std::io::ErrorKind::Other);
    assert_eq!(code(writer.flush(3000).await), Some(ErrorCode::DiskFailed));
    assert_eq!(code(writer.flush(3000).await), Some(ErrorCode::Fenced), "never tried again as if nothing had happened");
    assert_eq!(code(store.fence(CHUNK).await), Some(ErrorCode::Corrupt));
    // The page cache still has the bytes; the disk may not.
    let store = rig.restart(store).await;
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
}

#[tokio::test]
async fn s1_buffered_receipts_say_that_they_are_not_durable() {
    let rig = Rig::buffered(5);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 77);
    let writer = written(&store, CHUNK, &bytes).await;
    writer.flush(77).await.unwrap();
    let receipt = writer.seal(bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    assert!(!receipt.durable);
    // A mere restart finds it complete, makes it durable and has nothing to confess.
    let store = rig.restart(store).await;
    let receipt = store.fence(CHUNK).await.unwrap();
    assert!(receipt.durable && !receipt.restarted && receipt.length == bytes.len() as u64);
    let store = rig.power_cycle(store).await;
    holds(&store, CHUNK, &bytes).await.unwrap();

    let other = ChunkId(0x208);
    let writer = written(&store, other, &bytes).await;
    writer.seal(bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    let receipt = store.commit_seal(followed(&store), other, bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    assert!(receipt.durable, "a committed seal is durable whatever the mode");
    let store = rig.power_cycle(store).await;
    holds(&store, other, &bytes).await.unwrap();
}

/// Seals a buffered replica as a writer and then its master do.
async fn sealed_buffered(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Receipt {
    let crc = Crc32::of(bytes);
    written(store, chunk, bytes).await.seal(bytes.len() as u64, crc).await.unwrap();
    store.commit_seal_as_promised(followed(store), chunk, bytes.len() as u64, crc).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn s1_a_buffered_seal_is_synced_when_its_time_has_come_and_not_before() {
    let rig = Rig::buffered(7);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 77);
    let receipt = sealed_buffered(&store, CHUNK, &bytes).await;
    assert!(!receipt.durable, "it says so");
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
    holds(&store, CHUNK, &bytes).await.unwrap();
    assert!(store.due_syncs().is_empty());
    tokio::time::advance(synced_later::SYNC_AFTER).await;
    for due in store.due_syncs() {
        assert!(store.due_syncs().is_empty(), "a directory is synced by one at a time");
        due.run().await.unwrap();
    }
    assert!(store.due_syncs().is_empty());
    let store = rig.power_cycle(store).await;
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
    assert!(store.fence(CHUNK).await.unwrap().durable);
    holds(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn s1_a_buffered_seal_survives_the_end_of_the_process() {
    let rig = Rig::buffered(8);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 77);
    sealed_buffered(&store, CHUNK, &bytes).await;
    let store = rig.restart(store).await;
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
    let store = rig.power_cycle(store).await;
    holds(&store, CHUNK, &bytes).await.expect("the start made it durable");
    assert!(store.fence(CHUNK).await.unwrap().durable);
}

#[tokio::test]
async fn s2_a_buffered_seal_of_which_a_power_loss_took_something_is_not_served() {
    let bytes = data(CHUNK, 3 * BLOCK + 9);
    let mut lost = 0;
    for seed in 0..30 {
        let rig = Rig::buffered(200 + seed);
        let store = rig.start().await;
        sealed_buffered(&store, CHUNK, &bytes).await;
        let store = rig.power_cycle(store).await;
        match state(&store, CHUNK) {
            Some(ReplicaState::Sealed) => holds(&store, CHUNK, &bytes).await.unwrap(),
            Some(ReplicaState::Quarantined) => lost += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(lost > 0, "the simulated disk never lost anything");
}

#[tokio::test]
async fn s1_buffered_bytes_may_go_in_a_power_loss_but_never_wrongly() {
    let bytes = data(CHUNK, 3 * BLOCK + 9);
    let mut lost = 0;
    for seed in 0..30 {
        let rig = Rig::buffered(100 + seed);
        let store = rig.start().await;
        let writer = written(&store, CHUNK, &bytes).await;
        writer.seal(bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
        let store = rig.power_cycle(store).await;
        let receipt = store.fence(CHUNK).await.unwrap();
        assert!(receipt.restarted || receipt.length == bytes.len() as u64, "seed {seed}");
        holds(&store, CHUNK, &bytes[..receipt.length as usize]).await.unwrap();
        lost += u64::from(receipt.restarted);
    }
    assert!(lost > 0, "the simulated disk never lost anything");
}

#[tokio::test]
async fn s11_the_start_counter_counts_every_start() {
    let rig = Rig::with_dirs(6, ["/a", "/b"]);
    let store = rig.start().await;
    let server = store.identity().server;
    assert_eq!(store.identity().start_counter, 1);
    let store = rig.restart(store).await;
    assert_eq!(store.identity().start_counter, 2);
    let store = rig.power_cycle(store).await;
    assert_eq!((store.identity().start_counter, store.identity().server), (3, server));
}
