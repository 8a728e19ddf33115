//! Where a copy goes, and why nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use quarry_types::ServerId;

use super::{Decision, FILE_OVERHEAD, Question, Reason, decide, racks};
use crate::{
    placement::{
        Candidate, Filter,
        draw::Best,
        explain::{Explained, Met, explain},
        filter::{Ask, FOR_COPY, FOR_COPY_IN_NEED, Obstacle, Tally, furthest, rejection},
        score,
    },
    repair::{
        Policy,
        facts::{ChunkFacts, Cluster, Holder},
        need::{Need, counted, is_bad},
    },
};

/// A search for the target of a copy: what came of it, and what was asked in the round that decided.
pub(super) struct Search {
    /// The target, or why there is none.
    pub found: Result<ServerId, Reason>,
    filters: &'static [Filter],
    taken: Vec<ServerId>,
    avoids_racks: bool,
}

/// What the targets of a copy are asked, from the strictest to what is left in need: the filters, and who is taken.
fn rounds(question: &Question) -> [(&'static [Filter], Vec<ServerId>); 4] {
    let holders = |of: &dyn Fn(&&Holder) -> bool| -> Vec<ServerId> {
        question.facts.holders.iter().filter(of).map(|h| h.server).collect()
    };
    let all = holders(&|_| true);
    let untried = all.iter().chain(&question.failed).copied().collect();
    // A bad replica can be replaced where it is, when nobody else can take one.
    let not_bad = holders(&|h| !is_bad(h));
    [(FOR_COPY, untried), (FOR_COPY, all.clone()), (FOR_COPY_IN_NEED, all), (FOR_COPY_IN_NEED, not_bad)]
}

/// The racks that the replicas lie on which stay.
fn used_racks(facts: &ChunkFacts) -> BTreeSet<&str> {
    counted(facts).filter(|h| !h.leaves()).map(|h| h.rack.as_str()).collect()
}

/// The racks that a target must not be on: those used, if there is another rack whose servers could take the chunk. Only what
/// operators and losses change counts: one that is busy or unhealthy now is taken in need or waited for, since a copy on a
/// rack that is used already would have to be made again.
fn racks_to_avoid<'a>(
    question: &Question,
    need: &Need,
    used: &'a BTreeSet<&'a str>,
    taken: &[ServerId],
    cluster: &Cluster,
) -> Option<&'a BTreeSet<&'a str>> {
    let bytes = bytes_of(&question.facts);
    let anywhere = Ask { bytes, taken, used_racks: None, copies_in_max: u32::MAX, toward: None };
    let lasting: Vec<Filter> = FOR_COPY_IN_NEED.iter().filter(|filter| !filter.passes_soon()).copied().collect();
    let elsewhere = || {
        let other = |c: &&Candidate| !used.contains(c.rack.as_str());
        cluster.candidates.iter().filter(other).any(|c| rejection(&lasting, c, &anywhere).is_none())
    };
    // For a chunk that only lacks racks, a copy on one that it has would be for nothing. So it would be for balancing: what
    // should leave would stay for its rack's sake, and the chunk would wait for another one.
    let for_nothing =
        only_racks(need) || (toward(&question.facts, need).is_some() && costs_rack(&question.facts, used));
    (for_nothing || elsewhere()).then_some(used)
}

/// Whether a replica that leaves takes a rack along, which the wanted number could use.
fn costs_rack(facts: &ChunkFacts, used: &BTreeSet<&str>) -> bool {
    used.len() < racks(counted(facts)).min(facts.wanted as usize)
}

fn only_racks(need: &Need) -> bool {
    need.missing == 0 && need.moving == 0
}

/// Where a copy must go that is made for balancing alone: anywhere else it would not even anything out.
fn toward(facts: &ChunkFacts, need: &Need) -> Option<ServerId> {
    let leaves_for = |h: &Holder| h.leaves() && !h.leaving;
    facts.toward.filter(|_| need.missing == 0 && need.moving == 1 && !facts.holders.iter().any(leaves_for))
}

fn bytes_of(facts: &ChunkFacts) -> u64 {
    facts.length.saturating_add(FILE_OVERHEAD)
}

/// Who could be the target. Where balancing named one, the others are not even asked: it moves thousands of chunks to one server,
/// which takes a few at a time, and servers may be thousands.
fn in_question(cluster: &Cluster, toward: Option<ServerId>) -> &[Candidate] {
    match toward {
        Some(named) => cluster.candidate(named).map_or(&[], std::slice::from_ref),
        None => &cluster.candidates,
    }
}

/// Looks for the target of a copy, round by round.
pub(super) fn search(question: &Question, need: &Need, cluster: &Cluster, policy: &Policy) -> Search {
    let (used, bytes) = (used_racks(&question.facts), bytes_of(&question.facts));
    let toward = toward(&question.facts, need);
    let found = || Err(Reason::NoTarget(Tally::default()));
    let none = Search { found: found(), filters: FOR_COPY, taken: Vec::new(), avoids_racks: false };
    let (mut last, mut tally, mut began) = (none, Tally::default(), false);
    for (filters, taken) in rounds(question) {
        // Where only `Healthy` differs and ruled nobody out, the outcome would be the same: servers may be thousands.
        if began && last.taken == taken && (last.filters == filters || tally.by(Filter::Healthy) == 0) {
            continue;
        }
        let avoid = racks_to_avoid(question, need, &used, &taken, cluster);
        let avoids_racks = avoid.is_some();
        let ask = Ask { bytes, taken: &taken, used_racks: avoid, copies_in_max: policy.copies_in, toward };
        let mut best = Best::default();
        (tally, began) = (Tally::default(), true);
        for candidate in in_question(cluster, toward) {
            let rejected = rejection(filters, candidate, &ask);
            tally.count(rejected);
            if rejected.is_none() {
                best.offer(score(candidate, &policy.weights).total, candidate.server);
            }
        }
        tally.count_others(cluster.candidates.len());
        if let Some(target) = best.draw(question.chance) {
            return Search { found: Ok(target), filters, taken, avoids_racks };
        }
        // Those who are only busy come before a second choice.
        if tally.out.keys().any(|filter| filter.passes_soon()) {
            return Search { found: Err(Reason::TargetsBusy(tally)), filters, taken, avoids_racks };
        }
        last = Search { found: found(), filters, taken, avoids_racks };
    }
    let concerns = |rack: &str| !only_racks(need) || !used.contains(rack);
    tally.obstacle = obstacle(last.filters, &last.ask(bytes, &used, policy, toward), cluster, concerns);
    last.found = Err(if only_racks(need) { Reason::NoRack(tally) } else { Reason::NoTarget(tally) });
    last
}

impl Search {
    /// What every server was asked in the round that decided.
    fn ask<'a>(
        &'a self,
        bytes: u64,
        used: &'a BTreeSet<&'a str>,
        policy: &Policy,
        toward: Option<ServerId>,
    ) -> Ask<'a> {
        let used_racks = self.avoids_racks.then_some(used);
        Ask { bytes, taken: &self.taken, used_racks, copies_in_max: policy.copies_in, toward }
    }
}

/// What stands in the way on the racks in question. A rack without a server that is registered is down.
fn obstacle(filters: &[Filter], ask: &Ask<'_>, cluster: &Cluster, concerns: impl Fn(&str) -> bool) -> Option<Obstacle> {
    let mut by: BTreeMap<Filter, BTreeSet<&str>> = BTreeMap::new();
    let mut there: BTreeSet<&str> = BTreeSet::new();
    for candidate in &cluster.candidates {
        there.insert(&candidate.rack);
        let rejected = rejection(filters, candidate, ask).filter(|_| concerns(&candidate.rack));
        if let Some(filter) = rejected {
            by.entry(filter).or_default().insert(&candidate.rack);
        }
    }
    let down: BTreeSet<&str> = cluster.racks.iter().map(String::as_str).filter(|rack| !there.contains(rack)).collect();
    by.entry(Filter::Alive).or_default().extend(down.into_iter().filter(|rack| concerns(rack)));
    by.retain(|_, racks| !racks.is_empty());
    let filter = furthest(filters, |filter| by.contains_key(&filter))?;
    Some(Obstacle::new(filter, by.get(&filter)?))
}

/// A decision with everything that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What the chunk needs.
    pub need: Need,
    /// What would be done now.
    pub decision: Decision,
    /// Every server as a target of a copy, in the round that decides: each filter and each term of its score.
    pub targets: Vec<Explained>,
}

/// Decides, and says why.
#[must_use]
pub fn explained(question: &Question, cluster: &Cluster, policy: &Policy) -> Explanation {
    let (need, decision) = decide(question, cluster, policy);
    let (used, bytes) = (used_racks(&question.facts), bytes_of(&question.facts));
    let search = search(question, &need, cluster, policy);
    let ask = search.ask(bytes, &used, policy, toward(&question.facts, &need));
    let target = |c: &Candidate| {
        let mut target = explain(search.filters, c, &ask, &policy.weights);
        if !search.filters.contains(&Filter::Healthy) {
            let value = format!("{}; does not count in need", Filter::Healthy.value(c, &ask));
            target.filters.push(Met { filter: Filter::Healthy, value, passed: true });
        }
        target
    };
    let targets = cluster.candidates.iter().map(target).collect();
    Explanation { need, decision, targets }
}
