//! The one place where errors meet the wire: to and from gRPC statuses and failure frames.

use bytes::Bytes;
use prost::Message;
use quarry_types::{Advice, ErrorCode, ServerId};
use tonic::{Code, Status};

use crate::v1;

/// An error as it crosses a process boundary: what to do, and what happened in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// Which of the error table.
    pub code: ErrorCode,
    /// What failed, where, and what to do next.
    pub message: String,
    /// Who failed, when it was not the one asked.
    pub server: Option<ServerId>,
    /// Where the leader is, with [`ErrorCode::NotLeader`] and [`ErrorCode::TooStale`], when known.
    pub leader: Option<String>,
}

impl WireError {
    /// An error of the one who says it.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        WireError { code, message: message.into(), server: None, leader: None }
    }

    /// The same error, said of `server`.
    #[must_use]
    pub fn of_server(mut self, server: ServerId) -> Self {
        self.server.get_or_insert(server);
        self
    }

    /// What the caller should do.
    #[must_use]
    pub fn advice(&self) -> Advice {
        self.code.advice()
    }
}

impl From<&WireError> for v1::ErrorDetail {
    fn from(from: &WireError) -> Self {
        v1::ErrorDetail {
            code: from.code.number(),
            message: from.message.clone(),
            server: from.server.map(ServerId::to_bytes).unwrap_or_default().into(),
            leader: from.leader.clone().unwrap_or_default(),
        }
    }
}

impl From<v1::ErrorDetail> for WireError {
    fn from(from: v1::ErrorDetail) -> Self {
        WireError {
            code: ErrorCode::from_number(from.code),
            message: from.message,
            server: ServerId::from_bytes(&from.server),
            leader: Some(from.leader).filter(|l| !l.is_empty()),
        }
    }
}

fn grpc_code(code: ErrorCode) -> Code {
    use ErrorCode as E;
    match code {
        E::Internal => Code::Internal,
        E::InvalidArgument | E::NotADirectory | E::IsADirectory | E::Cycle => Code::InvalidArgument,
        E::NotFound | E::NoReplica => Code::NotFound,
        E::AlreadyExists => Code::AlreadyExists,
        E::NotEmpty | E::Conflict | E::LeaseLost | E::Fenced | E::Mismatch | E::VersionMismatch => {
            Code::FailedPrecondition
        }
        E::LeaseHeld | E::OutcomeUnknown | E::PipelineBroken | E::StaleLeader => Code::Aborted,
        E::Busy | E::NoSpace => Code::ResourceExhausted,
        E::NotEnoughServers | E::NotLeader | E::Unavailable | E::UnderReplicated | E::DiskFailed | E::TooStale => {
            Code::Unavailable
        }
        E::DeadlineExceeded => Code::DeadlineExceeded,
        E::Compacted | E::OtherLineage => Code::OutOfRange,
        E::Corrupt => Code::DataLoss,
        E::Unauthorized => Code::Unauthenticated,
    }
}

impl From<WireError> for Status {
    fn from(from: WireError) -> Self {
        let detail = v1::ErrorDetail::from(&from).encode_to_vec();
        Status::with_details(grpc_code(from.code), from.message, Bytes::from(detail))
    }
}

impl From<Status> for WireError {
    fn from(from: Status) -> Self {
        if let Ok(detail) = v1::ErrorDetail::decode(from.details())
            && detail.code != 0
        {
            return detail.into();
        }
        // Made by the transport, not by our peer.
        let code = match from.code() {
            Code::DeadlineExceeded | Code::Cancelled => ErrorCode::DeadlineExceeded,
            Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
            Code::ResourceExhausted => ErrorCode::Busy,
            Code::Unimplemented => ErrorCode::VersionMismatch,
            Code::Unavailable | Code::Unknown => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        };
        WireError::new(code, from.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        for code in ErrorCode::ALL {
            let error = WireError {
                code: *code,
                message: format!("{code} happened"),
                server: Some(ServerId::from_random(9)),
                leader: Some("host:1".into()),
            };
            assert_eq!(WireError::from(Status::from(error.clone())), error);
        }
    }

    #[test]
    fn a_status_of_the_transport_has_a_code() {
        assert_eq!(WireError::from(Status::unavailable("gone")).code, ErrorCode::Unavailable);
        assert_eq!(
            WireError::from(Status::with_details(Code::Internal, "x", Bytes::from_static(b"\xff\xff"))).code,
            ErrorCode::Internal
        );
    }
}
