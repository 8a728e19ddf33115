//! Recording how far each master has acknowledged the log, so that one that comes back with less is recognised by any other,
//! whoever leads by then (S11).

use std::{sync::Mutex, time::Duration};

use quarry_env::Instant;
use quarry_master_core::{
    command::{Kind, LogMark, MarkLogs},
    limits::MASTERS_MAX,
    query,
};
use quarry_types::NodeId;

use crate::{error::Fault, shared::Shared};

/// Between two records, at least. What is younger only the leader itself knows.
const MARK_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Marks<'a> {
    shared: &'a Shared,
    last: Mutex<Instant>,
}

impl<'a> Marks<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Marks { shared, last: Mutex::new(shared.now()) }
    }

    pub fn stepper(self) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + 'a>> {
        let this = std::sync::Arc::new(self);
        move || {
            let this = this.clone();
            Box::pin(async move { this.step().await })
        }
    }

    async fn step(&self) -> Result<bool, Fault> {
        let now = self.shared.now();
        if now.since(*self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)) < MARK_EVERY {
            return Ok(false);
        }
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
        let before = self.shared.peek(|tables| Ok(query::log_marks(tables)?)).await?;
        let acknowledged = self.shared.group.acknowledged();
        if is_worth_it(&before, &acknowledged) {
            let logs = acknowledged.iter().take(MASTERS_MAX);
            let logs = logs.map(|(node, index)| LogMark { node: NodeId(*node), index: *index }).collect();
            self.shared.propose(Kind::MarkLogs(MarkLogs { logs })).await?;
            let lowest = acknowledged.iter().map(|(_, index)| *index).min();
            tracing::debug!(lowest, "how far the logs of the masters are was recorded");
        }
        Ok(false)
    }
}

/// Whether anything but the last record itself was acknowledged since, in a group of several.
fn is_worth_it(before: &[LogMark], acknowledged: &[(u64, u64)]) -> bool {
    let known = |node: u64| before.iter().find(|mark| mark.node.0 == node).map_or(0, |mark| mark.index);
    acknowledged.len() > 1 && acknowledged.iter().any(|(node, index)| *index > known(*node) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_does_nothing_records_nothing() {
        let before = [LogMark { node: NodeId(1), index: 8 }, LogMark { node: NodeId(2), index: 8 }];
        assert!(!is_worth_it(&before, &[(1, 9), (2, 9)]), "the ninth is the record of the eight before it");
        assert!(is_worth_it(&before, &[(1, 10), (2, 9)]));
        assert!(is_worth_it(&before, &[(1, 9), (3, 9)]), "a new member");
        assert!(!is_worth_it(&[], &[(1, 100)]), "one alone has nobody to be told by");
    }
}
