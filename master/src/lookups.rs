//! Reads that only the driver and the status need, over the core's tables and keys.

use quarry_master_core::{
    keys,
    query::{self, ChunkRecord, ChunkView},
    rows::Record as _,
    tables::{ReadTables, Table, TableError},
};
use quarry_types::ChunkId;

/// The first `limit` chunk records with ids above `after`, in whatever state.
pub fn chunks(tables: &dyn ReadTables, after: ChunkId, limit: usize) -> Result<Vec<ChunkView>, TableError> {
    let from = keys::chunk(ChunkId(after.0.saturating_add(1)));
    let page = tables.scan(Table::Chunk, &from, None, limit)?;
    page.iter().map(|(key, value)| view(key, value)).collect()
}

fn view(key: &[u8], value: &[u8]) -> Result<ChunkView, TableError> {
    let id = keys::read_one(key).ok_or_else(|| TableError("a key of the chunks is not a chunk id".into()))?;
    let record = ChunkRecord::decode(value).map_err(|e| TableError(format!("record of chunk {}: {e}", ChunkId(id))))?;
    Ok(ChunkView { id: ChunkId(id), record })
}

/// Whether something that was removed may be taken apart now.
pub fn removed_is_due(tables: &dyn ReadTables) -> Result<bool, query::Fault> {
    let now = query::counters(tables)?.elapsed_ms;
    let first = tables.scan(Table::Removed, &[], None, 1)?;
    Ok(first.first().and_then(|(key, _)| keys::read_two(key)).is_some_and(|(at, _)| at <= now))
}
