//! The stream of changes, from the table of events.
//!
//! Whoever watches reads the table at its own pace and is woken when there is more; nothing is queued for it but a page or
//! two. What is in the table is committed, so a leader that is deposed tells nothing wrong; it ends its streams so that who
//! watches goes to one that tells more.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::Stream;
use quarry_env::{Instant, clock::timeout};
use quarry_master_core::query::{self, EventsPage, WatchFilter, WatchFrom};
use quarry_types::{ErrorCode, limits::WATCH_PROGRESS};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, Span};

use super::{Service, check};
use crate::{
    error::{Fault, fault},
    shared::{Leading, Shared},
};

/// Watchers of one master at once.
pub const WATCHERS_MAX: usize = 256;
/// Rows gone through for one page.
const PAGE_ROWS: usize = 512;
/// A page ends with the event that fills it up to here.
const PAGE_BYTES: usize = 256 << 10;
/// Pages made ahead of a reader.
const PAGES_AHEAD: usize = 2;
/// After a change others soon follow: they are gathered for so long, so that many watchers do not read the table for each.
const GATHER: Duration = Duration::from_millis(10);
/// One who takes nothing for so long keeps the place of others. A client that still is there goes on from where it was.
const TAKE_DEADLINE: Duration = Duration::from_secs(60);

impl Service {
    /// What changes from `from` on, in order. Begins with everything that was acknowledged before this call. A page comes
    /// at least every [`WATCH_PROGRESS`].
    pub async fn watch(
        &self,
        from: WatchFrom,
        filter: WatchFilter,
        span: Span,
    ) -> Result<impl Stream<Item = Result<EventsPage, Fault>> + Send + 'static, Fault> {
        check::path(&filter.path)?;
        let leading = self.shared.leading()?;
        let place = Arc::clone(&self.shared.watchers).try_acquire_owned().map_err(|_| {
            let why =
                format!("this master has {WATCHERS_MAX} watchers, and takes no more; end one, or try again later");
            fault(ErrorCode::Busy, why)
        })?;
        let first_filter = filter.clone();
        // The first page is made here, so that a revision that is gone fails the call and not the stream.
        let first =
            self.shared.read(move |tables| query::events(tables, from, &first_filter, PAGE_ROWS, PAGE_BYTES)).await?;
        let (pages, stream) = mpsc::channel(PAGES_AHEAD);
        let changes = self.shared.group.events();
        let sent = self.shared.world.clock.now();
        let watcher = Watcher { shared: self.shared.clone(), leading, filter, changes, pages, sent, _place: place };
        tokio::spawn(watcher.run(first).instrument(span));
        Ok(ReceiverStream::new(stream))
    }
}

struct Watcher {
    shared: Arc<Shared>,
    leading: Arc<Leading>,
    filter: WatchFilter,
    /// Tells that there are events that were not there before.
    changes: Arc<Notify>,
    pages: mpsc::Sender<Result<EventsPage, Fault>>,
    /// When the last page was sent.
    sent: Instant,
    _place: OwnedSemaphorePermit,
}

/// Nobody takes the pages any more.
struct Gone;

impl Watcher {
    async fn run(mut self, first: EventsPage) {
        let error = match self.watch(first).await {
            Ok(Gone) => return,
            Err(error) => error,
        };
        tracing::debug!(%error, "a watcher has to begin anew");
        // One that has gone needs no error, and one that takes nothing gets none.
        let _gone = timeout(&*self.shared.world.clock, TAKE_DEADLINE, self.pages.send(Err(error))).await;
    }

    async fn watch(&mut self, first: EventsPage) -> Result<Gone, Fault> {
        let mut reached = first.reached;
        if self.give(first).await.is_err() {
            return Ok(Gone);
        }
        loop {
            let changes = Arc::clone(&self.changes);
            let mut changed = pin!(changes.notified());
            // From here on no change is missed, also none that comes while the table is read.
            changed.as_mut().enable();
            let page = self.page(WatchFrom::After(reached)).await?;
            let more = page.more;
            reached = page.reached;
            let due = self.until_due().is_zero();
            if (due || !page.events.is_empty()) && self.give(page).await.is_err() {
                return Ok(Gone);
            }
            if self.leading.ended.is_cancelled() {
                return Err(self.not_here());
            }
            if more {
                continue;
            }
            let clock = &*self.shared.world.clock;
            tokio::select! {
                biased;
                () = self.leading.ended.cancelled() => return Err(self.not_here()),
                () = self.pages.closed() => return Ok(Gone),
                () = changed => clock.sleep(GATHER).await,
                () = clock.sleep(self.until_due()) => {}
            }
        }
    }

    async fn page(&self, from: WatchFrom) -> Result<EventsPage, Fault> {
        let filter = self.filter.clone();
        self.shared.peek(move |tables| query::events(tables, from, &filter, PAGE_ROWS, PAGE_BYTES)).await
    }

    async fn give(&mut self, page: EventsPage) -> Result<(), Gone> {
        let clock = &*self.shared.world.clock;
        let given = timeout(clock, TAKE_DEADLINE, self.pages.send(Ok(page))).await;
        self.sent = clock.now();
        match given {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// How long it is until a page is due though nothing changes.
    fn until_due(&self) -> Duration {
        WATCH_PROGRESS.saturating_sub(self.shared.world.clock.now().since(self.sent))
    }

    fn not_here(&self) -> Fault {
        let again = || fault(ErrorCode::Unavailable, "this master has begun to lead anew; try again");
        self.shared.leading().err().unwrap_or_else(again)
    }
}
