use super::*;

#[tokio::test]
async fn s3_what_its_crc_does_not_vouch_for_is_not_written() {
    let store = Rig::new(1).start().await;
    let writer = store.create(CHUNK, 100).await.unwrap();
    let bytes = Bytes::from_static(b"hello");
    let crc = Crc32::of(b"hello");
    let refused = [
        (0, vec![(Crc32(1), 5)], ErrorCode::Corrupt),
        (0, vec![(crc, 4)], ErrorCode::InvalidArgument),
        (0, vec![], ErrorCode::InvalidArgument),
        (1, vec![(crc, 5)], ErrorCode::InvalidArgument),
        (u64::MAX, vec![(crc, 5)], ErrorCode::InvalidArgument),
        (0, vec![(crc, u64::MAX), (crc, 6)], ErrorCode::InvalidArgument),
    ];
    for (offset, pieces, expected) in refused {
        assert_eq!(code(writer.append(offset, pieces, bytes.clone()).await), Some(expected));
    }
    assert_eq!(code(writer.append(0, vec![], Bytes::new()).await), Some(ErrorCode::InvalidArgument));
    assert_eq!(code(append(&writer, &[1; 101]).await), Some(ErrorCode::InvalidArgument), "over the limit");
    assert_eq!(writer.length(), 0);
    append(&writer, b"hello").await.unwrap();
    assert_eq!(code(writer.flush(6).await), Some(ErrorCode::InvalidArgument));
    assert_eq!(code(writer.seal(5, Crc32(1)).await), Some(ErrorCode::Mismatch));
    assert_eq!(code(writer.seal(4, Crc32::of(b"hell")).await), Some(ErrorCode::Mismatch));
    assert_eq!(writer.seal(5, crc).await.unwrap().length, 5, "a wrong seal does no harm");
}

#[tokio::test]
async fn a_piece_may_not_cross_a_block() {
    let store = Rig::new(2).start().await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    let bytes = Bytes::from(data(CHUNK, BLOCK + 1));
    let crossing = vec![(Crc32::of(&bytes), bytes.len() as u64)];
    assert_eq!(code(writer.append(0, crossing, bytes.clone()).await), Some(ErrorCode::InvalidArgument));
    append(&writer, &bytes).await.unwrap();
}

#[tokio::test]
async fn a_chunk_is_created_once_and_within_limits() {
    let store = Rig::new(3).start().await;
    for limit in [0, LIMIT + 1] {
        assert_eq!(code(store.create(CHUNK, limit).await), Some(ErrorCode::InvalidArgument));
    }
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    drop(writer);
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Open), "a writer that goes away ends nothing");
}

#[tokio::test]
async fn s3_an_open_replica_is_read_up_to_what_every_member_has() {
    let store = Rig::new(4).start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    append(&writer, &bytes[..BLOCK + 300]).await.unwrap();
    append(&writer, &bytes[BLOCK + 300..]).await.unwrap();
    let reader = store.open_reader(CHUNK).await.unwrap();
    assert_eq!(reader.readable(), 0);
    assert_eq!(reader.read(0, LIMIT).await.unwrap(), (Bytes::new(), vec![]));
    for (acked, readable) in
        [(BLOCK - 1, 0), (BLOCK + 299, BLOCK), (BLOCK + 300, BLOCK + 300), (BLOCK + 1000, BLOCK + 1000)]
    {
        writer.set_acked(acked as u64);
        assert_eq!(reader.readable(), readable as u64, "acked {acked}");
        let (got, crcs) = reader.read(0, LIMIT).await.unwrap();
        assert_eq!(got, bytes[..readable]);
        assert_eq!(crcs, bytes[..readable].chunks(BLOCK).map(Crc32::of).collect::<Vec<_>>());
        let (got, crcs) = reader.read(BLOCK_BYTES, LIMIT).await.unwrap();
        assert_eq!(got, bytes[BLOCK.min(readable)..readable]);
        assert_eq!(crcs.len(), usize::from(readable > BLOCK));
    }
    store.fence(CHUNK).await.unwrap();
    assert_eq!(code(reader.read(0, LIMIT).await), Some(ErrorCode::Fenced));
    assert_eq!(code(store.open_reader(CHUNK).await), Some(ErrorCode::Fenced));
}

#[tokio::test]
async fn reads_are_whole_blocks_and_bounded() {
    let store = Rig::new(5).start().await;
    let bytes = data(CHUNK, 80 * BLOCK + 5);
    sealed(&store, CHUNK, &bytes).await;
    let reader = store.reader(CHUNK, bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    assert_eq!(code(reader.read(1, 10).await), Some(ErrorCode::InvalidArgument));
    assert_eq!(reader.read(0, 1).await.unwrap().0.len(), BLOCK, "at least a block");
    assert_eq!(reader.read(0, 2 * BLOCK_BYTES + 1).await.unwrap().1.len(), 2);
    assert_eq!(reader.read(0, u64::MAX).await.unwrap().0.len(), 64 * BLOCK, "at most 4 MiB");
    assert_eq!(reader.read(80 * BLOCK_BYTES, LIMIT).await.unwrap().0.len(), 5);
    assert!(reader.read(81 * BLOCK_BYTES, LIMIT).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_chunk_of_no_bytes_needs_no_file() {
    let rig = Rig::new(6);
    let store = rig.start().await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    let receipt = writer.seal(0, Crc32::EMPTY).await.unwrap();
    assert!(receipt.durable && receipt.length == 0);
    let store = rig.power_cycle(store).await;
    assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
    holds(&store, CHUNK, b"").await.unwrap();
    assert_eq!(store.commit_seal(followed(&store), CHUNK, 0, Crc32::EMPTY).await.unwrap().length, 0);
    store.verify(CHUNK, 0, Crc32::EMPTY).await.unwrap();
    assert_eq!(store.counts().quarantined, 0);
}

/// The points under which chunks are synced, so far.
fn chunk_syncs(rig: &Rig) -> Vec<&'static str> {
    let syncs: Vec<_> = rig.disk().syncs().into_iter().map(|(point, _)| point).collect();
    let of_chunks =
        [sync_points::CREATE_RECORD, sync_points::FENCE_DATA, sync_points::FENCE_DIR, sync_points::FENCE_RECORD];
    of_chunks.into_iter().filter(|point| syncs.contains(point)).map(|point| point.0).collect()
}

#[tokio::test]
async fn s1_a_chunk_that_comes_whole_is_one_record_behind_its_file() {
    let rig = Rig::new(7);
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    assert_eq!(chunk_syncs(&rig), [""; 0], "of what was never acknowledged nothing need be known");
    let receipt = append_last(&writer, &bytes).await.unwrap();
    let points = [sync_points::FENCE_DATA, sync_points::FENCE_DIR, sync_points::FENCE_RECORD];
    assert_eq!(chunk_syncs(&rig), points.map(|point| point.0));
    assert_eq!((receipt.length, receipt.crc, receipt.durable), (bytes.len() as u64, Crc32::of(&bytes), true));
    assert_eq!(code(append(&writer, b"more").await), Some(ErrorCode::Fenced));
    let store = rig.power_cycle(store).await;
    assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
    holds(&store, CHUNK, &bytes).await.unwrap();
}

#[tokio::test]
async fn the_last_bytes_go_behind_those_that_came_before() {
    for length in [1, 1000, BLOCK - 500, BLOCK, 2 * BLOCK + 3] {
        let rig = Rig::new(8);
        let store = rig.start().await;
        let bytes = data(CHUNK, 500 + length);
        let writer = written(&store, CHUNK, &bytes[..500]).await;
        let receipt = append_last(&writer, &bytes).await.unwrap();
        let store = rig.power_cycle(store).await;
        assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
        holds(&store, CHUNK, &bytes).await.unwrap();
    }
}

#[tokio::test]
async fn s2_last_bytes_with_a_wrong_seal_are_those_of_an_open_replica() {
    let rig = Rig::new(9);
    let store = rig.start().await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    let (bytes, crcs) = (Bytes::from_static(b"hello"), vec![(Crc32::of(b"hello"), 5)]);
    let wrong = writer.append_last(0, crcs, bytes, 5, Crc32(1)).await;
    assert_eq!(code(wrong), Some(ErrorCode::Mismatch));
    assert_eq!(state(&store, CHUNK), Some(ReplicaState::Open));
    append(&writer, b", world").await.unwrap();
    let receipt = writer.seal(12, Crc32::of(b"hello, world")).await.unwrap();
    let store = rig.restart(store).await;
    assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
    holds(&store, CHUNK, b"hello, world").await.unwrap();
}

#[tokio::test]
async fn s1_a_chunk_that_could_not_be_written_whole_was_never_here() {
    for failing in [quarry_env_sim::DiskOp::Create, quarry_env_sim::DiskOp::Write] {
        let rig = Rig::new(10);
        let store = rig.start().await;
        let used = |status: Vec<DiskStatus>| status.iter().map(|disk| disk.used_bytes).sum::<u64>();
        let before = used(store.disks().await.unwrap());
        let writer = store.create(CHUNK, LIMIT).await.unwrap();
        rig.disk().fail_next(failing, std::io::ErrorKind::Other);
        let failed = append_last(&writer, &data(CHUNK, 30_000)).await;
        assert_eq!(code(failed), Some(ErrorCode::DiskFailed), "{failing:?}");
        assert_eq!(state(&store, CHUNK), None);
        assert_eq!(used(store.disks().await.unwrap()), before, "its room is free again");
        assert_eq!(code(append(&writer, b"x").await), Some(ErrorCode::Fenced));
        let receipt = store.fence(CHUNK).await.unwrap();
        assert_eq!((receipt.length, receipt.restarted), (0, false));
        let name = format!("{:016x}.chunk", CHUNK.0);
        assert!(!rig.disk().files().iter().any(|(path, _)| path.ends_with(&name)), "a file is left");
    }
}

#[tokio::test]
async fn s5_a_chunk_whose_first_bytes_come_after_a_fence_takes_none() {
    let store = Rig::new(11).start().await;
    let writer = store.create(CHUNK, LIMIT).await.unwrap();
    assert_eq!(store.fence(CHUNK).await.unwrap().length, 0);
    assert_eq!(code(append(&writer, b"x").await), Some(ErrorCode::Fenced));
    assert_eq!(code(append_last(&writer, b"x").await), Some(ErrorCode::Fenced));
}
