//! A running chunkserver.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use quarry_chunkserver_core::{Durability, scrub::Pace};
use quarry_client::idle::IdleConns;
use quarry_env::{World, clock::timeout, local::BoxLocalListener};
use quarry_http::Http;
use quarry_proto::WireError;
use quarry_types::{ClusterId, ClusterKey, ErrorCode, Leadership, ServerId, ids::LeadershipRefusal, planted};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::durability_name,
    control::{self, Removals},
    copy::Copies,
    data::{
        buffers::Buffers,
        give_out,
        limits::{COPY_READS_MAX, READS_MAX, SHARED_BUFFERS},
        listen,
        streams::Streams,
    },
    http,
    readers::Readers,
    scrub,
    store::{DirConfig, Store, StoreConfig, StoreError},
    traffic::Traffic,
    vitals,
};

/// On a clean stop, what is under way may go on for this long.
const FINISH_LIMIT: Duration = Duration::from_secs(5);
/// After that it is told to end, and cut off after this.
const CUT_LIMIT: Duration = Duration::from_secs(2);

/// What a chunkserver is started with.
#[derive(Clone, Debug)]
pub struct ChunkserverConfig {
    /// Data directories.
    pub dirs: Vec<DirConfig>,
    /// The cluster's key.
    pub key: ClusterKey,
    /// The masters, as `host:port`.
    pub masters: Vec<String>,
    /// Where to listen; port 0 lets the system choose.
    pub listen: String,
    /// Where others reach this server, when not where it listens; port 0 stands for the bound port.
    pub advertise: Option<String>,
    /// The failure domain.
    pub rack: String,
    /// Whether flushes and seals are made durable.
    pub durability: Durability,
    /// Chunks of at most so many bytes are kept in the index.
    pub small_chunks: u64,
    /// How fast sealed replicas are read again.
    pub scrub: Pace,
    /// Where to serve metrics and health over HTTP; port 0 lets the system choose, absent means nowhere.
    pub http: Option<String>,
    /// Where clients on this machine are given the files of sealed chunks; absent means nowhere.
    pub local_socket: Option<PathBuf>,
}

/// Why a chunkserver does not start.
#[derive(Debug, thiserror::Error)]
pub enum ChunkserverError {
    /// The data directories cannot be used.
    #[error("cannot open the chunk store: {0}")]
    Store(#[from] StoreError),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}; is another server running there?")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// What all tasks of a server share.
pub(crate) struct Context {
    pub(crate) world: World,
    pub(crate) store: Store,
    pub(crate) key: ClusterKey,
    pub(crate) server: ServerId,
    /// Where files are given out, for callers on this machine.
    pub(crate) local_socket: Option<String>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) streams: Arc<Streams>,
    /// Connections to the next members of pipelines that have ended.
    pub(crate) members: IdleConns,
    pub(crate) reads: Semaphore,
    /// Taken before one of `reads` by who reads to copy: clients always find some of these.
    pub(crate) copy_reads: Semaphore,
    /// Copies to this server.
    pub(crate) copies: Copies,
    pub(crate) active_reads: AtomicU32,
    pub(crate) traffic: Traffic,
    pub(crate) readers: Readers,
    /// A leader has taken this server's registration and hears its beats.
    pub(crate) registered: AtomicBool,
    /// Whose removals are carried out.
    pub(crate) removals: Removals,
    /// Cancelled when the server stops: nothing new begins.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when what is under way must end at once.
    pub(crate) cut: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Context {
    /// Follows a master whose signature was verified: a newer one is persisted before this returns (S5).
    ///
    /// # Errors
    /// [`ErrorCode::StaleLeader`] for an older or a sibling one, [`ErrorCode::Mismatch`] for another cluster.
    pub(crate) async fn obey(&self, cluster: ClusterId, offered: Leadership) -> Result<(), WireError> {
        let identity = self.store.identity();
        if let Some(ours) = identity.cluster
            && ours != cluster
        {
            let message = format!(
                "chunkserver {} belongs to cluster {ours} and takes no orders from cluster {cluster}",
                self.server
            );
            return Err(WireError::new(ErrorCode::Mismatch, message).of_server(self.server));
        }
        if let Some(followed) = self.store.leadership().filter(|_| !planted!("forget-epoch-check")) {
            followed.accepts(&offered).map_err(|refusal| self.stale(&followed, &offered, refusal))?;
            if followed == offered && identity.cluster.is_some() {
                return Ok(());
            }
        }
        self.store.adopt(cluster, offered).await.map_err(|e| WireError::from(e).of_server(self.server))?;
        // They were ordered by the one before.
        self.copies.cancel_all();
        info!(lineage = offered.lineage.number, epoch = offered.epoch.0, "following a new leader");
        Ok(())
    }

    fn stale(&self, followed: &Leadership, offered: &Leadership, refusal: LeadershipRefusal) -> WireError {
        let message = format!("chunkserver {} {}", self.server, refusal.explain(followed, offered));
        WireError::new(ErrorCode::StaleLeader, message).of_server(self.server)
    }

    pub(crate) fn active_reads(&self) -> u32 {
        self.active_reads.load(Ordering::Relaxed)
    }
}

/// Listens at `path`, and what to tell callers about it. A server that cannot goes without: everything can be read over the
/// network.
fn listen_locally(world: &World, path: Option<&Path>) -> Option<(BoxLocalListener, String)> {
    let path = path?;
    let shown = path.display();
    let Some(text) = path.to_str() else {
        warn!(path = %shown, "no local socket: its path is no text; name another with --local-socket");
        return None;
    };
    match world.net.bind_local(path) {
        Ok(listener) => Some((listener, text.to_owned())),
        Err(e) => {
            warn!(path = %shown, "no local socket, clients on this machine read over the network: {e}");
            None
        }
    }
}

/// A running chunkserver. Dropping it cuts its work off as a crash would; [`Chunkserver::shutdown`] stops cleanly.
pub struct Chunkserver {
    context: Arc<Context>,
    address: String,
    listening: String,
    http: Option<String>,
}

impl Chunkserver {
    /// Opens the store, listens, and begins to look for a master.
    ///
    /// # Errors
    /// [`ChunkserverError`]. A master that cannot be reached is no error: it is tried again until it can.
    pub async fn start(world: World, config: ChunkserverConfig) -> Result<Chunkserver, ChunkserverError> {
        let store_config = StoreConfig {
            dirs: config.dirs.clone(),
            key: config.key.clone(),
            durability: config.durability,
            index_bytes: config.small_chunks,
        };
        let store = Store::open(world.clone(), store_config).await?;
        let failed = |source| ChunkserverError::Listen { address: config.listen.clone(), source };
        let listener = world.net.bind(&config.listen).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let http = match &config.http {
            Some(address) => {
                let failed = |source| ChunkserverError::Listen { address: address.clone(), source };
                Some(Http::bind(&world, address).await.map_err(failed)?)
            }
            None => None,
        };
        let (local, local_socket) = listen_locally(&world, config.local_socket.as_deref()).unzip();
        let http_address = http.as_ref().map(|http| http.address().to_string());
        let address = match &config.advertise {
            None => bound.to_string(),
            Some(address) => match address.strip_suffix(":0") {
                Some(host) => format!("{host}:{}", bound.port()),
                None => address.clone(),
            },
        };
        let identity = store.identity();
        info!(
            server = %identity.server, address, rack = config.rack, start = identity.start_counter,
            durability = durability_name(config.durability), http = http_address.as_deref().unwrap_or("none"),
            local_socket = local_socket.as_deref().unwrap_or("none"),
            "chunkserver starts"
        );
        if config.durability == Durability::Buffered {
            warn!(
                "durability is `buffered`: acknowledged data is not fsynced, and a power loss of all members loses it"
            );
        }
        let context = Arc::new(Context {
            world,
            store,
            key: config.key,
            server: identity.server,
            local_socket,
            buffers: Buffers::new(SHARED_BUFFERS),
            streams: Arc::default(),
            members: IdleConns::default(),
            reads: Semaphore::new(READS_MAX),
            copy_reads: Semaphore::new(COPY_READS_MAX),
            copies: Copies::default(),
            active_reads: AtomicU32::new(0),
            traffic: Traffic::default(),
            readers: Readers::default(),
            registered: AtomicBool::default(),
            removals: Removals::default(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let about = control::About {
            masters: config.masters,
            address: address.clone(),
            rack: config.rack,
            durability: config.durability,
        };
        context.tasks.spawn(listen::serve(Arc::clone(&context), listener));
        if let Some(listener) = local {
            let path = config.local_socket.clone().unwrap_or_default();
            context.tasks.spawn(give_out::serve(Arc::clone(&context), listener, path));
        }
        context.tasks.spawn(control::run(Arc::clone(&context), about));
        context.tasks.spawn(vitals::look_after_disks(Arc::clone(&context)));
        context.tasks.spawn(vitals::keep_figures(Arc::clone(&context)));
        context.tasks.spawn(scrub::run(Arc::clone(&context), config.scrub));
        context.tasks.spawn(vitals::sync_what_is_sealed(Arc::clone(&context)));
        if let Some(http) = http {
            // Until the very end, so that a stopping server says so.
            let stop = context.cut.clone();
            tokio::spawn(http.serve(context.world.clone(), http::pages(&context), stop));
        }
        Ok(Chunkserver { context, address, listening: bound.to_string(), http: http_address })
    }

    /// Where others reach this server.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where this server listens.
    #[must_use]
    pub fn listening(&self) -> &str {
        &self.listening
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn http(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// Who this server is.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.context.server
    }

    /// The replicas, for tests and tools in the same process.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.context.store
    }

    /// Says goodbye to the master, takes nothing new, lets what is under way finish for a bounded time and cuts the rest.
    pub async fn shutdown(self) {
        let context = &self.context;
        info!("stopping");
        context.stopping.cancel();
        context.tasks.close();
        let clock = &*context.world.clock;
        if timeout(clock, FINISH_LIMIT, context.tasks.wait()).await.is_err() {
            let message = format!("chunkserver {} is stopping; go on with another", context.server);
            context.streams.cut_all(&WireError::new(ErrorCode::Unavailable, message).of_server(context.server));
            let _ended = timeout(clock, CUT_LIMIT, context.tasks.wait()).await;
            context.cut.cancel();
            context.tasks.wait().await;
        }
        context.cut.cancel();
        info!("stopped");
    }
}

impl Drop for Chunkserver {
    fn drop(&mut self) {
        self.context.stopping.cancel();
        self.context.cut.cancel();
    }
}
