//! Clients that write, and what was acknowledged to each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quarry_client::{Client, ClientConfig, ClientError, CreateMode, CreateOptions};
use quarry_env::{World, kv::NoKv};
use quarry_tests::{Cluster, data};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

/// Chunks of this size let a file have several of them without writing much.
const CHUNK_BYTES: u64 = 4 << 20;
/// The longest file that is put.
const LONGEST: u64 = 10 << 20;
/// Names that a putter works on, beside those that it keeps.
const NAMES: u64 = 4;
/// Files that a putter keeps for good; their chunks are watched on the disks.
const KEPT: u64 = 24;
/// What an appender writes at a time.
const PIECE: usize = 30_000;
/// It closes the file after so many pieces on average, and goes on with an append.
const PIECES: u32 = 20;
/// Between two things that a client does, so that disks keep up for as long as the test takes.
const PAUSE: Duration = Duration::from_millis(20);

/// A client with a session of its own.
pub async fn client(masters: &str, id: u64) -> Client {
    let config = ClientConfig {
        request_id: format!("writer-{id}"),
        chunk_bytes: CHUNK_BYTES,
        ..ClientConfig::new(masters.split(','))
    };
    Client::connect(World::real(Arc::new(NoKv)), config).await.expect("a client")
}

/// What one client wrote: what must be there in the end.
pub struct Written {
    id: u64,
    acknowledged: AtomicU64,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    errors: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Written {
    pub fn new(id: u64) -> Self {
        Written { id, acknowledged: AtomicU64::new(0), files: Mutex::default(), errors: Mutex::default() }
    }

    /// How many things were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// All files that are there.
    pub fn files(&self) -> Vec<String> {
        locked(&self.files).keys().cloned().collect()
    }

    /// Those that are never removed.
    pub fn kept(&self) -> Vec<String> {
        self.files().into_iter().filter(|file| file.contains("kept")).collect()
    }

    pub fn errors(&self) -> Vec<String> {
        locked(&self.errors).clone()
    }

    pub fn expect_all_there(&self, cluster: &Cluster) {
        for (file, bytes) in locked(&self.files).iter() {
            let got = cluster.quarry(&["cat", file]).ok();
            assert_eq!(got.len(), bytes.len(), "{file}: its length");
            assert!(got == *bytes, "{file} has other bytes");
        }
    }

    fn set(&self, file: String, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => locked(&self.files).insert(file, bytes),
            None => locked(&self.files).remove(&file),
        };
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn extend(&self, file: &str, bytes: &[u8]) {
        locked(&self.files).entry(file.into()).or_default().extend(bytes);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, what: &str, error: &ClientError) {
        locked(&self.errors).push(format!("{what}: {error}"));
    }
}

/// Puts whole files, and removes some.
pub struct Putter {
    client: Client,
    written: Arc<Written>,
    rng: ChaCha8Rng,
}

impl Putter {
    pub fn new(client: Client, written: Arc<Written>, rng: ChaCha8Rng) -> Self {
        Putter { client, written, rng }
    }

    pub async fn work(mut self, stop: Arc<AtomicBool>) {
        let (mut kept, id) = (0, self.written.id);
        while !stop.load(Ordering::Relaxed) {
            let name = self.rng.random_range(0..NAMES);
            let keep = kept < KEPT && self.rng.random_range(0..3) == 0;
            let path = if keep { format!("/w{id}-kept{kept}") } else { format!("/w{id}-{name}") };
            kept += u64::from(keep);
            let there = locked(&self.written.files).contains_key(&path);
            let done = match there && self.rng.random_range(0..3) == 0 {
                true => self.client.remove(&path, false, false).await.map(|()| None),
                false => self.put(&path).await.map(Some),
            };
            match done {
                Ok(bytes) => self.written.set(path, bytes),
                Err(error) => return self.written.note(&path, &error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.client.close().await.expect("the session is closed");
    }

    async fn put(&mut self, path: &str) -> Result<Vec<u8>, ClientError> {
        let length = data::length(&mut self.rng, LONGEST);
        let mut bytes = vec![0; usize::try_from(length).expect("a few MiB")];
        self.rng.fill_bytes(&mut bytes);
        let options = CreateOptions { mode: CreateMode::Replace, ..CreateOptions::default() };
        let mut writer = self.client.create(path, &options).await?;
        for part in bytes.chunks(1 << 20) {
            writer.write_bytes(Bytes::copy_from_slice(part)).await?;
        }
        writer.finish().await?;
        Ok(bytes)
    }
}

/// Appends to one file, flushing each piece.
pub struct Appender {
    client: Client,
    written: Arc<Written>,
    rng: ChaCha8Rng,
}

impl Appender {
    pub fn new(client: Client, written: Arc<Written>, rng: ChaCha8Rng) -> Self {
        Appender { client, written, rng }
    }

    pub async fn work(mut self, stop: Arc<AtomicBool>) {
        let path = format!("/w{}-log", self.written.id);
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.append(&path, &stop).await {
                return self.written.note(&path, &error);
            }
        }
        self.client.close().await.expect("the session is closed");
    }

    /// Opens the file, appends some pieces, and closes it.
    async fn append(&mut self, path: &str, stop: &AtomicBool) -> Result<(), ClientError> {
        let options = CreateOptions { mode: CreateMode::Visible, ..CreateOptions::default() };
        let mut writer = match self.written.files().is_empty() {
            true => self.client.create(path, &options).await?,
            false => self.client.append(path).await?,
        };
        loop {
            let mut piece = vec![0; PIECE];
            self.rng.fill_bytes(&mut piece);
            writer.write_bytes(Bytes::copy_from_slice(&piece)).await?;
            writer.flush_durable().await?;
            self.written.extend(path, &piece);
            tokio::time::sleep(PAUSE).await;
            if stop.load(Ordering::Relaxed) || self.rng.random_range(0..PIECES) == 0 {
                return writer.finish().await.map(drop);
            }
        }
    }
}
