use super::*;

#[tokio::test]
async fn s2_longer_replica_is_cut_not_condemned() {
    for (full, cut) in [(2 * BLOCK + 700, BLOCK + 100), (2 * BLOCK, BLOCK), (BLOCK + 5, 3), (900, 899)] {
        let rig = Rig::new(full as u64);
        let store = rig.start().await;
        let bytes = data(CHUNK, full);
        let _writer = written(&store, CHUNK, &bytes).await;
        store.fence(CHUNK).await.unwrap();
        let (length, crc) = (cut as u64, Crc32::of(&bytes[..cut]));
        let receipt = store.commit_seal(followed(&store), CHUNK, length, crc).await.unwrap();
        assert_eq!((receipt.length, receipt.crc, receipt.durable), (length, crc, true));
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
        holds(&store, CHUNK, &bytes[..cut]).await.unwrap();
        assert_eq!(store.verify(CHUNK, length, crc).await.unwrap(), receipt);
        let store = rig.power_cycle(store).await;
        holds(&store, CHUNK, &bytes[..cut]).await.unwrap();
        assert_eq!(code(store.reader(CHUNK, full as u64, Crc32::of(&bytes)).await), Some(ErrorCode::Mismatch));
        assert_eq!(store.disks().await.unwrap()[0].used_bytes, 8192 + length);
    }
}

#[tokio::test]
async fn s2_a_cut_that_a_crash_interrupts_is_finished() {
    let bytes = data(CHUNK, 2 * BLOCK + 700);
    let cut = BLOCK + 100;
    let (mut before, mut after) = (0, 0);
    for changes in 0..8 {
        for power in [false, true] {
            let rig = Rig::new(changes);
            let store = rig.start().await;
            let _writer = written(&store, CHUNK, &bytes).await;
            let fenced = store.fence(CHUNK).await.unwrap();
            rig.disk().power_off_after(changes);
            let _interrupted = store.commit_seal(followed(&store), CHUNK, cut as u64, Crc32::of(&bytes[..cut])).await;
            let store = if power { rig.power_cycle(store).await } else { rig.restart(store).await };
            if state(&store, CHUNK) == Some(ReplicaState::Sealed) {
                after += 1;
            } else {
                before += 1;
                assert_eq!(store.fence(CHUNK).await.unwrap(), fenced, "nothing is cut before the seal is recorded");
                holds(&store, CHUNK, &bytes).await.unwrap();
                store.commit_seal(followed(&store), CHUNK, cut as u64, Crc32::of(&bytes[..cut])).await.unwrap();
            }
            holds(&store, CHUNK, &bytes[..cut]).await.unwrap();
        }
    }
    assert!(before > 0 && after > 0, "crashes on both sides of the record: {before}, {after}");
}

#[tokio::test]
async fn s2_differing_replica_is_quarantined_never_served() {
    let bytes = data(CHUNK, BLOCK + 700);
    for length in [BLOCK as u64 + 700, BLOCK as u64 + 699, BLOCK as u64, 5] {
        let rig = Rig::new(length);
        let store = rig.start().await;
        let _writer = written(&store, CHUNK, &bytes).await;
        store.fence(CHUNK).await.unwrap();
        assert_eq!(
            code(store.commit_seal(followed(&store), CHUNK, length, Crc32(0xbad)).await),
            Some(ErrorCode::Corrupt)
        );
        let store = rig.power_cycle(store).await;
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
        for (length, crc) in [(length, Crc32(0xbad)), (bytes.len() as u64, Crc32::of(&bytes))] {
            assert_eq!(code(store.reader(CHUNK, length, crc).await), Some(ErrorCode::Corrupt));
            assert_eq!(code(store.verify(CHUNK, length, crc).await), Some(ErrorCode::Corrupt));
        }
        let kept = rig.disk().files().into_iter().any(|(path, bytes)| path == rig.file(CHUNK) && bytes > 8192);
        assert!(kept, "it is kept for people to look at");
    }
}

#[tokio::test]
async fn s2_a_shorter_replica_is_refused_and_left_alone() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let bytes = data(CHUNK, 900);
    let _writer = written(&store, CHUNK, &bytes[..800]).await;
    assert_eq!(
        code(store.commit_seal(followed(&store), CHUNK, 900, Crc32::of(&bytes)).await),
        Some(ErrorCode::Mismatch)
    );
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Fenced), "a committed seal fences");
    assert_eq!(code(store.reader(CHUNK, 900, Crc32::of(&bytes)).await), Some(ErrorCode::Mismatch));
}

#[tokio::test]
async fn s2_a_sealed_replica_never_changes() {
    let rig = Rig::new(2);
    let store = rig.start().await;
    let bytes = data(CHUNK, 5000);
    let receipt = sealed(&store, CHUNK, &bytes).await;
    assert_eq!(store.commit_seal(followed(&store), CHUNK, 5000, Crc32::of(&bytes)).await.unwrap(), receipt);
    assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
    for (length, crc) in [(4000, Crc32::of(&bytes[..4000])), (5000, Crc32(1)), (6000, Crc32(1))] {
        assert_eq!(code(store.commit_seal(followed(&store), CHUNK, length, crc).await), Some(ErrorCode::Mismatch));
    }
    holds(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn s2_a_committed_seal_of_an_unknown_chunk_is_refused() {
    let store = Rig::new(3).start().await;
    assert_eq!(code(store.commit_seal(followed(&store), CHUNK, 1, Crc32(1)).await), Some(ErrorCode::NoReplica));
    assert_eq!(code(store.verify(CHUNK, 1, Crc32(1)).await), Some(ErrorCode::NoReplica));
    assert_eq!(code(store.reader(CHUNK, 1, Crc32(1)).await), Some(ErrorCode::NoReplica));
}

#[tokio::test]
async fn a_reader_survives_a_delete_and_notices_a_cut() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    let bytes = data(CHUNK, 3 * BLOCK);
    let crc = Crc32::of(&bytes);
    let _writer = written(&store, CHUNK, &bytes).await;
    store.fence(CHUNK).await.unwrap();
    let long = store.reader(CHUNK, bytes.len() as u64, crc).await.unwrap();
    let cut = BLOCK + 10;
    store.commit_seal(followed(&store), CHUNK, cut as u64, Crc32::of(&bytes[..cut])).await.unwrap();
    assert_eq!(code(long.read(2 * BLOCK_BYTES, BLOCK_BYTES).await), Some(ErrorCode::Mismatch));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed), "the reader is wrong, not the replica");
    let short = store.reader(CHUNK, cut as u64, Crc32::of(&bytes[..cut])).await.unwrap();
    store.delete(followed(&store), CHUNK).await.unwrap();
    let (all, _) = short.read(0, LIMIT).await.unwrap();
    assert_eq!(all, bytes[..cut]);
}

/// What only has to be written down is, with one sync for all; everything else is left as it is.
#[tokio::test]
async fn s2_seals_that_only_change_records_share_a_sync_and_survive_it() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let ended = |n: u64| (ChunkId(n), data(ChunkId(n), 700 + n as usize));
    let mut seals = Vec::new();
    for (chunk, bytes) in (1..=3).map(ended) {
        let (length, crc) = (bytes.len() as u64, Crc32::of(&bytes));
        written(&store, chunk, &bytes).await.seal(length, crc).await.unwrap();
        seals.push((chunk, length, crc));
    }
    let (longer, bytes) = ended(4);
    written(&store, longer, &bytes).await.seal(bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    let (differs, bytes_of_it) = ended(5);
    written(&store, differs, &bytes_of_it).await.seal(bytes_of_it.len() as u64, Crc32::of(&bytes_of_it)).await.unwrap();
    let (open, bytes_open) = ended(6);
    let _writer = written(&store, open, &bytes_open).await;
    let others = [
        (longer, 5, Crc32::of(&bytes[..5])),
        (differs, bytes_of_it.len() as u64, Crc32(1)),
        (open, bytes_open.len() as u64, Crc32::of(&bytes_open)),
        (ChunkId(99), 1, Crc32(1)),
        // Another seal of one that is among them: whoever gives it is told so by itself.
        (ChunkId(1), 5, Crc32(5)),
    ];
    let before: BTreeMap<_, _> = rig.disk().sync_points().into_iter().collect();
    let all = [&seals[..], &others[..]].concat();
    let receipts = store.commit_records(followed(&store), all.clone()).await.unwrap();
    let stated: Vec<_> = receipts.values().map(|r| (r.chunk, r.length, r.crc)).collect();
    assert_eq!(stated, seals);
    assert!(receipts.values().all(|receipt| receipt.durable));
    let mut syncs = rig.disk().sync_points();
    syncs.retain(|(point, times)| before.get(point) != Some(times));
    assert_eq!(syncs, [(sync_points::COMMIT_RECORD, 1)]);
    for (chunk, _, _) in others.into_iter().take(3) {
        assert_ne!(state(&store, chunk), Some(ReplicaState::Sealed), "chunk {chunk}");
    }
    let store = rig.power_cycle(store).await;
    for (chunk, bytes) in (1..=3).map(ended) {
        assert_eq!(state(&store, chunk), Some(ReplicaState::Sealed));
        holds(&store, chunk, &bytes).await.unwrap();
    }
    assert!(store.commit_records(followed(&store), seals).await.unwrap().is_empty(), "it was done already");
    assert_eq!(code(store.commit_records(leadership(0), all).await), Some(ErrorCode::StaleLeader));
}

/// A power loss during the one write leaves all of them as they were, or all sealed.
#[tokio::test]
async fn s2_seals_that_are_written_together_are_lost_together() {
    let (mut before, mut after) = (0, 0);
    for changes in 0..3 {
        let rig = Rig::new(changes);
        let store = rig.start().await;
        let ended: Vec<_> = (1..=3).map(|n| (ChunkId(n), data(ChunkId(n), 700))).collect();
        let mut seals = Vec::new();
        for (chunk, bytes) in &ended {
            let (length, crc) = (bytes.len() as u64, Crc32::of(bytes));
            written(&store, *chunk, bytes).await.seal(length, crc).await.unwrap();
            seals.push((*chunk, length, crc));
        }
        rig.disk().power_off_after(changes);
        let told = store.commit_records(followed(&store), seals).await.is_ok_and(|receipts| receipts.len() == 3);
        let store = rig.power_cycle(store).await;
        let states: Vec<_> = ended.iter().map(|(chunk, _)| state(&store, *chunk)).collect();
        assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
        let sealed = states[0] == Some(ReplicaState::Sealed);
        assert!(sealed || !told, "a receipt was given for what the power loss took");
        *(if sealed { &mut after } else { &mut before }) += 1;
        for (chunk, bytes) in &ended {
            holds(&store, *chunk, bytes).await.unwrap();
        }
    }
    assert!(before > 0 && after > 0, "losses on both sides of the write: {before}, {after}");
}
