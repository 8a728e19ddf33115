//! Copies between servers, surplus, and whether servers reach one another.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
};

use common::{
    Cluster, bytes, cluster, config, epoch, key, open, soon, world,
    writer::{Writer, read, receipt, whole},
};
use quarry_chunkserver::{server::Chunkserver, store::COPIES_MAX};
use quarry_client::frames::{self, Conn};
use quarry_proto::{WireError, frame::Frame, v1, v1::command::Body};
use quarry_types::{Crc32, ErrorCode, ServerId, limits::BLOCK_BYTES};

const BLOCK: usize = BLOCK_BYTES as usize;
/// So slow that a copy of a few blocks is under way until somebody ends it.
const CRAWL: u64 = 1;

/// A chunk on the first `holders` servers, with its committed seal.
async fn sealed(all: &Cluster, chunk: u64, data: &[u8], holders: usize) -> v1::CommittedSeal {
    let mut grant = all.grant(chunk);
    grant.members.truncate(holders);
    let mut writer = Writer::open(all.connect(0).await, open(&key(), &grant)).await.unwrap();
    for packet in data.chunks(1 << 20) {
        writer.send(packet).await.unwrap();
        writer.all_acked().await.unwrap();
    }
    writer.seal().await.unwrap();
    let seal = v1::CommittedSeal { chunk, length: data.len() as u64, crc: Crc32::of(data).0 };
    for holder in 0..holders {
        let commit = Body::CommitSeals(v1::CommitSeals { seals: vec![seal] });
        assert_eq!(all.master.command(all.server(holder), epoch(5), commit).await.receipts.len(), 1);
    }
    seal
}

fn copy(seal: v1::CommittedSeal, sources: Vec<v1::Member>, bytes_per_second: u64) -> Body {
    Body::Copy(v1::Copy { seal: Some(seal), sources, bytes_per_second })
}

fn members(all: &Cluster, servers: &[usize]) -> Vec<v1::Member> {
    let members = all.grant(0).members;
    servers.iter().map(|server| members[*server].clone()).collect()
}

/// Orders a copy to the server `to` and waits for its end.
async fn copied(all: &Cluster, to: usize, seal: v1::CommittedSeal, sources: Vec<v1::Member>) -> v1::CommandResult {
    all.master.command(all.server(to), epoch(5), copy(seal, sources, 0)).await
}

/// Orders a copy that does not end by itself, and waits until it has begun.
async fn crawling(all: &Cluster, to: usize, seal: v1::CommittedSeal, from: usize) -> u64 {
    let proof = common::master::proof(all.server(to), epoch(5));
    let id = all.master.give(all.server(to), proof, copy(seal, members(all, &[from]), CRAWL)).await;
    let under_way = |beat: &v1::Beat| beat.copies.iter().any(|c| c.chunk == seal.chunk && c.bytes_done == BLOCK_BYTES);
    let server = all.server(to);
    soon(all.master.until(|seen| seen.beats.get(&server).is_some_and(under_way).then_some(()))).await;
    id
}

fn failure(result: &v1::CommandResult) -> WireError {
    assert!(result.receipts.is_empty() && result.refused.is_none(), "{result:?}");
    result.failures[0].error.clone().unwrap().into()
}

async fn ended(all: &Cluster, id: u64) -> WireError {
    failure(&soon(all.master.until(|seen| seen.results.remove(&id))).await)
}

async fn reads(all: &Cluster, server: usize, seal: v1::CommittedSeal) -> Vec<u8> {
    let mut conn = all.connect(server).await;
    read(&mut conn, whole(seal.chunk, seal.length, Crc32(seal.crc))).await.unwrap()
}

fn shelf(all: &Cluster, server: usize, chunk: u64) -> PathBuf {
    all.dirs[server].path().join(format!("data/chunks/{:02x}", chunk as u8))
}

/// Flips a bit in a block of a replica.
fn damage(all: &Cluster, server: usize, chunk: u64, block: usize) {
    let path = shelf(all, server, chunk).join(format!("{chunk:016x}.chunk"));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (mut byte, at) = ([0], (8192 + block * BLOCK + 3) as u64);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn left(shelf: &Path) -> usize {
    std::fs::read_dir(shelf).unwrap().count()
}

async fn used(all: &Cluster, server: usize) -> u64 {
    all.running(server).store().disks().await.unwrap()[0].used_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_copy_is_a_replica_as_good_as_its_source() {
    let all = Cluster::start(2).await;
    let data = bytes(5_000_000);
    let seal = sealed(&all, 1, &data, 1).await;
    let result = copied(&all, 1, seal, members(&all, &[0])).await;
    let stated = receipt(&result.receipts[0]);
    assert_eq!(
        (stated.server, stated.length, stated.crc.0, stated.durable),
        (all.server(1), seal.length, seal.crc, true)
    );
    assert!(reads(&all, 1, seal).await == data);
    let sealed = |page: &v1::InventoryPage| {
        page.replicas.iter().any(|r| r.chunk == 1 && r.state() == v1::ReplicaState::Sealed && r.crc == seal.crc)
    };
    let copy = all.server(1).to_bytes();
    let reported = |page: &v1::InventoryPage| page.server == copy && sealed(page);
    soon(all.master.until(|seen| seen.pages.iter().any(reported).then_some(()))).await;
    // The same order again, even from nowhere, and the chunk that was deleted.
    let nowhere = v1::Member { address: "127.0.0.1:1".into(), ..members(&all, &[0])[0].clone() };
    let again = copied(&all, 1, seal, vec![nowhere]).await;
    assert_eq!(receipt(&again.receipts[0]), stated);
    all.master.command(all.server(1), epoch(5), Body::Delete(v1::Delete { chunks: vec![1] })).await;
    assert_eq!(left(&shelf(&all, 1, 1)), 0);
    assert_eq!(receipt(&copied(&all, 1, seal, members(&all, &[0])).await.receipts[0]), stated);
    assert!(reads(&all, 1, seal).await == data);
}

/// A source that the test plays: it has the chunk, answers `gives` blocks and then breaks off. What it was asked for.
async fn play_source(all: &Cluster, data: Vec<u8>, gives: usize) -> (v1::Member, Arc<Mutex<Vec<(u64, u64)>>>) {
    let listener = all.world.net.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = ServerId::from_random(u128::from(listener.local_addr().unwrap().port()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let Ok(Conn { mut reader, mut writer, .. }) = frames::accept(stream, Some(cluster()), server, None).await
            else {
                continue;
            };
            let mut left = gives;
            'conversation: while let Ok(Some((Frame::Read(read), _))) = reader.next().await {
                let range = read.offset..read.offset + read.bytes;
                seen.lock().unwrap().push((range.start, range.end));
                for offset in range.step_by(BLOCK) {
                    if left == 0 {
                        break 'conversation;
                    }
                    left -= 1;
                    let block = &data[offset as usize..data.len().min(offset as usize + BLOCK)];
                    let meta = v1::ReadData { offset, block_crcs: vec![Crc32::of(block).0] };
                    writer.begin(meta, block.len() as u32).await.unwrap();
                    writer.payload(block).await.unwrap();
                }
                writer.send(v1::ReadEnd { readable: data.len() as u64 }).await.unwrap();
            }
            let _told = writer.flush().await;
        }
    });
    (v1::Member { server: server.to_bytes().into(), address }, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_with_the_next_source_where_one_broke_off() {
    let all = Cluster::start(1).await;
    let data = bytes(5 * BLOCK + 10);
    let seal = v1::CommittedSeal { chunk: 1, length: data.len() as u64, crc: Crc32::of(&data).0 };
    let (first, _) = play_source(&all, data.clone(), 2).await;
    let (second, asked) = play_source(&all, data.clone(), 100).await;
    let nobody = v1::Member { server: ServerId::from_random(1).to_bytes().into(), address: "127.0.0.1:1".into() };
    let result = copied(&all, 0, seal, vec![nobody, first, second]).await;
    assert_eq!(receipt(&result.receipts[0]).crc.0, seal.crc);
    assert_eq!(*asked.lock().unwrap(), vec![(2 * BLOCK_BYTES, seal.length)], "nothing is read twice");
    assert!(reads(&all, 0, seal).await == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_source_that_stands_still_is_left() {
    let real = world();
    let all = Cluster::start_in(
        quarry_env::World { clock: Arc::new(common::fast::Fast(Arc::clone(&real.clock))), ..real },
        2,
    )
    .await;
    let data = bytes(2 * BLOCK);
    let seal = sealed(&all, 1, &data, 1).await;
    let listener = all.world.net.bind("127.0.0.1:0").await.unwrap();
    let silent = ServerId::from_random(99);
    let member = v1::Member { server: silent.to_bytes().into(), address: listener.local_addr().unwrap().to_string() };
    let standing = tokio::spawn(async move {
        let mut conn = frames::accept(listener.accept().await.unwrap(), Some(cluster()), silent, None).await.unwrap();
        while let Ok(Some(_)) = conn.reader.next().await {}
    });
    let mut sources = members(&all, &[0]);
    sources.insert(0, member);
    assert_eq!(copied(&all, 1, seal, sources).await.receipts.len(), 1);
    soon(standing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_bad_block_is_not_copied_and_its_replica_is_found_out() {
    let all = Cluster::start(3).await;
    let data = bytes(4 * BLOCK);
    let seal = sealed(&all, 1, &data, 2).await;
    damage(&all, 0, 1, 2);
    let result = copied(&all, 2, seal, members(&all, &[0, 1])).await;
    assert_eq!(receipt(&result.receipts[0]).crc.0, seal.crc);
    assert!(reads(&all, 2, seal).await == data);
    assert_eq!(all.running(0).store().counts().quarantined, 1);
    // The bad one is replaced from the copy.
    let result = copied(&all, 0, seal, members(&all, &[2])).await;
    assert_eq!(receipt(&result.receipts[0]).server, all.server(0));
    assert!(reads(&all, 0, seal).await == data && all.running(0).store().counts().quarantined == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_three_replicas_that_are_bad_at_different_blocks_make_a_good_one() {
    let all = Cluster::start(4).await;
    let data = bytes(4 * BLOCK - 1);
    let seal = sealed(&all, 1, &data, 3).await;
    for server in 0..3 {
        damage(&all, server, 1, server);
    }
    let result = copied(&all, 3, seal, members(&all, &[0, 1, 2])).await;
    assert!(result.failures.is_empty(), "{result:?}");
    assert!(reads(&all, 3, seal).await == data);
    for server in 0..3 {
        assert_eq!(all.running(server).store().counts().quarantined, 1, "{server}");
    }
    // Bad at the same block there is no good one, and no replica is made.
    let other = sealed(&all, 2, &data, 3).await;
    for server in 0..3 {
        damage(&all, server, 2, 1);
    }
    let error = failure(&copied(&all, 3, other, members(&all, &[0, 1, 2])).await);
    assert_eq!(error.code, ErrorCode::Corrupt, "{error}");
    assert_eq!(left(&shelf(&all, 3, 2)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_copy_ends_at_once_and_leaves_nothing() {
    let all = Cluster::start(2).await;
    let seal = sealed(&all, 1, &bytes(4 * BLOCK), 1).await;
    let before = used(&all, 1).await;
    let id = crawling(&all, 1, seal, 0).await;
    assert!(used(&all, 1).await > before);
    let busy = failure(&copied(&all, 1, seal, members(&all, &[0])).await);
    assert_eq!(busy.code, ErrorCode::Busy, "{busy}");
    let cancel = Body::CancelCopies(v1::CancelCopies { chunks: vec![7, 1] });
    all.master.command(all.server(1), epoch(5), cancel).await;
    assert_eq!(ended(&all, id).await.code, ErrorCode::Unavailable);
    assert_eq!((used(&all, 1).await, left(&shelf(&all, 1, 1))), (before, 0));
    let server = all.server(1);
    let idle = |seen: &mut common::master::Seen| seen.beats[&server].copies.is_empty().then_some(());
    soon(all.master.until(idle)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_newer_leader_ends_the_copies_of_the_one_before() {
    let all = Cluster::start(2).await;
    let seal = sealed(&all, 1, &bytes(4 * BLOCK), 1).await;
    let id = crawling(&all, 1, seal, 0).await;
    let fence = Body::Fence(v1::Fence { chunks: vec![9] });
    assert_eq!(all.master.command(all.server(1), epoch(6), fence).await.receipts.len(), 1);
    assert_eq!(ended(&all, id).await.code, ErrorCode::Unavailable);
    // Its orders are refused from now on.
    let drop = Body::DropSurplus(v1::DropSurplus { seals: vec![seal] });
    let late = all.master.command(all.server(1), epoch(5), drop).await;
    assert_eq!(WireError::from(late.refused.unwrap()).code, ErrorCode::StaleLeader);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_copies_are_bounded_and_nothing_waits_for_them() {
    let all = Cluster::start(2).await;
    let mut ids = Vec::new();
    for chunk in 1..=COPIES_MAX as u64 {
        let seal = sealed(&all, chunk, &bytes(2 * BLOCK), 1).await;
        ids.push(crawling(&all, 1, seal, 0).await);
    }
    let more = sealed(&all, 99, &bytes(2 * BLOCK), 1).await;
    assert_eq!(failure(&copied(&all, 1, more, members(&all, &[0])).await).code, ErrorCode::Busy);
    let fence = Body::Fence(v1::Fence { chunks: vec![77] });
    assert_eq!(all.master.command(all.server(1), epoch(5), fence).await.receipts.len(), 1);
    // A server that stops does not wait for them either.
    let mut all = all;
    soon(all.servers[1].take().unwrap().shutdown()).await;
    for chunk in 1..=COPIES_MAX as u64 {
        assert_eq!(left(&shelf(&all, 1, chunk)), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_restart_in_the_middle_of_a_copy_leaves_nothing() {
    let mut all = Cluster::start(2).await;
    let data = bytes(4 * BLOCK);
    let seal = sealed(&all, 1, &data, 1).await;
    crawling(&all, 1, seal, 0).await;
    all.kill(1);
    let config = config(&all.dirs[1], vec![all.master.address.clone()]);
    let again = loop {
        // The killed one may hold the directory for a moment.
        match Chunkserver::start(world(), config.clone()).await {
            Ok(server) => break server,
            Err(error) => assert!(error.to_string().contains("another process is using it"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((again.store().counts().replicas, left(&shelf(&all, 1, 1))), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_surplus_is_dropped_by_its_seal_only() {
    let all = Cluster::start(1).await;
    let data = bytes(3000);
    let seal = sealed(&all, 1, &data, 1).await;
    let drop = |seal| Body::DropSurplus(v1::DropSurplus { seals: vec![seal] });
    let other = v1::CommittedSeal { crc: 1, ..seal };
    let refused = all.master.command(all.server(0), epoch(5), drop(other)).await;
    assert_eq!(failure(&refused).code, ErrorCode::Mismatch);
    assert!(reads(&all, 0, seal).await == data);
    let done = all.master.command(all.server(0), epoch(5), drop(seal)).await;
    assert!(done.failures.is_empty() && done.refused.is_none(), "{done:?}");
    assert_eq!(all.running(0).store().counts().replicas, 0);
}

/// Ends the process with the test.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_whose_kernel_takes_connections_is_not_reached() {
    let all = Cluster::start(2).await;
    let dir = tempfile::TempDir::new().unwrap();
    let key_file = dir.path().join("key");
    let file = std::fs::OpenOptions::new().create_new(true).write(true).open(&key_file).unwrap();
    // That of the other servers, as hex digits.
    file.write_all_at("07".repeat(32).as_bytes(), 0).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_quarry-chunkserver"))
        .arg("run")
        .env("QUARRY_CHUNKSERVER_DATA", dir.path().join("data"))
        .env("QUARRY_CHUNKSERVER_KEY_FILE", &key_file)
        .env("QUARRY_CHUNKSERVER_MASTERS", &all.master.address)
        .env("QUARRY_CHUNKSERVER_LISTEN", "127.0.0.1:0")
        .env("QUARRY_CHUNKSERVER_HTTP", "none")
        .env("QUARRY_CHUNKSERVER_RACK", "other")
        .spawn()
        .unwrap();
    let process = Process(child);
    let introduced = |seen: &mut common::master::Seen| seen.registrations.iter().find(|r| r.rack == "other").cloned();
    let other = soon(all.master.until(introduced)).await;
    let other = v1::Member { server: other.server, address: other.address };
    let mut peers = members(&all, &[1]);
    peers.push(other.clone());
    // Somebody else answers there.
    peers.push(v1::Member { address: peers[0].address.clone(), ..other });
    let reach = async || {
        let probe = Body::ProbePeers(v1::ProbePeers { peers: peers.clone() });
        let result = all.master.command(all.server(0), epoch(5), probe).await;
        let servers: Vec<_> = result.reached.iter().map(|r| r.server.clone()).collect();
        assert_eq!(servers, peers.iter().map(|p| p.server.clone()).collect::<Vec<_>>());
        assert!(result.reached.iter().all(|r| r.reached == r.error.is_empty()), "{result:?}");
        result.reached.iter().map(|r| r.reached).collect::<Vec<_>>()
    };
    // It has registered and may not follow its master yet.
    soon(async { while reach().await != [true, true, false] {} }).await;
    process.signal("STOP");
    assert_eq!(reach().await, [true, false, false]);
    process.signal("CONT");
    assert_eq!(reach().await, [true, true, false]);
    let many = Body::ProbePeers(v1::ProbePeers { peers: vec![peers[0].clone(); 17] });
    let refused = all.master.command(all.server(0), epoch(5), many).await.refused.unwrap();
    assert_eq!(WireError::from(refused).code, ErrorCode::InvalidArgument);
}
