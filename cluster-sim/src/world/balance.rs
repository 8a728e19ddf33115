//! Evening out, as `master/src/driver/balance.rs` does: the plan is the master's, and so is the decision whether repair would move
//! a chunk where the plan wants it.

use quarry_master_core::{
    balance::{Limits, Plan, trigger},
    command::ServerWish,
    detector::Health,
    repair::{Decision, Reason, assess, decide, decide::Question, queue::Work},
    settings::BALANCE_AUTOMATIC,
};
use quarry_types::ServerId;

use super::World;
use crate::{
    agenda::Event,
    leader::{
        at,
        balancing::{GIVE_UP, Move, REST},
    },
    model::chunks::Chunks,
    units::{Micros, SECOND},
};

/// Between two steps.
const STEP: Micros = SECOND / 2;
/// The same, while all that should get more have as many moves under way as they may have: nothing can be planned, and what is
/// under way lasts longer than this. The master looks and sees so.
const STEP_FULL: Micros = 2 * SECOND;
/// After a change of the cluster it is looked at whether servers are off the mean, at the latest.
const LOOK: Micros = 60 * SECOND;
/// Servers whose chunks are looked at in one step.
const PAGES: usize = 4;
/// Chunks of one server looked at in one step.
const PAGE: usize = 256;
/// Servers that a chunk is offered to.
const OFFERS: usize = 3;

impl World {
    /// Something changed that may make servers uneven.
    pub(super) fn plan_balance(&mut self) {
        self.leader.balancing.meet();
        self.balance_by(self.now + LOOK);
    }

    fn balance_by(&mut self, when: Micros) {
        if self.leader.balancing.step_at.is_none_or(|planned| when < planned) {
            self.leader.balancing.step_at = Some(when);
            self.agenda.plan(when, Event::Balance);
        }
    }

    /// One step.
    pub(super) fn balance(&mut self) {
        if self.leader.balancing.step_at != Some(self.now) {
            return;
        }
        self.leader.balancing.step_at = None;
        self.leader.refresh_room(&self.servers);
        self.leader.balancing.settle(self.now);
        self.give_up_stuck_moves();
        if !self.may_move() {
            return self.balance_by(self.now + LOOK);
        }
        let fills = self.fills();
        if !self.leader.balancing.running && !self.begins(&fills) {
            return;
        }
        let mut plan = self.plan_of(&fills);
        if plan.is_empty() && self.leader.balancing.is_quiet() {
            self.leader.balancing.end();
            self.measures.timeline.add(self.now, || "balancing is done".into());
            return;
        }
        let sources: Vec<u16> = plan.sources().into_iter().filter_map(|id| self.leader.number(id)).collect();
        let able = |n: &u16| self.leader.balancing.room(*n) > 0 && self.leader.balancing.cursor(*n).is_some();
        let pages: Vec<u16> = sources.iter().copied().filter(able).take(PAGES).collect();
        for from in pages {
            self.balance_from(from, &mut plan);
        }
        let spent = sources.iter().all(|from| self.leader.balancing.cursor(*from).is_none());
        if spent && self.leader.balancing.is_quiet() {
            self.leader.balancing.end();
            self.leader.balancing.rest_until = Some(self.now + REST);
            return self.balance_by(self.now + REST);
        }
        let full = !sources.iter().take(PAGES).any(|from| self.may_give(*from, &plan));
        self.balance_by(self.now + if full { STEP_FULL } else { STEP });
    }

    /// Whether there is room for another move from a server, at either end.
    fn may_give(&self, from: u16, plan: &Plan) -> bool {
        let (leader, source) = (&self.leader, self.server(from).map(|server| server.id));
        let takes = |to| leader.number(to).is_some_and(|to| leader.balancing.takes(to));
        leader.balancing.room(from) > 0 && source.is_some_and(|source| plan.has_target(source, takes))
    }

    /// Whether it begins.
    fn begins(&mut self, fills: &[quarry_master_core::balance::Fill]) -> bool {
        let balancing = &self.leader.balancing;
        let rests = balancing.rest_until.is_some_and(|until| self.now < until);
        if rests || self.leader.settings.get(&BALANCE_AUTOMATIC) == 0 {
            return false;
        }
        let Some(why) = trigger(fills, &Limits::of(&self.leader.settings)) else { return false };
        self.leader.balancing.running = true;
        self.measures.timeline.add(self.now, || format!("balancing begins: {why}"));
        true
    }

    /// Gives up moves that cannot go on.
    fn give_up_stuck_moves(&mut self) {
        let leader = &self.leader;
        let active = |n: u16| {
            leader.wish(n) == ServerWish::Active && matches!(leader.health(n), Health::Alive | Health::Suspect)
        };
        let stuck = |(chunk, one): &(u32, &Move)| {
            let entry = leader.queue.get(Chunks::id(*chunk));
            let idle = entry.is_none_or(|entry| entry.work == Work::None);
            let blocked = entry.is_some_and(|entry| {
                entry.work == Work::None
                    && entry.need.missing == 0
                    && matches!(entry.reason, Some(Reason::NoTarget(_) | Reason::NoRack(_)))
            });
            !active(one.from) || !active(one.to) || blocked || (self.now - one.since >= GIVE_UP && idle)
        };
        let given_up: Vec<u32> = leader.balancing.moves().filter(stuck).map(|(chunk, _)| chunk).collect();
        for chunk in given_up {
            self.leader.balancing.abandon(chunk);
            self.leader.changed.insert(chunk);
            self.wake();
        }
    }

    /// Says which chunks of a server are to move, as far as there is room for moves.
    fn balance_from(&mut self, from: u16, plan: &mut Plan) {
        let Some(cursor) = self.leader.balancing.cursor(from) else { return };
        let held = self.server(from).map_or(&[][..], |server| server.held.as_slice());
        let page: Vec<u32> = held.iter().skip(cursor).take(PAGE).copied().collect();
        let (last, mut seen, mut found) = (page.len() < PAGE, 0, false);
        for chunk in page {
            if !self.may_give(from, plan) {
                return self.leader.balancing.looked(from, Some(cursor + seen), found);
            }
            found |= self.move_chunk(from, chunk, plan);
            seen += 1;
        }
        self.leader.balancing.looked(from, (!last).then_some(cursor + seen), found);
    }

    /// A replica is to move from now on if it is as it should be, and a server that should get more may take it.
    fn move_chunk(&mut self, from: u16, chunk: u32, plan: &mut Plan) -> bool {
        let (bytes, racks) = (self.chunks.length(chunk), self.leader.cluster.racks.len());
        if bytes == 0
            || self.leader.queue.get(Chunks::id(chunk)).is_some()
            || self.leader.balancing.get(chunk).is_some()
        {
            return false;
        }
        let (facts, Some(source)) = (self.facts(chunk), self.server(from).map(|server| server.id)) else {
            return false;
        };
        let here = facts.holders.iter().any(|holder| holder.server == source && holder.is_safe());
        if !here || !assess(&facts, racks).is_met() {
            return false;
        }
        let mut refused: Vec<ServerId> = facts.holders.iter().map(|holder| holder.server).collect();
        for _ in 0..OFFERS {
            let leader = &self.leader;
            let takes = |to| leader.number(to).is_some_and(|to| leader.balancing.takes(to));
            let to = plan.target(source, bytes, |server| !refused.contains(&server) && takes(server));
            let Some((to, target)) = to.and_then(|to| Some((to, leader.number(to)?))) else { return false };
            self.leader.balancing.begin(chunk, Move { from, to: target, bytes, since: self.now });
            if self.would_go(chunk) {
                plan.moved(source, to, bytes);
                self.look_at(chunk);
                self.wake();
                return true;
            }
            self.leader.balancing.abandon(chunk);
            refused.push(to);
        }
        false
    }

    /// Whether repair would copy it there, now or as soon as others are done.
    fn would_go(&self, chunk: u32) -> bool {
        let now = at(self.now);
        let question = Question { facts: self.facts(chunk), since: now, failed: Vec::new(), now, chance: 0 };
        let (_, decision) = decide(&question, &self.leader.cluster, &self.leader.policy);
        match decision {
            Decision::Copy { .. } => true,
            Decision::Wait(reason) => reason.is_busy(),
            Decision::Nothing | Decision::Drop { .. } => false,
        }
    }
}
