//! A chunk's row in the ledger, and what the rows come to.

use std::{collections::BTreeMap, time::Duration};

use quarry_types::ServerId;

use super::super::{decide::Reason, need::Need};

/// Chunks that are endangered at least so much go before all others: none that is less starts while one of them can be worked
/// on. See [`Need::danger`].
const DANGER_FIRST: u32 = 2;
/// A chunk that failed so often in a row is not waited for by those that miss fewer replicas.
const ATTEMPTS_WAITED_FOR: u32 = 2;

/// What is being done about a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing now.
    None,
    /// It is being copied.
    Copying {
        /// From here, at first.
        source: ServerId,
        /// To here.
        target: ServerId,
        /// Since then.
        since: Duration,
        /// Bytes that the target said it has.
        done: u64,
    },
    /// A replica of it is being dropped.
    Dropping {
        /// Whose.
        server: ServerId,
    },
}

/// A chunk that is not as it should be.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it needs.
    pub need: Need,
    /// Its length.
    pub bytes: u64,
    /// Since when it is endangered, or else not as it should be.
    pub since: Duration,
    /// What is being done about it.
    pub work: Work,
    /// Why nothing is, as far as it was looked at.
    pub reason: Option<Reason>,
    /// When it is looked at again; `None`: as soon as there is room.
    pub next: Option<Duration>,
    /// Attempts that failed one after the other.
    pub attempts: u32,
    /// Who failed it lately.
    pub failed: Vec<ServerId>,
    /// Copies made and replicas dropped.
    pub steps: u32,
}

impl Entry {
    /// It can be worked on, now or after a while, without a change of the cluster.
    pub(super) fn is_pending(&self) -> bool {
        self.work != Work::None || !self.reason.as_ref().is_some_and(Reason::is_blocked)
    }

    /// Chunks that miss fewer replicas wait for it. One that fails again and again holds nobody up, nor does one without any
    /// good replica: putting it together from what can be read may never come to an end, and cannot get worse meanwhile.
    pub(super) fn goes_first(&self) -> bool {
        self.need.danger() >= DANGER_FIRST
            && self.need.good > 0
            && self.attempts < ATTEMPTS_WAITED_FOR
            && self.is_pending()
    }

    /// It has all it wants, and only a bad replica is kept for a while.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.work == Work::None && matches!(self.reason, Some(Reason::Keep { .. }))
    }

    /// Time alone brings nothing: it waits for a change of the cluster, or has no good replica.
    pub(super) fn is_stuck(&self) -> bool {
        !self.is_pending() || self.need.good == 0
    }

    /// Bytes that are still to be copied for it.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        let copies = u64::from(self.need.missing + self.need.moving).max(u64::from(self.need.rack_short));
        let done = if let Work::Copying { done, .. } = self.work { done } else { 0 };
        (copies * self.bytes).saturating_sub(done)
    }

    /// Those of them that no rate says anything about: it is blocked, or there is no good replica to copy.
    pub(super) fn bytes_stuck(&self) -> u64 {
        if self.is_stuck() { self.bytes_left() } else { 0 }
    }
}

/// Chunks that are not as they should be in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many there are.
    pub chunks: u64,
    /// Chunks by how many replicas they miss; 0: other work.
    pub by_missing: BTreeMap<u32, u64>,
    /// Chunks without any good replica.
    pub lost: u64,
    /// Bytes that are still to be copied.
    pub bytes_left: u64,
    /// Those among them for which time alone does nothing.
    pub bytes_stuck: u64,
    /// Copies under way.
    pub copying: u64,
    /// Chunks that have all they want, where only a bad replica is kept for a while.
    pub kept: u64,
}

impl Totals {
    pub(super) fn add(&mut self, entry: &Entry) {
        self.chunks += 1;
        *self.by_missing.entry(entry.need.missing).or_default() += 1;
        self.lost += u64::from(entry.need.good == 0);
        self.bytes_left = self.bytes_left.saturating_add(entry.bytes_left());
        self.bytes_stuck = self.bytes_stuck.saturating_add(entry.bytes_stuck());
        self.copying += u64::from(matches!(entry.work, Work::Copying { .. }));
        self.kept += u64::from(entry.is_kept());
    }

    pub(super) fn take(&mut self, entry: &Entry) {
        self.chunks -= 1;
        less(&mut self.by_missing, entry.need.missing);
        self.lost -= u64::from(entry.need.good == 0);
        self.bytes_left -= entry.bytes_left();
        self.bytes_stuck -= entry.bytes_stuck();
        self.copying -= u64::from(matches!(entry.work, Work::Copying { .. }));
        self.kept -= u64::from(entry.is_kept());
    }

    pub(super) fn and(&self, others: &Totals) -> Totals {
        let mut by_missing = self.by_missing.clone();
        for (missing, chunks) in &others.by_missing {
            *by_missing.entry(*missing).or_default() += chunks;
        }
        Totals {
            chunks: self.chunks + others.chunks,
            by_missing,
            lost: self.lost + others.lost,
            bytes_left: self.bytes_left.saturating_add(others.bytes_left),
            bytes_stuck: self.bytes_stuck.saturating_add(others.bytes_stuck),
            copying: self.copying + others.copying,
            kept: self.kept + others.kept,
        }
    }
}

pub(super) fn less(counts: &mut BTreeMap<u32, u64>, key: u32) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1))
}

/// What is ahead in the order goes first; a chunk that waits for its time is not done before that.
pub(super) fn estimate(entry: &Entry, ahead: u64, rate: Option<u64>, now: Duration) -> Option<Duration> {
    if let Work::Copying { since, done, .. } = entry.work
        && done > 0
    {
        let took = now.saturating_sub(since);
        let own = u64::try_from(u128::from(done) * 1000 / took.as_millis().max(1)).unwrap_or(u64::MAX);
        return Some(time_for(entry.bytes.saturating_sub(done), own));
    }
    if !entry.is_pending() || entry.need.good == 0 {
        return None;
    }
    let waits = entry.next.map_or(Duration::ZERO, |next| next.saturating_sub(now));
    if entry.bytes_left() == 0 {
        return Some(waits);
    }
    Some(time_for(ahead, rate?).max(waits.saturating_add(time_for(entry.bytes_left(), rate?))))
}
