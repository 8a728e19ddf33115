//! openraft's own tests of a log store and a state machine.

use std::sync::{Arc, Mutex};

use openraft::{
    StorageError,
    async_runtime::AsyncRuntime as _,
    testing::log::{StoreBuilder, Suite},
};
use quarry_env_sim::SimMachine;

use super::{
    super::digests::Digests, super::log::LogStore, super::machine::Machine, super::open::Stores, super::types::Runtime,
    super::types::Types, *,
};
use crate::store::{Layout, State};

/// The suite writes logs that were never applied and applies what is in no log, so the log is built without its guard
/// against purging what no snapshot has.
fn build(world: &World, dir: &std::path::Path) -> (LogStore, Machine) {
    let layout = Layout::new(world, dir);
    layout.prepare().unwrap();
    let state = State::open(world, layout.clone(), Features::THIS_BUILD).unwrap();
    let log = LogStore::open(world, &layout, None, Stores::new().1).unwrap();
    (log, Machine::new(world, Arc::clone(&state), Digests::new(world), Stores::new().1).unwrap())
}

struct OnRocks;

impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for OnRocks {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<Types>> {
        let temp = tempfile::tempdir().unwrap();
        let (log, machine) = build(&real(), &dir_in(&temp));
        Ok((temp, log, machine))
    }
}

/// All on one machine, so that a snapshot of one state can be installed in another.
struct OnSim(World, Mutex<u32>);

impl StoreBuilder<Types, LogStore, Machine> for OnSim {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<Types>> {
        let number = {
            let mut last = self.1.lock().unwrap();
            *last += 1;
            *last
        };
        let (log, machine) = build(&self.0, std::path::Path::new(&format!("/group-{number}")));
        Ok(((), log, machine))
    }
}

#[test]
fn openrafts_suite_passes_on_rocksdb() {
    Runtime::run(Suite::test_all(OnRocks)).unwrap();
}

#[test]
fn openrafts_suite_passes_on_simulated_stores() {
    let world = || SimMachine::new("m", 1).boot();
    Runtime::run(async { Suite::test_all(OnSim(world(), Mutex::default())).await }).unwrap();
}
