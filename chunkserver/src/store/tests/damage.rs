use std::io::ErrorKind;

use quarry_env::OpenMode;
use quarry_env_sim::DiskOp;

use super::*;

/// Data, slots, header: wherever a bit flips, a client gets the right bytes or an error, and a check finds it.
#[tokio::test]
async fn s3_a_flipped_bit_is_never_served() {
    let bytes = data(CHUNK, 2 * BLOCK + 300);
    for offset in [0, 9, 20, 30, 45, 53, 4096, 4101, 4105, 8192, 8192 + 70_000, 8192 + 2 * BLOCK as u64 + 299] {
        for restarted in [false, true] {
            let rig = Rig::new(offset);
            let store = rig.start().await;
            sealed(&store, CHUNK, &bytes).await;
            rig.disk().corrupt(&rig.file(CHUNK), offset).unwrap();
            let store = if restarted { rig.restart(store).await } else { store };
            let got = read(&store, CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await;
            assert_eq!(code(got), Some(ErrorCode::Corrupt), "offset {offset}");
            let checked = store.verify(CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await;
            assert_eq!(code(checked), Some(ErrorCode::Corrupt), "offset {offset}");
            assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined), "offset {offset}");
            assert_eq!(store.counts().quarantined, 1);
            assert_eq!(
                code(store.reader(CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await),
                Some(ErrorCode::Corrupt)
            );
        }
    }
}

#[tokio::test]
async fn s3_a_truncated_file_is_never_served() {
    let bytes = data(CHUNK, 2 * BLOCK + 300);
    for left in [0, 100, 4096, 8192, 8192 + 10, 8192 + 2 * BLOCK as u64 + 299] {
        let rig = Rig::new(left);
        let store = rig.start().await;
        sealed(&store, CHUNK, &bytes).await;
        let file = rig.disk().mount().open(&rig.file(CHUNK), OpenMode::Write).unwrap();
        file.set_len(left).unwrap();
        let open_before = read(&store, CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await;
        assert_eq!(code(open_before), Some(ErrorCode::Corrupt), "left {left}");
        let store = rig.restart(store).await;
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined), "left {left}");
    }
}

#[tokio::test]
async fn s3_a_file_cut_under_an_open_reader_is_noticed() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let bytes = data(CHUNK, 2 * BLOCK);
    sealed(&store, CHUNK, &bytes).await;
    let reader = store.reader(CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    let file = rig.disk().mount().open(&rig.file(CHUNK), OpenMode::Write).unwrap();
    file.set_len(8192 + BLOCK as u64).unwrap();
    assert_eq!(code(reader.read(BLOCK_BYTES, BLOCK_BYTES).await), Some(ErrorCode::Corrupt));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
    assert_eq!(code(reader.read(0, BLOCK_BYTES).await), Some(ErrorCode::Corrupt), "not the good part either");
}

#[tokio::test]
async fn s3_a_deleted_file_is_noticed_at_the_start_and_at_a_read() {
    let bytes = data(CHUNK, 300);
    for restarted in [false, true] {
        let rig = Rig::new(2);
        let store = rig.start().await;
        sealed(&store, CHUNK, &bytes).await;
        rig.disk().mount().remove_file(&rig.file(CHUNK)).unwrap();
        let store = if restarted { rig.restart(store).await } else { store };
        if restarted {
            assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
        }
        assert_eq!(code(store.reader(CHUNK, 300, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt));
        assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
    }
}

/// A file that is kept open reads on when it was deleted; that must not hide for long that the replica is lost.
#[tokio::test(start_paused = true)]
async fn s3_a_deleted_file_that_is_kept_open_is_noticed_soon() {
    let bytes = data(CHUNK, 300);
    let rig = Rig::new(6);
    let store = rig.start().await;
    sealed(&store, CHUNK, &bytes).await;
    holds(&store, CHUNK, &bytes).await.unwrap();
    rig.disk().mount().remove_file(&rig.file(CHUNK)).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(code(store.reader(CHUNK, 300, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Quarantined));
}

#[tokio::test]
async fn s3_two_swapped_files_are_never_served() {
    // Same length, same contents but one byte: only the header and the CRC tell them apart.
    let (one, two) = (ChunkId(1), ChunkId(2));
    let bytes = data(one, 900);
    for same in [false, true] {
        let rig = Rig::new(3);
        let store = rig.start().await;
        let mut others = bytes.clone();
        if !same {
            others[0] ^= 1;
        }
        sealed(&store, one, &bytes).await;
        sealed(&store, two, &others).await;
        let (first, second) = (rig.file(one), rig.file(two));
        let disk = rig.disk().mount();
        let spare = std::path::Path::new("/a/spare");
        disk.rename(&first, spare).unwrap();
        disk.rename(&second, &first).unwrap();
        disk.rename(spare, &second).unwrap();
        let store = rig.restart(store).await;
        for (chunk, bytes) in [(one, &bytes), (two, &others)] {
            assert_eq!(code(store.reader(chunk, 900, Crc32::of(bytes)).await), Some(ErrorCode::Corrupt));
        }
        assert_eq!(store.counts().quarantined, 2);
    }
}

#[tokio::test]
async fn s3_a_flipped_bit_at_the_cut_is_noticed() {
    let rig = Rig::new(4);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 700);
    let _writer = written(&store, CHUNK, &bytes).await;
    store.fence(CHUNK).await.unwrap();
    rig.disk().corrupt(&rig.file(CHUNK), 8192 + BLOCK as u64 + 600).unwrap();
    let cut = BLOCK + 500;
    let committed = store.commit_seal(followed(&store), CHUNK, cut as u64, Crc32::of(&bytes[..cut])).await;
    assert_eq!(code(committed), Some(ErrorCode::Corrupt), "even behind the cut: the block's CRC does not hold");
}

#[tokio::test]
async fn an_error_that_is_not_the_files_condemns_nothing() {
    let rig = Rig::new(5);
    let store = rig.start().await;
    let bytes = data(CHUNK, 300);
    sealed(&store, CHUNK, &bytes).await;
    rig.disk().fail_next_under(&rig.file(CHUNK), DiskOp::Open, ErrorKind::Other);
    assert_eq!(code(store.reader(CHUNK, 300, Crc32::of(&bytes)).await), Some(ErrorCode::DiskFailed));
    holds(&store, CHUNK, &bytes).await.unwrap();
}
