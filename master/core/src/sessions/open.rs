use quarry_types::{ErrorCode, SessionId, limits::SESSIONS_MAX};

use super::close;
use crate::{
    command::OpenSession,
    keys,
    limits::NONCE_BYTES,
    query,
    reply::{OpenedSession, Reply},
    rows::{Nonce, Session},
    state::{Fault, Write, find, refuse},
    tables::Table,
};

/// Opens a session. The same nonce finds the session it opened, so that a retry does not open a second one.
pub(crate) fn open(write: &mut Write<'_, '_>, command: &OpenSession) -> Result<Reply, Fault> {
    if command.nonce.len() != NONCE_BYTES {
        let message = format!("a session's nonce has {} bytes instead of {NONCE_BYTES}", command.nonce.len());
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if let Some(nonce) = find::<Nonce>(write.tables(), Table::Nonce, &command.nonce)? {
        if !query::session_ended(write.tables(), nonce.session)? {
            return Ok(Reply::Session(OpenedSession { session: nonce.session }));
        }
        close::close(write, nonce.session)?;
    }
    // Bounded by refusing: evicting a session would let its retries run twice.
    if write.totals()?.sessions >= SESSIONS_MAX {
        let message = format!("{SESSIONS_MAX} clients have sessions; try again when some have ended");
        return refuse(ErrorCode::Busy, message);
    }
    let session = SessionId(write.next_id(|counters| &mut counters.next_session)?);
    let row = Session { nonce: command.nonce.clone(), acknowledged_below: 0, results: 0 };
    write.put(Table::Session, keys::session(session), &row);
    write.put(Table::Nonce, command.nonce.clone(), &Nonce { session });
    write.count(|totals| totals.sessions += 1)?;
    Ok(Reply::Session(OpenedSession { session }))
}
