//! Chunks that are not as they should be and for which the ledger has no room.
//!
//! Nothing is kept of them but how many there are: they are counted while all chunks are looked at, one after the other in
//! the order of their ids, and that is done again as long as there are any (S9).

use std::time::Duration;

use quarry_types::ChunkId;

use super::{Entry, Totals};

/// All chunks are looked at again so long after the last time at the latest.
pub(super) const REST: Duration = Duration::from_secs(60);
/// And so long at the earliest: there is room again, or what was blocked may go on.
pub(super) const REST_MIN: Duration = Duration::from_secs(5);

/// A look at all chunks that is under way.
#[derive(Debug, Default)]
struct Round {
    /// It has come to this chunk.
    at: ChunkId,
    counted: Totals,
    /// When it began some were left out, so until it has ended nobody can say that none is.
    some: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// As the last look at all chunks counted them, and those that gave way since.
    known: Totals,
    round: Option<Round>,
    ended: Duration,
    /// Others were left out than those that were counted.
    more: bool,
    /// What was blocked may go on.
    unblocked: bool,
}

impl LeftOut {
    /// Nothing is left out.
    pub fn is_none(&self) -> bool {
        let unsure = self.round.as_ref().is_some_and(|round| round.some);
        self.totals().chunks == 0 && !self.more && !unsure
    }

    /// What is left out, as far as it was counted.
    pub fn totals(&self) -> &Totals {
        match &self.round {
            Some(round) if self.known.chunks == 0 => &round.counted,
            _ => &self.known,
        }
    }

    /// There was no room for a chunk when it was looked at.
    pub fn note(&mut self, chunk: ChunkId, entry: &Entry) {
        match &mut self.round {
            Some(round) if round.at == chunk => round.counted.add(entry),
            // Its turn comes.
            Some(round) if round.at < chunk => {}
            // It may have been counted, or not.
            Some(_) | None => self.more = true,
        }
    }

    /// An entry gave way to another one.
    pub fn gave_way(&mut self, chunk: ChunkId, entry: &Entry) {
        match &mut self.round {
            Some(round) if round.at < chunk => {}
            Some(round) => round.counted.add(entry),
            None => self.known.add(entry),
        }
    }

    pub fn begin(&mut self) {
        let some = !self.is_none();
        (self.round, self.more, self.unblocked) = (Some(Round { some, ..Round::default() }), false, false);
    }

    pub fn reach(&mut self, chunk: ChunkId) {
        if let Some(round) = &mut self.round {
            round.at = chunk;
        }
    }

    pub fn end(&mut self, now: Duration) {
        if let Some(round) = self.round.take() {
            (self.known, self.ended) = (round.counted, now);
        }
    }

    pub fn unblocked(&mut self) {
        self.unblocked = true;
    }

    /// When all chunks are to be looked at again; `None`: they are not, or it is under way. `room`: for chunks that can be
    /// worked on.
    pub fn next_round(&self, room: bool) -> Option<Duration> {
        if self.is_none() || self.round.is_some() {
            return None;
        }
        let fits = room && (self.more || self.known.chunks > self.known.lost);
        Some(self.ended.saturating_add(if fits || self.unblocked { REST_MIN } else { REST }))
    }
}
