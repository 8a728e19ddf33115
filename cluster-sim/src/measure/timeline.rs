//! What happened, in words: the first lines, and how many more there were.

use crate::{limits::TIMELINE_MAX, units::Micros};

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    lines: Vec<(Micros, String)>,
    more: u64,
}

impl Timeline {
    /// Something happened. What is not kept is not put into words.
    pub fn add(&mut self, at: Micros, what: impl FnOnce() -> String) {
        if self.lines.len() < TIMELINE_MAX {
            self.lines.push((at, what()));
        } else {
            self.more += 1;
        }
    }

    /// The lines that are kept.
    #[must_use]
    pub fn lines(&self) -> &[(Micros, String)] {
        &self.lines
    }

    /// How many more there were.
    #[must_use]
    pub fn more(&self) -> u64 {
        self.more
    }
}
