//! The stream of changes, from whichever master leads.

mod change;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

pub use change::{Change, ChangeKind, FileChange, MoveChange, PlaceChange};
use futures::{Stream, stream::BoxStream};
use quarry_env::clock::timeout;
use quarry_proto::{WireError, convert, v1};
use quarry_types::{Advice, ErrorCode, Revision, limits::WATCH_SILENCE};
use tonic::Streaming;

use crate::{Client, ClientError, client::Shared, namespace::check_path, retry::Backoff, session::namespace};

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what changes after the call: everything that was acknowledged before it can be looked up.
    #[default]
    Now,
    /// With the oldest change that the masters keep.
    Oldest,
    /// Behind a revision, as [`Event::revision`] or [`Watch::revision`] gave it.
    After(Revision),
}

/// What to watch, see [`Client::watch_with`].
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Where to begin.
    pub from: WatchFrom,
    /// Kinds of changes; none: all.
    pub kinds: Vec<ChangeKind>,
    /// End when everything was handed out that had changed until the call, instead of waiting for more.
    pub until_now: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Behind this change: to go on after it.
    pub revision: Revision,
    /// When it was made, in milliseconds since the Unix epoch by the clock of the master that led. For display: clocks differ.
    pub wall_ms: u64,
    /// What changed.
    pub change: Change,
}

/// A stream of changes, see [`Client::watch`].
///
/// Dropping what polls it (a `next()` in a `select!`) loses nothing and repeats nothing. It ends after its first error.
pub struct Watch {
    events: BoxStream<'static, Result<Event, ClientError>>,
    handed: Arc<Mutex<Revision>>,
}

impl Client {
    /// What changes from `from` on, in the order in which it was committed, each change once, across restarts and changes of
    /// the masters: of the namespace what happens at `path`, below it, or above it (a directory above that is moved or
    /// removed takes `path` with it); and of the cluster chunkservers, settings and leaders. `path` need not be there.
    ///
    /// To go on after a restart of the program, keep the revision of the last event that was dealt with, as text, and begin
    /// [`WatchFrom::After`] it.
    ///
    /// ```no_run
    /// use futures::StreamExt as _;
    /// use quarry_client::{Client, ClientError, ErrorCode, WatchFrom};
    ///
    /// # async fn example(client: &Client, kept: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
    /// let from = kept.map_or(Ok(WatchFrom::Now), |text| text.parse().map(WatchFrom::After))?;
    /// let mut changes = match client.watch("/data", from).await {
    ///     // Away for too long, or the cluster was restored: look at everything once, then go on from now.
    ///     Err(gone) if matches!(gone.code(), ErrorCode::Compacted | ErrorCode::OtherLineage) => {
    ///         let changes = client.watch("/data", WatchFrom::Now).await?;
    ///         // … list /data here …
    ///         changes
    ///     }
    ///     begun => begun?,
    /// };
    /// while let Some(event) = changes.next().await {
    ///     let event = event?;
    ///     println!("{} {:?}", event.revision, event.change);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorCode::Compacted`] when changes behind the revision are not kept any more, [`ErrorCode::OtherLineage`] when it is of
    /// another cluster or of its history before a restore, [`ErrorCode::InvalidArgument`], [`ErrorCode::Busy`] when the master has
    /// too many watchers; and when no master answers. The stream fails with the same ones: it goes on by itself for as long as
    /// a master is found within the client's deadline. A watch that is not read for minutes may find its place compacted.
    pub async fn watch(&self, path: &str, from: WatchFrom) -> Result<Watch, ClientError> {
        self.watch_with(path, WatchOptions { from, ..WatchOptions::default() }).await
    }

    /// As [`Client::watch`], with more to choose.
    ///
    /// # Errors
    /// As [`Client::watch`].
    pub async fn watch_with(&self, path: &str, options: WatchOptions) -> Result<Watch, ClientError> {
        let doing = format!("watching {path}");
        check_path(&doing, path)?;
        let request = v1::WatchRequest {
            path: path.into(),
            kinds: options.kinds.iter().map(|kind| v1::ChangeKind::from(*kind).into()).collect(),
            oldest: options.from == WatchFrom::Oldest,
            after: match options.from {
                WatchFrom::After(revision) => Some(revision.into()),
                WatchFrom::Now | WatchFrom::Oldest => None,
            },
        };
        let shared = Arc::clone(&self.shared);
        let (first, pages) = begin(&shared, &doing, &request).await?;
        let begin = match options.from {
            WatchFrom::After(revision) => revision,
            WatchFrom::Now | WatchFrom::Oldest => first.begin(),
        };
        let handed = Arc::new(Mutex::new(begin));
        let mut watcher = Watcher {
            shared,
            doing,
            request,
            pages: Some(pages),
            received: begin,
            ready: VecDeque::new(),
            handed: Arc::clone(&handed),
            until_now: options.until_now,
            at_end: false,
        };
        watcher.take(first);
        let events = futures::stream::try_unfold(watcher, |mut watcher| async move {
            Ok(watcher.next().await?.map(|event| (event, watcher)))
        });
        Ok(Watch { events: Box::pin(events), handed })
    }
}

impl Watch {
    /// Up to where everything was handed out. It moves on also while nothing happens at the watched path, as the stream is
    /// polled: kept now and then, it keeps a rarely told program from finding its place compacted.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *lock(&self.handed)
    }
}

impl Stream for Watch {
    type Item = Result<Event, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

fn lock(handed: &Mutex<Revision>) -> std::sync::MutexGuard<'_, Revision> {
    // A revision is written whole.
    handed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page, checked.
struct Page {
    events: Vec<Event>,
    reached: Revision,
    at_end: bool,
}

impl Page {
    /// Where a watch begins whose first page this is.
    fn begin(&self) -> Revision {
        // Right before the first event: positions count from 1.
        let before = |first: &Event| Revision { position: first.revision.position.saturating_sub(1), ..first.revision };
        self.events.first().map_or(self.reached, before)
    }
}

/// Why a stream of pages has ended, and whether it is worth to go on from where it was.
struct Ended(ClientError, bool);

async fn open(
    shared: &Shared,
    doing: &str,
    request: v1::WatchRequest,
) -> Result<Streaming<v1::WatchPage>, ClientError> {
    shared
        .ask(doing, request, |channel, request| Box::pin(async move { namespace(channel).watch(request).await }))
        .await
}

/// The first page, which comes at once and tells where the watch begins, and those behind it.
async fn begin(
    shared: &Shared,
    doing: &str,
    request: &v1::WatchRequest,
) -> Result<(Page, Streaming<v1::WatchPage>), ClientError> {
    let mut backoff = Backoff::default();
    let since = shared.world.clock.now();
    loop {
        let mut pages = open(shared, doing, request.clone()).await?;
        match next(shared, doing, &mut pages).await {
            Ok(page) => return Ok((page, pages)),
            Err(Ended(_, true)) if shared.world.clock.now().since(since) < shared.config.deadline => {
                shared.world.clock.sleep(backoff.pause(shared.world.random.next_u64())).await;
            }
            Err(Ended(error, _)) => return Err(error),
        }
    }
}

async fn next(shared: &Shared, doing: &str, pages: &mut Streaming<v1::WatchPage>) -> Result<Page, Ended> {
    let broken = |code, why: String| Ended(ClientError::new(code, doing, why), true);
    match timeout(&*shared.world.clock, WATCH_SILENCE, pages.message()).await {
        Err(late) => Err(broken(ErrorCode::DeadlineExceeded, late.to_string())),
        Ok(Ok(None)) => Err(broken(ErrorCode::Unavailable, "the master ended the stream".into())),
        Ok(Err(status)) => {
            let error = WireError::from(status);
            let again = !matches!(error.advice(), Advice::GiveUp);
            Err(Ended(ClientError::from_wire(doing, error), again))
        }
        Ok(Ok(Some(page))) => read(page).map_err(|error| Ended(ClientError::from_wire(doing, error), false)),
    }
}

fn read(page: v1::WatchPage) -> Result<Page, WireError> {
    let reached: Revision = convert::required(page.reached, "reached")?.try_into()?;
    let event = |event: v1::Event| {
        let revision = Revision { index: event.index, position: event.position, ..reached };
        Ok(Event { revision, wall_ms: event.wall_ms, change: event.change.try_into()? })
    };
    let events = page.events.into_iter().map(event).collect::<Result<_, WireError>>()?;
    Ok(Page { events, reached, at_end: page.at_end })
}

struct Watcher {
    shared: Arc<Shared>,
    doing: String,
    request: v1::WatchRequest,
    pages: Option<Streaming<v1::WatchPage>>,
    /// All up to here was received.
    received: Revision,
    ready: VecDeque<Event>,
    handed: Arc<Mutex<Revision>>,
    until_now: bool,
    /// The last page was the last of what there was.
    at_end: bool,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        let mut backoff = Backoff::default();
        let since = self.shared.world.clock.now();
        loop {
            if let Some(event) = self.ready.pop_front() {
                *lock(&self.handed) = event.revision;
                return Ok(Some(event));
            }
            // All that was received is handed out.
            *lock(&self.handed) = self.received;
            if self.until_now && self.at_end {
                return Ok(None);
            }
            let ended = match self.receive().await {
                Ok(page) => {
                    self.take(page);
                    continue;
                }
                Err(ended) => ended,
            };
            self.pages = None;
            let Ended(error, again) = ended;
            tracing::debug!(doing = self.doing, %error, again, "the stream of changes broke off");
            let clock = &*self.shared.world.clock;
            if !again || clock.now().since(since) >= self.shared.config.deadline {
                return Err(error);
            }
            clock.sleep(backoff.pause(self.shared.world.random.next_u64())).await;
        }
    }

    /// The next page, from the master that leads now.
    async fn receive(&mut self) -> Result<Page, Ended> {
        let pages = match &mut self.pages {
            Some(pages) => pages,
            None => {
                let request =
                    v1::WatchRequest { after: Some(self.received.into()), oldest: false, ..self.request.clone() };
                // It has tried long enough itself.
                let opened = open(&self.shared, &self.doing, request).await.map_err(|error| Ended(error, false))?;
                self.pages.insert(opened)
            }
        };
        next(&self.shared, &self.doing, pages).await
    }

    fn take(&mut self, page: Page) {
        self.at_end = page.at_end;
        self.received = page.reached;
        self.ready.extend(page.events);
    }
}
