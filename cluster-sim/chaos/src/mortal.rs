//! A writer that is killed again and again.

use std::{sync::Arc, time::Duration};

use quarry_client::{ClientError, CreateMode, CreateOptions};
use quarry_env_sim::SimMachine;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    checkers::s1::Known,
    cluster::Outcome,
    data,
    worker::{Habits, Shared, connect},
};

/// Writes visible files, flushing now and then, until it is killed.
pub async fn write_until_killed(machine: SimMachine, seed: u64, habits: Habits, shared: Arc<Shared>) -> Outcome {
    let (client, world) = connect(&machine, &shared.masters).await?;
    let mut rng = ChaCha8Rng::seed_from_u64(world.random.next_u64());
    loop {
        let path = format!("/abandoned/{:x}", world.random.next_u64());
        let known = Known { data: data::bytes(seed ^ rng.random::<u64>(), 400_000).into(), at_least: 0 };
        let at = {
            let mut abandoned = shared.abandoned.lock().expect("no panic");
            abandoned.push((path.clone(), false, known.clone()));
            abandoned.len() - 1
        };
        let note = |flushed: usize| {
            let mut abandoned = shared.abandoned.lock().expect("no panic");
            abandoned[at].1 = true;
            abandoned[at].2.at_least = flushed;
        };
        let options = CreateOptions { mode: CreateMode::Visible, parents: true, ..CreateOptions::default() };
        let outcome: Result<(), ClientError> = async {
            let mut writer = client.create(&path, &options).await?;
            note(0);
            let mut at = 0;
            while at < known.data.len() {
                let to = (at + rng.random_range(1..60_000)).min(known.data.len());
                writer.write_bytes(known.data.slice(at..to)).await?;
                at = to;
                if rng.random_bool(0.3) {
                    writer.flush_durable().await?;
                    note(at);
                }
                world.clock.sleep(Duration::from_millis(rng.random_range(0..300))).await;
            }
            writer.finish().await?;
            note(at);
            Ok(())
        }
        .await;
        if let Err(error) = outcome {
            tracing::info!(path, %error, "a write failed");
            habits.passing(&path, &error)?;
        }
    }
}
