//! Small chunks, which are rows of the index and have no file.

use quarry_env::SyncPoint;
use quarry_env_sim::Synced;

use super::*;
use crate::store::index::{Changes, Index};

/// A small chunk's bytes: at most what goes into the index.
fn small(chunk: ChunkId, length: usize) -> Vec<u8> {
    assert!(length as u64 <= INDEX_BYTES);
    data(chunk, length)
}

async fn sealed_whole(store: &Store, chunk: ChunkId, bytes: &[u8]) -> Receipt {
    let writer = store.create(chunk, LIMIT).await.unwrap();
    append_last(&writer, bytes).await.unwrap();
    store.commit_seal(followed(store), chunk, bytes.len() as u64, Crc32::of(bytes)).await.unwrap()
}

fn has_file(rig: &Rig, chunk: ChunkId) -> bool {
    let name = format!("{:016x}.chunk", chunk.0);
    rig.disk().files().iter().any(|(path, _)| path.ends_with(&name))
}

/// The points under which something was synced for the first time.
fn syncs_since(rig: &Rig, before: &[(SyncPoint, Synced)]) -> Vec<SyncPoint> {
    let now = rig.disk().syncs().into_iter();
    now.filter(|sync| !before.contains(sync)).map(|(point, _)| point).collect()
}

async fn used(store: &Store) -> u64 {
    store.disks().await.unwrap().iter().map(|disk| disk.used_bytes).sum()
}

/// Looks into the index of a server that does not run, and may change it.
fn with_index<T>(rig: &Rig, look: impl FnOnce(&Index) -> T) -> T {
    rig.machine.kill();
    let world = rig.machine.boot();
    let found = look(&Index::open(&*world.kv, std::path::Path::new("/a/index")).unwrap());
    rig.machine.kill();
    found
}

/// What damage to the medium would leave of a row: other bytes.
fn damage(rig: &Rig, chunk: ChunkId, at: usize) {
    with_index(rig, |index| {
        let mut row = index.bytes(chunk).unwrap().unwrap();
        row[at] ^= 1;
        index.write(Changes::default().bytes(chunk, row), sync_points::IN_ORDER).unwrap();
    });
}

#[tokio::test]
async fn s1_a_small_chunk_that_comes_whole_is_one_sync() {
    for rig in [Rig::new(1), Rig::buffered(1)] {
        let store = rig.start().await;
        let before = used(&store).await;
        let bytes = small(CHUNK, 4096);
        let writer = store.create(CHUNK, LIMIT).await.unwrap();
        let before_it = rig.disk().syncs();
        let receipt = append_last(&writer, &bytes).await.unwrap();
        assert_eq!(syncs_since(&rig, &before_it), [sync_points::FENCE_RECORD]);
        assert_eq!((receipt.length, receipt.crc, receipt.durable), (4096, Crc32::of(&bytes), true));
        assert!(!has_file(&rig, CHUNK));
        assert_eq!(used(&store).await - before, 4096);
        assert_eq!(code(append(&writer, b"more").await), Some(ErrorCode::Fenced));
        holds(&store, CHUNK, &bytes).await.unwrap();
        let store = rig.power_cycle(store).await;
        assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
        holds(&store, CHUNK, &bytes).await.unwrap();
        assert_eq!(used(&store).await - before, 4096, "the start counts it again");
        store.commit_seal(followed(&store), CHUNK, 4096, Crc32::of(&bytes)).await.unwrap();
        store.verify(CHUNK, 4096, Crc32::of(&bytes)).await.unwrap();
        assert!(store.due_syncs().is_empty(), "nothing is left to be synced");
    }
}

#[tokio::test]
async fn what_is_longer_or_comes_in_parts_or_is_not_to_be_in_the_index_has_a_file() {
    let mut none = Rig::new(2);
    none.config.index_bytes = 0;
    for (rig, length, parts) in [(Rig::new(2), INDEX_BYTES as usize + 1, 1), (Rig::new(2), 2000, 2), (none, 1, 1)] {
        let store = rig.start().await;
        let bytes = data(CHUNK, length);
        let writer = store.create(CHUNK, LIMIT).await.unwrap();
        if parts > 1 {
            append(&writer, &bytes[..100]).await.unwrap();
        }
        append_last(&writer, &bytes).await.unwrap();
        assert!(has_file(&rig, CHUNK), "{length} bytes in {parts}");
        holds(&store, CHUNK, &bytes).await.unwrap();
    }
}

#[tokio::test]
async fn the_setting_may_change_and_what_is_there_stays_where_it_is() {
    let mut rig = Rig::new(3);
    let store = rig.start().await;
    let (first, second) = (small(CHUNK, 700), small(ChunkId(2), 700));
    sealed_whole(&store, CHUNK, &first).await;
    drop(store);
    rig.config.index_bytes = 0;
    rig.machine.kill();
    let store = rig.start().await;
    sealed_whole(&store, ChunkId(2), &second).await;
    holds(&store, CHUNK, &first).await.unwrap();
    assert!(has_file(&rig, ChunkId(2)) && !has_file(&rig, CHUNK));
    drop(store);
    rig.config.index_bytes = INDEX_BYTES;
    rig.machine.kill();
    let store = rig.start().await;
    holds(&store, CHUNK, &first).await.unwrap();
    holds(&store, ChunkId(2), &second).await.unwrap();
}

#[tokio::test]
async fn s6_a_deleted_small_chunk_leaves_a_tombstone_and_no_bytes() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    let before = used(&store).await;
    let bytes = small(CHUNK, 3000);
    sealed_whole(&store, CHUNK, &bytes).await;
    let reader = store.reader(CHUNK, 3000, Crc32::of(&bytes)).await.unwrap();
    store.delete(followed(&store), CHUNK).await.unwrap();
    assert_eq!(used(&store).await, before);
    assert_eq!(reader.read(0, BLOCK_BYTES).await.unwrap().0, bytes, "who reads it now goes on");
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    let store = rig.power_cycle(store).await;
    assert_eq!(state(&store, CHUNK), None);
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    drop(store);
    assert_eq!(with_index(&rig, |index| index.bytes(CHUNK).unwrap()), None);
}

#[tokio::test]
async fn s2_a_small_chunk_is_cut_to_its_seal() {
    for kept in [0usize, 1, 1234, 2999] {
        let rig = Rig::new(5);
        let store = rig.start().await;
        let bytes = small(CHUNK, 3000);
        let writer = store.create(CHUNK, LIMIT).await.unwrap();
        append_last(&writer, &bytes).await.unwrap();
        let cut = &bytes[..kept];
        let receipt = store.commit_seal(followed(&store), CHUNK, kept as u64, Crc32::of(cut)).await.unwrap();
        assert_eq!((receipt.length, receipt.crc), (kept as u64, Crc32::of(cut)));
        holds(&store, CHUNK, cut).await.unwrap();
        let store = rig.power_cycle(store).await;
        holds(&store, CHUNK, cut).await.unwrap();
        store.verify(CHUNK, kept as u64, Crc32::of(cut)).await.unwrap();
        assert_eq!(store.counts().quarantined, 0);
    }
}

#[tokio::test]
async fn s2_a_small_chunk_that_differs_from_its_seal_is_condemned() {
    let rig = Rig::new(6);
    let store = rig.start().await;
    let bytes = small(CHUNK, 3000);
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    append_last(&writer, &bytes).await.unwrap();
    let other = store.commit_seal(followed(&store), CHUNK, 2000, Crc32::of(b"other")).await;
    assert_eq!(code(other), Some(ErrorCode::Corrupt));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
}

/// Each part of a row is covered by something: the header by its own checksum and by whose it is, the CRC and the bytes by the
/// record's CRC or the reader.
#[tokio::test]
async fn s3_damage_anywhere_in_a_row_is_found_and_kept_to_its_chunk() {
    for at in [0, 20, 50, 54, 57, 60, 60 + 2999] {
        let rig = Rig::new(7);
        let store = rig.start().await;
        let (bytes, other) = (small(CHUNK, 3000), small(ChunkId(2), 3000));
        sealed_whole(&store, CHUNK, &bytes).await;
        sealed_whole(&store, ChunkId(2), &other).await;
        drop(store);
        damage(&rig, CHUNK, at);
        let store = rig.start().await;
        assert_eq!(code(store.verify(CHUNK, 3000, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt), "at {at}");
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined), "at {at}");
        holds(&store, ChunkId(2), &other).await.unwrap();
        let store = rig.power_cycle(store).await;
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined), "for good");
    }
}

#[tokio::test]
async fn s3_a_row_that_is_missing_short_or_anothers_condemns_its_replica() {
    for what in ["missing", "short", "cut", "another's"] {
        let rig = Rig::new(8);
        let store = rig.start().await;
        let (bytes, other) = (small(CHUNK, 3000), small(ChunkId(2), 3000));
        sealed_whole(&store, CHUNK, &bytes).await;
        sealed_whole(&store, ChunkId(2), &other).await;
        drop(store);
        with_index(&rig, |index| {
            let mut row = index.bytes(CHUNK).unwrap().unwrap();
            match what {
                "short" => row.truncate(59),
                "cut" => row.truncate(60 + 2999),
                _ => row = index.bytes(ChunkId(2)).unwrap().unwrap(),
            }
            let changes = Changes::default();
            let changes = if what == "missing" { changes.no_bytes(CHUNK) } else { changes.bytes(CHUNK, row) };
            index.write(changes, sync_points::IN_ORDER).unwrap();
        });
        let store = rig.start().await;
        let reader = store.reader(CHUNK, 3000, Crc32::of(&bytes)).await;
        assert_eq!(code(reader), Some(ErrorCode::Corrupt), "{what}");
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined), "{what}");
        holds(&store, ChunkId(2), &other).await.unwrap();
    }
}

#[tokio::test]
async fn scrubbing_reads_small_chunks_too() {
    let rig = Rig::new(9);
    let store = rig.start().await;
    let bytes = small(CHUNK, 3000);
    sealed_whole(&store, CHUNK, &bytes).await;
    assert_eq!(store.next_to_check(), Some(CHUNK));
    let before = rig.disk().syncs();
    let mut check = store.check(CHUNK).await.unwrap();
    assert_eq!((check.step().await.unwrap(), check.step().await.unwrap()), (3000, 0));
    assert_eq!(syncs_since(&rig, &before), [sync_points::IN_ORDER], "the row is written anew");
    holds(&store, CHUNK, &bytes).await.unwrap();
    drop((check, store));
    damage(&rig, CHUNK, 1000);
    let store = rig.start().await;
    let mut check = store.check(CHUNK).await.unwrap();
    assert_eq!(code(check.step().await), Some(ErrorCode::Corrupt));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
}

/// What is salvaged of a bad one is all of it, and a copy takes its place; what was there is kept as a file.
#[tokio::test]
async fn s2_a_copy_of_a_small_chunk_takes_the_place_of_a_bad_one_in_the_index_or_in_a_file() {
    for was_in_index in [true, false] {
        for goes_into_index in [true, false] {
            let mut rig = Rig::new(10);
            rig.config.index_bytes = if was_in_index { INDEX_BYTES } else { 0 };
            let store = rig.start().await;
            let bytes = small(CHUNK, 3000);
            sealed_whole(&store, CHUNK, &bytes).await;
            drop(store);
            if was_in_index {
                damage(&rig, CHUNK, 60 + 7);
            } else {
                rig.disk().corrupt(&rig.file(CHUNK), 8192 + 7).unwrap();
            }
            rig.config.index_bytes = if goes_into_index { INDEX_BYTES } else { 0 };
            rig.machine.kill();
            let store = rig.start().await;
            assert_eq!(code(store.verify(CHUNK, 3000, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt));
            let salvager = store.salvager(CHUNK, 3000).await.unwrap();
            let runs = salvager.read(0, BLOCK_BYTES).await.unwrap();
            assert_eq!((runs.len(), runs[0].1.len()), (1, 3000));
            assert_eq!(runs[0].2, [Crc32::of(&bytes)], "the writer's CRC tells");
            let receipt = copied(&store, CHUNK, &bytes).await.unwrap();
            assert_eq!((receipt.length, receipt.durable), (3000, true));
            assert_eq!(has_file(&rig, CHUNK), !goes_into_index);
            let kept: Vec<_> =
                rig.disk().files().into_iter().filter(|(path, _)| path.starts_with("/a/quarantine")).collect();
            assert_eq!(kept.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [8192 + 3000]);
            let store = rig.power_cycle(store).await;
            holds(&store, CHUNK, &bytes).await.unwrap();
            assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
            assert_eq!(has_file(&rig, CHUNK), !goes_into_index, "a replaced file is not there, or goes at the start");
            drop(store);
            let row = with_index(&rig, |index| index.bytes(CHUNK).unwrap());
            assert_eq!(row.is_some(), goes_into_index);
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_small_chunk_is_one_sync_and_ends_like_others() {
    let rig = Rig::new(11);
    let store = rig.start().await;
    let before = used(&store).await;
    let bytes = small(CHUNK, 3000);
    let given_up = copying(&store, CHUNK, &bytes).await.unwrap();
    assert_eq!(used(&store).await - before, 3000);
    given_up.abandon().await;
    assert_eq!(used(&store).await, before);
    let before_it = rig.disk().syncs();
    copied(&store, CHUNK, &bytes).await.unwrap();
    assert_eq!(syncs_since(&rig, &before_it), [sync_points::COPY_RECORD]);
    assert_eq!(used(&store).await - before, 3000);
}

#[tokio::test]
async fn s3_a_small_chunk_is_not_given_out_as_a_file() {
    let rig = Rig::new(12);
    let store = rig.start().await;
    let bytes = small(CHUNK, 3000);
    sealed_whole(&store, CHUNK, &bytes).await;
    let given = store.give_out(CHUNK, 3000, Crc32::of(&bytes)).await;
    assert_eq!(given.err().map(|error| error.code()), Some(ErrorCode::Mismatch));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Sealed));
}

/// Whether the batch got through is not known before the directory is read again.
#[tokio::test]
async fn s1_of_a_small_chunk_that_could_not_be_written_nothing_is_said() {
    let rig = Rig::with_dirs(13, ["/a", "/b"]);
    let store = rig.start().await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    rig.disk().fail_next(quarry_env_sim::DiskOp::Write, std::io::ErrorKind::Other);
    let failed = append_last(&writer, &small(CHUNK, 3000)).await;
    assert_eq!(code(failed), Some(ErrorCode::DiskFailed));
    assert_eq!(code(append(&writer, b"x").await), Some(ErrorCode::Fenced));
    assert_eq!(code(store.fence(CHUNK).await), Some(ErrorCode::DiskFailed), "it may be where nobody can look now");
    drop((writer, store));
    rig.machine.kill();
    let receipt = rig.start().await.fence(CHUNK).await.unwrap();
    assert_eq!((receipt.length, receipt.restarted), (0, false));
}

#[tokio::test]
async fn a_small_chunk_that_finds_the_disk_full_was_never_here() {
    let rig = Rig::new(14);
    let store = rig.start().await;
    let before = used(&store).await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    rig.disk().fail_next(quarry_env_sim::DiskOp::Write, std::io::ErrorKind::StorageFull);
    assert_eq!(code(append_last(&writer, &small(CHUNK, 3000)).await), Some(ErrorCode::NoSpace));
    assert_eq!((state(&store, CHUNK), used(&store).await), (None, before));
    let receipt = store.fence(CHUNK).await.unwrap();
    assert_eq!((receipt.length, receipt.restarted), (0, false));
}

/// There is no file that would tell that the directory has chunks.
#[tokio::test]
async fn s11_a_directory_of_small_chunks_only_is_not_begun_anew_without_its_identity() {
    let rig = Rig::new(15);
    let store = rig.start().await;
    let bytes = small(CHUNK, 3000);
    sealed_whole(&store, CHUNK, &bytes).await;
    let server = store.identity().server;
    drop(store);
    rig.machine.kill();
    let (identity, aside) = (std::path::Path::new("/a/IDENTITY"), std::path::Path::new("/away"));
    rig.disk().mount().rename(identity, aside).unwrap();
    let refused = rig.try_start().await.err().unwrap();
    assert!(refused.to_string().contains("no IDENTITY"), "{refused}");
    rig.machine.kill();
    rig.disk().mount().rename(aside, identity).unwrap();
    let store = rig.start().await;
    assert_eq!(store.identity().server, server);
    holds(&store, CHUNK, &bytes).await.unwrap();
}
