//! Circuit breakers: a chunkserver that keeps failing is asked last for a while, so that not every read pays for
//! finding out again. Pure; time is passed in.

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_types::ServerId;

/// Failures in a row that open a breaker.
const FAILURES_TO_OPEN: u32 = 3;
/// For how long a breaker opens first; doubles each time the trial fails.
const OPEN_FIRST: Duration = Duration::from_secs(1);
/// For how long it opens at most.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// Servers remembered; past it everything is forgotten, which costs a few slow attempts.
const SERVERS_MAX: usize = 10_000;

/// What one server did lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    opened: u32,
}

impl Breaker {
    /// Whether the server should be asked now. After its time an open breaker lets everything through; the first
    /// failure opens it again, for longer.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.open_until.is_none_or(|until| now >= until)
    }

    /// It failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_TO_OPEN && self.allows(now) {
            let open = OPEN_FIRST.saturating_mul(1 << self.opened.min(8)).min(OPEN_MAX);
            self.opened = self.opened.saturating_add(1);
            self.open_until = Some(now.plus(open));
        }
    }
}

/// The breakers of all servers this client met.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    servers: BTreeMap<ServerId, Breaker>,
}

impl Breakers {
    /// Whether `server` should be asked now.
    pub(crate) fn allows(&self, server: ServerId, now: Instant) -> bool {
        self.servers.get(&server).is_none_or(|breaker| breaker.allows(now))
    }

    /// `server` answered well.
    pub(crate) fn succeeded(&mut self, server: ServerId) {
        self.servers.remove(&server);
    }

    /// `server` failed.
    pub(crate) fn failed(&mut self, server: ServerId, now: Instant) {
        if self.servers.len() >= SERVERS_MAX {
            self.servers.clear();
        }
        self.servers.entry(server).or_default().failed(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(Duration::from_millis(ms))
    }

    #[test]
    fn opens_after_three_failures_and_lets_a_trial_through_later() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0));
        breaker.failed(at(1));
        assert!(breaker.allows(at(1)));
        breaker.failed(at(2));
        assert!(!breaker.allows(at(2)) && !breaker.allows(at(1001)));
        assert!(breaker.allows(at(1002)));
    }

    #[test]
    fn a_failed_trial_opens_for_longer_up_to_the_limit() {
        let mut breaker = Breaker::default();
        let mut now = at(0);
        for _ in 0..3 {
            breaker.failed(now);
        }
        let mut opens = Vec::new();
        for _ in 0..8 {
            let until = breaker.open_until.unwrap();
            opens.push(until.since(now).as_secs());
            now = until;
            breaker.failed(now);
        }
        assert_eq!(opens, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn one_success_forgets_all_failures() {
        let mut breakers = Breakers::default();
        let server = ServerId::from_random(1);
        for _ in 0..3 {
            breakers.failed(server, at(0));
        }
        assert!(!breakers.allows(server, at(0)));
        assert!(breakers.allows(ServerId::from_random(2), at(0)));
        breakers.succeeded(server);
        breakers.failed(server, at(0));
        assert!(breakers.allows(server, at(0)));
    }
}
