//! One member goes on alone.

use std::{path::Path, time::Duration};

use quarry_env::clock::timeout;
use quarry_master_core::{command::LineageCause, rows::Hold};
use quarry_types::Lineage;

use super::{
    super::alone::{self, Beginning, Origin},
    three::{LIMIT, Member, session_is_here, three},
    *,
};
use crate::{
    identity::{self, Identity},
    init::{InitConfig, init},
    recover::{RecoverConfig, recover},
};

fn beginning(dir: &Path) -> Beginning {
    Beginning {
        origin: Origin::Member(dir.to_owned()),
        cause: LineageCause::Recovered,
        number: None,
        address: "alone:1".into(),
    }
}

async fn lineage_and_hold(group: &Group) -> (Lineage, Option<Hold>) {
    let view = group.read().await.unwrap();
    group
        .blocking(move || {
            view.at_once(|tables| (query::cluster(tables).unwrap().unwrap().lineage, query::hold(tables).unwrap()))
        })
        .await
}

/// Starts to lead in a directory that was made by [`alone::begin`].
async fn alone(world: &World, dir: &Path) -> Group {
    let group = Group::open(world, dir, us(), config()).await.unwrap();
    timeout(&*world.clock, LIMIT, led(&group)).await.unwrap();
    group
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_s11_a_survivor_goes_on_alone_with_all_that_it_has_and_as_nobody_of_the_old_group() {
    let temp = tempfile::tempdir().unwrap();
    let [first, second, third] = three(&temp).await;
    let mut sessions = Vec::new();
    for n in 0..20 {
        sessions.push(session(&first.group, n).await.unwrap());
    }
    second.has(*sessions.last().unwrap()).await;
    let (world, old, me) = second.stop().await;
    let (first, third) = (first.stop().await, third.stop().await);

    let (found, others) = alone::members(&world, &old).await.unwrap();
    assert_eq!(found, me);
    assert_eq!(others, [first.2.clone(), third.2.clone()]);
    let dir = temp.path().join("alone");
    let begun = alone::begin(&world, &dir, us(), beginning(&old)).await.unwrap();
    assert!(begun.node.0 > 1_000_000 && begun.lineage.number == 2, "{begun:?}");
    let group = alone(&world, &dir).await;
    let (lineage, hold) = lineage_and_hold(&group).await;
    assert_eq!((lineage, hold.unwrap().cause), (begun.lineage, LineageCause::Recovered));
    let members = group.status();
    assert_eq!(members.iter().map(|m| (m.id, m.address.as_str())).collect::<Vec<_>>(), [(begun.node.0, "alone:1")]);
    for id in &sessions {
        assert!(session_is_here(&group, *id).await, "{id} was acknowledged");
        assert!(!has_session(&group, *id).await, "and has ended with its lineage");
    }
    session(&group, 99).await.unwrap();
    group.shutdown().await;
    drop(group);
    // It comes back as what it has become, and the old files are as they were.
    let group = alone(&world, &dir).await;
    assert_eq!(lineage_and_hold(&group).await.0, begun.lineage);
    group.shutdown().await;
    assert_eq!(alone::members(&world, &old).await.unwrap().1.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_entries_that_were_not_known_to_be_committed_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let [first, second, third] = three(&temp).await;
    session(&first.group, 1).await.unwrap();
    // The leader has lost its majority: what it is told now it only has in its log.
    let (_second, _third) = (second.stop().await, third.stop().await);
    let proposed = timeout(&*first.world.clock, Duration::from_secs(1), first.group.propose(open_session(2))).await;
    assert!(!matches!(proposed, Ok(Ok(_))), "nobody acknowledged it");
    let (world, old, _) = first.stop().await;
    let dir = temp.path().join("alone");
    alone::begin(&world, &dir, us(), beginning(&old)).await.unwrap();
    let group = alone(&world, &dir).await;
    assert!(session_is_here(&group, SessionId(2)).await);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_member_that_answers_anything_is_found_and_one_that_is_gone_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let [first, second, third] = three(&temp).await;
    let gone = third.stop().await.2;
    let ask =
        async |others: &[Node], limit| alone::first_to_answer(&first.world, &us(), NodeId(1), others, limit).await;
    let found = ask(&[gone.clone(), second.node.clone()], LIMIT).await;
    assert_eq!(found, Some(second.node.clone()));
    // Also one that is somebody else by now, and refuses.
    let other = Node { id: NodeId(7), address: second.node.address.clone() };
    assert_eq!(ask(std::slice::from_ref(&other), LIMIT).await, Some(other));
    assert_eq!(ask(&[gone], Duration::from_secs(1)).await, None);
    second.stop().await;
    first.stop().await;
}

/// A data directory, whose master has had another one in its group, and that other one.
async fn a_pair(temp: &tempfile::TempDir) -> (RecoverConfig, Member) {
    let (world, data) = (real(), temp.path().join("data"));
    let init_config = InitConfig::new(&data);
    init(&world, &init_config).await.unwrap();
    let opened = identity::open(&*world.disk, &data, &init_config.key_file).unwrap();
    let belonging = Belonging { cluster: opened.identity.cluster, key: opened.key.clone() };
    let first = Member::of(&data.join(Identity::FIRST_GROUP), NodeId(1), belonging.clone()).await;
    led(&first.group).await;
    let second = Member::another_of(temp, 2, belonging).await;
    second.promoted(&first.group).await;
    first.stop().await;
    let config = RecoverConfig { data, key_file: init_config.key_file, advertise: None, ask: Duration::from_secs(2) };
    (config, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_recovery_is_refused_while_another_answers_or_the_directory_is_in_use_and_switches_in_one_step() {
    let temp = tempfile::tempdir().unwrap();
    let (config, second) = a_pair(&temp).await;
    let world = real();
    let open = || identity::open(&*world.disk, &config.data, &config.key_file);
    let before = open().unwrap().identity;
    let refused = recover(&world, &config).await.unwrap_err().to_string();
    assert!(refused.contains("master m2") && refused.contains("answers"), "{refused}");
    second.stop().await;
    {
        let _running = open().unwrap();
        let refused = recover(&world, &config).await.unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
    }
    assert_eq!(open().unwrap().identity, before);
    // What an interrupted attempt left changes nothing.
    world.disk.create_dir_all(&config.data.join("group-00000005")).unwrap();
    let begun = recover(&world, &config).await.unwrap();
    let after = open().unwrap().identity;
    assert_eq!((after.node, after.cluster), (begun.node, before.cluster));
    assert_ne!(after.group_dir(), before.group_dir());
    let belonging = Belonging { cluster: after.cluster, key: open().unwrap().key.clone() };
    let group = Group::open(&world, &config.data.join(after.group_dir()), belonging, super::config()).await.unwrap();
    timeout(&*world.clock, LIMIT, led(&group)).await.unwrap();
    assert_eq!(lineage_and_hold(&group).await.0, begun.lineage);
    group.shutdown().await;
    drop(group);
    let again = recover(&world, &config).await.unwrap_err().to_string();
    assert!(again.contains("alone in its group"), "{again}");
}

const KILLED: &str = "raft::tests::alone::s11_a_kill_at_any_change_of_a_recovery_leaves_the_old_master_or_the_new";

fn recovery(data: &Path) -> RecoverConfig {
    let key_file = data.join(crate::config::KEY_FILE);
    RecoverConfig { data: data.to_owned(), key_file, advertise: None, ask: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_kill_at_any_change_of_a_recovery_leaves_the_old_master_or_the_new() {
    if let (Ok(dir), Ok(at)) = (std::env::var(killed::DIR), std::env::var(killed::AT)) {
        println!();
        recover(&killed::braked(at.parse().unwrap()), &recovery(Path::new(&dir))).await.unwrap();
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (config, second) = a_pair(&temp).await;
    second.stop().await;
    let world = real();
    let (mut old, mut new, mut over) = (0, 0, false);
    for at in 0..killed::CHANGES_MAX {
        let data = temp.path().join(format!("at-{at}"));
        killed::copy(&config.data, &data);
        let stopped = killed::killed(KILLED, &data, at).1;
        let config = recovery(&data);
        let open = || identity::open(&*world.disk, &config.data, &config.key_file).unwrap();
        if open().identity.node == NodeId(1) {
            old += 1;
            let again = recover(&world, &config).await;
            again.unwrap_or_else(|e| panic!("killed before {stopped:?} (change {at}): {e}"));
        } else {
            new += 1;
        }
        let identity = open().identity;
        let belonging = Belonging { cluster: identity.cluster, key: open().key.clone() };
        let group = Group::open(&world, &data.join(identity.group_dir()), belonging, super::config()).await;
        let group = group.unwrap_or_else(|e| panic!("killed before {stopped:?} (change {at}): {e}"));
        timeout(&*world.clock, LIMIT, led(&group)).await.unwrap();
        let (lineage, hold) = lineage_and_hold(&group).await;
        assert!(lineage.number == 2 && hold.is_some(), "killed before {stopped:?} (change {at})");
        group.shutdown().await;
        drop(group);
        world.disk.remove_dir_all(&data).unwrap();
        over = stopped.is_none();
        if over {
            break;
        }
    }
    println!("killed {old} times before the switch and {new} times behind it");
    assert!(over && old > 20 && new > 0, "{old} {new}");
}
