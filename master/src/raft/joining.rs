//! What is said between masters before one is a member: who answers at an address, and which number a new one gets.

use std::time::Duration;

use quarry_client::channel;
use quarry_env::{World, clock::timeout};
use quarry_master_core::{
    command::{Command, Kind, NumberMaster},
    feature::Features,
    reply::Reply,
};
use quarry_proto::{WireError, signed, v1};
use quarry_types::{ClusterId, ClusterKey, ErrorCode, NodeId, limits::GRPC_MESSAGE_BYTES};

use super::{Group, Node, digests::Known, network::Client, parties::refused, watching, wire};

/// A master that answers at all does so within this.
const ASK_DEADLINE: Duration = Duration::from_secs(3);
/// Giving a number takes an agreement.
const NUMBER_DEADLINE: Duration = Duration::from_secs(10);

/// Who answered at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// Its number.
    pub id: NodeId,
    /// As far as it knows it is in the group.
    pub member: bool,
    /// The highest term that it has seen.
    pub term: u64,
    /// The index of the last entry of its log; 0: it has none.
    pub last_log: u64,
    /// The index of the last entry that it has applied.
    pub applied: u64,
    /// The feature levels that it knows; `None`: it is so old that it does not say.
    pub features: Option<Features>,
    /// Its disk has too little room for changes.
    pub short_of_room: bool,
    /// The number of its lineage; 0: it does not say.
    pub lineage: u64,
}

/// Makes one call to the master at `address`. Cancel-safe: it may or may not have been heard.
pub(super) async fn call<F>(
    world: &World,
    address: &str,
    limit: Duration,
    method: impl FnOnce(Client) -> F,
) -> Result<v1::Signed, WireError>
where
    F: Future<Output = Result<tonic::Response<v1::Signed>, tonic::Status>>,
{
    let calling = async {
        let channel = channel::connect(world, address, limit).await?;
        let client = Client::new(channel)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES);
        Ok(method(client).await.map_err(WireError::from)?.into_inner())
    };
    let late = |e| WireError::new(ErrorCode::Unavailable, format!("master {address} gave {e}"));
    timeout(&*world.clock, limit, calling).await.map_err(late)?
}

/// Asks the master at `address`, which leads, for the number of a new master; with the cluster's id. Cancel-safe: a number
/// that nobody takes is lost and does no harm.
///
/// # Errors
/// `NotLeader`, with the leader when it is known; `Unauthorized` when the key is another cluster's; when nobody answers.
pub async fn ask_number(world: &World, key: &ClusterKey, address: &str) -> Result<(ClusterId, NodeId), WireError> {
    let request = v1::JoinRequest { nonce: world.random.next_u64() };
    let asked = signed::sign(key, &request);
    let answer = call(world, address, NUMBER_DEADLINE, |mut c| async move { c.join(asked).await }).await?;
    let reply: v1::JoinReply = signed::open(key, &answer)?;
    let cluster = ClusterId::from_bytes(&reply.cluster);
    match cluster {
        Some(cluster) if reply.nonce == request.nonce => Ok((cluster, NodeId(reply.node))),
        _ => Err(refused("the answer of a master that was asked for a number".into())),
    }
}

impl Group {
    /// Asks who answers at `address`. Cancel-safe.
    ///
    /// # Errors
    /// When nobody does in time, or one that does not belong to the cluster.
    pub async fn introduced(&self, address: &str) -> Result<Introduced, WireError> {
        let (world, parties) = (self.world(), self.parties());
        let asked = parties.request(world, 0);
        let signed = parties.sign(&v1::IntroduceRequest { parties: Some(asked.clone()) });
        let answer = call(world, address, ASK_DEADLINE, |mut c| async move { c.introduce(signed).await }).await?;
        let (reply, id) = parties.open_anyones_answer::<v1::Introduction>(&answer, &asked)?;
        let v1::Introduction { member, term, last_log, applied, lowest_level, highest_level, .. } = reply;
        let (short_of_room, lineage) = (reply.short_of_room, reply.lineage_number);
        let said = Features { lowest: lowest_level, highest: highest_level };
        let features = (highest_level > 0).then_some(said);
        Ok(Introduced { id: NodeId(id), member, term, last_log, applied, features, short_of_room, lineage })
    }

    pub(super) async fn introduce(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let parties = self.parties();
        let (_, asked) = parties.open_to_anyone::<v1::IntroduceRequest>(signed)?;
        let (own, features) = (watching::own(self.raft()), self.features());
        Ok(parties.sign(&v1::Introduction {
            parties: Some(parties.answer(&asked)),
            lowest_level: features.lowest,
            highest_level: features.highest,
            short_of_room: self.is_short_of_room().await,
            lineage_number: self.lineage().await.unwrap_or_default(),
            ..own
        }))
    }

    /// Asks a member what it held right after entry `index`. Cancel-safe.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) async fn ask_digest(&self, member: &Node, index: u64) -> Result<Known, WireError> {
        let (world, parties) = (self.world(), self.parties());
        let asked = parties.request(world, member.id.0);
        let signed = parties.sign(&v1::DigestRequest { parties: Some(asked.clone()), index });
        let answer = call(world, &member.address, ASK_DEADLINE, |mut c| async move { c.digest(signed).await }).await?;
        wire::digested_from(&parties.open_answer::<v1::DigestReply>(&answer, &asked)?)
    }

    pub(super) async fn give_number(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let belonging = self.parties().belonging();
        let request: v1::JoinRequest = signed::open(&belonging.key, signed)?;
        let command = Command { wall_ms: self.world().clock.wall_ms(), kind: Kind::NumberMaster(NumberMaster {}) };
        let outcome = self.propose(command).await?.map_err(|refusal| WireError::new(refusal.code, refusal.message))?;
        let Reply::Master(numbered) = outcome else {
            return Err(WireError::new(ErrorCode::Internal, "a new master got another answer than a number"));
        };
        tracing::info!(master = %numbered.node, "a new master has its number");
        let cluster = belonging.cluster.to_bytes().into();
        Ok(signed::sign(&belonging.key, &v1::JoinReply { nonce: request.nonce, cluster, node: numbered.node.0 }))
    }
}
