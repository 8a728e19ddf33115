//! A running master.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use quarry_env::{World, clock::timeout};
use quarry_http::Http;
use quarry_master_core::running::RunningClock;
use quarry_proto::v1::{
    admin_server::AdminServer, chunkservers_server::ChunkserversServer, namespace_server::NamespaceServer,
    raft_server::RaftServer,
};
use quarry_types::limits;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::http::Response;
use tower::util::MapResponseLayer;

use crate::{
    config::MasterConfig,
    date, driver,
    error::MasterError,
    http, identity, listen,
    raft::{Belonging, Group, GroupConfig, RaftRpc},
    reading::StaleReads,
    rpc::{AdminRpc, ChunkserversRpc, NamespaceRpc},
    service::{self, Service, WATCHERS_MAX},
    shared::{CopyCounts, Shared},
    together::Together,
};

/// Requests of one connection worked on at once; further ones wait.
const REQUESTS_PER_CONNECTION: usize = 256;
/// HTTP/2 streams of one connection.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// A request that has not begun to answer after this fails; longer than anything inside waits.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// A peer that does not answer HTTP/2 pings is gone.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_DEADLINE: Duration = Duration::from_secs(20);
/// How long a clean stop waits for requests under way.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A running master; see [`Master::shutdown`].
pub struct Master {
    shared: Arc<Shared>,
    address: SocketAddr,
    advertised: String,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    http: Option<SocketAddr>,
    /// Ends the HTTP port at the very end, so that a stopping master says so.
    _http: DropGuard,
    /// Keeps other processes out of the data directory.
    _data: identity::DataDir,
}

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Master").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Master {
    /// Opens the data directory, joins the group and serves.
    ///
    /// # Errors
    /// When the directory or the key is not a master's, the address is taken, or the group does not open.
    pub async fn start(world: World, config: MasterConfig) -> Result<Master, MasterError> {
        let data = world
            .blocking
            .run({
                let (disk, config) = (world.disk.clone(), config.clone());
                move || identity::open(&*disk, &config.data, &config.key_file)
            })
            .await??;
        let refused = |source| MasterError::Listen { address: config.listen.clone(), flag: "--listen", source };
        let listener = world.net.bind(&config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let http = match &config.http {
            Some(address) => Some(Http::bind(&world, address).await.map_err(|source| MasterError::Listen {
                address: address.clone(),
                flag: "--http",
                source,
            })?),
            None => None,
        };
        let http_address = http.as_ref().map(Http::address);
        let advertised = config.advertise.clone().unwrap_or_else(|| address.to_string());
        let path = config.data.join(data.identity.group_dir());
        let group_config = GroupConfig { advertise: Some(advertised.clone()), ..GroupConfig::default() };
        let belonging = Belonging { cluster: data.identity.cluster, key: data.key.clone() };
        let group = Group::open(&world, &path, belonging, group_config)
            .await
            .map_err(|e| MasterError::Group { path, message: e.to_string() })?;
        let shared = Arc::new(Shared {
            world: world.clone(),
            cluster: data.identity.cluster,
            node: data.identity.node,
            key: data.key.clone(),
            group,
            lease: config.lease,
            session: config.session,
            present: Mutex::default(),
            copies: CopyCounts::default(),
            stale_reads: StaleReads::default(),
            lookups: Together::default(),
            running: Mutex::new(RunningClock::new(world.clock.now().0)),
            changing_settings: tokio::sync::Mutex::default(),
            changing_members: tokio::sync::Mutex::default(),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        });
        let (stop, stopped) = watch::channel(false);
        let driver = tokio::spawn(driver::run(shared.clone(), stopped.clone()));
        let serving = tokio::spawn(serve(shared.clone(), listener, stopped.clone()));
        let http_stop = CancellationToken::new();
        if let Some(http) = http {
            tokio::spawn(http.serve(world, http::pages(&shared, stopped), http_stop.clone()));
        }
        tracing::info!(cluster = %shared.cluster, node = %shared.node, %address, advertised, "master started");
        let (http, _http) = (http_address, http_stop.drop_guard());
        Ok(Master { shared, address, advertised, stop, driver, serving, http, _http, _data: data })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where others reach it.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The group, for what has no call of its own (a snapshot now, mostly).
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.shared.group
    }

    /// Completes when the master can go on no more (its disk failed, usually), with the reason.
    pub async fn failed(&self) -> String {
        self.shared.group.failed().await
    }

    /// Stops: another master leads from here on if there is one, no further requests, those under way get a moment, then the
    /// group closes its files.
    pub async fn shutdown(self) {
        service::masters::give_up_leadership(&self.shared).await;
        // The receivers live in the two tasks; if both have ended there is nobody to tell.
        let _nobody_listens = self.stop.send(true);
        let clock = &*self.shared.world.clock;
        let (mut serving, mut driver) = (self.serving, self.driver);
        for (name, ended) in [
            ("requests", timeout(clock, STOP_DEADLINE, &mut serving).await.is_ok()),
            ("driver", timeout(clock, STOP_DEADLINE, &mut driver).await.is_ok()),
        ] {
            if !ended {
                tracing::warn!(name, "did not end in time and is cut off");
            }
        }
        serving.abort();
        driver.abort();
        self.shared.lead(None);
        self.shared.group.shutdown().await;
        tracing::info!("master stopped");
    }
}

async fn serve(
    shared: Arc<Shared>,
    listener: Box<dyn quarry_env::Listener>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = Service::new(shared.clone());
    let connections = listen::connections(listener, shared.world.clock.clone());
    let bytes = limits::GRPC_MESSAGE_BYTES;
    let clock = shared.world.clock.clone();
    let raft = RaftRpc::new(shared.group.clone());
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .timeout(REQUEST_DEADLINE)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_DEADLINE))
        .layer(MapResponseLayer::new(move |response: Response<_>| date::dated(&*clock, response)))
        .add_service(NamespaceServer::new(NamespaceRpc::new(service.clone())).max_decoding_message_size(bytes))
        .add_service(ChunkserversServer::new(ChunkserversRpc::new(service.clone())).max_decoding_message_size(bytes))
        .add_service(AdminServer::new(AdminRpc::new(service)).max_decoding_message_size(bytes))
        .add_service(RaftServer::new(raft).max_decoding_message_size(bytes))
        .serve_with_incoming_shutdown(connections, async move {
            // A sender that is gone means the same.
            let _stopped_or_dropped = stopped.wait_for(|stop| *stop).await;
        })
        .await
}
