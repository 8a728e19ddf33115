//! Clients at work on a few names, and what each was told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use quarry_chaos::linear::{
    history::Record,
    model::{Call, NAMES, Outcome},
};
use quarry_client::{Client, ClientConfig, ClientError, CreateMode, CreateOptions, ErrorCode};
use quarry_env::{World, kv::NoKv};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Operations of one group, before its clients go on to new names: the checker's work grows faster than their number.
const GROUP_OPERATIONS: u64 = 120;
/// Some clients only read, so that nothing but a read's own answer tells them that another one leads. They pause in between,
/// which leaves most of the load to those who change things.
const READER_PAUSE: Duration = Duration::from_millis(10);
/// Groups that are worked on at once.
const GROUPS: u64 = 2;

/// A round, and a group of names in it.
pub type Group = (usize, u64);
/// What was done with the names of each group.
pub type Histories = BTreeMap<Group, Vec<Record>>;

pub fn directory(round: usize) -> String {
    format!("/r{round}")
}

fn path((round, group): Group, name: usize) -> String {
    format!("{}/g{group}-{name}", directory(round))
}

/// What all clients of a test have in common.
pub struct Load {
    start: Instant,
    values: AtomicU32,
    /// Operations that were begun in this round.
    begun: AtomicU64,
    /// Operations that ended, by client.
    ended: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Load {
    pub fn new(clients: usize) -> Self {
        Load {
            start: Instant::now(),
            values: AtomicU32::new(0),
            begun: AtomicU64::new(0),
            ended: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
        }
    }

    /// How long the test has been running.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Operations that ended so far, by client.
    pub fn ended(&self) -> Vec<u64> {
        self.ended.iter().map(|ended| ended.load(Ordering::Relaxed)).collect()
    }

    pub fn begin_round(&self) {
        self.begun.store(0, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
    }

    pub fn end_round(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn new_value(&self) -> Bytes {
        Bytes::copy_from_slice(&self.values.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }
}

/// One client. It has a connection and a session of its own.
pub struct Worker {
    pub id: usize,
    client: Client,
    load: Arc<Load>,
    rng: ChaCha8Rng,
    only_reads: bool,
}

impl Worker {
    pub async fn new(id: usize, masters: &str, load: &Arc<Load>, rng: ChaCha8Rng) -> Self {
        let config = ClientConfig { request_id: format!("client-{id}"), ..ClientConfig::new(masters.split(',')) };
        let client = Client::connect(World::real(Arc::new(NoKv)), config).await.expect("a client");
        Worker { id, client, load: Arc::clone(load), rng, only_reads: id % 3 == 2 }
    }

    pub async fn mkdir(&self, round: usize) {
        self.client.mkdir(&directory(round), false).await.expect("a directory for the round");
    }

    pub async fn close(&self) {
        self.client.close().await.expect("the session is closed");
    }

    /// Works until the round ends.
    pub async fn work(mut self, round: usize) -> (Self, Histories) {
        let mut histories = Histories::new();
        while !self.load.stop.load(Ordering::Relaxed) {
            let n = self.load.begun.fetch_add(1, Ordering::Relaxed);
            let group = (round, n / (GROUP_OPERATIONS * GROUPS) * GROUPS + self.rng.random_range(0..GROUPS));
            let record = self.one(group).await;
            self.load.ended[self.id].fetch_add(1, Ordering::Relaxed);
            histories.entry(group).or_default().push(record);
            if self.only_reads {
                tokio::time::sleep(READER_PAUSE).await;
            }
        }
        (self, histories)
    }

    /// Looks at all names of these groups.
    pub async fn look(self, groups: Vec<Group>) -> (Self, Histories) {
        let mut histories = Histories::new();
        for group in groups {
            for name in 0..NAMES {
                let record = self.run(group, Call::Stat { name }, Bytes::new()).await;
                histories.entry(group).or_default().push(record);
            }
        }
        (self, histories)
    }

    async fn one(&mut self, group: Group) -> Record {
        let (name, contents) = (self.rng.random_range(0..NAMES), self.load.new_value());
        let value = crc32fast::hash(&contents);
        let other = (name + self.rng.random_range(1..NAMES)) % NAMES;
        let call = match self.rng.random_range(if self.only_reads { 15..20 } else { 0..20 }) {
            0..5 => Call::Create { name, value },
            5..8 => Call::Put { name, value },
            8..12 => Call::Rename { from: name, to: other },
            12..15 => Call::Remove { name },
            15..18 => Call::Stat { name },
            _ => Call::Get { name },
        };
        self.run(group, call, contents).await
    }

    async fn run(&self, group: Group, call: Call, contents: Bytes) -> Record {
        let begin = self.load.now();
        let answer = self.ask(group, call, contents).await;
        let end = self.load.now();
        let (outcome, error) = match answer {
            Ok(outcome) => (outcome, None),
            Err(error) => match error.code() {
                ErrorCode::NotFound => (Outcome::NotFound, None),
                ErrorCode::AlreadyExists => (Outcome::AlreadyExists, None),
                code => (Outcome::Unknown, Some(format!("{code}: {error}"))),
            },
        };
        Record { client: self.id, call, outcome, begin, end, error }
    }

    async fn ask(&self, group: Group, call: Call, contents: Bytes) -> Result<Outcome, ClientError> {
        let client = &self.client;
        match call {
            Call::Create { name, .. } => self.write(&path(group, name), CreateMode::FailIfPresent, contents).await,
            Call::Put { name, .. } => self.write(&path(group, name), CreateMode::Replace, contents).await,
            Call::Rename { from, to } => {
                client.rename(&path(group, from), &path(group, to), false).await.map(|_| Outcome::Done)
            }
            Call::Remove { name } => client.remove(&path(group, name), false, false).await.map(|()| Outcome::Done),
            Call::Stat { name } => client.stat(&path(group, name)).await.map(|file| Outcome::Found(file.crc.0)),
            Call::Get { name } => {
                let mut reader = client.open(&path(group, name)).await?;
                let mut crc = crc32fast::Hasher::new();
                while let Some(bytes) = reader.next_bytes().await? {
                    crc.update(&bytes);
                }
                Ok(Outcome::Found(crc.finalize()))
            }
        }
    }

    async fn write(&self, path: &str, mode: CreateMode, contents: Bytes) -> Result<Outcome, ClientError> {
        let options = CreateOptions { mode, ..CreateOptions::default() };
        let mut writer = self.client.create(path, &options).await?;
        writer.write_bytes(contents).await?;
        writer.finish().await.map(|_| Outcome::Done)
    }
}
