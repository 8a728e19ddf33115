//! The gRPC services: decode, call the service, encode. No decision is made here.

mod admin;
mod chunkservers;
mod decode;
mod namespace;

pub use admin::AdminRpc;
pub use chunkservers::ChunkserversRpc;
pub use namespace::NamespaceRpc;

use crate::listen::Peer;
use quarry_proto::{REQUEST_ID, WireError};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

/// Longer request ids are cut: they go into every log line.
const REQUEST_ID_BYTES: usize = 64;

/// The span of one request, with the id that its client gave it.
fn span<T>(operation: &'static str, request: &Request<T>) -> Span {
    let id = request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-");
    let id = id.get(..REQUEST_ID_BYTES).unwrap_or(id);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    tracing::info_span!("request", operation, request_id = id, peer = peer.map(tracing::field::display))
}

/// Runs one request in its span, and logs how it ended.
async fn answer<T>(span: Span, work: impl Future<Output = Result<T, WireError>>) -> Result<Response<T>, Status> {
    async {
        match work.await {
            Ok(reply) => {
                tracing::debug!("done");
                Ok(Response::new(reply))
            }
            Err(error) => {
                tracing::info!(code = %error.code, error = %error.message, "refused");
                Err(Status::from(error))
            }
        }
    }
    .instrument(span)
    .await
}
