//! The same store on a real disk with a real index.

use super::*;

fn on(dir: &std::path::Path) -> (World, StoreConfig) {
    (World::real(Arc::new(quarry_env_rocks::Rocks)), config([dir.to_str().unwrap()]))
}

async fn start(dir: &std::path::Path) -> Store {
    let (world, config) = on(dir);
    let store = Store::open(world, config).await.unwrap();
    store.adopt(cluster(), leadership(1)).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunks_life_on_a_real_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new/data");
    let store = start(&dir).await;
    let full = data(ChunkId(1), LIMIT as usize);
    sealed(&store, ChunkId(1), &full).await;
    let bytes = data(ChunkId(2), 3 * BLOCK + 17);
    let writer = written(&store, ChunkId(2), &bytes).await;
    writer.flush(bytes.len() as u64).await.unwrap();
    append(&writer, b"tail without a mark").await.unwrap();
    let _third = written(&store, ChunkId(3), &bytes[..100]).await;
    store.fence(ChunkId(4)).await.unwrap();
    assert_eq!(store.disks().await.unwrap()[0].used_bytes, 3 * 8192 + LIMIT + bytes.len() as u64 + 19 + 100);
    let server = store.identity().server;
    drop((store, writer, _third));

    let store = start(&dir).await;
    assert_eq!((store.identity().server, store.identity().start_counter), (server, 2));
    holds(&store, ChunkId(1), &full).await.unwrap();
    store.verify(ChunkId(1), LIMIT, Crc32::of(&full)).await.unwrap();
    let receipt = store.fence(ChunkId(2)).await.unwrap();
    assert_eq!((receipt.length, receipt.restarted), (bytes.len() as u64, true));
    holds(&store, ChunkId(2), &bytes).await.unwrap();
    assert_eq!(store.fence(ChunkId(3)).await.unwrap().length, 0);
    assert_eq!(code(store.create(ChunkId(4), LIMIT).await), Some(ErrorCode::Fenced));
    let cut = &bytes[..BLOCK + 1];
    store.commit_seal(followed(&store), ChunkId(2), cut.len() as u64, Crc32::of(cut)).await.unwrap();
    holds(&store, ChunkId(2), cut).await.unwrap();
    store.delete(followed(&store), ChunkId(1)).await.unwrap();
    assert_eq!(store.disks().await.unwrap()[0].used_bytes, 8192 + cut.len() as u64);
    store.probe().await.unwrap();
    assert_eq!(store.counts().quarantined, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let (world, config) = on(dir.path());
    let error = Store::open(world, config).await.err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(store);
    start(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_chunks_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let tasks: Vec<_> = (0..300)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move {
                let chunk = ChunkId(id);
                let bytes = data(chunk, 500 + id as usize);
                sealed(&store, chunk, &bytes).await;
                holds(&store, chunk, &bytes).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.counts(), Counts { replicas: 300, ..Counts::default() });
    // More than the files that are kept open.
    for id in 0..300 {
        holds(&store, ChunkId(id), &data(ChunkId(id), 500 + id as usize)).await.unwrap();
    }
}
