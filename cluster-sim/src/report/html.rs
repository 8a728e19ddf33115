//! A run as one HTML page that needs nothing from elsewhere.

use std::fmt::Write as _;

use super::{
    outcome::Outcome,
    svg::{Curve, bars, curves},
    text,
};
use crate::units::show_size;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;\
text-align:left;vertical-align:top}th{white-space:nowrap}svg{width:100%;height:auto}.grid{stroke:#ddd;fill:none}\
.curve{fill:none;stroke-width:1.5}text{font-size:11px;fill:#555}.y{text-anchor:end}.x{text-anchor:middle}\
.key{display:inline-block;width:.8rem;height:.8rem;margin:0 .4rem 0 1rem}code{background:#f3f3f3}";

/// Text inside HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn rate(value: f64) -> String {
    format!("{}/s", show_size(value as u64))
}

fn plot(out: &mut String, title: &str, lines: &[Curve<'_>], y: super::svg::Shown) {
    let _written = write!(out, "<h2>{title}</h2><p>");
    for line in lines {
        let _written = write!(out, "<span class=\"key\" style=\"background:{}\"></span>{}", line.colour, line.name);
    }
    let _written = write!(out, "</p>{}", curves(lines, text::time, y));
}

/// The page.
#[must_use]
pub fn html(of: &Outcome) -> String {
    let name = escaped(&of.name);
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title><style>{STYLE}</style></head>\
         <body><h1>{name}</h1><p>{}</p><p>Seed {}. The same scenario and seed give this page again, byte by byte.</p><table>",
        escaped(&of.question),
        of.seed
    );
    for (name, value) in text::rows(of) {
        let _written = write!(out, "<tr><th>{name}</th><td>{}</td></tr>", escaped(&value));
    }
    out.push_str("</table>");
    let plots = &of.plots;
    let curve = |name, colour, points| Curve { name, colour, points };
    plot(
        &mut out,
        "Chunks in danger",
        &[
            curve("fewer replicas than wanted", "#d9a400", &plots.endangered),
            curve("one replica left", "#d1495b", &plots.single),
            curve("none readable", "#222222", &plots.unavailable),
        ],
        number,
    );
    plot(&mut out, "Copies", &[curve("bytes per second", "#2e86ab", &plots.copying)], rate);
    plot(
        &mut out,
        "How much longer clients wait",
        &[curve("times, over all servers", "#5b8e7d", &plots.slowdown)],
        number,
    );
    if !plots.repair.is_empty() {
        let drawn = bars(&plots.repair, "#2e86ab", text::time, number);
        let _written = write!(out, "<h2>How long repair of a chunk took</h2>{drawn}");
    }
    out.push_str("<h2>What happened</h2><table>");
    for line in &of.timeline {
        let _written = write!(out, "<tr><th>{}</th><td>{}</td></tr>", text::time(line.at), escaped(&line.what));
    }
    out.push_str("</table>");
    if of.timeline_more > 0 {
        let _written = write!(out, "<p>and {} lines more</p>", of.timeline_more);
    }
    out.push_str("</body></html>\n");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_break_out_of_the_page() {
        assert_eq!(super::escaped("<script>&\""), "&lt;script&gt;&amp;&quot;");
    }
}
