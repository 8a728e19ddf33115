//! Sizes, rates and times as people write them: `64MiB`, `4TB`, `125MB/s`, `500ms`, `10m`, `2y`.

use serde::{Deserialize, Deserializer, de};

/// Virtual time and durations, in microseconds. A year is 365 days.
pub type Micros = u64;

/// A second, in microseconds.
pub const SECOND: Micros = 1_000_000;
/// A year of 365 days, in microseconds.
pub const YEAR: Micros = 365 * 86_400 * SECOND;

const TIMES: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("d", 86_400 * SECOND),
    ("y", YEAR),
];
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("PB", 1_000_000_000_000_000),
];

/// A decimal number and one of `units`, as a whole number of the smallest.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let shift = 10u128.checked_pow(u32::try_from(part.len()).ok().filter(|digits| *digits <= 9)?)?;
    let part: u128 = if part.is_empty() && !number.contains('.') { 0 } else { part.parse().ok()? };
    let digits = u128::from(whole.parse::<u64>().ok()?).checked_mul(shift)?.checked_add(part)?;
    u64::try_from(digits.checked_mul(u128::from(*factor))? / shift).ok()
}

/// A time; `None` when it is none.
#[must_use]
pub fn parse_time(text: &str) -> Option<Micros> {
    parse(text, TIMES)
}

/// A size in bytes; `None` when it is none.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, SIZES)
}

/// A rate in bytes per second, with or without `/s`; `None` when it is none.
#[must_use]
pub fn parse_rate(text: &str) -> Option<u64> {
    parse_size(text.trim().strip_suffix("/s").unwrap_or(text))
}

fn shown(value: f64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().rev().find(|(_, factor)| value >= *factor as f64).or(units.first());
    let (name, factor) = unit.copied().unwrap_or(("", 1));
    let scaled = value / factor as f64;
    let digits = if scaled >= 100.0 || (scaled - scaled.round()).abs() < 0.005 { 0 } else { 1 };
    format!("{scaled:.digits$} {name}")
}

/// A time in a fitting unit.
#[must_use]
pub fn show_time(micros: Micros) -> String {
    shown(micros as f64, TIMES)
}

/// Bytes in a fitting decimal unit.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    const DECIMAL: &[(&str, u64)] = &[
        ("B", 1),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("PB", 1_000_000_000_000_000),
    ];
    shown(bytes as f64, DECIMAL)
}

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $parse:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                let wrong = || de::Error::custom(format!(concat!("{:?} is not ", $expected), text));
                $parse(&text).map($name).ok_or_else(wrong)
            }
        }
    };
}

unit!(
    /// A time in microseconds.
    Time,
    parse_time,
    "a time, expected a number and us, ms, s, m, h, d or y, like \"30s\" or \"1.5h\""
);
unit!(
    /// A size in bytes.
    Size,
    parse_size,
    "a size, expected a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, like \"64MiB\""
);
unit!(
    /// A rate in bytes per second.
    Rate,
    parse_rate,
    "a rate, expected a size per second, like \"125MB/s\""
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_people_write_them() {
        assert_eq!((parse_time("1.5h"), parse_time("500ms")), (Some(5400 * SECOND), Some(500_000)));
        assert_eq!((parse_time("2y"), parse_time("0s")), (Some(2 * YEAR), Some(0)));
        assert_eq!((parse_size("64MiB"), parse_size("4TB")), (Some(64 << 20), Some(4_000_000_000_000)));
        assert_eq!((parse_rate("125MB/s"), parse_rate("1.25 GB/s")), (Some(125_000_000), Some(1_250_000_000)));
        for bad in ["", "5", "s", "-1s", "1.s", "1..2s", "5 q", "99999999999999999999s", "999999999y", "é", "1é"] {
            assert_eq!(parse_time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn values_show_in_a_fitting_unit() {
        assert_eq!((show_time(1_500_000), show_time(90 * 60 * SECOND)), ("1.5 s".into(), "1.5 h".into()));
        assert_eq!((show_size(600_000_000_000), show_size(0)), ("600 GB".into(), "0 B".into()));
    }
}
