//! A run for people.

use std::fmt::Write as _;

use super::outcome::{Outcome, Stretch, Times};
use crate::units::{show_size, show_time};

/// Lines of the timeline that are shown.
const LINES: usize = 40;

pub(super) fn time(seconds: f64) -> String {
    show_time((seconds * 1e6) as u64)
}

pub(super) fn times(of: &Times) -> String {
    if of.count == 0 {
        return "none".into();
    }
    format!(
        "{} times: median {}, 90 % within {}, 99 % within {}, longest {}",
        of.count,
        time(of.median),
        time(of.p90),
        time(of.p99),
        time(of.max)
    )
}

pub(super) fn stretch(of: &Stretch) -> String {
    if of.most == 0.0 {
        return "never any".into();
    }
    let last = match of.last {
        Some((began, ended)) if of.episodes.count == 1 => format!("; all over after {}", time(ended - began)),
        _ if of.episodes.count > 1 => {
            format!("; {} stretches, the longest {}", of.episodes.count, time(of.episodes.max))
        }
        _ => String::new(),
    };
    let left = if of.at_the_end > 0 { format!("; {} at the end", of.at_the_end) } else { String::new() };
    format!("{:.2} chunk-hours, at most {:.0} at once{last}{left}", of.chunk_hours, of.most)
}

/// What the figures are called, and their values in words.
pub(super) fn rows(of: &Outcome) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        (
            "Simulated",
            format!("{} of {} chunkservers on {} racks, {} chunks", time(of.seconds), of.servers, of.racks, of.chunks),
        ),
        (
            "Faults",
            format!(
                "{}; a server was thought dead {} times, partitioned {} times",
                of.faults, of.deaths, of.partitions
            ),
        ),
        ("Detection of a death", times(&of.detection)),
        ("Repair of a chunk", times(&of.repair)),
        ("Too few replicas", stretch(&of.endangered)),
        ("One replica left", stretch(&of.single)),
        ("None readable", stretch(&of.unavailable)),
        (
            "Lost",
            match of.first_lost {
                Some(first) => {
                    format!("{} chunks, {}, the first after {}", of.lost_chunks, show_size(of.lost_bytes), time(first))
                }
                None => "nothing".into(),
            },
        ),
        (
            "Copied",
            format!(
                "{} to repair, {} to move, {} in vain; {} copies, {} failed, {} needless, at most {} at once",
                show_size(of.repaired_bytes),
                show_size(of.moved_bytes),
                show_size(of.wasted_bytes),
                of.copies,
                of.failed_copies,
                of.needless_copies,
                of.copies_at_once
            ),
        ),
        ("Dropped", format!("{} replicas too many", of.drops)),
    ];
    if let Some(rate) = of.repair_rate {
        rows.push(("Effective repair rate", format!("{}/s", show_size(rate as u64))));
    }
    if of.braked > 0.0 {
        rows.push(("The brake held", time(of.braked)));
    }
    if of.rotten > 0 {
        rows.push(("Rotten replicas", format!("{}, {} of them found", of.rotten, of.rotten_found)));
    }
    rows.push((
        "Clients waited",
        format!("x{:.4} in the mean, x{:.2} at the worst moment, over all servers", of.slowdown_mean, of.slowdown_most),
    ));
    if of.written + of.refused_writes > 0 {
        rows.push(("Clients wrote", format!("{} chunks; {} were refused", of.written, of.refused_writes)));
    }
    rows.push(("Work", format!("{} events, {} decisions of the master's code", of.events, of.decisions)));
    rows
}

/// The whole report.
#[must_use]
pub fn text(of: &Outcome) -> String {
    let mut out = format!("{}\n{}\nseed {}\n\n", of.name, of.question, of.seed);
    for (name, value) in rows(of) {
        // A string takes all that is written.
        let _written = writeln!(out, "{name:<22} {value}");
    }
    if !of.timeline.is_empty() {
        out.push_str("\nWhat happened\n");
        for line in of.timeline.iter().take(LINES) {
            let _written = writeln!(out, "{:>10}  {}", time(line.at), line.what);
        }
        let more = of.timeline.len().saturating_sub(LINES) as u64 + of.timeline_more;
        if more > 0 {
            let _written = writeln!(out, "{:>10}  and {more} lines more (--json has the first 2,000)", "");
        }
    }
    out
}
