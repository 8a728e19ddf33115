//! Evens out the servers: plans anew in each step, and says of a bounded number of replicas that they are to move. Repair makes
//! the copies and drops what is surplus then (S7). A chunk that is read much is looked at here, too.

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_master_core::{
    balance::{Limits, Plan, trigger},
    command::{Kind, PutSettings, Settings},
    detector::Health,
    query::{self, ChunkRecord},
    repair::{Cluster, Decision, Quality, assess, decide},
    settings::{BALANCE_ASKED, BALANCE_AUTOMATIC, HOT_KEEP, HOT_READS},
};
use quarry_types::{ChunkId, ServerId};

use crate::{
    balancing::{BY_REQUEST, Move, Obstacle, fills},
    error::Fault,
    repairing,
    shared::{Leading, Shared, Soft},
};

/// Servers whose chunks are looked at in one step.
const PAGES: usize = 4;
/// Chunks of one server looked at in one step.
const PAGE: usize = 256;
/// Servers that a chunk is offered to.
const OFFERS: usize = 3;
/// Where nothing could be moved although it should, it is tried again after this.
const REST: Duration = Duration::from_secs(600);

/// One step.
pub(super) async fn step(shared: &Shared, leading: &Leading) -> Result<bool, Fault> {
    let settings = shared.peek(query::settings).await?;
    let planned = move_some(shared, leading, &settings).await?;
    // Where moves could be planned, what was asked for has begun.
    if planned && settings.get(&BALANCE_ASKED) != 0 && leading.soft().repairing.balancing.run.is_none() {
        forget_wish(shared, leading).await?;
    }
    Ok(false)
}

/// What an operator asked for is done, or cannot be done: the next leader does not begin it again.
async fn forget_wish(shared: &Shared, leading: &Leading) -> Result<(), Fault> {
    let _one_at_a_time = shared.changing_settings.lock().await;
    let mut settings = shared.read(query::settings).await?;
    // Somebody may have asked again meanwhile.
    if settings.get(&BALANCE_ASKED) == 0 || leading.soft().repairing.balancing.run.is_some() {
        return Ok(());
    }
    settings.set(&BALANCE_ASKED, 0);
    shared.propose(Kind::PutSettings(PutSettings { settings })).await.map(drop)
}

/// Plans moves, as far as there is something to move; whether moves could be planned.
async fn move_some(shared: &Shared, leading: &Leading, settings: &Settings) -> Result<bool, Fault> {
    let pages = {
        let (mut soft, now) = (leading.soft(), shared.now());
        look_at_hot(&mut soft, settings, now);
        soft.repairing.balancing.settle(now);
        soft.give_up_stuck_moves(now);
        soft.meet_places(now);
        // What is moved is dropped in the end, and drops are held back.
        if leading.is_held() || !may_move(&soft, now) {
            return Ok(false);
        }
        let Some(plan) = next_plan(&mut soft, settings, now) else { return Ok(true) };
        pages(&soft, &plan)
    };

    let (pages, records) = shared
        .peek(move |tables| {
            let mut records = BTreeMap::new();
            for chunk in pages.iter().flat_map(|page| &page.chunks) {
                if let Some(record) = query::chunk(tables, *chunk)? {
                    records.insert(*chunk, record);
                }
            }
            Ok((pages, records))
        })
        .await?;
    let (mut soft, now) = (leading.soft(), shared.now());
    let plan = Plan::new(&fills(&soft, now), &Limits::of(settings));
    let mut step = Step { plan, cluster: repairing::cluster(&soft, now), now };
    for page in &pages {
        step.server(&mut soft, page, &records);
    }
    rest_if_spent(&mut soft, &step.plan, now);
    Ok(true)
}

/// Chunks that became hot, or are not any longer, are looked at by repair.
fn look_at_hot(soft: &mut Soft, settings: &Settings, now: Instant) {
    let busy = soft.repairing.balancing.busy(&soft.servers, now);
    let servers = &soft.servers;
    soft.repairing.balancing.hot.retain(|server| servers.health(server, now) != Health::Dead);
    let (readers, keep) = (settings.get(&HOT_READS), settings.duration(&HOT_KEEP));
    for chunk in soft.repairing.balancing.hot.look(readers, keep, &busy, now.0) {
        let hot = soft.repairing.balancing.hot.is_hot(chunk);
        tracing::info!(%chunk, hot, "how much a chunk is read changes how many replicas it gets for a while");
        soft.repairing.balancing.abandon(chunk);
        soft.locations.look_again(chunk);
    }
}

/// Nothing moves before the leader knows who has what, nor while too many servers are gone, nor while more is to be repaired than
/// the ledger has room for.
fn may_move(soft: &Soft, now: Instant) -> bool {
    let repairing = &soft.repairing;
    repairing.knows_all() && repairing.queue.room() > 0 && repairing.brake(&soft.servers, now).is_none()
}

/// What is to be moved: begins when a trigger is met, and ends when all is even.
fn next_plan(soft: &mut Soft, settings: &Settings, now: Instant) -> Option<Plan> {
    let (fills, limits) = (fills(soft, now), Limits::of(settings));
    let balancing = &mut soft.repairing.balancing;
    if balancing.run.is_none() && balancing.is_asked(settings) {
        tracing::info!("balancing begins that an operator asked an earlier leader for");
        balancing.run(BY_REQUEST.into());
    }
    if balancing.run.is_none() {
        if balancing.stopped || balancing.rests(now) || settings.get(&BALANCE_AUTOMATIC) == 0 || !balancing.is_quiet() {
            return None;
        }
        let why = trigger(&fills, &limits)?.to_string();
        tracing::info!(why, "balancing begins");
        balancing.run(why);
    }
    let plan = Plan::new(&fills, &limits);
    if plan.is_empty() && balancing.is_quiet() {
        let moved = balancing.run.as_ref().map_or(0, |run| run.moved);
        tracing::info!(moved, "balancing is done");
        balancing.end("the chunkservers are even".into());
    }
    (!plan.is_empty()).then_some(plan)
}

/// Chunks of one server.
struct Page {
    from: ServerId,
    chunks: Vec<ChunkId>,
    /// No more follow.
    last: bool,
}

/// The chunks to look at now.
fn pages(soft: &Soft, plan: &Plan) -> Vec<Page> {
    let (balancing, mut pages) = (&soft.repairing.balancing, Vec::new());
    for from in plan.sources() {
        let Some(cursor) = balancing.cursor(from).filter(|_| balancing.room(from) > 0) else { continue };
        let chunks = soft.locations.chunks_of(from, cursor, PAGE);
        let last = chunks.len() < PAGE;
        pages.push(Page { from, chunks, last });
        if pages.len() == PAGES {
            break;
        }
    }
    pages
}

/// A run ends when nothing of what could leave can move.
fn rest_if_spent(soft: &mut Soft, plan: &Plan, now: Instant) {
    let balancing = &mut soft.repairing.balancing;
    let spent = plan.sources().into_iter().all(|from| balancing.cursor(from).is_none());
    if spent && balancing.is_quiet() && balancing.run.is_some() {
        let how = balancing.rest(now.plus(REST));
        tracing::info!("balancing rests: {how}");
    }
}

/// What a step works with.
struct Step {
    plan: Plan,
    cluster: Cluster,
    now: Instant,
}

impl Step {
    /// Looks at chunks of a server, and says which are to move, as far as there is room for moves.
    fn server(&mut self, soft: &mut Soft, page: &Page, records: &BTreeMap<ChunkId, ChunkRecord>) {
        let (mut seen, mut found) = (None, false);
        for chunk in &page.chunks {
            let balancing = &soft.repairing.balancing;
            if balancing.room(page.from) == 0 || !self.plan.has_target(page.from, |to| balancing.takes(to)) {
                // Where nothing was looked at the next look begins where this one did.
                if seen.is_some() {
                    soft.repairing.balancing.looked(page.from, seen, found);
                }
                return;
            }
            // Without a byte it evens nothing out.
            if let Some(record) = records.get(chunk).filter(|record| record.length > 0) {
                match self.chunk(soft, page.from, *chunk, record) {
                    Ok(()) => found = true,
                    Err(obstacle) => drop(soft.repairing.balancing.obstacles.insert(obstacle)),
                }
            }
            seen = Some(*chunk);
        }
        soft.repairing.balancing.looked(page.from, seen.filter(|_| !page.last), found);
    }

    /// A replica is to move from now on if it is as it should be, and a server that should get more may take it.
    fn chunk(&mut self, soft: &mut Soft, from: ServerId, chunk: ChunkId, record: &ChunkRecord) -> Result<(), Obstacle> {
        let repairing = &soft.repairing;
        let taken = repairing.queue.get(chunk).is_some() || repairing.balancing.get(chunk).is_some();
        if taken || repairing.balancing.hot.is_hot(chunk) {
            return Err(Obstacle::Busy);
        }
        let facts = repairing::facts(soft, chunk, record, self.now);
        let here = facts.holders.iter().any(|h| h.server == from && h.is_safe() && h.quality == Quality::Good);
        if !here || !assess(&facts, self.cluster.racks.len()).is_met() {
            return Err(Obstacle::Busy);
        }
        let mut refused: Vec<ServerId> = facts.holders.iter().map(|holder| holder.server).collect();
        let mut obstacle = Obstacle::Held;
        for _ in 0..OFFERS {
            let balancing = &soft.repairing.balancing;
            let takes = |server| !refused.contains(&server) && balancing.takes(server);
            let to = self.plan.target(from, record.length, takes);
            let Some(to) = to else {
                let waits = self.plan.target(from, record.length, |server| !refused.contains(&server)).is_some();
                return Err(if waits { Obstacle::Busy } else { self.why_nowhere(from, record.length, obstacle) });
            };
            let planned = Move { from, to, bytes: record.length, since: self.now };
            soft.repairing.balancing.begin(chunk, planned);
            if self.would_go(soft, chunk, record) {
                self.plan.moved(from, to, record.length);
                tracing::debug!(%chunk, %from, %to, "balancing moves a replica");
                // It was as it should be: there is no copy that could be needless now.
                let _none = soft.look_at(chunk, Some(record), self.cluster.racks.len(), self.now);
                return Ok(());
            }
            soft.repairing.balancing.abandon(chunk);
            let rack = soft.servers.rack(to);
            let used = facts.holders.iter().any(|holder| holder.server != from && holder.rack == rack);
            obstacle = if used { Obstacle::Racks } else { Obstacle::Busy };
            refused.push(to);
        }
        Err(obstacle)
    }

    /// Why nobody is left to take so much. `obstacle`: why those that were asked do not.
    fn why_nowhere(&self, from: ServerId, bytes: u64, obstacle: Obstacle) -> Obstacle {
        if self.plan.target(from, bytes, |_| true).is_none() { Obstacle::Size } else { obstacle }
    }

    /// Whether repair would copy it there, now or as soon as others are done.
    fn would_go(&self, soft: &Soft, chunk: ChunkId, record: &ChunkRecord) -> bool {
        let question = soft.question(chunk, record, 0, self.now);
        match decide(&question, &self.cluster, &soft.repairing.policy).1 {
            Decision::Copy { .. } => true,
            Decision::Wait(reason) => reason.is_busy(),
            Decision::Nothing | Decision::Drop { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use quarry_master_core::balance::Fill;
    use quarry_types::ClusterKey;

    use super::*;

    #[test]
    fn where_all_targets_are_full_the_look_at_a_servers_chunks_goes_on_where_it_was() {
        const GB: u64 = 1 << 30;
        let [from, other, to] = [1, 2, 3].map(ServerId::from_random);
        let now = Instant(Duration::ZERO);
        let mut soft = Soft::new(ClusterKey::new([7; 32]));
        soft.repairing.balancing.looked(from, Some(ChunkId(4)), true);
        for chunk in 100.. {
            if !soft.repairing.balancing.takes(to) {
                break;
            }
            soft.repairing.balancing.begin(ChunkId(chunk), Move { from: other, to, bytes: 1, since: now });
        }
        let fill =
            |server, used| Fill { server, capacity: 100 * GB, used, leaving: 0, coming: 0, arrived: 0, takes: true };
        let fills = [fill(from, 60 * GB), fill(other, 30 * GB), fill(to, 0)];
        let plan = Plan::new(&fills, &Limits { band: 5, full: 85 });
        let mut step = Step { plan, cluster: Cluster::default(), now };
        step.server(&mut soft, &Page { from, chunks: vec![ChunkId(5)], last: true }, &BTreeMap::new());
        assert_eq!(soft.repairing.balancing.cursor(from), Some(ChunkId(5)));
    }
}
