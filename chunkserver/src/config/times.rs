//! Durations as people write them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Longer durations are taken for mistakes.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Reads `500ms`, `10s`, `5m`, `24h` or `14d`.
///
/// # Errors
/// Says what was written and what can be.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let ms = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    let found = ms.map(Duration::from_millis).filter(|found| !found.is_zero() && *found <= LONGEST);
    found.ok_or_else(|| format!("{text:?}: write a duration like 10s, 24h or 14d, up to 366d"))
}

/// A duration in the largest unit that divides it.
#[must_use]
pub fn print_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (name, factor) = UNITS.iter().find(|(_, factor)| ms.is_multiple_of(*factor)).copied().unwrap_or(("ms", 1));
    format!("{}{name}", ms / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "s", "-1s", "1.5s", "0s", "400d", "é", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        for ms in [1, 1500, 60_000, 7_200_000, 86_400_000] {
            let it = Duration::from_millis(ms);
            assert_eq!(parse_duration(&print_duration(it)), Ok(it));
        }
    }
}
