//! The HTTP port of a server, for those who watch it: `/metrics`, `/healthz` and `/readyz`.
//!
//! ```no_run
//! # async fn example(world: quarry_env::World, stop: tokio_util::sync::CancellationToken) -> std::io::Result<()> {
//! use quarry_http::{Http, Pages, metrics::{metrics::counter::Counter, registry::Registry}};
//!
//! let mut registry = Registry::with_prefix("quarry_master");
//! let commands: Counter = Counter::default();
//! registry.register("commands", "Commands given to chunkservers", commands.clone()); // `quarry_master_commands_total`
//! let pages = Pages::new(registry, || Err("no leader is known".into()));
//! let http = Http::bind(&world, "127.0.0.1:9401").await?;
//! let address = http.address();
//! tokio::spawn(http.serve(world, pages, stop));
//! commands.inc();
//! # let _ = address; Ok(()) }
//! ```
//!
//! | page | answer |
//! |---|---|
//! | `/metrics` | the registry in the OpenMetrics text format; [`register_looked_up`] adds values that are looked up each time |
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200, or 503 with the reason, as the server's own function says; it must not block |
//!
//! Every server has a [`Registry`] of its own and there is no global one, so that several can live in one process.
//! Connections are bounded in number and time. This crate must not know what the metrics mean.

mod listen;
mod looked_up;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
pub use looked_up::{Sample, register_looked_up};
pub use prometheus_client as metrics;
use prometheus_client::{encoding::text, registry::Registry};
use quarry_env::{Listener, World};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What the metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the server can do its work; otherwise why not.
type Ready = dyn Fn() -> Result<(), String> + Send + Sync;

/// What is served. Cheap to clone.
#[derive(Clone)]
pub struct Pages {
    registry: Arc<Registry>,
    ready: Arc<Ready>,
    leads: Option<Arc<Ready>>,
}

impl Pages {
    /// `ready` is asked at each `/readyz`: it looks at what is known and waits for nothing.
    #[must_use]
    pub fn new(registry: Registry, ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Pages { registry: Arc::new(registry), ready: Arc::new(ready), leads: None }
    }

    /// With a page `/leader` that is there while this server leads its group: for load balancers that must find the one.
    #[must_use]
    pub fn leader(self, leads: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Pages { leads: Some(Arc::new(leads)), ..self }
    }
}

/// A bound HTTP port.
pub struct Http {
    listener: Box<dyn Listener>,
    address: SocketAddr,
}

impl Http {
    /// Listens on `address` (`host:port`); port 0 lets the system choose.
    ///
    /// # Errors
    /// As the operating system reports.
    pub async fn bind(world: &World, address: &str) -> io::Result<Http> {
        let listener = world.net.bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Http { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, which cuts every connection. Dropping the future ends only the listening.
    pub async fn serve(self, world: World, pages: Pages, stop: CancellationToken) {
        let listener = listen::Bounded::new(self.listener, self.address, world.clock, stop.clone());
        let router = Router::new()
            .route("/metrics", get(metrics_page))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready_page))
            .route("/leader", get(leader_page))
            .with_state(pages);
        let served = axum::serve(listener, router);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = served => if let Err(error) = ended { warn!(%error, "the HTTP port is closed") },
        }
    }
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    let mut page = String::new();
    match text::encode(&mut page, &pages.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")).into_response()
        }
    }
}

async fn ready_page(State(pages): State<Pages>) -> Response {
    match (pages.ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn leader_page(State(pages): State<Pages>) -> Response {
    match pages.leads.map(|leads| leads()) {
        Some(Ok(())) => "leader\n".into_response(),
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not the leader: {why}\n")).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests;
