//! What clients asked and were told, and when, and whether a namespace can have behaved so.

use std::time::Duration;

use todc_utils::linearizability::{
    WGLChecker,
    history::{Action, History},
};

use super::model::{Call, Namespace, Outcome};

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which client.
    pub client: usize,
    /// What it asked for.
    pub call: Call,
    /// What it was told.
    pub outcome: Outcome,
    /// When it was asked for, since the test began.
    pub begin: Duration,
    /// When the answer was there, or the client gave up.
    pub end: Duration,
    /// The error where none was asked for.
    pub error: Option<String>,
}

impl Record {
    /// From when on it has certainly had its effect, if it has any. One with an unknown outcome may have it after everything else,
    /// where nobody sees it: so "never" needs no case of its own.
    fn effective(&self) -> Duration {
        if self.outcome == Outcome::Unknown { Duration::MAX } else { self.end }
    }
}

/// Whether there is an order of these operations of one group, on names that did not exist before, in which each is between
/// its beginning and its end and each answer is right.
#[must_use]
pub fn is_linearizable(records: &[Record]) -> bool {
    let mut actions: Vec<(Duration, bool, usize)> = Vec::new();
    for (i, record) in records.iter().enumerate() {
        actions.extend([(record.begin, false, i), (record.effective(), true, i)]);
    }
    if actions.is_empty() {
        return true;
    }
    // At the same instant calls come first: what may have been at the same time counts as such.
    actions.sort_unstable();
    let action = |(_, is_end, i): (Duration, bool, usize)| {
        let operation = (records[i].call, records[i].outcome);
        (i, if is_end { Action::Response(operation) } else { Action::Call(operation) })
    };
    WGLChecker::<Namespace>::is_linearizable(History::from_actions(actions.into_iter().map(action).collect()))
}

/// The records in the order in which they began, a line each.
#[must_use]
pub fn timeline(records: &[Record]) -> String {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.begin);
    let line = |record: &Record| {
        let Record { client, call, outcome, begin, end, error } = record;
        let error = error.as_deref().unwrap_or_default();
        format!(
            "{:>12.6} – {:>12.6} client {client} {call:?} → {outcome:?} {error}\n",
            begin.as_secs_f64(),
            end.as_secs_f64()
        )
    };
    sorted.into_iter().map(line).collect()
}

/// The shortest beginning of a history that is not linearizable, counted by when answers came; what came later is of no use
/// to whoever looks for the cause.
#[must_use]
pub fn shortest_wrong(records: &[Record]) -> Vec<Record> {
    let mut ends: Vec<Duration> = records.iter().map(|record| record.end).collect();
    ends.sort_unstable();
    let until = |end: Duration| -> Vec<Record> {
        let begun = records.iter().filter(|record| record.begin <= end).cloned();
        // Whose answer came later had none yet.
        begun.map(|r| if r.end > end { Record { outcome: Outcome::Unknown, ..r } } else { r }).collect()
    };
    // A beginning of what is linearizable is so too.
    let wrong = ends.partition_point(|end| is_linearizable(&until(*end)));
    ends.get(wrong).map_or_else(|| records.to_vec(), |end| until(*end))
}
