//! Typed rows over untyped tables, for reads and for apply.

use quarry_types::{ChunkId, ErrorCode, InodeId, LeaseId};

use crate::{
    keys,
    reply::Refusal,
    rows::{Change, Chunk, Counters, Inode, Lease, Record, Settings, Totals},
    tables::{Overlay, ReadTables, Table, TableError},
};

/// Why an operation ends early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The caller cannot have what it asked for.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The tables cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Fault::Refused(refusal)
    }
}

/// A refusal as an error.
pub(crate) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused(Refusal::new(code, message)))
}

/// A row that must decode.
pub(crate) fn decode<R: Record>(table: Table, key: &[u8], bytes: &[u8]) -> Result<R, TableError> {
    R::decode(bytes).map_err(|e| TableError(format!("table {}, key {}: {e}", table.name(), hex(key))))
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}

/// A key that does not have the form of its table.
pub(crate) fn bad_key(table: Table, key: &[u8]) -> TableError {
    TableError(format!("table {} has a key of another form: {}", table.name(), hex(key)))
}

/// The row at `key`, if there is one.
pub(crate) fn find<R: Record>(tables: &dyn ReadTables, table: Table, key: &[u8]) -> Result<Option<R>, TableError> {
    tables.get(table, key)?.map(|bytes| decode(table, key, &bytes)).transpose()
}

/// A row that another row says must be there.
pub(crate) fn need<R: Record>(tables: &dyn ReadTables, table: Table, key: &[u8]) -> Result<R, TableError> {
    find(tables, table, key)?
        .ok_or_else(|| TableError(format!("table {} lacks the row {} that others refer to", table.name(), hex(key))))
}

/// The tables while a command is applied to them.
pub(crate) struct Write<'s, 'b> {
    tables: &'s mut Overlay<'b>,
    /// The command's place in the log.
    pub(crate) index: u64,
    /// For display (S10).
    pub(crate) wall_ms: u64,
    /// What changed, for those who watch.
    changes: Vec<Change>,
}

impl<'s, 'b> Write<'s, 'b> {
    pub(crate) fn new(tables: &'s mut Overlay<'b>, index: u64, wall_ms: u64) -> Self {
        Write { tables, index, wall_ms, changes: Vec::new() }
    }

    /// Notes a change for those who watch. It is taken back with what it tells of.
    pub(crate) fn tell(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// What was noted, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// For reads.
    pub(crate) fn tables(&self) -> &dyn ReadTables {
        &*self.tables
    }

    pub(crate) fn put<R: Record>(&mut self, table: Table, key: Vec<u8>, row: &R) {
        self.tables.put(table, key, row.encode());
    }

    pub(crate) fn put_bytes(&mut self, table: Table, key: Vec<u8>, row: Vec<u8>) {
        self.tables.put(table, key, row);
    }

    pub(crate) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.tables.delete(table, key);
    }

    /// Does all of `work` or, when it is refused, nothing of it.
    pub(crate) fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<Result<T, Refusal>, TableError> {
        let (savepoint, told) = (self.tables.savepoint(), self.changes.len());
        match work(self) {
            Ok(done) => {
                self.tables.release(savepoint);
                Ok(Ok(done))
            }
            Err(Fault::Refused(refusal)) => {
                self.tables.rollback(savepoint);
                self.changes.truncate(told);
                Ok(Err(refusal))
            }
            Err(Fault::Table(error)) => {
                self.tables.rollback(savepoint);
                Err(error)
            }
        }
    }

    pub(crate) fn inode(&self, id: InodeId) -> Result<Option<Inode>, TableError> {
        find(self.tables(), Table::Inode, &keys::inode(id))
    }

    pub(crate) fn put_inode(&mut self, id: InodeId, inode: &Inode) {
        self.put(Table::Inode, keys::inode(id), inode);
    }

    pub(crate) fn chunk(&self, id: ChunkId) -> Result<Option<Chunk>, TableError> {
        find(self.tables(), Table::Chunk, &keys::chunk(id))
    }

    pub(crate) fn put_chunk(&mut self, id: ChunkId, chunk: &Chunk) {
        self.put(Table::Chunk, keys::chunk(id), chunk);
    }

    pub(crate) fn lease(&self, id: LeaseId) -> Result<Option<Lease>, TableError> {
        find(self.tables(), Table::Lease, &keys::lease(id))
    }

    pub(crate) fn put_lease(&mut self, id: LeaseId, lease: &Lease) {
        self.put(Table::Lease, keys::lease(id), lease);
    }

    pub(crate) fn counters(&self) -> Result<Counters, TableError> {
        need(self.tables(), Table::Meta, keys::COUNTERS)
    }

    pub(crate) fn put_counters(&mut self, counters: &Counters) {
        self.put(Table::Meta, keys::COUNTERS.to_vec(), counters);
    }

    /// Takes the next number of one of the counters. Numbers are taken one by one and never in advance (S6).
    pub(crate) fn next_id(&mut self, which: impl Fn(&mut Counters) -> &mut u64) -> Result<u64, TableError> {
        let mut counters = self.counters()?;
        let next = which(&mut counters);
        let id = *next;
        *next = id.checked_add(1).ok_or_else(|| TableError("a counter of ids has run out".into()))?;
        self.put_counters(&counters);
        Ok(id)
    }

    pub(crate) fn settings(&self) -> Result<Settings, TableError> {
        need(self.tables(), Table::Meta, keys::SETTINGS)
    }

    pub(crate) fn totals(&self) -> Result<Totals, TableError> {
        need(self.tables(), Table::Meta, keys::TOTALS)
    }

    /// Changes the totals.
    pub(crate) fn count(&mut self, change: impl FnOnce(&mut Totals)) -> Result<(), TableError> {
        let mut totals = self.totals()?;
        change(&mut totals);
        self.put(Table::Meta, keys::TOTALS.to_vec(), &totals);
        Ok(())
    }
}

/// Takes one off a total. A total below what there is means damaged tables, and must not wrap around silently.
pub(crate) fn less(total: &mut u64) {
    debug_assert!(*total > 0, "a total was zero while a row was there");
    *total = total.saturating_sub(1);
}
