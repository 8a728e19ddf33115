//! Sessions: what makes a retried request take effect once, and keeps writer leases alive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use quarry_env::{World, clock::timeout};
use quarry_proto::v1::{self, namespace_client::NamespaceClient};
use quarry_types::{ErrorCode, limits};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::{Request, transport::Channel};

use crate::{
    ClientError,
    masters::{Answer, CallFailed, Masters},
    ops::OpBook,
};

/// A session is renewed at least this often, whatever the master says.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(20);
/// One renewal; the next one makes up for it.
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(15);
/// For how long closing a session is tried. The master ends it anyway, later.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A client of the namespace service on `channel`.
pub(crate) fn namespace(channel: Channel) -> NamespaceClient<Channel> {
    NamespaceClient::new(channel)
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES)
}

/// One numbered conversation with the master group.
pub(crate) struct Session {
    pub(crate) id: u64,
    book: Mutex<OpBook>,
    room: Notify,
    /// Cancelled when the master no longer knows the session, or when it was closed.
    ended: CancellationToken,
}

impl Session {
    fn book(&self) -> std::sync::MutexGuard<'_, OpBook> {
        // Each change of the book is one assignment or insertion, so a panic leaves it whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next operation's number; waits while too many came after an unfinished one.
    async fn begin(self: &Arc<Self>) -> Op {
        loop {
            let room = self.room.notified();
            {
                let mut book = self.book();
                if let Some(sequence) = book.begin() {
                    let acknowledged_below = book.acknowledged_below();
                    let id = v1::OpId { session: self.id, sequence, acknowledged_below };
                    return Op { session: Arc::clone(self), id };
                }
            }
            room.await;
        }
    }
}

/// An operation under way; when it is dropped it will not be sent again.
struct Op {
    session: Arc<Session>,
    id: v1::OpId,
}

impl Drop for Op {
    fn drop(&mut self) {
        self.session.book().finish(self.id.sequence);
        self.session.room.notify_waiters();
    }
}

/// The leases of the files this client is writing.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<BTreeMap<u64, CancellationToken>>,
}

impl Leases {
    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `lease` alive until the guard is dropped.
    pub(crate) fn hold(self: &Arc<Self>, lease: u64) -> HeldLease {
        let lost = CancellationToken::new();
        self.held().insert(lease, lost.clone());
        HeldLease { leases: Arc::clone(self), lease, lost }
    }

    fn lost(&self, leases: &[u64]) {
        let held = self.held();
        for token in leases.iter().filter_map(|lease| held.get(lease)) {
            token.cancel();
        }
    }
}

/// A lease that is renewed in the background.
pub(crate) struct HeldLease {
    leases: Arc<Leases>,
    pub(crate) lease: u64,
    /// Cancelled when the master says that the lease has ended.
    pub(crate) lost: CancellationToken,
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.leases.held().remove(&self.lease);
    }
}

/// Opens a session when one is needed, and another when that one was lost.
pub(crate) struct Sessions {
    world: World,
    masters: Arc<Masters>,
    pub(crate) leases: Arc<Leases>,
    current: tokio::sync::Mutex<Option<Arc<Session>>>,
    /// Cancelled when the client is dropped.
    stop: CancellationToken,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sessions {
    pub(crate) fn new(world: World, masters: Arc<Masters>) -> Self {
        Sessions {
            world,
            masters,
            leases: Arc::default(),
            current: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Runs a mutation exactly once, or says that nobody knows whether it ran.
    ///
    /// Every attempt carries the same operation id. A session that the master forgot (it was silent for too long) is
    /// replaced; the operation is repeated in the new one only if it was sent once, because an unknown session's
    /// request is refused unexecuted, while an earlier attempt might have run.
    pub(crate) async fn mutate<Q, A, M, F>(&self, doing: &str, make: M, send: F) -> Result<A, ClientError>
    where
        Q: Clone,
        M: Fn(v1::OpId) -> Q,
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        let mut repeated = false;
        loop {
            let session = self.session().await.map_err(|e| e.while_doing(|| doing.into()))?;
            let op = session.begin().await;
            let failed = match self.masters.call(doing, make(op.id), &send).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if failed.error.code() == ErrorCode::OutcomeUnknown {
                session.ended.cancel();
                if failed.sends == 1 && !repeated {
                    repeated = true;
                    continue;
                }
            }
            return Err(failed.error);
        }
    }

    /// The current session, or a new one.
    async fn session(&self) -> Result<Arc<Session>, ClientError> {
        // Held while one is opened: a hundred files at once must not open a hundred sessions.
        let mut current = self.current.lock().await;
        if let Some(session) = current.as_ref().filter(|session| !session.ended.is_cancelled()) {
            return Ok(Arc::clone(session));
        }
        let nonce = Bytes::copy_from_slice(&self.world.random.next_u128().to_le_bytes());
        let reply = self
            .masters
            .call("opening a session", v1::OpenSessionRequest { nonce }, |channel, request| {
                Box::pin(async move { namespace(channel).open_session(request).await })
            })
            .await
            .map_err(|failed| failed.error)?;
        let session = Arc::new(Session {
            id: reply.session,
            book: Mutex::default(),
            room: Notify::new(),
            ended: CancellationToken::new(),
        });
        let wanted = Duration::from_millis(reply.keep_alive_ms);
        let keeper = Keeper {
            world: self.world.clone(),
            masters: Arc::clone(&self.masters),
            leases: Arc::clone(&self.leases),
            session: Arc::clone(&session),
            interval: if wanted.is_zero() { KEEP_ALIVE_MAX } else { wanted.min(KEEP_ALIVE_MAX) },
            stop: self.stop.clone(),
        };
        tokio::spawn(keeper.run());
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Ends the current session, if there is one.
    pub(crate) async fn close(&self) -> Result<(), ClientError> {
        let Some(session) = self.current.lock().await.take() else { return Ok(()) };
        if session.ended.is_cancelled() {
            return Ok(());
        }
        session.ended.cancel();
        close(&self.masters, session.id).await.map_err(|failed| failed.error)
    }
}

async fn close(masters: &Masters, session: u64) -> Result<(), CallFailed> {
    let request = v1::CloseSessionRequest { session };
    let send =
        |channel, request| -> Answer<_> { Box::pin(async move { namespace(channel).close_session(request).await }) };
    masters.call_within(CLOSE_DEADLINE, "closing the session", request, send).await.map(|_| ())
}

/// Renews one session and the leases until the session ends.
struct Keeper {
    world: World,
    masters: Arc<Masters>,
    leases: Arc<Leases>,
    session: Arc<Session>,
    interval: Duration,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        loop {
            tokio::select! {
                biased;
                () = self.session.ended.cancelled() => return,
                () = self.stop.cancelled() => break,
                () = self.world.clock.sleep(self.interval) => {}
            }
            tokio::select! {
                biased;
                () = self.session.ended.cancelled() => return,
                () = self.stop.cancelled() => break,
                () = self.renew() => {}
            }
        }
        // Best effort and with an end: the runtime may be shutting down.
        let closing = timeout(&*self.world.clock, CLOSE_DEADLINE, close(&self.masters, self.session.id));
        if !matches!(closing.await, Ok(Ok(()))) {
            tracing::debug!(session = self.session.id, "the session was not closed; it ends by itself");
        }
    }

    async fn renew(&self) {
        let leases = self.leases.held().keys().copied().collect();
        let request = v1::KeepAliveRequest { session: self.session.id, leases };
        let send =
            |channel, request| -> Answer<_> { Box::pin(async move { namespace(channel).keep_alive(request).await }) };
        match self.masters.call_within(KEEP_ALIVE_DEADLINE, "renewing the session", request, send).await {
            Ok(reply) => self.leases.lost(&reply.lost),
            Err(failed) if matches!(failed.error.code(), ErrorCode::OutcomeUnknown | ErrorCode::NotFound) => {
                tracing::warn!(session = self.session.id, "the session has ended at the master");
                self.session.ended.cancel();
            }
            Err(failed) => tracing::warn!(error = %failed.error, "the session could not be renewed; trying again"),
        }
    }
}
