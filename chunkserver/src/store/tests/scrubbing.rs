//! What scrubbing finds, and what is remembered of it.

use quarry_env::OpenMode;
use quarry_env_sim::DiskOp;

use super::*;

/// Reads a replica to the end.
async fn scrub(store: &Store, chunk: ChunkId) -> Result<u64, StoreError> {
    let mut check = store.check(chunk).await?;
    let mut bytes = 0;
    loop {
        match check.step().await? {
            0 => return Ok(bytes),
            some => bytes += some,
        }
    }
}

#[tokio::test]
async fn s2_scrubbing_finds_flipped_bits_truncation_and_deletion() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let bytes = |chunk| data(chunk, 2 * BLOCK + 300);
    for id in 1..=5 {
        sealed(&store, ChunkId(id), &bytes(ChunkId(id))).await;
    }
    rig.disk().corrupt(&rig.file(ChunkId(1)), 8192 + 2 * BLOCK as u64 + 200).unwrap();
    let file = rig.disk().mount().open(&rig.file(ChunkId(2)), OpenMode::Write).unwrap();
    file.set_len(8192 + BLOCK as u64).unwrap();
    rig.disk().mount().remove_file(&rig.file(ChunkId(3))).unwrap();
    rig.disk().fail_next_under(&rig.file(ChunkId(4)), DiskOp::Read, quarry_env_sim::Injected::Os(5));
    for id in 1..=4 {
        assert_eq!(code(scrub(&store, ChunkId(id)).await), Some(ErrorCode::Corrupt), "{id}");
        assert_eq!(state(&store, ChunkId(id)), Some(ReplicaState::Quarantined), "{id}");
        assert_eq!(store.last_verified(ChunkId(id)), None, "{id}");
    }
    assert_eq!(scrub(&store, ChunkId(5)).await, Ok(2 * BLOCK_BYTES + 300));
    assert_eq!(store.next_to_check(), Some(ChunkId(5)));
    assert!(store.scrub_status().scrubbed_bytes >= 2 * BLOCK_BYTES + 300);
}

#[tokio::test(start_paused = true)]
async fn the_one_verified_longest_ago_is_next_and_a_restart_remembers() {
    let rig = Rig::new(2);
    let store = rig.start().await;
    let second = std::time::Duration::from_secs(1);
    for id in 1..=3 {
        sealed(&store, ChunkId(id), &data(ChunkId(id), 300)).await;
        tokio::time::advance(second).await;
    }
    assert_eq!(store.next_to_check(), Some(ChunkId(1)), "what was just sealed was just verified");
    scrub(&store, ChunkId(1)).await.unwrap();
    let stamp = store.last_verified(ChunkId(1)).unwrap();
    assert_eq!(store.next_to_check(), Some(ChunkId(2)));
    store.save_verified().await.unwrap();
    // The simulated wall clock begins anew with each boot.
    rig.machine.set_skew_ms(1_000_000);
    let store = rig.power_cycle(store).await;
    assert_eq!((store.next_to_check(), store.last_verified(ChunkId(1))), (Some(ChunkId(2)), Some(stamp)));
    // A check that the master ordered counts as well, and one that is not written down only comes again sooner.
    store.verify(ChunkId(2), 300, Crc32::of(&data(ChunkId(2), 300))).await.unwrap();
    assert_eq!(store.next_to_check(), Some(ChunkId(3)));
    rig.machine.set_skew_ms(2_000_000);
    let store = rig.power_cycle(store).await;
    assert_eq!(store.next_to_check(), Some(ChunkId(2)));
}

#[tokio::test]
async fn s10_a_wall_clock_that_went_back_makes_nothing_look_fresh() {
    let rig = Rig::new(3);
    let store = rig.start().await;
    for id in 1..=2 {
        sealed(&store, ChunkId(id), &data(ChunkId(id), 300)).await;
    }
    store.save_verified().await.unwrap();
    rig.machine.set_skew_ms(-1_000_000_000);
    let store = rig.restart(store).await;
    assert_eq!(store.last_verified(ChunkId(1)), Some(0), "verified in the future is never");
    assert_eq!(store.scrub_status().oldest_verified_ms, 0);
    scrub(&store, ChunkId(1)).await.unwrap();
    assert_eq!(store.next_to_check(), Some(ChunkId(2)));
}

#[tokio::test]
async fn stamps_are_written_many_at_a_time() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    for id in 1..=40 {
        sealed(&store, ChunkId(id), &data(ChunkId(id), 300)).await;
    }
    let syncs = || {
        let points = rig.disk().sync_points();
        points.into_iter().find(|(point, _)| *point == sync_points::IN_ORDER).map_or(0, |(_, times)| times)
    };
    let before = syncs();
    for id in 1..=40 {
        scrub(&store, ChunkId(id)).await.unwrap();
    }
    store.save_verified().await.unwrap();
    assert_eq!(syncs() - before, 1);
    store.save_verified().await.unwrap();
    assert_eq!(syncs() - before, 1, "nothing is left to write");
}

#[tokio::test]
async fn a_deleted_or_open_replica_is_not_scrubbed() {
    let rig = Rig::new(5);
    let store = rig.start().await;
    sealed(&store, ChunkId(1), &data(ChunkId(1), 300)).await;
    let mut check = store.check(ChunkId(1)).await.unwrap();
    store.delete(leadership(1), ChunkId(1)).await.unwrap();
    assert_eq!(code(check.step().await), Some(ErrorCode::NoReplica));
    let _writer = written(&store, ChunkId(2), &data(ChunkId(2), 300)).await;
    assert_eq!(code(store.check(ChunkId(2)).await), Some(ErrorCode::NoReplica));
    assert_eq!(store.next_to_check(), None);
}
