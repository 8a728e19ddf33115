//! What a leader remembers about balancing, as `master/src/balancing.rs` does.

use std::collections::BTreeMap;

use crate::units::Micros;

/// Moves at once in the whole cluster.
const MOVES_MAX: usize = 4096;
/// Moves away from one server at once.
const MOVES_PER_SERVER: usize = 64;
/// Moves toward one server at once: it takes a few at a time, and each that waits is looked at again and again.
const MOVES_TO_SERVER: usize = 16;
/// Until a server's beats count what has moved.
const SETTLE: Micros = 5_000_000;
/// A move that has not begun after this is given up.
pub const GIVE_UP: Micros = 600_000_000;
/// Where nothing could be moved although it should, it is tried again after this.
pub const REST: Micros = 600_000_000;

/// A replica that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Away from here.
    pub from: u16,
    /// To here.
    pub to: u16,
    /// Bytes of the chunk.
    pub bytes: u64,
    /// When it was planned.
    pub since: Micros,
}

/// How far the look at a server's chunks has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// It goes on here; with whether something was found that can move.
    At(usize, bool),
    /// All was looked at, and nothing can move.
    Spent,
}

/// What a leader remembers about balancing.
#[derive(Debug, Default)]
pub struct Balancing {
    /// It is under way.
    pub running: bool,
    /// When the next step is.
    pub step_at: Option<Micros>,
    /// It does not begin again before this.
    pub rest_until: Option<Micros>,
    moves: BTreeMap<u32, Move>,
    leaving: BTreeMap<u16, usize>,
    coming: BTreeMap<u16, usize>,
    settling: Vec<(Micros, Move)>,
    walks: BTreeMap<u16, Walk>,
}

/// One fewer; none is not kept.
fn less(counts: &mut BTreeMap<u16, usize>, of: u16) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
        }
    }
}

impl Balancing {
    /// A chunk's move.
    #[must_use]
    pub fn get(&self, chunk: u32) -> Option<&Move> {
        self.moves.get(&chunk)
    }

    /// Moves that are under way or wait.
    pub fn moves(&self) -> impl Iterator<Item = (u32, &Move)> {
        self.moves.iter().map(|(chunk, one)| (*chunk, one))
    }

    /// Nothing is under way, and what was is counted where it is.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.moves.is_empty() && self.settling.is_empty()
    }

    /// How many more moves may leave a server now.
    #[must_use]
    pub fn room(&self, from: u16) -> usize {
        let here = self.leaving.get(&from).copied().unwrap_or(0);
        MOVES_PER_SERVER.saturating_sub(here).min(MOVES_MAX.saturating_sub(self.moves.len()))
    }

    /// Whether one more move may go to a server now.
    #[must_use]
    pub fn takes(&self, to: u16) -> bool {
        self.coming.get(&to).is_none_or(|coming| *coming < MOVES_TO_SERVER)
    }

    /// A replica is to move.
    pub fn begin(&mut self, chunk: u32, planned: Move) {
        self.abandon(chunk);
        *self.leaving.entry(planned.from).or_default() += 1;
        *self.coming.entry(planned.to).or_default() += 1;
        self.moves.insert(chunk, planned);
    }

    /// A replica is to stay where it is.
    pub fn abandon(&mut self, chunk: u32) -> Option<Move> {
        let ended = self.moves.remove(&chunk)?;
        less(&mut self.leaving, ended.from);
        less(&mut self.coming, ended.to);
        Some(ended)
    }

    /// A chunk is as it should be, or is gone: a move of it is over.
    pub fn ended(&mut self, chunk: u32, now: Micros) {
        if let Some(ended) = self.abandon(chunk) {
            self.walks.retain(|_, walk| *walk != Walk::Spent);
            self.settling.push((now + SETTLE, ended));
        }
    }

    /// What has moved is counted by the servers themselves after a while.
    pub fn settle(&mut self, now: Micros) {
        self.settling.retain(|(until, _)| *until > now);
    }

    /// Where to go on in a server's chunks; `None`: nothing that it holds can move.
    #[must_use]
    pub fn cursor(&self, server: u16) -> Option<usize> {
        match self.walks.get(&server) {
            Some(Walk::Spent) => None,
            Some(Walk::At(at, _)) => Some(*at),
            None => Some(0),
        }
    }

    /// Chunks of a server up to `next` were looked at, or with `None` all. `found`: one of them moves.
    pub fn looked(&mut self, server: u16, next: Option<usize>, found: bool) {
        let found = found || matches!(self.walks.get(&server), Some(Walk::At(_, true)));
        let walk = match next {
            Some(next) => Walk::At(next, found),
            None if found => Walk::At(0, false),
            None => Walk::Spent,
        };
        self.walks.insert(server, walk);
    }

    /// Somebody came, or room: what could not be moved before perhaps can.
    pub fn meet(&mut self) {
        self.rest_until = None;
        self.walks.clear();
    }

    /// Ends a run.
    pub fn end(&mut self) {
        self.running = false;
        self.walks.clear();
    }

    /// Bytes that moves take from, or with `to` bring to, each server.
    #[must_use]
    pub fn sums(&self, to: bool) -> BTreeMap<u16, u64> {
        let mut sums: BTreeMap<u16, u64> = BTreeMap::new();
        for one in self.moves.values().chain(self.settling.iter().map(|(_, one)| one)) {
            *sums.entry(if to { one.to } else { one.from }).or_default() += one.bytes;
        }
        sums
    }
}
