//! Raft's own records, byte for byte. Each stored one begins with a format byte; tags are never used again.

use std::{collections::BTreeSet, io};

use bytes::Bytes;
use openraft::{impls::BasicNode, vote::RaftLeaderId as _};
use prost::Message;

use super::types::{
    CommittedLeaderId, Entry, LeaderId, LogId, Membership, Payload, Proposal, SnapshotMeta, StoredMembership, Vote,
};
use crate::store::Mark;

/// The first byte of every record here.
const FORMAT: u8 = 1;

#[derive(Clone, Copy, PartialEq, Message)]
struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct VoteRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct NodeRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, Message)]
struct VotersRecord {
    #[prost(uint64, repeated, tag = "1")]
    ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct MembershipRecord {
    /// More than one while the members change.
    #[prost(message, repeated, tag = "1")]
    configs: Vec<VotersRecord>,
    #[prost(message, repeated, tag = "2")]
    nodes: Vec<NodeRecord>,
}

/// Without command and membership: blank, a leader's first entry.
#[derive(Clone, PartialEq, Message)]
struct EntryRecord {
    #[prost(message, required, tag = "1")]
    id: LogIdRecord,
    #[prost(bytes = "bytes", optional, tag = "2")]
    command: Option<Bytes>,
    #[prost(message, optional, tag = "3")]
    membership: Option<MembershipRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct AppliedRecord {
    #[prost(message, required, tag = "1")]
    last: LogIdRecord,
    /// Absent: no membership was applied.
    #[prost(message, optional, tag = "2")]
    membership_id: Option<LogIdRecord>,
    #[prost(message, required, tag = "3")]
    membership: MembershipRecord,
}

fn seal(record: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + record.encoded_len());
    bytes.push(FORMAT);
    // Writing to a vector does not fail.
    let _grows = record.encode(&mut bytes);
    bytes
}

fn open<M: Message + Default>(what: &str, bytes: Bytes) -> io::Result<M> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("stored {what}: {why}"));
    match bytes.first() {
        Some(&FORMAT) => M::decode(bytes.slice(1..)).map_err(|e| damaged(e.to_string())),
        Some(&format) if format > FORMAT => Err(damaged(format!(
            "has format {format}, this program reads up to {FORMAT}: start it with a newer quarry-master"
        ))),
        _ => Err(damaged("has no format".into())),
    }
}

impl From<&LogId> for LogIdRecord {
    fn from(from: &LogId) -> Self {
        LogIdRecord { term: from.leader_id.term, index: from.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(from: LogIdRecord) -> Self {
        LogId { leader_id: CommittedLeaderId::new(from.term), index: from.index }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(from: &Membership) -> Self {
        let voters = |ids: &BTreeSet<u64>| VotersRecord { ids: ids.iter().copied().collect() };
        let node = |(id, node): (&u64, &BasicNode)| NodeRecord { id: *id, address: node.addr.clone() };
        MembershipRecord {
            configs: from.get_joint_config().iter().map(voters).collect(),
            nodes: from.nodes().map(node).collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = io::Error;

    fn try_from(from: MembershipRecord) -> io::Result<Self> {
        let configs: Vec<BTreeSet<u64>> = from.configs.into_iter().map(|c| c.ids.into_iter().collect()).collect();
        if configs.is_empty() && from.nodes.is_empty() {
            return Ok(Membership::default());
        }
        let nodes: Vec<(u64, BasicNode)> = from.nodes.into_iter().map(|n| (n.id, BasicNode::new(n.address))).collect();
        let nodes: std::collections::BTreeMap<u64, BasicNode> = nodes.into_iter().collect();
        Membership::new(configs, nodes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
    }
}

pub(crate) fn log_id_to_bytes(id: &LogId) -> Vec<u8> {
    seal(&LogIdRecord::from(id))
}

pub(crate) fn log_id_from_bytes(bytes: Vec<u8>) -> io::Result<LogId> {
    open::<LogIdRecord>("log id", bytes.into()).map(LogId::from)
}

pub(crate) fn vote_to_bytes(vote: &Vote) -> Vec<u8> {
    let leader = &vote.leader_id;
    seal(&VoteRecord { term: leader.term, node: leader.voted_for, committed: vote.committed })
}

pub(crate) fn vote_from_bytes(bytes: Vec<u8>) -> io::Result<Vote> {
    let record: VoteRecord = open("vote", bytes.into())?;
    Ok(Vote { leader_id: LeaderId::new(record.term, record.node), committed: record.committed })
}

pub(crate) fn entry_to_bytes(entry: &Entry) -> Vec<u8> {
    let (command, membership) = match &entry.payload {
        Payload::Blank => (None, None),
        Payload::Normal(proposal) => (Some(proposal.0.clone()), None),
        Payload::Membership(membership) => (None, Some(membership.into())),
    };
    seal(&EntryRecord { id: (&entry.log_id).into(), command, membership })
}

pub(crate) fn entry_from_bytes(bytes: Vec<u8>) -> io::Result<Entry> {
    let record: EntryRecord = open("log entry", bytes.into())?;
    let payload = match (record.command, record.membership) {
        (Some(command), _) => Payload::Normal(Proposal(command)),
        (None, Some(membership)) => Payload::Membership(membership.try_into()?),
        (None, None) => Payload::Blank,
    };
    Ok(Entry { log_id: record.id.into(), payload })
}

/// The mark of a state to which everything up to `last` was applied.
pub(crate) fn mark(last: &LogId, membership: &StoredMembership) -> Mark {
    let record = AppliedRecord {
        last: last.into(),
        membership_id: membership.log_id().as_ref().map(LogIdRecord::from),
        membership: membership.membership().into(),
    };
    Mark { index: last.index, raft: seal(&record) }
}

/// How far a state is applied, and by whom it was decided then.
pub(crate) fn applied(mark: Option<&Mark>) -> io::Result<(Option<LogId>, StoredMembership)> {
    let Some(mark) = mark else { return Ok((None, StoredMembership::default())) };
    let record: AppliedRecord = open("mark of what was applied", Bytes::copy_from_slice(&mark.raft))?;
    let membership_id = record.membership_id.map(LogId::from);
    let membership = StoredMembership::new(membership_id, record.membership.try_into()?);
    Ok((Some(record.last.into()), membership))
}

/// The same, as openraft wants it of a snapshot.
pub(crate) fn snapshot_meta(mark: Option<&Mark>) -> io::Result<SnapshotMeta> {
    let (last_log_id, last_membership) = applied(mark)?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogIdRecord { term, index }.into()
    }

    fn membership() -> Membership {
        let nodes = [(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2"))];
        let nodes: std::collections::BTreeMap<u64, BasicNode> = nodes.into_iter().collect();
        Membership::new(vec![BTreeSet::from([1])], nodes).unwrap()
    }

    /// The bytes of format 1: a change here needs a new format number.
    #[test]
    fn golden_bytes() {
        assert_eq!(log_id_to_bytes(&id(3, 300)), [1, 8, 3, 16, 172, 2]);
        let vote = Vote { leader_id: LeaderId::new(3, 7), committed: true };
        assert_eq!(vote_to_bytes(&vote), [1, 8, 3, 16, 7, 24, 1]);
        let blank = Entry { log_id: id(1, 2), payload: Payload::Blank };
        assert_eq!(entry_to_bytes(&blank), [1, 10, 4, 8, 1, 16, 2]);
        let command = Payload::Normal(Proposal(Bytes::from_static(b"xy")));
        let normal = Entry { log_id: id(1, 2), payload: command };
        assert_eq!(entry_to_bytes(&normal), [1, 10, 4, 8, 1, 16, 2, 18, 2, b'x', b'y']);
        let members = Entry { log_id: id(1, 2), payload: Payload::Membership(membership()) };
        let expected = [
            1, 10, 4, 8, 1, 16, 2, 26, 23, 10, 3, 10, 1, 1, 18, 7, 8, 1, 18, 3, b'a', b':', b'1', 18, 7, 8, 2, 18, 3,
            b'b', b':', b'2',
        ];
        assert_eq!(entry_to_bytes(&members), expected);
    }

    #[test]
    fn records_read_back() {
        for payload in [
            Payload::Blank,
            Payload::Normal(Proposal(Bytes::from_static(b"c"))),
            Payload::Normal(Proposal(Bytes::new())),
            Payload::Membership(membership()),
        ] {
            let entry = Entry { log_id: id(4, 5), payload };
            assert_eq!(entry_from_bytes(entry_to_bytes(&entry)).unwrap(), entry);
        }
        let vote = Vote { leader_id: LeaderId::new(9, 1), committed: false };
        assert_eq!(vote_from_bytes(vote_to_bytes(&vote)).unwrap(), vote);
        let stored = StoredMembership::new(Some(id(1, 1)), membership());
        assert_eq!(applied(Some(&mark(&id(2, 8), &stored))).unwrap(), (Some(id(2, 8)), stored));
        let none = StoredMembership::default();
        assert_eq!(applied(Some(&mark(&id(2, 8), &none))).unwrap(), (Some(id(2, 8)), none));
    }

    #[test]
    fn damage_and_newer_formats_are_errors() {
        let newer = entry_from_bytes(vec![FORMAT + 1, 1]).unwrap_err();
        assert!(newer.to_string().contains("newer quarry-master"), "{newer}");
        for bytes in [vec![], vec![0], vec![FORMAT, 0xff], vec![FORMAT, 10, 200]] {
            assert!(entry_from_bytes(bytes.clone()).is_err(), "{bytes:?}");
        }
    }
}
