//! Every filter and every term of a candidate, in words.

use quarry_types::ServerId;

use super::{
    Candidate, Filter, Score, Weights,
    filter::{Ask, rejection},
    score,
};

/// One filter as one candidate met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Which.
    pub filter: Filter,
    /// What was looked at, with its figure.
    pub value: String,
    /// Whether the candidate passed.
    pub passed: bool,
}

/// One term of a candidate's score.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Its name.
    pub name: &'static str,
    /// What it was made from.
    pub value: String,
    /// Its weight, between 0 and 1.
    pub weight: f64,
    /// Between 0 and 1; times the weight it is what the term adds.
    pub term: f64,
}

/// A candidate with everything that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Who.
    pub server: ServerId,
    /// Its failure domain.
    pub rack: String,
    /// Every filter, those behind the one that ruled it out as well.
    pub filters: Vec<Met>,
    /// The score's terms, whether or not the filters let it come to that.
    pub terms: Vec<Term>,
    /// Their sum.
    pub score: f64,
    /// The filter that ruled it out: the first that it did not pass.
    pub rejected: Option<Filter>,
}

/// Everything about one candidate.
#[must_use]
pub fn explain(filters: &[Filter], candidate: &Candidate, ask: &Ask<'_>, weights: &Weights) -> Explained {
    let rejected = rejection(filters, candidate, ask);
    let met = |filter: &Filter| Met {
        filter: *filter,
        value: filter.value(candidate, ask),
        passed: filter.passes(candidate, ask),
    };
    let scored = score(candidate, weights);
    Explained {
        server: candidate.server,
        rack: candidate.rack.clone(),
        filters: filters.iter().map(met).collect(),
        terms: terms(candidate, weights, &scored),
        score: scored.total,
        rejected,
    }
}

fn terms(c: &Candidate, weights: &Weights, scored: &Score) -> Vec<Term> {
    let term = |name, value, weight: u64, term| Term { name, value, weight: weight as f64 / 1000.0, term };
    let load = format!(
        "{} writes, {} reads, {} copies in, {} out, processors {} % busy",
        c.active_writes, c.active_reads, c.copies_in, c.copies_out, c.cpu_percent
    );
    vec![
        term("free room", format!("{} of {} bytes", c.free_bytes, c.capacity_bytes), weights.capacity, scored.capacity),
        term("load", load, weights.load, scored.load),
        term("latency", format!("{} µs", c.latency_us), weights.latency, scored.latency),
        term("affinity", (if c.near { "near" } else { "not near" }).into(), weights.affinity, scored.affinity),
    ]
}
