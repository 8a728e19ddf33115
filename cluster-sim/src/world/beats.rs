//! Who is heard by the leader, and what the detector makes of it.
//!
//! A server that is well beats each second, and the simulation spares itself that: the detector is asked only when something is to be
//! found out about a server that is not simply well (its `next_deadline_of` says when), and is then told in one step of each other
//! server that it beat all the time.

use quarry_master_core::{
    command::ServerWish,
    detector::{Health, HealthChange},
};
use rand::RngCore as _;

use super::World;
use crate::{
    agenda::Event,
    leader::{CONSULT_MIN, UNBLOCK_MAX, at, micros},
    model::server::Server,
    units::{Micros, show_time},
};

/// From the question to a peer until its answer.
const SEARCH_TIME: Micros = 5_000;

impl World {
    /// Changes what is wrong with a server, with all that follows from whether it runs, beats and serves then.
    pub(super) fn change_server(&mut self, number: u16, change: impl FnOnce(&mut Server)) {
        let now = self.now;
        let Some(server) = self.server_mut(number) else { return };
        let (ran, beat, served, last) = (server.is_up(), server.beats(), server.serves(), server.last_beat(now));
        change(server);
        let (runs, beats, serves, id) = (server.is_up(), server.beats(), server.serves(), server.id);
        if beat && !beats {
            server.silent_from = Some(now);
            self.leader.detector.regular_beats(id, at(last));
            self.leader.watched.insert(number);
            self.plan_consult(number);
        }
        if !beat && beats {
            self.registers(number);
        }
        if served != serves {
            self.count_all(number, serves);
        }
        if (ran && !runs) || (served && !serves) {
            self.stall_copies(number);
        }
    }

    /// What a server holds can be read from now on, or not any more.
    fn count_all(&mut self, number: u16, serves: bool) {
        let held = self.server_mut(number).map(|server| std::mem::take(&mut server.held)).unwrap_or_default();
        for chunk in &held {
            let here = self.chunks.at(*chunk, number).is_some_and(|place| !place.is_quarantined());
            let after = self.readable(*chunk);
            let before = if serves { after.saturating_sub(u32::from(here)) } else { after + u32::from(here) };
            if before != after {
                self.measures.truth.change(self.chunks.wanted(*chunk), before, after);
            }
        }
        if let Some(server) = self.server_mut(number) {
            server.held = held;
        }
        self.measures.truth.settle(self.now);
    }

    /// A server is heard again: it registers, and reports in full after a while.
    fn registers(&mut self, number: u16) {
        let now = self.now;
        let Some(server) = self.server_mut(number) else { return };
        (server.beats_from, server.reported, server.silent_from) = (now, false, None);
        server.registration += 1;
        let (id, registration, thousands) = (server.id, server.registration, server.held.len() as u64 / 1000);
        self.leader.detector.beat(id, at(now));
        if self.leader.wish(number) == ServerWish::Maintenance {
            self.leader.set_wish(number, ServerWish::Active);
        }
        self.leader.watched.insert(number);
        self.leader.touched.insert(number);
        let after = self.model.report_time.0 + thousands * self.model.report_time_per_thousand.0;
        self.plan(after, Event::Reported { server: number, registration });
        self.consult_by(now + CONSULT_MIN);
        self.wake();
    }

    /// A full report has come: drops of earlier registrations are settled.
    pub(super) fn reported(&mut self, number: u16, registration: u32) {
        let Some(server) = self.server_mut(number).filter(|server| server.registration == registration) else { return };
        if !server.beats() {
            return;
        }
        server.reported = true;
        self.leader.remembered.remove(&number);
        let settled: Vec<(u32, u16)> = self.leader.drops.iter().filter(|drop| drop.1 == number).copied().collect();
        for drop in settled {
            self.leader.drops.remove(&drop);
            self.leader.changed.insert(drop.0);
        }
        self.leader.queue.unblock(UNBLOCK_MAX);
        self.plan_balance();
        self.wake();
    }

    /// The detector is asked when something about this server may change.
    fn plan_consult(&mut self, number: u16) {
        let now = at(self.now);
        let next = self.server(number).and_then(|server| self.leader.detector.next_deadline_of(server.id, now));
        if let Some(next) = next {
            self.consult_by(micros(next).max(self.now + CONSULT_MIN));
        }
    }

    /// The detector is asked then, or before.
    pub(super) fn consult_by(&mut self, when: Micros) {
        if self.leader.consult_at.is_none_or(|planned| when < planned) {
            self.leader.consult_at = Some(when);
            self.agenda.plan(when, Event::Consult);
        }
    }

    /// Asks the detector.
    pub(super) fn consult(&mut self) {
        if self.leader.consult_at != Some(self.now) {
            return;
        }
        self.leader.consult_at = None;
        let now = at(self.now);
        for server in self.servers.iter().filter(|server| server.beats()) {
            self.leader.detector.regular_beats(server.id, at(server.last_beat(self.now)));
        }
        for change in self.leader.detector.changes(now) {
            if let Some(number) = self.leader.number(change.server) {
                self.health_changed(number, &change);
            }
        }
        let chance = self.decisions.next_u64();
        for search in self.leader.detector.searches(now, chance) {
            let answers = |peer| self.leader.number(peer).and_then(|n| self.server(n)).is_some_and(Server::serves);
            let there = self.leader.number(search.server).filter(|n| self.server(*n).is_some_and(Server::serves));
            if let Some(server) = there.filter(|_| search.peers.iter().copied().any(answers)) {
                self.plan(SEARCH_TIME, Event::Reached { server });
            }
        }
        self.watch_on();
    }

    /// Of whom nothing is to be found out any more is not watched; the others say when to ask again.
    fn watch_on(&mut self) {
        let (now, mut next) = (at(self.now), None);
        let (leader, servers) = (&mut self.leader, &self.servers);
        let (detector, candidates) = (&leader.detector, &leader.cluster.candidates);
        leader.watched.retain(|number| {
            let (Some(server), Some(candidate)) = (servers.get(*number as usize), candidates.get(*number as usize))
            else {
                return false;
            };
            let deadline = detector.next_deadline_of(server.id, now);
            next = next.into_iter().chain(deadline).min();
            let is_well = server.beats() && candidate.health == Health::Alive;
            !is_well && (server.beats() || deadline.is_some())
        });
        if let Some(next) = next {
            self.consult_by(micros(next).max(self.now + CONSULT_MIN));
        }
    }

    /// A peer has reached a suspect.
    pub(super) fn reached(&mut self, number: u16) {
        let now = at(self.now);
        if let Some(server) = self.server(number) {
            let id = server.id;
            self.leader.detector.reached(id, now);
            self.plan_consult(number);
        }
    }

    fn health_changed(&mut self, number: u16, change: &HealthChange) {
        self.leader.health_changed(number, change, at(self.now));
        match change.to {
            Health::Dead => {
                self.measures.deaths += 1;
                let stopped = self.leader.detector.has_stopped(change.server);
                let silent = self.server(number).and_then(|server| server.silent_from);
                let after = silent.map(|from| self.now - from).filter(|_| !stopped);
                if let Some(after) = after {
                    self.measures.detection.add(after);
                }
                let name = self.called(number).to_owned();
                let how = || match after {
                    Some(after) => format!("server {name} is thought dead, {} after it fell silent", show_time(after)),
                    None => format!("server {name} is away: it said so"),
                };
                self.measures.timeline.add(self.now, how);
            }
            Health::Partitioned => {
                self.measures.partitions += 1;
                let name = self.called(number).to_owned();
                self.measures
                    .timeline
                    .add(self.now, || format!("server {name} is partitioned: only its peers reach it"));
            }
            Health::Alive if change.from != Health::Suspect => {
                let name = self.called(number).to_owned();
                self.measures.timeline.add(self.now, || format!("server {name} is alive again"));
            }
            Health::Alive | Health::Suspect => {}
        }
        self.wake();
    }

    /// A maintenance that is not over by itself has run out.
    pub(super) fn maintenance_ends(&mut self, number: u16) {
        if self.leader.maintenance.get(&number).is_some_and(|until| *until <= self.now) {
            self.leader.set_wish(number, ServerWish::Active);
            self.wake();
        }
    }
}
