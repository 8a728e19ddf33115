//! What the leader knows of whether the masters hold the same: the last comparison, and alarms until they are over.

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_master_core::agreement::Finding;
use quarry_types::NodeId;

/// A new leader compares this soon: what an earlier one found is not in the log.
const FIRST_AFTER: Duration = Duration::from_secs(60);

/// Comparisons of this leadership.
#[derive(Debug, Default)]
pub struct Agreement {
    finished: u64,
    running: bool,
    asked: bool,
    last: Option<Compared>,
    findings: BTreeMap<NodeId, Finding>,
}

/// When and where the last comparison was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The entry of the log.
    pub index: u64,
    /// When it ended.
    pub at: Instant,
}

impl Agreement {
    /// Asks for a comparison now. It is done when so many are finished.
    pub fn ask(&mut self) -> u64 {
        self.asked = true;
        // One that runs already began before it was asked for.
        self.finished + 1 + u64::from(self.running)
    }

    /// Whether one begins now; `interval` zero: only when it is asked for.
    pub fn begin_if_due(&mut self, now: Instant, since: Instant, interval: Duration) -> bool {
        let from = self.last.map_or(since, |last| last.at);
        let wait = if self.last.is_none() { interval.min(FIRST_AFTER) } else { interval };
        let due = !interval.is_zero() && now.since(from) >= wait;
        self.running = self.asked || due;
        self.running
    }

    /// It could not be made: it is still due.
    pub fn give_up(&mut self) {
        self.running = false;
    }

    /// It ended. A member with an alarm keeps it until it is found to agree, or is no member any more. Who is newly
    /// found to be wrong.
    pub fn end(&mut self, compared: Compared, mut findings: BTreeMap<NodeId, Finding>) -> Vec<(NodeId, Finding)> {
        for (node, finding) in &mut findings {
            let before = self.findings.get(node).copied().filter(|before| before.is_alarm());
            if let (Finding::Unknown, Some(before)) = (&finding, before) {
                *finding = before;
            }
        }
        (self.running, self.asked) = (false, false);
        self.finished += 1;
        self.last = Some(compared);
        self.findings = findings;
        self.alarms().collect()
    }

    /// How many have ended.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// The last one.
    pub fn last(&self) -> Option<Compared> {
        self.last
    }

    /// What was found of a member.
    pub fn finding(&self, node: NodeId) -> Option<Finding> {
        self.findings.get(&node).copied()
    }

    /// Members that do not hold what they should.
    pub fn alarms(&self) -> impl Iterator<Item = (NodeId, Finding)> {
        self.findings.iter().map(|(node, finding)| (*node, *finding)).filter(|(_, finding)| finding.is_alarm())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn findings(second: Finding) -> BTreeMap<NodeId, Finding> {
        BTreeMap::from([(NodeId(1), Finding::Agrees), (NodeId(2), second)])
    }

    fn end(agreement: &mut Agreement, seconds: u64, second: Finding) -> Vec<(NodeId, Finding)> {
        agreement.end(Compared { index: seconds, at: at(seconds) }, findings(second))
    }

    #[test]
    fn it_begins_soon_then_at_its_interval_and_when_it_is_asked_for() {
        let mut agreement = Agreement::default();
        assert!(!agreement.begin_if_due(at(159), at(100), HOUR));
        assert!(agreement.begin_if_due(at(160), at(100), HOUR));
        assert_eq!(agreement.ask(), 2, "the one that runs was not asked for");
        agreement.give_up();
        assert!(agreement.begin_if_due(at(161), at(100), HOUR), "it is still due");
        end(&mut agreement, 200, Finding::Agrees);
        assert!(!agreement.begin_if_due(at(3799), at(100), HOUR));
        assert!(agreement.begin_if_due(at(3800), at(100), HOUR));
        end(&mut agreement, 3800, Finding::Agrees);
        assert!(!agreement.begin_if_due(at(99_999), at(100), Duration::ZERO), "never by itself");
        assert_eq!(agreement.ask(), 3);
        assert!(agreement.begin_if_due(at(3801), at(100), Duration::ZERO));
    }

    #[test]
    fn an_alarm_stays_until_the_member_agrees_or_is_gone() {
        let mut agreement = Agreement::default();
        let alarm = vec![(NodeId(2), Finding::Differs)];
        assert_eq!(end(&mut agreement, 1, Finding::Differs), alarm);
        assert_eq!(end(&mut agreement, 2, Finding::Unknown), alarm, "silence does not end it");
        assert_eq!(end(&mut agreement, 3, Finding::Agrees), []);
        assert_eq!(end(&mut agreement, 4, Finding::Differs), alarm);
        agreement.end(Compared { index: 5, at: at(5) }, BTreeMap::from([(NodeId(1), Finding::Unknown)]));
        assert_eq!(agreement.alarms().count(), 0);
        assert_eq!((agreement.finished(), agreement.last().map(|last| last.index)), (5, Some(5)));
    }
}
