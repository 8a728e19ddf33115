//! A random life of a store, cut off at random moments, against a ledger of what was promised.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use quarry_env::Random;
use quarry_env_sim::SimRandom;

use super::*;

/// Lives of each kind when nobody asks for more.
const LIVES: u64 = 48;
/// `N` or `FROM..TO`: which seeds to live through, of each kind.
const LIVES_VARIABLE: &str = "QUARRY_POWER_LIVES";

/// What the store has promised about one chunk.
#[derive(Default)]
struct Promise {
    /// Something was answered that the store must know of for ever.
    begun: bool,
    /// Everything the writer was told is written.
    written: usize,
    /// Bytes that may be in the file though the writer was never told.
    attempted: usize,
    /// The writer asked for the end with its last bytes.
    ending: bool,
    flushed: usize,
    /// What the store stated last.
    receipt: Option<Receipt>,
    /// The seal that was asked for, and whether that was answered.
    seal: Option<(usize, bool)>,
    deleting: bool,
    deleted: bool,
}

impl Promise {
    /// Whether it may still be written: what the master's watermark stays below.
    fn may_be_open(&self) -> bool {
        self.receipt.is_none() && !self.deleting
    }
}

/// What was promised about a chunk that only ever came as a copy.
#[derive(Default)]
struct Copied {
    length: usize,
    answered: bool,
    deleting: bool,
    deleted: bool,
}

struct Life {
    rig: Rig,
    copies: BTreeMap<ChunkId, Copied>,
    random: Arc<dyn Random>,
    ledger: BTreeMap<ChunkId, Promise>,
    writers: BTreeMap<ChunkId, ReplicaWriter>,
    next: u64,
    starts: u64,
    /// The last that the store followed, and the last that was offered.
    epochs: (u64, u64),
    watermark: ChunkId,
}

impl Life {
    fn new(seed: u64, durability: Durability) -> Self {
        let mut rig = Rig::with_dirs(seed, ["/a", "/b"]);
        rig.config.durability = durability;
        let random = Arc::new(SimRandom::of(seed, "life", 0));
        let (ledger, writers, copies) = Default::default();
        Life { rig, copies, random, ledger, writers, next: 0, starts: 0, epochs: (0, 1), watermark: ChunkId(0) }
    }

    fn below(&self, n: usize) -> usize {
        usize::try_from(self.random.below(n as u64)).unwrap()
    }

    fn pick(&self) -> Option<ChunkId> {
        self.ledger.keys().nth(self.below(self.ledger.len().max(1))).copied()
    }

    fn pick_writer(&self) -> Option<ChunkId> {
        self.writers.keys().nth(self.below(self.writers.len().max(1))).copied()
    }

    async fn step(&mut self, store: &Store) {
        match self.below(18) {
            0 | 1 => self.create(store).await,
            2..=6 => self.append().await,
            7 | 8 => self.flush().await,
            9 => self.end(store).await,
            10 | 11 => self.commit(store).await,
            12 => self.verify(store).await,
            13 => self.raise_watermark(store).await,
            14 | 15 => self.copy(store).await,
            16 => drop(self.adopt(store, self.epochs.1 + 1).await),
            _ => self.delete(store).await,
        }
    }

    async fn adopt(&mut self, store: &Store, epoch: u64) -> Result<(), StoreError> {
        self.epochs.1 = epoch;
        store.adopt(cluster(), leadership(epoch)).await?;
        self.epochs.0 = epoch;
        Ok(())
    }

    async fn create(&mut self, store: &Store) {
        self.next += 1;
        let chunk = ChunkId(self.next);
        self.ledger.entry(chunk).or_default();
        if let Ok(writer) = store.create(chunk, LIMIT).await {
            self.writers.insert(chunk, writer);
        }
    }

    async fn append(&mut self) {
        let Some(chunk) = self.pick_writer() else { return };
        let most = if self.below(3) == 0 { 5000 } else { 90_000 };
        let length = 1 + self.below(most);
        let last = self.below(4) == 0;
        let promise = self.ledger.get_mut(&chunk).unwrap();
        let all = data(chunk, promise.written + length);
        promise.attempted = all.len();
        if last {
            promise.ending = true;
            let writer = self.writers.remove(&chunk).unwrap();
            if let Ok(receipt) = append_last(&writer, &all).await {
                (promise.begun, promise.written, promise.receipt) = (true, all.len(), Some(receipt));
            }
        } else if append(&self.writers[&chunk], &all[promise.written..]).await.is_ok() {
            (promise.begun, promise.written) = (true, all.len());
        }
    }

    async fn flush(&mut self) {
        let Some(chunk) = self.pick_writer() else { return };
        let promise = self.ledger.get_mut(&chunk).unwrap();
        if self.writers[&chunk].flush(promise.written as u64).await.is_ok() {
            promise.flushed = promise.written;
        }
    }

    /// A copy of a chunk of its own range, or its deletion.
    async fn copy(&mut self, store: &Store) {
        let chunk = ChunkId((1 << 40) + self.random.below(8));
        let delete = self.below(4) == 0;
        let most = if self.below(3) == 0 { 5000 } else { 2 * BLOCK };
        let length = 1 + self.below(most);
        let copy = self.copies.entry(chunk).or_default();
        if delete {
            copy.deleting = true;
            let deleted = store.delete(followed(store), chunk).await.is_ok();
            // What a directory out of service holds is not reached, and a copy whose record could not be written may lie
            // in one: then it comes back with the directory.
            let reached = store.disks().await.is_ok_and(|disks| disks.iter().all(|disk| disk.failed.is_none()));
            copy.deleted |= deleted && reached;
            if copy.deleted {
                *copy = Copied { deleting: true, deleted: true, ..Copied::default() };
            }
            return;
        }
        // A chunk has one seal for ever.
        if copy.length == 0 || copy.deleted {
            *copy = Copied { length, ..Copied::default() };
        }
        let bytes = data(chunk, copy.length);
        let here = match begin_copy(store, chunk, &bytes).await {
            Ok(CopyStart::Here(_)) => true,
            Ok(CopyStart::Receiving(writer)) => {
                let crcs = bytes.chunks(BLOCK).map(Crc32::of).collect();
                writer.take(0, crcs, bytes.into()).await.is_ok() && writer.finish().await.is_ok()
            }
            Err(_) => false,
        };
        if here {
            *copy = Copied { answered: true, length: copy.length, ..Copied::default() };
        }
    }

    /// A fence, or the writer's own seal.
    async fn end(&mut self, store: &Store) {
        let Some(chunk) = self.pick() else { return };
        let by_writer = self.below(2) == 0;
        let promise = self.ledger.get_mut(&chunk).unwrap();
        let bytes = data(chunk, promise.written);
        let receipt = match self.writers.remove(&chunk) {
            Some(writer) if by_writer => writer.seal(bytes.len() as u64, Crc32::of(&bytes)).await,
            _ => store.fence(chunk).await,
        };
        if let Ok(receipt) = receipt {
            (promise.begun, promise.receipt) = (state(store, chunk).is_some(), Some(receipt));
        }
    }

    async fn commit(&mut self, store: &Store) {
        let Some(chunk) = self.pick() else { return };
        let random = Arc::clone(&self.random);
        let promise = self.ledger.get_mut(&chunk).unwrap();
        let Some(receipt) = promise.receipt.filter(|r| r.length > 0 && !promise.deleting) else { return };
        let cut = match promise.seal {
            Some((length, _)) => length,
            None => 1 + usize::try_from(random.below(receipt.length)).unwrap(),
        };
        promise.seal = Some((cut, promise.seal.is_some_and(|(_, answered)| answered)));
        let bytes = data(chunk, cut);
        if let Ok(receipt) = store.commit_seal(followed(store), chunk, cut as u64, Crc32::of(&bytes)).await {
            promise.seal = Some((cut, true));
            promise.receipt = Some(receipt);
        }
    }

    async fn verify(&mut self, store: &Store) {
        let Some(chunk) = self.pick() else { return };
        let promise = &self.ledger[&chunk];
        let Some((length, true)) = promise.seal.filter(|_| !promise.deleting) else { return };
        let crc = Crc32::of(&data(chunk, length));
        let checked = store.verify(chunk, length as u64, crc).await;
        assert!(checked.is_ok() || self.rig.disk().is_off(), "{chunk}: {checked:?}");
    }

    /// As the master does: up to the first chunk that may be open, at most.
    async fn raise_watermark(&mut self, store: &Store) {
        let open = self.ledger.iter().find(|(_, promise)| promise.may_be_open());
        let watermark = open.map_or(ChunkId(self.next + 1), |(chunk, _)| *chunk);
        if store.watermark(watermark).await.is_ok() {
            self.watermark = self.watermark.max(watermark);
        }
    }

    async fn delete(&mut self, store: &Store) {
        if self.below(3) > 0 {
            return;
        }
        let Some(chunk) = self.pick() else { return };
        let promise = self.ledger.get_mut(&chunk).unwrap();
        promise.deleting = true;
        self.writers.remove(&chunk);
        promise.deleted |= store.delete(followed(store), chunk).await.is_ok();
    }

    /// Ends the process, with or without a power loss, also in the middle of the next start, and holds the store to its
    /// word.
    async fn crash(&mut self, store: Store) -> Store {
        self.writers.clear();
        drop(store);
        let mut power = false;
        let store = loop {
            if self.below(3) > 0 {
                power = true;
                self.rig.machine.power_loss();
            } else {
                self.rig.machine.kill();
            }
            if self.below(3) == 0 {
                self.rig.disk().power_off_after(self.random.below(40));
            }
            let store = match self.rig.try_start().await {
                Ok(store) => store,
                Err(error) => {
                    assert!(self.rig.disk().is_off(), "a start fails: {error}");
                    continue;
                }
            };
            let followed = store.leadership().map_or(0, |l| l.epoch.0);
            assert!(followed >= self.epochs.0 && followed <= self.epochs.1, "{followed} of {:?}", self.epochs);
            let starts = store.identity().start_counter;
            assert!(starts > self.starts, "a start was forgotten");
            self.starts = starts;
            let disks = store.disks().await.unwrap();
            if !self.rig.disk().is_off() {
                assert!(disks.iter().all(|disk| disk.failed.is_none()), "{disks:?}");
                self.rig.disk().power_off_after(u64::MAX);
                break store;
            }
        };
        self.adopt(&store, self.epochs.1 + 1).await.unwrap();
        let chunks: Vec<_> = self.ledger.keys().copied().collect();
        for chunk in chunks {
            self.check(&store, chunk, power).await;
        }
        for (chunk, copy) in &self.copies {
            match state(&store, *chunk) {
                None => assert!(!copy.answered || copy.deleting, "{chunk}: a copy was forgotten"),
                Some(ReplicaState::Sealed) if !copy.deleted => {
                    holds(&store, *chunk, &data(*chunk, copy.length)).await.unwrap();
                }
                other => panic!("{chunk}: {other:?} of a copy"),
            }
        }
        let left = |path: &std::path::Path| path.extension().is_some_and(|end| end == "copy");
        assert!(!self.rig.disk().files().iter().any(|(path, _)| left(path)), "a copy left a file");
        if self.watermark > ChunkId(0) {
            assert_eq!(code(store.create(ChunkId(self.watermark.0 - 1), LIMIT).await), Some(ErrorCode::Fenced));
        }
        store
    }

    async fn check(&mut self, store: &Store, chunk: ChunkId, power: bool) {
        let buffered = self.rig.config.durability == Durability::Buffered;
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
        let length = usize::try_from(receipt.length).unwrap();
        let bytes = data(chunk, length);
        assert_eq!(receipt.crc, Crc32::of(&bytes), "{chunk}: not what was written");
        assert!(receipt.durable, "{chunk}: whoever was fenced is durable");
        // Of what was buffered, a power loss takes what it likes.
        let stated = promise.receipt.filter(|stated| stated.durable || !power);
        let stated = stated.map(|stated| Receipt { durable: true, ..stated });
        match (promise.seal, stated) {
            (Some((cut, true)), _) => assert_eq!(length, cut, "{chunk}: a seal moved"),
            (Some((cut, false)), Some(stated)) => assert!(length == cut || receipt == stated, "{chunk}: half a seal"),
            (None, Some(stated)) => assert_eq!(receipt, stated, "{chunk}: a receipt changed"),
            // A seal that was not answered is made all the same.
            (Some((cut, false)), None) if length == cut => {}
            _ => {
                let in_blocks = if power { 0 } else { promise.written / BLOCK * BLOCK };
                let least = if buffered { in_blocks } else { promise.flushed.max(in_blocks) };
                assert!(length >= least, "{chunk}: {length} of {least} promised bytes are left");
                assert!(length <= promise.written.max(promise.attempted), "{chunk}: more than was written");
                let ended = promise.ending && length == promise.attempted;
                let whole = receipt.restarted || length == promise.written || ended;
                assert!(whole, "{chunk}: bytes are missing and it does not say so");
            }
        }
        if found.is_none() {
            assert!(!promise.begun && length == 0, "{chunk}: a replica was forgotten");
        } else {
            holds(store, chunk, &bytes).await.unwrap();
        }
        promise.receipt = Some(receipt);
    }
}

async fn live(seed: u64, durability: Durability) {
    let mut life = Life::new(seed, durability);
    // The very first start may be cut off as well.
    life.rig.disk().power_off_after(life.random.below(1200));
    let first = life.rig.try_start().await;
    if first.is_err() {
        assert!(life.rig.disk().is_off());
    }
    life.rig.machine.kill();
    let mut store = life.rig.try_start().await.unwrap();
    life.starts = store.identity().start_counter;
    for _ in 0..6 {
        life.rig.disk().power_off_after(life.random.below(120));
        for _ in 0..40 {
            life.step(&store).await;
        }
        store = life.crash(store).await;
    }
}

fn lives() -> Range<u64> {
    let asked = std::env::var(LIVES_VARIABLE).ok();
    let number = |from: &str| from.parse().unwrap_or_else(|_| panic!("{LIVES_VARIABLE} is N or FROM..TO"));
    match asked.as_deref().map(|asked| asked.split_once("..").unwrap_or(("0", asked))) {
        Some((from, to)) => number(from)..number(to),
        None => 0..LIVES,
    }
}

async fn live_all(durability: Durability) {
    for seed in lives() {
        println!("repeat with {LIVES_VARIABLE}={seed}..{} ({durability:?})", seed + 1);
        live(seed, durability).await;
    }
}

#[tokio::test]
async fn s1_s2_s5_s6_promises_survive_power_losses_at_any_moment() {
    live_all(Durability::Sealed).await;
}

#[tokio::test]
async fn s1_s2_s5_s6_buffered_promises_survive_power_losses_at_any_moment() {
    live_all(Durability::Buffered).await;
}
