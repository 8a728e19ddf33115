//! A random life of a store, cut off at random moments, against a ledger of what was promised.

use std::collections::BTreeMap;

use quarry_env_sim::SimRandom;

use super::*;

/// What the store has promised about one chunk.
#[derive(Default)]
struct Promise {
    created: bool,
    /// Everything the writer was told is written.
    written: Vec<u8>,
    /// Bytes that may be in the file though the writer was never told.
    attempted: Vec<u8>,
    flushed: usize,
    /// The store said that it takes no more.
    ended: bool,
    /// A durable receipt.
    receipt: Option<Receipt>,
    /// The seal that was asked for, and whether that was answered.
    seal: Option<(usize, bool)>,
    deleting: bool,
    deleted: bool,
}

struct Life {
    rig: Rig,
    random: std::sync::Arc<dyn quarry_env::Random>,
    ledger: BTreeMap<ChunkId, Promise>,
    writers: BTreeMap<ChunkId, ReplicaWriter>,
    next: u64,
    starts: u64,
}

impl Life {
    fn pick(&self) -> Option<ChunkId> {
        let n = self.random.below(self.ledger.len() as u64) as usize;
        self.ledger.keys().nth(n).copied()
    }

    async fn step(&mut self, store: &Store) {
        match self.random.below(12) {
            0 | 1 => self.create(store).await,
            2..=5 => self.append().await,
            6 | 7 => self.flush().await,
            8 => self.end(store).await,
            9 | 10 => self.commit(store).await,
            _ => self.delete(store).await,
        }
    }

    async fn create(&mut self, store: &Store) {
        self.next += 1;
        let chunk = ChunkId(self.next);
        self.ledger.insert(chunk, Promise::default());
        if let Ok(writer) = store.create(chunk, LIMIT).await {
            self.writers.insert(chunk, writer);
            self.ledger.entry(chunk).or_default().created = true;
        }
    }

    async fn append(&mut self) {
        let n = self.random.below(self.writers.len() as u64) as usize;
        let Some((chunk, writer)) = self.writers.iter().nth(n) else { return };
        let length = 1 + self.random.below(90_000) as usize;
        let promise = self.ledger.get_mut(chunk).unwrap();
        let all = data(*chunk, promise.written.len() + length);
        promise.attempted.clone_from(&all);
        if append(writer, &all[promise.written.len()..]).await.is_ok() {
            promise.written = all;
        }
    }

    async fn flush(&mut self) {
        let n = self.random.below(self.writers.len() as u64) as usize;
        let Some((chunk, writer)) = self.writers.iter().nth(n) else { return };
        let promise = self.ledger.get_mut(chunk).unwrap();
        if writer.flush(promise.written.len() as u64).await.is_ok() {
            promise.flushed = promise.written.len();
        }
    }

    /// A fence, or the writer's own seal.
    async fn end(&mut self, store: &Store) {
        let Some(chunk) = self.pick() else { return };
        let promise = self.ledger.get_mut(&chunk).unwrap();
        let bytes = &promise.written;
        let receipt = match self.writers.remove(&chunk) {
            Some(writer) if self.random.below(2) == 0 => writer.seal(bytes.len() as u64, Crc32::of(bytes)).await,
            _ => store.fence(chunk).await,
        };
        if let Ok(receipt) = receipt {
            promise.ended = true;
            promise.receipt.get_or_insert(receipt);
        }
    }

    async fn commit(&mut self, store: &Store) {
        let Some(chunk) = self.pick() else { return };
        let promise = self.ledger.get_mut(&chunk).unwrap();
        let Some(receipt) = promise.receipt.filter(|r| r.length > 0 && !promise.deleting) else { return };
        let cut = match promise.seal {
            Some((length, _)) => length,
            None => 1 + self.random.below(receipt.length) as usize,
        };
        promise.seal = Some((cut, promise.seal.is_some_and(|(_, answered)| answered)));
        let bytes = data(chunk, cut);
        if let Ok(receipt) = store.commit_seal(chunk, cut as u64, Crc32::of(&bytes)).await {
            promise.seal = Some((cut, true));
            promise.receipt = Some(receipt);
        }
    }

    async fn delete(&mut self, store: &Store) {
        if self.random.below(3) > 0 {
            return;
        }
        let Some(chunk) = self.pick() else { return };
        let promise = self.ledger.get_mut(&chunk).unwrap();
        promise.deleting = true;
        self.writers.remove(&chunk);
        promise.deleted |= store.delete(chunk).await.is_ok();
    }

    /// Ends the process, with or without a power loss, and holds the store to its word.
    async fn crash(&mut self, store: Store) -> Store {
        self.writers.clear();
        let power = self.random.below(3) > 0;
        let store = if power { self.rig.power_cycle(store).await } else { self.rig.restart(store).await };
        let starts = store.identity().start_counter;
        eprintln!("DEBUG {:?} power {power} forg", store.disks().await);
        assert!(starts > self.starts, "a start was forgotten");
        self.starts = starts;
        let chunks: Vec<_> = self.ledger.keys().copied().collect();
        for chunk in chunks {
            self.check(&store, chunk, power).await;
        }
        store
    }

    async fn check(&mut self, store: &Store, chunk: ChunkId, power: bool) {
        let promise = self.ledger.get_mut(&chunk).unwrap();
        let found = state(store, chunk);
        assert_ne!(found, Some(ReplicaState::Open), "{chunk}: open after a restart");
        assert_ne!(found, Some(ReplicaState::Quarantined), "{chunk}: the disk did nothing wrong");
        if promise.deleting {
            assert!(!promise.deleted || found.is_none(), "{chunk}: deleted, and back");
            assert!(!promise.deleted || code(store.create(chunk, LIMIT).await) == Some(ErrorCode::Fenced));
            return;
        }
        let receipt = store.fence(chunk).await.unwrap();
        let length = receipt.length as usize;
        let bytes = data(chunk, length);
        assert_eq!(receipt.crc, Crc32::of(&bytes), "{chunk}: not what was written");
        match (promise.seal, promise.receipt) {
            (Some((cut, true)), _) => assert_eq!(length, cut, "{chunk}: a seal moved"),
            (Some((cut, false)), Some(stated)) => assert!(length == cut || receipt == stated, "{chunk}: half a seal"),
            (None, Some(stated)) => assert_eq!(receipt, stated, "{chunk}: a receipt changed"),
            _ => {
                let least =
                    if power { promise.flushed } else { promise.flushed.max(promise.written.len() / BLOCK * BLOCK) };
                assert!(length >= least, "{chunk}: {length} of {least} promised bytes are left");
                assert!(length <= promise.written.len().max(promise.attempted.len()), "{chunk}: more than was written");
                let whole = receipt.restarted || length == promise.written.len();
                assert!(whole, "{chunk}: bytes are missing and it does not say so");
            }
        }
        if found.is_none() {
            assert!(!promise.created && length == 0, "{chunk}: a replica was forgotten");
            return;
        }
        holds(store, chunk, &bytes).await.unwrap();
        promise.ended = true;
        promise.receipt = Some(receipt);
        promise.flushed = promise.flushed.min(length);
    }
}

async fn live(seed: u64, crashes: u32) {
    let rig = Rig::with_dirs(seed, ["/a", "/b"]);
    let random = std::sync::Arc::new(SimRandom::of(seed, "life", 0));
    let mut store = rig.start().await;
    let mut life = Life { rig, random, ledger: BTreeMap::new(), writers: BTreeMap::new(), next: 0, starts: 1 };
    for _ in 0..crashes {
        life.rig.disk().power_off_after(life.random.below(120));
        for _ in 0..40 {
            life.step(&store).await;
        }
        store = life.crash(store).await;
    }
}

/// To repeat a failure, run `live(seed, 6)` with the seed that is printed.
#[tokio::test]
async fn s1_s2_s5_s6_promises_survive_power_losses_at_any_moment() {
    for seed in 27..28 {
        println!("seed {seed}");
        live(seed, 6).await;
    }
}
