//! Reads of the state.

use std::sync::Arc;

use quarry_env::{Kv, Space};
use quarry_master_core::tables::{Pair, ReadTables, Table, TableError};

use super::{State, state::read_mark};

/// The replicated state as applied on this master. Every call blocks: make them through `World::blocking`.
///
/// Two calls may see different states, since commands are applied meanwhile; [`View::at_once`] is for a read that is
/// made of several.
#[derive(Clone)]
pub struct View {
    state: Arc<State>,
}

impl View {
    pub(crate) fn new(state: Arc<State>) -> Self {
        View { state }
    }

    /// Calls `read` with tables that do not change while it runs. Keep it short and bounded, applying waits for it;
    /// and never nest two, a command that waits between them would hold up both for ever.
    pub fn at_once<T>(&self, read: impl FnOnce(&dyn ReadTables) -> T) -> T {
        let open = self.state.hold();
        read(&KvTables(&*open.kv))
    }

    /// The same, with the index up to which the log was applied to these very tables; 0: they are empty.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn at_once_applied<T>(&self, read: impl FnOnce(&dyn ReadTables) -> T) -> Result<(T, u64), TableError> {
        let open = self.state.hold();
        let mark = read_mark(&*open.kv, &self.state.layout.state(&open.name)).map_err(|e| TableError(e.to_string()))?;
        Ok((read(&KvTables(&*open.kv)), mark.map_or(0, |mark| mark.index)))
    }
}

impl ReadTables for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        KvTables(&*self.state.kv()).get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        KvTables(&*self.state.kv()).scan(table, from, to, limit)
    }
}

/// The tables in a store, one space each.
pub(crate) struct KvTables<'a>(pub(crate) &'a dyn Kv);

impl ReadTables for KvTables<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.0.get(Space(table.name()), key).map_err(|e| TableError(e.to_string()))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        self.0.scan(Space(table.name()), from, to, limit).map_err(|e| TableError(e.to_string()))
    }
}
