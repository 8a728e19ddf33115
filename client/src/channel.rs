//! gRPC connections over the injected network.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use quarry_env::{World, clock::timeout};
use quarry_proto::WireError;
use quarry_types::ErrorCode;
use tonic::transport::{Channel, Endpoint, Uri};

/// Connects to the master at `address`, which must answer within `limit`. Cancel-safe.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] when `address` is none, [`ErrorCode::Unavailable`] when nobody answers there.
pub async fn connect(world: &World, address: &str, limit: Duration) -> Result<Channel, WireError> {
    let unavailable =
        |why: String| WireError::new(ErrorCode::Unavailable, format!("master {address} cannot be reached: {why}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| {
        WireError::new(ErrorCode::InvalidArgument, format!("{address:?} is not a master's address: {e}"))
    })?;
    let (net, clock, to) = (Arc::clone(&world.net), Arc::clone(&world.clock), address.to_owned());
    // Also later, when the channel connects again by itself, nobody waits longer than this.
    let connector = tower::service_fn(move |_: Uri| {
        let (net, clock, to) = (Arc::clone(&net), Arc::clone(&clock), to.clone());
        async move {
            match timeout(&*clock, limit, net.connect(&to)).await {
                Ok(stream) => stream.map(TokioIo::new),
                Err(late) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, late)),
            }
        }
    });
    timeout(&*world.clock, limit, endpoint.connect_with_connector(connector))
        .await
        .map_err(|e| unavailable(e.to_string()))?
        .map_err(|e| unavailable(root_cause(&e)))
}

/// tonic's own message is just "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
