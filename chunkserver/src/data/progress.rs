//! How far one write has come, here and behind, and so what may be said to the one before. No I/O, no clock.

use std::collections::VecDeque;

use quarry_env::Instant;
use quarry_proto::{WireError, v1};
use quarry_types::planted;

use super::limits::QUEUED_FLUSHES;

/// What is to be said to the one before.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Say {
    /// Every member from here on has written up to here.
    Ack(u64),
    /// Every member from here on has made this durable.
    Flushed(u64),
    /// Every member from here on is sealed; this member's receipt first.
    Sealed(Vec<v1::Signed>),
}

/// What one side (this server's disk, or the members behind together) has done.
#[derive(Debug, Default)]
struct Side {
    written: u64,
    flushes: u64,
    receipts: Option<Vec<v1::Signed>>,
}

/// One write's state.
#[derive(Debug)]
pub(super) struct Progress {
    local: Side,
    /// `None` on the last member.
    behind: Option<Side>,
    /// Bytes handed to the next member in full.
    forwarded: u64,
    flushes_forwarded: u64,
    seal_forwarded: bool,
    /// Since when the members behind owe an answer, without having moved.
    owed_since: Option<Instant>,
    flushes_waiting: VecDeque<u64>,
    flushes_said: u64,
    acked: u64,
    sealed: bool,
    failure: Option<WireError>,
}

impl Progress {
    pub(super) fn new(last: bool) -> Self {
        Progress {
            local: Side::default(),
            behind: (!last).then(Side::default),
            forwarded: 0,
            flushes_forwarded: 0,
            seal_forwarded: false,
            owed_since: None,
            flushes_waiting: VecDeque::new(),
            flushes_said: 0,
            acked: 0,
            sealed: false,
            failure: None,
        }
    }

    /// The first failure stands: what follows is its consequence.
    pub(super) fn fail(&mut self, error: WireError) {
        self.failure.get_or_insert(error);
    }

    pub(super) fn failure(&self) -> Option<&WireError> {
        self.failure.as_ref()
    }

    /// This server has written up to `length`.
    pub(super) fn wrote(&mut self, length: u64) {
        self.local.written = length;
    }

    /// This server has done the next flush.
    pub(super) fn flushed(&mut self) {
        self.local.flushes += 1;
    }

    /// This server has sealed.
    pub(super) fn sealed(&mut self, receipt: v1::Signed) {
        self.local.receipts = Some(vec![receipt]);
    }

    /// The one before asked for a flush. `false` when too many are waiting.
    pub(super) fn flush_asked(&mut self, length: u64) -> bool {
        let room = self.flushes_waiting.len() < QUEUED_FLUSHES;
        if room {
            self.flushes_waiting.push_back(length);
        }
        room
    }

    /// The next member was sent everything up to `length`.
    pub(super) fn forwarded(&mut self, length: u64, now: Instant) {
        self.forwarded = length;
        self.owed_since.get_or_insert(now);
    }

    /// The next member was sent a flush.
    pub(super) fn flush_forwarded(&mut self, now: Instant) {
        self.flushes_forwarded += 1;
        self.owed_since.get_or_insert(now);
    }

    /// The next member was sent the seal.
    pub(super) fn seal_forwarded(&mut self, now: Instant) {
        self.seal_forwarded = true;
        self.owed_since.get_or_insert(now);
    }

    /// The next member said that all from it on have written up to `length`. `false` when that cannot be.
    pub(super) fn behind_wrote(&mut self, length: u64, now: Instant) -> bool {
        let forwarded = self.forwarded;
        self.behind_moved(now, |side| {
            let good = length >= side.written && length <= forwarded;
            if good {
                side.written = length;
            }
            good
        })
    }

    /// The next member answered its next flush. `false` when none was asked of it.
    pub(super) fn behind_flushed(&mut self, now: Instant) -> bool {
        let asked = self.flushes_forwarded;
        self.behind_moved(now, |side| {
            let good = side.flushes < asked;
            side.flushes += u64::from(good);
            good
        })
    }

    /// The next member answered the seal. `false` when it was not asked to.
    pub(super) fn behind_sealed(&mut self, receipts: Vec<v1::Signed>, now: Instant) -> bool {
        let asked = self.seal_forwarded;
        self.behind_moved(now, |side| {
            side.receipts = Some(receipts);
            asked
        })
    }

    fn behind_moved(&mut self, now: Instant, change: impl FnOnce(&mut Side) -> bool) -> bool {
        let Some(side) = &mut self.behind else {
            return false;
        };
        let good = change(side);
        let owes = side.written < self.forwarded
            || side.flushes < self.flushes_forwarded
            || (self.seal_forwarded && side.receipts.is_none());
        self.owed_since = owes.then_some(now);
        good
    }

    /// Since when the members behind owe an answer without having moved; `None` while they owe nothing.
    pub(super) fn owed_since(&self) -> Option<Instant> {
        self.owed_since
    }

    /// What every member from here on has written.
    pub(super) fn common(&self) -> u64 {
        if planted!("ack-before-tail") {
            return self.local.written;
        }
        self.behind.as_ref().map_or(self.local.written, |behind| behind.written.min(self.local.written))
    }

    /// The next thing to say to the one before, if there is one. Each is returned once.
    pub(super) fn next(&mut self) -> Option<Say> {
        let common = self.common();
        if common > self.acked {
            self.acked = common;
            return Some(Say::Ack(common));
        }
        let behind = self.behind.as_ref().filter(|_| !planted!("ack-before-tail"));
        let flushes = behind.map_or(self.local.flushes, |behind| behind.flushes.min(self.local.flushes));
        if flushes > self.flushes_said
            && let Some(length) = self.flushes_waiting.pop_front()
        {
            self.flushes_said += 1;
            return Some(Say::Flushed(length));
        }
        if self.sealed {
            return None;
        }
        let mut receipts = self.local.receipts.clone()?;
        if let Some(behind) = &self.behind {
            receipts.extend(behind.receipts.clone()?);
        }
        self.sealed = true;
        Some(Say::Sealed(receipts))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quarry_types::ErrorCode;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn s1_an_ack_needs_this_member_and_all_behind() {
        let mut progress = Progress::new(false);
        progress.forwarded(100, at(0));
        progress.wrote(100);
        assert_eq!(progress.next(), None);
        assert!(progress.behind_wrote(60, at(1)));
        assert_eq!(progress.next(), Some(Say::Ack(60)));
        assert_eq!(progress.next(), None);
        assert!(progress.behind_wrote(100, at(1)));
        assert_eq!(progress.next(), Some(Say::Ack(100)));
    }

    #[test]
    fn s1_a_flush_is_answered_when_all_have_flushed_and_in_order() {
        let mut progress = Progress::new(false);
        assert!(progress.flush_asked(5) && progress.flush_asked(9));
        progress.flush_forwarded(at(0));
        progress.flush_forwarded(at(0));
        progress.flushed();
        progress.flushed();
        assert_eq!(progress.next(), None);
        assert!(progress.behind_flushed(at(0)));
        assert_eq!(progress.next(), Some(Say::Flushed(5)));
        assert_eq!(progress.next(), None);
        assert!(progress.behind_flushed(at(0)));
        assert_eq!(progress.next(), Some(Say::Flushed(9)));
        assert!(!progress.behind_flushed(at(0)), "nobody asked");
    }

    #[test]
    fn the_receipts_of_all_are_said_once_own_first() {
        let signed = |n: u8| v1::Signed { body: vec![n].into(), ..Default::default() };
        let mut progress = Progress::new(false);
        progress.seal_forwarded(at(0));
        assert!(progress.behind_sealed(vec![signed(2), signed(3)], at(1)));
        assert_eq!(progress.next(), None);
        progress.sealed(signed(1));
        assert_eq!(progress.next(), Some(Say::Sealed(vec![signed(1), signed(2), signed(3)])));
        assert_eq!(progress.next(), None);
    }

    #[test]
    fn the_last_member_waits_for_nobody() {
        let mut progress = Progress::new(true);
        progress.wrote(7);
        assert_eq!(progress.next(), Some(Say::Ack(7)));
        assert!(!progress.behind_wrote(9, at(0)), "there is nobody behind");
    }

    #[test]
    fn acks_that_cannot_be_are_noticed() {
        let mut progress = Progress::new(false);
        progress.forwarded(10, at(0));
        assert!(!progress.behind_wrote(11, at(0)));
        assert!(progress.behind_wrote(10, at(0)));
        assert!(!progress.behind_wrote(9, at(0)));
        assert!(!progress.behind_sealed(Vec::new(), at(0)));
    }

    #[test]
    fn what_is_owed_counts_from_the_last_movement() {
        let mut progress = Progress::new(false);
        assert_eq!(progress.owed_since(), None);
        progress.forwarded(10, at(1));
        progress.forwarded(20, at(2));
        assert_eq!(progress.owed_since(), Some(at(1)));
        progress.behind_wrote(10, at(3));
        assert_eq!(progress.owed_since(), Some(at(3)));
        progress.behind_wrote(20, at(4));
        assert_eq!(progress.owed_since(), None);
    }

    #[test]
    fn the_first_failure_stands() {
        let mut progress = Progress::new(true);
        progress.fail(WireError::new(ErrorCode::Fenced, "first"));
        progress.fail(WireError::new(ErrorCode::Internal, "second"));
        assert_eq!(progress.failure().map(|e| e.code), Some(ErrorCode::Fenced));
    }
}
