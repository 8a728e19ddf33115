//! Registration, reports, and the ends of a session.

mod common;

use common::{Cluster, bytes, cluster, config, epoch, key, master::Master, open, soon, world};
use quarry_chunkserver::server::Chunkserver;
use quarry_proto::{v1, v1::command::Body};
use quarry_types::ErrorCode;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_introduces_itself_reports_and_beats() {
    let all = Cluster::start(1).await;
    let beat = soon(all.master.beat_of(all.server(0))).await;
    assert_eq!(beat.registration, 1);
    assert!(beat.disks[0].capacity_bytes > 0 && !beat.disks[0].failed);
    let seen = all.master.inner.seen.lock().unwrap();
    let introduced = &seen.registrations[0];
    assert!(introduced.cluster.is_empty(), "it had no cluster yet");
    assert_eq!((introduced.start_counter, introduced.rack.as_str()), (1, "r"));
    assert_eq!(introduced.address, all.running(0).address());
    assert!(seen.pages[0].full && seen.pages[0].last && seen.pages[0].replicas.is_empty());
    assert_eq!(all.running(0).store().identity().cluster, Some(cluster()));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_reported_as_they_happen() {
    let all = Cluster::start(1).await;
    let mut writer = all.write(1).await;
    writer.send(&bytes(5000)).await.unwrap();
    writer.seal().await.unwrap();
    let fenced = |page: &v1::InventoryPage| {
        !page.full
            && page.replicas.iter().any(|r| r.chunk == 1 && r.state() == v1::ReplicaState::Fenced && r.length == 5000)
    };
    soon(all.master.until(|seen| seen.pages.iter().any(fenced).then_some(()))).await;
    let delete = Body::Delete(v1::Delete { chunks: vec![1] });
    all.master.command(all.server(0), epoch(5), delete).await;
    let gone = |page: &v1::InventoryPage| page.replicas.iter().any(|r| r.chunk == 1 && r.gone);
    soon(all.master.until(|seen| seen.pages.iter().any(gone).then_some(()))).await;
    // Pages follow one another without a gap.
    let seen = all.master.inner.seen.lock().unwrap();
    let changes: Vec<_> = seen.pages.iter().filter(|p| !p.full).collect();
    let mut number = seen.pages[0].number;
    for page in changes {
        assert_eq!(page.number, number);
        number += page.replicas.len() as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_follows_the_hint_to_the_leader() {
    let leader = Master::start(&world(), epoch(5)).await;
    let follower = Master::start(&world(), epoch(5)).await;
    *follower.inner.leader_hint.lock().unwrap() = Some(leader.address.clone());
    let dir = TempDir::new().unwrap();
    let server = Chunkserver::start(world(), config(&dir, vec![follower.address.clone()])).await.unwrap();
    soon(leader.beat_of(server.server())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_registers_again_when_its_master_returns_and_refuses_an_older_one() {
    let mut all = Cluster::start(1).await;
    let address = all.master.address.clone();
    let other = Master::start(&world(), epoch(1)).await;
    std::mem::replace(&mut all.master, other).stop().await;
    // An old master comes back first, where the new one was: it is not followed.
    let old = Master::start_at(&address, epoch(4)).await;
    soon(old.until(|seen| (seen.registrations.len() >= 2).then_some(()))).await;
    assert!(old.inner.seen.lock().unwrap().beats.is_empty());
    old.stop().await;
    let new = Master::start_at(&address, epoch(6)).await;
    soon(new.beat_of(all.server(0))).await;
    assert_eq!(all.running(0).store().leadership(), Some(epoch(6)));
    soon(new.report_of(all.server(0))).await;
    let seen = new.inner.seen.lock().unwrap();
    assert_eq!(seen.registrations[0].cluster, cluster().to_bytes());
    assert!(seen.pages[0].full);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_says_goodbye_and_a_restart_counts_and_fences() {
    let mut all = Cluster::start(1).await;
    let server = all.server(0);
    let mut writer = all.write(1).await;
    writer.send(&bytes(5000)).await.unwrap();
    writer.flush().await.unwrap();
    let stopping = all.servers[0].take().unwrap();
    let (failure, ()) = tokio::join!(writer.failure(), soon(stopping.shutdown()));
    assert_eq!((failure.code, failure.server), (ErrorCode::Unavailable, Some(server)), "{failure}");
    soon(all.master.until(|seen| seen.goodbyes.contains(&server).then_some(()))).await;
    drop(writer);
    let config = config(&all.dirs[0], vec![all.master.address.clone()]);
    let again = Chunkserver::start(world(), config).await.unwrap();
    assert_eq!(again.server(), server);
    let restarted =
        |seen: &mut common::master::Seen| seen.registrations.iter().any(|r| r.start_counter == 2).then_some(());
    soon(all.master.until(restarted)).await;
    let fenced = |page: &v1::InventoryPage| {
        page.full
            && page.replicas.iter().any(|r| r.chunk == 1 && r.state() == v1::ReplicaState::Fenced && r.length == 5000)
    };
    soon(all.master.until(|seen| seen.pages.iter().any(fenced).then_some(()))).await;
    soon(all.master.until(|seen| seen.beats.get(&server).filter(|b| b.registration == 2).cloned())).await;
    // What was open is not written again.
    let conn = quarry_client::frames::connect(&world(), again.address(), cluster(), server, common::PATIENCE).await;
    let error = common::writer::Writer::open(conn.unwrap(), open(&key(), &all.grant(1))).await.err().unwrap();
    assert_eq!(quarry_proto::WireError::from(error).code, ErrorCode::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_its_turn_to_report_beats_and_keeps_its_registration() {
    let master = Master::start(&world(), epoch(5)).await;
    *master.inner.busy.lock().unwrap() = 1;
    let dir = TempDir::new().unwrap();
    let server = Chunkserver::start(world(), config(&dir, vec![master.address.clone()])).await.unwrap();
    let beats = |seen: &mut common::master::Seen| {
        let beat = seen.beats.get(&server.server()).filter(|beat| beat.sequence >= 2)?;
        Some((beat.registration, seen.pages.len()))
    };
    assert_eq!(soon(master.until(beats)).await, (1, 0), "nothing was taken yet");
    soon(master.until(|seen| seen.pages.iter().any(|p| p.full && p.registration == 1).then_some(()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_ranges_that_the_master_asks_for_are_reported_again() {
    let all = Cluster::start(1).await;
    for chunk in [1, 2, 65] {
        let mut writer = all.write(chunk).await;
        writer.send(&bytes(5000)).await.unwrap();
        writer.seal().await.unwrap();
    }
    *all.master.inner.wanted.lock().unwrap() = 1 << 1;
    let again = |page: &v1::InventoryPage| {
        (page.full && page.ranges != 0).then(|| page.replicas.iter().map(|r| r.chunk).collect::<Vec<_>>())
    };
    assert_eq!(soon(all.master.until(|seen| seen.pages.iter().find_map(again))).await, [1, 65]);
    // It holds at a number that what was reported before leads to.
    let pages = all.master.inner.seen.lock().unwrap().pages.clone();
    let ranges = pages.iter().position(|p| p.ranges != 0).unwrap();
    let before = &pages[ranges - 1];
    assert_eq!(pages[ranges].number, before.number + if before.full { 0 } else { before.replicas.len() as u64 });
}
