//! Ports for the processes of a local cluster.

use std::collections::BTreeSet;

use quarry_env::{Listener, World};
use quarry_types::limits::MASTER_PORT;

use crate::error::{CliError, Outcome};

/// Ports follow each other at this distance, from each other too.
const STEP: u16 = 10;
/// Where other ports are looked for: below those that the system gives to outgoing connections, so that none of
/// them takes a port while its server is stopped.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;
/// Ports tried before giving up.
const TRIES: usize = 200;

/// Ports that are free, and stay so until this is dropped.
pub struct Ports {
    /// The masters' first.
    pub numbers: Vec<u16>,
    _held: Vec<Box<dyn Listener>>,
}

/// Finds ports for the `count` processes of a new cluster. With `base` it is that one and its followers or an error; else the
/// defaults where they are free.
pub async fn pick(world: &World, base: Option<u16>, count: u16) -> Outcome<Ports> {
    if let Some(base) = base {
        let Some(numbers) = row(base, count) else {
            return Err(CliError::usage(format!("--base-port {base} leaves no ports for {count} processes")));
        };
        return hold(world, numbers).await.map_err(|(port, error)| {
            CliError::local(format!("port {port} of 127.0.0.1 is not free ({error}); give another --base-port"))
        });
    }
    if let Some(numbers) = row(MASTER_PORT, count)
        && let Ok(ports) = hold(world, numbers).await
    {
        return Ok(ports);
    }
    pick_any(world, usize::from(count), &BTreeSet::new()).await
}

/// Finds ports for chunkservers that join a cluster which uses `taken`.
pub async fn pick_more(world: &World, count: usize, taken: &BTreeSet<u16>) -> Outcome<Ports> {
    let after = taken
        .iter()
        .max()
        .map(|last| (1..=count).map(|i| u16::try_from(i).ok()?.checked_mul(STEP)?.checked_add(*last)));
    if let Some(numbers) = after.and_then(|ports| ports.collect::<Option<Vec<_>>>())
        && let Ok(ports) = hold(world, numbers).await
    {
        return Ok(ports);
    }
    pick_any(world, count, taken).await
}

fn row(base: u16, count: u16) -> Option<Vec<u16>> {
    (0..count).map(|i| i.checked_mul(STEP)?.checked_add(base)).collect()
}

async fn hold(world: &World, numbers: Vec<u16>) -> Result<Ports, (u16, std::io::Error)> {
    let mut held = Vec::new();
    for port in &numbers {
        held.push(world.net.bind(&format!("127.0.0.1:{port}")).await.map_err(|error| (*port, error))?);
    }
    Ok(Ports { numbers, _held: held })
}

async fn pick_any(world: &World, count: usize, taken: &BTreeSet<u16>) -> Outcome<Ports> {
    let (mut numbers, mut held) = (Vec::new(), Vec::new());
    for _ in 0..TRIES + count {
        if numbers.len() == count {
            return Ok(Ports { numbers, _held: held });
        }
        let offset = u16::try_from(world.random.below(u64::from(LAST - FIRST))).unwrap_or(0);
        let port = FIRST + offset;
        // A port that is held already cannot be bound again, so none comes twice.
        if !taken.contains(&port)
            && let Ok(listener) = world.net.bind(&format!("127.0.0.1:{port}")).await
        {
            numbers.push(port);
            held.push(listener);
        }
    }
    if numbers.len() == count {
        return Ok(Ports { numbers, _held: held });
    }
    Err(CliError::local(format!("found no {count} free ports from {FIRST} to {LAST}; give --base-port")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quarry_env::kv::NoKv;

    use super::*;

    #[tokio::test]
    async fn held_ports_are_distinct_and_refused_to_others() {
        let world = World::real(Arc::new(NoKv));
        let ports = pick_any(&world, 5, &BTreeSet::new()).await.unwrap();
        assert_eq!(ports.numbers.iter().collect::<BTreeSet<_>>().len(), 5);
        let refused = pick(&world, Some(ports.numbers[0]), 1).await.err().unwrap();
        assert!(refused.to_string().contains("--base-port"), "{refused}");
        let base = ports.numbers[0];
        drop(ports);
        assert_eq!(pick(&world, Some(base), 1).await.unwrap().numbers, [base]);
    }

    #[test]
    fn ports_follow_the_base_in_steps_of_ten() {
        assert_eq!(row(9400, 4), Some(vec![9400, 9410, 9420, 9430]));
        assert_eq!(row(65_000, 100), None);
    }
}
