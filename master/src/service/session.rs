use quarry_master_core::{
    command::{CloseSession, Kind, OpenSession},
    limits::NONCE_BYTES,
    query,
    reply::Reply,
};
use quarry_types::{ErrorCode, LeaseId, SessionId};

use super::{Service, check};
use crate::{
    error::{Fault, fault},
    shared::unexpected,
};

/// Leases that one call renews.
const LEASES_PER_CALL: usize = 10_000;

impl Service {
    /// Opens a session; a repeated call finds the one it opened.
    pub async fn open_session(&self, nonce: Vec<u8>) -> Result<SessionId, Fault> {
        if nonce.len() != NONCE_BYTES {
            let why = format!("nonce has {} bytes; send {NONCE_BYTES} random ones", nonce.len());
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        let leading = self.shared.leading()?;
        match self.shared.propose(Kind::OpenSession(OpenSession { nonce })).await? {
            Reply::Session(opened) => {
                leading.soft().renewals.session(opened.session, self.shared.now());
                Ok(opened.session)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Renews a session and leases; which of the leases have ended.
    pub async fn keep_alive(&self, session: SessionId, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Fault> {
        check::session(session)?;
        if leases.len() > LEASES_PER_CALL {
            return Err(fault(ErrorCode::InvalidArgument, format!("a call renews at most {LEASES_PER_CALL} leases")));
        }
        let leading = self.shared.leading()?;
        let (mut lost, mut held) = (Vec::new(), Vec::new());
        let found = self
            .shared
            .read(move |tables| {
                if !query::session_exists(tables, session)? {
                    return Ok(None);
                }
                let mut found = Vec::new();
                for lease in leases {
                    let held = query::lease(tables, lease)?.is_some_and(|l| l.session == session);
                    found.push((lease, held));
                }
                Ok(Some(found))
            })
            .await?;
        let Some(found) = found else {
            let why = format!("session {session} has ended; what was under way in it is unknown. Open another session");
            return Err(fault(ErrorCode::OutcomeUnknown, why));
        };
        let mut soft = leading.soft();
        let now = self.shared.now();
        soft.renewals.session(session, now);
        for (lease, exists) in found {
            if exists && soft.renewals.lease(lease, now) { held.push(lease) } else { lost.push(lease) }
        }
        tracing::trace!(%session, held = held.len(), lost = lost.len(), "kept alive");
        Ok(lost)
    }

    /// Ends a session.
    pub async fn close_session(&self, session: SessionId) -> Result<(), Fault> {
        check::session(session)?;
        self.shared.leading()?;
        self.shared.propose(Kind::CloseSession(CloseSession { session })).await.map(|_| ())
    }
}
