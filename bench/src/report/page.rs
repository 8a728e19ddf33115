//! The report as one page that needs nothing else: text, and a plot for each case.

use std::fmt::Write as _;

use super::table::{number, text};
use crate::{
    book::{Book, QUARRY, Row, median},
    targets,
};

/// Pixels of the longest bar.
const BAR: f64 = 420.0;
/// Pixels from one bar to the next.
const STEP: usize = 22;

const STYLE: &str = "body{font:15px system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
pre{font-size:12px;overflow-x:auto;background:#f6f6f6;padding:1rem}h3{margin:1.2rem 0 .2rem;font-size:1rem}\
td,th{padding:.15rem .8rem .15rem 0;text-align:left}.met{color:#176c2f}.MISSED{color:#b00020;font-weight:bold}\
.quarry{fill:#2b6cb0}.floor{fill:#bbb}.peer{fill:#d08b3c}text{font-size:12px}line{stroke:#222}";

/// The page.
pub fn page(book: &Book, earlier: Option<&Book>) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Quarry {}</title>\n<style>{STYLE}</style>\n\
         <h1>Quarry {}, measured</h1>\n<p>{}</p>\n",
        escaped(&book.machine.commit),
        escaped(&book.machine.commit),
        escaped(
            text(&Book { machine: book.machine.clone(), ..Book::default() }, None).lines().next().unwrap_or_default()
        ),
    );
    out += "<h2>What it should be</h2>\n<table><tr><th>case<th>is<th>should be<th></tr>\n";
    for verdict in targets::verdicts(book) {
        let is = verdict.value.map_or_else(|| "–".into(), |value| format!("{value:.2}"));
        let (what, wanted, word) = (verdict.what, verdict.wanted(), verdict.word());
        let _written = writeln!(out, "<tr><td>{what}<td>{is}<td>{wanted}<td class=\"{word}\">{word}</tr>");
    }
    out +=
        "</table>\n<h2>Cases</h2>\n<p>Bars are medians, thin lines reach from the least to the most of all runs.</p>\n";
    for case in book.cases() {
        out += &plot(case, book.rows.iter().filter(|row| row.case == case));
    }
    out + &format!("<h2>Everything</h2>\n<pre>{}</pre>\n</html>", escaped(&text(book, earlier)))
}

fn plot<'a>(case: &str, rows: impl Iterator<Item = &'a Row>) -> String {
    let rows: Vec<&Row> = rows.filter(|row| !row.values.is_empty()).collect();
    let most = rows.iter().flat_map(|row| &row.values).copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut out =
        format!("<h3>{}</h3>\n<svg width=\"760\" height=\"{}\" role=\"img\">\n", escaped(case), rows.len() * STEP + 6);
    for (number_of, row) in rows.iter().enumerate() {
        let (y, middle) = (number_of * STEP, median(&row.values));
        let low = row.values.iter().copied().fold(f64::MAX, f64::min);
        let high = row.values.iter().copied().fold(f64::MIN, f64::max);
        let x = |value: f64| 100.0 + value / most * BAR;
        let class = match row.system.as_str() {
            QUARRY => "quarry",
            "floor" => "floor",
            _ => "peer",
        };
        let _written = writeln!(
            out,
            "<text x=\"0\" y=\"{}\">{}</text><rect class=\"{class}\" x=\"100\" y=\"{}\" width=\"{:.1}\" height=\"14\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{}\" y2=\"{}\"/><text x=\"{:.1}\" y=\"{}\">{} {}</text>",
            y + 14,
            escaped(&row.system),
            y + 3,
            x(middle) - 100.0,
            x(low),
            x(high),
            y + 10,
            y + 10,
            x(high) + 8.0,
            y + 14,
            number(middle, row.unit),
            if row.unit == crate::book::Unit::Bytes { "MiB" } else { row.unit.text() },
        );
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Unit;

    #[test]
    fn the_page_stands_alone_and_nothing_in_it_is_markup_by_accident() {
        let mut book = Book::default();
        book.value("a<b", QUARRY, Unit::Operations, 5.0);
        let page = page(&book, None);
        assert!(page.contains("a&lt;b") && !page.contains("a<b"));
        assert!(page.contains("<svg") && !page.contains("http"), "no links to anything outside");
    }
}
