//! What rules a candidate out.

use std::{collections::BTreeSet, fmt};

use quarry_types::ServerId;
use serde::{Deserialize, Serialize};

use super::Candidate;
use crate::{command::ServerWish, detector::Health};

/// Writes under way on one server past which it takes no more.
pub const WRITES_PER_SERVER: u32 = 256;

/// What can rule a candidate out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Filter {
    /// It has a replica already, or was excluded by name.
    Taken,
    /// Beats come.
    Alive,
    /// It is not being emptied, and not expected to go.
    Wish,
    /// Its disks and processors are well.
    Healthy,
    /// It has looked at its disks since it started.
    Disks,
    /// It has room.
    Room,
    /// Not too many writes are under way on it.
    Writes,
    /// The chunk keeps as many racks as the cluster allows.
    Rack,
    /// A copy that is made for balancing goes where balancing wants it.
    Fill,
    /// Not too many copies are under way on it.
    Copies,
    /// It has budget for copies.
    Budget,
}

/// What is asked of every member of a new chunk, in this order.
pub const FOR_NEW: &[Filter] =
    &[Filter::Taken, Filter::Alive, Filter::Wish, Filter::Disks, Filter::Room, Filter::Writes];
/// What is asked of the target of a copy: first who is meant at all, then what only operators or losses change, last what passes
/// by itself.
pub const FOR_COPY: &[Filter] = &[
    Filter::Fill,
    Filter::Alive,
    Filter::Taken,
    Filter::Wish,
    Filter::Healthy,
    Filter::Disks,
    Filter::Room,
    Filter::Rack,
    Filter::Copies,
    Filter::Budget,
];

/// The same without what costs speed only.
pub const FOR_COPY_IN_NEED: &[Filter] = &[
    Filter::Fill,
    Filter::Alive,
    Filter::Taken,
    Filter::Wish,
    Filter::Disks,
    Filter::Room,
    Filter::Rack,
    Filter::Copies,
    Filter::Budget,
];

/// What a place is wanted for.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Bytes the replica may take.
    pub bytes: u64,
    /// Servers that cannot take it: holders, mostly.
    pub taken: &'a [ServerId],
    /// Racks that must not be used again; `None`: any will do.
    pub used_racks: Option<&'a BTreeSet<&'a str>>,
    /// Copies to one server at once.
    pub copies_in_max: u32,
    /// Where balancing wants it; `None`: it is not for balancing.
    pub toward: Option<ServerId>,
}

impl Filter {
    /// Whether `candidate` passes.
    #[must_use]
    pub fn passes(self, candidate: &Candidate, ask: &Ask<'_>) -> bool {
        match self {
            Filter::Taken => !ask.taken.contains(&candidate.server),
            Filter::Alive => candidate.health == Health::Alive,
            Filter::Wish => candidate.wish == ServerWish::Active,
            Filter::Healthy => candidate.sick.is_none(),
            Filter::Disks => candidate.disks_known,
            Filter::Room => candidate.available_bytes >= ask.bytes,
            Filter::Writes => candidate.active_writes < WRITES_PER_SERVER,
            Filter::Rack => ask.used_racks.is_none_or(|used| !used.contains(candidate.rack.as_str())),
            Filter::Fill => ask.toward.is_none_or(|toward| toward == candidate.server),
            Filter::Copies => candidate.copies_in < ask.copies_in_max,
            Filter::Budget => candidate.budget_in > 0,
        }
    }

    /// What was looked at, with its figure.
    #[must_use]
    pub fn value(self, candidate: &Candidate, ask: &Ask<'_>) -> String {
        match self {
            Filter::Taken => (if self.passes(candidate, ask) { "has none" } else { "has one" }).into(),
            Filter::Alive => candidate.health.word().into(),
            Filter::Wish => candidate.wish.word().into(),
            Filter::Healthy => candidate.sick.clone().unwrap_or_else(|| "well".into()),
            Filter::Disks => (if candidate.disks_known { "known" } else { "not known yet" }).into(),
            Filter::Room => format!("{} bytes of {} needed", candidate.available_bytes, ask.bytes),
            Filter::Writes => format!("{} of at most {WRITES_PER_SERVER}", candidate.active_writes),
            Filter::Rack => match ask.used_racks {
                None => format!("{}; any rack will do", candidate.rack),
                Some(used) => {
                    let used: Vec<&str> = used.iter().copied().collect();
                    format!("{}; used are {}", candidate.rack, used.join(", "))
                }
            },
            Filter::Fill => match ask.toward {
                None => "not for balancing".into(),
                Some(toward) => format!("balancing moves it to {toward}"),
            },
            Filter::Copies => format!("{} of at most {}", candidate.copies_in, ask.copies_in_max),
            Filter::Budget => format!("{} bytes", candidate.budget_in),
        }
    }

    /// The word that users see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Filter::Taken => "no replica yet",
            Filter::Alive => "alive",
            Filter::Wish => "taking part",
            Filter::Healthy => "healthy",
            Filter::Disks => "disks known",
            Filter::Room => "room",
            Filter::Writes => "writes under way",
            Filter::Rack => "rack spread",
            Filter::Fill => "below the mean fill",
            Filter::Copies => "copies in flight",
            Filter::Budget => "copy budget",
        }
    }

    /// How a server that it ruled out is counted in a sentence.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Filter::Taken => "with a replica already",
            Filter::Alive => "not alive",
            Filter::Wish => "draining or in maintenance",
            Filter::Healthy => "unhealthy",
            Filter::Disks => "that have not looked at their disks yet",
            Filter::Room => "without room",
            Filter::Writes => "busy with writes",
            Filter::Rack => "on racks that the chunk uses already",
            Filter::Fill => "where balancing does not want it",
            Filter::Copies => "at their limit of copies in flight",
            Filter::Budget => "without copy budget",
        }
    }

    /// What an operator could do when it rules out those who are left.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Filter::Taken => "add a chunkserver: each has a replica already",
            Filter::Alive => "start the chunkservers that are down, or add one",
            Filter::Wish => "end a drain or a maintenance (`quarry undrain`), or add a chunkserver",
            Filter::Healthy => "replace the disks that `quarry status` shows as slow or failed, or add a chunkserver",
            Filter::Disks => "wait: a chunkserver looks at its disks when it starts",
            Filter::Room => {
                "free some room (`quarry rm --now`, `quarry trash --empty`), or add a chunkserver or a disk"
            }
            Filter::Writes => "wait: writes under way end",
            Filter::Rack => "add or start a chunkserver on another rack",
            Filter::Fill => "nothing: balancing plans anew when it cannot go on",
            Filter::Copies => "wait, or raise `repair-in` and `repair-out` (`quarry settings`)",
            Filter::Budget => "wait, or raise `repair-rate` (`quarry settings`)",
        }
    }

    /// Whether time alone lets candidates pass.
    #[must_use]
    pub fn passes_soon(self) -> bool {
        matches!(self, Filter::Disks | Filter::Writes | Filter::Copies | Filter::Budget)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The first of `filters` that `candidate` does not pass.
#[must_use]
pub fn rejection(filters: &[Filter], candidate: &Candidate, ask: &Ask<'_>) -> Option<Filter> {
    filters.iter().copied().find(|filter| !filter.passes(candidate, ask))
}

/// How many candidates each filter ruled out, each at the first that did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// By filter, in the filters' own order.
    pub out: std::collections::BTreeMap<Filter, u32>,
    /// Candidates that passed all.
    pub usable: u32,
    /// All.
    pub known: u32,
    /// Where nobody passed: what stands in the way.
    #[serde(default)]
    pub obstacle: Option<Obstacle>,
}

/// What stands in the way on the racks that would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// The filter that those who came furthest did not pass.
    pub filter: Filter,
    /// Their racks, the first few.
    pub racks: Vec<String>,
    /// How many more racks.
    pub more: usize,
}

/// Racks that are named in a sentence.
const RACKS_NAMED: usize = 3;

impl Obstacle {
    /// That servers on these racks did not pass a filter.
    #[must_use]
    pub fn new(filter: Filter, racks: &BTreeSet<&str>) -> Self {
        let named = racks.iter().take(RACKS_NAMED).map(|rack| (*rack).to_owned()).collect();
        Obstacle { filter, racks: named, more: racks.len().saturating_sub(RACKS_NAMED) }
    }

    fn place(&self) -> String {
        let word = if self.racks.len() == 1 { "rack" } else { "racks" };
        let more = if self.more == 0 { String::new() } else { format!(" and {} more", self.more) };
        format!("{word} {}{more}", self.racks.join(", "))
    }

    /// What an operator could do; or else `add` a server.
    #[must_use]
    pub fn remedy(&self, add: &str) -> String {
        let place = self.place();
        match self.filter {
            Filter::Taken => format!("{add}: each on {place} has a replica already"),
            Filter::Alive => format!("start the chunkservers that are down on {place}, or {add}"),
            Filter::Wish => format!("end the drain or the maintenance on {place} (`quarry undrain`), or {add}"),
            Filter::Healthy => {
                format!("replace the disks on {place} that `quarry status` shows as slow or failed, or {add}")
            }
            Filter::Room => {
                format!("free some room (`quarry rm --now`, `quarry trash --empty`) or add a disk on {place}, or {add}")
            }
            Filter::Disks | Filter::Rack | Filter::Fill | Filter::Writes | Filter::Copies | Filter::Budget => {
                self.filter.remedy().into()
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is the filter `{}` on {}", self.filter, self.place())
    }
}

/// Of the filters that ruled somebody out, that of those who came furthest. That someone has a replica already is the last
/// thing that could be changed.
#[must_use]
pub fn furthest(filters: &[Filter], ruled_out: impl Fn(Filter) -> bool) -> Option<Filter> {
    let other = filters.iter().rev().copied().find(|filter| *filter != Filter::Taken && ruled_out(*filter));
    other.or_else(|| Some(Filter::Taken).filter(|filter| ruled_out(*filter)))
}

impl Tally {
    /// Counts one candidate.
    pub fn count(&mut self, rejected: Option<Filter>) {
        self.known += 1;
        match rejected {
            Some(filter) => *self.out.entry(filter).or_default() += 1,
            None => self.usable += 1,
        }
    }

    /// Counts those of `all` that were not asked, because balancing wants the replica elsewhere.
    pub fn count_others(&mut self, all: usize) {
        let others = u32::try_from(all).unwrap_or(u32::MAX).saturating_sub(self.known);
        if others > 0 {
            self.known += others;
            *self.out.entry(Filter::Fill).or_default() += others;
        }
    }

    /// How many a filter ruled out.
    #[must_use]
    pub fn by(&self, filter: Filter) -> u32 {
        self.out.get(&filter).copied().unwrap_or(0)
    }

    /// The filter that stands in the way of those who came furthest: what an operator should look at first.
    #[must_use]
    pub fn decisive(&self, filters: &[Filter]) -> Option<Filter> {
        furthest(filters, |filter| self.by(filter) > 0)
    }

    /// What an operator could do where nobody passed; or else `add` a server.
    #[must_use]
    pub fn remedy(&self, add: &str) -> String {
        self.obstacle.as_ref().map_or_else(|| add.into(), |obstacle| obstacle.remedy(add))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.out.iter().map(|(filter, count)| format!("{count} {}", filter.reason())).collect();
        write!(f, "{} of {} chunkservers", self.usable, self.known)?;
        if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
    }
}
