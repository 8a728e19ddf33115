//! The feature level: what apply may do while masters of different versions are one group.
//!
//! A build knows the levels from [`Features::lowest`] to [`Features::highest`]. The level *in force* is replicated state,
//! changed by [`RaiseLevel`](crate::command::RaiseLevel) alone, and never goes down. A command says which level it
//! needs ([`Kind::level`](crate::command::Kind::level)); every replica refuses one above the level in force, whatever
//! its build knows, and a replica whose build does not know the level in force stops.

use std::fmt;

use crate::{
    keys,
    rows::FeatureLevel,
    state::find,
    tables::{ReadTables, Table, TableError},
};

/// The level of a state that does not say.
pub const FIRST_LEVEL: u32 = 1;

/// The levels that a build can apply commands of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// States below were written by builds so old that this one does not know what they mean.
    pub lowest: u32,
    /// States above hold what this build does not know.
    pub highest: u32,
}

impl Features {
    /// Of this build. Raised together with the first command or meaning that needs it; see CONTRIBUTING.md.
    pub const THIS_BUILD: Features = Features { lowest: FIRST_LEVEL, highest: FIRST_LEVEL };

    /// Whether commands of `level` can be applied.
    #[must_use]
    pub fn knows(self, level: u32) -> bool {
        (self.lowest..=self.highest).contains(&level)
    }

    /// Refuses a level that this build does not know, and says what to do.
    ///
    /// # Errors
    /// Where it does not.
    pub fn check(self, level: u32) -> Result<(), UnknownLevel> {
        if self.knows(level) { Ok(()) } else { Err(UnknownLevel { level, known: self }) }
    }
}

const _: () = assert!(Features::THIS_BUILD.lowest >= FIRST_LEVEL);
const _: () = assert!(Features::THIS_BUILD.lowest <= Features::THIS_BUILD.highest);

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            return write!(f, "{}", self.highest);
        }
        write!(f, "{} to {}", self.lowest, self.highest)
    }
}

/// A level in force, or about to be, that this build does not know: it must not apply anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the group's feature level is {level}, and this build knows level {known}: nothing was applied and nothing is damaged; \
     start a {} quarry-master on this data directory", if *level > known.highest { "newer" } else { "older" }
)]
pub struct UnknownLevel {
    /// The group's.
    pub level: u32,
    /// This build's.
    pub known: Features,
}

impl From<UnknownLevel> for TableError {
    fn from(from: UnknownLevel) -> Self {
        TableError(from.to_string())
    }
}

/// The level in force.
///
/// # Errors
/// [`TableError`].
pub fn level(tables: &dyn ReadTables) -> Result<u32, TableError> {
    let row: Option<FeatureLevel> = find(tables, Table::Meta, keys::FEATURE_LEVEL)?;
    Ok(row.map_or(FIRST_LEVEL, |row| row.level))
}
