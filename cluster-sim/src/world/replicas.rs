//! Replicas come and go, rot, and are lost; and how many of each chunk can be read.

use super::World;
use crate::{
    agenda::Event,
    chance::mixed,
    model::chunks::{Chunks, Place},
};

impl World {
    /// A chunk is there.
    pub(super) fn exists(&self, chunk: u32) -> bool {
        self.chunks.places(chunk).next().is_some()
    }

    /// Replicas of a chunk that clients can read now.
    pub(super) fn readable(&self, chunk: u32) -> u32 {
        let serves = |place: &Place| self.server(place.server()).is_some_and(|server| server.serves());
        let readable = self.chunks.places(chunk).filter(|place| !place.is_quarantined() && serves(place));
        u32::try_from(readable.count()).unwrap_or(u32::MAX)
    }

    /// Takes note of how many can be read, after a change.
    pub(super) fn count(&mut self, chunk: u32, before: u32) {
        let (wanted, after) = (self.chunks.wanted(chunk), self.readable(chunk));
        if before != after {
            self.measures.truth.change(wanted, before, after);
        }
    }

    /// A server has a good replica from now on, in the place of whatever it had. Whether it has room for it.
    pub(super) fn add_replica(&mut self, chunk: u32, number: u16) -> bool {
        let before = self.readable(chunk);
        let added = self.put_replica(chunk, number);
        self.count(chunk, before);
        self.measures.truth.settle(self.now);
        added
    }

    /// The same, and nobody counts what can be read.
    pub(super) fn put_replica(&mut self, chunk: u32, number: u16) -> bool {
        let (length, old) = (self.chunks.length(chunk), self.chunks.at(chunk, number));
        let Some(server) = self.server_mut(number) else { return false };
        let Some(at) = server.disk_for(length) else { return false };
        if let Some(disk) = server.disks.get_mut(at as usize) {
            disk.used += length;
        }
        match old {
            Some(old) => {
                if let Some(disk) = server.disks.get_mut(old.disk() as usize) {
                    disk.used = disk.used.saturating_sub(length);
                }
            }
            None => server.held.push(chunk),
        }
        self.chunks.put(chunk, Place::new(number, at));
        self.leader.touched.insert(number);
        true
    }

    /// A server has no replica of a chunk any more. [`World::check_lost`] and the truth's `settle` follow.
    pub(super) fn remove_replica(&mut self, chunk: u32, number: u16) {
        let (length, before) = (self.chunks.length(chunk), self.readable(chunk));
        let Some(place) = self.chunks.remove(chunk, number) else { return };
        if let Some(server) = self.server_mut(number) {
            server.let_go(chunk);
            if let Some(disk) = server.disks.get_mut(place.disk() as usize) {
                disk.used = disk.used.saturating_sub(length);
            }
        }
        self.count(chunk, before);
        self.leader.touched.insert(number);
    }

    /// A chunk of which no whole replica is left anywhere is lost. Bad replicas are bad at different places: two of them make a good
    /// one. What is lost is counted and taken out, as if an operator had restored the file from elsewhere.
    pub(super) fn check_lost(&mut self, chunk: u32) {
        let (mut whole, mut rotten) = (0, 0);
        for place in self.chunks.places(chunk) {
            if place.is_rotten() { rotten += 1 } else { whole += 1 }
        }
        if whole > 0 || rotten >= 2 {
            return;
        }
        let bytes = self.chunks.length(chunk);
        self.measures.truth.lose(bytes, self.now);
        let name = self.chunks.name(chunk);
        self.measures.timeline.add(self.now, || format!("chunk {name} is lost: no whole replica is left"));
        self.delete(chunk);
    }

    /// A chunk is no more, wherever it was.
    pub(super) fn delete(&mut self, chunk: u32) {
        let holders: Vec<u16> = self.chunks.places(chunk).map(Place::server).collect();
        // It counts as whole, and is not counted any more.
        let (wanted, before) = (self.chunks.wanted(chunk), self.readable(chunk));
        for number in holders {
            let length = self.chunks.length(chunk);
            let Some(place) = self.chunks.remove(chunk, number) else { continue };
            if let Some(server) = self.server_mut(number) {
                server.let_go(chunk);
                if let Some(disk) = server.disks.get_mut(place.disk() as usize) {
                    disk.used = disk.used.saturating_sub(length);
                }
            }
            self.leader.touched.insert(number);
        }
        self.measures.truth.change(wanted, before, wanted);
        self.measures.truth.settle(self.now);
        if let Some(needless) = self.leader.queue.forget(Chunks::id(chunk), crate::leader::at(self.now)) {
            self.cancel(needless);
        }
        self.leader.balancing.abandon(chunk);
        let drops: Vec<(u32, u16)> = self.leader.drops.range((chunk, 0)..=(chunk, u16::MAX)).copied().collect();
        for drop in drops {
            self.leader.drops.remove(&drop);
        }
        self.leader.changed.remove(&chunk);
        self.chunks.forget(chunk);
    }

    /// A replica rots; nobody knows.
    pub(super) fn rot(&mut self, chunk: u32, number: u16) {
        let Some(place) = self.chunks.at(chunk, number).filter(|place| !place.is_rotten()) else { return };
        self.chunks.replace(chunk, place.rotten());
        self.measures.rot += 1;
        self.check_lost(chunk);
        if self.chunks.at(chunk, number).is_some() {
            let round = self.server(number).map_or(1, |server| server.scrub_round(&self.scrub));
            // Scrubbing comes by once a round, at a moment that depends on the replica alone.
            let phase = mixed(u64::from(chunk), u64::from(number), round);
            let after = (phase + round - self.now % round) % round;
            self.plan(after, Event::Scrubbed { chunk, server: number });
        }
    }

    /// Scrubbing reads a replica that has rotted, unless it was found out or replaced before.
    pub(super) fn scrubbed(&mut self, chunk: u32, number: u16) {
        let Some(place) = self.chunks.at(chunk, number) else { return };
        if !place.is_rotten() || place.is_quarantined() {
            return;
        }
        if self.server(number).is_some_and(|server| server.is_up()) {
            self.find_rot(chunk, number);
        } else {
            const LATER: u64 = 3_600_000_000;
            self.plan(LATER, Event::Scrubbed { chunk, server: number });
        }
    }

    /// A rotten replica was read, and is in quarantine from now on.
    pub(super) fn find_rot(&mut self, chunk: u32, number: u16) {
        let Some(place) = self.chunks.at(chunk, number).filter(|place| !place.is_quarantined()) else { return };
        let before = self.readable(chunk);
        self.chunks.replace(chunk, place.quarantined());
        self.count(chunk, before);
        self.measures.truth.settle(self.now);
        self.measures.rot_found += 1;
        self.leader.changed.insert(chunk);
        self.wake();
    }

    /// All that a server held is gone.
    pub(super) fn wipe(&mut self, number: u16) {
        let Some(server) = self.server_mut(number) else { return };
        let held = std::mem::take(&mut server.held);
        server.disks.iter_mut().for_each(|disk| (disk.used, disk.failed) = (0, false));
        for chunk in &held {
            let before = self.readable(*chunk);
            self.chunks.remove(*chunk, number);
            self.count(*chunk, before);
        }
        self.measures.truth.settle(self.now);
        for chunk in &held {
            self.check_lost(*chunk);
        }
        // The leader knows what the server reported, until it reports anew.
        self.leader.remembered.insert(number, held);
    }

    /// All that a disk held is gone; its server notices after a while.
    pub(super) fn wipe_disk(&mut self, number: u16, disk: u8) {
        let Some(server) = self.server_mut(number) else { return };
        let Some(gone) = server.disks.get_mut(disk as usize).filter(|gone| !gone.failed) else { return };
        (gone.failed, gone.used) = (true, 0);
        let held = server.held.clone();
        let on_it = |chunk: &u32| self.chunks.at(*chunk, number).is_some_and(|place| place.disk() == disk);
        let (lost, kept): (Vec<u32>, Vec<u32>) = held.into_iter().partition(on_it);
        if let Some(server) = self.server_mut(number) {
            server.held = kept;
        }
        for chunk in &lost {
            let before = self.readable(*chunk);
            self.chunks.remove(*chunk, number);
            self.count(*chunk, before);
        }
        self.measures.truth.settle(self.now);
        for chunk in &lost {
            self.check_lost(*chunk);
        }
        self.unnoticed.insert((number, disk), lost);
        self.plan(self.model.disk_noticed_after.0, Event::DiskNoticed { server: number, disk });
    }

    /// A server says which replicas went with a disk.
    pub(super) fn disk_noticed(&mut self, number: u16, disk: u8) {
        let Some(lost) = self.unnoticed.remove(&(number, disk)) else { return };
        self.leader.touched.insert(number);
        for chunk in lost {
            if self.exists(chunk) {
                self.leader.changed.insert(chunk);
            }
        }
        self.wake();
    }
}
