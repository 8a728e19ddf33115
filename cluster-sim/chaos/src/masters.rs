//! Making the group of masters: the first by `init`, each further one by `join` and the operator's word, as on real machines.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quarry_client::{Client, ClientConfig};
use quarry_env::{Disk as _, OpenMode, SyncPoint};
use quarry_env_sim::SimMachine;
use quarry_master::{InitConfig, JoinConfig, Master, MasterConfig, init, join};
use quarry_types::ClusterKey;

use crate::cluster::{MASTER_DATA, Outcome, Plan, builder};

/// The masters in the order in which they join, so that they have the numbers 1, 2 and 3.
pub const NAMES: [&str; 3] = ["master", "master2", "master3"];
/// The cluster's key on each of them.
pub const KEY_FILE: &str = "/cluster.key";
/// Between two looks at whether a master may vote.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What was put there before anything ran.
const BY_HAND: SyncPoint = SyncPoint("put there by hand");

/// Where others reach the master of this name.
pub fn address(name: &str) -> String {
    format!("{name}:9400")
}

/// Makes the cluster; the masters, without power, and the cluster's key.
pub fn create(seed: u64, plan: &Plan) -> (Vec<(&'static str, SimMachine)>, ClusterKey) {
    let names = NAMES.into_iter().take(plan.masters);
    let masters: Vec<_> = names.map(|name| (name, SimMachine::new(name, seed))).collect();
    let first = &masters[0].1;
    initialise(seed, plan, first);
    let text = quarry_env::Disk::read_small(first.disk(), Path::new(KEY_FILE), 4096).expect("init left a key");
    let key = ClusterKey::from_file(&String::from_utf8_lossy(&text)).expect("a key");
    if plan.masters > 1 {
        for (_, machine) in &masters[1..] {
            put_key(machine, &text);
        }
        grow(seed, plan, &masters);
    }
    for (_, machine) in &masters {
        machine.power_loss();
    }
    (masters, key)
}

fn initialise(seed: u64, plan: &Plan, first: &SimMachine) {
    let mut config =
        InitConfig { advertise: address(NAMES[0]), key_file: KEY_FILE.into(), ..InitConfig::new(MASTER_DATA) };
    for (name, value) in &plan.settings {
        config.settings.change(name, value).expect("settings that are there");
    }
    let mut sim = builder(seed).build();
    let machine = first.clone();
    sim.client(NAMES[0], async move {
        init::init(&machine.boot(), &config).await?;
        Ok(())
    });
    sim.run().expect("the cluster is created");
    first.power_loss();
}

fn put_key(machine: &SimMachine, text: &[u8]) {
    let path = Path::new(KEY_FILE);
    let put = || {
        let file = machine.disk().open(path, OpenMode::CreateNew)?;
        file.write_all_at(text, 0)?;
        file.sync_data(BY_HAND)?;
        machine.disk().sync_dir(Path::new("/"), BY_HAND)
    };
    put().expect("an empty disk takes a key");
}

/// Lets the others join, one after another, until all vote.
fn grow(seed: u64, plan: &Plan, masters: &[(&'static str, SimMachine)]) {
    let mut sim = builder(seed).build();
    let joined = Arc::new(AtomicUsize::new(0));
    for (place, (name, machine)) in masters.iter().cloned().enumerate() {
        let turn = Turn { place, joined: Arc::clone(&joined) };
        let config = plan.master(name);
        sim.host(name, move || serve(machine.clone(), config.clone(), turn.clone()));
    }
    let wanted: Vec<String> = masters.iter().skip(1).map(|(name, _)| address(name)).collect();
    let machine = SimMachine::new("founder", seed);
    sim.client("founder", add(machine, plan.addresses(), wanted));
    sim.run().unwrap_or_else(|e| panic!("seed {seed}: the group of masters is not made: {e}"));
    for (name, machine) in masters {
        machine.kill();
        sim.crash(*name);
    }
}

/// Members are numbered as they join, and that is to be in the order of their names.
#[derive(Clone)]
struct Turn {
    place: usize,
    joined: Arc<AtomicUsize>,
}

async fn serve(machine: SimMachine, config: MasterConfig, turn: Turn) -> Outcome {
    let world = machine.boot();
    if turn.place > 0 {
        while turn.joined.load(Ordering::Relaxed) + 1 < turn.place {
            world.clock.sleep(LOOK_EVERY).await;
        }
        let (data, key_file, masters) = (config.data.clone(), config.key_file.clone(), vec![address(NAMES[0])]);
        join::join(&world, &JoinConfig { data, key_file, masters }).await?;
        turn.joined.store(turn.place, Ordering::Relaxed);
    }
    let master = Master::start(world, config).await?;
    Err(master.failed().await.into())
}

/// Takes them into the group in their order, and lets them vote when they have caught up.
async fn add(machine: SimMachine, masters: Vec<String>, wanted: Vec<String>) -> Outcome {
    let world = machine.boot();
    let client = Client::connect(world.clone(), ClientConfig::new(masters.into_iter().take(1))).await?;
    for address in wanted {
        let number = loop {
            // It may still be joining.
            match client.add_master(&address).await {
                Ok(reply) => break reply.subject,
                Err(_) => world.clock.sleep(LOOK_EVERY).await,
            }
        };
        while client.promote_masters(&[number]).await.is_err() {
            world.clock.sleep(LOOK_EVERY).await;
        }
    }
    client.close().await?;
    Ok(())
}
