//! Commands on their way to chunkservers, and their results on the way back to whoever waits.
//!
//! A command goes down the heartbeat stream of its server, carries a proof of this leadership for that server, and
//! has a deadline. When the stream ends, everything pending on it fails at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quarry_env::{World, clock::timeout};
use quarry_proto::{WireError, signed, v1};
use quarry_types::{ClusterId, ClusterKey, ErrorCode, Leadership, ServerId};
use tokio::sync::{mpsc, oneshot};

use crate::error::fault;

/// Commands one server may have pending; further ones are refused.
const PENDING_MAX: usize = 256;
/// Messages waiting to be written to one heartbeat stream.
pub const STREAM_QUEUE: usize = 64;

/// Where the messages for one server go.
pub type Outbox = mpsc::Sender<Result<v1::MasterMessage, tonic::Status>>;

struct Link {
    registration: u64,
    outbox: Outbox,
}

#[derive(Default)]
struct State {
    next_id: u64,
    links: BTreeMap<ServerId, Link>,
    pending: BTreeMap<u64, (ServerId, oneshot::Sender<v1::CommandResult>)>,
}

/// Sends commands with the authority of one leadership.
pub struct Dispatch {
    world: World,
    key: ClusterKey,
    cluster: ClusterId,
    leadership: Leadership,
    state: Mutex<State>,
}

/// A command that is on its way once it is sent, and its answer.
type Enqueued = (Outbox, v1::MasterMessage, Waiting, oneshot::Receiver<v1::CommandResult>);

/// Takes a pending command out when nobody waits for it any more.
struct Waiting {
    dispatch: Arc<Dispatch>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.dispatch.lock().pending.remove(&self.id);
    }
}

impl Dispatch {
    /// For a leadership that has just begun.
    #[must_use]
    pub fn new(world: World, key: ClusterKey, cluster: ClusterId, leadership: Leadership) -> Self {
        Dispatch { world, key, cluster, leadership, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave half a change: every change is one call on a map.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signed proof of this leadership for one server.
    #[must_use]
    pub fn proof(&self, server: ServerId) -> v1::Signed {
        let proof = v1::LeadershipProof {
            cluster: self.cluster.to_bytes().into(),
            server: server.to_bytes().into(),
            leadership: Some(self.leadership.into()),
        };
        signed::sign(&self.key, &proof)
    }

    /// A heartbeat stream opened; an earlier one of the same server is over.
    pub fn attach(&self, server: ServerId, registration: u64, outbox: Outbox) {
        let mut state = self.lock();
        state.links.insert(server, Link { registration, outbox });
        state.pending.retain(|_, (of, _)| *of != server);
    }

    /// A heartbeat stream ended: what is pending on it fails, unless a newer stream took over.
    pub fn detach(&self, server: ServerId, registration: u64, outbox: &Outbox) {
        let mut state = self.lock();
        let is_ours = |link: &Link| link.registration == registration && link.outbox.same_channel(outbox);
        if state.links.get(&server).is_some_and(is_ours) {
            state.links.remove(&server);
            state.pending.retain(|_, (of, _)| *of != server);
        }
    }

    /// Hands a result to whoever waits for it. One that comes too late, or from a server that was not asked, is dropped.
    pub fn result(&self, server: ServerId, result: v1::CommandResult) {
        let mut state = self.lock();
        if state.pending.get(&result.id).is_some_and(|(of, _)| *of == server)
            && let Some((_, waiter)) = state.pending.remove(&result.id)
        {
            // A waiter that gave up meanwhile has no use for it.
            let _gone = waiter.send(result);
        }
    }

    /// Whether commands can be sent to `server` now.
    #[must_use]
    pub fn reaches(&self, server: ServerId) -> bool {
        self.lock().links.contains_key(&server)
    }

    /// Sends a command and waits for its result, at most `limit`.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] when the server is not connected or went away, [`ErrorCode::Busy`] when too much is
    /// pending, [`ErrorCode::DeadlineExceeded`] without an answer in time, and whatever the server refused with.
    pub async fn call(
        self: &Arc<Self>,
        server: ServerId,
        body: v1::command::Body,
        limit: Duration,
    ) -> Result<v1::CommandResult, WireError> {
        self.exchange(server, self.enqueue(server, None, body)?, limit).await
    }

    /// The same on the stream of one registration only: a server that has registered again since does not get it (S7).
    ///
    /// # Errors
    /// As [`Dispatch::call`].
    pub async fn call_within(
        self: &Arc<Self>,
        server: ServerId,
        registration: u64,
        body: v1::command::Body,
        limit: Duration,
    ) -> Result<v1::CommandResult, WireError> {
        self.exchange(server, self.enqueue(server, Some(registration), body)?, limit).await
    }

    async fn exchange(
        &self,
        server: ServerId,
        (outbox, message, waiting, answer): Enqueued,
        limit: Duration,
    ) -> Result<v1::CommandResult, WireError> {
        let id = waiting.id;
        let exchange = async move {
            let _waiting = waiting;
            outbox.send(Ok(message)).await.map_err(|_| gone(server))?;
            // The proof of a broken stream is that nobody keeps the other half of the channel any more.
            drop(outbox);
            answer.await.map_err(|_| gone(server))
        };
        let result = timeout(&*self.world.clock, limit, exchange).await.map_err(|elapsed| {
            fault(ErrorCode::DeadlineExceeded, format!("chunkserver {server} did not answer command {id}: {elapsed}"))
                .of_server(server)
        })??;
        match result.refused {
            Some(refused) => Err(WireError::from(refused).of_server(server)),
            None => Ok(result),
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        server: ServerId,
        registration: Option<u64>,
        body: v1::command::Body,
    ) -> Result<Enqueued, WireError> {
        let proof = self.proof(server);
        let mut state = self.lock();
        let link = state.links.get(&server).filter(|link| registration.is_none_or(|only| only == link.registration));
        let outbox = link.ok_or_else(|| gone(server))?.outbox.clone();
        if state.pending.values().filter(|(of, _)| *of == server).count() >= PENDING_MAX {
            let why = format!("chunkserver {server} has {PENDING_MAX} commands pending; try again later");
            return Err(fault(ErrorCode::Busy, why).of_server(server));
        }
        state.next_id += 1;
        let id = state.next_id;
        let (waiter, answer) = oneshot::channel();
        state.pending.insert(id, (server, waiter));
        let command = v1::Command { id, leadership: Some(proof), body: Some(body) };
        let message = v1::MasterMessage { body: Some(v1::master_message::Body::Command(command)) };
        Ok((outbox, message, Waiting { dispatch: self.clone(), id }, answer))
    }
}

fn gone(server: ServerId) -> WireError {
    let why =
        format!("chunkserver {server} is not connected to this master; is it running, and can it reach the master?");
    fault(ErrorCode::Unavailable, why).of_server(server)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn dispatch() -> Arc<Dispatch> {
        let world = World::real(Arc::new(quarry_env::kv::NoKv));
        let leadership = Leadership::default();
        Arc::new(Dispatch::new(world, ClusterKey::new([1; 32]), ClusterId::default(), leadership))
    }

    fn fence() -> v1::command::Body {
        v1::command::Body::Fence(v1::Fence { chunks: vec![7] })
    }

    fn id_of(message: Result<v1::MasterMessage, tonic::Status>) -> u64 {
        match message.unwrap().body.unwrap() {
            v1::master_message::Body::Command(command) => command.id,
            v1::master_message::Body::Beat(_) => panic!("not a command"),
        }
    }

    #[tokio::test]
    async fn a_result_reaches_its_waiter_and_no_other_server_can_give_it() {
        let (dispatch, a, b) = (dispatch(), ServerId::from_random(1), ServerId::from_random(2));
        let (outbox, mut inbox) = mpsc::channel(4);
        dispatch.attach(a, 1, outbox);
        let call = tokio::spawn({
            let dispatch = dispatch.clone();
            async move { dispatch.call(a, fence(), Duration::from_secs(60)).await }
        });
        let id = id_of(inbox.recv().await.unwrap());
        dispatch.result(b, v1::CommandResult { id, ..Default::default() });
        let failures = vec![v1::ChunkFailure { chunk: 7, error: None }];
        dispatch.result(a, v1::CommandResult { id, failures: failures.clone(), ..Default::default() });
        assert_eq!(call.await.unwrap().unwrap().failures, failures);
        assert!(dispatch.lock().pending.is_empty());
    }

    #[tokio::test]
    async fn s8_a_broken_stream_fails_what_is_pending_at_once() {
        let (dispatch, a) = (dispatch(), ServerId::from_random(1));
        let (outbox, mut inbox) = mpsc::channel(4);
        dispatch.attach(a, 1, outbox.clone());
        let call = tokio::spawn({
            let dispatch = dispatch.clone();
            async move { dispatch.call(a, fence(), Duration::from_secs(60)).await }
        });
        inbox.recv().await.unwrap().unwrap();
        dispatch.detach(a, 1, &outbox);
        assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(dispatch.call(a, fence(), Duration::from_secs(60)).await.unwrap_err().code, ErrorCode::Unavailable);
    }

    #[tokio::test]
    async fn s9_pending_commands_are_bounded_and_given_up_ones_leave_no_trace() {
        let (dispatch, a) = (dispatch(), ServerId::from_random(1));
        let (outbox, _inbox) = mpsc::channel(2 * PENDING_MAX);
        dispatch.attach(a, 1, outbox);
        let mut calls: Vec<_> = (0..PENDING_MAX).map(|_| dispatch.enqueue(a, None, fence()).unwrap()).collect();
        assert_eq!(dispatch.enqueue(a, None, fence()).err().unwrap().code, ErrorCode::Busy);
        calls.pop();
        assert!(dispatch.enqueue(a, None, fence()).is_ok());
        drop(calls);
        assert!(dispatch.lock().pending.is_empty());
    }

    #[tokio::test]
    async fn s7_a_drop_is_not_sent_to_a_later_registration() {
        let (dispatch, a) = (dispatch(), ServerId::from_random(1));
        let (outbox, mut inbox) = mpsc::channel(4);
        dispatch.attach(a, 2, outbox);
        let late = dispatch.call_within(a, 1, fence(), Duration::from_secs(60)).await;
        assert_eq!(late.unwrap_err().code, ErrorCode::Unavailable);
        assert!(inbox.try_recv().is_err());
        assert!(dispatch.enqueue(a, Some(2), fence()).is_ok());
    }
}
