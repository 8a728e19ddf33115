use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use quarry_env::{World, clock::timeout, kv::NoKv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    world: World,
    address: String,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
}

async fn serving() -> Rig {
    let world = World::real(Arc::new(NoKv));
    let mut registry = Registry::with_prefix("quarry_test");
    let counter: Counter = Counter::default();
    registry.register("things", "Things that happened", counter.clone());
    counter.inc_by(3);
    register_looked_up(&mut registry, || {
        let disks = [("a", 1.0), ("b \"\n", 0.5)];
        let full = disks.into_iter().fold(Sample::gauge("disk_full_ratio", "How full"), |sample, (disk, full)| {
            sample.labelled([("disk", disk.to_owned())], full)
        });
        vec![full, Sample::counter("looks", "Looks").value(7.0)]
    });
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let pages =
        Pages::new(registry, move || asked.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "no disk works".into()));
    let http = Http::bind(&world, "127.0.0.1:0").await.unwrap();
    let (address, stop) = (http.address().to_string(), CancellationToken::new());
    tokio::spawn(http.serve(world.clone(), pages, stop.clone()));
    Rig { world, address, ready, stop }
}

impl Rig {
    async fn get(&self, path: &str) -> String {
        let asked = async {
            let mut stream = self.world.net.connect(&self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        timeout(&*self.world.clock, PATIENCE, asked).await.unwrap()
    }
}

#[tokio::test]
async fn the_three_pages_answer() {
    let rig = serving().await;
    let metrics = rig.get("/metrics").await;
    assert!(metrics.contains("quarry_test_things_total 3") && metrics.contains("openmetrics-text"), "{metrics}");
    for line in
        ["quarry_test_disk_full_ratio{disk=\"a\"} 1.0", "disk=\"b \\\"\\n\"} 0.5", "quarry_test_looks_total 7.0"]
    {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    assert!(rig.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = rig.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("no disk works"), "{ready}");
    rig.ready.store(true, Ordering::Relaxed);
    assert!(rig.get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(rig.get("/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn s8_stopping_cuts_connections_that_wait() {
    let rig = serving().await;
    let mut silent = rig.world.net.connect(&rig.address).await.unwrap();
    // It is served: an answer came.
    silent.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    silent.read_exact(&mut first).await.unwrap();
    rig.stop.cancel();
    let mut rest = Vec::new();
    let ended = timeout(&*rig.world.clock, PATIENCE, silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
}
