//! A group of one on a disk that forgets what was not synced. Each sync point has a test that fails without it.

use std::path::Path;

use openraft::{RaftLogReader as _, storage::RaftLogStorage as _, vote::RaftLeaderId as _};
use quarry_env::SyncPoint;
use quarry_env_sim::SimMachine;

use super::{
    super::log::LogStore,
    super::open::Stores,
    super::types::{LeaderId, Vote},
    *,
};
use crate::store::Layout;

const DIR: &str = "/data/group";
/// Chance decides what a power loss takes: one of so many must show what a missing sync does.
const SEEDS: u64 = 24;

/// Runs `work` on a clock that jumps to the next timer.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(work)
}

fn machine(seed: u64, skip: Option<&'static str>) -> SimMachine {
    let machine = SimMachine::new("master", seed);
    if let Some(skip) = skip {
        machine.disk().skip_sync(SyncPoint(skip));
    }
    machine
}

async fn create(machine: &SimMachine) -> Result<(), GroupError> {
    Group::create(&machine.boot(), Path::new(DIR), me(), first()).await
}

async fn open(machine: &SimMachine) -> Result<Group, GroupError> {
    let config = GroupConfig { keep_log: 2, ..config() };
    let group = Group::open(&machine.boot(), Path::new(DIR), config).await?;
    let mut leader = group.leader();
    let led = leader.wait_for(|state| state.me_since_term.is_some()).await.is_ok();
    if led { Ok(group) } else { Err(GroupError::Raft("stopped before it led".into())) }
}

/// Proposals until the power goes, with a snapshot on the way; returns what was acknowledged.
async fn work(group: &Group) -> Vec<SessionId> {
    let mut acknowledged = Vec::new();
    for n in 0..12 {
        if n == 6 && group.snapshot().await.is_err() {
            break;
        }
        match session(group, n).await {
            Ok(id) => acknowledged.push(id),
            Err(_) => break,
        }
    }
    acknowledged
}

/// What of `acknowledged` is missing after a power loss; an error when the group does not even open.
async fn missing(machine: &SimMachine, acknowledged: &[SessionId]) -> Result<usize, GroupError> {
    machine.power_loss();
    let group = open(machine).await?;
    let mut missing = 0;
    for id in acknowledged {
        missing += usize::from(!has_session(&group, *id).await);
    }
    group.shutdown().await;
    Ok(missing)
}

/// Creates, works, loses power, and looks. Whether everything that was acknowledged is there again.
fn survives(seed: u64, skip: Option<&'static str>) -> bool {
    run(async {
        let machine = machine(seed, skip);
        create(&machine).await.unwrap();
        machine.power_loss();
        let Ok(group) = open(&machine).await else { return false };
        let acknowledged = work(&group).await;
        assert_eq!(acknowledged.len(), 12);
        missing(&machine, &acknowledged).await.is_ok_and(|missing| missing == 0)
    })
}

#[test]
fn s1_acknowledged_commands_survive_power_loss() {
    for seed in 0..SEEDS {
        assert!(survives(seed, None), "seed {seed}");
    }
}

#[test]
fn s1_without_the_sync_of_appended_entries_commands_are_lost() {
    assert!((0..SEEDS).any(|seed| !survives(seed, Some("raft-append"))));
}

#[test]
fn s11_without_the_sync_of_a_new_group_it_is_lost() {
    assert!((0..SEEDS).any(|seed| !survives(seed, Some("group-created"))));
}

#[test]
fn s11_without_the_sync_of_the_current_state_it_is_lost() {
    assert!((0..SEEDS).any(|seed| !survives(seed, Some("state-current"))));
}

#[test]
fn s11_without_the_sync_of_a_snapshot_the_purged_log_is_missed() {
    assert!((0..SEEDS).any(|seed| !survives(seed, Some("snapshot-taken"))));
}

/// Whether a vote that was saved is there after a power loss.
fn vote_survives(seed: u64, skip: Option<&'static str>) -> bool {
    run(async {
        let machine = machine(seed, skip);
        let open = || {
            let world = machine.boot();
            let layout = Layout::new(&world, Path::new(DIR));
            world.disk.create_dir_all(layout.dir()).unwrap();
            LogStore::open(&world, &layout, None, Stores::new().1).unwrap()
        };
        let vote = Vote { leader_id: LeaderId::new(3, 2), committed: false };
        open().save_vote(&vote).await.unwrap();
        machine.power_loss();
        open().read_vote().await.unwrap() == Some(vote)
    })
}

#[test]
fn s11_a_vote_survives_power_loss_and_only_by_its_sync() {
    assert!((0..SEEDS).all(|seed| vote_survives(seed, None)));
    assert!((0..SEEDS).any(|seed| !vote_survives(seed, Some("raft-vote"))));
}

/// How many changes of the disk creating takes, and creating and working together.
fn changes() -> (u64, u64) {
    run(async {
        let machine = machine(1, None);
        create(&machine).await.unwrap();
        let created = machine.disk().changes();
        let group = open(&machine).await.unwrap();
        assert_eq!(work(&group).await.len(), 12);
        group.shutdown().await;
        (created, machine.disk().changes())
    })
}

#[test]
fn s1_the_power_may_go_at_any_change_of_the_disk() {
    let (created, all) = changes();
    for point in created..all {
        run(async {
            let machine = machine(point, None);
            create(&machine).await.unwrap();
            machine.disk().power_off_after(point - created);
            let acknowledged = match open(&machine).await {
                Ok(group) => work(&group).await,
                Err(_) => Vec::new(),
            };
            let lost = missing(&machine, &acknowledged).await;
            assert!(matches!(lost, Ok(0)), "power off at change {point}: {lost:?} of {acknowledged:?}");
        });
    }
}

#[test]
fn a_process_may_be_killed_at_any_change_of_the_disk() {
    let (created, all) = changes();
    for point in created..all {
        run(async {
            let machine = machine(point, None);
            create(&machine).await.unwrap();
            machine.disk().power_off_after(point - created);
            let acknowledged = match open(&machine).await {
                Ok(group) => work(&group).await,
                Err(_) => Vec::new(),
            };
            machine.kill();
            let group = open(&machine).await.unwrap();
            for id in acknowledged {
                assert!(has_session(&group, id).await, "killed at change {point}: {id} is missing");
            }
            group.shutdown().await;
        });
    }
}

#[test]
fn s11_an_interrupted_creation_never_votes() {
    let (created, _) = changes();
    for point in 0..created {
        run(async {
            let machine = machine(point, None);
            machine.disk().power_off_after(point);
            let refused = create(&machine).await.unwrap_err();
            machine.power_loss();
            match open(&machine).await {
                // Power went in the last sync, when everything was durable already.
                Ok(group) => group.shutdown().await,
                Err(GroupError::NoGroup { .. }) => {}
                Err(other) => panic!("power off at change {point} ({refused}): {other}"),
            }
        });
    }
}

#[test]
fn a_run_repeats_exactly_from_its_seed() {
    let trace = |seed| {
        run(async {
            let machine = machine(seed, None);
            create(&machine).await.unwrap();
            let group = open(&machine).await.unwrap();
            let acknowledged = work(&group).await;
            let elapsed = group.world().clock.now();
            group.shutdown().await;
            (acknowledged, elapsed, machine.disk().changes(), machine.disk().files())
        })
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3).1, trace(4).1, "chance has no part in it");
}
