//! Raft's messages on the wire.

use openraft::{
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    vote::RaftLeaderId as _,
};
use quarry_master_core::agreement::Digest;
use quarry_proto::{WireError, v1};
use quarry_types::ErrorCode;

use super::{
    codec,
    digests::Known,
    types::{CommittedLeaderId, LeaderId, LogId, Types, Vote},
};

/// A member's digest, of which the parties are to be filled in.
pub(super) fn digested(known: Known) -> v1::DigestReply {
    match known {
        Known::Nothing => v1::DigestReply::default(),
        Known::Hashing => v1::DigestReply { hashing: true, ..v1::DigestReply::default() },
        Known::Digest(Digest { format, hash, rows }) => {
            v1::DigestReply { format, digest: hash.to_vec().into(), rows, ..v1::DigestReply::default() }
        }
    }
}

pub(super) fn digested_from(of: &v1::DigestReply) -> Result<Known, WireError> {
    if of.hashing {
        return Ok(Known::Hashing);
    }
    if of.digest.is_empty() {
        return Ok(Known::Nothing);
    }
    let hash = of.digest[..].try_into().map_err(|_| malformed("a digest of another length"))?;
    Ok(Known::Digest(Digest { format: of.format, hash, rows: of.rows }))
}

fn malformed(what: impl std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, format!("a message between masters: {what}"))
}

pub(super) fn vote(of: &Vote) -> v1::RaftVote {
    v1::RaftVote { term: of.leader_id.term, node: of.leader_id.voted_for, committed: of.committed }
}

pub(super) fn vote_from(of: Option<v1::RaftVote>) -> Result<Vote, WireError> {
    let of = of.ok_or_else(|| malformed("names no vote"))?;
    Ok(Vote { leader_id: LeaderId::new(of.term, of.node), committed: of.committed })
}

pub(super) fn log_id(of: &LogId) -> v1::RaftLogId {
    v1::RaftLogId { term: of.leader_id.term, index: of.index }
}

pub(super) fn log_id_from(of: v1::RaftLogId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(of.term), index: of.index }
}

/// The request with as many of its first entries as fit into `bytes_max`, at least one; and the last of those that do when
/// not all do.
pub(super) fn append(of: &AppendEntriesRequest<Types>, bytes_max: usize) -> (v1::AppendRequest, Option<LogId>) {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for entry in &of.entries {
        let encoded = codec::entry_to_bytes(entry);
        bytes += encoded.len();
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(encoded.into());
    }
    let cut = entries.len().checked_sub(1).filter(|_| entries.len() < of.entries.len());
    let last = cut.and_then(|last| of.entries.get(last)).map(|entry| entry.log_id);
    let request = v1::AppendRequest {
        parties: None,
        vote: Some(vote(&of.vote)),
        previous: of.prev_log_id.as_ref().map(log_id),
        entries,
        committed: of.leader_commit.as_ref().map(log_id),
        address: String::new(),
    };
    (request, last)
}

pub(super) fn append_from(of: v1::AppendRequest) -> Result<AppendEntriesRequest<Types>, WireError> {
    let entries = of.entries.into_iter().map(|bytes| codec::entry_from_bytes(bytes.into()));
    Ok(AppendEntriesRequest {
        vote: vote_from(of.vote)?,
        prev_log_id: of.previous.map(log_id_from),
        entries: entries.collect::<Result<_, _>>().map_err(malformed)?,
        leader_commit: of.committed.map(log_id_from),
    })
}

pub(super) fn appended(of: &AppendEntriesResponse<Types>) -> v1::AppendReply {
    let mut reply = v1::AppendReply::default();
    let outcome = match of {
        AppendEntriesResponse::Success => v1::append_reply::Outcome::Appended,
        AppendEntriesResponse::PartialSuccess(upto) => {
            reply.upto = upto.as_ref().map(log_id);
            v1::append_reply::Outcome::Partly
        }
        AppendEntriesResponse::Conflict => v1::append_reply::Outcome::Conflict,
        AppendEntriesResponse::HigherVote(higher) => {
            reply.vote = Some(vote(higher));
            v1::append_reply::Outcome::HigherVote
        }
    };
    reply.outcome = outcome.into();
    reply
}

/// `cut`: the request held the entries up to this one only.
pub(super) fn appended_from(
    of: v1::AppendReply,
    cut: Option<LogId>,
) -> Result<AppendEntriesResponse<Types>, WireError> {
    Ok(match of.outcome() {
        v1::append_reply::Outcome::Appended if cut.is_some() => AppendEntriesResponse::PartialSuccess(cut),
        v1::append_reply::Outcome::Appended => AppendEntriesResponse::Success,
        v1::append_reply::Outcome::Partly => AppendEntriesResponse::PartialSuccess(of.upto.map(log_id_from)),
        v1::append_reply::Outcome::Conflict => AppendEntriesResponse::Conflict,
        v1::append_reply::Outcome::HigherVote => AppendEntriesResponse::HigherVote(vote_from(of.vote)?),
        v1::append_reply::Outcome::Unspecified => return Err(malformed("an answer without an outcome")),
    })
}

pub(super) fn ask_vote(of: &VoteRequest<Types>, pre: bool) -> v1::VoteRequest {
    v1::VoteRequest {
        parties: None,
        vote: Some(vote(&of.vote)),
        last: of.last_log_id.as_ref().map(log_id),
        transfer: of.leadership_transfer,
        pre,
    }
}

pub(super) fn ask_vote_from(of: v1::VoteRequest) -> Result<VoteRequest<Types>, WireError> {
    let mut request = VoteRequest::new(vote_from(of.vote)?, of.last.map(log_id_from));
    request.leadership_transfer = of.transfer;
    Ok(request)
}

pub(super) fn voted(of: &VoteResponse<Types>, pre: bool) -> v1::VoteReply {
    let last = of.last_log_id.as_ref().map(log_id);
    v1::VoteReply { parties: None, vote: Some(vote(&of.vote)), granted: of.vote_granted, last, pre }
}

pub(super) fn voted_from(of: v1::VoteReply, pre: bool) -> Result<VoteResponse<Types>, WireError> {
    if of.pre != pre {
        return Err(malformed("an answer to another kind of election"));
    }
    Ok(VoteResponse::new(vote_from(of.vote)?, of.last.map(log_id_from), of.granted))
}

pub(super) fn transfer(of: &TransferLeaderRequest<Types>) -> v1::TransferRequest {
    let last = of.last_log_id().map(log_id);
    v1::TransferRequest { parties: None, leader: Some(vote(of.from_leader())), next: *of.to_node_id(), last }
}

pub(super) fn transfer_from(of: v1::TransferRequest) -> Result<TransferLeaderRequest<Types>, WireError> {
    Ok(TransferLeaderRequest::new(vote_from(of.leader)?, of.next, of.last.map(log_id_from)))
}

pub(super) fn transferred(of: &TransferLeaderResponse<Types>) -> v1::TransferReply {
    let mut reply = v1::TransferReply::default();
    match of {
        Ok(()) => {}
        Err(TransferLeaderError::VoteChanged { actual, .. }) => reply.vote = Some(vote(actual)),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            (reply.behind, reply.last) = (true, actual.as_ref().map(log_id));
        }
    }
    reply
}

pub(super) fn transferred_from(
    of: v1::TransferReply,
    asked: &TransferLeaderRequest<Types>,
) -> Result<TransferLeaderResponse<Types>, WireError> {
    if of.vote.is_some() {
        let (expected, actual) = (*asked.from_leader(), vote_from(of.vote)?);
        return Ok(Err(TransferLeaderError::VoteChanged { expected, actual }));
    }
    if of.behind {
        let (expected, actual) = (asked.last_log_id().copied(), of.last.map(log_id_from));
        return Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }));
    }
    Ok(Ok(()))
}
