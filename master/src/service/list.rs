use std::sync::Arc;

use futures::Stream;
use quarry_master_core::query;
pub use quarry_master_core::query::ListPage;
use quarry_types::limits::LIST_PAGE;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, Span};

use super::{Service, check};
use crate::{
    error::Fault,
    reading::{Age, Reading},
    shared::Shared,
};

/// A page, and how old it may be.
pub type Aged = (ListPage, Option<Age>);

/// Pages made ahead of a reader.
const PAGES_AHEAD: usize = 2;

impl Service {
    /// Pages of a directory in name order, from behind `token`, at most `limit` entries in all (0: no limit). Each page
    /// is what the directory was when the page was made.
    pub async fn list(
        &self,
        path: String,
        token: Vec<u8>,
        limit: u64,
        reading: Reading,
        span: Span,
    ) -> Result<impl Stream<Item = Result<Aged, Fault>> + Send + 'static, Fault> {
        check::path(&path)?;
        let walk = Walk { shared: self.shared.clone(), path, left: if limit == 0 { u64::MAX } else { limit }, reading };
        // The first page is made here, so that a wrong path fails the call and not the stream.
        let (walk, first) = walk.page(token).await?;
        let (pages, stream) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(walk.run(first, pages).instrument(span));
        Ok(ReceiverStream::new(stream))
    }
}

struct Walk {
    shared: Arc<Shared>,
    path: String,
    left: u64,
    /// Of each page.
    reading: Reading,
}

impl Walk {
    async fn page(mut self, token: Vec<u8>) -> Result<(Walk, Aged), Fault> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(LIST_PAGE);
        let path = self.path.clone();
        let page = self.shared.read_as(&self.reading, move |tables| query::list(tables, &path, &token, limit)).await?;
        self.left = self.left.saturating_sub(page.0.entries.len() as u64);
        // The next one is asked for only now.
        self.reading.came = self.shared.world.clock.boot();
        Ok((self, page))
    }

    /// Sends pages until the last one, until as many entries as asked for, or until nobody reads.
    async fn run(self, first: Aged, pages: mpsc::Sender<Result<Aged, Fault>>) {
        let (mut walk, mut page) = (self, first);
        loop {
            let token = page.0.token.clone();
            if pages.send(Ok(page)).await.is_err() || token.is_empty() || walk.left == 0 {
                return;
            }
            match walk.page(token).await {
                Ok(next) => (walk, page) = next,
                Err(error) => {
                    // A reader that has gone needs no error.
                    let _gone = pages.send(Err(error)).await;
                    return;
                }
            }
        }
    }
}
