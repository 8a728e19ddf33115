//! A group of one on RocksDB.

use std::{collections::BTreeSet, path::Path, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use quarry_env::{KvOptions, Space, SyncPoint};
use quarry_types::ErrorCode;

use super::*;

async fn created(temp: &tempfile::TempDir) -> World {
    let world = real();
    Group::create(&world, &dir_in(temp), me(), us(), first()).await.unwrap();
    world
}

async fn opened(world: &World, dir: &Path, config: GroupConfig) -> Group {
    let group = Group::open(world, dir, us(), config).await.unwrap();
    led(&group).await;
    group
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_reopening() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let group = opened(&world, &dir_in(&temp), config()).await;
    let one = session(&group, 1).await.unwrap();
    group.shutdown().await;
    drop(group);

    let group = opened(&world, &dir_in(&temp), config()).await;
    assert!(has_session(&group, one).await);
    // The nonce finds its session again: the tables are those of before, not made anew.
    assert_eq!(session(&group, 1).await.unwrap(), one);
    let two = session(&group, 2).await.unwrap();
    assert_ne!(two, one);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_concurrent_proposals_are_all_applied_once() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let group = opened(&world, &dir_in(&temp), config()).await;
    let count = 4000;
    let proposals = futures::stream::iter(0..count).map(|n| session(&group, n)).buffer_unordered(64);
    let sessions: BTreeSet<SessionId> = proposals.try_collect().await.unwrap();
    assert_eq!(sessions.len(), usize::try_from(count).unwrap());
    let status = group.status();
    assert_eq!((status.len(), status[0].id, status[0].role.as_str()), (1, 1, "leader"));
    // What openraft tells of itself lags behind what it has answered.
    let told = async {
        while group.status()[0].applied <= count || group.status()[0].last_log != group.status()[0].applied {
            tokio::task::yield_now().await;
        }
    };
    let in_time = quarry_env::clock::timeout(&*world.clock, Duration::from_secs(30), told).await;
    assert!(in_time.is_ok(), "{:?}", group.status());
    assert!(status[0].reachable);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_the_log_is_purged_behind_a_snapshot_and_not_its_tail() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let dir = dir_in(&temp);
    let config = GroupConfig { keep_log: 20, ..config() };
    let group = opened(&world, &dir, config.clone()).await;
    let mut sessions = Vec::new();
    for n in 0..100 {
        sessions.push(session(&group, n).await.unwrap());
    }
    let upto = group.snapshot().await.unwrap();
    assert!(upto >= 100, "{upto}");
    group.purged(upto - 20).await;
    for n in 100..110 {
        sessions.push(session(&group, n).await.unwrap());
    }
    group.shutdown().await;
    drop(group);

    // The snapshot is a directory with the checkpoint's files.
    let snapshots = world.disk.list(&dir).unwrap();
    let snapshots: Vec<_> = snapshots.iter().filter(|p| p.display().to_string().contains("/snapshot-")).collect();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    let files = world.disk.list(&snapshots[0].join("kv")).unwrap();
    assert!(files.iter().any(|f| f.extension().is_some_and(|e| e == "sst")), "{files:?}");

    let group = opened(&world, &dir, config).await;
    for id in sessions {
        assert!(has_session(&group, id).await, "{id}");
    }
    // A second one takes the place of the first.
    group.snapshot().await.unwrap();
    group.shutdown().await;
    let left = world.disk.list(&dir).unwrap();
    assert_eq!(left.iter().filter(|p| p.display().to_string().contains("/snapshot-")).count(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_lost_comes_back_from_snapshot_and_log() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let dir = dir_in(&temp);
    let config = GroupConfig { keep_log: 0, ..config() };
    let group = opened(&world, &dir, config.clone()).await;
    let before = session(&group, 1).await.unwrap();
    let upto = group.snapshot().await.unwrap();
    group.purged(upto).await;
    let after = session(&group, 2).await.unwrap();
    group.shutdown().await;
    drop(group);
    let name = String::from_utf8(world.disk.read_small(&dir.join("CURRENT"), 100).unwrap()).unwrap();
    let old = dir.join(format!("state-{}", name.trim()));
    world.disk.remove_dir_all(&old).unwrap();

    let group = opened(&world, &dir, config).await;
    assert!(has_session(&group, before).await && has_session(&group, after).await);
    group.shutdown().await;
    // Installing built a state beside the old one and switched to it.
    assert!(!world.disk.exists(&old).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_log_that_begins_behind_state_and_snapshot_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let dir = dir_in(&temp);
    let config = GroupConfig { keep_log: 0, ..config() };
    let group = opened(&world, &dir, config.clone()).await;
    session(&group, 1).await.unwrap();
    let upto = group.snapshot().await.unwrap();
    group.purged(upto).await;
    session(&group, 2).await.unwrap();
    let snapshot = group.state().newest_snapshot().unwrap().path().to_owned();
    group.shutdown().await;
    drop(group);
    // A snapshot whose META lost its contents is damage, not the snapshot of an empty state.
    let (meta, written) = (snapshot.join("META"), world.disk.read_small(&snapshot.join("META"), 4096).unwrap());
    world.disk.write_small(&meta, b"", SyncPoint("test")).unwrap();
    let refused = Group::open(&world, &dir, us(), config.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("META"), "{refused}");
    world.disk.write_small(&meta, &written, SyncPoint("test")).unwrap();

    let current = world.disk.read_small(&dir.join("CURRENT"), 100).unwrap();
    let state = dir.join(format!("state-{}", String::from_utf8_lossy(&current).trim()));
    world.disk.remove_dir_all(&state).unwrap();
    world.disk.remove_dir_all(&snapshot).unwrap();
    let refused = Group::open(&world, &dir, us(), config).await.unwrap_err();
    assert!(refused.to_string().contains("were purged from the log"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_log_shorter_than_what_was_applied_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let dir = dir_in(&temp);
    let group = opened(&world, &dir, config()).await;
    session(&group, 1).await.unwrap();
    group.shutdown().await;
    drop(group);
    {
        let entries = Space("entries");
        let kv = world.kv.open(&dir.join("log"), &[entries], KvOptions::default()).unwrap();
        let (last, _) = kv.last(entries).unwrap().unwrap();
        let mut batch = quarry_env::Batch::default();
        batch.delete(entries, last);
        kv.write(batch, Some(SyncPoint("test"))).unwrap();
    }
    let refused = Group::open(&world, &dir, us(), config()).await.unwrap_err();
    assert!(matches!(refused, GroupError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("the log ends at"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_empty_unfinished_and_foreign_directories_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let dir = dir_in(&temp);
    let again = Group::create(&world, &dir, me(), us(), first()).await.unwrap_err();
    assert!(matches!(again, GroupError::NotEmpty { .. }), "{again}");
    let empty = Group::open(&world, temp.path(), us(), config()).await.unwrap_err();
    assert!(matches!(empty, GroupError::NoGroup { .. }), "{empty}");

    let group_file = dir.join("GROUP");
    let written = world.disk.read_small(&group_file, 100).unwrap();
    let newer = String::from_utf8(written.clone()).unwrap().replace("format 1", "format 2");
    world.disk.write_small(&group_file, newer.as_bytes(), SyncPoint("test")).unwrap();
    let refused = Group::open(&world, &dir, us(), config()).await.unwrap_err();
    assert!(matches!(refused, GroupError::Newer { found: 2, known: 1, .. }), "{refused}");
    world.disk.write_small(&group_file, b"something else", SyncPoint("test")).unwrap();
    let refused = Group::open(&world, &dir, us(), config()).await.unwrap_err();
    assert!(matches!(refused, GroupError::Corrupt { .. }), "{refused}");

    world.disk.write_small(&group_file, &written, SyncPoint("test")).unwrap();
    opened(&world, &dir, config()).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_full_disk_refuses_and_a_stopped_group_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let dir = dir_in(&temp);
    let full = GroupConfig { reserve_bytes: u64::MAX, ..GroupConfig::default() };
    let group = opened(&world, &dir, full).await;
    let refused = session(&group, 1).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Full(_)), "{refused}");
    assert_eq!(quarry_proto::WireError::from(refused).code, ErrorCode::NoSpace);
    // Reading goes on.
    group.read().await.unwrap();
    let mut leader = group.leader();
    group.shutdown().await;
    leader.wait_for(|state| state.me_since_term.is_none()).await.unwrap();
    assert!(group.read().await.is_err());
    let stopped = ProposeError::Unavailable("x".into());
    assert_eq!(quarry_proto::WireError::from(stopped).code, ErrorCode::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_known_by_the_address_of_now() {
    let temp = tempfile::tempdir().unwrap();
    let world = created(&temp).await;
    let group = opened(&world, &dir_in(&temp), config()).await;
    assert_eq!(group.leader().borrow().leader.as_deref(), Some("master:9400"));
    let term = group.leader().borrow().me_since_term;
    // openraft says who leads before it says who the members are.
    three::until("the members are told", async || group.status().first().map(|m| m.term) == term).await;
    group.shutdown().await;
    drop(group);
    let moved = GroupConfig { advertise: Some("moved:1".into()), ..config() };
    let group = opened(&world, &dir_in(&temp), moved).await;
    assert_eq!(group.leader().borrow().leader.as_deref(), Some("moved:1"));
    let address = || group.status().first().map(|m| m.address.clone());
    three::until("the members are told", async || address().as_deref() == Some("moved:1")).await;
    group.shutdown().await;
}
