//! How much of a disk may be used.

use quarry_types::limits::{DISK_RESERVE_BYTES_MIN, DISK_RESERVE_PERCENT};

/// The reserve is never more than this share of a directory, in percent: a tiny disk stays usable.
pub const RESERVE_PERCENT_MAX: u64 = 10;

/// Bytes of a directory of `capacity` bytes that chunk data never takes, so that fences, seals and the index
/// still have room when the disk is full (S8).
#[must_use]
pub fn reserve(capacity: u64) -> u64 {
    let share = |percent: u64| capacity / 100 * percent;
    share(DISK_RESERVE_PERCENT).max(DISK_RESERVE_BYTES_MIN).min(share(RESERVE_PERCENT_MAX))
}

/// Bytes that chunk data may still take in a directory.
///
/// `capacity` is the smaller of what the operator allows and what the file system has, `used` what our chunk
/// files take, and `available` what the file system still has for us (others may fill it too).
#[must_use]
pub fn room(capacity: u64, used: u64, available: u64) -> u64 {
    let reserve = reserve(capacity);
    capacity.saturating_sub(reserve).saturating_sub(used).min(available.saturating_sub(reserve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_the_reserve_is_two_percent_but_32_mib_and_at_most_a_tenth() {
        assert_eq!(reserve(100 << 30), (100 << 30) / 100 * 2);
        assert_eq!(reserve(1 << 30), 32 << 20);
        assert_eq!(reserve(100 << 20), (100 << 20) / 100 * 10);
        assert_eq!(reserve(0), 0);
    }

    #[test]
    fn s8_room_is_what_both_the_operator_and_the_file_system_leave() {
        let gib = 1 << 30;
        assert_eq!(room(gib, 0, 8 * gib), gib - reserve(gib));
        assert_eq!(room(gib, 0, reserve(gib) + 5), 5);
        assert_eq!(room(gib, gib, 8 * gib), 0);
        assert_eq!(room(gib, 0, 0), 0);
    }
}
