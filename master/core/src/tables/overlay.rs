use std::{collections::BTreeMap, ops::Bound};

use super::{Change, Pair, ReadTables, Table, TableError};

/// Rows of the base that are looked at once, if more are hidden than asked for.
const PAGE_MAX: usize = 1024;

type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A write that another one covered: its table and key, and what was written there before. The outer `None`: nothing
/// was.
type Covered = (Table, Vec<u8>, Option<Option<Vec<u8>>>);

/// What commands have changed on top of tables that they only read. Reads see the changes.
pub struct Overlay<'a> {
    base: &'a dyn ReadTables,
    writes: BTreeMap<Table, Writes>,
    /// What each write under a savepoint covered.
    undo: Vec<Covered>,
    savepoints: usize,
}

/// A point that writes can be taken back to. Savepoints end in the reverse of the order in which they began.
#[derive(Debug)]
#[must_use = "a savepoint ends by `rollback` or `release`"]
pub struct Savepoint {
    undo: usize,
    depth: usize,
}

impl<'a> Overlay<'a> {
    /// Without changes yet.
    #[must_use]
    pub fn new(base: &'a dyn ReadTables) -> Self {
        Overlay { base, writes: BTreeMap::new(), undo: Vec::new(), savepoints: 0 }
    }

    fn write(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let before = self.writes.entry(table).or_default().insert(key.clone(), value);
        if self.savepoints > 0 {
            self.undo.push((table, key, before));
        }
    }

    /// Sets a key.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.write(table, key, Some(value));
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.write(table, key, None);
    }

    /// Begins a stretch of writes that can be taken back.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoints += 1;
        Savepoint { undo: self.undo.len(), depth: self.savepoints }
    }

    /// Takes back every write since `to` began.
    pub fn rollback(&mut self, to: Savepoint) {
        while self.undo.len() > to.undo {
            let Some((table, key, before)) = self.undo.pop() else { break };
            let writes = self.writes.entry(table).or_default();
            match before {
                Some(value) => writes.insert(key, value),
                None => writes.remove(&key),
            };
        }
        self.release(to);
    }

    /// Keeps what was written since `from` began (an outer savepoint may still take it back).
    pub fn release(&mut self, from: Savepoint) {
        debug_assert_eq!(from.depth, self.savepoints, "savepoints end in reverse order");
        self.savepoints = from.depth - 1;
        if self.savepoints == 0 {
            self.undo.clear();
        }
    }

    /// The changes, by table and key.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        let writes = self.writes.into_iter();
        writes.flat_map(|(table, rows)| rows.into_iter().map(move |(key, value)| (table, key, value))).collect()
    }
}

impl ReadTables for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        match self.writes.get(&table).and_then(|rows| rows.get(key)) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        let empty = Writes::new();
        let rows = self.writes.get(&table).unwrap_or(&empty);
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut written = rows.range::<[u8], _>((Bound::Included(from), upper)).peekable();
        let mut found = Vec::new();
        let mut next = from.to_vec();
        let mut wanted = 0_usize;
        while found.len() < limit {
            // Rows of the base may be hidden by deletions, so it can take several pages to fill one of ours: larger ones
            // each time, or a page of one row behind many hidden ones would take as many scans.
            wanted = (limit - found.len()).max(wanted.saturating_mul(2).min(PAGE_MAX));
            let page = self.base.scan(table, &next, to, wanted)?;
            let last_page = page.len() < wanted;
            if let Some((key, _)) = page.last() {
                next.clone_from(key);
                next.push(0);
            }
            for (key, value) in page {
                while let Some((k, v)) = written.next_if(|(k, _)| **k < key) {
                    found.extend(v.clone().map(|v| (k.clone(), v)));
                }
                match written.next_if(|(k, _)| **k == key) {
                    Some((_, v)) => found.extend(v.clone().map(|v| (key, v))),
                    None => found.push((key, value)),
                }
            }
            if last_page {
                found.extend(written.by_ref().filter_map(|(k, v)| v.clone().map(|v| (k.clone(), v))).take(limit));
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}
