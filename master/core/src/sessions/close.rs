use quarry_types::{ErrorCode, SessionId, limits::SESSION_RESULTS_MAX};

use crate::{
    command::ExpireSessions,
    keys,
    limits::EXPIRE_SESSIONS_MAX,
    reply::Reply,
    rows::Session,
    state::{Fault, Write, find, less, refuse},
    tables::Table,
};

/// Ends a session for good. Its leases end by themselves when nobody renews them.
pub(crate) fn close(write: &mut Write<'_, '_>, id: SessionId) -> Result<Reply, Fault> {
    let key = keys::session(id);
    let Some(session) = find::<Session>(write.tables(), Table::Session, &key)? else { return Ok(Reply::DONE) };
    let end = keys::after(id.0);
    let results = write.tables().scan(Table::Result, &keys::result(id, 0), end.as_deref(), SESSION_RESULTS_MAX)?;
    for (key, _) in results {
        write.delete(Table::Result, key);
    }
    write.delete(Table::Nonce, session.nonce);
    write.delete(Table::Session, key);
    write.count(|totals| less(&mut totals.sessions))?;
    Ok(Reply::DONE)
}

/// Ends sessions that were silent for too long, by the leader's clock.
pub(crate) fn expire(write: &mut Write<'_, '_>, command: &ExpireSessions) -> Result<Reply, Fault> {
    if command.sessions.len() > EXPIRE_SESSIONS_MAX {
        return refuse(ErrorCode::InvalidArgument, format!("one command ends at most {EXPIRE_SESSIONS_MAX} sessions"));
    }
    for session in &command.sessions {
        close(write, *session)?;
    }
    Ok(Reply::DONE)
}
