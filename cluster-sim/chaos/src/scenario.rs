//! What can be run: each is a life of a whole cluster that one seed decides.

use std::{fmt, str::FromStr};

use crate::{chaos, deposed, image, lapsed, put, shape::Shape};

/// A kind of run. The seed picks the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One file through the loss of a chunkserver: the least that must hold.
    Put,
    /// A flush whose members go, one after another.
    Flush,
    /// A member of an open chunk comes back with an old image of its disk, and all others restarted.
    Image,
    /// A leader is cut off from the other masters, and a client goes on asking it.
    Deposed,
    /// A writer completes a file after its lease has run out.
    Lapsed,
    /// One master, four chunkservers, clients at work, and everything fails.
    Work,
    /// Racks, long absences, rot, slow disks, an operator; every drop of a replica is judged.
    Repair,
    /// The seed picks masters, servers, knobs, durability, workload and faults.
    Any,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 8] = [
        Scenario::Put,
        Scenario::Flush,
        Scenario::Image,
        Scenario::Deposed,
        Scenario::Lapsed,
        Scenario::Work,
        Scenario::Repair,
        Scenario::Any,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Put => "put",
            Scenario::Flush => "flush",
            Scenario::Image => "image",
            Scenario::Deposed => "deposed",
            Scenario::Lapsed => "lapsed",
            Scenario::Work => "work",
            Scenario::Repair => "repair",
            Scenario::Any => "any",
        }
    }

    /// Runs a seed here and now, in this process, which should have run nothing before.
    ///
    /// # Panics
    /// When a rule is broken; the message says which, where and when in simulated time.
    pub fn run(self, seed: u64) {
        match self {
            Scenario::Put => put::put_and_get_through_a_crash(seed),
            Scenario::Flush => (0..3).for_each(|gone| put::flush_with_members_gone(seed, gone)),
            Scenario::Image => image::flush_and_put_an_image_back(seed),
            Scenario::Deposed => deposed::ask_a_deposed_leader(seed),
            Scenario::Lapsed => lapsed::complete_behind_the_lease(seed),
            Scenario::Work => chaos::run(seed, Shape::work(seed)),
            Scenario::Repair => chaos::run(seed, Shape::repair(seed)),
            Scenario::Any => chaos::run(seed, Shape::any(seed)),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Scenario::ALL.into_iter().find(|one| one.name() == text);
        let names = || Scenario::ALL.map(Scenario::name).join(", ");
        found.ok_or_else(|| format!("{text:?} is no scenario; there are {}", names()))
    }
}
