//! The rules of repair and deletion, checked against the disks whenever a chunkserver removes a replica.
//!
//! The books know what the master has committed, from the batches that it writes to its state, and look at the disks of all
//! chunkservers just before one of them takes a replica out of its index. They ask nobody: what a master believes, or a
//! chunkserver reports, is what is being checked.
//!
//! # What is asked of a removal
//! - **S7.** While the chunk is sealed, at least the wanted number of other good replicas lies durably on disks, on no fewer
//!   racks than before (as far as the wanted number can use them). Only servers count that follow the leader who ordered it,
//!   or a later one, as the server that removes does: of others he knew nothing. And none that has been without power for
//!   longer than a decision and its command take; one that has just died counts: nobody could know.
//! - **S6.** A replica of a chunk that is neither sealed, doomed nor forgotten stays.
//!
//! What bounds knowledge is excused, and nothing else: for [`NEWS`] what is wanted now may not have been wanted when the
//! command was given, and a replica that rots counts until it has been in quarantine for so long.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use quarry_chunkserver_core::record::ReplicaRecord;
use quarry_env::{Batch, kv::Change};
use quarry_env_sim::SimDisk;
use quarry_master_core::{
    keys, query,
    rows::ChunkState,
    tables::{MemTables, Table},
};
use quarry_types::{ChunkId, ReplicaState};

use super::{
    truth::{self, Records, Seal},
    watched::Watcher,
};

/// A command that was decided about earlier than this is not carried out any more: its answer is waited for 15 s, and its
/// registration ends when the master is silent for 3 s.
const NEWS: Duration = Duration::from_secs(20);

/// A chunkserver as the simulation knows it.
#[derive(Clone)]
pub struct Server {
    pub name: &'static str,
    pub rack: &'static str,
    pub disk: SimDisk,
}

/// Where a chunk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Open,
    Sealed(Seal),
    Doomed,
    Forgotten,
}

/// What the master has committed of a chunk.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub life: Life,
    /// Wanted replicas, and since when: what held in the last [`NEWS`].
    wanted: Vec<(Duration, u32)>,
}

impl Chunk {
    pub fn wanted(&self) -> u32 {
        self.wanted.last().map_or(0, |last| last.1)
    }

    /// The least that was wanted of late.
    fn wanted_of_late(&self, now: Duration) -> u32 {
        let until = self.wanted.iter().skip(1).map(|next| next.0).chain([now]);
        let recent = self.wanted.iter().zip(until).filter(|(_, until)| now.saturating_sub(*until) < NEWS);
        recent.map(|(one, _)| one.1).min().unwrap_or(0)
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Good replicas of sealed chunks that were removed.
    pub drops: u64,
    /// Others of sealed chunks.
    pub bad_drops: u64,
    /// Replicas of doomed and forgotten chunks.
    pub deletions: u64,
    /// Copies that were recorded.
    pub copies: u64,
    /// Replicas that rotted, and that were put into quarantine.
    pub rotted: u64,
    pub quarantined: u64,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<ChunkId, Chunk>,
    tables: MemTables,
    /// The last entry of the log that is in `chunks`: what a master applies again after a crash is nothing new.
    applied: u64,
    /// Since when servers have no power.
    off: BTreeMap<usize, Duration>,
    /// Since when replicas that rotted are in quarantine; absent: not yet.
    rotten: BTreeMap<(ChunkId, usize), Option<Duration>>,
    counts: Counts,
    broken: Vec<String>,
}

/// The books of a run.
pub struct Books {
    pub servers: Vec<Server>,
    state: Mutex<State>,
}

/// What the master keeps of how far its state is applied; the rest of it is Raft's.
#[derive(Clone, PartialEq, Eq, Message)]
struct Mark {
    #[prost(uint64, tag = "1")]
    index: u64,
}

/// Watches the state of the master.
pub struct OfMaster(pub Arc<Books>);

/// Watches the index of a chunkserver.
pub struct OfServer(pub Arc<Books>, pub usize);

impl Watcher for OfMaster {
    fn before(&self, batch: &Batch) {
        self.0.applied(batch);
    }
}

impl Watcher for OfServer {
    fn before(&self, batch: &Batch) {
        for change in &batch.changes {
            match change {
                Change::Delete(space, key) if space.0 == truth::REPLICAS => {
                    self.0.removed(self.1, truth::chunk_of(key))
                }
                Change::Put(space, key, value) if space.0 == truth::REPLICAS => {
                    let record = ReplicaRecord::decode(value).expect("records decode");
                    self.0.recorded(self.1, truth::chunk_of(key), &record);
                }
                _ => {}
            }
        }
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl Books {
    pub fn new(servers: Vec<Server>) -> Self {
        Books { servers, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was broken so far: a process that saw it may not be the one to say so.
    pub fn broken(&self) -> Option<String> {
        let state = self.state();
        (!state.broken.is_empty()).then(|| state.broken.join("\n"))
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Every chunk that was ever given out.
    pub fn chunks(&self) -> BTreeMap<ChunkId, Chunk> {
        self.state().chunks.clone()
    }

    /// A server has power, or none.
    pub fn power(&self, server: usize, on: bool, now: Duration) {
        let off = &mut self.state().off;
        if on {
            off.remove(&server);
        } else {
            off.entry(server).or_insert(now);
        }
    }

    /// A replica rotted.
    pub fn rotted(&self, server: usize, chunk: ChunkId) {
        let mut state = self.state();
        state.rotten.insert((chunk, server), None);
        state.counts.rotted += 1;
    }

    /// Whether any replica of a chunk has rotted.
    pub fn has_rotted(&self, chunk: ChunkId) -> bool {
        self.state().rotten.range((chunk, 0)..=(chunk, usize::MAX)).next().is_some()
    }

    /// What the indexes of all servers hold.
    pub fn records(&self) -> Vec<Records> {
        self.servers.iter().map(|server| truth::records(&server.disk)).collect()
    }

    /// The servers whose replica of a chunk is good, by these records.
    pub fn good(&self, records: &[Records], chunk: ChunkId, seal: Seal) -> Vec<usize> {
        let is_good = |(server, records): &(&Server, &Records)| {
            records.get(&chunk).is_some_and(|record| truth::is_good(&server.disk, chunk, record, seal))
        };
        let all = self.servers.iter().zip(records).enumerate();
        all.filter(|(_, one)| is_good(one)).map(|(server, _)| server).collect()
    }

    pub fn racks(&self, servers: &[usize]) -> usize {
        let mut racks: Vec<_> = servers.iter().map(|server| self.servers[*server].rack).collect();
        racks.sort_unstable();
        racks.dedup();
        racks.len()
    }

    /// The master writes to its state.
    fn applied(&self, batch: &Batch) {
        let mut state = self.state();
        let mark = batch.changes.iter().find_map(|change| match change {
            Change::Put(space, _, value) if space.0 == "applied" => Mark::decode(value.get(1..)?).ok(),
            _ => None,
        });
        let Some(Mark { index }) = mark.filter(|mark| mark.index > state.applied) else { return };
        state.applied = index;
        for change in &batch.changes {
            match change {
                Change::Put(space, key, value) if space.0 == Table::Chunk.name() => state.committed(key, Some(value)),
                Change::Delete(space, key) if space.0 == Table::Chunk.name() => state.committed(key, None),
                _ => {}
            }
        }
    }

    /// A chunkserver is about to record a replica.
    fn recorded(&self, server: usize, chunk: ChunkId, record: &ReplicaRecord) {
        let before = truth::records(&self.servers[server].disk).get(&chunk).map(|record| record.state);
        let mut state = self.state();
        let state = &mut *state;
        match record.state {
            ReplicaState::Quarantined if before != Some(ReplicaState::Quarantined) => {
                state.counts.quarantined += 1;
                if let Some(since) = state.rotten.get_mut(&(chunk, server)) {
                    since.get_or_insert(now());
                }
            }
            ReplicaState::Sealed if matches!(before, None | Some(ReplicaState::Quarantined)) => {
                state.counts.copies += 1;
                state.rotten.remove(&(chunk, server));
            }
            _ => {}
        }
    }

    /// A chunkserver is about to remove a replica.
    fn removed(&self, server: usize, chunk: ChunkId) {
        let found = self.state().chunks.get(&chunk).cloned();
        let removal = match &found {
            Some(Chunk { life: Life::Sealed(seal), .. }) => Some(self.removal(server, chunk, *seal)),
            _ => None,
        };
        let mut state = self.state();
        state.rotten.remove(&(chunk, server));
        let now = now();
        let broken = match (found, removal) {
            (Some(found), Some(removal)) => {
                match removal.was_good {
                    true => state.counts.drops += 1,
                    false => state.counts.bad_drops += 1,
                }
                let wanted = found.wanted_of_late(now) as usize;
                tracing::info!(%chunk, wanted, %removal, "a replica is removed");
                removal.breaks(wanted).map(|why| format!("S7: {why} of chunk {chunk}, which wants {wanted}: {removal}"))
            }
            (Some(Chunk { life: Life::Doomed | Life::Forgotten, .. }), _) => {
                state.counts.deletions += 1;
                None
            }
            (found, _) => Some(format!("S6: a replica of chunk {chunk} is removed, which is {found:?}")),
        };
        if let Some(broken) = broken {
            tracing::info!(broken, "a rule is broken");
            state.broken.push(format!("at {now:?}, {}: {broken}", self.servers[server].name));
        }
    }

    fn removal(&self, server: usize, chunk: ChunkId, seal: Seal) -> Removal<'_> {
        let good = self.good(&self.records(), chunk, seal);
        let state = self.state();
        let now = now();
        let passes_for_good = |(of, other, since): &(ChunkId, usize, Option<Duration>)| {
            *of == chunk && !good.contains(other) && since.is_none_or(|since| now.saturating_sub(since) < NEWS)
        };
        let rotten = state.rotten.iter().map(|((of, other), since)| (*of, *other, *since)).filter(passes_for_good);
        let mut others: Vec<usize> = rotten.map(|(_, other, _)| other).chain(good.iter().copied()).collect();
        others.retain(|other| *other != server);
        others.sort_unstable();
        let followed = |server: usize| truth::followed(&self.servers[server].disk);
        let known = |other: &usize| followed(*other) >= followed(server);
        let off_for_long = |other: &usize| state.off.get(other).is_some_and(|since| now.saturating_sub(*since) >= NEWS);
        let counted = others.iter().copied().filter(|other| known(other) && !off_for_long(other)).collect();
        Removal { books: self, server, was_good: good.contains(&server), others, counted }
    }
}

impl State {
    /// A row of a chunk changes.
    fn committed(&mut self, key: &[u8], value: Option<&Vec<u8>>) {
        let chunk = truth::chunk_of(key);
        self.tables.write(vec![(Table::Chunk, keys::chunk(chunk), value.cloned())]);
        let record = query::chunk(&self.tables, chunk).expect("rows of chunks decode");
        let life = match &record {
            None => Life::Forgotten,
            Some(record) => match record.state {
                ChunkState::Open => Life::Open,
                ChunkState::Sealed => Life::Sealed(Seal { length: record.length, crc: record.crc }),
                ChunkState::Doomed => Life::Doomed,
            },
        };
        let before = self.chunks.get(&chunk).map(|chunk| chunk.life);
        let allowed = match (before, life) {
            (None, life) => life == Life::Open,
            (Some(Life::Open), life) => life != Life::Forgotten,
            (Some(Life::Sealed(one)), Life::Sealed(other)) => one == other,
            (Some(Life::Sealed(_) | Life::Doomed), Life::Doomed) | (Some(Life::Doomed), Life::Forgotten) => true,
            (Some(_), _) => false,
        };
        if !allowed {
            self.broken.push(format!("S2, S6: chunk {chunk} was {before:?} and becomes {life:?}"));
        }
        let known = self.chunks.entry(chunk).or_insert(Chunk { life, wanted: Vec::new() });
        known.life = life;
        let wanted = record.map_or(0, |record| record.wanted);
        if wanted > 0 && known.wanted() != wanted {
            known.wanted.push((now(), wanted));
        }
    }
}

/// What is there when a replica is about to go.
struct Removal<'a> {
    books: &'a Books,
    server: usize,
    was_good: bool,
    /// Who else has a good one, or one that nobody can know to be bad yet.
    others: Vec<usize>,
    /// Those of them that were not off for long, and of which the leader could know.
    counted: Vec<usize>,
}

impl Removal<'_> {
    fn breaks(&self, wanted: usize) -> Option<&'static str> {
        if self.others.len() < wanted {
            return Some("a replica is dropped and fewer than wanted remain");
        }
        if self.counted.len() < wanted {
            return Some("a replica is dropped and others count of which the leader could not know");
        }
        let mut before = self.others.clone();
        before.extend(self.was_good.then_some(self.server));
        if self.books.racks(&self.others) < self.books.racks(&before).min(wanted) {
            return Some("a replica is dropped and a rack is lost");
        }
        None
    }
}

impl fmt::Display for Removal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |of: &[usize]| of.iter().map(|server| self.books.servers[*server].name).collect::<Vec<_>>();
        let (server, others) = (self.books.servers[self.server].name, names(&self.others));
        let (what, counted) = (if self.was_good { "good" } else { "bad" }, names(&self.counted));
        write!(f, "a {what} one of {server}; good ones are on {others:?}, of these count {counted:?}")
    }
}
