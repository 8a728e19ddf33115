//! Getting the chunk that a writer goes on in: the master's grant, and a pipeline through its members.

use std::sync::Arc;

use bytes::Bytes;
use quarry_proto::v1;
use quarry_types::ErrorCode;
use tokio_util::task::AbortOnDropHandle;

use super::{
    permit::Permit,
    pipeline::{Broken, Pipeline},
};
use crate::{ClientError, client::Shared, session::namespace};

/// A chunk that is wanted, in the words of [`v1::AddChunkRequest`].
pub(super) struct Wanted {
    pub(super) doing: String,
    pub(super) inode: u64,
    pub(super) lease: u64,
    /// In the file.
    pub(super) offset: u64,
    pub(super) limit_bytes: u64,
    pub(super) seals: Vec<v1::SealedChunk>,
    pub(super) avoid: Vec<Bytes>,
}

/// What became of it: the master's refusal, or a grant with a pipeline, or a grant whose members could not be reached.
pub(super) type Opened = Result<Result<Pipeline, (Permit, Broken)>, ClientError>;

/// Asks the master for a chunk and opens it on its members.
pub(super) async fn open(shared: &Arc<Shared>, wanted: Wanted) -> Opened {
    let permit = grant(shared, wanted).await?;
    Ok(Pipeline::open(shared, permit).await)
}

/// Asks the master for a chunk.
pub(super) async fn grant(shared: &Shared, wanted: Wanted) -> Result<Permit, ClientError> {
    let Wanted { doing, inode, lease, offset, limit_bytes, seals, avoid } = wanted;
    let make = |op| v1::AddChunkRequest {
        op: Some(op),
        inode,
        lease,
        offset,
        limit_bytes,
        seals: seals.clone(),
        avoid: avoid.clone(),
    };
    let reply = shared
        .sessions
        .mutate(&doing, make, |channel, request| Box::pin(async move { namespace(channel).add_chunk(request).await }))
        .await?;
    Permit::from_reply(offset, reply).map_err(|e| ClientError::from_wire(&doing, e))
}

/// A chunk that is being opened while the one before it is on its way to its end, so that the members never wait for the master.
/// Only for what certainly comes: the file then has a chunk there that cannot be taken back.
pub(super) struct Ahead {
    /// In the file.
    pub(super) offset: u64,
    opening: AbortOnDropHandle<Opened>,
}

impl Ahead {
    pub(super) fn begin(shared: &Arc<Shared>, wanted: Wanted) -> Self {
        let (offset, shared) = (wanted.offset, Arc::clone(shared));
        Ahead { offset, opening: AbortOnDropHandle::new(tokio::spawn(async move { open(&shared, wanted).await })) }
    }

    /// Waits for what became of it.
    pub(super) async fn opened(self) -> Opened {
        self.opening.await.unwrap_or_else(|stopped| {
            Err(ClientError::new(ErrorCode::Unavailable, "opening the next chunk", stopped.to_string()))
        })
    }
}
