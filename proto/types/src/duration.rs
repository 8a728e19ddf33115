//! Durations as people write them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Longer durations are taken for mistakes.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// What [`parse`] takes, for messages.
pub const EXPECTED: &str = "a duration above zero and up to 366d, like 500ms, 60s, 10m, 24h or 14d";

/// Reads `500ms`, `60s`, `10m`, `24h` or `14d`; `None` for anything else, for zero and for more than a year.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let found = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*factor)?);
    (!found.is_zero() && found <= LONGEST).then_some(found)
}

/// A duration in the largest unit that divides it, so that [`parse`] reads it back unless it is zero. What is below a millisecond is left out.
#[must_use]
pub fn show(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".into();
    }
    let (name, factor) = UNITS.iter().find(|(_, factor)| ms.is_multiple_of(*factor)).copied().unwrap_or(("ms", 1));
    format!("{}{name}", ms / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse("14d"), Some(Duration::from_secs(14 * 86_400)));
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse("10m"), Some(Duration::from_secs(600)));
        for bad in
            ["", "10", "s", "-1s", "1.5s", "5 s", "5S", "0s", "400d", "900000000h", "é", "1é", "99999999999999999999s"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        for ms in [1, 1500, 60_000, 7_200_000, 86_400_000] {
            let it = Duration::from_millis(ms);
            assert_eq!(parse(&show(it)), Some(it));
        }
        assert_eq!((show(Duration::from_secs(60)), show(Duration::ZERO)), ("1m".into(), "0s".into()));
    }
}
