//! Values of settings as people write them: `10s`, `50MB/s`, `20 %`, `0.4`, `3`.

use super::{Definition, Unit};

/// The units of each kind of value and what one of them is, in thousandths of what is kept. The first is what a number
/// alone means, where that is allowed.
fn units(unit: Unit) -> &'static [(&'static str, u64)] {
    const MILLIS: &[(&str, u64)] =
        &[("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
    const RATES: &[(&str, u64)] =
        &[("B/s", 1000), ("kB/s", 1_000_000), ("MB/s", 1_000_000_000), ("GB/s", 1_000_000_000_000)];
    match unit {
        Unit::Millis => MILLIS,
        Unit::BytesPerSecond => RATES,
        Unit::Percent => &[("%", 1000)],
        Unit::Permille => &[("", 1_000_000)],
        Unit::Count => &[("", 1000)],
    }
}

/// A value as people write it, so that [`parse`] reads it back.
#[must_use]
pub fn show(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Percent => format!("{value} %"),
        Unit::Count => value.to_string(),
        Unit::Permille => {
            let text = format!("{}.{:03}", value / 1000, value % 1000);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Unit::Millis if value == 0 => "0s".into(),
        Unit::Millis | Unit::BytesPerSecond => {
            let fits = |of: &&(&str, u64)| value.is_multiple_of(of.1 / 1000);
            let (name, thousandths) = units(unit).iter().rev().find(fits).copied().unwrap_or(("", 1000));
            format!("{}{name}", value / (thousandths / 1000))
        }
    }
}

/// What a person wrote.
///
/// # Errors
/// Why it is no value of this setting, and what is.
pub fn parse(definition: &Definition, text: &str) -> Result<u64, String> {
    let (unit, text) = (definition.unit, text.trim());
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, written) = text.split_at_checked(digits).unwrap_or((text, ""));
    let written = written.trim();
    let wanted = |name: &str| {
        name == written
            || unit == Unit::BytesPerSecond && name.strip_suffix("/s") == Some(written)
            || unit == Unit::Percent && written.is_empty()
            || number == "0" && written.is_empty()
    };
    let found = units(unit).iter().find(|(name, _)| wanted(name)).and_then(|(_, factor)| scaled(number, *factor));
    match found {
        Some(value) if (definition.min..=definition.max).contains(&value) => Ok(value),
        Some(_) => Err(format!("{} cannot be {text}; {}", definition.name, range(definition))),
        None => Err(format!("{} cannot be {text:?}; {}", definition.name, range(definition))),
    }
}

/// What may be set.
#[must_use]
pub fn range(definition: &Definition) -> String {
    let show = |value| show(definition.unit, value);
    format!("choose {} to {}", show(definition.min), show(definition.max))
}

/// A decimal number times so many thousandths, if that is a whole number.
fn scaled(number: &str, thousandths: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits behind the point are more than any unit has.
    if whole.is_empty() || part.len() > 9 || (number.contains('.') && part.is_empty()) {
        return None;
    }
    let shift = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let digits: u128 = u128::from(whole.parse::<u64>().ok()?).checked_mul(shift)?;
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let scaled = digits.checked_add(part)?.checked_mul(u128::from(thousandths))?;
    let by = shift.checked_mul(1000)?;
    scaled.is_multiple_of(by).then(|| u64::try_from(scaled / by).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::{self, BRAKE_SHARE, PHI, REPAIR_IN, REPAIR_RATE, TRASH, WEIGHT_LOAD};

    #[test]
    fn values_are_written_as_people_write_them() {
        assert_eq!(show(Unit::Millis, 86_400_000), "1d");
        assert_eq!(show(Unit::Millis, 1500), "1500ms");
        assert_eq!(show(Unit::BytesPerSecond, 50_000_000), "50MB/s");
        assert_eq!(show(Unit::Percent, 20), "20 %");
        assert_eq!((show(Unit::Permille, 400), show(Unit::Permille, 8000)), ("0.4".into(), "8".into()));
        assert_eq!(parse(&TRASH, "1.5h"), Ok(5_400_000));
        assert_eq!((parse(&TRASH, "0"), parse(&TRASH, "0s")), (Ok(0), Ok(0)));
        assert_eq!((parse(&REPAIR_RATE, "50MB/s"), parse(&REPAIR_RATE, "1.5 GB")), (Ok(50_000_000), Ok(1_500_000_000)));
        assert_eq!((parse(&BRAKE_SHARE, "30"), parse(&BRAKE_SHARE, "30 %")), (Ok(30), Ok(30)));
        assert_eq!((parse(&WEIGHT_LOAD, "0.25"), parse(&PHI, "8")), (Ok(250), Ok(8000)));
        assert_eq!(parse(&REPAIR_IN, "4"), Ok(4));
    }

    #[test]
    fn what_cannot_be_names_what_can() {
        for (definition, bad) in [
            (&TRASH, "5"),
            (&TRASH, "-1h"),
            (&TRASH, "400d"),
            (&TRASH, "1.5"),
            (&TRASH, "0.5ms"),
            (&REPAIR_IN, "65"),
            (&REPAIR_IN, "2.5"),
            (&REPAIR_IN, ""),
            (&BRAKE_SHARE, "0"),
            (&WEIGHT_LOAD, "0.2501"),
            (&WEIGHT_LOAD, "1."),
            (&REPAIR_RATE, "1kB/s"),
            (&REPAIR_RATE, "50XB"),
            (&TRASH, "99999999999999999999h"),
            (&TRASH, "é"),
        ] {
            let why = parse(definition, bad).unwrap_err();
            assert!(why.contains(definition.name) && why.contains(&range(definition)), "{why}");
        }
        assert_eq!(parse(&TRASH, "400d").unwrap_err(), "trash cannot be 400d; choose 0s to 365d");
    }

    proptest! {
        #[test]
        fn every_value_reads_back(which: usize, at: u64) {
            let all: Vec<_> = settings::all().collect();
            let one = all[which % all.len()];
            let value = one.min + at % (one.max - one.min + 1);
            prop_assert_eq!(parse(one, &show(one.unit, value)), Ok(value));
        }

        #[test]
        fn random_text_never_panics(text in "\\PC*") {
            settings::all().for_each(|one| drop(parse(one, &text)));
        }
    }
}
