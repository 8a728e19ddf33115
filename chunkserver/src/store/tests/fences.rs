use super::*;

#[tokio::test]
async fn s5_fence_before_chunk_leaves_tombstone() {
    let rig = Rig::new(1);
    let store = rig.start().await;
    let receipt = store.fence(CHUNK).await.unwrap();
    assert_eq!((receipt.length, receipt.crc, receipt.durable), (0, Crc32::EMPTY, true));
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced));
    let store = rig.power_cycle(store).await;
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Fenced), "the tombstone is durable");
    assert_eq!(store.fence(CHUNK).await.unwrap(), receipt, "a repeated fence answers the same");
    assert_eq!(store.counts().tombstones, 1);
}

#[tokio::test]
async fn s5_nothing_is_acknowledged_after_a_fence() {
    let rig = Rig::new(2);
    let store = rig.start().await;
    let bytes = data(CHUNK, 1000);
    let writer = written(&store, CHUNK, &bytes).await;
    let receipt = store.fence(CHUNK).await.unwrap();
    assert_eq!((receipt.length, receipt.crc, receipt.restarted), (1000, Crc32::of(&bytes), false));
    assert_eq!(code(append(&writer, b"late").await), Some(ErrorCode::Fenced));
    assert_eq!(code(writer.flush(1000).await), Some(ErrorCode::Fenced));
    assert_eq!(code(writer.seal(1000, Crc32::of(&bytes)).await), Some(ErrorCode::Fenced));
    assert_eq!(store.fence(CHUNK).await.unwrap(), receipt);
    let store = rig.power_cycle(store).await;
    holds(&store, CHUNK, &bytes).await.unwrap();
}

/// Fences and appends race on real threads: what was acknowledged lies below the receipt, always.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_a_fence_and_an_append_never_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::real(Arc::new(quarry_env_rocks::Rocks));
    let config = config([dir.path().to_str().unwrap()]);
    let store = Store::open(world, config).await.unwrap();
    store.adopt(cluster(), leadership(1)).await.unwrap();
    for round in 0..20 {
        let chunk = ChunkId(round);
        let writer = store.create(chunk, LIMIT).await.unwrap();
        let appending = tokio::spawn(async move {
            let mut acknowledged = 0;
            while append(&writer, &[7; 1000]).await.is_ok() {
                acknowledged = writer.length();
            }
            acknowledged
        });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let receipt = store.fence(chunk).await.unwrap();
        let acknowledged = appending.await.unwrap();
        assert_eq!(acknowledged, receipt.length, "round {round}");
    }
}

#[tokio::test]
async fn s5_a_fence_refuses_even_when_it_cannot_be_recorded() {
    let rig = Rig::new(3);
    let store = rig.start().await;
    let writer = written(&store, CHUNK, b"bytes").await;
    let used = rig.disk().files().iter().map(|(_, bytes)| bytes).sum();
    rig.disk().set_capacity(Some(used));
    assert_eq!(code(store.fence(CHUNK).await), Some(ErrorCode::NoSpace));
    assert_eq!(code(append(&writer, b"late").await), Some(ErrorCode::Fenced));
    rig.disk().set_capacity(None);
    assert_eq!(store.fence(CHUNK).await.unwrap().length, 5, "it is answered when there is room again");
}

#[tokio::test]
async fn s5_older_leadership_refused() {
    let rig = Rig::with_dirs(4, ["/a", "/b"]);
    let store = rig.try_start().await.unwrap();
    assert_eq!((store.leadership(), store.identity().cluster), (None, None));
    assert_eq!(code(store.create(CHUNK, LIMIT).await), Some(ErrorCode::Unavailable), "no cluster, no chunks");
    store.adopt(cluster(), leadership(5)).await.unwrap();
    store.adopt(cluster(), leadership(5)).await.unwrap();
    assert_eq!(code(store.adopt(cluster(), leadership(4)).await), Some(ErrorCode::StaleLeader));
    drop(store);
    rig.machine.power_loss();
    let store = rig.try_start().await.unwrap();
    assert_eq!(store.leadership(), Some(leadership(5)), "it was durable before it counted");
    assert_eq!(code(store.adopt(cluster(), leadership(4)).await), Some(ErrorCode::StaleLeader));
    store.adopt(cluster(), leadership(6)).await.unwrap();
}

#[tokio::test]
async fn s5_a_sibling_lineage_or_another_cluster_is_refused() {
    let rig = Rig::new(5);
    let store = rig.start().await;
    let sibling = Leadership { lineage: Lineage { number: 1, id: Uuid::from_u128(2) }, epoch: Epoch(9) };
    assert_eq!(code(store.adopt(cluster(), sibling).await), Some(ErrorCode::StaleLeader));
    let next = Leadership { lineage: Lineage { number: 2, id: Uuid::from_u128(2) }, epoch: Epoch(1) };
    let other = ClusterId::from_bytes(&[9; 16]).unwrap();
    assert_eq!(code(store.adopt(other, next).await), Some(ErrorCode::Mismatch));
    store.adopt(cluster(), next).await.unwrap();
    assert_eq!(code(store.adopt(cluster(), leadership(99)).await), Some(ErrorCode::StaleLeader));
}

#[tokio::test]
async fn s5_a_watermark_drops_tombstones_and_goes_on_refusing() {
    let rig = Rig::new(6);
    let store = rig.start().await;
    for chunk in [5, 6, 7] {
        store.fence(ChunkId(chunk)).await.unwrap();
    }
    store.watermark(ChunkId(7)).await.unwrap();
    assert_eq!(store.counts().tombstones, 1);
    for store in [store.clone(), rig.restart(store).await] {
        if store.identity().start_counter == 1 {
            continue;
        }
        for chunk in [5, 6, 7] {
            let late = store.create(ChunkId(chunk), LIMIT).await;
            assert_eq!(code(late), Some(ErrorCode::Fenced), "a grant from before the watermark came late");
        }
        store.watermark(ChunkId(3)).await.unwrap();
        assert_eq!(code(store.create(ChunkId(5), LIMIT).await), Some(ErrorCode::Fenced), "it never moves back");
        store.create(ChunkId(8), LIMIT).await.unwrap();
    }
}
