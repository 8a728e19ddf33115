//! Someone who drains servers, takes them into maintenance and evens them out while everything fails; and who waits in the end
//! until the cluster is as it should be.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quarry_client::{Client, ClientError, ErrorCode};
use quarry_env::World;
use quarry_env_sim::SimMachine;
use quarry_proto::v1::ServerWish;
use quarry_types::ServerId;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    books::Books,
    cluster::Outcome,
    settled::unsettled,
    worker::{Shared, connect, leave, passing},
};

/// How long a healed cluster may take: a server that came and went too often is not trusted for up to five minutes, and then
/// what was spared for its sake is dropped.
pub const SETTLE_DEADLINE: Duration = Duration::from_secs(700);
/// For so long nothing may move once it has settled.
const CALM: Duration = Duration::from_secs(20);

struct Operator {
    client: Client,
    world: World,
    rng: ChaCha8Rng,
    books: Arc<Books>,
    /// Servers of which one may stay drained at the end: each rack that is left then has another one.
    may_empty: usize,
}

/// An operator's life in the simulation.
pub async fn operate(name: &'static str, seed: u64, racks: usize, shared: Arc<Shared>) -> Outcome {
    let (client, world) = connect(&SimMachine::new(name, seed), &shared.masters).await?;
    let books = Arc::clone(&shared.books);
    let rng = ChaCha8Rng::seed_from_u64(seed ^ u64::from(crc32fast::hash(name.as_bytes())));
    let mut operator = Operator { client, world, rng, books, may_empty: racks };
    while !shared.healed.load(Ordering::Relaxed) {
        operator.pause(8000).await;
        match operator.deed().await {
            // Two wishes that contradict one another are refused.
            Err(error) if error.code() == ErrorCode::Conflict => {}
            Err(error) => passing("an operator", &error)?,
            Ok(()) => {}
        }
    }
    operator.bring_to_rest().await
}

impl Operator {
    async fn pause(&mut self, most_ms: u64) {
        self.world.clock.sleep(Duration::from_millis(self.rng.random_range(0..most_ms))).await;
    }

    async fn deed(&mut self) -> Result<(), ClientError> {
        match self.rng.random_range(0..8) {
            0..=4 => {
                let server = self.rng.random_range(0..self.books.servers.len());
                // Mostly back to work, so that there are enough who work.
                let wish = match self.rng.random_range(0..6) {
                    0..=1 => ServerWish::Draining,
                    2 => ServerWish::Maintenance,
                    _ => ServerWish::Active,
                };
                self.wish(server, wish).await
            }
            5..=6 => self.client.rebalance(false, false).await.map(|_| ()),
            _ => self.client.release_brake().await.map(|_| ()),
        }
    }

    async fn wish(&mut self, server: usize, wish: ServerWish) -> Result<(), ClientError> {
        let lasting = Duration::from_secs(self.rng.random_range(1..20));
        let address = format!("{}:9410", self.books.servers[server].name);
        let status = self.client.status().await?;
        let Some(found) = status.chunkservers.iter().find(|one| one.address == address) else { return Ok(()) };
        let id = ServerId::from_bytes(&found.server).expect("the master names servers");
        tracing::info!(address, ?wish, "an operator wishes");
        self.client.set_server(id, wish, lasting).await.map(|_| ())
    }

    /// Takes all wishes back, but one sometimes, and waits until everything is as it should be and stays so.
    async fn bring_to_rest(&mut self) -> Outcome {
        let empty = self.rng.random_bool(0.4) && self.may_empty > 0;
        let emptied: Vec<usize> = empty.then(|| self.rng.random_range(0..self.may_empty)).into_iter().collect();
        for server in 0..self.books.servers.len() {
            let wish = if emptied.contains(&server) { ServerWish::Draining } else { ServerWish::Active };
            while let Err(error) = self.wish(server, wish).await {
                passing("an operator", &error)?;
                self.pause(500).await;
            }
        }
        let from = self.world.clock.now();
        let mut calm_since = None;
        // At rest is what stays so: whatever begins after the first calm moment, as balancing may, must come to its end as well.
        loop {
            let (now, counts) = (self.world.clock.now(), self.books.counts());
            let why = match (self.unrest(&emptied).await?, &calm_since) {
                (None, Some((since, before))) if (counts.copies, counts.drops) == *before => {
                    if now.since(*since) >= CALM {
                        tracing::info!(took = ?now.since(from), ?counts, "at rest");
                        return leave(&self.client).await;
                    }
                    None
                }
                (None, before) => {
                    let goes_on = before
                        .as_ref()
                        .map(|before| format!("copies and drops were {:?}, and are {counts:?}", before.1));
                    calm_since = Some((now, (counts.copies, counts.drops)));
                    goes_on
                }
                (why, _) => {
                    calm_since = None;
                    why
                }
            };
            if let Some(why) = why.filter(|_| now.since(from) > SETTLE_DEADLINE) {
                return Err(format!("S7: a healed cluster does not come to rest: {why}").into());
            }
            self.world.clock.sleep(Duration::from_secs(1)).await;
        }
    }

    /// What is not as it should be.
    async fn unrest(&self, emptied: &[usize]) -> Result<Option<String>, Box<dyn std::error::Error>> {
        let ledger = match self.client.repairs(20, false).await {
            Ok(ledger) => ledger,
            Err(error) => {
                passing("an operator", &error)?;
                return Ok(Some(error.to_string()));
            }
        };
        if ledger.total > 0 || !ledger.incomplete.is_empty() {
            let rows = ledger.repairs.iter().map(|row| format!("c{}: {} {}", row.chunk, row.state, row.reason));
            return Ok(Some(format!("the ledger has {} {:?}", ledger.total, rows.collect::<Vec<_>>())));
        }
        // Between two rounds of moves the ledger is empty as well.
        match self.client.rebalance(true, false).await {
            Ok(balancing) if balancing.running => return Ok(Some(format!("balancing: {}", balancing.reason))),
            Ok(_) => {}
            Err(error) => {
                passing("an operator", &error)?;
                return Ok(Some(error.to_string()));
            }
        }
        Ok(unsettled(&self.books, emptied))
    }
}
