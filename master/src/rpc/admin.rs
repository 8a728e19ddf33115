use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use quarry_master_core::command::ServerWish;
use quarry_proto::{
    WireError, convert,
    v1::{self, admin_server::Admin},
};
use quarry_types::{ChunkId, ErrorCode, NodeId};
use tonic::{Request, Response, Status};

use super::{answer, carry_through, span};
use crate::{error::fault, service::Service};

type Reply<T> = Result<Response<T>, Status>;

fn wish(number: i32) -> Result<ServerWish, WireError> {
    match v1::ServerWish::try_from(number) {
        Ok(v1::ServerWish::Active) => Ok(ServerWish::Active),
        Ok(v1::ServerWish::Draining) => Ok(ServerWish::Draining),
        Ok(v1::ServerWish::Maintenance) => Ok(ServerWish::Maintenance),
        Ok(v1::ServerWish::Decommissioned) => Ok(ServerWish::Decommissioned),
        Ok(v1::ServerWish::Unspecified) | Err(_) => {
            Err(fault(ErrorCode::InvalidArgument, format!("wish {number} is not one of a chunkserver")))
        }
    }
}

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
    async fn status(&self, request: Request<v1::StatusRequest>) -> Reply<v1::StatusReply> {
        answer(span("status", &request), self.service.status()).await
    }

    async fn repairs(&self, request: Request<v1::RepairsRequest>) -> Reply<v1::RepairsReply> {
        answer(span("repairs", &request), self.service.repairs(request.into_inner())).await
    }

    async fn explain_chunk(&self, request: Request<v1::ExplainChunkRequest>) -> Reply<v1::ExplainReply> {
        let span = span("explain_chunk", &request);
        answer(span, self.service.explain_chunk(ChunkId(request.into_inner().chunk))).await
    }

    async fn explain_server(&self, request: Request<v1::ExplainServerRequest>) -> Reply<v1::ExplainReply> {
        answer(span("explain_server", &request), async {
            self.service.explain_server(convert::server(&request.into_inner().server, "server")?).await
        })
        .await
    }

    async fn explain_placement(&self, request: Request<v1::ExplainPlacementRequest>) -> Reply<v1::ExplainReply> {
        let span = span("explain_placement", &request);
        answer(span, self.service.explain_placement(request.into_inner().path)).await
    }

    async fn set_server(&self, request: Request<v1::SetServerRequest>) -> Reply<v1::SetServerReply> {
        let service = self.service.clone();
        carry_through(span("set_server", &request), async move {
            let request = request.into_inner();
            let (server, wish) = (convert::server(&request.server, "server")?, wish(request.wish)?);
            let progress = service.set_server(server, wish, request.for_ms).await?;
            Ok(v1::SetServerReply { progress: Some(progress) })
        })
        .await
    }

    async fn server_progress(&self, request: Request<v1::ServerProgressRequest>) -> Reply<v1::ServerProgressReply> {
        answer(span("server_progress", &request), async {
            self.service.server_progress(convert::server(&request.into_inner().server, "server")?).await
        })
        .await
    }

    async fn masters(&self, request: Request<v1::MastersRequest>) -> Reply<v1::MastersReply> {
        let span = span("masters", &request);
        answer(span, async {
            let brief = request.into_inner().brief;
            Ok(if brief { self.service.masters_known() } else { self.service.masters().await })
        })
        .await
    }

    async fn add_master(&self, request: Request<v1::AddMasterRequest>) -> Reply<v1::MastersReply> {
        let service = self.service.clone();
        let span = span("add_master", &request);
        carry_through(span, async move { service.add_master(request.into_inner().address).await }).await
    }

    async fn promote_masters(&self, request: Request<v1::PromoteMastersRequest>) -> Reply<v1::MastersReply> {
        let service = self.service.clone();
        let span = span("promote_masters", &request);
        carry_through(span, async move { service.promote_masters(request.into_inner().masters).await }).await
    }

    async fn remove_master(&self, request: Request<v1::RemoveMasterRequest>) -> Reply<v1::MastersReply> {
        let service = self.service.clone();
        let span = span("remove_master", &request);
        carry_through(span, async move { service.remove_master(NodeId(request.into_inner().master)).await }).await
    }

    async fn transfer_leader(&self, request: Request<v1::TransferLeaderRequest>) -> Reply<v1::MastersReply> {
        let service = self.service.clone();
        let span = span("transfer_leader", &request);
        let to = NodeId(request.into_inner().to);
        carry_through(span, async move { service.transfer_leader(to).await }).await
    }

    async fn upgrade_masters(&self, request: Request<v1::UpgradeMastersRequest>) -> Reply<v1::MastersReply> {
        let service = self.service.clone();
        let span = span("upgrade_masters", &request);
        let level = Some(request.into_inner().level).filter(|level| *level > 0);
        carry_through(span, async move { service.upgrade_masters(level).await }).await
    }

    async fn compare_masters(&self, request: Request<v1::CompareMastersRequest>) -> Reply<v1::CompareMastersReply> {
        answer(span("compare_masters", &request), async {
            self.service.compare_masters().map(|comparisons| v1::CompareMastersReply { comparisons })
        })
        .await
    }

    async fn release_brake(&self, request: Request<v1::ReleaseBrakeRequest>) -> Reply<v1::ReleaseBrakeReply> {
        answer(span("release_brake", &request), async { self.service.release_brake() }).await
    }

    async fn rebalance(&self, request: Request<v1::RebalanceRequest>) -> Reply<v1::RebalanceReply> {
        let service = self.service.clone();
        carry_through(span("rebalance", &request), async move { service.rebalance(request.into_inner()).await }).await
    }

    type BackupMetadataStream = Pin<Box<dyn Stream<Item = Result<v1::BackupPiece, Status>> + Send>>;

    async fn backup_metadata(&self, request: Request<v1::BackupMetadataRequest>) -> Reply<Self::BackupMetadataStream> {
        let span = span("backup_metadata", &request);
        answer(span.clone(), async {
            let pieces = self.service.backup(span).await?;
            let piece =
                |piece: Result<_, WireError>| piece.map(|bytes| v1::BackupPiece { bytes }).map_err(Status::from);
            let pieces: Self::BackupMetadataStream = Box::pin(pieces.map(piece));
            Ok(pieces)
        })
        .await
    }

    async fn verify_metadata(&self, request: Request<v1::VerifyMetadataRequest>) -> Reply<v1::VerifyMetadataReply> {
        let span = span("verify_metadata", &request);
        answer(span, async { self.service.verify_metadata(&request.into_inner().token).await }).await
    }

    async fn export_chunks(&self, request: Request<v1::ExportChunksRequest>) -> Reply<v1::ExportChunksReply> {
        answer(span("export_chunks", &request), async {
            self.service.export_chunks(ChunkId(request.into_inner().after)).await
        })
        .await
    }

    async fn release_hold(&self, request: Request<v1::ReleaseHoldRequest>) -> Reply<v1::ReleaseHoldReply> {
        let service = self.service.clone();
        carry_through(span("release_hold", &request), async move {
            let was_held = service.release_hold(request.into_inner().force).await?;
            Ok(v1::ReleaseHoldReply { was_held })
        })
        .await
    }

    async fn get_settings(&self, request: Request<v1::GetSettingsRequest>) -> Reply<v1::SettingsReply> {
        answer(span("get_settings", &request), self.service.settings()).await
    }

    async fn set_settings(&self, request: Request<v1::SetSettingsRequest>) -> Reply<v1::SettingsReply> {
        let span = span("set_settings", &request);
        answer(span, self.service.set_settings(request.into_inner().settings)).await
    }
}
