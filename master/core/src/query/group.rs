use quarry_types::{ErrorCode, Leadership, LeaseId, ServerId, SessionId};

use super::Fault;
use crate::{
    command::{LogMark, ServerWish},
    keys,
    limits::SERVERS_MAX,
    rows::{Cluster, Counters, Hold, Lease, LogMarks, Server, Settings, Totals},
    state::{bad_key, decode, find, refuse},
    tables::{ReadTables, Table, TableError},
};

/// A lease and its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Its id.
    pub id: LeaseId,
    /// Whose it is, of which file, and which chunks are open under it.
    pub record: Lease,
}

/// A chunkserver and its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// Its id.
    pub id: ServerId,
    /// What it registered.
    pub record: Server,
}

/// Which cluster this is; `None` before it was created.
///
/// # Errors
/// [`TableError`].
pub fn cluster(tables: &dyn ReadTables) -> Result<Option<Cluster>, TableError> {
    find(tables, Table::Meta, keys::CLUSTER)
}

fn meta<R: crate::rows::Record>(tables: &dyn ReadTables, key: &[u8]) -> Result<R, Fault> {
    match find(tables, Table::Meta, key)? {
        Some(row) => Ok(row),
        None => refuse(ErrorCode::Unavailable, "the cluster was not created yet; wait for the master to start"),
    }
}

/// The counters.
///
/// # Errors
/// Refused before the cluster was created; [`TableError`].
pub fn counters(tables: &dyn ReadTables) -> Result<Counters, Fault> {
    meta(tables, keys::COUNTERS)
}

/// What goes into grants and proofs of the epoch that began last.
///
/// # Errors
/// Refused before the cluster was created; [`TableError`].
pub fn leadership(tables: &dyn ReadTables) -> Result<Leadership, Fault> {
    let cluster: Cluster = meta(tables, keys::CLUSTER)?;
    Ok(counters(tables)?.leadership(&cluster))
}

/// The totals.
///
/// # Errors
/// Refused before the cluster was created; [`TableError`].
pub fn totals(tables: &dyn ReadTables) -> Result<Totals, Fault> {
    meta(tables, keys::TOTALS)
}

/// The settings.
///
/// # Errors
/// Refused before the cluster was created; [`TableError`].
pub fn settings(tables: &dyn ReadTables) -> Result<Settings, Fault> {
    meta(tables, keys::SETTINGS)
}

/// A lease; `None` when it has ended.
///
/// # Errors
/// [`TableError`].
pub fn lease(tables: &dyn ReadTables, id: LeaseId) -> Result<Option<Lease>, TableError> {
    find(tables, Table::Lease, &keys::lease(id))
}

/// The first `limit` leases with ids above `after`.
///
/// # Errors
/// [`TableError`].
pub fn leases(tables: &dyn ReadTables, after: LeaseId, limit: usize) -> Result<Vec<LeaseView>, TableError> {
    let page = tables.scan(Table::Lease, &keys::behind(&keys::lease(after)), None, limit)?;
    let view = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let id = LeaseId(keys::read_one(key).ok_or_else(|| bad_key(Table::Lease, key))?);
        Ok(LeaseView { id, record: decode(Table::Lease, key, value)? })
    };
    page.iter().map(view).collect()
}

/// How far each master had acknowledged the log when that was last recorded.
///
/// # Errors
/// [`TableError`].
pub fn log_marks(tables: &dyn ReadTables) -> Result<Vec<LogMark>, TableError> {
    let row: Option<LogMarks> = find(tables, Table::Meta, keys::LOG_MARKS)?;
    Ok(row.map(|row| row.logs).unwrap_or_default())
}

/// Whether a session is open.
///
/// # Errors
/// [`TableError`].
pub fn session_exists(tables: &dyn ReadTables, id: SessionId) -> Result<bool, TableError> {
    Ok(tables.get(Table::Session, &keys::session(id))?.is_some() && !session_ended(tables, id)?)
}

/// Whether a session was opened in an earlier lineage: its row may still be there, and counts no more.
///
/// # Errors
/// [`TableError`].
pub fn session_ended(tables: &dyn ReadTables, id: SessionId) -> Result<bool, TableError> {
    Ok(cluster(tables)?.is_some_and(|cluster| id < cluster.first_session))
}

/// What holds deletions and aborts back; `None` when nothing does.
///
/// # Errors
/// [`TableError`].
pub fn hold(tables: &dyn ReadTables) -> Result<Option<Hold>, TableError> {
    find(tables, Table::Meta, keys::HOLD)
}

/// The first `limit` sessions with ids above `after`.
///
/// # Errors
/// [`TableError`].
pub fn sessions(tables: &dyn ReadTables, after: SessionId, limit: usize) -> Result<Vec<SessionId>, TableError> {
    let page = tables.scan(Table::Session, &keys::behind(&keys::session(after)), None, limit)?;
    page.iter().map(|(key, _)| keys::read_one(key).map(SessionId).ok_or_else(|| bad_key(Table::Session, key))).collect()
}

/// Whether a maintenance of any chunkserver waits for its end.
///
/// # Errors
/// Refused before the cluster was created; [`TableError`].
pub fn is_in_maintenance(tables: &dyn ReadTables) -> Result<bool, Fault> {
    let now_ms = counters(tables)?.elapsed_ms;
    let servers = servers(tables, None, SERVERS_MAX)?;
    Ok(servers.iter().any(|server| server.record.wish_at(now_ms) == ServerWish::Maintenance))
}

/// A chunkserver; `None` when it never registered.
///
/// # Errors
/// [`TableError`].
pub fn server(tables: &dyn ReadTables, id: ServerId) -> Result<Option<Server>, TableError> {
    find(tables, Table::Server, &keys::server(id))
}

/// The first `limit` chunkservers with ids above `after`.
///
/// # Errors
/// [`TableError`].
pub fn servers(tables: &dyn ReadTables, after: Option<ServerId>, limit: usize) -> Result<Vec<ServerView>, TableError> {
    let from = after.map_or_else(Vec::new, |id| keys::behind(&keys::server(id)));
    let page = tables.scan(Table::Server, &from, None, limit)?;
    let view = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let id = ServerId::from_bytes(key).ok_or_else(|| bad_key(Table::Server, key))?;
        Ok(ServerView { id, record: decode(Table::Server, key, value)? })
    };
    page.iter().map(view).collect()
}
