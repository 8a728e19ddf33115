//! What clients write and delete, and how long they wait.

use quarry_master_core::{
    command::ServerWish,
    detector::Health,
    placement::{Request, place},
};
use rand::Rng as _;

use super::World;
use crate::{agenda::Event, chance::exponential, model::server::Server, units::SECOND};

/// A server that is busier than this is taken to be this busy: its queue is long, not endless.
const BUSIEST: f64 = 0.95;

impl World {
    /// What clients take of each server that runs, in bytes per second.
    pub(super) fn client_rate(&self) -> f64 {
        let all = self.workload.reads.0 as f64 + self.workload.writes.0 as f64 * f64::from(self.replicas);
        all / self.servers.len().max(1) as f64
    }

    /// How long clients wait for a server, in seconds, if its disks do so much besides.
    fn wait(&self, number: u16, copies: f64) -> f64 {
        let speeds = self.speeds();
        let busy = (speeds.clients + copies) / speeds.all_disks(number).max(1.0);
        let slow = self.server(number).map_or(1, |server| server.slow.max(1));
        self.model.service_time.0 as f64 / 1e6 * f64::from(slow) / (1.0 - busy.min(BUSIEST))
    }

    /// Copies slow down while clients wait; and how much longer they wait than without copies and trouble is measured.
    pub(super) fn observe_clients(&mut self) {
        if self.client_rate() <= 0.0 {
            return;
        }
        let all = self.model.disk_speed.0 as f64 * self.servers.first().map_or(1, |s| s.disks.len().max(1)) as f64;
        let usual = self.model.service_time.0 as f64 / 1e6 / (1.0 - (self.client_rate() / all).min(BUSIEST));
        let concerned: Vec<u16> = self.leader.lanes.union(&self.slow).copied().collect();
        let (mut longest, mut sum) = (usual, 0.0);
        for number in concerned {
            if !self.server(number).is_some_and(Server::serves) {
                continue;
            }
            let wait = self.wait(number, self.network.disk_rate(number));
            sum += wait / usual - 1.0;
            let latency_us = (wait * 1e6) as u64;
            let sick = self.vitals(number, latency_us).sickness();
            if self.leader.health(number) == Health::Alive {
                longest = longest.max(wait);
            }
            if let Some(candidate) = self.leader.candidate_mut(number) {
                (candidate.latency_us, candidate.sick) = (latency_us, sick);
            }
        }
        self.leader.budget.observe(std::time::Duration::from_secs_f64(longest), &self.leader.policy.clone());
        self.measures.slowdown.set(1.0 + sum / self.servers.len().max(1) as f64, self.now);
    }

    /// The next chunk that clients write comes after a while.
    pub(super) fn plan_write(&mut self) {
        let mean = u64::from(self.chunk_bytes).saturating_mul(SECOND).checked_div(self.workload.writes.0);
        if let Some(mean) = mean {
            let after = exponential(&mut self.clients, mean);
            self.plan(after, Event::Write);
        }
    }

    /// A client writes a chunk: the master's placement says where. Members that have gone without its knowledge are left out,
    /// as a writer does that goes on elsewhere.
    pub(super) fn write(&mut self) {
        self.plan_write();
        let leader = &self.leader;
        let request = Request {
            wanted: self.replicas.into(),
            min: leader.policy.min_replicas.min(self.replicas.into()),
            bytes: self.chunk_bytes.into(),
            avoid: Vec::new(),
            exclude: Vec::new(),
            weights: leader.policy.weights,
        };
        let placed = place(&leader.cluster.candidates, &request, &mut self.clients);
        let members: Vec<u16> =
            placed.unwrap_or_default().into_iter().filter_map(|server| self.leader.number(server)).collect();
        let there: Vec<u16> = members.into_iter().filter(|n| self.server(*n).is_some_and(Server::serves)).collect();
        let chunk =
            if there.len() < request.min as usize { None } else { self.chunks.add(self.chunk_bytes, self.replicas) };
        let Some(chunk) = chunk else {
            self.measures.refused += 1;
            return;
        };
        self.measures.written += 1;
        for number in &there {
            self.put_replica(chunk, *number);
        }
        let (wanted, readable) = (self.chunks.wanted(chunk), self.readable(chunk));
        if readable < wanted {
            self.measures.truth.change(wanted, wanted, readable);
            self.measures.truth.settle(self.now);
            self.leader.changed.insert(chunk);
            self.wake();
        }
        if self.workload.deletes {
            self.delete_some();
        }
        const ROUND: u64 = 1000;
        if self.measures.written.is_multiple_of(ROUND) {
            self.plan_balance();
        }
    }

    /// A client deletes a chunk.
    fn delete_some(&mut self) {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let chunk = self.clients.random_range(0..self.chunks.rows().max(1));
            if self.exists(chunk) {
                return self.delete(chunk);
            }
        }
    }

    /// Whether a server is emptied.
    #[must_use]
    pub fn is_draining(&self, number: u16) -> bool {
        self.leader.wish(number) == ServerWish::Draining
    }
}
