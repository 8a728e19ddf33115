//! Sizes, times and tables for eyes.

/// A size in bytes: exact, or as people write it.
pub fn size(bytes: u64, human: bool) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if !human || bytes < 1024 {
        return bytes.to_string();
    }
    // Ten times the number of units, rounded up as `ls -h` does.
    let (mut tenths, mut unit) = (bytes.saturating_mul(10).div_ceil(1024), 0);
    if bytes > u64::MAX / 10 {
        (tenths, unit) = ((bytes >> 10).saturating_mul(10).div_ceil(1024), 1);
    }
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = tenths.div_ceil(1024);
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or('E');
    if tenths < 100 {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    } else {
        format!("{}{name}", tenths.div_ceil(10))
    }
}

/// Milliseconds since the Unix epoch as `YYYY-MM-DD hh:mm:ss` in UTC.
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// A time in milliseconds, in its two largest units: `23h59m`, `5m03s`, `12s`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

/// When something that goes on will be done, where that is known.
pub fn end(known: bool, ms: u64) -> String {
    if known { format!("done in about {}", duration(ms)) } else { "when it will be done is unknown".into() }
}

/// A part of a whole in per cent, `-` of nothing.
pub fn share(part: u64, whole: u64) -> String {
    (u128::from(part) * 100).checked_div(u128::from(whole)).map_or_else(|| "-".into(), |p| format!("{p}%"))
}

/// Year, month and day of a day counted from 1970-01-01, by the civil calendar: years are taken to begin in
/// March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Lines of cells, padded to columns; a heading in `right` is set right-aligned.
pub fn table(heads: &[&str], right: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(i, head)| rows.iter().filter_map(|r| r.get(i)).map(|c| width(c)).chain([width(head)]).max().unwrap_or(0))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, width_wanted), head) in cells.zip(&widths).zip(heads) {
            let pad = " ".repeat(width_wanted.saturating_sub(width(cell)));
            let (before, after) = if right.contains(head) { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.push_str(&format!("{before}{cell}{after}  "));
        }
        text.trim_end().to_string()
    };
    let head = line(&mut heads.iter().copied());
    let rest = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    std::iter::once(head).chain(rest).collect()
}

/// Columns on a terminal, taking every character for one: right for the ids, numbers and addresses in tables.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_ls() {
        let human = |bytes| size(bytes, true);
        assert_eq!([human(0), human(1023), human(1024), human(1025)], ["0", "1023", "1.0K", "1.1K"]);
        assert_eq!([human(10 << 10), human(1536 << 10), human(3 << 30)], ["10K", "1.5M", "3.0G"]);
        assert_eq!([human((1 << 20) - 1), human(u64::MAX)], ["1.0M", "16E"]);
        assert_eq!(size(1 << 20, false), "1048576");
    }

    #[test]
    fn times_follow_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(time(1_735_689_599_999), "2024-12-31 23:59:59");
        assert_eq!(time(1_709_251_199_000), "2024-02-29 23:59:59");
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!([duration(999), duration(12_000), duration(303_000)], ["0s", "12s", "5m03s"]);
        assert_eq!([duration(86_399_000), duration(90_000_000)], ["23h59m", "1d01h"]);
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown() {
        assert_eq!(end(true, 303_000), "done in about 5m03s");
        assert!(end(false, 0).ends_with("unknown"));
        assert_eq!([share(1, 3), share(u64::MAX, u64::MAX), share(5, 0)], ["33%", "100%", "-"]);
    }

    #[test]
    fn tables_have_straight_columns() {
        let rows = vec![vec!["a".into(), "5".into()], vec!["long".into(), "12345".into()]];
        assert_eq!(table(&["name", "bytes"], &["bytes"], &rows), ["name  bytes", "a         5", "long  12345"]);
    }
}
