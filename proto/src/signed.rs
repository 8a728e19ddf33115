//! Messages that carry a signature: encoded once, verified as the bytes that came, decoded only then.

use prost::Message;
use quarry_types::{ClusterKey, ErrorCode, auth::Purpose};

use crate::{WireError, v1};

/// A message type that travels signed, and for which purpose.
pub trait Signable: Message + Default {
    /// What its signature is for.
    const PURPOSE: Purpose;
}

impl Signable for v1::Grant {
    const PURPOSE: Purpose = Purpose::Grant;
}
impl Signable for v1::Receipt {
    const PURPOSE: Purpose = Purpose::Receipt;
}
impl Signable for v1::LeadershipProof {
    const PURPOSE: Purpose = Purpose::Leadership;
}
impl Signable for v1::Registration {
    const PURPOSE: Purpose = Purpose::Registration;
}
impl Signable for v1::BackupHeader {
    const PURPOSE: Purpose = Purpose::Backup;
}

impl Signable for v1::JoinRequest {
    const PURPOSE: Purpose = Purpose::Raft("join");
}
impl Signable for v1::JoinReply {
    const PURPOSE: Purpose = Purpose::Raft("joined");
}

/// A message between masters of one group.
pub trait BetweenMasters: Signable {
    /// Whom it is from and for.
    fn parties(&self) -> Option<&v1::RaftParties>;
}

macro_rules! between_masters {
    ($($message:ident: $kind:literal,)*) => {$(
        impl Signable for v1::$message {
            const PURPOSE: Purpose = Purpose::Raft($kind);
        }
        impl BetweenMasters for v1::$message {
            fn parties(&self) -> Option<&v1::RaftParties> {
                self.parties.as_ref()
            }
        }
    )*};
}

between_masters! {
    AppendRequest: "append",
    AppendReply: "appended",
    VoteRequest: "vote",
    VoteReply: "voted",
    TransferRequest: "transfer",
    TransferReply: "transferred",
    SnapshotOffer: "offer",
    SnapshotWanted: "wanted",
    SnapshotPiece: "piece",
    SnapshotReply: "installed",
    IntroduceRequest: "introduce",
    Introduction: "introduction",
    DigestRequest: "digest",
    DigestReply: "digested",
    StartedRequest: "started",
    StartedReply: "known",
    ConfirmRequest: "confirm",
    ConfirmReply: "confirmed",
}

/// Encodes and signs.
#[must_use]
pub fn sign<M: Signable>(key: &ClusterKey, message: &M) -> v1::Signed {
    let body = message.encode_to_vec();
    let mac = key.sign(M::PURPOSE, &body);
    v1::Signed { body: body.into(), mac: mac.to_vec().into() }
}

/// Verifies and decodes.
///
/// # Errors
/// [`ErrorCode::Unauthorized`] when the signature is wrong, [`ErrorCode::InvalidArgument`] when the body is
/// not an `M`.
pub fn open<M: Signable>(key: &ClusterKey, signed: &v1::Signed) -> Result<M, WireError> {
    if !key.verify(M::PURPOSE, &signed.body, &signed.mac) {
        return Err(WireError::new(
            ErrorCode::Unauthorized,
            "a signature does not verify; do both sides use the key file of the same cluster?",
        ));
    }
    M::decode(&*signed.body)
        .map_err(|e| WireError::new(ErrorCode::InvalidArgument, format!("a signed message does not decode: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_or_another_key_is_refused() {
        let key = ClusterKey::new([1; 32]);
        let grant = v1::Grant { chunk: 7, ..Default::default() };
        let mut signed = sign(&key, &grant);
        assert_eq!(open::<v1::Grant>(&key, &signed).unwrap(), grant);
        assert_eq!(open::<v1::Grant>(&ClusterKey::new([2; 32]), &signed).unwrap_err().code, ErrorCode::Unauthorized);
        signed.body = v1::Grant { chunk: 8, ..Default::default() }.encode_to_vec().into();
        assert_eq!(open::<v1::Grant>(&key, &signed).unwrap_err().code, ErrorCode::Unauthorized);
    }
}
