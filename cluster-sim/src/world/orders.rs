//! Copies and drops on their way, and what becomes of them.

use quarry_master_core::repair::queue::{Needless, Work};
use quarry_types::ServerId;

use super::World;
use crate::{
    agenda::Event,
    leader::at,
    model::{
        chunks::{Chunks, Place},
        network::{Capacity, Flow},
        server::Server,
    },
    scenario::Model,
};

/// However much clients take, copies have this share of a link.
const LEAST_SHARE: f64 = 0.1;

/// A copy under way, beside its flow.
#[derive(Clone, Debug)]
pub struct Copying {
    /// Its flow.
    flow: u32,
    /// Whom the budget was charged for.
    charged: ServerId,
    /// From whom it may come, best first.
    sources: Vec<u16>,
    /// It is made for a drain, for balancing, or for racks.
    moves: bool,
}

/// What links have for copies.
pub(super) struct Speeds<'a> {
    pub servers: &'a [Server],
    pub model: &'a Model,
    /// What clients take of each server, in bytes per second.
    pub clients: f64,
}

impl Speeds<'_> {
    fn left(&self, all: f64) -> f64 {
        (all - self.clients).max(all * LEAST_SHARE)
    }

    /// What a server's disks do, in bytes per second.
    pub fn all_disks(&self, number: u16) -> f64 {
        let Some(server) = self.servers.get(number as usize) else { return 0.0 };
        server.working_disks() as f64 * self.model.disk_speed.0 as f64 / f64::from(server.slow.max(1))
    }
}

impl Capacity for Speeds<'_> {
    fn disks(&self, server: u16) -> f64 {
        self.left(self.all_disks(server))
    }

    fn network(&self, _: u16) -> f64 {
        self.left(self.model.server_network.0 as f64)
    }

    fn rack(&self, _: u16) -> f64 {
        match self.model.rack_network.0 {
            0 => f64::INFINITY,
            rate => rate as f64,
        }
    }
}

impl World {
    pub(super) fn speeds(&self) -> Speeds<'_> {
        Speeds { servers: &self.servers, model: &self.model, clients: self.client_rate() }
    }

    /// Does something with the network, and plans anew when copies end.
    pub(super) fn with_network<T>(
        &mut self,
        act: impl FnOnce(&mut crate::model::network::Network, &Speeds<'_>) -> (T, Vec<u32>),
    ) -> T {
        let speeds = Speeds { servers: &self.servers, model: &self.model, clients: self.client_rate() };
        let (result, changed) = act(&mut self.network, &speeds);
        for flow in changed {
            if let Some(found) = self.network.get(flow) {
                self.agenda.plan(found.ends().max(self.now), Event::Copied { flow, turn: found.turn });
            }
        }
        result
    }

    fn measure_copies(&mut self, more: bool) {
        let now = if more { self.measures.copying_now + 1 } else { self.measures.copying_now.saturating_sub(1) };
        self.measures.copying_now = now;
        self.measures.copies_at_once = self.measures.copies_at_once.max(now);
    }

    /// A copy is ordered.
    pub(super) fn start_copy(&mut self, chunk: u32, to: ServerId, from: &[ServerId], urgent: bool) {
        let (id, now, bytes) = (Chunks::id(chunk), at(self.now), self.chunks.length(chunk));
        let sources: Vec<u16> = from.iter().filter_map(|source| self.leader.number(*source)).collect();
        let (Some(charged), Some(first)) = (from.first().copied(), sources.first().copied()) else { return };
        let Some(target) = self.leader.number(to) else { return };
        let leader = &mut self.leader;
        let moves = leader.queue.get(id).is_none_or(|entry| entry.need.missing == 0);
        let pace = leader.budget.pace(urgent, &leader.policy);
        leader.budget.start(charged, to, bytes, urgent, &leader.policy, now);
        leader.queue.copying(id, charged, to, now);
        leader.lanes.extend([first, target]);
        leader.refresh_copy_room(&[first, target], now);
        leader.cluster.give(to, bytes);
        leader.touched.insert(target);
        leader.orders += 1;
        self.measure_copies(true);
        // Whoever does not answer is passed over for the next source.
        let serves = |number: &u16| self.server(*number).is_some_and(Server::serves);
        let (source, reached) = match sources.iter().copied().find(serves) {
            Some(source) => (source, serves(&target)),
            None => (first, false),
        };
        let racks = (self.server(source).map_or(0, |s| s.rack), self.server(target).map_or(0, |s| s.rack));
        let begins = self.now + self.model.copy_overhead.0;
        let (flow, when) = (Flow::new(chunk, source, target, bytes, pace, begins), self.now);
        let flow = self.with_network(|network, speeds| network.start(flow, racks, when, speeds));
        self.copies.insert((chunk, target), Copying { flow, charged, sources, moves });
        if !reached {
            self.stall(flow);
        }
        self.measure_rate();
    }

    fn measure_rate(&mut self) {
        // The network's rates change with every copy; their sum is worked out at most once in a tick.
        const EVERY: u64 = 1_000_000;
        if self.now >= self.measured_at + EVERY || self.measures.copying_now == 0 {
            self.measured_at = self.now;
            let rate =
                if self.measures.copying_now == 0 { 0.0 } else { self.network.all().map(|(_, flow)| flow.rate).sum() };
            self.measures.copying.set(rate, self.now);
        }
    }

    fn stall(&mut self, flow: u32) {
        if let Some(turn) = self.network.stall(flow, self.now) {
            self.plan(self.model.copy_gives_up.0, Event::Abandoned { flow, turn });
        }
    }

    /// Copies from and to a server that has gone get no further.
    pub(super) fn stall_copies(&mut self, number: u16) {
        for flow in self.network.of_server(number) {
            self.stall(flow);
        }
    }

    /// A copy is over, however; what was known of it.
    fn end_copy(&mut self, flow: u32) -> Option<(Flow, Copying)> {
        let when = self.now;
        let ended = self.with_network(|network, speeds| match network.end(flow, when, speeds) {
            Some((flow, changed)) => (Some(flow), changed),
            None => (None, Vec::new()),
        })?;
        let copying = self.copies.remove(&(ended.chunk, ended.target))?;
        let target = self.server(ended.target)?.id;
        self.leader.budget.end(copying.charged, target);
        self.leader.orders = self.leader.orders.saturating_sub(1);
        self.measure_copies(false);
        self.measure_rate();
        self.wake();
        Some((ended, copying))
    }

    /// A copy that is not needed any more ends.
    pub(super) fn cancel(&mut self, needless: Needless) {
        let (chunk, Some(target)) = (Chunks::of(needless.chunk), self.leader.number(needless.target)) else { return };
        let Some(flow) = self.copies.get(&(chunk, target)).map(|copying| copying.flow) else { return };
        if let Some((flow, _)) = self.end_copy(flow) {
            self.measures.needless_copies += 1;
            self.measures.wasted_bytes += flow.done as u64;
        }
    }

    /// The other end of a copy did not come back.
    pub(super) fn abandoned(&mut self, flow: u32, turn: u32) {
        let Some(found) = self.network.current(flow, turn) else { return };
        let gone = [found.source, found.target].into_iter().find(|n| !self.server(*n).is_some_and(Server::serves));
        let who = gone.unwrap_or(found.target);
        if let Some((ended, _)) = self.end_copy(flow) {
            self.copy_failed(&ended, who, "a server does not answer");
        }
    }

    fn copy_failed(&mut self, flow: &Flow, who: u16, how: &str) {
        self.measures.failed_copies += 1;
        self.measures.wasted_bytes += flow.done as u64;
        let who = self.server(who).map(|server| server.id);
        self.leader.queue.failed(Chunks::id(flow.chunk), who, how.into(), at(self.now));
        if let Some(next) = self.leader.queue.get(Chunks::id(flow.chunk)).and_then(|entry| entry.next) {
            self.leader.waits.insert(crate::leader::micros(next));
        }
        self.leader.changed.insert(flow.chunk);
        self.wake();
    }

    /// All bytes of a copy have come.
    pub(super) fn copied(&mut self, flow: u32, turn: u32) {
        if self.network.current(flow, turn).is_none() {
            return;
        }
        let Some((flow, copying)) = self.end_copy(flow) else { return };
        if !self.is_whole(&flow, &copying) {
            return self.copy_failed(&flow, flow.source, "no whole replica among the sources");
        }
        if !self.add_replica(flow.chunk, flow.target) {
            return self.copy_failed(&flow, flow.target, "no room on any disk");
        }
        let bytes = self.chunks.length(flow.chunk);
        self.measures.copies += 1;
        *(if copying.moves { &mut self.measures.moved_bytes } else { &mut self.measures.repaired_bytes }) += bytes;
        self.leader.queue.done(Chunks::id(flow.chunk), at(self.now));
        self.leader.changed.insert(flow.chunk);
    }

    /// Whether the sources give a whole replica together: a whole one, or two bad ones that are bad at different places. Bad ones
    /// that were read are found out.
    fn is_whole(&mut self, flow: &Flow, copying: &Copying) -> bool {
        let order = std::iter::once(flow.source).chain(copying.sources.iter().copied().filter(|n| *n != flow.source));
        let mut bad = 0;
        for number in order.collect::<Vec<u16>>() {
            let place = self.chunks.at(flow.chunk, number);
            let Some(place) = place.filter(|_| self.server(number).is_some_and(Server::serves)) else { continue };
            if !place.is_rotten() {
                return true;
            }
            bad += 1;
            self.find_rot(flow.chunk, number);
        }
        bad >= 2
    }

    /// A replica is to be dropped.
    pub(super) fn start_drop(&mut self, chunk: u32, from: ServerId) {
        let Some(number) = self.leader.number(from) else { return };
        let bytes = self.chunks.length(chunk);
        self.leader.queue.dropping(Chunks::id(chunk), from);
        self.leader.drops.insert((chunk, number));
        self.leader.cluster.take(from, bytes);
        self.leader.touched.insert(number);
        self.leader.orders += 1;
        self.plan(self.model.drop_time.0, Event::Dropped { chunk, server: number });
    }

    /// The time of a drop is over.
    pub(super) fn dropped(&mut self, chunk: u32, number: u16) {
        self.leader.orders = self.leader.orders.saturating_sub(1);
        let (id, now) = (Chunks::id(chunk), at(self.now));
        let there = self.server(number).is_some_and(|server| server.beats());
        if !self.leader.drops.contains(&(chunk, number)) {
            // A new registration has settled it: the report shows the replica, and it counts again.
            let ours =
                |work: &Work| matches!(work, Work::Dropping { server } if self.leader.number(*server) == Some(number));
            if self.leader.queue.get(id).is_some_and(|entry| ours(&entry.work)) {
                self.leader.queue.failed(id, None, "the server registered anew".into(), now);
            }
        } else if there {
            self.leader.drops.remove(&(chunk, number));
            self.remove_replica(chunk, number);
            self.measures.truth.settle(self.now);
            self.check_lost(chunk);
            self.measures.drops += 1;
            self.leader.queue.done(id, now);
        } else {
            let who = self.server(number).map(|server| server.id);
            self.leader.queue.failed(id, who, "the server does not answer".into(), now);
        }
        self.leader.changed.insert(chunk);
        self.wake();
    }

    /// The replicas that a chunk has, for tests and reports.
    #[must_use]
    pub fn holders(&self, chunk: u32) -> Vec<u16> {
        self.chunks.places(chunk).map(Place::server).collect()
    }
}
