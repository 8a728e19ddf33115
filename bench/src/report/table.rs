//! The report as text.

use super::compare;
use crate::{
    book::{Book, FLOOR, Row, Unit, median, ratio},
    targets,
};

/// Everything, for a terminal or a file.
pub fn text(book: &Book, earlier: Option<&Book>) -> String {
    let mut out = heading(book);
    let mut rows =
        vec![["case", "system", "median", "min–max", "p50 ms", "p99 ms", "CPU", "× floor"].map(String::from)];
    for case in book.cases() {
        let floor = book.row(case, FLOOR);
        rows.extend(book.rows.iter().filter(|row| row.case == case).map(|row| line(row, floor)));
    }
    out += &columns(&rows);
    out += "\nWhat it should be\n";
    let mut rows = vec![["", "is", "should be", ""].map(String::from)];
    for verdict in targets::verdicts(book) {
        let is = verdict.value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
        rows.push([verdict.what.into(), is, verdict.wanted(), verdict.word().into()]);
    }
    out += &columns(&rows);
    if let Some(earlier) = earlier {
        out += &format!("\nAgainst {} (above 1.00 is better now)\n", earlier.machine.commit);
        out += &compare::differs(&book.machine, &earlier.machine);
        out += &columns(&compare::rows(book, earlier));
    }
    if !book.notes.is_empty() {
        out += "\nTo be known\n";
        out.extend(book.notes.iter().map(|note| format!("  {note}\n")));
    }
    out
}

fn heading(book: &Book) -> String {
    let machine = &book.machine;
    let peers = if machine.peers.is_empty() { "none".into() } else { machine.peers.join(", ") };
    format!(
        "Quarry {} on {}, {} GiB, Linux {}; {} runs; load before {:.1}; peers: {peers}\n\
         command: quarry-bench {}\n\n",
        machine.commit,
        machine.processor,
        machine.memory_bytes >> 30,
        machine.kernel,
        machine.runs,
        machine.load_before,
        machine.command,
    )
}

fn line(row: &Row, floor: Option<&Row>) -> [String; 8] {
    let spread = row.values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let ms = |values: &[f64]| if values.is_empty() { "-".into() } else { format!("{:.2}", median(values) / 1e3) };
    let cpu = match (row.cpu_s_per_gb.is_empty(), row.cpu_us_per_operation.is_empty()) {
        (false, _) => format!("{:.2} s/GB", median(&row.cpu_s_per_gb)),
        (true, false) => format!("{:.0} µs/op", median(&row.cpu_us_per_operation)),
        _ => "-".into(),
    };
    let against = floor.filter(|_| row.system != FLOOR).map(|floor| format!("{:.2}", ratio(row, floor)));
    let spread = if row.values.len() > 1 {
        format!("{}–{}", number(spread.0, row.unit), number(spread.1, row.unit))
    } else {
        "-".into()
    };
    [
        row.case.clone(),
        row.system.clone(),
        format!("{} {}", number(median(&row.values), row.unit), unit(row.unit)),
        spread,
        ms(&row.p50_us),
        ms(&row.p99_us),
        cpu,
        against.unwrap_or_else(|| "-".into()),
    ]
}

/// Bytes are shown in MiB once they are many.
fn unit(unit: Unit) -> &'static str {
    if unit == Unit::Bytes { "MiB" } else { unit.text() }
}

/// A value with as many digits as mean something.
pub fn number(value: f64, unit: Unit) -> String {
    let value = if unit == Unit::Bytes { value / 1_048_576.0 } else { value };
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Cells in columns; the first row are the heads.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (number, (cell, width)) in row.iter().zip(widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            // Names to the left, figures to the right.
            let cell = if number == 0 || cell.chars().next().is_some_and(char::is_alphabetic) {
                format!("{cell}{pad}")
            } else {
                format!("{pad}{cell}")
            };
            line = line + &cell + "  ";
        }
        out = out + line.trim_end() + "\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::QUARRY;

    #[test]
    fn the_report_names_each_case_its_ratio_and_each_target() {
        let mut book = Book::default();
        book.value("sealed.disk.put", QUARRY, Unit::Megabytes, 50.0);
        book.value("sealed.disk.put", FLOOR, Unit::Megabytes, 100.0);
        book.note("SKIPPED: something");
        let mut earlier = book.clone();
        earlier.rows[0].values = vec![25.0];
        let text = text(&book, Some(&earlier));
        for wanted in ["sealed.disk.put", "0.50", "MISSED", "not measured", "SKIPPED: something", "2.00"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
