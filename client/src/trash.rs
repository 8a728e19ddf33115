//! The trash: what was removed and can be taken back.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use quarry_env::clock::timeout;
use quarry_proto::{WireError, convert, v1};
use quarry_types::ErrorCode;
use tonic::Streaming;

use crate::{
    Client, ClientError, FileInfo,
    client::Shared,
    namespace::{check_path, file},
    session::namespace,
};

/// Something that was removed and can be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashEntry {
    /// As it was removed; of a directory, with everything below it.
    pub file: FileInfo,
    /// When it was removed, in milliseconds since the Unix epoch, for display.
    pub removed_ms: u64,
    /// How long it stays, in milliseconds.
    pub left_ms: u64,
}

impl TryFrom<v1::TrashEntry> for TrashEntry {
    type Error = WireError;
    fn try_from(from: v1::TrashEntry) -> Result<Self, WireError> {
        let file = convert::required(from.file, "file")?.try_into()?;
        Ok(TrashEntry { file, removed_ms: from.removed_ms, left_ms: from.left_ms })
    }
}

impl Client {
    /// Takes back what was removed under `path`, with everything below a directory: the last removal of that name, or the
    /// one of `inode`. It gets its place again, or the one at `to`. The directory it was in must be there.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when it is not in the trash or its directory is gone, [`ErrorCode::AlreadyExists`] when the
    /// name is taken, and others.
    pub async fn undelete(
        &self,
        path: &str,
        inode: Option<quarry_types::InodeId>,
        to: Option<&str>,
    ) -> Result<FileInfo, ClientError> {
        let doing = format!("taking {path} out of the trash");
        check_path(&doing, path)?;
        to.map_or(Ok(()), |to| check_path(&doing, to))?;
        let (inode, to) = (inode.map_or(0, |inode| inode.0), to.unwrap_or_default());
        let make = |op| v1::UndeleteRequest { op: Some(op), path: path.into(), inode, to: to.into() };
        let reply = self
            .shared
            .sessions
            .mutate(&doing, make, |channel, request| {
                Box::pin(async move { namespace(channel).undelete(request).await })
            })
            .await?;
        file(&doing, reply.file)
    }

    /// What was removed from the directory at `path` and from directories below it that are still there, fetched as the
    /// stream is read. The stream ends after its first error.
    pub fn list_trash(
        &self,
        path: &str,
    ) -> impl Stream<Item = Result<TrashEntry, ClientError>> + Send + 'static + use<> {
        futures::stream::once(open(Arc::clone(&self.shared), path.to_owned())).try_flatten()
    }

    /// Gives up for good what lies in the trash below the directory at `path`, without waiting for readers; below the root
    /// also what was removed from directories that are gone. How much it was; of a directory only itself is counted.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::NotADirectory`] and others. What was given up until then stays so.
    pub async fn empty_trash(&self, path: &str) -> Result<u64, ClientError> {
        let doing = format!("emptying the trash below {path}");
        check_path(&doing, path)?;
        let (mut emptied, mut token) = (0, Bytes::new());
        loop {
            // Repeating a call is harmless, so it needs no session.
            let request = v1::EmptyTrashRequest { path: path.into(), token };
            let reply = self
                .shared
                .ask(&doing, request, |channel, request| {
                    Box::pin(async move { namespace(channel).empty_trash(request).await })
                })
                .await?;
            emptied += reply.emptied;
            if reply.token.is_empty() {
                return Ok(emptied);
            }
            token = reply.token;
        }
    }
}

async fn open(
    shared: Arc<Shared>,
    path: String,
) -> Result<impl Stream<Item = Result<TrashEntry, ClientError>> + Send + 'static, ClientError> {
    let doing = format!("listing the trash below {path}");
    check_path(&doing, &path)?;
    let request = v1::ListTrashRequest { path };
    let pages = shared
        .ask(&doing, request, |channel, request| Box::pin(async move { namespace(channel).list_trash(request).await }))
        .await?;
    let lister = Lister { shared, doing, pages, ready: VecDeque::new() };
    Ok(futures::stream::try_unfold(lister, |mut lister| async move {
        Ok(lister.next().await?.map(|entry| (entry, lister)))
    }))
}

struct Lister {
    shared: Arc<Shared>,
    doing: String,
    pages: Streaming<v1::TrashPage>,
    ready: VecDeque<v1::TrashEntry>,
}

impl Lister {
    async fn next(&mut self) -> Result<Option<TrashEntry>, ClientError> {
        let wrong = |doing: &str, error: WireError| ClientError::from_wire(doing, error);
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return entry.try_into().map(Some).map_err(|error| wrong(&self.doing, error));
            }
            let page = timeout(&*self.shared.world.clock, self.shared.config.deadline, self.pages.message()).await;
            match page.map_err(|late| ClientError::new(ErrorCode::DeadlineExceeded, &self.doing, late.to_string()))? {
                Ok(Some(page)) => self.ready = page.entries.into(),
                Ok(None) => return Ok(None),
                Err(status) => return Err(wrong(&self.doing, WireError::from(status))),
            }
        }
    }
}
