//! When sessions and writer leases were last heard of. Soft state of one leadership, which starts all of them afresh;
//! that one ends is a command, decided here by the leader's monotonic clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_env::Instant;
use quarry_types::{LeaseId, SessionId};

/// Last signs of life.
#[derive(Debug, Default)]
pub struct Renewals {
    sessions: BTreeMap<SessionId, Instant>,
    leases: BTreeMap<LeaseId, Instant>,
    /// Leases that are being ended: a renewal comes too late for them.
    ending: BTreeSet<LeaseId>,
}

impl Renewals {
    /// A call of this session came.
    pub fn session(&mut self, session: SessionId, now: Instant) {
        self.sessions.insert(session, now);
    }

    /// A call under this lease came. `false` when the lease is being ended: the call must be refused.
    pub fn lease(&mut self, lease: LeaseId, now: Instant) -> bool {
        if self.ending.contains(&lease) {
            return false;
        }
        self.leases.insert(lease, now);
        true
    }

    /// Which of the sessions that exist were silent for `limit`. Forgets those that exist no more.
    pub fn silent_sessions(&mut self, existing: &[SessionId], now: Instant, limit: Duration) -> Vec<SessionId> {
        silent(&mut self.sessions, existing, now, limit)
    }

    /// Which of the leases that exist were not renewed for `limit`; they are being ended from now on. Forgets those
    /// that exist no more.
    pub fn lapsed_leases(&mut self, existing: &[LeaseId], now: Instant, limit: Duration) -> Vec<LeaseId> {
        let lapsed = silent(&mut self.leases, existing, now, limit);
        self.ending.retain(|lease| self.leases.contains_key(lease));
        self.ending.extend(&lapsed);
        lapsed
    }
}

fn silent<K: Copy + Ord>(heard: &mut BTreeMap<K, Instant>, existing: &[K], now: Instant, limit: Duration) -> Vec<K> {
    // One that was never heard of in this leadership begins afresh.
    *heard = existing.iter().map(|key| (*key, heard.get(key).copied().unwrap_or(now))).collect();
    heard.iter().filter(|(_, at)| now.since(**at) >= limit).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn s10_a_lease_starts_afresh_under_a_new_leader_and_lapses_unless_renewed() {
        let (mut renewals, a, b) = (Renewals::default(), LeaseId(1), LeaseId(2));
        assert_eq!(renewals.lapsed_leases(&[a, b], at(1000), LIMIT), []);
        assert!(renewals.lease(b, at(1050)));
        assert_eq!(renewals.lapsed_leases(&[a, b], at(1059), LIMIT), []);
        assert_eq!(renewals.lapsed_leases(&[a, b], at(1060), LIMIT), [a]);
        assert!(!renewals.lease(a, at(1061)), "too late");
        assert_eq!(renewals.lapsed_leases(&[a, b], at(1062), LIMIT), [a], "until it is ended by a command");
        assert_eq!(renewals.lapsed_leases(&[b], at(1063), LIMIT), []);
        assert!(renewals.ending.is_empty());
    }

    #[test]
    fn a_silent_session_is_found_and_a_gone_one_forgotten() {
        let (mut renewals, a, b) = (Renewals::default(), SessionId(1), SessionId(2));
        renewals.session(a, at(0));
        renewals.session(b, at(30));
        assert_eq!(renewals.silent_sessions(&[a, b], at(60), LIMIT), [a]);
        assert_eq!(renewals.silent_sessions(&[], at(60), LIMIT), []);
        assert!(renewals.sessions.is_empty());
    }
}
