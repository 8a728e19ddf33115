//! Finds the leader and introduces this server.

use std::{collections::VecDeque, time::Duration};

use quarry_chunkserver_core::Durability;
use quarry_client::channel::connect;
use quarry_env::clock::timeout;
use quarry_proto::{
    PROTOCOL_VERSION, WireError, convert, signed,
    v1::{self, chunkservers_client::ChunkserversClient},
};
use quarry_types::{
    ErrorCode, Leadership,
    limits::{BEAT_INTERVAL, CONNECT_DEADLINE, GRPC_MESSAGE_BYTES},
};
use tonic::transport::Channel;

use super::{
    About,
    channel::{CALL_DEADLINE, call},
};
use crate::{server::Context, store::DiskStatus};

/// Hints that are followed in one attempt.
const HINTS_MAX: usize = 4;
/// A disk that does not answer within this is left out of a registration; beats tell it later.
const DISKS_DEADLINE: Duration = Duration::from_secs(1);
/// Longest reason of a failed disk in a beat, in characters. The log has all of it.
pub(super) const REASON_CHARS: usize = 200;
/// Bounds for the beat interval that a master may ask for.
const BEAT_BOUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Where masters may be.
pub(super) struct Masters {
    known: Vec<String>,
    /// The one that led last comes first.
    leader: Option<String>,
}

impl Masters {
    pub(super) fn new(known: &[String]) -> Self {
        Masters { known: known.to_vec(), leader: None }
    }

    /// The one that led does not answer any more: it is asked last.
    pub(super) fn failed(&mut self, address: &str) {
        self.leader = None;
        let (failed, others) = self.known.drain(..).partition(|known| known == address);
        let failed: Vec<String> = failed;
        self.known = others;
        self.known.extend(failed);
    }

    /// Another one leads now: it is asked first.
    pub(super) fn leads(&mut self, address: String) {
        self.leader = Some(address);
    }

    fn order(&self) -> VecDeque<String> {
        let mut order: VecDeque<String> = self.leader.iter().cloned().collect();
        order.extend(self.known.iter().filter(|known| Some(*known) != self.leader.as_ref()).cloned());
        order
    }
}

/// A registration that the leader accepted and whose leadership is persisted here.
pub(super) struct Registered {
    /// The leader's address.
    pub(super) master: String,
    /// For reports; beats have a connection of their own.
    pub(super) client: ChunkserversClient<Channel>,
    /// Names the registration.
    pub(super) number: u64,
    /// Between two beats.
    pub(super) beat_interval: Duration,
}

/// Tries the masters, following hints, until one accepts.
///
/// # Errors
/// Those of all masters, with the code of the last.
pub(super) async fn register(context: &Context, about: &About, masters: &mut Masters) -> Result<Registered, WireError> {
    let request = v1::RegisterRequest { registration: Some(introduce(context, about).await) };
    let mut order = masters.order();
    let mut tried: Vec<String> = Vec::new();
    let mut hints = 0;
    let mut errors: Vec<WireError> = Vec::new();
    while let Some(address) = order.pop_front() {
        if tried.contains(&address) {
            continue;
        }
        tried.push(address.clone());
        match try_one(context, &address, request.clone()).await {
            Ok(registered) => {
                masters.leader = Some(address);
                return Ok(registered);
            }
            Err(error) => {
                if let Some(leader) = error.leader.clone().filter(|_| hints < HINTS_MAX) {
                    hints += 1;
                    order.push_front(leader);
                }
                errors.push(error);
            }
        }
    }
    masters.leader = None;
    let message = errors.iter().map(|e| e.message.as_str()).collect::<Vec<_>>().join("; ");
    Err(WireError::new(errors.last().map_or(ErrorCode::Unavailable, |e| e.code), message))
}

async fn try_one(context: &Context, address: &str, request: v1::RegisterRequest) -> Result<Registered, WireError> {
    let channel = connect(&context.world, address, CONNECT_DEADLINE).await?;
    let mut client = ChunkserversClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES);
    let reply = call(&context.world, address, CALL_DEADLINE, client.register(request)).await?.into_inner();
    let proof = convert::required(reply.leadership, "leadership")?;
    follow(context, &proof).await?;
    let interval = match reply.beat_interval_ms {
        0 => BEAT_INTERVAL,
        ms => Duration::from_millis(ms).clamp(BEAT_BOUNDS.0, BEAT_BOUNDS.1),
    };
    Ok(Registered { master: address.into(), client, number: reply.registration, beat_interval: interval })
}

/// Verifies a proof of leadership and follows who gives it; a newer leader is persisted before this returns.
///
/// # Errors
/// Unauthorized, Mismatch, StaleLeader, or what the disk says.
pub(super) async fn follow(context: &Context, proof: &v1::Signed) -> Result<Leadership, WireError> {
    let proof: v1::LeadershipProof = signed::open(&context.key, proof)?;
    let cluster = convert::cluster(&proof.cluster, "cluster")?;
    let server = convert::server(&proof.server, "server")?;
    let leadership = Leadership::try_from(convert::required(proof.leadership, "leadership")?)?;
    if server != context.server {
        let message = format!("this is chunkserver {}, and the order is for {server}", context.server);
        return Err(WireError::new(ErrorCode::Mismatch, message).of_server(context.server));
    }
    context.obey(cluster, leadership).await?;
    Ok(leadership)
}

async fn introduce(context: &Context, about: &About) -> v1::Signed {
    let identity = context.store.identity();
    let disks = timeout(&*context.world.clock, DISKS_DEADLINE, context.store.disks()).await;
    let disks = disks.ok().and_then(Result::ok).unwrap_or_default();
    let durability = match about.durability {
        Durability::Sealed => v1::Durability::Sealed,
        Durability::Buffered => v1::Durability::Buffered,
    };
    let registration = v1::Registration {
        cluster: identity.cluster.map(quarry_types::ClusterId::to_bytes).unwrap_or_default().into(),
        server: context.server.to_bytes().into(),
        start_counter: identity.start_counter,
        address: about.address.clone(),
        rack: about.rack.clone(),
        disks: disks.iter().map(disk_info).collect(),
        durability: durability.into(),
        build: concat!("quarry-chunkserver ", env!("CARGO_PKG_VERSION")).into(),
        protocol_version: PROTOCOL_VERSION,
        follows: context.store.leadership().map(Into::into),
        start_id: identity.start_id,
    };
    signed::sign(&context.key, &registration)
}

/// A data directory as the master hears of it.
pub(super) fn disk_info(disk: &DiskStatus) -> v1::DiskInfo {
    v1::DiskInfo {
        path: disk.path.display().to_string(),
        capacity_bytes: disk.capacity_bytes,
        used_bytes: disk.used_bytes,
        available_bytes: disk.available_bytes,
        failed: disk.failed.is_some(),
        failed_reason: short(disk.failed.as_deref().unwrap_or_default()),
        slow: disk.slow,
        latency_us: disk.latency_us,
        errors: disk.errors,
        chunks: disk.chunks,
    }
}

/// A text as it may stand in a beat, which stays short.
fn short(text: &str) -> String {
    text.chars().take(REASON_CHARS).collect()
}
