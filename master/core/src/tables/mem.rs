use std::{collections::BTreeMap, ops::Bound};

use super::{Change, Pair, ReadTables, Table, TableError};

/// Tables in memory, for tests and the simulator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemTables {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemTables {
    /// Takes over what [`super::Overlay::into_changes`] gave.
    pub fn write(&mut self, changes: Vec<Change>) {
        for (table, key, value) in changes {
            let rows = self.tables.entry(table).or_default();
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }

    /// All rows of `table`, in key order.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.tables.get(&table).into_iter().flatten().map(|(k, v)| (k.as_slice(), v.as_slice()))
    }
}

impl ReadTables for MemTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let Some(rows) = self.tables.get(&table) else { return Ok(Vec::new()) };
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let range = rows.range::<[u8], _>((Bound::Included(from), to));
        Ok(range.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
