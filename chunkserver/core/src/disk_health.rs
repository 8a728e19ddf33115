//! What a data directory's errors and times say about the disk behind it.
//!
//! A failed sync, or an error that says that the device or the file system is gone, ends its service at once. A single file
//! that cannot be read only costs that file; many such errors in a short time end the service too. Slow is a disk whose
//! calls take a multiple both of what they used to take and of what they take on the server's other disks.
//!
//! Times are milliseconds since the process began.

use std::{collections::VecDeque, io};

/// So many errors within [`ERRORS_WINDOW_MS`] put a directory out of service.
pub const ERRORS_MAX: usize = 8;
/// In which they count, in milliseconds.
pub const ERRORS_WINDOW_MS: u64 = 600_000;
/// Recent means the last slots, of so many milliseconds each.
const SLOT_MS: u64 = 10_000;
/// Slots that are recent: a minute.
const SLOTS: usize = 6;
/// Fewer calls in a minute say nothing.
const CALLS_MIN: u64 = 8;
/// What a new slot adds to the past, in percent.
const PAST_PERCENT: u64 = 5;
/// Slow is this multiple of the usual.
const SLOW_FACTOR: u64 = 3;
/// Below this a disk is never slow, in microseconds: reads and writes, and syncs. A busy hard disk seeks in some 10 ms.
const SLOW_FLOOR_US: [u64; 2] = [30_000, 200_000];

/// A kind of call to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Opening or reading a file.
    Read,
    /// Anything that changes something.
    Write,
    /// Making it durable.
    Sync,
}

/// What an error says about the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it concerns what was asked for, or the process.
    Nothing,
    /// One more error of this disk.
    Counts,
    /// The directory cannot be used.
    Out,
    /// Nor after it comes back, in this process: what the kernel still shows may not be on the disk.
    Poisoned,
}

// Linux's numbers.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EROFS: i32 = 30;
const EBADMSG: i32 = 74;
const ENOTCONN: i32 = 107;
const ESHUTDOWN: i32 = 108;
const ESTALE: i32 = 116;
const EUCLEAN: i32 = 117;

/// Whether an error of a read says that this file cannot be read, now or later: it is gone, short, or the disk gave it up.
#[must_use]
pub fn file_is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        || matches!(error.raw_os_error(), Some(EIO | EBADMSG | EUCLEAN))
}

/// What `error` of a call says about the directory.
#[must_use]
pub fn judge(call: Call, error: &io::Error) -> Verdict {
    use io::ErrorKind::{
        AlreadyExists, Interrupted, NotFound, OutOfMemory, QuotaExceeded, StorageFull, UnexpectedEof, WouldBlock,
    };
    let harmless = matches!(
        error.kind(),
        AlreadyExists | Interrupted | NotFound | OutOfMemory | QuotaExceeded | StorageFull | UnexpectedEof | WouldBlock
    ) || matches!(error.raw_os_error(), Some(ENOENT | EINTR | ENOMEM | ENFILE | EMFILE));
    if harmless {
        return Verdict::Nothing;
    }
    match (call, error.raw_os_error()) {
        (Call::Sync, _) => Verdict::Poisoned,
        (_, Some(ENXIO | ENODEV | ENOTCONN | ESHUTDOWN | ESTALE)) => Verdict::Out,
        (Call::Write, Some(EIO | EROFS | EACCES | EPERM | EUCLEAN)) => Verdict::Out,
        _ => Verdict::Counts,
    }
}

/// The times of one kind of call.
#[derive(Clone, Debug, Default)]
struct Times {
    /// Number of calls and their microseconds, a slot each; the last is being filled.
    slots: VecDeque<(u64, u64)>,
    /// Which slot that is.
    current: u64,
    past_us: Option<u64>,
}

impl Times {
    fn move_to(&mut self, now_ms: u64, slow: bool) {
        let slot = now_ms / SLOT_MS;
        let behind = slot.saturating_sub(self.current).min(SLOTS as u64);
        self.current = self.current.max(slot);
        for _ in 0..behind {
            self.slots.push_back((0, 0));
            while self.slots.len() > SLOTS
                && let Some((calls, sum)) = self.slots.pop_front()
            {
                // What is slow now must not become what is usual.
                if let Some(mean) = sum.checked_div(calls).filter(|_| !slow) {
                    let blend = |past: u64| (past * (100 - PAST_PERCENT) + mean * PAST_PERCENT) / 100;
                    self.past_us = Some(self.past_us.map_or(mean, blend));
                }
            }
        }
    }

    fn took(&mut self, us: u64) {
        if self.slots.is_empty() {
            self.slots.push_back((0, 0));
        }
        if let Some((calls, sum)) = self.slots.back_mut() {
            *calls += 1;
            *sum = sum.saturating_add(us);
        }
    }

    fn recent_us(&self, least: u64) -> Option<u64> {
        let (calls, sum) =
            self.slots.iter().fold((0, 0u64), |all, slot| (all.0 + slot.0, all.1.saturating_add(slot.1)));
        sum.checked_div(calls).filter(|_| calls >= least)
    }
}

/// The recent mean times of one disk in microseconds: of reads and writes, and of syncs. Absent where too few were made.
pub type Recent = [Option<u64>; 2];

/// The health of one data directory.
#[derive(Clone, Debug, Default)]
pub struct DiskHealth {
    errors: u64,
    recent_errors: VecDeque<u64>,
    times: [Times; 2],
    slow: bool,
}

impl DiskHealth {
    /// Another disk, or the same again, comes into service. Its errors so far stay counted.
    pub fn begin(&mut self) {
        *self = DiskHealth { errors: self.errors, ..DiskHealth::default() };
    }

    /// A call succeeded after `us` microseconds.
    pub fn took(&mut self, call: Call, us: u64, now_ms: u64) {
        let slow = self.slow;
        let [data, sync] = &mut self.times;
        let times = if call == Call::Sync { sync } else { data };
        times.move_to(now_ms, slow);
        times.took(us);
    }

    /// A call failed; what follows for the directory.
    pub fn failed(&mut self, call: Call, error: &io::Error, now_ms: u64) -> Verdict {
        let verdict = judge(call, error);
        if verdict == Verdict::Nothing {
            return verdict;
        }
        self.errors += 1;
        self.recent_errors.push_back(now_ms);
        while self.recent_errors.len() > ERRORS_MAX
            || self.recent_errors.front().is_some_and(|at| now_ms.saturating_sub(*at) > ERRORS_WINDOW_MS)
        {
            self.recent_errors.pop_front();
        }
        match verdict {
            Verdict::Counts if self.recent_errors.len() >= ERRORS_MAX => Verdict::Out,
            other => other,
        }
    }

    /// Errors since the directory came into service.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Mean time of the reads and writes of the last minute, in microseconds; 0 when there was none.
    #[must_use]
    pub fn latency_us(&self) -> u64 {
        self.times.first().and_then(|times| times.recent_us(1)).unwrap_or(0)
    }

    /// What [`DiskHealth::compare`] of the other disks needs.
    #[must_use]
    pub fn recent(&self) -> Recent {
        self.times.each_ref().map(|times| times.recent_us(CALLS_MIN))
    }

    /// Whether the disk is slow, last time it was compared.
    #[must_use]
    pub fn slow(&self) -> bool {
        self.slow
    }

    /// Compares the disk with its own past and with the server's other disks.
    pub fn compare(&mut self, others: &[Recent], now_ms: u64) {
        let was = self.slow;
        self.times.iter_mut().for_each(|times| times.move_to(now_ms, was));
        self.slow = (0..self.times.len()).any(|kind| {
            let recent = self.recent().get(kind).copied().flatten();
            let past = self.times.get(kind).and_then(|times| times.past_us);
            let others: Vec<u64> = others.iter().filter_map(|other| other.get(kind).copied().flatten()).collect();
            let floor = SLOW_FLOOR_US.get(kind).copied().unwrap_or(u64::MAX);
            recent.is_some_and(|recent| is_slow(recent, past, others, floor, was))
        });
    }
}

/// Whether `recent` is a multiple both of the past and of the median of the others, as far as they are known; one of them
/// must be. A disk that is slow stays so until it is well below.
fn is_slow(recent: u64, past: Option<u64>, mut others: Vec<u64>, floor: u64, was: bool) -> bool {
    others.sort_unstable();
    let median = others.get(others.len() / 2).copied();
    let usual = match (past, median) {
        (Some(past), Some(median)) => past.max(median),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return false,
    };
    let threshold = usual.saturating_mul(SLOW_FACTOR).max(floor);
    recent >= if was { threshold / 2 } else { threshold }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn os(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn what_an_error_says_about_the_directory() {
        for (call, number, verdict) in [
            (Call::Read, EIO, Verdict::Counts),
            (Call::Read, EACCES, Verdict::Counts),
            (Call::Read, ENODEV, Verdict::Out),
            (Call::Read, ENOENT, Verdict::Nothing),
            (Call::Write, EIO, Verdict::Out),
            (Call::Write, EROFS, Verdict::Out),
            (Call::Write, EACCES, Verdict::Out),
            (Call::Write, 28, Verdict::Nothing),
            (Call::Write, EMFILE, Verdict::Nothing),
            (Call::Sync, EIO, Verdict::Poisoned),
            (Call::Sync, 28, Verdict::Nothing),
        ] {
            assert_eq!(judge(call, &os(number)), verdict, "{call:?} {number}");
        }
    }

    #[test]
    fn many_errors_in_a_short_time_put_a_directory_out() {
        let mut health = DiskHealth::default();
        let mut last = Verdict::Nothing;
        for n in 0..ERRORS_MAX as u64 {
            assert_ne!(last, Verdict::Out);
            last = health.failed(Call::Read, &os(EIO), n * 1000);
        }
        assert_eq!((last, health.errors()), (Verdict::Out, ERRORS_MAX as u64));
        let mut rare = DiskHealth::default();
        for n in 0..100 {
            assert_eq!(rare.failed(Call::Read, &os(EIO), n * ERRORS_WINDOW_MS), Verdict::Counts);
        }
    }

    /// A minute of calls that take `us` each.
    fn minute(health: &mut DiskHealth, us: u64, from_ms: u64) {
        for second in 0..60 {
            health.took(Call::Read, us, from_ms + second * 1000);
        }
    }

    #[test]
    fn slow_is_slower_than_its_past_and_than_the_others() {
        let mut health = DiskHealth::default();
        for m in 0..10 {
            minute(&mut health, 5_000, m * 60_000);
        }
        let others = [[Some(5_000), None], [Some(6_000), None]];
        health.compare(&others, 600_000);
        assert!(!health.slow());
        minute(&mut health, 100_000, 600_000);
        health.compare(&[[Some(90_000), None]], 659_000);
        assert!(!health.slow(), "the others are no faster: it is the load");
        health.compare(&others, 659_000);
        assert!(health.slow());
        assert!(health.latency_us() > 50_000);
        minute(&mut health, 5_000, 660_000);
        health.compare(&others, 720_000);
        assert!(!health.slow(), "it recovers");
    }

    #[test]
    fn a_disk_that_was_always_slow_is_told_by_the_others_only() {
        assert!(is_slow(100_000, None, vec![1000], 30_000, false));
        assert!(!is_slow(100_000, None, vec![], 30_000, false));
        assert!(!is_slow(100_000, Some(90_000), vec![1000], 30_000, false), "it is as it always was");
        assert!(is_slow(100_000, Some(1000), vec![], 30_000, false));
        assert!(!is_slow(20_000, Some(10), vec![10], 30_000, false), "below the floor");
    }

    proptest! {
        #[test]
        fn slower_is_never_less_slow(a in 0u64..1 << 40, more in 0u64..1 << 40, past: Option<u32>, others: Vec<u32>, was: bool) {
            let others: Vec<u64> = others.into_iter().map(u64::from).collect();
            let past = past.map(u64::from);
            if is_slow(a, past, others.clone(), 30_000, was) {
                prop_assert!(is_slow(a + more, past, others, 30_000, was));
            }
        }
    }
}
