//! gRPC connections over the injected network.

use std::{
    io,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use quarry_env::{World, clock::timeout, net::BoxStream};
use quarry_proto::WireError;
use quarry_types::{ErrorCode, limits::CONNECT_DEADLINE};
use tonic::{
    Status,
    codegen::Service,
    transport::{Channel, Endpoint, Uri},
};

/// A call must be answered within this.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// Connects to the master at `address`.
///
/// # Errors
/// [`ErrorCode::Unavailable`], naming the address.
pub(super) async fn connect(world: &World, address: &str) -> Result<Channel, WireError> {
    let unavailable = |why: &dyn std::fmt::Display| {
        WireError::new(ErrorCode::Unavailable, format!("cannot reach the master at {address}: {why}"))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| unavailable(&e))?;
    let connector = Connector { world: world.clone(), address: address.into() };
    match timeout(&*world.clock, CONNECT_DEADLINE, endpoint.connect_with_connector(connector)).await {
        Ok(connected) => connected.map_err(|e| unavailable(&root_cause(&e))),
        Err(late) => Err(unavailable(&late)),
    }
}

/// Makes a call within a deadline, with the master's address in what goes wrong.
pub(super) async fn call<T>(
    world: &World,
    address: &str,
    limit: Duration,
    calling: impl Future<Output = Result<T, Status>>,
) -> Result<T, WireError> {
    match timeout(&*world.clock, limit, calling).await {
        Ok(answer) => answer.map_err(|status| {
            let error = WireError::from(status);
            WireError { message: format!("master at {address}: {}", error.message), ..error }
        }),
        Err(late) => Err(WireError::new(ErrorCode::DeadlineExceeded, format!("master at {address}: {late}"))),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Opens the byte streams that tonic asks for.
#[derive(Clone)]
struct Connector {
    world: World,
    address: String,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<BoxStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { world, address } = self.clone();
        Box::pin(async move {
            let connecting = world.net.connect(&address);
            match timeout(&*world.clock, CONNECT_DEADLINE, connecting).await {
                Ok(stream) => Ok(TokioIo::new(stream?)),
                Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
            }
        })
    }
}
