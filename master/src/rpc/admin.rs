use quarry_proto::v1::{self, admin_server::Admin};
use tonic::{Request, Response, Status};

use super::{answer, span};
use crate::service::Service;

/// What operators ask.
#[derive(Clone)]
pub struct AdminRpc {
    service: Service,
}

impl AdminRpc {
    /// Over a service.
    pub fn new(service: Service) -> Self {
        AdminRpc { service }
    }
}

#[tonic::async_trait]
impl Admin for AdminRpc {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        answer(span("status", &request), self.service.status()).await
    }
}
