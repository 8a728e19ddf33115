use std::{collections::VecDeque, time::Duration};

use quarry_types::ChunkId;

use super::Entry;

/// Finished work that is remembered.
const KEPT_MAX: usize = 1000;
/// And for how long.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// How work on a chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The chunk is whole again.
    Done,
    /// It became whole by itself: its server came back.
    Needless,
    /// It was deleted.
    Deleted,
}

impl Outcome {
    /// The word in the ledger's state.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Needless | Outcome::Deleted => "dropped",
        }
    }

    /// The sentence that users see.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Needless => "not needed any more: replicas came back",
            Outcome::Deleted => "not needed any more: the chunk was deleted",
        }
    }
}

/// A chunk that was not as it should be, and is now.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Which.
    pub chunk: ChunkId,
    /// Its entry as it was last.
    pub entry: Entry,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub at: Duration,
}

#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Finished>);

impl History {
    pub fn push(&mut self, chunk: ChunkId, entry: &Entry, outcome: Outcome, now: Duration) {
        self.0.truncate(KEPT_MAX - 1);
        self.0.push_front(Finished { chunk, entry: entry.clone(), outcome, at: now });
    }

    pub fn rows(&self, now: Duration) -> impl Iterator<Item = &Finished> {
        self.0.iter().take_while(move |row| now.saturating_sub(row.at) <= KEPT_FOR)
    }
}
