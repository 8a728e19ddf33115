//! Look-ups that may be answered a little late, by any master.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quarry_proto::v1;
use quarry_types::ErrorCode;
use tonic::{Request, transport::Channel};

use crate::{
    Client, ClientError,
    client::Shared,
    masters::{Answer, Asked},
};

/// How old answers may be, and what was shown so far.
pub(crate) struct StaleOk {
    within: Duration,
    /// The highest index of the log that an answer showed.
    seen: AtomicU64,
    /// The age of the oldest answer in microseconds, and one more; 0: there was none.
    oldest: AtomicU64,
}

impl StaleOk {
    fn message(&self) -> v1::StaleOk {
        // Less than a millisecond is rounded up: 0 would ask for something else.
        let ms = u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX).max(1);
        v1::StaleOk { within_ms: ms, seen: self.seen.load(Ordering::Relaxed) }
    }

    /// `took`: from sending the request to having its answer.
    fn note(&self, said: Option<v1::Staleness>, took: Duration) {
        let said = said.unwrap_or_default();
        self.seen.fetch_max(said.applied, Ordering::Relaxed);
        let age = Duration::from_millis(said.ms).saturating_add(took);
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.oldest.fetch_max(age.saturating_add(1), Ordering::Relaxed);
    }
}

/// An answer that says how old it may be.
pub(crate) trait Aged {
    /// What it says.
    fn staleness(&self) -> Option<v1::Staleness>;
}

macro_rules! aged {
    ($($reply:ident),*) => {$(
        impl Aged for v1::$reply {
            fn staleness(&self) -> Option<v1::Staleness> {
                self.staleness
            }
        }
    )*};
}

aged!(StatReply, ListPage, LocateReply, UsageReply);

/// Asks masters to look things up, as old as its owner allows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lookups {
    pub(crate) shared: Arc<Shared>,
    stale_ok: Option<Arc<StaleOk>>,
}

impl Lookups {
    /// Of everything that was acknowledged.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Lookups { shared: Arc::clone(shared), stale_ok: None }
    }

    /// The same, linearizable.
    pub(crate) fn of_the_leader(&self) -> Self {
        Lookups::new(&self.shared)
    }

    /// Whether answers may be old.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.stale_ok.is_some()
    }

    /// Makes a call that changes nothing. `make` takes how old the answer may be.
    pub(crate) async fn ask<Q, A, F>(
        &self,
        doing: &str,
        make: impl Fn(Option<v1::StaleOk>) -> Q,
        send: F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        A: Aged,
        F: Fn(Channel, Request<Q>) -> Answer<A>,
    {
        let Some(stale_ok) = &self.stale_ok else { return self.shared.ask(doing, make(None), send).await };
        let make = |asked: Asked| match asked {
            Asked::Anybody => make(Some(stale_ok.message())),
            Asked::Leader => make(None),
        };
        let (answer, took) = self.shared.masters.call_any(doing, make, send).await?;
        stale_ok.note(answer.staleness(), took);
        Ok(answer)
    }
}

impl Client {
    /// A handle whose look-ups ([`Client::stat`], [`Client::list`], [`Client::chunks`], [`Client::usage`], and
    /// [`Client::open`] with all that its reader asks) may be answered by any master, also while none leads, with what it
    /// had applied: at most `within` before it answers, by its own clock, everything that was acknowledged is in the
    /// answer. A master that cannot prove that refuses, and another is asked; the leader in the end. Less than a millisecond
    /// counts as one.
    ///
    /// Answers do not go back in time: what this handle and its clones were shown once shows from then on, whichever
    /// master answers. What somebody else changed less than `within` ago may not show yet, also to who changed it
    /// through another handle. Changes through this handle are made as ever.
    ///
    /// Bytes of files are verified as ever. Masters that do not lead know from the replicated state only who should have a
    /// chunk; where none of these servers has it, the leader is asked.
    ///
    /// # Errors
    /// Of the look-ups, beside their own: [`ErrorCode::TooStale`] when no master can prove it until the deadline.
    #[must_use]
    pub fn stale_ok(&self, within: Duration) -> Client {
        let stale_ok = StaleOk { within, seen: AtomicU64::new(0), oldest: AtomicU64::new(0) };
        let lookups = Lookups { shared: Arc::clone(&self.lookups.shared), stale_ok: Some(Arc::new(stale_ok)) };
        Client { shared: Arc::clone(&self.shared), lookups }
    }

    /// How old the oldest answer to a look-up may have been when it arrived, of those that this handle and its clones were
    /// given; `None` before the first, and when it is none of [`Client::stale_ok`].
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        let oldest = self.lookups.stale_ok.as_ref()?.oldest.load(Ordering::Relaxed);
        oldest.checked_sub(1).map(Duration::from_micros)
    }
}

/// Whether another master may know what this one does not.
pub(crate) fn is_of_the_master(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TooStale
            | ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Busy
            | ErrorCode::Internal
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale_ok(within: Duration) -> StaleOk {
        StaleOk { within, seen: AtomicU64::new(0), oldest: AtomicU64::new(0) }
    }

    #[test]
    fn an_answer_counts_as_old_as_it_is_when_it_arrives_and_is_not_forgotten() {
        let asked = stale_ok(Duration::from_secs(5));
        let told = |ms, applied| Some(v1::Staleness { ms, applied });
        asked.note(told(300, 9), Duration::from_micros(1500));
        asked.note(told(100, 7), Duration::from_millis(1));
        assert_eq!(asked.oldest.load(Ordering::Relaxed), 301_501);
        assert_eq!(asked.message(), v1::StaleOk { within_ms: 5000, seen: 9 });
        // A leader that did not know what was asked answers with what is acknowledged.
        asked.note(None, Duration::ZERO);
        assert_eq!((asked.oldest.load(Ordering::Relaxed), asked.message().seen), (301_501, 9));
    }

    #[test]
    fn no_time_is_not_asked_for_as_if_it_were_a_linearizable_read() {
        assert_eq!(stale_ok(Duration::from_micros(1)).message().within_ms, 1);
        assert_eq!(stale_ok(Duration::MAX).message().within_ms, u64::MAX);
    }
}
