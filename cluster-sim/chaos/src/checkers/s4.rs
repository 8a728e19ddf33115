//! **S4, linearizable namespace, at most once.**
//!
//! *Observes* what clients asked of a few names and were told, with the simulated instants of question and answer. *From* the
//! clients (`linear/load.rs`); judged by a linearizability checker against a model of a namespace (`linear/model.rs`): a lost
//! write, a deed done twice or a stale answer leaves no order in which all answers are right. Every name is looked at once more
//! at the end.
//!
//! *Cannot see* more than some names at a time (the search grows fast), nor whether sessions that nobody used behave.

use crate::linear::{
    history::{Record, is_linearizable, shortest_wrong, timeline},
    load::Histories,
};

/// What is wrong with these histories.
pub fn histories(all: &Histories) -> Option<String> {
    all.iter().find_map(|(group, records)| group_of(*group, records))
}

fn group_of(group: u64, records: &[Record]) -> Option<String> {
    (!is_linearizable(records)).then(|| {
        let wrong = shortest_wrong(records);
        format!("S4: no order makes the answers to group {group} right:\n{}", timeline(&wrong))
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::linear::model::{Call, Outcome};

    #[test]
    fn a_stale_answer_is_refused() {
        let at = Duration::from_millis;
        let record = |begin, end, call, outcome| Record {
            client: 0,
            call,
            outcome,
            begin: at(begin),
            end: at(end),
            error: None,
        };
        let put = record(0, 1, Call::Put { name: 0, value: 7 }, Outcome::Done);
        let right = record(2, 3, Call::Stat { name: 0 }, Outcome::Found(7));
        let stale = record(2, 3, Call::Stat { name: 0 }, Outcome::NotFound);
        assert_eq!(histories(&BTreeMap::from([(0, vec![put.clone(), right])])), None);
        assert!(histories(&BTreeMap::from([(0, vec![put, stale])])).is_some_and(|why| why.starts_with("S4")));
    }
}
