//! The leader's tick: it looks at what changed, and decides about the most endangered chunks that can be worked on.

use quarry_master_core::{
    balance::{Plan, fill::Fill},
    detector::Health,
    placement::vitals::Vitals,
    repair::{ChunkFacts, Decision, Holder, Quality, Reason, assess, decide, decide::Question, queue::Work},
};
use quarry_types::Crc32;
use rand::RngCore as _;

use super::World;
use crate::{
    agenda::Event,
    leader::{BLOCKED_AGAIN, DECISIONS, LOOKS, ORDERS_MAX, TICK, at, micros},
    model::chunks::{Chunks, Place},
    units::Micros,
};

/// What became of the decisions of a tick.
#[derive(Clone, Copy, Debug, Default)]
struct Worked {
    decided: usize,
    waiting: usize,
    /// Those that wait for a copy to end or for budget.
    busy: usize,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    /// Something is done.
    Done,
    /// The chunk waits for its time, or for a change of the cluster.
    Waits,
    /// It waits for room.
    Busy,
}

impl Worked {
    fn note(&mut self, became: Became) {
        self.waiting += usize::from(became == Became::Waits);
        self.busy += usize::from(became == Became::Busy);
    }
}

impl World {
    /// The leader ticks at the next moment of its grid, at the latest.
    pub(super) fn wake(&mut self) {
        self.tick_by((self.now / TICK + 1) * TICK);
    }

    fn tick_by(&mut self, when: Micros) {
        if self.leader.tick_at.is_none_or(|planned| when < planned) {
            self.leader.tick_at = Some(when);
            self.agenda.plan(when, Event::Tick);
        }
    }

    /// One tick.
    pub(super) fn tick(&mut self) {
        if self.leader.tick_at != Some(self.now) {
            return;
        }
        self.leader.tick_at = None;
        let now = at(self.now);
        self.leader.refresh_room(&self.servers);
        self.observe_clients();
        self.leader.refresh_lanes(now);
        self.leader.look_at_brake(now);
        self.measure_brake();
        self.look();
        let worked = self.work();
        self.measures.ledger.set(self.leader.queue.len() as f64, self.now);
        self.plan_tick(worked);
    }

    /// Something is still to be looked at.
    fn has_to_look(&self) -> bool {
        let leader = &self.leader;
        !leader.walks.is_empty() || !leader.walk.is_empty() || !leader.changed.is_empty() || leader.survey.is_some()
    }

    /// When the next tick has something to do.
    fn plan_tick(&mut self, worked: Worked) {
        let next = self.now + TICK;
        if self.has_to_look() {
            return self.tick_by(next);
        }
        while self.leader.waits.first().is_some_and(|wait| *wait <= self.now) {
            self.leader.waits.pop_first();
        }
        let waits = self.leader.waits.first().copied();
        if let Some(round) = self.leader.queue.next_round() {
            self.tick_by(micros(round).max(next));
        }
        if worked.decided > 0 && worked.busy == worked.decided {
            // The answers stay the same until there is room again: a copy that ends wakes the leader, budget comes with time. The
            // master asks again every half second and sees the same.
            let room = self.now.saturating_add(self.leader.budget_again());
            return self.tick_by(waits.map_or(room, |wait| wait.min(room)).max(next));
        }
        // More may be due behind those that were taken.
        if worked.waiting < worked.decided || worked.decided >= DECISIONS {
            return self.tick_by(next);
        }
        if worked.decided > 0 {
            // All of it waits for its time or for a change of the cluster, and whatever changes wakes the leader.
            let again = self.now + BLOCKED_AGAIN;
            return self.tick_by(waits.unwrap_or(again).clamp(next, again));
        }
        if let Some(deadline) = self.leader.queue.next_deadline() {
            let blocked = self.now + BLOCKED_AGAIN;
            let due = micros(deadline).max(next);
            // Between two looks at what is blocked nothing else can be due earlier than what waits for its time.
            let due =
                if self.leader.balancing.is_quiet() { due.max(waits.unwrap_or(blocked).min(blocked)) } else { due };
            self.tick_by(due);
        }
    }

    fn measure_brake(&mut self) {
        let (holds, now) = (self.leader.cluster.brake.is_some(), self.now);
        match (self.measures.braked_from, holds) {
            (None, true) => {
                self.measures.braked_from = Some(now);
                let why = self.leader.cluster.brake.clone().unwrap_or_default();
                self.measures.timeline.add(now, || format!("the brake holds: {why}"));
            }
            (Some(from), false) => {
                self.measures.braked += now - from;
                self.measures.braked_from = None;
                self.measures.timeline.add(now, || "the brake holds no longer".into());
            }
            _ => {}
        }
    }

    /// Takes a fresh look at what changed, at servers whose chunks are all concerned, and goes on with the survey.
    fn look(&mut self) {
        let round = self.leader.queue.next_round();
        if self.leader.survey.is_none() && round.is_some_and(|round| round <= at(self.now)) {
            self.leader.survey = Some(0).filter(|_| self.chunks.rows() > 0);
        }
        let mut room = LOOKS;
        while room > 0 {
            let surveyed = self.leader.survey.is_some();
            let Some(chunk) = self.next_to_look() else { break };
            self.look_at(chunk);
            room -= 1;
            if surveyed && self.leader.survey.is_none() {
                self.leader.queue.round_ends(at(self.now));
            }
        }
    }

    fn next_to_look(&mut self) -> Option<u32> {
        if let Some(chunk) = self.leader.changed.pop_first() {
            return Some(chunk);
        }
        while self.leader.walk.is_empty()
            && let Some(number) = self.leader.walks.pop_first()
        {
            let mut held = self.server(number).map(|server| server.held.clone()).unwrap_or_default();
            held.extend(self.leader.remembered.get(&number).into_iter().flatten());
            held.sort_unstable_by(|a, b| b.cmp(a));
            self.leader.walk = held;
        }
        if let Some(chunk) = self.leader.walk.pop() {
            return Some(chunk);
        }
        let chunk = self.leader.survey?;
        if chunk == 0 {
            self.leader.queue.round_begins();
        }
        self.leader.queue.round_reaches(Chunks::id(chunk));
        self.leader.survey = chunk.checked_add(1).filter(|next| *next < self.chunks.rows());
        Some(chunk)
    }

    /// A chunk as the leader knows it.
    pub(super) fn facts(&self, chunk: u32) -> ChunkFacts {
        let leader = &self.leader;
        let moving = leader.balancing.get(chunk);
        let mut places: Vec<Place> = self.chunks.places(chunk).collect();
        places.sort_unstable_by_key(|place| place.server());
        let holder = |place: &Place| {
            let number = place.server();
            let (candidate, server) = (leader.candidate(number)?, self.server(number)?);
            Some(Holder {
                server: candidate.server,
                rack: candidate.rack.clone(),
                health: candidate.health,
                wish: candidate.wish,
                quality: if place.is_quarantined() { Quality::Quarantined } else { Quality::Good },
                reported: server.reported,
                leaving: moving.is_some_and(|moving| moving.from == number),
                dropping: !leader.drops.is_empty() && leader.drops.contains(&(chunk, number)),
            })
        };
        ChunkFacts {
            chunk: Chunks::id(chunk),
            length: self.chunks.length(chunk),
            crc: Crc32::EMPTY,
            wanted: self.chunks.wanted(chunk),
            extra: 0,
            toward: moving.and_then(|moving| leader.candidate(moving.to)).map(|candidate| candidate.server),
            holders: places.iter().filter_map(holder).collect(),
        }
    }

    /// Takes a fresh look at a chunk; what it is like, if it is there and something is to be done.
    pub(super) fn look_at(&mut self, chunk: u32) -> Option<ChunkFacts> {
        let (id, now) = (Chunks::id(chunk), at(self.now));
        if !self.exists(chunk) {
            self.leader.balancing.ended(chunk, self.now);
            let needless = self.leader.queue.forget(id, now)?;
            self.cancel(needless);
            return None;
        }
        let facts = self.facts(chunk);
        let need = assess(&facts, self.leader.cluster.racks.len());
        if need.is_met() {
            let leaving = facts.holders.iter().find(|holder| holder.leaving);
            if !leaving.is_some_and(|holder| holder.dropping) {
                self.leader.balancing.ended(chunk, self.now);
            }
        }
        let before = self.leader.queue.get(id).map(|entry| (entry.need.missing, entry.steps, entry.since));
        if let Some(needless) = self.leader.queue.assess(id, need, facts.length, now) {
            self.cancel(needless);
        }
        if let Some((missed, steps, since)) = before
            && missed > 0
            && need.missing == 0
            && steps > 0
        {
            self.measures.repair.add(micros(now.saturating_sub(since)));
        }
        (!need.is_met()).then_some(facts)
    }

    /// Decides about the most endangered chunks that can be worked on now.
    fn work(&mut self) -> Worked {
        let (now, mut worked) = (at(self.now), Worked::default());
        let room = ORDERS_MAX.saturating_sub(self.leader.orders).min(DECISIONS);
        for id in self.leader.queue.due(now, room) {
            let chunk = Chunks::of(id);
            let Some(facts) = self.look_at(chunk) else { continue };
            let Some(entry) = self.leader.queue.get(id).filter(|entry| entry.work == Work::None) else { continue };
            worked.decided += 1;
            // Whatever needs a copy now would be told to wait for the cluster's budget, at the price of a search for its target.
            if self.leader.cluster.budget <= 0 && entry.need.wants_copy() && self.leader.cluster.brake.is_none() {
                worked.note(self.order(chunk, Decision::Wait(Reason::ClusterBudget)));
                continue;
            }
            let (since, failed) = (entry.since, entry.failed.clone());
            let question = Question { facts, since, failed, now, chance: self.decisions.next_u64() };
            self.measures.decisions += 1;
            let (_, decision) = decide(&question, &self.leader.cluster, &self.leader.policy);
            worked.note(self.order(chunk, decision));
        }
        worked
    }

    /// Has a decision carried out.
    fn order(&mut self, chunk: u32, decision: Decision) -> Became {
        match decision {
            Decision::Nothing => {}
            Decision::Wait(reason) => {
                let (id, blocked, busy) = (Chunks::id(chunk), reason.is_blocked(), reason.is_busy());
                self.leader.queue.wait(id, reason, at(self.now));
                if busy {
                    return Became::Busy;
                }
                if let Some(until) = self.leader.queue.get(id).and_then(|entry| entry.next)
                    && !blocked
                {
                    self.leader.waits.insert(micros(until));
                }
                return Became::Waits;
            }
            Decision::Copy { target, sources, urgent } => self.start_copy(chunk, target, &sources, urgent),
            Decision::Drop { server, .. } => self.start_drop(chunk, server),
        }
        Became::Done
    }

    /// How well a server is, as its beats say.
    pub(super) fn vitals(&self, number: u16, latency_us: u64) -> Vitals {
        /// So many times slower than usual, a chunkserver says that a disk is slow.
        const SLOW: u32 = 3;
        let slow = self.server(number).is_some_and(|server| server.slow >= SLOW);
        let slow_disks = if slow { vec!["all".into()] } else { Vec::new() };
        Vitals { slow_disks, latency_us, ..Vitals::default() }
    }

    /// How full the servers are that take part, in server order.
    pub(super) fn fills(&self) -> Vec<Fill> {
        let balancing = &self.leader.balancing;
        let (leaving, coming) = (balancing.sums(false), balancing.sums(true));
        let mut arrived = std::collections::BTreeMap::<u16, u64>::new();
        for (chunk, one) in balancing.moves() {
            if self.chunks.at(chunk, one.from).is_some() && self.chunks.at(chunk, one.to).is_some() {
                *arrived.entry(one.to).or_default() += one.bytes;
            }
        }
        let mut fills = Vec::new();
        for (number, (candidate, server)) in (0u16..).zip(self.leader.cluster.candidates.iter().zip(&self.servers)) {
            if candidate.health == Health::Alive && candidate.is_active() && candidate.capacity_bytes > 0 {
                let of = |sums: &std::collections::BTreeMap<u16, u64>| sums.get(&number).copied().unwrap_or(0);
                fills.push(Fill {
                    server: candidate.server,
                    capacity: candidate.capacity_bytes,
                    // Who is silent is as full as its last beat said.
                    used: if server.beats() {
                        server.used()
                    } else {
                        candidate.capacity_bytes.saturating_sub(candidate.free_bytes)
                    },
                    leaving: of(&leaving),
                    coming: of(&coming),
                    arrived: of(&arrived),
                    takes: candidate.available_bytes > 0 && self.vitals(number, 0).sickness().is_none(),
                });
            }
        }
        fills
    }

    /// Nothing moves before the leader knows who has what, nor while too many servers are gone.
    pub(super) fn may_move(&self) -> bool {
        self.leader.survey.is_none() && self.leader.queue.room() > 0 && self.leader.cluster.brake.is_none()
    }

    /// A plan for these.
    pub(super) fn plan_of(&self, fills: &[Fill]) -> Plan {
        Plan::new(fills, &quarry_master_core::balance::Limits::of(&self.leader.settings))
    }
}
