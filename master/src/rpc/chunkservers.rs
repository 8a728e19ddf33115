use std::pin::Pin;

use futures::Stream;
use quarry_proto::v1::{self, chunkservers_server::Chunkservers};
use tonic::{Request, Response, Status, Streaming};

use super::{answer, span};
use crate::service::Service;

/// What chunkservers say.
#[derive(Clone)]
pub struct ChunkserversRpc {
    service: Service,
}

impl ChunkserversRpc {
    /// Over a service.
    pub fn new(service: Service) -> Self {
        ChunkserversRpc { service }
    }
}

/// gRPC metadata key of the registration that a heartbeat stream belongs to.
const REGISTRATION: &str = "quarry-registration";

#[tonic::async_trait]
impl Chunkservers for ChunkserversRpc {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterReply>, Status> {
        answer(span("register", &request), self.service.register(request.into_inner())).await
    }

    async fn report(
        &self,
        request: Request<Streaming<v1::InventoryPage>>,
    ) -> Result<Response<v1::ReportReply>, Status> {
        answer(span("report", &request), self.service.report(request.into_inner())).await
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<v1::MasterMessage, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::ServerMessage>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let span = span("heartbeat", &request);
        let registration = request.metadata().get(REGISTRATION).and_then(|n| n.to_str().ok()?.parse().ok());
        answer(span.clone(), async {
            let messages = self.service.heartbeat(registration, request.into_inner(), span).await?;
            let messages: Self::HeartbeatStream = Box::pin(messages);
            Ok(messages)
        })
        .await
    }
}
