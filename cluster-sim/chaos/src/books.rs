//! What masters and chunkservers write, seen past every process, and the checkers that judge it when it happens.
//!
//! The books know what the masters have committed, from the batches that they write to their states, and look at the disks of
//! all chunkservers just before one of them changes its index. They ask nobody: what a master believes, or a chunkserver reports,
//! is what is being checked.

mod state;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use quarry_chunkserver_core::{Durability, record::ReplicaRecord};
use quarry_env::{Batch, kv::Change};
use quarry_env_sim::SimDisk;
use quarry_master_core::query;
use quarry_types::{ChunkId, ReplicaState};

use crate::{
    calm::{Calm, SETTLED},
    checkers::{s2, s5, s6, s7::Removal, s9, s11},
    cluster::MASTER_DATA,
    moments::Moments,
    truth::{self, Kept, Records, Seal},
    watched::Watcher,
};

use state::State;
pub use state::{Chunk, Counts, Life};

/// A command that was decided about earlier than this is not carried out any more: its answer is waited for 15 s, and its
/// registration ends when the master is silent for 3 s.
pub const NEWS: Duration = Duration::from_secs(20);
/// Where the log of a master keeps its votes.
const VOTE: (&str, &[u8]) = ("meta", b"vote");

/// A chunkserver as the simulation knows it.
#[derive(Clone)]
pub struct Server {
    pub name: &'static str,
    pub rack: &'static str,
    pub disk: SimDisk,
}

/// The books of a run.
pub struct Books {
    pub servers: Vec<Server>,
    /// What the durability of this cluster promises to keep.
    pub kept: Kept,
    /// When a leader is lost next.
    pub moments: Moments,
    state: Mutex<State>,
}

/// What a master keeps of how far its state is applied; the rest of it is Raft's.
#[derive(Clone, PartialEq, Eq, Message)]
struct Mark {
    #[prost(uint64, tag = "1")]
    index: u64,
}

/// Watches the stores of a master.
pub struct OfMaster(pub Arc<Books>, pub usize);

/// Watches the index of a chunkserver.
pub struct OfServer(pub Arc<Books>, pub usize);

fn is_state(store: &str) -> bool {
    store.starts_with("state-")
}

impl Watcher for OfMaster {
    fn before(&self, store: &str, batch: &Batch) {
        let leads = self.0.leader() == self.1;
        if is_state(store) {
            self.0.moments.apply(self.1, leads);
            self.0.applied(batch);
        } else if store == "log" && batch.changes.iter().any(is_entry) {
            self.0.moments.propose(self.1, leads);
        }
    }

    fn after(&self, store: &str, batch: &Batch) {
        let leader = self.0.leader();
        if is_state(store) {
            self.0.moments.reply(self.1, leader == self.1);
        } else if store == "log" {
            if batch.changes.iter().any(is_entry) {
                self.0.moments.commit(self.1, leader);
            }
            self.0.voted(self.1, batch);
        }
    }
}

fn is_entry(change: &Change) -> bool {
    matches!(change, Change::Put(space, ..) if space.0 == "entries")
}

impl Watcher for OfServer {
    fn before(&self, store: &str, batch: &Batch) {
        if store != "index" {
            return;
        }
        let (books, server) = (&self.0, self.1);
        for change in &batch.changes {
            match change {
                Change::Delete(space, key) if space.0 == truth::REPLICAS => {
                    let buries = |change: &Change| matches!(change, Change::Put(space, of, _) if space.0 == truth::TOMBSTONES && of == key);
                    books.removed(server, truth::chunk_of(key), batch.changes.iter().any(buries));
                }
                Change::Put(space, key, value) if space.0 == truth::REPLICAS => {
                    let record = ReplicaRecord::decode(value).expect("records decode");
                    books.recorded(server, truth::chunk_of(key), &record);
                }
                Change::Put(space, key, value) if space.0 == truth::META => books.noted(server, key, value),
                _ => {}
            }
        }
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl Books {
    pub fn new(servers: Vec<Server>, durability: Durability, moments: Moments) -> Self {
        let kept = match durability {
            Durability::Sealed => Kept::Durable,
            Durability::Buffered => Kept::Written,
        };
        Books { servers, kept, moments, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was broken so far: a process that saw it may not be the one to say so.
    pub fn broken(&self) -> Option<String> {
        let state = self.state();
        (!state.broken.is_empty()).then(|| state.broken.join("\n"))
    }

    /// Something is broken, if it is.
    pub fn judge(&self, who: &str, found: Option<String>) {
        let Some(broken) = found else { return };
        tracing::info!(who, broken, "a rule is broken");
        self.state().broken.push(format!("at {:?}, {who}: {broken}", now()));
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Every chunk that was ever given out.
    pub fn chunks(&self) -> BTreeMap<ChunkId, Chunk> {
        self.state().chunks.clone()
    }

    /// The master that began the present epoch, by its place in the list.
    pub fn leader(&self) -> usize {
        usize::try_from(self.state().led.1.saturating_sub(1)).unwrap_or_default()
    }

    /// A server has power, or none.
    pub fn power(&self, server: usize, on: bool, now: Duration) {
        let mut state = self.state();
        if on {
            state.off.remove(&server);
        } else {
            state.off.entry(server).or_insert(now);
            state.started.remove(&server);
        }
    }

    /// An old image is about to take the place of a server's disk: whom it follows there is not whom it followed just now.
    pub fn image_comes(&self, server: usize, now: Duration) {
        if let Some(epoch) = truth::followed(&self.servers[server].disk) {
            self.state().imaged.insert(server, (now, epoch));
        }
    }

    /// Something happens to a machine that lasts until then.
    pub fn disturb(&self, machine: &'static str, until: Duration) {
        self.state().calm.disturb(machine, until);
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
        self.servers.iter().map(|server| truth::records(&server.disk, self.kept)).collect()
    }

    /// The servers whose replica of a chunk is good, by these records.
    pub fn good(&self, records: &[Records], chunk: ChunkId, seal: Seal) -> Vec<usize> {
        let is_good = |(server, records): &(&Server, &Records)| {
            records.get(&chunk).is_some_and(|record| truth::is_good(&server.disk, chunk, record, seal, self.kept))
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

    fn names(&self, servers: &[usize]) -> Vec<&'static str> {
        servers.iter().map(|server| self.servers[*server].name).collect()
    }

    /// A master writes to its state.
    fn applied(&self, batch: &Batch) {
        let mut state = self.state();
        let mark = batch.changes.iter().find_map(|change| match change {
            Change::Put(space, _, value) if space.0 == "applied" => Mark::decode(value.get(1..)?).ok(),
            _ => None,
        });
        let Some(Mark { index }) = mark.filter(|mark| mark.index > state.applied) else { return };
        state.applied = index;
        let before = state.broken.len();
        for change in &batch.changes {
            match change {
                Change::Put(space, key, value) => state.row(space.0, key, Some(value)),
                Change::Delete(space, key) => state.row(space.0, key, None),
                Change::DeleteRange(..) => {}
            }
        }
        let at = now();
        let sealed = std::mem::take(&mut state.sealed);
        let leader = self.moments.name(usize::try_from(state.led.1).unwrap_or(1).saturating_sub(1));
        // Chunkservers have found a new leader within this, too.
        if state.calm.is_calm(leader, at) && at >= state.led_since + SETTLED {
            let found = sealed.iter().find_map(|(chunk, seal)| self.seal_among(&state.calm, *chunk, *seal));
            state.broken.extend(found);
        }
        for broken in &mut state.broken[before..] {
            *broken = format!("at {at:?}, entry {index}: {broken}");
            tracing::info!(broken, "a rule is broken");
        }
    }

    /// What is wrong with a chunk having been sealed just now.
    fn seal_among(&self, calm: &Calm, chunk: ChunkId, seal: Seal) -> Option<String> {
        let answers = |server: &&Server| calm.is_calm(server.name, now());
        let ended = |server: &Server| {
            let record = truth::records(&server.disk, Kept::Durable).get(&chunk).copied()?;
            let counts = record.state == ReplicaState::Fenced && record.durable && !record.restarted;
            counts.then_some((server.name, record.length))
        };
        let members: Vec<_> = self.servers.iter().filter(answers).filter_map(ended).collect();
        s2::seal_among(seal.length, &members).map(|why| format!("chunk {chunk}: {why}"))
    }

    /// A master has written to its log.
    fn voted(&self, master: usize, batch: &Batch) {
        for change in &batch.changes {
            if let Change::Put(space, key, value) = change
                && (space.0, &key[..]) == VOTE
            {
                let found = self.state().votes.cast(master, value);
                self.judge("a master's log", found);
                let log = Path::new(MASTER_DATA).join("group/log");
                let durable = |disk| truth::rows(disk, &log, VOTE.0, Kept::Durable).remove(VOTE.1);
                let votes: Vec<_> = self.moments.disks().map(durable).collect();
                self.judge("a master's log", s11::elected(master, value, &votes));
            }
        }
    }

    /// A chunkserver is about to write of itself.
    fn noted(&self, server: usize, key: &[u8], value: &[u8]) {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        let disk = &self.servers[server].disk;
        let found = if key == truth::LEADERSHIP {
            truth::epoch_of(value).and_then(|after| s5::leadership(truth::followed(disk), after))
        } else if key == truth::START_COUNTER {
            let rows = truth::index_rows(disk, truth::META, Kept::Durable);
            let before = rows.get(truth::START_COUNTER).and_then(|row| number(row));
            number(value).and_then(|after| {
                // A directory that comes back into service is told of the same start.
                let again = self.state().started.insert(server, after) == Some(after);
                if again { None } else { s11::start(before, after) }
            })
        } else if key == truth::WATERMARK {
            let open = query::open_watermark(&self.state().tables).expect("rows of open chunks decode");
            number(value).and_then(|to| s5::watermark(ChunkId(to), open))
        } else {
            None
        };
        self.judge(self.servers[server].name, found);
    }

    /// A chunkserver is about to record a replica.
    fn recorded(&self, server: usize, chunk: ChunkId, record: &ReplicaRecord) {
        let disk = &self.servers[server].disk;
        let before = truth::records(disk, Kept::Durable).get(&chunk).copied();
        let tombstones = truth::index_rows(disk, truth::TOMBSTONES, Kept::Durable);
        let fenced = tombstones.contains_key(&chunk.0.to_be_bytes()[..]);
        let life = self.state().chunks.get(&chunk).map(|chunk| chunk.life);
        let found = s5::record(before.as_ref(), fenced, record).or_else(|| s2::record(life, record));
        self.judge(self.servers[server].name, found.map(|why| format!("chunk {chunk}: {why}")));
        let mut state = self.state();
        let state = &mut *state;
        let before = before.map(|record| record.state);
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
    fn removed(&self, server: usize, chunk: ChunkId, buried: bool) {
        let number = |row: &Vec<u8>| row[..].try_into().ok().map(u64::from_le_bytes);
        let rows = truth::index_rows(&self.servers[server].disk, truth::META, Kept::Written);
        let watermark = ChunkId(rows.get(truth::WATERMARK).and_then(number).unwrap_or(0));
        let unburied = s5::removal(chunk, buried, watermark).map(|why| format!("chunk {chunk}: {why}"));
        self.judge(self.servers[server].name, unburied);
        let found = self.state().chunks.get(&chunk).cloned();
        let mut broken = s6::removal(found.as_ref().map(|chunk| chunk.life)).map(|why| format!("chunk {chunk}: {why}"));
        match &found {
            Some(known @ Chunk { life: Life::Sealed(seal), .. }) => {
                let names = |of: &[usize]| self.names(of);
                let racks = |of: &[usize]| self.racks(of);
                let removal = self.removal(server, chunk, *seal, &names, &racks);
                let wanted = known.wanted_of_late(now()) as usize;
                tracing::info!(%chunk, wanted, %removal, "a replica is removed");
                let breaks = removal.breaks(wanted);
                broken =
                    breaks.map(|why| format!("S7: {why} of chunk {chunk}, which wants {wanted}: {removal}")).or(broken);
                let mut state = self.state();
                match removal.was_good {
                    true => state.counts.drops += 1,
                    false => state.counts.bad_drops += 1,
                }
            }
            Some(_) => self.state().counts.deletions += 1,
            None => {}
        }
        self.state().rotten.remove(&(chunk, server));
        self.judge(self.servers[server].name, broken);
    }

    fn removal<'a>(
        &self,
        server: usize,
        chunk: ChunkId,
        seal: Seal,
        names: &'a dyn Fn(&[usize]) -> Vec<&'static str>,
        racks: &'a dyn Fn(&[usize]) -> usize,
    ) -> Removal<'a> {
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
        let recently = |server: usize| {
            let (since, epoch) = *state.imaged.get(&server)?;
            (now.saturating_sub(since) < NEWS).then_some(epoch)
        };
        let followed = |server: usize| truth::followed(&self.servers[server].disk).max(recently(server));
        let known = |other: &usize| followed(*other) >= followed(server);
        let off_for_long = |other: &usize| state.off.get(other).is_some_and(|since| now.saturating_sub(*since) >= NEWS);
        let counted = others.iter().copied().filter(|other| known(other) && !off_for_long(other)).collect();
        Removal { racks, names, server, was_good: good.contains(&server), others, counted }
    }

    /// What is wrong with the tables when all is at rest (S9).
    pub fn at_rest(&self) -> Option<String> {
        let state = self.state();
        state.rows.iter().find_map(|(name, rows)| s9::at_rest(name, rows.len()))
    }
}
