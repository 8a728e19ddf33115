//! Who is alive, from beats.

use std::{collections::BTreeMap, time::Duration};

use quarry_types::{
    ServerId,
    limits::{DEAD_AFTER, SUSPECT_AFTER},
};

/// What the master believes of a chunkserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Beats come.
    Alive,
    /// Beats are missing: no new chunks, and reads prefer others.
    Suspect,
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

#[derive(Clone, Copy, Debug)]
struct Watched {
    last_beat: Duration,
    /// It said goodbye since.
    stopped: bool,
    /// It beat at least once.
    heard: bool,
    seen: Health,
}

impl Watched {
    fn health(&self, now: Duration) -> Health {
        if self.stopped {
            return Health::Dead;
        }
        let by_silence = judge(now.saturating_sub(self.last_beat));
        // Until its first beat it only gets its time before a verdict, not new chunks.
        if self.heard { by_silence } else { by_silence.max(Health::Suspect) }
    }
}

/// Judges servers by the time since their last beat. Time is the leader's monotonic clock, since any start.
///
/// A server that was never watched is [`Health::Dead`]; a new leader calls [`Detector::expect`] for each registered
/// server, so that it gets its time before a verdict.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    servers: BTreeMap<ServerId, Watched>,
}

fn judge(silent: Duration) -> Health {
    if silent < SUSPECT_AFTER {
        Health::Alive
    } else if silent < DEAD_AFTER {
        Health::Suspect
    } else {
        Health::Dead
    }
}

impl Detector {
    /// Without servers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A known server from which nothing has been heard: suspect until it beats or its time is over.
    pub fn expect(&mut self, server: ServerId, now: Duration) {
        let last_beat = now;
        self.servers.entry(server).or_insert(Watched {
            last_beat,
            stopped: false,
            heard: false,
            seen: Health::Suspect,
        });
    }

    /// A beat came.
    pub fn beat(&mut self, server: ServerId, now: Duration) {
        let fresh = Watched { last_beat: now, stopped: false, heard: false, seen: Health::Dead };
        let watched = self.servers.entry(server).or_insert(fresh);
        watched.last_beat = watched.last_beat.max(now);
        watched.stopped = false;
        watched.heard = true;
    }

    /// The server stopped on purpose: dead at once.
    pub fn goodbye(&mut self, server: ServerId) {
        if let Some(watched) = self.servers.get_mut(&server) {
            watched.stopped = true;
        }
    }

    /// What to believe of a server.
    #[must_use]
    pub fn state(&self, server: ServerId, now: Duration) -> Health {
        self.servers.get(&server).map_or(Health::Dead, |watched| watched.health(now))
    }

    /// How long a server has been silent; `None` when it was never watched.
    #[must_use]
    pub fn silent(&self, server: ServerId, now: Duration) -> Option<Duration> {
        self.servers.get(&server).map(|watched| now.saturating_sub(watched.last_beat))
    }

    /// The servers whose health changed since the last call, in id order.
    pub fn changes(&mut self, now: Duration) -> Vec<HealthChange> {
        let mut changes = Vec::new();
        for (server, watched) in &mut self.servers {
            let to = watched.health(now);
            if to != watched.seen {
                changes.push(HealthChange { server: *server, from: watched.seen, to });
                watched.seen = to;
            }
        }
        changes
    }

    /// When a server's health changes next if no beat comes.
    #[must_use]
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let next = |watched: &Watched| match watched.health(now) {
            Health::Alive => Some(watched.last_beat.saturating_add(SUSPECT_AFTER)),
            Health::Suspect => Some(watched.last_beat.saturating_add(DEAD_AFTER)),
            Health::Dead => None,
        };
        self.servers.values().filter_map(next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_silent_server_is_suspect_and_then_dead() {
        let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
        assert_eq!(detector.state(server, ms(0)), Health::Dead, "never heard of");
        detector.beat(server, ms(10_000));
        for (at, health) in [(11_499, Health::Alive), (11_500, Health::Suspect), (13_000, Health::Dead)] {
            assert_eq!(detector.state(server, ms(at)), health, "at {at}");
        }
        assert_eq!(detector.next_deadline(ms(10_000)), Some(ms(11_500)));
        assert_eq!(detector.next_deadline(ms(11_500)), Some(ms(13_000)));
        assert_eq!(detector.next_deadline(ms(13_000)), None);
        detector.beat(server, ms(14_000));
        assert_eq!(detector.state(server, ms(14_000)), Health::Alive);
        detector.beat(server, ms(12_000));
        assert_eq!(detector.silent(server, ms(14_000)), Some(ms(0)), "a late beat does not turn time back");
    }

    #[test]
    fn each_change_is_told_once() {
        let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
        detector.beat(server, ms(0));
        let change = |from, to| vec![HealthChange { server, from, to }];
        assert_eq!(detector.changes(ms(0)), change(Health::Dead, Health::Alive));
        assert_eq!(detector.changes(ms(1000)), []);
        assert_eq!(detector.changes(ms(9000)), change(Health::Alive, Health::Dead));
        assert_eq!(detector.changes(ms(9001)), []);
    }

    #[test]
    fn an_expected_server_has_its_time_before_a_verdict() {
        let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
        detector.expect(server, ms(100));
        assert_eq!(detector.state(server, ms(100)), Health::Suspect);
        assert_eq!(detector.state(server, ms(3099)), Health::Suspect);
        assert_eq!(detector.state(server, ms(3100)), Health::Dead);
        detector.beat(server, ms(200));
        detector.expect(server, ms(300));
        assert_eq!(detector.state(server, ms(300)), Health::Alive);
        assert_eq!(Detector::new().next_deadline(ms(0)), None);
    }

    #[test]
    fn an_expected_servers_deadline_is_its_death() {
        let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
        detector.expect(server, ms(100));
        assert_eq!(detector.next_deadline(ms(100)), Some(ms(3100)));
    }

    #[test]
    fn a_server_that_said_goodbye_is_dead_until_it_beats_again() {
        let (mut detector, server) = (Detector::new(), ServerId::from_random(1));
        detector.beat(server, ms(100));
        detector.goodbye(server);
        assert_eq!(detector.state(server, ms(100)), Health::Dead);
        detector.beat(server, ms(200));
        assert_eq!(detector.state(server, ms(200)), Health::Alive);
    }
}
