//! Which servers take a new chunk.

use std::collections::BTreeSet;

use quarry_types::ServerId;
use rand::{Rng as _, RngCore};

/// Among how many of the best the next server is drawn: a new empty server must not be buried.
const DRAW_AMONG: usize = 4;
/// Writes under way on one server past which it takes no more.
pub const WRITES_PER_SERVER: u32 = 256;
/// Share of a score that free capacity has.
const WEIGHT_CAPACITY: f64 = 0.4;
/// Share of a score that the load has.
const WEIGHT_LOAD: f64 = 0.3;
/// Share of a score that latency has.
const WEIGHT_LATENCY: f64 = 0.2;
/// Share of a score that nearness to the writer has.
const WEIGHT_AFFINITY: f64 = 0.1;
/// The load at which half of its score is gone, in writes and reads under way.
const LOAD_HALF: f64 = 8.0;
/// The latency at which half of its score is gone, in microseconds.
const LATENCY_HALF_US: f64 = 5000.0;

/// A chunkserver that could take a chunk, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub server: ServerId,
    /// Its failure domain.
    pub rack: String,
    /// Beats come ([`crate::detector::Health::Alive`]).
    pub alive: bool,
    /// It is being emptied.
    pub draining: bool,
    /// Bytes of all its disks that work.
    pub capacity_bytes: u64,
    /// Bytes it can still take, its reserve kept.
    pub available_bytes: u64,
    /// Writes under way.
    pub active_writes: u32,
    /// Reads under way.
    pub active_reads: u32,
    /// How long its commands take; 0: not known.
    pub latency_us: u64,
    /// It is on the writer's machine or in its rack.
    pub near: bool,
}

/// What is wanted.
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
    /// Servers that must not be taken, such as holders.
    pub exclude: Vec<ServerId>,
}

/// Too few servers can take part. Counts say which filter removed how many, each server at the first that did.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error(
    "{usable} of {known} chunkservers can take a chunk and {needed} are needed ({dead} not alive, {draining} draining, \
     {full} without room, {busy} busy, {excluded} taken already); start or free chunkservers, or lower the replicas"
)]
pub struct PlacementError {
    /// Servers needed.
    pub needed: u32,
    /// Servers known.
    pub known: usize,
    /// Servers that passed.
    pub usable: usize,
    /// Suspect or dead.
    pub dead: usize,
    /// Being emptied.
    pub draining: usize,
    /// Without room.
    pub full: usize,
    /// With too many writes under way.
    pub busy: usize,
    /// Excluded by the request.
    pub excluded: usize,
}

/// The score of a candidate, between 0 and 1.
#[must_use]
pub fn score(candidate: &Candidate) -> f64 {
    let capacity = candidate.capacity_bytes.max(1) as f64;
    let free = (candidate.available_bytes as f64 / capacity).clamp(0.0, 1.0);
    let load = f64::from(candidate.active_writes) + f64::from(candidate.active_reads);
    let idle = LOAD_HALF / (LOAD_HALF + load);
    let quick = LATENCY_HALF_US / (LATENCY_HALF_US + candidate.latency_us as f64);
    let near = if candidate.near { 1.0 } else { 0.0 };
    WEIGHT_CAPACITY * free + WEIGHT_LOAD * idle + WEIGHT_LATENCY * quick + WEIGHT_AFFINITY * near
}

fn filter<'a>(candidates: &'a [Candidate], request: &Request) -> (Vec<&'a Candidate>, PlacementError) {
    let mut out = PlacementError { needed: request.min.max(1), known: candidates.len(), ..Default::default() };
    let mut usable = Vec::new();
    for candidate in candidates {
        if request.exclude.contains(&candidate.server) {
            out.excluded += 1;
        } else if !candidate.alive {
            out.dead += 1;
        } else if candidate.draining {
            out.draining += 1;
        } else if candidate.available_bytes < request.bytes {
            out.full += 1;
        } else if candidate.active_writes >= WRITES_PER_SERVER {
            out.busy += 1;
        } else {
            usable.push(candidate);
        }
    }
    // The draw must depend on the seed alone, not on the order in which servers were listed.
    usable.sort_by_key(|c| c.server);
    usable.dedup_by_key(|c| c.server);
    out.usable = usable.len();
    (usable, out)
}

/// Draws among the best of `pool`, weighted by score, and takes the drawn one out.
fn draw<'a>(pool: &mut Vec<&'a Candidate>, racks: &BTreeSet<&'a str>, rng: &mut dyn RngCore) -> Option<&'a Candidate> {
    let fresh = |c: &&Candidate| !racks.contains(c.rack.as_str());
    let spread = pool.iter().any(fresh);
    let mut best: Vec<(f64, ServerId)> =
        pool.iter().filter(|c| !spread || fresh(c)).map(|c| (score(c), c.server)).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    best.truncate(DRAW_AMONG);
    let sum: f64 = best.iter().map(|(score, _)| score).sum();
    let mut at = rng.random::<f64>() * sum;
    let mut drawn = best.last()?.1;
    for (score, server) in &best {
        if at < *score {
            drawn = *server;
            break;
        }
        at -= score;
    }
    let index = pool.iter().position(|c| c.server == drawn)?;
    Some(pool.remove(index))
}

/// Distinct servers for a chunk, on distinct racks as far as there are any, the primary first. Fewer than wanted when
/// there are not so many, but never fewer than `min`.
///
/// # Errors
/// [`PlacementError`] when fewer than `min` can take part.
pub fn place(
    candidates: &[Candidate],
    request: &Request,
    rng: &mut dyn RngCore,
) -> Result<Vec<ServerId>, PlacementError> {
    let (usable, why_not) = filter(candidates, request);
    let needed = request.min.max(1) as usize;
    let wanted = (request.wanted as usize).max(needed);
    let (avoided, mut pool): (Vec<_>, Vec<_>) = usable.into_iter().partition(|c| request.avoid.contains(&c.server));
    let mut second = avoided;
    let mut racks = BTreeSet::new();
    let mut servers = Vec::new();
    while servers.len() < wanted {
        let from = if !pool.is_empty() {
            &mut pool
        } else if servers.len() < needed {
            &mut second
        } else {
            break;
        };
        let Some(drawn) = draw(from, &racks, rng) else { break };
        racks.insert(drawn.rack.as_str());
        servers.push(drawn.server);
    }
    if servers.len() < needed { Err(why_not) } else { Ok(servers) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

    use super::*;

    fn candidate(number: u128, rack: u8) -> Candidate {
        Candidate {
            server: ServerId::from_random(number),
            rack: format!("r{rack}"),
            alive: true,
            draining: false,
            capacity_bytes: 1000,
            available_bytes: 500,
            active_writes: 0,
            active_reads: 0,
            latency_us: 0,
            near: false,
        }
    }

    fn request(wanted: u32, min: u32) -> Request {
        Request { wanted, min, bytes: 64, avoid: vec![], exclude: vec![] }
    }

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn each_filter_is_named() {
        let mut all: Vec<Candidate> = (0..6).map(|n| candidate(n, 0)).collect();
        all[0].alive = false;
        all[1].draining = true;
        all[2].available_bytes = 63;
        all[3].active_writes = WRITES_PER_SERVER;
        let ask = Request { exclude: vec![all[4].server], ..request(3, 2) };
        let error = place(&all, &ask, &mut rng(1)).unwrap_err();
        let counts = (error.dead, error.draining, error.full, error.busy, error.excluded, error.usable);
        assert_eq!(counts, (1, 1, 1, 1, 1, 1));
        assert!(error.to_string().contains("1 of 6 chunkservers"), "{error}");
        assert_eq!(place(&all, &Request { min: 1, ..ask }, &mut rng(1)).unwrap(), [all[5].server]);
    }

    #[test]
    fn servers_that_failed_are_taken_only_in_need() {
        let all: Vec<Candidate> = (0..3).map(|n| candidate(n, n as u8)).collect();
        let ask = Request { avoid: vec![all[0].server], ..request(3, 2) };
        for seed in 0..50 {
            let servers = place(&all, &ask, &mut rng(seed)).unwrap();
            assert!(servers.len() == 2 && !servers.contains(&all[0].server));
        }
        let two = Request { avoid: vec![all[0].server, all[1].server], ..request(3, 2) };
        assert_eq!(place(&all, &two, &mut rng(1)).unwrap().len(), 2);
    }

    #[test]
    fn a_new_empty_server_is_not_buried() {
        let mut all: Vec<Candidate> = (0..10).map(|n| candidate(n, n as u8)).collect();
        all[0].available_bytes = 1000;
        let mut first = 0;
        for seed in 0..1000 {
            let servers = place(&all, &request(1, 1), &mut rng(seed)).unwrap();
            first += usize::from(servers[0] == all[0].server);
        }
        assert!((200..500).contains(&first), "drawn {first} times of 1000");
    }

    #[test]
    fn a_busy_slow_or_full_server_scores_less_and_a_near_one_more() {
        let plain = score(&candidate(1, 0));
        assert!(score(&Candidate { active_writes: 9, ..candidate(1, 0) }) < plain);
        assert!(score(&Candidate { latency_us: 9000, ..candidate(1, 0) }) < plain);
        assert!(score(&Candidate { available_bytes: 100, ..candidate(1, 0) }) < plain);
        assert!(score(&Candidate { near: true, ..candidate(1, 0) }) > plain);
        assert!(score(&Candidate { capacity_bytes: 0, ..candidate(1, 0) }).is_finite());
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
