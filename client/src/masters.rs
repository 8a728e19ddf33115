//! Finding the leader among the masters, and calling it until it answers or patience ends.

mod any;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quarry_env::{World, clock::timeout, net::BoxFuture};
use quarry_proto::{REQUEST_ID, WireError};
use quarry_types::{Advice, ErrorCode, limits::CONNECT_DEADLINE};
use tonic::{Request, Response, Status, metadata::AsciiMetadataValue, transport::Channel};

use crate::{ClientError, channel, leader, retry::Backoff};

pub(crate) use any::Asked;

/// One attempt at a call; a master that does not answer within this is asked again, or another is.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// While a master does not answer, the others are asked so often whether it leads still: a little longer than they take
/// to elect another one.
const ASK_OTHERS: Duration = Duration::from_millis(500);
/// How long they may take to say so.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// No further attempt begins when less than this is left and a master has answered.
const ATTEMPT_LEAST: Duration = Duration::from_millis(250);
/// Hints followed without a pause: a leader may change on the way, but masters that point at each other must not spin.
const HINTS_MAX: u32 = 3;

/// What a gRPC call answers, in a box.
pub(crate) type Answer<A> = BoxFuture<'static, Result<Response<A>, Status>>;

/// A call that failed for good.
#[derive(Debug)]
pub(crate) struct CallFailed {
    pub(crate) error: ClientError,
    /// How often the request may have reached a master.
    pub(crate) sends: u32,
}

/// The masters of one cluster.
pub(crate) struct Masters {
    world: World,
    addresses: Vec<String>,
    request_id: AsciiMetadataValue,
    deadline: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: BTreeMap<String, Channel>,
    /// Who led when last heard of.
    leader: Option<String>,
    /// Which of the addresses is tried next when nobody is known to lead.
    next: usize,
    /// Who answered last what anybody may answer.
    answered: Option<String>,
}

/// What to do after a failed attempt.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The caller must decide.
    Return,
    /// The same master, after a pause.
    Again,
    /// Another master, after a pause.
    Elsewhere,
    /// This master, at once.
    Leader(String),
}

/// `answered`: the error is the master's own and not the transport's.
fn next_step(error: &WireError, answered: bool) -> Next {
    match (error.code, error.code.advice()) {
        (ErrorCode::NotLeader, _) => match &error.leader {
            Some(leader) => Next::Leader(leader.clone()),
            None => Next::Elsewhere,
        },
        (ErrorCode::Unavailable | ErrorCode::DeadlineExceeded, _) => Next::Elsewhere,
        (_, Advice::Retry) if answered => Next::Again,
        (_, Advice::Retry) => Next::Elsewhere,
        (_, Advice::RetryElsewhere | Advice::Refresh | Advice::GiveUp) => Next::Return,
    }
}

impl Masters {
    pub(crate) fn new(
        world: World,
        addresses: Vec<String>,
        request_id: AsciiMetadataValue,
        deadline: Duration,
    ) -> Self {
        Masters { world, addresses, request_id, deadline, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is a cache: whatever a panicking task left in it is good enough.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the leader with `request`, again and again where that may help, until the client's deadline.
    pub(crate) async fn call<Q, A, F>(&self, doing: &str, request: Q, send: F) -> Result<A, CallFailed>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        self.call_within(self.deadline, doing, request, send).await
    }

    /// As [`Masters::call`], with a deadline of its own.
    pub(crate) async fn call_within<Q, A, F>(
        &self,
        deadline: Duration,
        doing: &str,
        request: Q,
        send: F,
    ) -> Result<A, CallFailed>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        let start = self.world.clock.now();
        let mut backoff = Backoff::default();
        let (mut sends, mut hints) = (0, 0);
        let mut said = None;
        loop {
            let left = deadline.saturating_sub(self.world.clock.now().since(start));
            let target = self.target();
            let (error, answered) = match self.attempt(&target, left, request.clone(), &send, &mut sends).await {
                Ok(answer) => {
                    self.state().leader = Some(target);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let next = next_step(&error, answered);
            tracing::debug!(doing, master = target, code = %error.code, error = error.message, ?next, "call failed");
            if next == Next::Return {
                return Err(CallFailed { error: ClientError::from_wire(doing, error), sends });
            }
            let follow = matches!(next, Next::Leader(_)) && hints < HINTS_MAX;
            hints += u32::from(follow);
            self.turn_to(&target, next, answered);
            let pause = if follow { Duration::ZERO } else { backoff.pause(self.world.random.next_u64()) };
            // What a master answered says more than an attempt that cannot end in time.
            let least = if answered { ATTEMPT_LEAST } else { Duration::ZERO };
            // What a master said tells more than that another one cannot be reached.
            said = Some(error.clone()).filter(|_| answered).or(said);
            if self.world.clock.now().plus(pause).plus(least) >= start.plus(deadline) {
                return Err(CallFailed { error: gave_up(doing, deadline, said.unwrap_or(error)), sends });
            }
            if !pause.is_zero() {
                self.world.clock.sleep(pause).await;
            }
        }
    }

    /// Opens a streaming call at the leader; one attempt, the caller retries.
    pub(crate) fn request<Q>(&self, request: Q, limit: Duration) -> Request<Q> {
        let mut request = Request::new(request);
        request.metadata_mut().insert(REQUEST_ID, self.request_id.clone());
        request.set_timeout(limit);
        request
    }

    async fn attempt<Q, A, F>(
        &self,
        target: &str,
        left: Duration,
        request: Q,
        send: &F,
        sends: &mut u32,
    ) -> Result<A, (WireError, bool)>
    where
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        let limit = left.min(ATTEMPT_DEADLINE);
        // A leader that stands still or is cut off does not say so, but the others have another one soon.
        tokio::select! {
            biased;
            answer = self.attempt_at(target, limit, request, send, sends) => answer,
            leader = self.leads_elsewhere(target) => {
                let message = format!("master {target} does not answer, and {leader} leads");
                Err((WireError { leader: Some(leader), ..WireError::new(ErrorCode::NotLeader, message) }, false))
            }
        }
    }

    /// Completes when another master says that another one than `target` leads; with its address. Cancel-safe.
    async fn leads_elsewhere(&self, target: &str) -> String {
        loop {
            self.world.clock.sleep(ASK_OTHERS).await;
            if let Some(leader) = leader::elsewhere(&self.world, &self.addresses, target, ANSWER_WITHIN).await {
                return leader;
            }
        }
    }

    async fn attempt_at<Q, A, F>(
        &self,
        target: &str,
        limit: Duration,
        request: Q,
        send: &F,
        sends: &mut u32,
    ) -> Result<A, (WireError, bool)>
    where
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        let channel = self.channel(target, limit.min(CONNECT_DEADLINE)).await.map_err(|e| (e, false))?;
        *sends += 1;
        match timeout(&*self.world.clock, limit, send(channel, self.request(request, limit))).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let answered = !status.details().is_empty();
                let mut error = WireError::from(status);
                if !answered {
                    error.message = format!("master {target}: {}", error.message);
                }
                Err((error, answered))
            }
            Err(elapsed) => {
                let message = format!("master {target} gave {elapsed}");
                Err((WireError::new(ErrorCode::DeadlineExceeded, message), false))
            }
        }
    }

    fn target(&self) -> String {
        let state = self.state();
        let known = state.leader.clone();
        known.or_else(|| self.addresses.get(state.next % self.addresses.len().max(1)).cloned()).unwrap_or_default()
    }

    fn turn_to(&self, failed: &str, next: Next, answered: bool) {
        let mut state = self.state();
        if !answered {
            // The connection may be broken in a way that only its end finds out.
            state.channels.remove(failed);
        }
        match next {
            Next::Leader(leader) => state.leader = Some(leader),
            Next::Elsewhere => {
                // Another call may have found the leader meanwhile.
                if state.leader.as_deref().is_none_or(|leader| leader == failed) {
                    state.leader = None;
                    let at = self.addresses.iter().position(|a| a == failed);
                    state.next = at.map_or(state.next, |at| at + 1);
                }
            }
            Next::Again | Next::Return => {}
        }
    }

    async fn channel(&self, address: &str, limit: Duration) -> Result<Channel, WireError> {
        if let Some(channel) = self.state().channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = channel::connect(&self.world, address, limit).await?;
        self.state().channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn gave_up(doing: &str, deadline: Duration, last: WireError) -> ClientError {
    // All masters were asked: there is no other one where the caller could try.
    let code = if last.code == ErrorCode::NotLeader { ErrorCode::Unavailable } else { last.code };
    ClientError::new(code, doing, format!("gave up after {deadline:?}; the last answer was: {}", last.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_next_step() {
        let error = |code| WireError::new(code, "x");
        assert_eq!(next_step(&error(ErrorCode::NotFound), true), Next::Return);
        assert_eq!(next_step(&error(ErrorCode::OutcomeUnknown), true), Next::Return);
        assert_eq!(next_step(&error(ErrorCode::NoSpace), true), Next::Return);
        assert_eq!(next_step(&error(ErrorCode::UnderReplicated), true), Next::Again);
        assert_eq!(next_step(&error(ErrorCode::Unavailable), false), Next::Elsewhere);
        assert_eq!(next_step(&error(ErrorCode::NotLeader), true), Next::Elsewhere);
        let hint = WireError { leader: Some("b:1".into()), ..error(ErrorCode::NotLeader) };
        assert_eq!(next_step(&hint, true), Next::Leader("b:1".into()));
    }

    #[test]
    fn s8_who_gives_up_is_not_sent_to_another_master() {
        let last = |code| gave_up("asking", Duration::from_secs(1), WireError::new(code, "x")).code();
        assert_eq!(last(ErrorCode::NotLeader), ErrorCode::Unavailable);
        assert_eq!(last(ErrorCode::Busy), ErrorCode::Busy);
    }
}
