//! Asks the detector all the time, and has suspects looked for by their peers.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use quarry_env::Instant;
use quarry_master_core::{
    detector::{Health, HealthChange},
    running::LOOK_MAX,
};
use quarry_proto::v1;
use quarry_types::ServerId;

use crate::{
    repairing::Survey,
    shared::{Leading, Shared, Soft},
};

/// The detector is asked at least this often, and the clock looked at, which keeps it running.
const INTERVAL: Duration = Duration::from_millis(500);
/// A peer that was asked to reach a suspect has this long: it gives up after a second itself.
const SEARCH_DEADLINE: Duration = Duration::from_millis(1500);
/// Peers asked at once. Where so many servers are suspect that this is not enough, the brake holds.
const SEARCHES_MAX: usize = 256;

const _: () = assert!(INTERVAL.as_millis() < LOOK_MAX.as_millis());

/// Runs until the leadership ends.
pub(super) async fn run(shared: &Arc<Shared>, leading: &Arc<Leading>) {
    let mut searches = FuturesUnordered::new();
    loop {
        let (asks, pause) = look(shared, leading);
        let room = SEARCHES_MAX - searches.len().min(SEARCHES_MAX);
        searches.extend(asks.into_iter().take(room).map(|ask| search(shared, leading, ask)));
        let pause = shared.world.clock.sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                () = &mut pause => break,
                Some(()) = searches.next(), if !searches.is_empty() => {}
            }
        }
    }
}

/// A peer is asked to reach a server.
struct Ask {
    server: ServerId,
    address: String,
    peer: ServerId,
}

/// Takes note of what changed. Who is to be asked now, and when to look again.
fn look(shared: &Shared, leading: &Leading) -> (Vec<Ask>, Duration) {
    let (now, chance) = (shared.now(), shared.world.random.next_u64());
    let mut soft = leading.soft();
    let changes = soft.servers.health_changes(now);
    for change in &changes {
        changed(&mut soft, change, now);
    }
    let searches = soft.servers.searches(now, chance);
    let asks = searches.into_iter().flat_map(|search| {
        let (server, address) = (search.server, soft.servers.address(search.server).to_owned());
        search.peers.into_iter().map(move |peer| Ask { server, address: address.clone(), peer })
    });
    let asks = asks.collect();
    let next = soft.servers.next_deadline(now);
    drop(soft);
    for change in changes {
        tracing::info!(server = %change.server, from = change.from.word(), to = change.to.word(), "chunkserver's state");
    }
    (asks, next.map_or(INTERVAL, |at| at.since(now).clamp(INTERVAL / 10, INTERVAL)))
}

fn changed(soft: &mut Soft, change: &HealthChange, now: Instant) {
    let expected = soft.servers.is_expected_away(change.server);
    soft.repairing.health_changed(change, soft.servers.rack(change.server), expected, now);
    // Which chunks a server holds that was away all the time is known by the records only.
    let unknown = soft.locations.number(change.server).is_none();
    if unknown && change.from == Health::Partitioned && change.to == Health::Dead {
        soft.repairing.survey = Survey::BEGIN;
    }
}

/// Asks one peer and notes what it found.
async fn search(shared: &Shared, leading: &Leading, ask: Ask) {
    let Ask { server, address, peer } = ask;
    let peers = vec![v1::Member { server: server.to_bytes().into(), address }];
    let body = v1::command::Body::ProbePeers(v1::ProbePeers { peers });
    // A peer that does not answer says nothing about the other.
    let Ok(result) = leading.dispatch.call(peer, body, SEARCH_DEADLINE).await else { return };
    let found = |reached: &v1::Reached| reached.reached && reached.server == server.to_bytes().as_slice();
    let reached = result.reached.iter().any(found);
    tracing::debug!(%server, %peer, reached, "a peer looked for a suspect");
    if reached {
        leading.soft().servers.reached(server, shared.now());
    }
}
