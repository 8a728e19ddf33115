//! Asking whichever master answers.

use std::time::Duration;

use quarry_proto::WireError;
use quarry_types::ErrorCode;
use tonic::{Request, transport::Channel};

use super::{ATTEMPT_DEADLINE, ATTEMPT_LEAST, Answer, Masters, gave_up};
use crate::{ClientError, retry::Backoff, stale::is_of_the_master};

/// In the first round a master that does not answer within this is passed over. It is long enough for one that waits for
/// a new leader to be elected.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// As what a master is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To answer from what it has, if that is young enough.
    Anybody,
    /// To answer with everything that was acknowledged: what an answer that may be old must be as good as.
    Leader,
}

/// In which order masters are asked: the one that answered last, then the others from a place that chance decides, and the
/// leader at the end: the others are there to take work off it.
fn order(addresses: &[String], last: Option<&str>, leader: Option<&str>, chance: u64) -> Vec<String> {
    let others: Vec<&String> =
        addresses.iter().filter(|a| Some(a.as_str()) != last && Some(a.as_str()) != leader).collect();
    let begin = usize::try_from(chance % others.len().max(1) as u64).unwrap_or_default();
    let mut all: Vec<String> = last.filter(|last| Some(*last) != leader).map(str::to_owned).into_iter().collect();
    all.extend(others.iter().cycle().skip(begin).take(others.len()).map(|address| (*address).clone()));
    all.extend(leader.map(str::to_owned));
    all
}

/// How long one attempt of a round may take: at first the next master is soon asked, later one is waited for.
fn attempt_limit(round: u32) -> Duration {
    FIRST_ATTEMPT.saturating_mul(1 << round.min(8)).min(ATTEMPT_DEADLINE)
}

impl Masters {
    /// Asks one master after the other until one answers, until the client's deadline. The answer, and how long that took from
    /// asking the one who gave it.
    pub(crate) async fn call_any<Q, A, F>(
        &self,
        doing: &str,
        make: impl Fn(Asked) -> Q,
        send: F,
    ) -> Result<(A, Duration), ClientError>
    where
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        let clock = &self.world.clock;
        let start = clock.now();
        let (mut backoff, mut refused, mut failed) = (Backoff::default(), None, None);
        for round in 0u32.. {
            for (target, asked) in self.targets(round) {
                let left = self.deadline.saturating_sub(clock.now().since(start));
                let limit = left.min(attempt_limit(round));
                // By the clock that goes on while this machine sleeps: an answer ages on the way.
                let sent = clock.boot();
                let error = match self.attempt_at(&target, limit, make(asked), &send, &mut 0).await {
                    Ok(answer) => {
                        self.state().answered = Some(target);
                        return Ok((answer, clock.boot().since(sent)));
                    }
                    Err((error, true)) if !is_of_the_master(error.code) => {
                        return Err(ClientError::from_wire(doing, error));
                    }
                    Err((error, answered)) => self.passed_over(&target, error, answered),
                };
                tracing::debug!(doing, master = target, code = %error.code, error = error.message, "another is asked");
                // What a master said of its age says more than that another one cannot be reached or does not lead.
                let kept = if error.code == ErrorCode::TooStale { &mut refused } else { &mut failed };
                *kept = Some(error);
                if clock.now().since(start) >= self.deadline {
                    break;
                }
            }
            let pause = backoff.pause(self.world.random.next_u64());
            if clock.now().plus(pause).plus(ATTEMPT_LEAST) >= start.plus(self.deadline) {
                break;
            }
            clock.sleep(pause).await;
        }
        let nobody = || WireError::new(ErrorCode::Unavailable, "no master is known");
        Err(gave_up(doing, self.deadline, refused.or(failed).unwrap_or_else(nobody)))
    }

    /// Whom to ask in a round, and as what.
    fn targets(&self, round: u32) -> Vec<(String, Asked)> {
        let (leader, last) = {
            let state = self.state();
            (state.leader.clone(), state.answered.clone())
        };
        let all = order(&self.addresses, last.as_deref(), leader.as_deref(), self.world.random.next_u64());
        let mut targets: Vec<(String, Asked)> = all.into_iter().map(|target| (target, Asked::Anybody)).collect();
        // Time that is too short for any proof is not too short for the leader.
        if let Some(leader) = leader.filter(|_| round > 0) {
            targets.push((leader, Asked::Leader));
        }
        targets
    }

    /// Notes what can be learnt from a master that did not answer what was asked.
    fn passed_over(&self, target: &str, error: WireError, answered: bool) -> WireError {
        let mut state = self.state();
        if !answered {
            // The connection may be broken in a way that only its end finds out.
            state.channels.remove(target);
        }
        if state.answered.as_deref() == Some(target) {
            state.answered = None;
        }
        if state.leader.as_deref() == Some(target) && (!answered || error.code == ErrorCode::NotLeader) {
            state.leader = None;
        }
        if let Some(leader) = &error.leader {
            state.leader = Some(leader.clone());
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_asked_last_and_the_one_that_answered_first() {
        let all: Vec<String> = ["a:1", "b:1", "c:1"].map(String::from).to_vec();
        let order = |last, leader, chance| order(&all, last, leader, chance).concat();
        assert_eq!(order(None, None, 0), "a:1b:1c:1");
        assert_eq!(order(None, None, 4), "b:1c:1a:1");
        assert_eq!(order(None, Some("a:1"), 1), "c:1b:1a:1");
        assert_eq!(order(Some("c:1"), Some("a:1"), 0), "c:1b:1a:1");
        assert_eq!(order(Some("a:1"), Some("a:1"), 0), "b:1c:1a:1", "it leads now");
        assert_eq!(order(None, Some("d:1"), 0), "a:1b:1c:1d:1", "one that a master named");
        assert_eq!(super::order(&all[..1], Some("a:1"), Some("a:1"), 7), ["a:1"]);
    }

    #[test]
    fn a_master_that_stands_still_is_soon_passed_over_and_later_waited_for() {
        let limits: Vec<u64> = (0..5).map(|round| attempt_limit(round).as_secs()).collect();
        assert_eq!(limits, [1, 2, 4, 8, 10]);
        assert_eq!(attempt_limit(u32::MAX), ATTEMPT_DEADLINE);
    }
}
