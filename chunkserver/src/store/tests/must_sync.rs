//! Each sync is needed: a promise for each of them, which holds through every power loss with all syncs in place, and
//! breaks in one of them when the syncs of that point are left out.

use quarry_env::SyncPoint;

use super::*;

/// Power losses tried for each point.
const SEEDS: u64 = 32;

fn ensure(holds: bool, promise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(promise.to_owned()) }
}

/// What a process finds after the power loss. A start that is refused breaks every promise.
async fn after_power_loss(rig: &Rig, store: Store) -> Result<Store, String> {
    drop(store);
    rig.machine.power_loss();
    rig.try_start().await.map_err(|error| error.to_string())
}

async fn identity_new(rig: &Rig) -> Result<(), String> {
    let store = rig.try_start().await.unwrap();
    let server = store.identity().server;
    let store = after_power_loss(rig, store).await?;
    ensure(store.identity().server == server, "a server keeps its identity")
}

async fn identity_cluster(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let store = after_power_loss(rig, store).await?;
    ensure(store.identity().cluster == Some(cluster()), "an adopted cluster stays")
}

async fn start_counter(rig: &Rig) -> Result<(), String> {
    let store = rig.try_start().await.unwrap();
    let before = store.identity().start_counter;
    let store = after_power_loss(rig, store).await?;
    ensure(store.identity().start_counter > before, "every start counts")
}

async fn leader(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    store.adopt(cluster(), leadership(5)).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    ensure(
        code(store.adopt(cluster(), leadership(4)).await) == Some(ErrorCode::StaleLeader),
        "an old master is refused",
    )
}

async fn created(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let _writer = written(&store, CHUNK, b"acknowledged, not flushed").await;
    let store = after_power_loss(rig, store).await?;
    let receipt = store.fence(CHUNK).await.map_err(|e| e.to_string())?;
    ensure(receipt.restarted, "a member that restarted says so")
}

async fn flushed(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let writer = written(&store, CHUNK, &bytes).await;
    writer.flush(bytes.len() as u64).await.unwrap();
    append(&writer, &[9; 70_000]).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    let receipt = store.fence(CHUNK).await.map_err(|e| e.to_string())?;
    ensure(receipt.length >= bytes.len() as u64, "flushed bytes stay")?;
    let all = read(&store, CHUNK, receipt.length, receipt.crc).await.map_err(|e| e.to_string())?;
    ensure(all.starts_with(&bytes), "flushed bytes stay as they were")
}

async fn fenced(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let _writer = written(&store, CHUNK, &bytes).await;
    let stated = store.fence(CHUNK).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    let receipt = store.fence(CHUNK).await.map_err(|e| e.to_string())?;
    ensure(receipt == stated, "a receipt holds")?;
    holds(&store, CHUNK, &bytes).await
}

async fn committed(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let kept = &bytes[..BLOCK + 500];
    let _writer = written(&store, CHUNK, &bytes).await;
    store.fence(CHUNK).await.unwrap();
    store.commit_seal(CHUNK, kept.len() as u64, Crc32::of(kept)).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    holds(&store, CHUNK, kept).await
}

async fn cut(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let kept = &bytes[..BLOCK + 500];
    let _writer = written(&store, CHUNK, &bytes).await;
    store.fence(CHUNK).await.unwrap();
    store.commit_seal(CHUNK, kept.len() as u64, Crc32::of(kept)).await.unwrap();
    // Makes every change of the index before it durable, also the one that says that the cut is done.
    store.create(ChunkId(0x333), LIMIT).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    holds(&store, CHUNK, kept).await
}

async fn tombstone(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    store.fence(CHUNK).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    ensure(code(store.create(CHUNK, LIMIT).await) == Some(ErrorCode::Fenced), "a fenced chunk takes no writes")
}

async fn deleted(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    sealed(&store, CHUNK, &data(CHUNK, 3000)).await;
    store.delete(CHUNK).await.unwrap();
    let store = after_power_loss(rig, store).await?;
    ensure(state(&store, CHUNK).is_none(), "a deleted replica stays deleted")?;
    ensure(code(store.create(CHUNK, LIMIT).await) == Some(ErrorCode::Fenced), "a deleted chunk takes no writes")
}

async fn quarantined(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, 3000);
    sealed(&store, CHUNK, &bytes).await;
    rig.disk().corrupt(&rig.file(CHUNK), 9000).unwrap();
    assert_eq!(code(store.verify(CHUNK, 3000, Crc32::of(&bytes)).await), Some(ErrorCode::Corrupt));
    let store = after_power_loss(rig, store).await?;
    ensure(state(&store, CHUNK) == Some(ReplicaState::Quarantined), "what failed a check is not served again")
}

async fn recovered(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, 2 * BLOCK + 1000);
    let _writer = written(&store, CHUNK, &bytes).await;
    // Only the page cache has it.
    let store = rig.restart(store).await;
    let stated = store.fence(CHUNK).await.unwrap();
    assert_eq!(stated.length, 2 * BLOCK_BYTES);
    let store = after_power_loss(rig, store).await?;
    let receipt = store.fence(CHUNK).await.map_err(|e| e.to_string())?;
    ensure(receipt == stated, "the receipt of a recovered replica holds")?;
    holds(&store, CHUNK, &bytes[..2 * BLOCK]).await
}

async fn scenario(point: SyncPoint, rig: &Rig) -> Result<(), String> {
    match point {
        sync_points::IDENTITY_NEW => identity_new(rig).await,
        sync_points::IDENTITY_CLUSTER => identity_cluster(rig).await,
        sync_points::START => start_counter(rig).await,
        sync_points::LEADERSHIP => leader(rig).await,
        sync_points::CREATE_RECORD => created(rig).await,
        sync_points::FLUSH_DATA | sync_points::FLUSH_DIR | sync_points::FLUSH_MARK => flushed(rig).await,
        sync_points::DIR_LAYOUT | sync_points::FENCE_DATA | sync_points::FENCE_DIR | sync_points::FENCE_RECORD => {
            fenced(rig).await
        }
        sync_points::COMMIT_RECORD => committed(rig).await,
        sync_points::CUT_DATA => cut(rig).await,
        sync_points::TOMBSTONE => tombstone(rig).await,
        sync_points::DELETE_RECORD => deleted(rig).await,
        sync_points::QUARANTINE => quarantined(rig).await,
        sync_points::RECOVERY_DATA | sync_points::RECOVERY_DIR => recovered(rig).await,
        other => panic!("{other:?} has no scenario: say which promise breaks without it"),
    }
}

#[tokio::test]
async fn s1_every_sync_is_needed_and_together_they_are_enough() {
    let mut idle = Vec::new();
    for point in sync_points::ALL {
        let mut broken = 0;
        for seed in 0..SEEDS {
            let rig = Rig::new(seed);
            let kept = scenario(*point, &rig).await;
            assert_eq!(kept, Ok(()), "{point:?}, seed {seed}: broken with all syncs in place");
            let made = rig.disk().sync_points().iter().any(|(seen, times)| seen == point && *times > 0);
            assert!(made, "{point:?}: its scenario never syncs it");

            let rig = Rig::new(seed);
            rig.disk().skip_sync(*point);
            broken += u64::from(scenario(*point, &rig).await.is_err());
        }
        if broken == 0 {
            idle.push(point);
        }
    }
    assert!(idle.is_empty(), "no power loss shows that these syncs are needed: {idle:?}");
}

#[test]
fn every_sync_point_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = sync_points::ALL.iter().map(|point| point.0).collect();
    assert_eq!(names.len(), sync_points::ALL.len());
}
