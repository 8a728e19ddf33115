use std::sync::Arc;

use futures::Stream;
use quarry_master_core::{
    command::{EmptyTrash, Kind, Removal},
    limits::EMPTY_TRASH_MAX,
    query::{self, TrashPage, TrashView},
    reply::Reply,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, Span};

use super::{Service, check};
use crate::{
    error::Fault,
    shared::{Shared, unexpected},
};

/// Rows of the trash gone through for one page.
const STEP: usize = EMPTY_TRASH_MAX;
/// Pages made ahead of a reader.
const PAGES_AHEAD: usize = 2;

impl Service {
    /// What lies in the trash below a directory. Each page is what it was when the page was made.
    pub async fn list_trash(
        &self,
        path: String,
        span: Span,
    ) -> Result<impl Stream<Item = Result<Vec<TrashView>, Fault>> + Send + 'static, Fault> {
        check::path(&path)?;
        self.shared.leading()?;
        // The first page is made here, so that a wrong path fails the call and not the stream.
        let first = page(&self.shared, path.clone(), Vec::new()).await?;
        let (pages, stream) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(send(self.shared.clone(), path, first, pages).instrument(span));
        Ok(ReceiverStream::new(stream))
    }

    /// Gives up a page of what lies in the trash below a directory: how much, and where to go on.
    pub async fn empty_trash(&self, path: String, token: Vec<u8>) -> Result<(u64, Vec<u8>), Fault> {
        check::path(&path)?;
        self.shared.leading()?;
        let found = page(&self.shared, path, token).await?;
        let visible =
            found.entries.into_iter().map(|entry| Removal { inode: entry.file.inode, removal: entry.removal });
        let removals: Vec<Removal> = visible.chain(found.hidden).collect();
        if removals.is_empty() {
            return Ok((0, found.token));
        }
        match self.shared.propose(Kind::EmptyTrash(EmptyTrash { removals })).await? {
            Reply::Emptied(emptied) => Ok((emptied.emptied, found.token)),
            other => Err(unexpected(&other)),
        }
    }
}

async fn page(shared: &Shared, path: String, token: Vec<u8>) -> Result<TrashPage, Fault> {
    shared.read(move |tables| query::trash(tables, &path, &token, STEP)).await
}

/// Sends pages until the last one, or until nobody reads.
async fn send(
    shared: Arc<Shared>,
    path: String,
    mut next: TrashPage,
    pages: mpsc::Sender<Result<Vec<TrashView>, Fault>>,
) {
    loop {
        if pages.send(Ok(next.entries)).await.is_err() || next.token.is_empty() {
            return;
        }
        match page(&shared, path.clone(), next.token).await {
            Ok(found) => next = found,
            Err(error) => {
                // A reader that has gone needs no error.
                let _gone = pages.send(Err(error)).await;
                return;
            }
        }
    }
}
