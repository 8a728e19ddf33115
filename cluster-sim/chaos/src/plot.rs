//! What short scenarios with a plot of their own have in common.

use std::time::Duration;

use quarry_client::{Client, ClientError};
use quarry_env::World;
use turmoil::Sim;

/// Within this everything has happened, in simulated time.
const LIMIT: Duration = Duration::from_secs(120);

/// Steps until it is so.
pub fn until(sim: &mut Sim<'_>, what: &str, is_so: impl Fn() -> bool) {
    while !is_so() {
        assert!(sim.elapsed() < LIMIT, "{what} does not come");
        sim.step().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Lets time go by.
pub fn pass(sim: &mut Sim<'_>, time: Duration) {
    let until = sim.elapsed() + time;
    while sim.elapsed() < until {
        sim.step().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Waits until so many chunkservers are up.
pub async fn servers_up(client: &Client, world: &World, count: usize) -> Result<(), ClientError> {
    while client.status().await?.chunkservers.iter().filter(|server| server.up).count() < count {
        world.clock.sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
