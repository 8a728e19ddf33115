//! Durations as people write them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Longer durations are taken for mistakes.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Reads `500ms`, `60s`, `10m`, `24h` or `14d`; `None` for anything else, for zero and for more than a year.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let found = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*factor)?);
    (!found.is_zero() && found <= LONGEST).then_some(found)
}

/// Writes a duration so that [`duration`] reads it back.
#[must_use]
pub fn show(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (name, factor) = UNITS.iter().rev().find(|(_, f)| ms.is_multiple_of(*f)).unwrap_or(&UNITS[0]);
    format!("{}{name}", ms / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Some(Duration::from_secs(600)));
        for bad in ["", "5", "s", "-1s", "1.5s", "5 s", "0s", "5S", "99999999999999999999s", "900000000h", "400d", "é"]
        {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
        for ms in [1, 1500, 60_000, 7_200_000] {
            let it = Duration::from_millis(ms);
            assert_eq!(duration(&show(it)), Some(it));
        }
        assert_eq!(show(Duration::from_secs(60)), "1m");
    }
}
