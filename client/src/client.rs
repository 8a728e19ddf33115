//! The client handle and everything it shares with its readers and writers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quarry_env::{World, clock::timeout};
use quarry_types::{ErrorCode, ServerId};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::{Request, transport::Channel};

use crate::{
    ClientConfig, ClientError, CreateOptions, FileReader, FileWriter,
    breaker::Breakers,
    buffers::Buffers,
    hedge::FirstByte,
    local::Local,
    masters::{Answer, Masters},
    pool::Pool,
    session::Sessions,
    stale::Lookups,
};

/// Complaints about replicas sent to the master at once; further ones are dropped, the next reader complains again.
const COMPLAINTS_MAX: usize = 4;
/// Closing waits this long for writers that were dropped.
const WRITERS_PATIENCE: Duration = Duration::from_secs(3);

/// A connection to a cluster. Cheap to clone; all clones share connections, session and limits.
///
/// Nothing is sent before the first call. When the last clone, reader and writer is gone, the session is closed in the
/// background; [`Client::close`] does so in the foreground.
///
/// The example runs against a cluster of three chunkservers, whose master is at `master`:
///
/// ```
/// use std::sync::Arc;
///
/// use quarry_client::{Client, ClientConfig, CreateOptions};
/// use quarry_env::{World, kv::NoKv};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = quarry_tests::Cluster::start(&quarry_tests::Options::default());
/// # let master = cluster.master.address.as_str();
/// let client = Client::connect(World::real(Arc::new(NoKv)), ClientConfig::new([master])).await?;
/// let mut writer = client.create("/hello", &CreateOptions::default()).await?;
/// writer.write_all(b"hello").await?;
/// let finished = writer.finish().await?;
/// assert_eq!(finished.file.length, 5);
///
/// let mut text = String::new();
/// client.open("/hello").await?.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// client.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lookups: Lookups,
}

/// What a client, its readers and its writers have in common.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) config: ClientConfig,
    pub(crate) masters: Arc<Masters>,
    pub(crate) sessions: Sessions,
    pub(crate) pool: Pool,
    /// Files of servers on this machine.
    pub(crate) local: Arc<Local>,
    pub(crate) buffers: Buffers,
    breakers: Mutex<Breakers>,
    pub(crate) first_byte: FirstByte,
    /// Complaints about replicas that are under way.
    pub(crate) complaints: Arc<Semaphore>,
    /// The tasks that write files.
    pub(crate) writers: TaskTracker,
}

impl Client {
    /// Makes a client of the cluster that the masters in `config` belong to. No connection is made yet.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] names what is wrong with `config`.
    #[allow(clippy::unused_async, reason = "finding the masters may take a connection one day")]
    pub async fn connect(world: World, mut config: ClientConfig) -> Result<Client, ClientError> {
        config.check()?;
        if config.request_id.is_empty() {
            config.request_id = uuid::Builder::from_random_bytes(world.random.next_u128().to_be_bytes())
                .into_uuid()
                .simple()
                .to_string();
        }
        let request_id = config.request_id.parse().map_err(|_| {
            ClientError::new(ErrorCode::InvalidArgument, "configuring the client", "the request id is not ASCII")
        })?;
        let masters = Arc::new(Masters::new(world.clone(), config.masters.clone(), request_id, config.deadline));
        let sessions = Sessions::new(world.clone(), Arc::clone(&masters));
        let local = Local::new(world.clone(), &config);
        let pool = Pool::new(world.clone(), &local, config.connections);
        let shared = Shared {
            first_byte: FirstByte::new(config.hedge_after),
            complaints: Arc::new(Semaphore::new(COMPLAINTS_MAX)),
            world,
            config,
            masters,
            sessions,
            pool,
            local,
            buffers: Buffers::default(),
            breakers: Mutex::default(),
            writers: TaskTracker::new(),
        };
        let shared = Arc::new(shared);
        Ok(Client { lookups: Lookups::new(&shared), shared })
    }

    /// What goes with every call into the servers' logs.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.shared.config.request_id
    }

    /// Creates a file to be written.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyExists`], [`ErrorCode::NotFound`] (a parent), [`ErrorCode::Conflict`],
    /// [`ErrorCode::LeaseHeld`] and others of the error table.
    pub async fn create(&self, path: &str, options: &CreateOptions) -> Result<FileWriter, ClientError> {
        FileWriter::create(&self.shared, path, options).await
    }

    /// Opens a closed file to write more at its end. The file stays visible and grows; its last chunk is not
    /// changed, writing starts a new one.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::LeaseHeld`] while somebody else writes it, and others.
    pub async fn append(&self, path: &str) -> Result<FileWriter, ClientError> {
        FileWriter::append(&self.shared, path).await
    }

    /// Opens a file to be read, as it is now: a file that replaces it later does not show in this reader. Of a file
    /// that is being written, what was acknowledged until now can be read.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], [`ErrorCode::IsADirectory`] and others.
    pub async fn open(&self, path: &str) -> Result<FileReader, ClientError> {
        FileReader::open(&self.lookups, path).await
    }

    /// Closes the session. Later mutations open another. Writers that were dropped give their files up first.
    ///
    /// # Errors
    /// When no master answers; the session then ends by itself after a while.
    pub async fn close(&self) -> Result<(), ClientError> {
        let writers = &self.shared.writers;
        writers.close();
        // Writers that are still in use fail as soon as their session is closed.
        let _in_use = timeout(&*self.shared.world.clock, WRITERS_PATIENCE, writers.wait()).await;
        writers.reopen();
        self.shared.sessions.close().await
    }
}

impl Shared {
    /// A call that changes nothing.
    pub(crate) async fn ask<Q, A, F>(&self, doing: &str, request: Q, send: F) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        self.masters.call(doing, request, send).await.map_err(|failed| failed.error)
    }

    /// Whether `server` has been failing lately.
    pub(crate) fn breaker_allows(&self, server: ServerId) -> bool {
        self.breakers().allows(server, self.world.clock.now())
    }

    pub(crate) fn server_succeeded(&self, server: ServerId) {
        self.breakers().succeeded(server);
    }

    pub(crate) fn server_failed(&self, server: ServerId) {
        self.breakers().failed(server, self.world.clock.now());
    }

    fn breakers(&self) -> std::sync::MutexGuard<'_, Breakers> {
        // Advice only: a half-made change does no harm.
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("masters", &self.shared.config.masters).finish_non_exhaustive()
    }
}
