//! Reads of the state.

use std::sync::Arc;

use quarry_env::{Kv, KvError, Space};
use quarry_master_core::tables::{Pair, ReadTables, Table, TableError};

use super::{State, state::read_mark};
use crate::raft::GroupError;

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
        read(&Watched { tables: KvTables(&*open.kv), state: &self.state })
    }

    /// The same, with the index up to which the log was applied to these very tables; 0: they are empty.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn at_once_applied<T>(&self, read: impl FnOnce(&dyn ReadTables) -> T) -> Result<(T, u64), TableError> {
        let open = self.state.hold();
        let mark = read_mark(&*open.kv, &self.state.layout.state(&open.name)).map_err(|e| TableError(e.to_string()))?;
        let tables = Watched { tables: KvTables(&*open.kv), state: &self.state };
        Ok((read(&tables), mark.map_or(0, |mark| mark.index)))
    }
}

impl ReadTables for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Watched { tables: KvTables(&*self.state.kv()), state: &self.state }.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        Watched { tables: KvTables(&*self.state.kv()), state: &self.state }.scan(table, from, to, limit)
    }
}

/// The tables in a store, one space each.
pub(crate) struct KvTables<'a>(pub(crate) &'a dyn Kv);

impl ReadTables for KvTables<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.0.get(Space(table.name()), key).map_err(table_error)
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        self.0.scan(Space(table.name()), from, to, limit).map_err(table_error)
    }
}

fn table_error(error: KvError) -> TableError {
    TableError(GroupError::from(error).to_string())
}

/// Tables that are read for others than the state machine, which stops by itself when its store fails: here the state is
/// told, so that this master stops as well instead of answering with errors for ever.
struct Watched<'a> {
    tables: KvTables<'a>,
    state: &'a State,
}

impl ReadTables for Watched<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.tables.get(table, key).inspect_err(|error| self.state.failed(error))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        self.tables.scan(table, from, to, limit).inspect_err(|error| self.state.failed(error))
    }
}
