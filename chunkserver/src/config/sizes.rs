//! Sizes as people write them.

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a whole number of bytes with an optional unit, like `10GiB`, `500 MB` or `4096`.
///
/// # Errors
/// Says what was written and what can be.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let plain = text.trim();
    let (digits, unit) = plain.split_at(plain.find(|c: char| !c.is_ascii_digit()).unwrap_or(plain.len()));
    let unit = unit.trim();
    let factor = if unit.is_empty() {
        Some(1)
    } else {
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
    };
    let bytes = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?}: write a size like 500MB, 10GiB or 2TiB"))
}

/// A size in the largest unit that divides it.
#[must_use]
pub fn print_size(bytes: u64) -> String {
    let (name, factor) =
        UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)).copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size(" 500 mb "), Ok(500_000_000));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "GiB", "-1GiB", "1.5GiB", "0", "99999999TiB", "1 parsec"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_size_reads_back(bytes in 1u64..) {
            prop_assert_eq!(parse_size(&print_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = parse_size(&text);
        }
    }
}
