//! Reads of the state.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use quarry_env::{Kv, KvError, Space, kv::AtHand};
use quarry_master_core::tables::{Pair, ReadTables, Table, TableError};

use super::{State, state::read_mark};
use crate::raft::GroupError;

/// The replicated state as applied on this master. Every call but [`View::at_hand`] blocks: make them through `World::blocking`.
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

    /// The same where nothing may block, for a read of few rows that are in memory: `None` when it is not such a one.
    pub fn at_hand<T>(&self, read: impl FnOnce(&dyn ReadTables) -> T) -> Option<T> {
        let open = self.state.try_hold()?;
        let tables = AtHandTables { kv: &*open.kv, rows: AtomicUsize::new(0), unknown: AtomicBool::new(false) };
        let found = read(&tables);
        (!tables.unknown.load(Ordering::Relaxed)).then_some(found)
    }

    /// The same as [`View::at_once`], with the index up to which the log was applied to these very tables; 0: they are empty.
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

/// Rows that a read may look at without being sent to where it may block: some tens of microseconds.
const ROWS_AT_HAND: usize = 32;

/// Tables as far as they are in memory. Once something is not, the whole read is worth nothing, whatever it makes of the error.
struct AtHandTables<'a> {
    kv: &'a dyn Kv,
    /// Looked at so far.
    rows: AtomicUsize,
    unknown: AtomicBool,
}

impl AtHandTables<'_> {
    /// Counts rows. An error counts as not known: it is met again where it can be told.
    fn known<T>(&self, rows: usize, found: Result<AtHand<T>, KvError>) -> Result<T, TableError> {
        let before = self.rows.fetch_add(rows, Ordering::Relaxed);
        match found {
            Ok(AtHand::Found(found)) if before + rows <= ROWS_AT_HAND => Ok(found),
            _ => {
                self.unknown.store(true, Ordering::Relaxed);
                Err(TableError("not in memory".into()))
            }
        }
    }
}

impl ReadTables for AtHandTables<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.known(1, self.kv.get_at_hand(Space(table.name()), key))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        // One row more than is allowed tells that there are too many.
        let found = self.kv.scan_at_hand(Space(table.name()), from, to, limit.min(ROWS_AT_HAND + 1));
        // Also one that finds nothing takes its time.
        let rows = if let Ok(AtHand::Found(pairs)) = &found { pairs.len().max(1) } else { 1 };
        self.known(rows, found)
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use quarry_env_sim::SimMachine;
    use quarry_master_core::feature::Features;

    use super::*;
    use crate::store::{Layout, Mark};

    fn key(n: usize) -> Vec<u8> {
        (n as u64).to_be_bytes().to_vec()
    }

    #[test]
    fn only_a_read_of_few_rows_is_at_hand() {
        let world = SimMachine::new("m", 1).boot();
        let layout = Layout::new(&world, Path::new("/group"));
        layout.prepare().unwrap();
        let state = State::open(&world, layout, Features::THIS_BUILD).unwrap();
        let rows = (0..2 * ROWS_AT_HAND).map(|n| (Table::Entry, key(n), Some(key(n)))).collect();
        state.update(&Mark { index: 1, raft: Vec::new() }, |_| Ok((rows, ()))).unwrap();
        let view = View::new(state);

        let gets =
            |count: usize| view.at_hand(|tables| (0..count).map(|n| tables.get(Table::Entry, &key(n))).collect());
        let found: Option<Result<Vec<_>, _>> = gets(ROWS_AT_HAND);
        assert_eq!(found, Some(Ok((0..ROWS_AT_HAND).map(|n| Some(key(n))).collect())));
        assert_eq!(gets(ROWS_AT_HAND + 1), None);
        let scan = |to: usize, limit| {
            let read =
                |tables: &dyn ReadTables| tables.scan(Table::Entry, &key(0), Some(&key(to)), limit).map(|p| p.len());
            view.at_hand(read)
        };
        assert_eq!(scan(ROWS_AT_HAND, 1000), Some(Ok(ROWS_AT_HAND)));
        assert_eq!(scan(ROWS_AT_HAND + 1, ROWS_AT_HAND), Some(Ok(ROWS_AT_HAND)));
        assert_eq!(scan(ROWS_AT_HAND + 1, 1000), None);
        // Whatever a read makes of it.
        let swallowed = |tables: &dyn ReadTables| {
            let _error = tables.scan(Table::Entry, &key(0), None, 1000);
            7
        };
        assert_eq!(view.at_hand(swallowed), None);
    }
}
