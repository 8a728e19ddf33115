use quarry_types::{ChunkId, InodeId, limits::CHUNK_BYTES, planted};

use super::ChunkRecord;
use crate::{
    keys,
    rows::{Counters, Row},
    state::{bad_key, decode, find, need},
    tables::{Pair, ReadTables, Table, TableError},
};

/// Row keys looked at in one go.
const PAGE: usize = 1024;

/// A chunk and its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkView {
    /// Its id.
    pub id: ChunkId,
    /// What is recorded of it.
    pub record: ChunkRecord,
}

/// Chunks of a file, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedRows {
    /// The chunks.
    pub chunks: Vec<ChunkView>,
    /// More follow.
    pub more: bool,
}

/// A chunk's record; `None` when there is none (any more).
///
/// # Errors
/// [`TableError`].
pub fn chunk(tables: &dyn ReadTables, id: ChunkId) -> Result<Option<ChunkRecord>, TableError> {
    find(tables, Table::Chunk, &keys::chunk(id))
}

fn row_chunk(tables: &dyn ReadTables, pair: &Pair) -> Result<ChunkView, TableError> {
    let row: Row = decode(Table::Row, &pair.0, &pair.1)?;
    Ok(ChunkView { id: row.chunk, record: need(tables, Table::Chunk, &keys::chunk(row.chunk))? })
}

/// The first `limit` chunks of a file that reach beyond `offset`. Nothing when the inode is gone.
///
/// # Errors
/// [`TableError`].
pub fn rows(tables: &dyn ReadTables, file: InodeId, offset: u64, limit: usize) -> Result<LocatedRows, TableError> {
    let Some(before) = last_row_at_or_before(tables, file, offset)? else {
        return rows_from(tables, file, offset, limit);
    };
    let reach = before.record.offset.saturating_add(before.record.reach());
    if reach > offset && limit > 0 {
        let mut found = rows_from(tables, file, before.record.offset.saturating_add(1), limit - 1)?;
        found.chunks.insert(0, before);
        return Ok(found);
    }
    rows_from(tables, file, offset, limit)
}

/// The row that may hold the byte at `offset`. A row begins less than a chunk's longest length before its bytes end.
fn last_row_at_or_before(tables: &dyn ReadTables, file: InodeId, offset: u64) -> Result<Option<ChunkView>, TableError> {
    let mut from = keys::row(file, offset.saturating_sub(CHUNK_BYTES));
    let to = keys::behind(&keys::row(file, offset));
    let mut last = None;
    loop {
        let mut page = tables.scan(Table::Row, &from, Some(&to), PAGE)?;
        let full = page.len() == PAGE;
        last = page.pop().or(last);
        match &last {
            Some((key, _)) if full => from = keys::behind(key),
            _ => break,
        }
    }
    last.map(|pair| row_chunk(tables, &pair)).transpose()
}

/// The first `limit` chunks of a file that begin at `offset` or behind it.
pub(crate) fn rows_from(
    tables: &dyn ReadTables,
    file: InodeId,
    offset: u64,
    limit: usize,
) -> Result<LocatedRows, TableError> {
    let end = keys::after(file.0);
    let pairs = tables.scan(Table::Row, &keys::row(file, offset), end.as_deref(), limit.saturating_add(1))?;
    let chunks = pairs.iter().take(limit).map(|pair| row_chunk(tables, pair)).collect::<Result<_, _>>()?;
    Ok(LocatedRows { chunks, more: pairs.len() > limit })
}

fn marked(
    tables: &dyn ReadTables,
    table: Table,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<ChunkView>, TableError> {
    let from = after.map_or_else(Vec::new, |id| keys::behind(&keys::chunk(id)));
    let page = tables.scan(table, &from, None, limit)?;
    let view = |(key, _): &Pair| {
        let id = ChunkId(keys::read_one(key).ok_or_else(|| bad_key(table, key))?);
        Ok(ChunkView { id, record: need(tables, Table::Chunk, key)? })
    };
    page.iter().map(view).collect()
}

/// The first `limit` open chunks with ids above `after`. Those whose file has no lease wait for the leader to seal
/// them.
///
/// # Errors
/// [`TableError`].
pub fn open_chunks(
    tables: &dyn ReadTables,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<ChunkView>, TableError> {
    marked(tables, Table::Open, after, limit)
}

/// The first `limit` doomed chunks with ids above `after`.
///
/// # Errors
/// [`TableError`].
pub fn doomed(tables: &dyn ReadTables, after: Option<ChunkId>, limit: usize) -> Result<Vec<ChunkView>, TableError> {
    marked(tables, Table::Doomed, after, limit)
}

/// No open chunk has an id below this: tombstones below it may go.
///
/// # Errors
/// [`TableError`].
pub fn open_watermark(tables: &dyn ReadTables) -> Result<ChunkId, TableError> {
    if let Some((key, _)) = tables.scan(Table::Open, &[], None, 1)?.first()
        && !planted!("watermark-over-open")
    {
        return keys::read_one(key).map(ChunkId).ok_or_else(|| bad_key(Table::Open, key));
    }
    let counters: Option<Counters> = find(tables, Table::Meta, keys::COUNTERS)?;
    Ok(ChunkId(counters.map_or(0, |c| c.next_chunk)))
}
