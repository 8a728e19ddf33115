//! What the masters have committed, and what is known of the run besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_master_core::{
    query,
    rows::ChunkState,
    tables::{MemTables, Table},
};
use quarry_types::ChunkId;

use super::{NEWS, now};
use crate::{
    calm::Calm,
    checkers::{
        s2, s9, s10,
        s11::{self, Votes},
    },
    truth::{self, Seal},
};

/// Where a chunk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Open,
    Sealed(Seal),
    Doomed,
    Forgotten,
}

/// What the masters have committed of a chunk.
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
    pub fn wanted_of_late(&self, now: Duration) -> u32 {
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
pub struct State {
    pub chunks: BTreeMap<ChunkId, Chunk>,
    pub tables: MemTables,
    /// The keys of all tables, to count them.
    pub rows: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
    /// The last entry of the log that is in `chunks`: what a master applies again after a crash is nothing new.
    pub applied: u64,
    /// Epoch, who began it, replicated time, and what that was when the run began.
    pub led: (u64, u64),
    pub led_since: Duration,
    pub time_ms: Option<(u64, u64)>,
    /// Since when servers have no power.
    pub off: BTreeMap<usize, Duration>,
    /// When the disk of a server became an old image, and which epoch it followed until then.
    pub imaged: BTreeMap<usize, (Duration, u64)>,
    /// What a server that has power began its present start as.
    pub started: BTreeMap<usize, u64>,
    /// Since when replicas that rotted are in quarantine; absent: not yet.
    pub rotten: BTreeMap<(ChunkId, usize), Option<Duration>>,
    pub votes: Votes,
    pub calm: Calm,
    /// Chunks that the batch at hand seals.
    pub sealed: Vec<(ChunkId, Seal)>,
    pub counts: Counts,
    pub broken: Vec<String>,
}

impl State {
    /// A row of the replicated state changes.
    pub fn row(&mut self, space: &str, key: &[u8], value: Option<&Vec<u8>>) {
        let Some(table) = Table::ALL.iter().copied().find(|table| table.name() == space) else { return };
        self.tables.write(vec![(table, key.to_vec(), value.cloned())]);
        let rows = self.rows.entry(table.name()).or_default();
        match value {
            Some(_) => rows.insert(key.to_vec()),
            None => rows.remove(key),
        };
        self.broken.extend(s9::table(table.name(), rows.len()));
        match table {
            Table::Chunk => self.chunk(truth::chunk_of(key)),
            Table::Meta => self.counters(),
            _ => {}
        }
    }

    fn counters(&mut self) {
        let Ok(counters) = query::counters(&self.tables) else { return };
        let (epoch, leader) = (counters.epoch.0, counters.leader.0);
        self.broken.extend(s11::epoch(self.led.0, epoch));
        if epoch != self.led.0 {
            self.led_since = now();
        }
        self.led = (epoch, leader);
        let (first, last) = *self.time_ms.get_or_insert((counters.elapsed_ms, counters.elapsed_ms));
        let since = |ms: u64| ms.saturating_sub(first);
        if counters.elapsed_ms >= first {
            self.broken.extend(s10::time(since(last), since(counters.elapsed_ms), now()));
        } else {
            self.broken.extend(s10::time(last, counters.elapsed_ms, now()));
        }
        self.time_ms = Some((first, counters.elapsed_ms));
    }

    fn chunk(&mut self, chunk: ChunkId) {
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
        self.broken.extend(s2::row(before, life).map(|why| format!("chunk {chunk}: {why}")));
        if let (Some(Life::Open), Life::Sealed(seal)) = (before, life) {
            self.sealed.push((chunk, seal));
        }
        let known = self.chunks.entry(chunk).or_insert(Chunk { life, wanted: Vec::new() });
        known.life = life;
        let wanted = record.map_or(0, |record| record.wanted);
        if wanted > 0 && known.wanted() != wanted {
            known.wanted.push((now(), wanted));
        }
    }
}
