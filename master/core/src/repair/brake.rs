//! Too many servers went at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_types::ServerId;

use super::Policy;

/// Losses within this time of the last one count as one event.
const AT_ONCE: Duration = Duration::from_secs(120);
/// So many servers may always go.
const SERVERS_MIN: usize = 2;

/// A server that is dead or partitioned, and nobody announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Who.
    pub server: ServerId,
    /// Its failure domain.
    pub rack: String,
    /// When it was noticed.
    pub at: Duration,
}

/// Why repair of chunks that have two or more replicas left holds: more than `max(2, share)` servers went at once, or a
/// whole rack of two or more. What looks like that is mostly a network or a power line, and comes back; copying everything
/// meanwhile would hurt what is left. `servers`: servers by rack, without decommissioned ones. Source: the project's design,
/// section 5.
#[must_use]
pub fn brake(losses: &[Loss], servers: &BTreeMap<String, usize>, policy: &Policy, now: Duration) -> Option<String> {
    let last = losses.iter().map(|loss| loss.at).max()?;
    let ends = last.saturating_add(policy.brake_hold);
    if now >= ends {
        return None;
    }
    let together: BTreeMap<ServerId, &str> = losses
        .iter()
        .filter(|loss| last.saturating_sub(loss.at) < AT_ONCE)
        .map(|loss| (loss.server, loss.rack.as_str()))
        .collect();
    let all: usize = servers.values().sum();
    let allowed = SERVERS_MIN.max((all as u64 * policy.brake_share / 100) as usize);
    let what = if together.len() > allowed {
        format!("{} of {all} chunkservers went at once, and {allowed} may", together.len())
    } else {
        let racks: BTreeSet<&str> = together.values().copied().collect();
        let lost = |rack: &str| together.values().filter(|r| **r == rack).count();
        let whole = racks.into_iter().find(|rack| {
            let size = servers.get(*rack).copied().unwrap_or(0);
            size >= SERVERS_MIN && lost(rack) >= size
        })?;
        format!("all {} chunkservers of rack {whole} went at once", lost(whole))
    };
    let left = ends.saturating_sub(now).as_secs();
    Some(format!(
        "{what}: chunks with two or more replicas left are not copied for another {left} s, or until \
         `quarry repairs --release-brake`; chunks with one replica left are"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(of: &[(u128, &str, u64)]) -> Vec<Loss> {
        let loss = |(n, rack, at): &(u128, &str, u64)| Loss {
            server: ServerId::from_random(*n),
            rack: (*rack).into(),
            at: Duration::from_secs(*at),
        };
        of.iter().map(loss).collect()
    }

    fn holds(of: &[(u128, &str, u64)], servers: &[(&str, usize)], now: u64) -> Option<String> {
        let servers = servers.iter().map(|(rack, size)| ((*rack).into(), *size)).collect();
        brake(&losses(of), &servers, &Policy::default(), Duration::from_secs(now))
    }

    #[test]
    fn two_servers_may_go_and_a_third_at_once_holds_repair() {
        let six = [("a", 3), ("b", 3)];
        assert_eq!(holds(&[], &six, 0), None);
        assert_eq!(holds(&[(1, "a", 10), (2, "b", 11)], &six, 11), None);
        let why = holds(&[(1, "a", 10), (2, "b", 11), (3, "b", 12)], &six, 12).unwrap();
        assert!(why.contains("3 of 6 chunkservers went at once, and 2 may"), "{why}");
        assert_eq!(holds(&[(1, "a", 10), (2, "b", 11), (3, "b", 500)], &six, 500), None, "one after the other");
    }

    #[test]
    fn a_share_of_many_may_go() {
        let many = [("a", 50), ("b", 50)];
        let gone: Vec<_> = (0..20).map(|n| (n, "a", 10)).collect();
        assert_eq!(holds(&gone, &many, 10), None);
        let gone: Vec<_> = (0..21).map(|n| (n, "a", 10)).collect();
        assert!(holds(&gone, &many, 10).is_some());
    }

    #[test]
    fn a_rack_of_two_that_goes_at_once_holds_and_a_rack_of_one_does_not() {
        let racks = [("a", 2), ("b", 1), ("c", 5)];
        let why = holds(&[(1, "a", 10), (2, "a", 11)], &racks, 11).unwrap();
        assert!(why.contains("all 2 chunkservers of rack a went at once"), "{why}");
        assert_eq!(holds(&[(3, "b", 10)], &racks, 11), None);
        assert_eq!(holds(&[(1, "a", 10)], &racks, 11), None);
    }

    #[test]
    fn the_brake_holds_for_its_time_only() {
        let racks = [("a", 2), ("c", 5)];
        assert!(holds(&[(1, "a", 10), (2, "a", 11)], &racks, 610).is_some());
        assert_eq!(holds(&[(1, "a", 10), (2, "a", 11)], &racks, 611), None);
    }
}
