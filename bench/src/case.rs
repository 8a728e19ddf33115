//! The cases, a file for each group or part of one.

pub mod append;
pub mod beats;
pub mod data;
pub mod memory;
pub mod metadata;
pub mod random;
pub mod repair;
pub mod small;
pub mod stream;

use crate::{book::Book, group::Places, plan::Plan, warm::Warmth};

/// What every case gets.
pub struct Suite {
    /// How much is done.
    pub plan: Plan,
    /// Where it may make directories; removed at the end.
    pub places: Places,
    /// Where results go.
    pub book: Book,
    /// Touches memory before it counts.
    pub warmth: Warmth,
}

impl Suite {
    /// Tells whoever waits.
    #[expect(clippy::print_stderr, reason = "whoever waits for minutes wants to know for what")]
    pub fn say(&self, text: impl AsRef<str>) {
        eprintln!("· {}", text.as_ref());
    }
}
