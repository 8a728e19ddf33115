//! Who is alive, from beats.
//!
//! Beats that are missing make a server suspect, and then other chunkservers are asked to reach it. When its time is over, it is
//! partitioned if one of them does, and dead otherwise. One that keeps coming and going counts as back only after a while.

mod flaps;
mod intervals;

use std::{collections::BTreeMap, time::Duration};

use flaps::Flaps;
use intervals::{Intervals, Patience};
use quarry_types::{
    ServerId,
    limits::{BEAT_INTERVAL, DEAD_AFTER},
};

use crate::{command::Settings, settings};

/// Peers that are asked to reach a suspect at once.
const PEERS: usize = 3;
/// A suspect is looked for again after this: twice before it is dead.
const SUSPECT_AGAIN: Duration = BEAT_INTERVAL;
/// A partitioned server is looked for again after this.
const PARTITIONED_AGAIN: Duration = Duration::from_secs(2);
/// So long a server counts as reached. One round may find nobody for other reasons; the next has its answers by then.
const REACHED_FOR: Duration = Duration::from_secs(6);

const _: () = assert!(REACHED_FOR.as_millis() > 2 * PARTITIONED_AGAIN.as_millis() + DEAD_AFTER.as_millis() / 2);

/// What the master believes of a chunkserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Health {
    /// Beats come.
    Alive,
    /// Beats are missing: no new chunks, and reads prefer others.
    Suspect,
    /// Unreachable for the master but not for its peers: it serves reads, and is not repaired as dead until its limit.
    Partitioned,
    /// Counted as lost.
    Dead,
}

impl Health {
    /// The word that users see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Health::Alive => "alive",
            Health::Suspect => "suspect",
            Health::Partitioned => "partitioned",
            Health::Dead => "dead",
        }
    }
}

/// A server whose health is another than at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// Who.
    pub server: ServerId,
    /// What it was.
    pub from: Health,
    /// What it is.
    pub to: Health,
}

/// What an operator set about detection, see [`crate::settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The phi at which a server is suspect, in thousandths; 0: after fixed times.
    pub phi: u64,
    /// A server that only its peers reach is dead when it was silent for this long.
    pub partitioned_limit: Duration,
}

impl Policy {
    /// From the settings.
    #[must_use]
    pub fn of(from: &Settings) -> Self {
        Policy { phi: from.get(&settings::PHI), partitioned_limit: from.duration(&settings::PARTITIONED_LIMIT) }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy::of(&Settings::default())
    }
}

/// A server that others are asked to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Whom to reach.
    pub server: ServerId,
    /// Who is asked.
    pub peers: Vec<ServerId>,
}

#[derive(Clone, Debug)]
struct Watched {
    last_beat: Duration,
    /// It said goodbye since.
    stopped: bool,
    /// It beat at least once.
    heard: bool,
    seen: Health,
    intervals: Intervals,
    /// What its past beats allow it, as of the last one.
    patience: Patience,
    flaps: Flaps,
    /// When others were last asked to reach it, since its last beat.
    asked: Option<Duration>,
    /// When one of them last did, since its last beat.
    reached: Option<Duration>,
}

impl Watched {
    fn new(last_beat: Duration, seen: Health) -> Self {
        Watched {
            last_beat,
            stopped: false,
            heard: false,
            seen,
            intervals: Intervals::default(),
            patience: Patience::FIXED,
            flaps: Flaps::default(),
            asked: None,
            reached: None,
        }
    }

    fn health(&self, policy: &Policy, now: Duration) -> Health {
        if self.stopped {
            return Health::Dead;
        }
        let silent = now.saturating_sub(self.last_beat);
        let by_silence = if silent < self.patience.suspect {
            Health::Alive
        } else if silent < self.patience.dead {
            Health::Suspect
        } else if silent < policy.partitioned_limit && self.reached.is_some_and(|at| now < at + REACHED_FOR) {
            Health::Partitioned
        } else {
            Health::Dead
        };
        // Until its first beat it only gets its time before a verdict, not new chunks; the same until it is steady.
        if self.heard && self.flaps.is_steady(now) { by_silence } else { by_silence.max(Health::Suspect) }
    }

    fn beat(&mut self, policy: &Policy, now: Duration) {
        if self.heard {
            if self.health(policy, now) == Health::Dead {
                // Who announced that it goes does not flap.
                if !self.stopped {
                    self.flaps.came_back(now);
                }
            } else {
                self.intervals.add(now.saturating_sub(self.last_beat));
            }
        }
        self.last_beat = self.last_beat.max(now);
        (self.stopped, self.heard) = (false, true);
        (self.asked, self.reached) = (None, None);
        self.patience = self.intervals.patience(policy.phi);
    }

    fn regular_beats(&mut self, policy: &Policy, last: Duration) {
        let passed = last.saturating_sub(self.last_beat).as_nanos() / BEAT_INTERVAL.as_nanos();
        if passed > 0 {
            self.intervals.add_regular(BEAT_INTERVAL, usize::try_from(passed).unwrap_or(usize::MAX));
            self.last_beat = last;
            (self.asked, self.reached) = (None, None);
            self.patience = self.intervals.patience(policy.phi);
        }
    }

    /// When it is to be looked for; `None`: it is not.
    fn next_search(&self, policy: &Policy, now: Duration) -> Option<Duration> {
        let missed = self.last_beat.saturating_add(self.patience.suspect);
        let again = match self.health(policy, now) {
            // It beats, and is suspect for its past only.
            Health::Suspect if self.heard && now < missed => return Some(missed),
            Health::Suspect => SUSPECT_AGAIN,
            Health::Partitioned => PARTITIONED_AGAIN,
            Health::Alive | Health::Dead => return None,
        };
        Some(self.asked.map_or(now, |asked| asked + again))
    }

    fn next_deadline(&self, policy: &Policy, now: Duration) -> Option<Duration> {
        self.next_change(policy, now).into_iter().chain(self.next_search(policy, now)).min()
    }

    /// When its health changes next if nothing comes.
    fn next_change(&self, policy: &Policy, now: Duration) -> Option<Duration> {
        let silent_for = |time: Duration| self.last_beat.saturating_add(time);
        let steps = [
            Some(silent_for(self.patience.suspect)),
            Some(silent_for(self.patience.dead)),
            self.reached.map(|at| at + REACHED_FOR),
            self.reached.map(|_| silent_for(policy.partitioned_limit)),
            self.flaps.steady_from(),
        ];
        let health = self.health(policy, now);
        steps.into_iter().flatten().filter(|at| *at > now && self.health(policy, *at) != health).min()
    }
}

/// Judges servers by the time since their last beat. Time is the leader's monotonic clock, since any start.
///
/// A server that was never watched is [`Health::Dead`]; a new leader calls [`Detector::expect`] for each registered
/// server, so that it gets its time before a verdict. Once dead, only a beat brings a server back.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    servers: BTreeMap<ServerId, Watched>,
    /// What an operator set.
    pub policy: Policy,
}

impl Detector {
    /// Without servers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A known server from which nothing has been heard: suspect until it beats or its time is over.
    pub fn expect(&mut self, server: ServerId, now: Duration) {
        self.servers.entry(server).or_insert_with(|| Watched::new(now, Health::Suspect));
    }

    /// A beat came.
    pub fn beat(&mut self, server: ServerId, now: Duration) {
        let watched = self.servers.entry(server).or_insert_with(|| Watched::new(now, Health::Dead));
        watched.beat(&self.policy, now);
    }

    /// Beats of a server came each [`BEAT_INTERVAL`] since the last one, the newest of them at `last`: the same as if each had
    /// been told, in one step. It spares a simulator the beats of servers that are well. `last` in the past of the last beat
    /// says nothing.
    pub fn regular_beats(&mut self, server: ServerId, last: Duration) {
        let policy = self.policy;
        match self.servers.get_mut(&server) {
            Some(watched) if watched.heard && !watched.stopped => watched.regular_beats(&policy, last),
            _ => self.beat(server, last),
        }
    }

    /// The server stopped on purpose: dead at once.
    pub fn goodbye(&mut self, server: ServerId) {
        if let Some(watched) = self.servers.get_mut(&server) {
            watched.stopped = true;
        }
    }

    /// Whether the server stopped on purpose, and did not beat since.
    #[must_use]
    pub fn has_stopped(&self, server: ServerId) -> bool {
        self.servers.get(&server).is_some_and(|watched| watched.stopped)
    }

    /// Servers that are to be looked for now, and by whom: some of those that are alive, drawn by `chance`. They count as
    /// asked.
    pub fn searches(&mut self, now: Duration, chance: u64) -> Vec<Search> {
        let policy = self.policy;
        let due = |watched: &Watched| watched.next_search(&policy, now).is_some_and(|at| at <= now);
        if !self.servers.values().any(due) {
            return Vec::new();
        }
        let alive: Vec<ServerId> =
            self.servers.iter().filter(|(_, w)| w.health(&policy, now) == Health::Alive).map(|(id, _)| *id).collect();
        let mut searches = Vec::new();
        for (place, (server, watched)) in self.servers.iter_mut().enumerate().filter(|(_, (_, w))| due(w)) {
            watched.asked = Some(now);
            let peers = draw(&alive, chance.wrapping_add(place as u64));
            if !peers.is_empty() {
                searches.push(Search { server: *server, peers });
            }
        }
        searches
    }

    /// A peer reached a server at `now`. Of one that beats nothing new, and one that is dead stays so until it beats.
    pub fn reached(&mut self, server: ServerId, now: Duration) {
        if let Some(watched) = self.servers.get_mut(&server)
            && matches!(watched.health(&self.policy, now), Health::Suspect | Health::Partitioned)
        {
            watched.reached = watched.reached.max(Some(now));
        }
    }

    /// What to believe of a server.
    #[must_use]
    pub fn state(&self, server: ServerId, now: Duration) -> Health {
        self.servers.get(&server).map_or(Health::Dead, |watched| watched.health(&self.policy, now))
    }

    /// How long a server has been silent; `None` when it was never watched.
    #[must_use]
    pub fn silent(&self, server: ServerId, now: Duration) -> Option<Duration> {
        self.servers.get(&server).map(|watched| now.saturating_sub(watched.last_beat))
    }

    /// How long a server that beats is still suspect because it came and went too often; `None`: it is not.
    #[must_use]
    pub fn damped(&self, server: ServerId, now: Duration) -> Option<Duration> {
        let steady = self.servers.get(&server)?.flaps.steady_from()?;
        steady.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// How long ago a peer reached a server that has been silent since; `None`: none did.
    #[must_use]
    pub fn reached_ago(&self, server: ServerId, now: Duration) -> Option<Duration> {
        self.servers.get(&server)?.reached.map(|at| now.saturating_sub(at))
    }

    /// The servers whose health changed since the last call, in id order.
    pub fn changes(&mut self, now: Duration) -> Vec<HealthChange> {
        let mut changes = Vec::new();
        for (server, watched) in &mut self.servers {
            let to = watched.health(&self.policy, now);
            if to != watched.seen {
                changes.push(HealthChange { server: *server, from: watched.seen, to });
                watched.seen = to;
            }
        }
        changes
    }

    /// Whether [`Detector::changes`] has something to tell.
    #[must_use]
    pub fn has_changes(&self, now: Duration) -> bool {
        self.servers.values().any(|watched| watched.health(&self.policy, now) != watched.seen)
    }

    /// When a server's health changes next if nothing comes, or one is to be looked for.
    #[must_use]
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        self.servers.values().filter_map(|watched| watched.next_deadline(&self.policy, now)).min()
    }

    /// The same of one server, for who knows that beats of the others come.
    #[must_use]
    pub fn next_deadline_of(&self, server: ServerId, now: Duration) -> Option<Duration> {
        self.servers.get(&server)?.next_deadline(&self.policy, now)
    }
}

/// Up to [`PEERS`] different ones, spread over all of them.
fn draw(alive: &[ServerId], chance: u64) -> Vec<ServerId> {
    let (all, stride) = (alive.len(), (alive.len() / PEERS).max(1));
    let first = usize::try_from(chance % (all.max(1) as u64)).unwrap_or(0);
    (0..PEERS.min(all)).filter_map(|n| alive.get((first + n * stride) % all)).copied().collect()
}

#[cfg(test)]
mod tests;
