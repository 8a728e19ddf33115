//! The gRPC services: decode, call the service, encode. No decision is made here.

mod admin;
mod chunkservers;
mod decode;
mod namespace;
mod watch;

pub use admin::AdminRpc;
pub use chunkservers::ChunkserversRpc;
pub use namespace::NamespaceRpc;

use crate::{error::fault, listen::Peer};
use quarry_proto::{REQUEST_ID, WireError};
use quarry_types::ErrorCode;
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

/// The same for a request that commits something from which more follows: it goes on to its own deadline also when its client
/// has gone meanwhile, because nobody else would draw the consequences.
async fn carry_through<T: Send + 'static>(
    span: Span,
    work: impl Future<Output = Result<T, WireError>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let carried = tokio::spawn(answer(span, work)).await;
    carried
        .unwrap_or_else(|lost| Err(fault(ErrorCode::Internal, format!("the request was not finished: {lost}")).into()))
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
                // Whoever asks another master than the leader is told so: that is no news.
                if error.code == ErrorCode::NotLeader {
                    tracing::debug!(code = %error.code, error = %error.message, "refused");
                } else {
                    tracing::info!(code = %error.code, error = %error.message, "refused");
                }
                Err(Status::from(error))
            }
        }
    }
    .instrument(span)
    .await
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_a_request_has_begun_is_carried_through_when_its_client_has_gone() {
        let (begin, begun) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut request = Box::pin(carry_through(Span::none(), async move {
            begun.await.unwrap();
            end.send("committed, and its consequences drawn").unwrap();
            Ok(())
        }));
        assert!((&mut request).now_or_never().is_none());
        drop(request);
        begin.send(()).unwrap();
        assert!(ended.await.is_ok());
    }
}
