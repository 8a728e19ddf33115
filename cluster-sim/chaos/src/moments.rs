//! Losing a leader at a moment of a command's life: when it is proposed, committed, applied, or answered.
//!
//! The moments are seen where masters write their logs and states. The one that is lost has no power and no network from that
//! very write on: what it was about to say nobody hears.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quarry_env_sim::SimDisk;

/// When a leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Just before a command is in its own log.
    Propose,
    /// When it is in the log of another master too (with one master: in its own), so that it is committed, and before the
    /// leader can know.
    Commit,
    /// Just before the leader applies it.
    Apply,
    /// Just after, before it is answered.
    Reply,
}

impl Moment {
    pub const ALL: [Moment; 4] = [Moment::Propose, Moment::Commit, Moment::Apply, Moment::Reply];
}

/// Waits for the next moment of a kind, once it is armed.
pub struct Moments {
    masters: Vec<(&'static str, SimDisk)>,
    /// Everybody else.
    others: Vec<&'static str>,
    armed: Mutex<Option<Moment>>,
}

impl Moments {
    /// Of these masters; `others` are all other machines.
    pub fn new(masters: Vec<(&'static str, SimDisk)>, others: Vec<&'static str>) -> Self {
        Moments { masters, others, armed: Mutex::default() }
    }

    /// The disks of the masters, by their places.
    pub fn disks(&self) -> impl Iterator<Item = &SimDisk> {
        self.masters.iter().map(|one| &one.1)
    }

    /// A master's name, by its place.
    pub fn name(&self, master: usize) -> &'static str {
        self.masters.get(master).map_or("", |one| one.0)
    }

    fn armed(&self) -> MutexGuard<'_, Option<Moment>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader is lost at the next one of these; `None`: at none.
    pub fn arm(&self, moment: Option<Moment>) {
        *self.armed() = moment;
    }

    pub fn propose(&self, master: usize, leads: bool) {
        self.lose(Moment::Propose, master, leads);
    }

    pub fn apply(&self, master: usize, leads: bool) {
        self.lose(Moment::Apply, master, leads);
    }

    pub fn reply(&self, master: usize, leads: bool) {
        self.lose(Moment::Reply, master, leads);
    }

    /// `master` has new entries in its log.
    pub fn commit(&self, master: usize, leader: usize) {
        self.lose(Moment::Commit, leader, self.masters.len() == 1 || master != leader);
    }

    fn lose(&self, moment: Moment, master: usize, is_it: bool) {
        let Some((name, disk)) = self.masters.get(master) else { return };
        if !is_it || disk.is_off() || *self.armed() != Some(moment) {
            return;
        }
        self.arm(None);
        tracing::info!(machine = name, ?moment, "is lost");
        disk.power_off_now();
        let all = self.masters.iter().map(|one| one.0).chain(self.others.iter().copied());
        for other in all.filter(|other| other != name) {
            turmoil::partition(*name, other);
        }
    }
}
