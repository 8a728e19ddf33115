//! Clients at work on a few names, all of them on the same ones, and what each was told.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quarry_client::{Client, ClientError, CreateMode, CreateOptions, ErrorCode};
use quarry_env::World;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    history::Record,
    model::{Call, NAMES, Outcome},
};
use crate::{
    checkers::s4,
    cluster::Outcome as Ended,
    worker::{Habits, Shared, leave, until_healed},
};

/// Operations of one group, before its clients go on to new names: the checker's work grows faster than their number.
const GROUP_OPERATIONS: u64 = 40;
/// Operations with an unknown outcome in one group: each may come anywhere behind its beginning.
const GROUP_UNKNOWN: u64 = 4;
const DIRECTORY: &str = "/names";

/// What was done with the names of each group.
pub type Histories = BTreeMap<u64, Vec<Record>>;

/// What all clients at work on names have in common.
#[derive(Default)]
pub struct Names {
    values: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    group: u64,
    begun: u64,
    unknown: u64,
    histories: Histories,
    /// Clients that have done their deeds.
    ended: usize,
}

impl Names {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of the next operation.
    fn begin(&self) -> u64 {
        let mut state = self.state();
        if state.begun >= GROUP_OPERATIONS || state.unknown >= GROUP_UNKNOWN {
            (state.group, state.begun, state.unknown) = (state.group + 1, 0, 0);
        }
        state.begun += 1;
        state.group
    }

    fn end(&self, group: u64, record: Record) {
        let mut state = self.state();
        state.unknown += u64::from(group == state.group && record.outcome == Outcome::Unknown);
        state.histories.entry(group).or_default().push(record);
    }

    /// One client more has done its deeds; how many have.
    fn ended(&self) -> usize {
        let mut state = self.state();
        state.ended += 1;
        state.ended
    }

    fn new_value(&self) -> Bytes {
        Bytes::copy_from_slice(&self.values.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }
}

/// One client. It has a connection and a session of its own.
struct Player<'a> {
    id: usize,
    client: Client,
    world: World,
    rng: ChaCha8Rng,
    habits: Habits,
    shared: &'a Shared,
}

/// A client's life: deeds while everything fails, and the last of them looks at all names when all is well again.
pub async fn play(client: Client, world: World, id: usize, seed: u64, habits: Habits, shared: &Shared) -> Ended {
    let rng = ChaCha8Rng::seed_from_u64(seed ^ (0x6e61_6d65 + id as u64));
    let mut player = Player { id, client, world, rng, habits, shared };
    for _ in 0..habits.deeds * 2 {
        player.deed().await?;
    }
    shared.idle.fetch_add(1, Ordering::Relaxed);
    until_healed(shared, &player.world).await;
    if shared.names.ended() == habits.players {
        player.look().await?;
        shared.names_checked.store(true, Ordering::Relaxed);
    }
    leave(&player.client).await
}

fn path(group: u64, name: usize) -> String {
    format!("{DIRECTORY}/g{group}-{name}")
}

impl Player<'_> {
    async fn deed(&mut self) -> Ended {
        let pause = Duration::from_millis(self.rng.random_range(0..=self.habits.pause_ms / 2));
        self.world.clock.sleep(pause).await;
        let group = self.shared.names.begin();
        let (name, contents) = (self.rng.random_range(0..NAMES), self.shared.names.new_value());
        let value = crc32fast::hash(&contents);
        let other = (name + self.rng.random_range(1..NAMES)) % NAMES;
        let call = match self.rng.random_range(0..20) {
            0..5 => Call::Create { name, value },
            5..8 => Call::Put { name, value },
            8..11 => Call::Rename { from: name, to: other },
            11..14 => Call::Remove { name },
            14..18 => Call::Stat { name },
            _ => Call::Get { name },
        };
        self.run(group, call, contents).await
    }

    /// Looks at all names of all groups, and judges.
    async fn look(&self) -> Ended {
        let groups: Vec<u64> = self.shared.names.state().histories.keys().copied().collect();
        for group in groups {
            for name in 0..NAMES {
                self.look_at(group, name).await?;
            }
        }
        let state = self.shared.names.state();
        let operations: usize = state.histories.values().map(Vec::len).sum();
        tracing::info!(groups = state.histories.len(), operations, "histories are judged");
        match s4::histories(&state.histories) {
            None => Ok(()),
            Some(why) => Err(why.into()),
        }
    }

    /// Looks at one name until there is an answer.
    async fn look_at(&self, group: u64, name: usize) -> Ended {
        let (call, from) = (Call::Stat { name }, self.now());
        loop {
            let begin = self.now();
            let outcome = match self.ask(group, call, Bytes::new()).await {
                Ok(outcome) => outcome,
                Err(error) if error.code() == ErrorCode::NotFound => Outcome::NotFound,
                Err(error) if begin - from > self.habits.heal_deadline => return Err(error.into()),
                Err(error) => {
                    self.habits.passing("a player of names", &error)?;
                    self.world.clock.sleep(Duration::from_millis(500)).await;
                    continue;
                }
            };
            let record = Record { client: self.id, call, outcome, begin, end: self.now(), error: None };
            self.shared.names.end(group, record);
            return Ok(());
        }
    }

    fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }

    async fn run(&self, group: u64, call: Call, contents: Bytes) -> Ended {
        let begin = self.now();
        let answer = self.ask(group, call, contents).await;
        let end = self.now();
        let (outcome, error) = match answer {
            Ok(outcome) => (outcome, None),
            Err(error) => match error.code() {
                ErrorCode::NotFound => (Outcome::NotFound, None),
                ErrorCode::AlreadyExists => (Outcome::AlreadyExists, None),
                code => {
                    self.habits.passing("a player of names", &error)?;
                    (Outcome::Unknown, Some(format!("{code}: {error}")))
                }
            },
        };
        tracing::info!(group, ?call, ?outcome, "told");
        self.shared.names.end(group, Record { client: self.id, call, outcome, begin, end, error });
        Ok(())
    }

    async fn ask(&self, group: u64, call: Call, contents: Bytes) -> Result<Outcome, ClientError> {
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
                loop {
                    match reader.next_bytes().await {
                        Ok(Some(bytes)) => crc.update(&bytes),
                        Ok(None) => return Ok(Outcome::Found(crc.finalize())),
                        // The name was there; the file was replaced since, and its trash emptied: that says nothing of the name.
                        Err(error) if error.code() == ErrorCode::NotFound => return Ok(Outcome::Unknown),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    async fn write(&self, path: &str, mode: CreateMode, contents: Bytes) -> Result<Outcome, ClientError> {
        let options = CreateOptions { mode, parents: true, ..CreateOptions::default() };
        let mut writer = self.client.create(path, &options).await?;
        writer.write_bytes(contents).await?;
        writer.finish().await.map(|_| Outcome::Done)
    }
}
