//! Calls to other members.
//!
//! openraft has a client each for heartbeats, replication, votes and snapshots, so nothing large delays a heartbeat.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use quarry_client::channel;
use quarry_env::{World, clock::timeout};
use quarry_proto::{
    WireError,
    signed::BetweenMasters,
    v1::{self, raft_client::RaftClient},
};
use quarry_types::{ErrorCode, limits::GRPC_MESSAGE_BYTES};
use tonic::{Response, Status, transport::Channel};

use super::{
    gate::Gate,
    outgoing::{self, Outgoing},
    parties::Parties,
    types::{Types, Vote},
    wire,
};
use crate::store::Snapshot;

/// Bytes of log entries in one request; what is left follows in the next.
const APPEND_BYTES: usize = 2 << 20;
/// A request with entries is answered within this: the other side makes them durable before it answers.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// Addresses that changed while this member led: openraft keeps the connections that it has. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Moved(Arc<Mutex<BTreeMap<u64, String>>>);

impl Moved {
    /// The member `id` is reached there now.
    pub(super) fn to(&self, id: u64, address: &str) {
        // As many as there are members, which few are.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, address.to_owned());
    }

    fn of(&self, id: u64) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// Makes connections to peers.
pub(crate) struct Peers {
    pub(super) moved: Moved,
    pub(super) world: World,
    pub(super) parties: Parties,
    pub(super) gate: Gate,
    /// Where this member is reached.
    pub(super) advertise: Option<String>,
}

/// One peer, by one connection.
pub(crate) struct Peer {
    moved: Moved,
    world: World,
    parties: Parties,
    gate: Gate,
    advertise: Option<String>,
    target: u64,
    address: String,
    channel: Option<Channel>,
    /// The last heartbeat or entry was not answered, and that was said.
    silent: bool,
}

/// A connection on which calls are made.
pub(super) type Client = RaftClient<Channel>;

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &openraft::impls::BasicNode) -> Peer {
        self.peer(target, &node.addr)
    }
}

impl Peers {
    /// The member `target`, which is at `address`.
    pub(super) fn peer(&self, target: u64, address: &str) -> Peer {
        let (world, parties, address) = (self.world.clone(), self.parties.clone(), address.to_owned());
        let (gate, advertise) = (self.gate.clone(), self.advertise.clone());
        Peer {
            moved: self.moved.clone(),
            world,
            parties,
            gate,
            advertise,
            target,
            address,
            channel: None,
            silent: false,
        }
    }
}

impl Peer {
    /// Whether it is this one, there.
    pub(super) fn is(&self, target: u64, address: &str) -> bool {
        (self.target, self.address.as_str()) == (target, address)
    }

    /// Asks how far the log is committed, of one that leads. Cancel-safe.
    pub(super) async fn confirm(&mut self, limit: Duration) -> Result<u64, WireError> {
        let method = |mut client: Client, signed: v1::Signed| async move { client.confirm(signed).await };
        let asked = v1::ConfirmRequest::default();
        let reply: v1::ConfirmReply = self.call(asked, |q| &mut q.parties, limit, method).await?;
        Ok(reply.index)
    }

    /// Says once that it does not answer, and once that it does again.
    fn notice(&mut self, failed: Option<&WireError>) {
        let (target, address) = (self.target, &self.address);
        match failed {
            Some(error) if !self.silent => {
                tracing::warn!(master = target, address, error = error.message, "another master does not answer");
            }
            None if self.silent => tracing::info!(master = target, address, "another master answers again"),
            _ => {}
        }
        self.silent = failed.is_some();
    }

    fn unreachable(&self, error: &WireError) -> Unreachable<Types> {
        let (target, address) = (self.target, &self.address);
        Unreachable::from_string(format!("master m{target} at {address}: {}", error.message))
    }

    fn failed(&self, error: &WireError) -> RPCError<Types> {
        match error.code {
            // openraft waits before it tries again.
            ErrorCode::Unavailable => self.unreachable(error).into(),
            _ => NetworkError::from_string(format!("master m{} at {}: {}", self.target, self.address, error.message))
                .into(),
        }
    }

    async fn client(&mut self, limit: Duration) -> Result<Client, WireError> {
        if let Some(now) = self.moved.of(self.target).filter(|now| *now != self.address) {
            (self.address, self.channel) = (now, None);
        }
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => self.channel.insert(channel::connect(&self.world, &self.address, limit).await?).clone(),
        };
        Ok(Client::new(channel)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES))
    }

    /// Makes one call. Cancel-safe: the other side may or may not have heard it.
    async fn call<Q, A, F>(
        &mut self,
        mut request: Q,
        parties: fn(&mut Q) -> &mut Option<v1::RaftParties>,
        limit: Duration,
        method: impl FnOnce(Client, v1::Signed) -> F,
    ) -> Result<A, WireError>
    where
        Q: BetweenMasters,
        A: BetweenMasters,
        F: Future<Output = Result<Response<v1::Signed>, Status>>,
    {
        self.gate.check()?;
        let asked = self.parties.request(&self.world, self.target);
        *parties(&mut request) = Some(asked.clone());
        let signed = self.parties.sign(&request);
        let clock = self.world.clock.clone();
        let calling = async {
            let client = self.client(limit).await?;
            method(client, signed).await.map_err(WireError::from)
        };
        let answered = match timeout(&*clock, limit, calling).await {
            Ok(answered) => answered,
            Err(late) => Err(WireError::new(ErrorCode::Unavailable, late.to_string())),
        };
        match answered {
            Ok(answer) => self.parties.open_answer(answer.get_ref(), &asked),
            Err(error) => {
                // The connection may be broken in a way that only its end finds out.
                self.channel = None;
                Err(error)
            }
        }
    }

    async fn ask_vote(
        &mut self,
        rpc: &VoteRequest<Types>,
        pre: bool,
        limit: Duration,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        if !pre {
            self.gate.check_vote(rpc.vote.leader_id.term).map_err(|e| self.failed(&e))?;
        }
        let request = wire::ask_vote(rpc, pre);
        let method = |mut client: Client, signed: v1::Signed| async move {
            if pre { client.pre_vote(signed).await } else { client.vote(signed).await }
        };
        let answer: Result<v1::VoteReply, _> = self.call(request, |q| &mut q.parties, limit, method).await;
        answer.and_then(|answer| wire::voted_from(answer, pre)).map_err(|e| self.failed(&e))
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // A heartbeat is late after an interval, while entries are to be on the disk there.
        let limit = if rpc.entries.is_empty() { option.hard_ttl() } else { APPEND_DEADLINE };
        let (mut request, cut) = wire::append(&rpc, APPEND_BYTES);
        request.address = self.advertise.clone().unwrap_or_default();
        let method = |mut client: Client, signed: v1::Signed| async move { client.append(signed).await };
        let answer: Result<v1::AppendReply, _> = self.call(request, |q| &mut q.parties, limit, method).await;
        self.notice(answer.as_ref().err());
        answer.and_then(|answer| wire::appended_from(answer, cut)).map_err(|e| self.failed(&e))
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, o: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(&rpc, false, o.hard_ttl()).await
    }

    /// Openraft's default grants every pre-vote, which would let a cut-off member raise its term for ever.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        o: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(&rpc, true, o.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let (world, parties, target) = (self.world.clone(), self.parties.clone(), self.target);
        let sending = async {
            let client = self.client(outgoing::STEP_DEADLINE).await?;
            Outgoing { world, parties, target, vote, snapshot: &snapshot.snapshot }.send(client).await
        };
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            sent = sending => sent,
        };
        match sent {
            Ok(vote) => Ok(SnapshotResponse::new(vote)),
            Err(error) => {
                self.channel = None;
                tracing::warn!(master = self.target, error = %error.message, "a snapshot could not be sent and is tried again");
                Err(self.unreachable(&error).into())
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = wire::transfer(&rpc);
        let method = |mut client: Client, signed: v1::Signed| async move { client.transfer_leader(signed).await };
        let limit = option.hard_ttl();
        let answer: Result<v1::TransferReply, _> = self.call(request, |q| &mut q.parties, limit, method).await;
        answer.and_then(|answer| wire::transferred_from(answer, &rpc)).map_err(|e| self.failed(&e))
    }
}
