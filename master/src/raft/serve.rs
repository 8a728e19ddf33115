//! Answering other members.

use futures::Stream;
use quarry_proto::{
    WireError,
    signed::BetweenMasters,
    v1::{self, raft_server::Raft as RaftService},
};
use quarry_types::ErrorCode;
use tonic::{Request, Response, Status, Streaming};

use super::{Group, wire};

/// The gRPC service that other members call.
#[derive(Clone)]
pub struct RaftRpc {
    group: Group,
}

fn stopped(error: &dyn std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::Unavailable, format!("this master's Raft group: {error}"))
}

impl RaftRpc {
    /// Answers for this member.
    #[must_use]
    pub fn new(group: Group) -> Self {
        RaftRpc { group }
    }

    fn opened<M: BetweenMasters>(&self, signed: &v1::Signed) -> Result<(M, v1::RaftParties), WireError> {
        self.group.parties().open(signed)
    }

    async fn append(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let (request, asked) = self.opened::<v1::AppendRequest>(signed)?;
        self.group.gate().check().inspect_err(|_| self.group.gate().heard(asked.from, &request.address))?;
        let answer = self.group.raft().append_entries(wire::append_from(request)?).await.map_err(|e| stopped(&e))?;
        let parties = Some(self.group.parties().answer(&asked));
        Ok(self.group.parties().sign(&v1::AppendReply { parties, ..wire::appended(&answer) }))
    }

    async fn vote(&self, signed: &v1::Signed, pre: bool) -> Result<v1::Signed, WireError> {
        let (request, asked) = self.opened::<v1::VoteRequest>(signed)?;
        if request.pre != pre {
            return Err(WireError::new(ErrorCode::InvalidArgument, "a request for another kind of election"));
        }
        let (raft, request) = (self.group.raft(), wire::ask_vote_from(request)?);
        let gate = self.group.gate();
        if pre {
            gate.check()?
        } else {
            gate.check_vote(request.vote.leader_id.term)?
        }
        let answer = if pre { raft.pre_vote(request).await } else { raft.vote(request).await };
        let answer = answer.map_err(|e| stopped(&e))?;
        let parties = Some(self.group.parties().answer(&asked));
        Ok(self.group.parties().sign(&v1::VoteReply { parties, ..wire::voted(&answer, pre) }))
    }

    async fn transfer(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let (request, asked) = self.opened::<v1::TransferRequest>(signed)?;
        self.group.gate().check()?;
        let answer = self.group.raft().handle_transfer_leader(wire::transfer_from(request)?).await;
        let answer = answer.map_err(|e| stopped(&e))?;
        let parties = Some(self.group.parties().answer(&asked));
        Ok(self.group.parties().sign(&v1::TransferReply { parties, ..wire::transferred(&answer) }))
    }

    fn digested(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let (request, asked) = self.opened::<v1::DigestRequest>(signed)?;
        let parties = Some(self.group.parties().answer(&asked));
        let known = wire::digested(self.group.digest(request.index));
        Ok(self.group.parties().sign(&v1::DigestReply { parties, ..known }))
    }

    async fn offer(&self, signed: &v1::Signed) -> Result<v1::Signed, WireError> {
        let (offer, asked) = self.opened::<v1::SnapshotOffer>(signed)?;
        self.group.gate().check()?;
        let (offered, mine) = (wire::vote_from(offer.vote)?, self.group.vote());
        let mut wanted =
            v1::SnapshotWanted { parties: Some(self.group.parties().answer(&asked)), ..Default::default() };
        if mine > offered {
            wanted.vote = Some(wire::vote(&mine));
        } else {
            let (file, offset) = self.group.incoming().offered(asked.from, offer).await?;
            (wanted.file, wanted.offset) = (u32::try_from(file).unwrap_or(u32::MAX), offset);
        }
        Ok(self.group.parties().sign(&wanted))
    }

    async fn snapshot(
        &self,
        pieces: impl Stream<Item = Result<v1::Signed, Status>> + Unpin,
    ) -> Result<v1::Signed, WireError> {
        let parties = self.group.parties();
        let received = self.group.incoming().received(parties, pieces).await?;
        let (vote, asked) = (wire::vote_from(received.vote)?, received.asked);
        let vote = self.group.install(vote, received.snapshot).await?;
        let parties_of_answer = Some(parties.answer(&asked));
        Ok(parties.sign(&v1::SnapshotReply { parties: parties_of_answer, vote: Some(wire::vote(&vote)) }))
    }
}

fn answered(answer: Result<v1::Signed, WireError>) -> Result<Response<v1::Signed>, Status> {
    match answer {
        Ok(signed) => Ok(Response::new(signed)),
        Err(error) => {
            tracing::debug!(code = %error.code, error = %error.message, "another master was refused");
            Err(error.into())
        }
    }
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn append(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(RaftRpc::append(self, request.get_ref()).await)
    }

    async fn vote(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(RaftRpc::vote(self, request.get_ref(), false).await)
    }

    async fn pre_vote(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(RaftRpc::vote(self, request.get_ref(), true).await)
    }

    async fn transfer_leader(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.transfer(request.get_ref()).await)
    }

    async fn introduce(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.group.introduce(request.get_ref()).await)
    }

    async fn started(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.group.started(request.get_ref()).await)
    }

    async fn digest(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.digested(request.get_ref()))
    }

    async fn confirm(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.group.confirm(request.get_ref()).await)
    }

    async fn join(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.group.give_number(request.get_ref()).await)
    }

    async fn offer_snapshot(&self, request: Request<v1::Signed>) -> Result<Response<v1::Signed>, Status> {
        answered(self.offer(request.get_ref()).await)
    }

    async fn send_snapshot(&self, request: Request<Streaming<v1::Signed>>) -> Result<Response<v1::Signed>, Status> {
        answered(self.snapshot(request.into_inner()).await)
    }
}
