use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use quarry_master_core::{
    command::{Abort, Complete, Create, Mkdir, Mutation, OpenAppend, Remove, Rename, SetReplicas, Undelete},
    query::TrashView,
    reply::Writer,
};
use quarry_proto::{WireError, convert, v1, v1::namespace_server::Namespace};
use quarry_types::{ChunkId, Crc32, InodeId, LeaseId, ServerId, SessionId};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    answer, carry_through,
    decode::{chunk_ref, create_mode, file, op, reading},
    span, watch,
};
use crate::{
    reading::{Age, Reading},
    service::{AddChunkCall, CompleteCall, ListPage, LocateCall, SealChunkCall, Service, grpc_deadline},
};

/// What clients ask of the namespace.
#[derive(Clone)]
pub struct NamespaceRpc {
    service: Service,
}

impl NamespaceRpc {
    /// Over a service.
    pub fn new(service: Service) -> Self {
        NamespaceRpc { service }
    }

    fn reading(&self, metadata: &MetadataMap, stale_ok: Option<v1::StaleOk>) -> Reading {
        reading(self.service.world(), metadata, stale_ok)
    }

    fn writer(&self, writer: Writer) -> v1::WriterReply {
        v1::WriterReply {
            inode: writer.inode.0,
            lease: writer.lease.0,
            replicas: writer.replicas,
            length: writer.length,
            crc: writer.crc.0,
            lease_ms: millis(self.service.lease()),
            durability: self.service.durability().into(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn page((page, age): (ListPage, Option<Age>)) -> v1::ListPage {
    let entries = page.entries.into_iter().map(file).collect();
    v1::ListPage { entries, token: page.token.into(), staleness: age.map(Into::into) }
}

fn trash_page(entries: Vec<TrashView>) -> v1::TrashPage {
    let entry = |entry: TrashView| v1::TrashEntry {
        file: Some(file(entry.file)),
        left_ms: entry.left_ms,
        removed_ms: entry.removed_ms,
    };
    v1::TrashPage { entries: entries.into_iter().map(entry).collect() }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Namespace for NamespaceRpc {
    async fn open_session(&self, request: Request<v1::OpenSessionRequest>) -> Reply<v1::OpenSessionReply> {
        let span = span("open_session", &request);
        answer(span, async {
            let session = self.service.open_session(request.into_inner().nonce.to_vec()).await?;
            Ok(v1::OpenSessionReply {
                session: session.0,
                keep_alive_ms: millis(self.service.keep_alive_interval()),
                cluster: self.service.cluster().to_bytes().into(),
            })
        })
        .await
    }

    async fn keep_alive(&self, request: Request<v1::KeepAliveRequest>) -> Reply<v1::KeepAliveReply> {
        let span = span("keep_alive", &request);
        answer(span, async {
            let request = request.into_inner();
            let leases = request.leases.into_iter().map(LeaseId).collect();
            let lost = self.service.keep_alive(SessionId(request.session), leases).await?;
            Ok(v1::KeepAliveReply { lost: lost.into_iter().map(|lease| lease.0).collect() })
        })
        .await
    }

    async fn close_session(&self, request: Request<v1::CloseSessionRequest>) -> Reply<v1::CloseSessionReply> {
        let span = span("close_session", &request);
        answer(span, async {
            self.service.close_session(SessionId(request.into_inner().session)).await?;
            Ok(v1::CloseSessionReply {})
        })
        .await
    }

    async fn create(&self, request: Request<v1::CreateRequest>) -> Reply<v1::WriterReply> {
        let span = span("create", &request);
        answer(span, async {
            let request = request.into_inner();
            let create = Create {
                path: request.path,
                mode: create_mode(request.mode)?,
                expected_inode: InodeId(request.expected_inode),
                expected_version: request.expected_version,
                replicas: request.replicas,
                parents: request.parents,
            };
            let writer = self.service.open_writer(op(request.op)?, Mutation::Create(create)).await?;
            Ok(self.writer(writer))
        })
        .await
    }

    async fn open_append(&self, request: Request<v1::OpenAppendRequest>) -> Reply<v1::WriterReply> {
        let span = span("open_append", &request);
        answer(span, async {
            let request = request.into_inner();
            let append = OpenAppend { path: request.path };
            let writer = self.service.open_writer(op(request.op)?, Mutation::OpenAppend(append)).await?;
            Ok(self.writer(writer))
        })
        .await
    }

    async fn add_chunk(&self, request: Request<v1::AddChunkRequest>) -> Reply<v1::AddChunkReply> {
        let span = span("add_chunk", &request);
        let service = self.service.clone();
        carry_through(span, async move {
            let request = request.into_inner();
            let avoid = request.avoid.iter().map(|server| convert::server(server, "avoid"));
            let call = AddChunkCall {
                op: op(request.op)?,
                inode: InodeId(request.inode),
                lease: LeaseId(request.lease),
                offset: request.offset,
                limit: request.limit_bytes,
                seals: request.seals,
                avoid: avoid.collect::<Result<Vec<ServerId>, WireError>>()?,
            };
            service.add_chunk(call).await
        })
        .await
    }

    async fn seal_chunk(&self, request: Request<v1::SealChunkRequest>) -> Reply<v1::SealChunkReply> {
        let span = span("seal_chunk", &request);
        let deadline = grpc_deadline(request.metadata());
        let service = self.service.clone();
        carry_through(span, async move {
            let request = request.into_inner();
            let call = SealChunkCall {
                op: op(request.op)?,
                inode: InodeId(request.inode),
                lease: LeaseId(request.lease),
                chunk: ChunkId(request.chunk),
                deadline,
                durable: request.durable,
            };
            let sealed = service.seal_chunk(call).await?;
            Ok(v1::SealChunkReply { length: sealed.length, crc: sealed.crc.0, replicas: sealed.replicas })
        })
        .await
    }

    async fn complete(&self, request: Request<v1::CompleteRequest>) -> Reply<v1::CompleteReply> {
        let span = span("complete", &request);
        let deadline = grpc_deadline(request.metadata());
        let service = self.service.clone();
        carry_through(span, async move {
            let request = request.into_inner();
            let complete = Complete {
                inode: InodeId(request.inode),
                lease: LeaseId(request.lease),
                length: request.length,
                crc: Crc32(request.crc),
                chunks: request.chunks.into_iter().map(chunk_ref).collect(),
                seals: Vec::new(),
            };
            let call = CompleteCall { op: op(request.op)?, complete, seals: request.seals, deadline };
            let done = service.complete(call).await?;
            Ok(v1::CompleteReply {
                file: Some(file(done.file)),
                fewest_replicas: done.fewest_replicas,
                wanted: done.wanted,
            })
        })
        .await
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Reply<v1::AbortReply> {
        let span = span("abort", &request);
        let deadline = grpc_deadline(request.metadata());
        answer(span, async {
            let request = request.into_inner();
            let abort = Abort { inode: InodeId(request.inode), lease: LeaseId(request.lease) };
            self.service.abort(op(request.op)?, abort, deadline).await?;
            Ok(v1::AbortReply {})
        })
        .await
    }

    async fn mkdir(&self, request: Request<v1::MkdirRequest>) -> Reply<v1::MkdirReply> {
        let span = span("mkdir", &request);
        answer(span, async {
            let request = request.into_inner();
            let mkdir = Mkdir { path: request.path, parents: request.parents };
            let directory = self.service.change_name(op(request.op)?, Mutation::Mkdir(mkdir)).await?;
            Ok(v1::MkdirReply { directory: directory.map(file) })
        })
        .await
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Reply<v1::RenameReply> {
        let span = span("rename", &request);
        answer(span, async {
            let request = request.into_inner();
            let rename = Rename { from: request.from, to: request.to, replace: request.replace };
            let moved = self.service.change_name(op(request.op)?, Mutation::Rename(rename)).await?;
            Ok(v1::RenameReply { file: moved.map(file) })
        })
        .await
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Reply<v1::RemoveReply> {
        let span = span("remove", &request);
        answer(span, async {
            let request = request.into_inner();
            let remove = Remove { path: request.path, recursive: request.recursive, now: request.now };
            self.service.change_name(op(request.op)?, Mutation::Remove(remove)).await?;
            Ok(v1::RemoveReply {})
        })
        .await
    }

    async fn set_replicas(&self, request: Request<v1::SetReplicasRequest>) -> Reply<v1::SetReplicasReply> {
        let span = span("set_replicas", &request);
        answer(span, async {
            let request = request.into_inner();
            let set = SetReplicas { path: request.path, replicas: request.replicas };
            let changed = self.service.change_name(op(request.op)?, Mutation::SetReplicas(set)).await?;
            Ok(v1::SetReplicasReply { file: changed.map(file) })
        })
        .await
    }

    async fn undelete(&self, request: Request<v1::UndeleteRequest>) -> Reply<v1::UndeleteReply> {
        let span = span("undelete", &request);
        answer(span, async {
            let request = request.into_inner();
            let undelete = Undelete { path: request.path, inode: InodeId(request.inode), to: request.to };
            let back = self.service.change_name(op(request.op)?, Mutation::Undelete(undelete)).await?;
            Ok(v1::UndeleteReply { file: back.map(file) })
        })
        .await
    }

    type ListTrashStream = Pin<Box<dyn Stream<Item = Result<v1::TrashPage, Status>> + Send>>;

    async fn list_trash(&self, request: Request<v1::ListTrashRequest>) -> Reply<Self::ListTrashStream> {
        let span = span("list_trash", &request);
        answer(span.clone(), async {
            let pages = self.service.list_trash(request.into_inner().path, span).await?;
            let pages: Self::ListTrashStream = Box::pin(pages.map(|found| found.map(trash_page).map_err(Status::from)));
            Ok(pages)
        })
        .await
    }

    async fn empty_trash(&self, request: Request<v1::EmptyTrashRequest>) -> Reply<v1::EmptyTrashReply> {
        let span = span("empty_trash", &request);
        answer(span, async {
            let request = request.into_inner();
            let (emptied, token) = self.service.empty_trash(request.path, request.token.to_vec()).await?;
            Ok(v1::EmptyTrashReply { emptied, token: token.into() })
        })
        .await
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Reply<v1::StatReply> {
        let span = span("stat", &request);
        answer(span, async {
            let (metadata, _, request) = request.into_parts();
            let reading = self.reading(&metadata, request.stale_ok);
            let (found, age) = self.service.stat(request.path, &reading).await?;
            Ok(v1::StatReply { file: Some(file(found)), staleness: age.map(Into::into) })
        })
        .await
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<v1::ListPage, Status>> + Send>>;

    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<Self::ListStream> {
        let span = span("list", &request);
        answer(span.clone(), async {
            let (metadata, _, request) = request.into_parts();
            let reading = self.reading(&metadata, request.stale_ok);
            let token = request.token.to_vec();
            let pages = self.service.list(request.path, token, request.limit, reading, span).await?;
            let pages: Self::ListStream = Box::pin(pages.map(|found| found.map(page).map_err(Status::from)));
            Ok(pages)
        })
        .await
    }

    async fn locate(&self, request: Request<v1::LocateRequest>) -> Reply<v1::LocateReply> {
        let span = span("locate", &request);
        answer(span, async {
            let (metadata, _, request) = request.into_parts();
            let reading = self.reading(&metadata, request.stale_ok);
            let call = LocateCall {
                inode: InodeId(request.inode),
                version: request.version,
                offset: request.offset,
                limit: request.limit,
            };
            self.service.locate(call, &reading).await
        })
        .await
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Reply<v1::UsageReply> {
        let span = span("usage", &request);
        let (metadata, _, request) = request.into_parts();
        let reading = self.reading(&metadata, request.stale_ok);
        answer(span, self.service.usage(request.path, &reading)).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPage, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let span = span("watch", &request);
        answer(span.clone(), async {
            let (from, filter) = watch::call(request.into_inner())?;
            let pages = self.service.watch(from, filter, span).await?;
            let pages: Self::WatchStream = Box::pin(pages.map(|page| page.map(watch::page).map_err(Status::from)));
            Ok(pages)
        })
        .await
    }

    async fn report_replica(&self, request: Request<v1::ReportReplicaRequest>) -> Reply<v1::ReportReplicaReply> {
        let span = span("report_replica", &request);
        answer(span, async {
            let request = request.into_inner();
            let server = convert::server(&request.server, "server")?;
            self.service.report_replica(ChunkId(request.chunk), server, request.code).await?;
            Ok(v1::ReportReplicaReply {})
        })
        .await
    }
}
