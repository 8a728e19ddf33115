//! Each sync is needed: a promise for each of them, which holds through every power loss with all syncs in place, and
//! breaks in one of them when the syncs of that point are left out.

use quarry_env::SyncPoint;
use quarry_env_sim::Synced;

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

/// A first start with two directories that is cut off goes on as if nothing had been.
async fn begun_again(rig: &Rig) -> Result<(), String> {
    let dirs = |n: u64| {
        let path = |letter| format!("/{letter}{n}").into();
        let dirs = ["a", "b"].map(|letter| DirConfig { path: path(letter), capacity: None });
        Rig { machine: rig.machine.clone(), config: StoreConfig { dirs: dirs.into(), ..rig.config.clone() } }
    };
    let before = rig.disk().changes();
    drop(dirs(0).try_start().await.unwrap());
    let whole = rig.disk().changes() - before;
    let random = rig.machine.boot().random;
    for n in 1..=3 {
        let rig = dirs(n);
        rig.disk().power_off_after(whole - 1 - random.below(16));
        let _cut_off = rig.try_start().await;
        rig.machine.power_loss();
        let store = rig.start().await;
        store.fence(CHUNK).await.map_err(|e| e.to_string())?;
    }
    Ok(())
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

/// What a buffered seal left in the page cache is durable after a fence.
async fn settled(rig: &Rig) -> Result<(), String> {
    let config = StoreConfig { durability: Durability::Buffered, ..rig.config.clone() };
    let rig = Rig { machine: rig.machine.clone(), config };
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let stated = written(&store, CHUNK, &bytes).await.seal(bytes.len() as u64, Crc32::of(&bytes)).await.unwrap();
    assert!(!stated.durable);
    let stated = store.fence(CHUNK).await.unwrap();
    assert!(stated.durable);
    let store = after_power_loss(&rig, store).await?;
    let receipt = store.fence(CHUNK).await.map_err(|e| e.to_string())?;
    ensure(receipt == stated, "a receipt holds")?;
    holds(&store, CHUNK, &bytes).await
}

/// A seal that was answered stays; one that was cut off is made or not, also when it cuts.
async fn committed(rig: &Rig) -> Result<(), String> {
    let mut store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    sealed(&store, CHUNK, &bytes).await;
    store = after_power_loss(rig, store).await?;
    ensure(state(&store, CHUNK) == Some(ReplicaState::Sealed), "sealed is for ever")?;
    holds(&store, CHUNK, &bytes).await?;
    for changes in 0..8 {
        let chunk = ChunkId(CHUNK.0 + 1 + changes);
        let bytes = data(chunk, BLOCK + 1000);
        let kept = &bytes[..BLOCK + 500];
        let _writer = written(&store, chunk, &bytes).await;
        store.fence(chunk).await.unwrap();
        rig.disk().power_off_after(changes);
        let _cut_off = store.commit_seal(followed(&store), chunk, kept.len() as u64, Crc32::of(kept)).await;
        store = after_power_loss(rig, store).await?;
        let receipt = store.fence(chunk).await.map_err(|e| e.to_string())?;
        holds(&store, chunk, &bytes[..receipt.length as usize]).await?;
    }
    Ok(())
}

async fn cut(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    let bytes = data(CHUNK, BLOCK + 1000);
    let kept = &bytes[..BLOCK + 500];
    let _writer = written(&store, CHUNK, &bytes).await;
    store.fence(CHUNK).await.unwrap();
    store.commit_seal(followed(&store), CHUNK, kept.len() as u64, Crc32::of(kept)).await.unwrap();
    // Makes every change of the index before it durable, also the one that says that the cut is done.
    written(&store, ChunkId(0x333), b"x").await;
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
    store.delete(followed(&store), CHUNK).await.unwrap();
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

/// A copy that was answered stays, also where it took the place of a replica in quarantine.
async fn copy(rig: &Rig) -> Result<(), String> {
    let mut store = rig.start().await;
    for bad in [false, true] {
        let chunk = ChunkId(CHUNK.0 + u64::from(bad));
        let bytes = data(chunk, BLOCK + 1000);
        if bad {
            sealed(&store, chunk, &bytes).await;
            rig.disk().corrupt(&rig.file(chunk), 9000).unwrap();
            let checked = store.verify(chunk, bytes.len() as u64, Crc32::of(&bytes)).await;
            assert_eq!(code(checked), Some(ErrorCode::Corrupt));
        }
        let stated = copied(&store, chunk, &bytes).await.unwrap();
        store = after_power_loss(rig, store).await?;
        ensure(state(&store, chunk) == Some(ReplicaState::Sealed), "a copy that was answered stays")?;
        ensure(store.fence(chunk).await.as_ref() == Ok(&stated), "its receipt holds")?;
        holds(&store, chunk, &bytes).await?;
    }
    Ok(())
}

async fn in_order(rig: &Rig) -> Result<(), String> {
    let store = rig.start().await;
    for watermark in 1..=20 {
        store.watermark(ChunkId(watermark)).await.unwrap();
    }
    let store = after_power_loss(rig, store).await?;
    ensure(store.disks().await.unwrap().iter().all(|disk| disk.failed.is_none()), "a healthy disk is in service")
}

async fn scenario(point: SyncPoint, rig: &Rig) -> Result<(), String> {
    match point {
        sync_points::IDENTITY_NEW => identity_new(rig).await,
        sync_points::IDENTITY_CLUSTER => identity_cluster(rig).await,
        sync_points::DIR_CONTENTS | sync_points::DIR_ID => begun_again(rig).await,
        sync_points::START => start_counter(rig).await,
        sync_points::LEADERSHIP => leader(rig).await,
        sync_points::CREATE_RECORD => created(rig).await,
        sync_points::FLUSH_DATA | sync_points::FLUSH_DIR | sync_points::FLUSH_MARK => flushed(rig).await,
        sync_points::DIR_NAME
        | sync_points::DIR_LAYOUT
        | sync_points::FENCE_DATA
        | sync_points::FENCE_DIR
        | sync_points::FENCE_RECORD => fenced(rig).await,
        sync_points::SETTLED_DATA | sync_points::SETTLED_DIR => settled(rig).await,
        sync_points::COMMIT_RECORD => committed(rig).await,
        sync_points::CUT_DATA => cut(rig).await,
        sync_points::TOMBSTONE => tombstone(rig).await,
        sync_points::DELETE_RECORD => deleted(rig).await,
        sync_points::QUARANTINE => quarantined(rig).await,
        sync_points::IN_ORDER => in_order(rig).await,
        sync_points::COPY_DATA | sync_points::COPY_DIR | sync_points::COPY_RECORD => copy(rig).await,
        sync_points::RECOVERY_DATA | sync_points::RECOVERY_DIR => recovered(rig).await,
        other => panic!("{other:?} has no scenario: say which promise breaks without it"),
    }
}

/// The syncs that a scenario makes under its point: of files, of names, or both.
async fn kinds(point: SyncPoint) -> Vec<Synced> {
    let rig = Rig::new(0);
    assert_eq!(scenario(point, &rig).await, Ok(()), "{point:?}");
    let made =
        rig.disk().syncs().into_iter().filter(|(seen, _)| *seen == point).map(|(_, what)| what).collect::<Vec<_>>();
    assert!(!made.is_empty(), "{point:?}: its scenario never syncs it");
    made
}

#[tokio::test]
async fn s1_every_sync_is_needed_and_together_they_are_enough() {
    let mut idle = Vec::new();
    for point in sync_points::ALL {
        for seed in 0..SEEDS {
            let kept = scenario(*point, &Rig::new(seed)).await;
            assert_eq!(kept, Ok(()), "{point:?}, seed {seed}: broken with all syncs in place");
        }
        for what in kinds(*point).await {
            let mut broken = 0;
            for seed in 0..SEEDS {
                let rig = Rig::new(seed);
                rig.disk().skip_sync_of(*point, what);
                broken += u64::from(scenario(*point, &rig).await.is_err());
            }
            if broken == 0 {
                idle.push((point, what));
            }
        }
    }
    assert!(idle.is_empty(), "no power loss shows that these syncs are needed: {idle:?}");
}

/// The store syncs under no other name: what is not in the list is proven by nobody.
#[tokio::test]
async fn every_sync_that_is_made_has_its_point_in_the_list() {
    let mut seen = std::collections::BTreeSet::new();
    for point in sync_points::ALL {
        let rig = Rig::new(1);
        assert_eq!(scenario(*point, &rig).await, Ok(()));
        seen.extend(rig.disk().syncs().into_iter().map(|(point, _)| point));
    }
    seen.remove(&quarry_env_sim::HOUSEKEEPING);
    assert_eq!(seen, sync_points::ALL.iter().copied().collect());
}

#[test]
fn every_sync_point_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = sync_points::ALL.iter().map(|point| point.0).collect();
    assert_eq!(names.len(), sync_points::ALL.len());
}
