//! Names: looking up, listing, moving, removing.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::Stream;
use quarry_env::clock::timeout;
use quarry_proto::{WireError, v1};
use quarry_types::{ErrorCode, limits, name};
use tonic::Streaming;

use crate::{ChunkInfo, Client, ClientError, FileInfo, ListPage, Usage, session::namespace, stale::Lookups};

/// Refuses a path that no master would take, before anything is sent.
pub(crate) fn check_path(doing: &str, path: &str) -> Result<(), ClientError> {
    name::split_path(path).map(|_| ()).map_err(|e| ClientError::new(ErrorCode::InvalidArgument, doing, e.to_string()))
}

/// The file in a reply.
pub(crate) fn file(doing: &str, reply: Option<v1::FileInfo>) -> Result<FileInfo, ClientError> {
    quarry_proto::convert::required(reply, "file")
        .and_then(FileInfo::try_from)
        .map_err(|e| ClientError::from_wire(doing, e))
}

impl Client {
    /// Looks up a file or directory.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] and others of the error table.
    pub async fn stat(&self, path: &str) -> Result<FileInfo, ClientError> {
        self.lookups.stat(path).await
    }

    /// The entries of a directory in name order, fetched as the stream is read. An entry that is made or removed
    /// meanwhile may or may not show. The stream ends after its first error.
    pub fn list(&self, path: &str) -> impl Stream<Item = Result<FileInfo, ClientError>> + Send + 'static + use<> {
        let lister =
            Lister { client: self.clone(), path: path.to_owned(), ready: VecDeque::new(), token: Some(Bytes::new()) };
        futures::stream::unfold(lister, |mut lister| async move { lister.next().await.map(|entry| (entry, lister)) })
    }

    /// One page of a listing: at most `limit` entries (0: as many as the master puts in one page) behind `token`, which
    /// is empty at first and then [`ListPage::token`] of the page before.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::NotADirectory`] and others of the error table.
    pub async fn list_page(&self, path: &str, token: Bytes, limit: usize) -> Result<ListPage, ClientError> {
        let doing = format!("listing {path}");
        check_path(&doing, path)?;
        let limit = if limit == 0 { limits::LIST_PAGE } else { limit };
        let make =
            |stale_ok| v1::ListRequest { path: path.into(), token: token.clone(), limit: limit as u64, stale_ok };
        let shared = &self.shared;
        let page = self
            .lookups
            .ask(&doing, make, |channel, request| {
                let world = shared.world.clone();
                let patience = shared.config.deadline;
                Box::pin(async move {
                    let stream = namespace(channel).list(request).await?.into_inner();
                    // Collected inside the attempt, so that a stream that breaks is asked for again.
                    let collected = timeout(&*world.clock, patience, collect(stream)).await;
                    collected.unwrap_or_else(|e| Err(tonic::Status::deadline_exceeded(e.to_string())))
                })
            })
            .await?;
        let entries = page.entries.into_iter().map(FileInfo::try_from).collect::<Result<_, _>>();
        Ok(ListPage { entries: entries.map_err(|e| ClientError::from_wire(&doing, e))?, token: page.token })
    }

    /// Makes a directory; with `parents` also those above it, and it may exist.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyExists`], [`ErrorCode::NotFound`], [`ErrorCode::NotADirectory`] and others.
    pub async fn mkdir(&self, path: &str, parents: bool) -> Result<FileInfo, ClientError> {
        let doing = format!("making directory {path}");
        check_path(&doing, path)?;
        let make = |op| v1::MkdirRequest { op: Some(op), path: path.into(), parents };
        let reply = self
            .shared
            .sessions
            .mutate(&doing, make, |channel, request| Box::pin(async move { namespace(channel).mkdir(request).await }))
            .await?;
        file(&doing, reply.directory)
    }

    /// Moves a file or directory. With `replace` it takes the place of a file at `to`.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::AlreadyExists`], [`ErrorCode::Cycle`] and others.
    pub async fn rename(&self, from: &str, to: &str, replace: bool) -> Result<FileInfo, ClientError> {
        let doing = format!("renaming {from} to {to}");
        check_path(&doing, from)?;
        check_path(&doing, to)?;
        let make = |op| v1::RenameRequest { op: Some(op), from: from.into(), to: to.into(), replace };
        let reply = self
            .shared
            .sessions
            .mutate(&doing, make, |channel, request| Box::pin(async move { namespace(channel).rename(request).await }))
            .await?;
        file(&doing, reply.file)
    }

    /// Removes a file, an empty directory, or with `recursive` a directory and all below it. It lies in the trash for a
    /// while, see [`Client::undelete`]. With `now` it does not and its space is given back at once, which cuts off those
    /// who are reading it.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::NotEmpty`] and others.
    pub async fn remove(&self, path: &str, recursive: bool, now: bool) -> Result<(), ClientError> {
        let doing = format!("removing {path}");
        check_path(&doing, path)?;
        let make = |op| v1::RemoveRequest { op: Some(op), path: path.into(), recursive, now };
        self.shared
            .sessions
            .mutate(&doing, make, |channel, request| Box::pin(async move { namespace(channel).remove(request).await }))
            .await
            .map(|_| ())
    }

    /// Changes how many replicas a file wants, 0: as many as its directory says. Copies are made or dropped in the
    /// background. Of a directory: how many new files below it want, 0: what the directory above it says.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::InvalidArgument`] above [`limits::REPLICAS_MAX`], and others.
    pub async fn set_replicas(&self, path: &str, replicas: u32) -> Result<FileInfo, ClientError> {
        let doing = format!("setting the replicas of {path}");
        check_path(&doing, path)?;
        let make = |op| v1::SetReplicasRequest { op: Some(op), path: path.into(), replicas };
        let reply = self
            .shared
            .sessions
            .mutate(&doing, make, |channel, request| {
                Box::pin(async move { namespace(channel).set_replicas(request).await })
            })
            .await?;
        file(&doing, reply.file)
    }

    /// Sums over everything below `path`.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] and others.
    pub async fn usage(&self, path: &str) -> Result<Usage, ClientError> {
        let doing = format!("summing up {path}");
        check_path(&doing, path)?;
        let make = |stale_ok| v1::UsageRequest { path: path.into(), stale_ok };
        let reply = self
            .lookups
            .ask(&doing, make, |channel, request| Box::pin(async move { namespace(channel).usage(request).await }))
            .await?;
        Ok(reply.into())
    }

    /// The chunks of a file and who has them, in file order.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when this version of the file is gone, and others.
    pub async fn chunks(&self, file: &FileInfo) -> Result<Vec<ChunkInfo>, ClientError> {
        let mut all: Vec<ChunkInfo> = Vec::new();
        let mut offset = 0;
        loop {
            let page = self.lookups.locate(file, offset, 0).await?;
            let Some(last) = page.chunks.last() else { return Ok(all) };
            // The last chunk may be open, and then its length is unknown; nothing follows it.
            let next = last.offset + last.length;
            all.extend(page.chunks);
            if !page.more || next <= offset {
                return Ok(all);
            }
            offset = next;
        }
    }
}

/// A page of chunks.
pub(crate) struct Located {
    pub(crate) chunks: Vec<ChunkInfo>,
    pub(crate) more: bool,
    pub(crate) cluster: Bytes,
}

impl Lookups {
    pub(crate) async fn stat(&self, path: &str) -> Result<FileInfo, ClientError> {
        let doing = format!("looking up {path}");
        check_path(&doing, path)?;
        let make = |stale_ok| v1::StatRequest { path: path.into(), stale_ok };
        let reply = self
            .ask(&doing, make, |channel, request| Box::pin(async move { namespace(channel).stat(request).await }))
            .await?;
        file(&doing, reply.file)
    }

    /// Chunks of exactly this version of `file`, from the one that covers `offset`; at most `limit` (0: a page).
    pub(crate) async fn locate(&self, file: &FileInfo, offset: u64, limit: u32) -> Result<Located, ClientError> {
        let doing = format!("locating the chunks of {}", file.path);
        let (inode, version) = (file.inode.0, file.version);
        let make = |stale_ok| v1::LocateRequest { inode, version, offset, limit, stale_ok };
        let reply = self
            .ask(&doing, make, |channel, request| Box::pin(async move { namespace(channel).locate(request).await }))
            .await?;
        let chunks: Result<_, WireError> = reply.chunks.into_iter().map(ChunkInfo::try_from).collect();
        let chunks = chunks.map_err(|e| ClientError::from_wire(&doing, e))?;
        Ok(Located { chunks, more: reply.more, cluster: reply.cluster })
    }
}

/// All pages of a stream as one. It is as old as the oldest of them, and shows at least what each of them shows.
async fn collect(mut stream: Streaming<v1::ListPage>) -> Result<tonic::Response<v1::ListPage>, tonic::Status> {
    let mut all = v1::ListPage::default();
    while let Some(page) = stream.message().await? {
        all.entries.extend(page.entries);
        all.token = page.token;
        if let Some(page) = page.staleness {
            let before = all.staleness.unwrap_or_default();
            let (ms, applied) = (before.ms.max(page.ms), before.applied.max(page.applied));
            all.staleness = Some(v1::Staleness { ms, applied });
        }
    }
    Ok(tonic::Response::new(all))
}

struct Lister {
    client: Client,
    path: String,
    ready: VecDeque<FileInfo>,
    /// `None` behind the last page.
    token: Option<Bytes>,
}

impl Lister {
    async fn next(&mut self) -> Option<Result<FileInfo, ClientError>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            match self.client.list_page(&self.path, self.token.take()?, 0).await {
                Ok(page) => {
                    self.token = Some(page.token).filter(|token| !token.is_empty());
                    self.ready = page.entries.into();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
