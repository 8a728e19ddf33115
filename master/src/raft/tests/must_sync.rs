//! Every single sync is needed, and together they are enough: with one left out, a power loss breaks a promise.

use std::path::Path;

use openraft::{RaftLogReader as _, storage::RaftLogStorage as _, vote::RaftLeaderId as _};
use quarry_env::SyncPoint;
use quarry_env_sim::{SimMachine, Synced};

use super::{
    super::log::LogStore,
    super::open::Stores,
    super::types::{LeaderId, Vote},
    power::{DIR, SEEDS, create, has_all, machine, open, run, work},
    *,
};
use crate::{
    identity,
    init::{InitConfig, init},
    store::{Layout, Mark, State},
    sync_points,
};

/// A way to say that something did not last.
type Broken = String;

/// Works on a machine, loses power, and says what is missing then.
type Scenario = fn(&SimMachine) -> Result<(), Broken>;

fn broken(error: impl std::fmt::Display) -> Broken {
    error.to_string()
}

/// `scenario` holds with all syncs in place whatever a power loss takes, and breaks without this one.
fn needed(point: SyncPoint, what: Synced, scenario: Scenario) {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let whole = machine(seed);
        let kept = scenario(&whole);
        assert_eq!(kept, Ok(()), "seed {seed}: broken with all syncs in place");
        assert!(whole.disk().syncs().contains(&(point, what)), "the scenario never makes this sync");

        let without = machine(seed);
        without.disk().skip_sync_of(point, what);
        lost += u64::from(scenario(&without).is_err());
    }
    assert!(lost > 0, "no power loss of {SEEDS} shows that {what:?} of {point:?} needs a sync");
}

/// One test for each sync, and the list of those that have one.
macro_rules! needed {
    ($(fn $test:ident(): $point:ident, $what:ident, $scenario:ident;)*) => {
        $(#[test]
        fn $test() {
            needed(sync_points::$point, Synced::$what, $scenario);
        })*

        const TESTED: &[(SyncPoint, Synced)] = &[$((sync_points::$point, Synced::$what)),*];
    };
}

needed! {
    fn s11_without_the_sync_of_a_data_directory_the_cluster_is_lost(): DATA_DIR, Names, a_new_cluster;
    fn s11_without_the_sync_of_the_cluster_key_it_is_lost(): KEY, File, a_new_cluster;
    fn s11_without_the_sync_of_the_cluster_keys_name_it_is_lost(): KEY, Names, a_new_cluster;
    fn s11_without_the_sync_of_the_identity_it_is_lost(): IDENTITY, File, a_new_cluster;
    fn s11_without_the_sync_of_the_identitys_name_it_is_lost(): IDENTITY, Names, a_new_cluster;
    fn s11_without_the_sync_of_a_new_group_it_is_lost(): GROUP_CREATED, File, acknowledged_commands;
    fn s11_without_the_sync_of_the_names_in_a_new_group_it_is_lost(): GROUP_CREATED, Names, acknowledged_commands;
    fn s11_without_the_sync_of_a_new_groups_own_name_it_is_lost(): GROUP_NAME, Names, acknowledged_commands;
    fn s11_without_the_sync_of_the_current_state_it_is_lost(): STATE_CURRENT, File, acknowledged_commands;
    fn s11_without_the_sync_of_the_current_states_name_an_installed_one_is_undone(): STATE_CURRENT, Names, an_installed_snapshot;
    fn s11_without_the_sync_of_a_vote_it_is_forgotten(): RAFT_VOTE, File, a_vote;
    fn s1_without_the_sync_of_appended_entries_commands_are_lost(): RAFT_APPEND, File, acknowledged_commands;
    fn s11_without_the_sync_of_a_snapshot_the_purged_log_is_missed(): SNAPSHOT_TAKEN, File, acknowledged_commands;
    fn s11_without_the_sync_of_the_names_in_a_snapshot_the_purged_log_is_missed(): SNAPSHOT_TAKEN, Names, acknowledged_commands;
    fn s11_without_the_sync_of_a_snapshots_own_name_the_purged_log_is_missed(): SNAPSHOT_NAME, Names, acknowledged_commands;
}

#[test]
fn every_sync_has_a_test_that_misses_it() {
    let mut made = Vec::new();
    for scenario in [a_new_cluster, acknowledged_commands, an_installed_snapshot, a_vote] as [Scenario; 4] {
        let machine = machine(1);
        scenario(&machine).unwrap();
        made.extend(machine.disk().syncs());
    }
    // The simulated store's own, and those of the setting here.
    made.retain(|(point, _)| ![quarry_env_sim::HOUSEKEEPING, SETTING].contains(point));
    made.sort_unstable();
    made.dedup();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(made, tested);
}

/// Syncs that a test makes for what its scenario takes for granted.
const SETTING: SyncPoint = SyncPoint("test");

/// A cluster that was made, in a directory whose parents were missing, can be started.
fn a_new_cluster(machine: &SimMachine) -> Result<(), Broken> {
    run(async {
        let world = machine.boot();
        world.disk.create_dir_durably(Path::new("/keys"), SETTING).unwrap();
        let config = InitConfig { key_file: "/keys/cluster.key".into(), ..InitConfig::new("/srv/quarry/master") };
        let made = init(&world, &config).await.unwrap();
        machine.power_loss();
        let world = machine.boot();
        let data = identity::open(&*world.disk, &config.data, &config.key_file).map_err(broken)?;
        assert_eq!(data.identity, made);
        let dir = config.data.join(identity::Identity::FIRST_GROUP);
        let group = Group::open(&world, &dir, us(), self::config()).await.map_err(broken)?;
        led(&group).await;
        group.shutdown().await;
        Ok(())
    })
}

/// Commands that were acknowledged around a snapshot with a purge are there again.
fn acknowledged_commands(machine: &SimMachine) -> Result<(), Broken> {
    run(async {
        create(machine).await.unwrap();
        machine.power_loss();
        let group = open(machine).await.map_err(broken)?;
        let acknowledged = work(&group).await;
        if acknowledged.len() < 12 {
            return Err("the group that was created does not work".into());
        }
        machine.power_loss();
        let group = open(machine).await.map_err(broken)?;
        has_all(&group, &acknowledged).await.map_err(|id| format!("{id} is missing"))
    })
}

/// The vote that was saved last is there again.
fn a_vote(machine: &SimMachine) -> Result<(), Broken> {
    let open = || {
        let world = machine.boot();
        let layout = Layout::new(&world, Path::new(DIR));
        (LogStore::open(&world, &layout, None, Stores::new().1).map_err(broken), layout)
    };
    let vote = |term| Vote { leader_id: LeaderId::new(term, 2), committed: false };
    run(async {
        machine.boot().disk.create_dir_durably(Path::new(DIR), SETTING).unwrap();
        let (log, layout) = open();
        layout.mark_created().unwrap();
        let mut log = log?;
        log.save_vote(&vote(2)).await.unwrap();
        log.save_vote(&vote(3)).await.unwrap();
        machine.power_loss();
        let found = open().0?.read_vote().await.map_err(broken)?;
        if found == Some(vote(3)) { Ok(()) } else { Err(format!("the vote is {found:?}")) }
    })
}

/// A snapshot that was installed stays the state.
fn an_installed_snapshot(machine: &SimMachine) -> Result<(), Broken> {
    let open = || {
        let world = machine.boot();
        State::open(&world, Layout::new(&world, Path::new(DIR)), Features::THIS_BUILD)
    };
    let mark = |index| Mark { index, raft: Vec::new() };
    machine.boot().disk.create_dir_durably(Path::new(DIR), SETTING).unwrap();
    let state = open().unwrap();
    state.layout.mark_created().unwrap();
    state.update(&mark(1), |_| Ok((Vec::new(), ()))).unwrap();
    let snapshot = state.take_snapshot().unwrap();
    state.update(&mark(2), |_| Ok((Vec::new(), ()))).unwrap();
    state.install(&snapshot).unwrap();
    machine.power_loss();
    let found = open().and_then(|state| state.mark()).map_err(broken)?;
    if found == Some(mark(1)) { Ok(()) } else { Err(format!("the state is at {found:?}")) }
}
