//! Receiving copies, and dropping what is too much.

use std::{path::PathBuf, time::Duration};

use super::*;

/// The files of the disk that end like this.
fn files(rig: &Rig, end: &str) -> Vec<PathBuf> {
    let files = rig.disk().files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.to_string_lossy().contains(end)).collect()
}

async fn used(store: &Store) -> u64 {
    store.disks().await.unwrap().iter().map(|disk| disk.used_bytes).sum()
}

/// A replica of these bytes in quarantine, for a bit that flipped in the block at `bad`.
async fn in_quarantine(rig: &Rig, store: &Store, bytes: &[u8], bad: usize) {
    sealed(store, CHUNK, bytes).await;
    rig.disk().corrupt(&rig.file(CHUNK), 8192 + bad as u64).unwrap();
    assert_eq!(code(store.verify(CHUNK, bytes.len() as u64, Crc32::of(bytes)).await), Some(ErrorCode::Corrupt));
}

#[tokio::test]
async fn s2_a_copy_is_a_sealed_replica_and_the_same_order_twice_is_one_copy() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let bytes = data(CHUNK, 3 * BLOCK + 100);
    let receipt = copied(&store, CHUNK, &bytes).await.unwrap();
    assert_eq!((receipt.length, receipt.crc, receipt.durable), (bytes.len() as u64, Crc32::of(&bytes), true));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
    holds(&store, CHUNK, &bytes).await.unwrap();
    let before = used(&store).await;
    match begin_copy(&store, CHUNK, &bytes).await.unwrap() {
        CopyStart::Here(again) => assert_eq!(again, receipt),
        CopyStart::Receiving(_) => panic!("it is here already"),
    }
    assert_eq!(used(&store).await, before);
    let store = rig.restart(store).await;
    holds(&store, CHUNK, &bytes).await.unwrap();
    assert_eq!(used(&store).await, before, "room is counted once");
    let empty = copied(&store, ChunkId(9), &[]).await.unwrap();
    assert_eq!((empty.length, state(&store, ChunkId(9))), (0, Some(ReplicaState::Sealed)));
}

#[tokio::test]
async fn s3_a_copy_counts_only_when_its_blocks_combine_to_the_seal() {
    let rig = Rig::new(2);
    let store = rig.start().await;
    let bytes = data(CHUNK, 2 * BLOCK);
    let writer = copying(&store, CHUNK, &bytes).await.unwrap();
    writer.begin_source();
    let other = vec![7; BLOCK];
    // A block that does not match its CRC, and one that matches a wrong one.
    assert_eq!(writer.take(0, vec![Crc32(1)], bytes[..BLOCK].to_vec().into()).await, Ok(1));
    assert_eq!(writer.take(0, vec![Crc32::of(&other)], other.clone().into()).await, Ok(0));
    assert_eq!(code(writer.finish().await), Some(ErrorCode::Corrupt));
    give(&writer, &bytes, BLOCK..2 * BLOCK).await;
    assert!(!writer.settle(), "all blocks are here and they are not the chunk");
    assert_eq!(code(writer.finish().await), Some(ErrorCode::Corrupt));
    assert_eq!(code(writer.take(1, vec![Crc32(1)], vec![0; 9].into()).await), Some(ErrorCode::InvalidArgument));
    writer.begin_source();
    give(&writer, &bytes, 0..bytes.len()).await;
    writer.finish().await.unwrap();
    holds(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn s6_a_deletion_ends_a_copy_on_its_way_and_does_not_stop_a_later_one() {
    let rig = Rig::new(3);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1);
    let before = used(&store).await;
    let writer = copying(&store, CHUNK, &bytes).await.unwrap();
    give(&writer, &bytes, 0..bytes.len()).await;
    store.delete(followed(&store), CHUNK).await.unwrap();
    assert_eq!(code(writer.finish().await), Some(ErrorCode::Unavailable));
    writer.abandon().await;
    assert_eq!((state(&store, CHUNK), used(&store).await, files(&rig, ".copy").len()), (None, before, 0));
    // The tombstone and the watermark refuse writers, not the leader.
    copied(&store, CHUNK, &bytes).await.unwrap();
    store.delete(followed(&store), CHUNK).await.unwrap();
    store.watermark(ChunkId(CHUNK.0 + 1)).await.unwrap();
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    copied(&store, CHUNK, &bytes).await.unwrap();
    let store = rig.restart(store).await;
    holds(&store, CHUNK, &bytes).await.unwrap();
    store.delete(followed(&store), CHUNK).await.unwrap();
    assert_eq!((state(&store, CHUNK), used(&store).await), (None, before));
}

#[tokio::test]
async fn s9_copies_are_bounded_and_one_chunk_is_copied_once_at_a_time() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    let copy = async |chunk: u64| copying(&store, ChunkId(chunk), &data(ChunkId(chunk), 100)).await;
    let mut writers = Vec::new();
    for chunk in 1..=COPIES_MAX as u64 {
        writers.push(copy(chunk).await.unwrap());
    }
    assert_eq!(code(copy(99).await), Some(ErrorCode::Busy));
    // One that is dropped has ended.
    writers.pop();
    assert_eq!(code(copy(1).await), Some(ErrorCode::Busy), "it is being copied");
    copy(99).await.unwrap();
}

#[tokio::test]
async fn s2_a_replica_in_quarantine_is_replaced_and_its_file_is_kept_for_a_while() {
    let rig = Rig::new(5);
    let store = rig.start().await;
    let bytes = data(CHUNK, 2 * BLOCK + 5);
    in_quarantine(&rig, &store, &bytes, BLOCK).await;
    for n in 1..=2 {
        copied(&store, CHUNK, &bytes).await.unwrap();
        holds(&store, CHUNK, &bytes).await.unwrap();
        assert_eq!(files(&rig, "/a/quarantine/").len(), n);
        rig.disk().corrupt(&rig.file(CHUNK), 8192).unwrap();
        assert_eq!(code(store.verify(CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt));
    }
    let before = used(&store).await;
    let store = rig.restart(store).await;
    assert_eq!(used(&store).await, before, "kept files take room, also after a restart");
    assert_eq!(store.remove_kept(Duration::from_secs(1000)).await, Ok(0), "a restart counts their age afresh");
    rig.machine.boot().clock.sleep(Duration::from_millis(2)).await;
    assert_eq!(store.remove_kept(Duration::from_millis(1)).await, Ok(2));
    assert!(files(&rig, "/quarantine/").is_empty() && used(&store).await < before);
}

#[tokio::test]
async fn s2_a_copy_replaces_what_is_short_and_nothing_that_is_good_or_being_written() {
    let rig = Rig::new(6);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 500);
    let writer = written(&store, CHUNK, &bytes[..BLOCK + 100]).await;
    assert_eq!(code(begin_copy(&store, CHUNK, &bytes).await), Some(ErrorCode::Conflict), "it is being written");
    append(&writer, &bytes[BLOCK + 100..BLOCK + 200]).await.unwrap();
    store.fence(CHUNK).await.unwrap();
    copied(&store, CHUNK, &bytes).await.unwrap();
    holds(&store, CHUNK, &bytes).await.unwrap();
    // Sealed otherwise: one of two seals is wrong, and nothing is touched on such a word.
    assert_eq!(code(begin_copy(&store, CHUNK, &bytes[..BLOCK]).await), Some(ErrorCode::Mismatch));
    holds(&store, CHUNK, &bytes).await.unwrap();
    // What agrees needs no copy, only its seal; what is longer is cut.
    let (other, longer) = (ChunkId(0x201), data(ChunkId(0x201), 900));
    written(&store, other, &longer).await;
    store.fence(other).await.unwrap();
    assert!(matches!(begin_copy(&store, other, &longer[..700]).await.unwrap(), CopyStart::Here(_)));
    holds(&store, other, &longer[..700]).await.unwrap();
}

#[tokio::test]
async fn s8_a_copy_without_room_is_refused_and_gives_everything_back() {
    let rig = Rig::new(7);
    let store = rig.start().await;
    let bytes = data(CHUNK, 4 * BLOCK);
    let before = used(&store).await;
    rig.disk().set_capacity(Some(1000));
    assert_eq!(code(begin_copy(&store, CHUNK, &bytes).await), Some(ErrorCode::NoSpace));
    rig.disk().set_capacity(None);
    // It runs full while blocks arrive.
    let writer = copying(&store, CHUNK, &bytes).await.unwrap();
    give(&writer, &bytes, 0..2 * BLOCK).await;
    rig.disk().set_capacity(Some(1000));
    let block = &bytes[2 * BLOCK..3 * BLOCK];
    let full = writer.take(2 * BLOCK_BYTES, vec![Crc32::of(block)], block.to_vec().into()).await;
    assert_eq!(code(full), Some(ErrorCode::NoSpace));
    writer.abandon().await;
    assert_eq!((state(&store, CHUNK), used(&store).await, files(&rig, ".copy").len()), (None, before, 0));
    rig.disk().set_capacity(None);
    copied(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn s5_a_copy_that_an_older_leader_ordered_is_not_recorded() {
    let rig = Rig::new(8);
    let store = rig.start().await;
    let bytes = data(CHUNK, 100);
    let writer = copying(&store, CHUNK, &bytes).await.unwrap();
    give(&writer, &bytes, 0..100).await;
    store.adopt(cluster(), leadership(2)).await.unwrap();
    assert_eq!(code(writer.finish().await), Some(ErrorCode::StaleLeader));
    writer.abandon().await;
    assert_eq!(state(&store, CHUNK), None);
    let store = rig.restart_following(store, 2).await;
    assert_eq!((state(&store, CHUNK), files(&rig, "0107.").len()), (None, 0));
}

/// Wherever it is cut off, a copy counts or has left nothing; what it was to replace stands until then.
#[tokio::test]
async fn s1_a_copy_that_is_cut_off_anywhere_leaves_nothing_that_counts() {
    for replaces in [false, true] {
        let mut done = false;
        for changes in 0.. {
            let rig = Rig::new(100 + changes);
            let store = rig.start().await;
            let bytes = data(CHUNK, BLOCK + 100);
            if replaces {
                in_quarantine(&rig, &store, &bytes, 0).await;
            }
            rig.disk().power_off_after(changes);
            let answered = copied(&store, CHUNK, &bytes).await.is_ok();
            done = answered && !rig.disk().is_off();
            let store = rig.power_cycle(store).await;
            match state(&store, CHUNK) {
                Some(ReplicaState::Sealed) => holds(&store, CHUNK, &bytes).await.unwrap(),
                Some(ReplicaState::Quarantined) => assert!(replaces && !answered, "{changes}"),
                None => assert!(!replaces && !answered && files(&rig, ".chunk").is_empty(), "{changes}"),
                other => panic!("{changes}: {other:?}"),
            }
            assert!(files(&rig, ".copy").is_empty(), "{changes}: a leftover");
            if done {
                break;
            }
        }
        assert!(done);
    }
}

#[tokio::test]
async fn s7_only_the_replica_that_was_named_is_dropped() {
    let rig = Rig::new(9);
    let store = rig.start().await;
    let bytes = data(CHUNK, 30_000);
    let (length, crc) = (30_000, Crc32::of(&bytes));
    let drop = async |length: u64, crc: Crc32| store.drop_surplus(followed(&store), CHUNK, length, crc).await;
    let writer = written(&store, CHUNK, &bytes).await;
    assert_eq!(code(drop(length, crc).await), Some(ErrorCode::Mismatch), "it is being written");
    writer.seal(length, crc).await.unwrap();
    // Before its seal is committed it is named by what it has, as one that is too short for its chunk for good.
    assert_eq!(code(drop(length + 1, crc).await), Some(ErrorCode::Mismatch));
    store.commit_seal(followed(&store), CHUNK, length, crc).await.unwrap();
    for (length, crc) in [(29_999, crc), (length, Crc32(1)), (0, Crc32::EMPTY)] {
        assert_eq!(code(drop(length, crc).await), Some(ErrorCode::Mismatch));
    }
    holds(&store, CHUNK, &bytes).await.unwrap();
    drop(length, crc).await.unwrap();
    assert_eq!(drop(length, crc).await, Ok(()), "told twice");
    assert_eq!((state(&store, CHUNK), used(&store).await), (None, 0));
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    // One in quarantine has no seal that it could be named by.
    copied(&store, CHUNK, &bytes).await.unwrap();
    rig.disk().corrupt(&rig.file(CHUNK), 9000).unwrap();
    assert_eq!(code(store.verify(CHUNK, length, crc).await), Some(ErrorCode::Corrupt));
    assert_eq!(code(drop(length, crc).await), Some(ErrorCode::Mismatch));
    drop(0, Crc32::EMPTY).await.unwrap();
    let store = rig.restart(store).await;
    assert_eq!((state(&store, CHUNK), files(&rig, ".chunk").len()), (None, 0));
}

/// While an older leader's order is on its way to a replica a newer leader is adopted. What the server reports after that
/// stays, whether the order was carried out before or is refused.
#[test]
fn s7_a_drop_of_an_older_leader_never_happens_after_the_newer_ones_report() {
    fn drop_surplus(shared: &Shared, bytes: &[u8]) -> Result<(), StoreError> {
        shared.drop_surplus(leadership(1), CHUNK, bytes.len() as u64, Crc32::of(bytes))
    }
    fn delete(shared: &Shared, _: &[u8]) -> Result<(), StoreError> {
        shared.delete(leadership(1), CHUNK)
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for order in [drop_surplus, delete] {
        let rig = Rig::new(10);
        let bytes = data(CHUNK, 3000);
        let store = runtime.block_on(async {
            let store = rig.start().await;
            sealed(&store, CHUNK, &bytes).await;
            store
        });
        let shared = &*store.0;
        let replica = shared.find(CHUNK).unwrap();
        let (at_work, known) = (lock(&replica.inner), Arc::strong_count(&replica));
        std::thread::scope(|threads| {
            let order = threads.spawn(|| order(shared, &bytes));
            // The order was looked at, has found the replica, and waits for it.
            while Arc::strong_count(&replica) == known && !order.is_finished() {
                std::thread::yield_now();
            }
            let newer = threads.spawn(|| {
                shared.adopt(cluster(), leadership(2)).unwrap();
                lock(&shared.state).inventory.items().any(|item| item.chunk == CHUNK)
            });
            // The newer leader is followed, or it waits for what the older one has begun.
            while shared.following.try_read().is_ok() && !newer.is_finished() {
                std::thread::yield_now();
            }
            drop(at_work);
            let (dropped, reported) = (order.join().unwrap(), newer.join().unwrap());
            assert_eq!(dropped, Ok(()), "it began in time");
            assert!(!reported, "it was reported to the newer leader and then removed");
        });
        assert_eq!(state(&store, CHUNK), None);
        assert_eq!(code(order(shared, &bytes)), Some(ErrorCode::StaleLeader), "the next one comes too late");
    }
}

#[tokio::test]
async fn s2_a_cut_of_an_older_leader_is_refused() {
    let rig = Rig::new(11);
    let store = rig.start().await;
    let bytes = data(CHUNK, 900);
    written(&store, CHUNK, &bytes).await;
    store.fence(CHUNK).await.unwrap();
    store.adopt(cluster(), leadership(2)).await.unwrap();
    let cut = store.commit_seal(leadership(1), CHUNK, 500, Crc32::of(&bytes[..500])).await;
    assert_eq!(code(cut), Some(ErrorCode::StaleLeader));
    holds(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn a_replica_in_quarantine_is_read_block_by_block_as_far_as_it_can_be() {
    let rig = Rig::new(12);
    let store = rig.start().await;
    let bytes = data(CHUNK, 3 * BLOCK + 7);
    sealed(&store, CHUNK, &bytes).await;
    assert_eq!(code(store.salvager(CHUNK, 9).await), Some(ErrorCode::Mismatch), "it is whole");
    rig.disk().corrupt(&rig.file(CHUNK), 8192).unwrap();
    assert_eq!(code(store.verify(CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt));
    let salvager = store.salvager(CHUNK, bytes.len() as u64).await.unwrap();
    assert_eq!(salvager.readable(), bytes.len() as u64);
    // The whole run, and the block alone, cannot be read: the others are given.
    let file = rig.file(CHUNK);
    for _ in 0..2 {
        rig.disk().fail_next_under(&file, quarry_env_sim::DiskOp::Read, std::io::ErrorKind::Other);
    }
    let runs = salvager.read(0, u64::MAX).await.unwrap();
    let starts: Vec<_> = runs.iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(starts, [BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES]);
    for (offset, block, slots) in runs {
        assert_eq!(block, bytes[offset as usize..][..block.len()]);
        assert_eq!(slots, [Crc32::of(&block)]);
    }
    // Somebody else's file under this name.
    let other = ChunkId(CHUNK.0 + 256);
    sealed(&store, other, &bytes).await;
    let disk = rig.disk().mount();
    disk.rename(&rig.file(other), &file).unwrap();
    assert_eq!(code(store.salvager(CHUNK, 9).await), Some(ErrorCode::Corrupt));
}

#[tokio::test]
async fn a_probe_reaches_a_disk_and_fails_when_none_answers() {
    let rig = Rig::with_dirs(13, ["/a", "/b"]);
    let store = rig.start().await;
    store.probe().await.unwrap();
    assert!(rig.disk().sync_points().iter().any(|(point, _)| *point == sync_points::PROBE), "nothing was synced");
    rig.disk().break_under("/a".as_ref(), std::io::ErrorKind::Other);
    store.probe().await.unwrap();
    rig.disk().break_under("/b".as_ref(), std::io::ErrorKind::Other);
    assert_eq!(code(store.probe().await), Some(ErrorCode::DiskFailed));
}
