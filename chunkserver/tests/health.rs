//! Disks that fail under a running server, scrubbing, and what the HTTP port shows of both.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and damages the files behind the server's back"
)]

mod common;

use std::{fs, path::Path, time::Duration};

use common::{Cluster, PATIENCE, bytes, config, epoch, key, master::Master, open, soon, world, writer::Writer};
use quarry_chunkserver::{server::Chunkserver, store::DirConfig};
use quarry_chunkserver_core::scrub::Pace;
use quarry_client::frames;
use quarry_env::World;
use quarry_proto::v1::{self, command::Body};
use quarry_types::{ChunkId, Crc32};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn get(world: &World, server: &Chunkserver, path: &str) -> String {
    let asked = async {
        let mut stream = world.net.connect(server.http().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    soon(asked).await
}

/// Writes a chunk to one server alone and has it sealed.
async fn sealed(master: &Master, server: &Chunkserver, chunk: u64, data: &[u8]) {
    let grant = v1::Grant {
        cluster: common::cluster().to_bytes().into(),
        leadership: Some(epoch(5).into()),
        chunk,
        members: vec![v1::Member { server: server.server().to_bytes().into(), address: server.address().to_owned() }],
        limit_bytes: quarry_types::limits::CHUNK_BYTES,
    };
    let conn = frames::connect(&world(), server.address(), common::cluster(), server.server(), PATIENCE).await.unwrap();
    let mut writer = Writer::open(conn, open(&key(), &grant)).await.unwrap();
    writer.send(data).await.unwrap();
    writer.seal().await.unwrap();
    let seal = v1::CommittedSeal { chunk, length: data.len() as u64, crc: Crc32::of(data).0 };
    let result =
        master.command(server.server(), epoch(5), Body::CommitSeals(v1::CommitSeals { seals: vec![seal] })).await;
    assert_eq!(result.receipts.len(), 1, "{result:?}");
}

/// The file of a chunk.
fn file(dir: &Path, chunk: u64) -> std::path::PathBuf {
    dir.join(format!("chunks/{:02x}/{chunk:016x}.chunk", chunk as u8))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_port_shows_metrics_and_whether_the_server_is_ready() {
    let all = Cluster::start(2).await;
    let server = all.running(0);
    assert_ne!(server.http(), all.running(1).http(), "several live in one process");
    let mut writer = all.write(1).await;
    writer.send(&bytes(5000)).await.unwrap();
    writer.seal().await.unwrap();
    assert!(get(&all.world, server, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&all.world, server, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get(&all.world, server, "/metrics").await;
    for part in [
        "quarry_chunkserver_registered 1",
        "quarry_chunkserver_client_written_bytes_total 5000",
        "quarry_chunkserver_disk_failed{dir=",
        "quarry_chunkserver_replicas{state=\"settled\"} 1",
        "quarry_chunkserver_beats_total",
        "quarry_chunkserver_scrubbed_bytes_total",
    ] {
        assert!(metrics.contains(part), "{part} is missing in {metrics}");
    }
    let dir = TempDir::new().unwrap();
    let alone = Chunkserver::start(world(), config(&dir, vec!["127.0.0.1:1".into()])).await.unwrap();
    let ready = get(&all.world, &alone, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("no master"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_away_takes_its_chunks_with_it_and_brings_them_back() {
    let master = Master::start(&world(), epoch(5)).await;
    let dir = TempDir::new().unwrap();
    let mut config = config(&dir, vec![master.address.clone()]);
    let path = |name: &str| dir.path().join(name);
    config.dirs = ["a", "b"].map(|name| DirConfig { path: path(name), capacity: Some(1 << 30) }).into();
    let server = Chunkserver::start(world(), config).await.unwrap();
    soon(master.beat_of(server.server())).await;
    for chunk in 1..=4 {
        sealed(&master, &server, chunk, &bytes(9000)).await;
    }
    let in_a: Vec<u64> = (1..=4).filter(|chunk| file(&path("a"), *chunk).exists()).collect();
    assert!(!in_a.is_empty() && in_a.len() < 4, "{in_a:?}");

    fs::rename(path("a"), path("away")).unwrap();
    let gone = |seen: &common::master::Seen, chunk: u64| {
        seen.pages.iter().any(|page| page.replicas.iter().any(|r| r.chunk == chunk && r.gone))
    };
    for chunk in &in_a {
        soon(master.until(|seen| gone(seen, *chunk).then_some(()))).await;
    }
    let failed = |seen: &mut common::master::Seen| {
        let disks = &seen.beats.get(&server.server())?.disks;
        (disks[0].failed_reason.contains("IDENTITY is gone") && !disks[1].failed).then_some(())
    };
    soon(master.until(failed)).await;
    sealed(&master, &server, 10, &bytes(100)).await;
    assert!(file(&path("b"), 10).exists());
    assert!(get(&world(), &server, "/readyz").await.starts_with("HTTP/1.1 200"), "one disk is enough");
    assert!(!path("a").exists(), "a missing directory is not made again");

    fs::rename(path("away"), path("a")).unwrap();
    let mended = |seen: &mut common::master::Seen| {
        let disks = &seen.beats.get(&server.server())?.disks;
        disks.iter().all(|disk| !disk.failed).then_some(())
    };
    soon(master.until(mended)).await;
    for chunk in &in_a {
        let receipt = server.store().verify(ChunkId(*chunk), 9000, Crc32::of(&bytes(9000))).await.unwrap();
        assert!(receipt.durable);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scrubbing_finds_what_was_damaged_and_reports_it() {
    let master = Master::start(&world(), epoch(5)).await;
    let dir = TempDir::new().unwrap();
    let mut config = config(&dir, vec![master.address.clone()]);
    config.scrub = Pace { period: Duration::from_secs(1), rate: 64 << 20 };
    let server = Chunkserver::start(world(), config).await.unwrap();
    soon(master.beat_of(server.server())).await;
    let data = bytes(200_000);
    for chunk in 1..=4 {
        sealed(&master, &server, chunk, &data).await;
    }
    let data_dir = dir.path().join("data");
    let mut damaged = fs::read(file(&data_dir, 1)).unwrap();
    damaged[8192 + 150_000] ^= 1;
    fs::write(file(&data_dir, 1), damaged).unwrap();
    fs::OpenOptions::new().write(true).open(file(&data_dir, 2)).unwrap().set_len(8192 + 70_000).unwrap();
    fs::remove_file(file(&data_dir, 3)).unwrap();
    let quarantined = |seen: &common::master::Seen, chunk: u64| {
        let state = v1::ReplicaState::Quarantined;
        seen.pages.iter().any(|page| page.replicas.iter().any(|r| r.chunk == chunk && r.state() == state))
    };
    for chunk in 1..=3 {
        soon(master.until(|seen| quarantined(seen, chunk).then_some(()))).await;
    }
    // What is damaged counts for nothing: the fourth has to have been read.
    let told = |seen: &mut common::master::Seen| {
        let beat = seen.beats.get(&server.server())?;
        (beat.quarantined == 3 && beat.scrubbed_bytes > 0 && beat.oldest_verified_ms > 0).then_some(())
    };
    soon(master.until(told)).await;
    assert!(!quarantined(&master.inner.seen.lock().unwrap(), 4));
    server.shutdown().await;
}
