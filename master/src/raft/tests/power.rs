//! A group of one on a disk that forgets what was not synced, and one whose process is killed.

use std::path::Path;

use quarry_env::SyncPoint;
use quarry_env_sim::SimMachine;

use super::*;

pub(super) const DIR: &str = "/data/group";
/// Chance decides what a power loss takes: one of so many must show what a missing sync does.
pub(super) const SEEDS: u64 = 24;

/// Runs `work` on a clock that jumps to the next timer.
pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(work)
}

pub(super) fn machine(seed: u64) -> SimMachine {
    SimMachine::new("master", seed)
}

/// Creates the group, in a data directory as `init` makes it.
pub(super) async fn create(machine: &SimMachine) -> Result<(), GroupError> {
    let dir = Path::new(DIR);
    let made = machine.boot().disk.create_dir_durably(dir.parent().unwrap(), SyncPoint("test"));
    made.map_err(|e| GroupError::io(dir, e))?;
    Group::create(&machine.boot(), dir, me(), us(), first()).await
}

pub(super) async fn open(machine: &SimMachine) -> Result<Group, GroupError> {
    let config = GroupConfig { keep_log: 2, ..config() };
    let group = Group::open(&machine.boot(), Path::new(DIR), us(), config).await?;
    let mut leader = group.leader();
    let led = leader.wait_for(|state| state.me_since_term.is_some()).await.is_ok();
    if led { Ok(group) } else { Err(GroupError::Raft("stopped before it led".into())) }
}

/// Proposals until the power goes, with a snapshot on the way; returns what was acknowledged.
pub(super) async fn work(group: &Group) -> Vec<SessionId> {
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

/// Looks for everything in `acknowledged` and stops the group; an error is the first that is missing.
pub(super) async fn has_all(group: &Group, acknowledged: &[SessionId]) -> Result<(), SessionId> {
    let mut all = Ok(());
    for id in acknowledged {
        if all.is_ok() && !has_session(group, *id).await {
            all = Err(*id);
        }
    }
    group.shutdown().await;
    all
}

/// How many changes of the disk creating takes, and creating and working together.
fn changes() -> (u64, u64) {
    run(async {
        let machine = machine(1);
        create(&machine).await.unwrap();
        let created = machine.disk().changes();
        let group = open(&machine).await.unwrap();
        assert_eq!(work(&group).await.len(), 12);
        group.shutdown().await;
        (created, machine.disk().changes())
    })
}

/// Works until the disk stops after `point` changes, lets `fall` happen, and looks for what was acknowledged.
fn stopped_at(point: u64, seed: u64, fall: fn(&SimMachine)) {
    run(async {
        let machine = machine(seed);
        create(&machine).await.unwrap();
        machine.disk().power_off_after(point);
        let acknowledged = match open(&machine).await {
            Ok(group) => work(&group).await,
            Err(_) => Vec::new(),
        };
        fall(&machine);
        let group = open(&machine).await;
        let group = group.unwrap_or_else(|e| panic!("stopped after change {point}, seed {seed}: {e}"));
        let all = has_all(&group, &acknowledged).await;
        assert_eq!(all, Ok(()), "missing; stopped after change {point}, seed {seed}");
    });
}

#[test]
fn s1_the_power_may_go_at_any_change_of_the_disk() {
    let (created, all) = changes();
    assert!(all > created + 20, "the disk changes {created} and {all} times");
    for point in 0..all - created {
        for seed in 0..SEEDS {
            stopped_at(point, seed, SimMachine::power_loss);
        }
    }
}

#[test]
fn a_process_may_be_killed_at_any_change_of_the_disk() {
    let (created, all) = changes();
    for point in 0..all - created {
        stopped_at(point, point, SimMachine::kill);
    }
}

#[test]
fn s11_an_interrupted_creation_never_votes() {
    let (created, _) = changes();
    for point in 0..created {
        for seed in 0..SEEDS {
            run(async {
                let machine = machine(seed);
                machine.disk().power_off_after(point);
                let refused = create(&machine).await.unwrap_err();
                machine.power_loss();
                match open(&machine).await {
                    // Power went in the last sync, when everything was durable already.
                    Ok(group) => group.shutdown().await,
                    Err(GroupError::NoGroup { .. }) => {}
                    Err(other) => panic!("power off at change {point}, seed {seed} ({refused}): {other}"),
                }
            });
        }
    }
}

#[test]
fn a_run_repeats_exactly_from_its_seed() {
    let trace = |seed| {
        run(async {
            let machine = machine(seed);
            create(&machine).await.unwrap();
            let group = open(&machine).await.unwrap();
            let acknowledged = work(&group).await;
            let elapsed = group.world().clock.now();
            group.shutdown().await;
            (acknowledged, elapsed, machine.disk().changes(), machine.disk().files())
        })
    };
    assert_eq!(trace(3), trace(3));
    // A group of one elects itself at once, so that chance shows in the names of its directories.
    assert_ne!(trace(3), trace(4), "chance has no part in it");
}
