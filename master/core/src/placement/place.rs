//! Servers for a new chunk.

use std::collections::BTreeSet;

use quarry_types::ServerId;
use rand::RngCore;

use super::{
    Candidate, Filter, Weights,
    draw::Best,
    filter::{Ask, FOR_NEW, Tally, rejection},
    score,
};

/// What is wanted of the servers for a new chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How many servers.
    pub wanted: u32,
    /// How many at least.
    pub min: u32,
    /// Bytes the chunk may become.
    pub bytes: u64,
    /// Servers that failed the writer just now: taken only when there are too few others.
    pub avoid: Vec<ServerId>,
    /// Servers that must not be taken.
    pub exclude: Vec<ServerId>,
    /// How servers are scored.
    pub weights: Weights,
}

impl Request {
    /// What every candidate is asked.
    #[must_use]
    pub fn ask(&self) -> Ask<'_> {
        Ask { bytes: self.bytes, taken: &self.exclude, used_racks: None, copies_in_max: u32::MAX, toward: None }
    }
}

/// Too few servers can take part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tally} can take a chunk and {needed} are needed; {}, or lower the replicas", self.remedy())]
pub struct PlacementError {
    /// Servers needed.
    pub needed: u32,
    /// Which filter removed how many.
    pub tally: Tally,
}

impl PlacementError {
    fn remedy(&self) -> &'static str {
        self.tally.decisive(FOR_NEW).map_or("add chunkservers", Filter::remedy)
    }

    /// Servers that have no room are another matter than servers that are not there.
    #[must_use]
    pub fn for_want_of_room(&self) -> bool {
        let full = self.tally.by(Filter::Room);
        full > 0 && self.tally.usable + full >= self.needed
    }
}

/// Draws among the best of `pool` and takes the drawn one out.
fn take<'a>(
    pool: &mut Vec<&'a Candidate>,
    racks: &BTreeSet<&'a str>,
    weights: &Weights,
    rng: &mut dyn RngCore,
) -> Option<&'a Candidate> {
    let fresh = |c: &Candidate| !racks.contains(c.rack.as_str());
    let spread = pool.iter().any(|c| fresh(c));
    let mut best = Best::default();
    for candidate in pool.iter().filter(|c| !spread || fresh(c)) {
        best.offer(score(candidate, weights).total, candidate.server);
    }
    let drawn = best.draw(rng.next_u64())?;
    let index = pool.iter().position(|c| c.server == drawn)?;
    Some(pool.swap_remove(index))
}

/// Distinct servers for a chunk, on distinct racks as far as there are any, the primary first. Fewer than wanted when
/// there are not so many, but never fewer than `min`. Sick servers are taken when there are too few others, those to avoid
/// only to reach `min`.
///
/// # Errors
/// [`PlacementError`] when fewer than `min` can take part.
pub fn place(
    candidates: &[Candidate],
    request: &Request,
    rng: &mut dyn RngCore,
) -> Result<Vec<ServerId>, PlacementError> {
    let (ask, mut tally) = (request.ask(), Tally::default());
    let (mut pool, mut sick, mut avoided) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in candidates {
        let rejected = rejection(FOR_NEW, candidate, &ask);
        tally.count(rejected);
        if rejected.is_none() {
            if request.avoid.contains(&candidate.server) {
                avoided.push(candidate);
            } else if candidate.sick.is_some() {
                sick.push(candidate);
            } else {
                pool.push(candidate);
            }
        }
    }
    let needed = request.min.max(1);
    let wanted = request.wanted.max(needed) as usize;
    let (mut racks, mut servers) = (BTreeSet::new(), Vec::new());
    while servers.len() < wanted {
        let from = if !pool.is_empty() {
            &mut pool
        } else if !sick.is_empty() {
            &mut sick
        } else if servers.len() < needed as usize {
            &mut avoided
        } else {
            break;
        };
        let Some(drawn) = take(from, &racks, &request.weights, rng) else { break };
        racks.insert(drawn.rack.as_str());
        servers.push(drawn.server);
    }
    if servers.len() < needed as usize { Err(PlacementError { needed, tally }) } else { Ok(servers) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

    use super::*;
    use crate::{command::ServerWish, detector::Health, placement::filter::WRITES_PER_SERVER};

    fn candidate(number: u128, rack: u8) -> Candidate {
        Candidate::idle(ServerId::from_random(number), &format!("r{rack}"), 1000, 500)
    }

    fn request(wanted: u32, min: u32) -> Request {
        Request { wanted, min, bytes: 64, avoid: vec![], exclude: vec![], weights: Weights::default() }
    }

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn each_filter_is_named() {
        let mut all: Vec<Candidate> = (0..7).map(|n| candidate(n, 0)).collect();
        all[0].health = Health::Suspect;
        all[1].wish = ServerWish::Draining;
        all[2].available_bytes = 63;
        all[3].active_writes = WRITES_PER_SERVER;
        all[6].disks_known = false;
        let ask = Request { exclude: vec![all[4].server], ..request(3, 2) };
        let error = place(&all, &ask, &mut rng(1)).unwrap_err();
        assert!(FOR_NEW.iter().all(|filter| error.tally.by(*filter) == 1), "{error}");
        assert!(error.to_string().contains("1 of 7 chunkservers"), "{error}");
        assert!(!error.for_want_of_room() || error.tally.usable + 1 >= 2);
        assert_eq!(place(&all, &Request { min: 1, ..ask }, &mut rng(1)).unwrap(), [all[5].server]);
    }

    #[test]
    fn a_server_that_has_not_looked_at_its_disks_is_not_one_without_room() {
        let mut all = [candidate(0, 0), candidate(1, 1)];
        (all[0].available_bytes, all[1].available_bytes) = (0, 0);
        assert!(place(&all, &request(2, 2), &mut rng(1)).unwrap_err().for_want_of_room());
        all[1].disks_known = false;
        let error = place(&all, &request(2, 2), &mut rng(1)).unwrap_err();
        assert!(!error.for_want_of_room(), "a writer waits for it: {error}");
    }

    #[test]
    fn servers_that_failed_or_are_sick_are_taken_only_in_need() {
        let mut all: Vec<Candidate> = (0..4).map(|n| candidate(n, n as u8)).collect();
        all[1].sick = Some("disk /d is slow".into());
        let ask = |wanted| Request { avoid: vec![all[0].server], ..request(wanted, 2) };
        for seed in 0..50 {
            let servers = place(&all, &ask(2), &mut rng(seed)).unwrap();
            assert!(servers.len() == 2 && !servers.contains(&all[0].server) && !servers.contains(&all[1].server));
            let servers = place(&all, &ask(4), &mut rng(seed)).unwrap();
            assert!(servers.len() == 3 && servers[2] == all[1].server, "the sick one last, the failed one not at all");
        }
        let two = Request { avoid: all.iter().map(|c| c.server).collect(), ..request(3, 2) };
        assert_eq!(place(&all, &two, &mut rng(1)).unwrap().len(), 2);
    }

    #[test]
    fn a_new_empty_server_is_not_buried() {
        let mut all: Vec<Candidate> = (0..10).map(|n| candidate(n, n as u8)).collect();
        all[0].free_bytes = 1000;
        let mut first = 0;
        for seed in 0..1000 {
            let servers = place(&all, &request(1, 1), &mut rng(seed)).unwrap();
            first += usize::from(servers[0] == all[0].server);
        }
        assert!((200..500).contains(&first), "drawn {first} times of 1000");
    }

    proptest! {
        #[test]
        fn servers_are_distinct_spread_over_racks_and_drawn_by_the_seed_alone(
            racks in proptest::collection::vec(0u8..5, 1..12),
            wanted in 1u32..9,
            seed: u64,
        ) {
            let all: Vec<Candidate> = racks.iter().enumerate().map(|(n, r)| candidate(n as u128, *r)).collect();
            let servers = place(&all, &request(wanted, 1), &mut rng(seed)).unwrap();
            prop_assert_eq!(servers.len(), (wanted as usize).min(all.len()));
            let distinct: BTreeSet<_> = servers.iter().collect();
            prop_assert_eq!(distinct.len(), servers.len());
            let rack = |s: &ServerId| all.iter().find(|c| c.server == *s).unwrap().rack.clone();
            let used: BTreeSet<_> = servers.iter().map(rack).collect();
            let there: BTreeSet<_> = racks.iter().collect();
            prop_assert_eq!(used.len(), there.len().min(servers.len()), "as many racks as can be");
            let mut backwards = all.clone();
            backwards.reverse();
            prop_assert_eq!(place(&backwards, &request(wanted, 1), &mut rng(seed)).unwrap(), servers);
        }
    }
}
