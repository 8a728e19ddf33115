//! The chunks that are not as they should be, most endangered first, with what is being done about them: the ledger.
//!
//! A tick looks only at chunks that can be worked on now, and at no more than it is told to. The ledger has so many rows and no
//! more ([`ROWS_MAX`], S9), however many chunks are lost or move: the least endangered give way. Those that wait for a change
//! of the cluster never take more than half of the rows from those that can be worked on. Whoever feeds the ledger looks at
//! all chunks again when [`Queue::next_round`] says so, and tells it how far it has come: so the others are counted, and get
//! their row when there is room.

mod finished;
mod left_out;
mod meter;
mod row;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use finished::History;
pub use finished::{Finished, Outcome};
use left_out::LeftOut;
use meter::Meter;
use quarry_types::{ChunkId, ServerId};
pub use row::{Entry, Totals, Work};
use row::{estimate, less, time_for};

use super::{decide::Reason, need::Need, rank::Rank};

/// The first pause after a failure; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Servers that are remembered as having failed a chunk lately.
const FAILED_MAX: usize = 4;
/// Chunks whose time has come that are looked at again in one go; the others follow at the next look.
const WAKE_MAX: usize = 2048;
/// Chunks that waited for others and are looked at at once when a copy ends.
const NEXT_IN_LINE: usize = 8;
/// Rows of the ledger: about 100 MiB of them. Copies of so many chunks take a cluster long enough to look at all chunks again
/// meanwhile.
pub const ROWS_MAX: usize = 1 << 17;

/// A copy that is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needless {
    /// Of this chunk.
    pub chunk: ChunkId,
    /// At this server.
    pub target: ServerId,
}

/// The ledger.
#[derive(Debug)]
pub struct Queue {
    rows_max: usize,
    entries: BTreeMap<ChunkId, Entry>,
    /// All of them, in order.
    order: BTreeSet<Rank>,
    /// Those that may be worked on now, in order.
    ready: BTreeSet<Rank>,
    /// Those that wait, by when they are looked at again.
    later: BTreeSet<(Duration, ChunkId)>,
    /// Those that nothing is done about now and that can be worked on, by themselves or after a while, in order.
    able: BTreeSet<Rank>,
    /// The others that nothing is done about now, in order.
    stuck: BTreeSet<Rank>,
    /// Those that are endangered most and can be worked on, by how much.
    first: BTreeMap<u32, u64>,
    totals: Totals,
    history: History,
    meter: Meter,
    visits: u64,
    left_out: LeftOut,
}

impl Default for Queue {
    fn default() -> Self {
        Queue::with_rows(ROWS_MAX)
    }
}

impl Queue {
    /// An empty ledger of at most `rows_max` rows.
    #[must_use]
    pub fn with_rows(rows_max: usize) -> Self {
        Queue {
            rows_max,
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            able: BTreeSet::new(),
            stuck: BTreeSet::new(),
            first: BTreeMap::new(),
            totals: Totals::default(),
            history: History::default(),
            meter: Meter::default(),
            visits: 0,
            left_out: LeftOut::default(),
        }
    }

    /// How many chunks stand in the ledger.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A chunk's entry.
    #[must_use]
    pub fn get(&self, chunk: ChunkId) -> Option<&Entry> {
        self.entries.get(&chunk)
    }

    /// What stands in the ledger in short, with what it has no room for: that is as it was when all chunks were looked at last.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals.and(self.left_out.totals())
    }

    /// Nothing that is not as it should be was left out for want of room.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.left_out.is_none()
    }

    /// Chunks that are not as they should be and have no row, as of the last look at all chunks.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.totals().chunks
    }

    /// Rows that chunks which can be worked on would get now.
    #[must_use]
    pub fn room(&self) -> usize {
        let displaced = self.stuck.len().saturating_sub(self.rows_max / 2);
        self.rows_max.saturating_sub(self.entries.len()) + displaced
    }

    /// When all chunks are to be looked at again for the sake of those that have no row; `None`: they are not, or that is under
    /// way. A round is told by [`Queue::round_begins`], [`Queue::round_reaches`] and [`Queue::round_ends`].
    #[must_use]
    pub fn next_round(&self) -> Option<Duration> {
        self.left_out.next_round(self.room() > self.rows_max / 4)
    }

    /// All chunks are looked at from here on, in the order of their ids. One that was under way has come to nothing.
    pub fn round_begins(&mut self) {
        self.left_out.begin();
    }

    /// The round looks at this chunk next.
    pub fn round_reaches(&mut self, chunk: ChunkId) {
        self.left_out.reach(chunk);
    }

    /// The round has looked at all.
    pub fn round_ends(&mut self, now: Duration) {
        self.left_out.end(now);
    }

    /// Entries looked at so far, for the proof that a tick does not walk all.
    #[must_use]
    pub fn visits(&self) -> u64 {
        self.visits
    }

    /// Takes an entry out of the books, to put it back changed.
    fn take(&mut self, chunk: ChunkId) -> Option<Entry> {
        let entry = self.entries.remove(&chunk)?;
        let rank = Rank::new(&entry.need, entry.since, chunk);
        self.order.remove(&rank);
        for set in [&mut self.ready, &mut self.able, &mut self.stuck] {
            set.remove(&rank);
        }
        if let Some(next) = entry.next {
            self.later.remove(&(next, chunk));
        }
        if entry.goes_first() {
            less(&mut self.first, entry.need.danger());
        }
        self.totals.take(&entry);
        Some(entry)
    }

    fn put(&mut self, chunk: ChunkId, entry: Entry) {
        let rank = Rank::new(&entry.need, entry.since, chunk);
        self.order.insert(rank);
        if entry.work == Work::None {
            if entry.is_stuck() {
                self.stuck.insert(rank)
            } else {
                self.able.insert(rank)
            };
            match entry.next {
                Some(next) => {
                    self.later.insert((next, chunk));
                }
                None => {
                    self.ready.insert(rank);
                }
            }
        }
        if entry.goes_first() {
            *self.first.entry(entry.need.danger()).or_default() += 1;
        }
        self.totals.add(&entry);
        self.entries.insert(chunk, entry);
    }

    /// Gives a chunk a row, if need be that of one that is less endangered.
    fn admit(&mut self, chunk: ChunkId, entry: Entry) {
        if self.entries.len() >= self.rows_max {
            let Some(gives_way) = self.gives_way_to(chunk, &entry) else {
                return self.left_out.note(chunk, &entry);
            };
            if let Some(gone) = self.take(gives_way) {
                self.left_out.gave_way(gives_way, &gone);
            }
        }
        self.put(chunk, entry);
    }

    /// Whose row a chunk gets when there is none left. What is being worked on stays.
    fn gives_way_to(&self, chunk: ChunkId, entry: &Entry) -> Option<ChunkId> {
        let rank = Rank::new(&entry.need, entry.since, chunk);
        let (stuck, able) = (self.stuck.last(), self.able.last());
        let (last, anyway) = if self.stuck.len() > self.rows_max / 2 {
            // However endangered it is: nothing can be done about it now.
            (stuck, !entry.is_stuck())
        } else {
            (stuck.max(able), false)
        };
        last.filter(|last| anyway || rank < **last).map(|last| last.chunk)
    }

    fn change(&mut self, chunk: ChunkId, change: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.take(chunk) {
            change(&mut entry);
            self.put(chunk, entry);
        }
    }

    /// What a chunk needs, as it was just seen. A copy that this makes needless is returned: it is to be cancelled, and
    /// counts as ended.
    pub fn assess(&mut self, chunk: ChunkId, need: Need, bytes: u64, now: Duration) -> Option<Needless> {
        self.visits += 1;
        let Some(mut entry) = self.take(chunk) else {
            if !need.is_met() {
                let (work, reason, next, failed) = (Work::None, None, None, Vec::new());
                self.admit(chunk, Entry { need, bytes, since: now, work, reason, next, attempts: 0, failed, steps: 0 });
            }
            return None;
        };
        let needless = match entry.work {
            Work::Copying { target, .. } if !need.wants_copy() => {
                entry.work = Work::None;
                Some(Needless { chunk, target })
            }
            _ => None,
        };
        if need.is_met() && matches!(entry.work, Work::Dropping { .. }) {
            // Nobody counts the replica any more, but whether it went is known only when the order has ended.
            entry.need = need;
            self.put(chunk, entry);
            return None;
        }
        if need.is_met() {
            let outcome = if entry.steps > 0 { Outcome::Done } else { Outcome::Needless };
            self.history.push(chunk, &entry, outcome, now);
            return needless;
        }
        if need != entry.need {
            let endangered = need.missing > 0 && entry.need.missing == 0;
            if endangered || (entry.need.wants_copy() && !need.wants_copy()) {
                entry.since = now;
            }
            // What it waited for may have come about.
            (entry.next, entry.reason) = (None, None);
            entry.need = need;
        }
        self.put(chunk, entry);
        needless
    }

    /// A chunk is known no more, or not sealed any longer.
    pub fn forget(&mut self, chunk: ChunkId, now: Duration) -> Option<Needless> {
        let entry = self.take(chunk)?;
        let needless = match entry.work {
            Work::Copying { target, .. } => Some(Needless { chunk, target }),
            _ => None,
        };
        self.history.push(chunk, &entry, Outcome::Deleted, now);
        needless
    }

    /// Up to `limit` chunks that may be worked on now, most endangered first. They stay where they are until
    /// [`Queue::copying`], [`Queue::dropping`] or [`Queue::wait`] says what became of them.
    pub fn due(&mut self, now: Duration, limit: usize) -> Vec<ChunkId> {
        for _ in 0..WAKE_MAX {
            let Some((next, chunk)) = self.later.first().copied().filter(|(next, _)| *next <= now) else { break };
            self.visits += 1;
            self.later.remove(&(next, chunk));
            self.change(chunk, |entry| entry.next = None);
        }
        let most = self.first.keys().next_back().copied().unwrap_or(0);
        let due: Vec<ChunkId> =
            self.ready.iter().take_while(|rank| rank.danger() >= most).take(limit).map(|rank| rank.chunk).collect();
        self.visits += due.len() as u64;
        due
    }

    /// When [`Queue::due`] has something new, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.later.first().map(|(next, _)| *next)
    }

    /// Nothing is done about a chunk now. One that misses nothing and waits for others, as moves do, steps aside for those behind it
    /// until its time, or a copy, ends. One that misses a replica stays in front: what becomes free is for it.
    pub fn wait(&mut self, chunk: ChunkId, reason: Reason, now: Duration) {
        self.change(chunk, |entry| {
            entry.next = if reason.is_busy() && entry.need.missing > 0 { None } else { Some(reason.again(now)) };
            entry.reason = Some(reason);
        });
    }

    /// The cluster changed (a server came, room was made, a brake ended): what was blocked is looked at again.
    pub fn unblock(&mut self, limit: usize) {
        self.left_out.unblocked();
        self.wake(limit, Reason::is_blocked);
    }

    /// An operator changed what repair goes by: what waits, but for a pause after a failure, is looked at again.
    pub fn policy_changed(&mut self, limit: usize) {
        self.left_out.unblocked();
        self.wake(limit, |reason| !matches!(reason, Reason::Failed { .. }));
    }

    /// Looks at the next `limit` of those that wait now instead of at their time, where the reason says so.
    fn wake(&mut self, limit: usize, which: impl Fn(&Reason) -> bool) {
        let waiting: Vec<ChunkId> = self.later.iter().take(limit).map(|(_, chunk)| *chunk).collect();
        for chunk in waiting {
            self.visits += 1;
            if self.entries.get(&chunk).and_then(|e| e.reason.as_ref()).is_some_and(&which) {
                self.change(chunk, |entry| (entry.next, entry.reason) = (None, None));
            }
        }
    }

    /// A copy was ordered.
    pub fn copying(&mut self, chunk: ChunkId, source: ServerId, target: ServerId, now: Duration) {
        self.change(chunk, |entry| {
            entry.work = Work::Copying { source, target, since: now, done: 0 };
            entry.reason = None;
        });
    }

    /// A drop was ordered.
    pub fn dropping(&mut self, chunk: ChunkId, server: ServerId) {
        self.change(chunk, |entry| {
            entry.work = Work::Dropping { server };
            entry.reason = None;
        });
    }

    /// How far a copy has come. It never goes backwards.
    pub fn progress(&mut self, chunk: ChunkId, bytes: u64, now: Duration) {
        let Some(Entry { work: Work::Copying { done, .. }, bytes: all, .. }) = self.entries.get(&chunk) else { return };
        let (before, all) = (*done, *all);
        let bytes = bytes.min(all);
        if bytes > before {
            self.meter.add(bytes - before, now);
            self.change(chunk, |entry| {
                if let Work::Copying { done, .. } = &mut entry.work {
                    *done = bytes;
                }
            });
        }
    }

    /// What was ordered is done; [`Queue::assess`] says what is left.
    pub fn done(&mut self, chunk: ChunkId, now: Duration) {
        if let Some(entry) = self.entries.get(&chunk) {
            self.progress(chunk, entry.bytes, now);
        }
        self.change(chunk, |entry| {
            entry.work = Work::None;
            entry.steps += 1;
            (entry.attempts, entry.next) = (0, None);
            entry.failed.clear();
        });
        self.wake(NEXT_IN_LINE, Reason::is_busy);
    }

    /// What was ordered failed: another attempt follows after a pause, elsewhere if there is an elsewhere.
    pub fn failed(&mut self, chunk: ChunkId, who: Option<ServerId>, error: String, now: Duration) {
        self.change(chunk, |entry| {
            entry.work = Work::None;
            if let Some(who) = who.filter(|who| !entry.failed.contains(who)) {
                entry.failed.truncate(FAILED_MAX - 1);
                entry.failed.insert(0, who);
            }
            let pause = RETRY_FIRST.saturating_mul(1 << entry.attempts.min(16)).min(RETRY_MAX);
            entry.attempts = entry.attempts.saturating_add(1);
            let until = now.saturating_add(pause);
            entry.next = Some(until);
            entry.reason = Some(Reason::Failed { error, until });
        });
        self.wake(NEXT_IN_LINE, Reason::is_busy);
    }

    /// Whether this copy is under way. One that was cancelled may still end, after another one was ordered.
    #[must_use]
    pub fn is_copying(&self, chunk: ChunkId, to: ServerId) -> bool {
        self.get(chunk).is_some_and(|entry| matches!(entry.work, Work::Copying { target, .. } if target == to))
    }

    /// The copies under way to a server, or all.
    pub fn copies(&self, to: Option<ServerId>) -> impl Iterator<Item = (ChunkId, &Entry)> {
        let here = move |entry: &Entry| match entry.work {
            Work::Copying { target, .. } => to.is_none_or(|to| to == target),
            _ => false,
        };
        self.entries.iter().filter(move |(_, entry)| here(entry)).map(|(chunk, entry)| (*chunk, entry))
    }

    /// Bytes per second that all copies together made lately; `None`: not measured.
    #[must_use]
    pub fn rate(&self, now: Duration) -> Option<u64> {
        self.meter.rate(now)
    }

    /// Entries in order, most endangered first, each with when it will be whole at the rate measured now. `None`: that cannot
    /// be said, because it is blocked or nothing was measured yet.
    pub fn rows(&self, now: Duration) -> impl Iterator<Item = (ChunkId, &Entry, Option<Duration>)> {
        let rate = self.rate(now);
        let mut ahead = 0u64;
        self.order.iter().filter_map(move |rank| {
            let entry = self.entries.get(&rank.chunk)?;
            ahead = ahead.saturating_add(entry.bytes_left());
            Some((rank.chunk, entry, estimate(entry, ahead, rate, now)))
        })
    }

    /// When everything will be done, at the rate measured now. `None`: that cannot be said, because nothing was measured yet
    /// or something is stuck.
    #[must_use]
    pub fn estimate(&self, now: Duration) -> Option<Duration> {
        let totals = self.totals();
        let rate = self.rate(now).filter(|_| totals.bytes_stuck == 0 && self.is_whole())?;
        Some(time_for(totals.bytes_left, rate))
    }

    /// Work that ended lately, the last first.
    pub fn finished(&self, now: Duration) -> impl Iterator<Item = &Finished> {
        self.history.rows(now)
    }
}

#[cfg(test)]
mod tests;
