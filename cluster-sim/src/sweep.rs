//! Many seeds, and several values of one key side by side.

pub mod interval;

use std::{
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::Serialize;

use crate::{
    report::Outcome,
    scenario::Scenario,
    units::{show_size, show_time},
    world::World,
};
use interval::{Interval, clopper_pearson};

/// The level of the confidence intervals.
pub const LEVEL: f64 = 0.95;

/// One value of the key that varies, over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The value; empty when nothing varies.
    pub value: String,
    /// Runs.
    pub runs: u64,
    /// Runs in which a chunk was lost.
    pub runs_with_loss: u64,
    /// Probability that a chunk is lost within a year.
    pub loss_per_year: f64,
    /// Its 95 % confidence interval (Clopper–Pearson).
    pub loss_interval: Interval,
    /// Chunks lost in a year, in the mean.
    pub lost_chunks_per_year: f64,
    /// Chunk-hours in a year with too few replicas, in the mean.
    pub endangered_hours_per_year: f64,
    /// Chunk-hours in a year with one replica left, in the mean.
    pub single_hours_per_year: f64,
    /// Chunk-hours in a year in which a chunk could not be read, in the mean.
    pub unavailable_hours_per_year: f64,
    /// Seconds that repair of a chunk took, the median of the runs' medians.
    pub repair_median: f64,
    /// Bytes copied in a year, in the mean.
    pub copied_bytes_per_year: f64,
    /// How much longer clients waited, in the mean.
    pub slowdown: f64,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sweep {
    /// The version of this form.
    pub version: u32,
    /// What was simulated.
    pub name: String,
    /// The key that varied.
    pub key: String,
    /// The first seed.
    pub first_seed: u64,
    /// One for each value.
    pub rows: Vec<Row>,
}

/// What is kept of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    lost: u64,
    endangered: f64,
    single: f64,
    unavailable: f64,
    repair: f64,
    copied: f64,
    slowdown: f64,
}

fn one(scenario: &Scenario, seed: u64) -> Kept {
    let mut world = World::new(scenario, seed);
    world.run();
    let outcome = Outcome::of(&world, "", "", seed);
    Kept {
        lost: outcome.lost_chunks,
        endangered: outcome.endangered.chunk_hours,
        single: outcome.single.chunk_hours,
        unavailable: outcome.unavailable.chunk_hours,
        repair: outcome.repair.median,
        copied: (outcome.repaired_bytes + outcome.moved_bytes + outcome.wasted_bytes) as f64,
        slowdown: outcome.slowdown_mean,
    }
}

/// Runs every scenario with every seed, at most `jobs` at once. The outcome does not depend on `jobs`.
#[must_use]
pub fn sweep(name: &str, key: &str, scenarios: &[(String, Scenario)], first: u64, seeds: u64, jobs: usize) -> Sweep {
    let all = scenarios.len() as u64 * seeds;
    let results = Mutex::new(vec![Kept::default(); usize::try_from(all).unwrap_or(0)]);
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (which, seed) = (at as u64 / seeds.max(1), first.wrapping_add(at as u64 % seeds.max(1)));
            let Some((_, scenario)) = usize::try_from(which).ok().and_then(|which| scenarios.get(which)) else {
                return;
            };
            let kept = one(scenario, seed);
            // A thread that panicked holds nothing half-way: results are written whole.
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(place) = results.get_mut(at) {
                *place = kept;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 64) {
            scope.spawn(work);
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let per = usize::try_from(seeds.max(1)).unwrap_or(1);
    let rows = scenarios.iter().zip(results.chunks(per)).map(|((value, scenario), runs)| row(value, scenario, runs));
    Sweep { version: 1, name: name.into(), key: key.into(), first_seed: first, rows: rows.collect() }
}

fn row(value: &str, scenario: &Scenario, runs: &[Kept]) -> Row {
    let years = scenario.lasts() as f64 / crate::units::YEAR as f64;
    let count = runs.len().max(1) as f64;
    let mean = |of: fn(&Kept) -> f64| runs.iter().map(of).sum::<f64>() / count;
    let with_loss = runs.iter().filter(|run| run.lost > 0).count() as u64;
    // What happens in a run of so many years happens in one year with this probability, if years are alike.
    let in_a_year = |p: f64| 1.0 - (1.0 - p).powf(1.0 / years);
    let interval = clopper_pearson(with_loss, runs.len() as u64, LEVEL);
    let mut medians: Vec<f64> = runs.iter().map(|run| run.repair).collect();
    medians.sort_by(f64::total_cmp);
    Row {
        value: value.into(),
        runs: runs.len() as u64,
        runs_with_loss: with_loss,
        loss_per_year: in_a_year(with_loss as f64 / count),
        loss_interval: Interval { low: in_a_year(interval.low), high: in_a_year(interval.high) },
        lost_chunks_per_year: mean(|run| run.lost as f64) / years,
        endangered_hours_per_year: mean(|run| run.endangered) / years,
        single_hours_per_year: mean(|run| run.single) / years,
        unavailable_hours_per_year: mean(|run| run.unavailable) / years,
        repair_median: medians.get(medians.len() / 2).copied().unwrap_or(0.0),
        copied_bytes_per_year: mean(|run| run.copied) / years,
        slowdown: mean(|run| run.slowdown),
    }
}

impl Sweep {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let what = if self.key.is_empty() { "value" } else { self.key.as_str() };
        let runs = self.rows.first().map_or(0, |row| row.runs);
        let last = self.first_seed.wrapping_add(runs.saturating_sub(1));
        let mut out = format!("{}: seeds {} to {last} for each value\n\n", self.name, self.first_seed);
        let header = [
            what,
            "loss in a year",
            "95 % interval",
            "lost chunks/y",
            "endangered h/y",
            "single h/y",
            "unreadable h/y",
            "repair",
            "copied/y",
            "clients",
        ];
        let mut lines = vec![header.map(String::from)];
        for row in &self.rows {
            lines.push([
                row.value.clone(),
                format!("{:.4}", row.loss_per_year),
                format!("{:.4} to {:.4}", row.loss_interval.low, row.loss_interval.high),
                format!("{:.3}", row.lost_chunks_per_year),
                format!("{:.1}", row.endangered_hours_per_year),
                format!("{:.2}", row.single_hours_per_year),
                format!("{:.2}", row.unavailable_hours_per_year),
                show_time((row.repair_median * 1e6) as u64),
                show_size(row.copied_bytes_per_year as u64),
                format!("x{:.4}", row.slowdown),
            ]);
        }
        let width =
            |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        for line in &lines {
            for (cell, width) in line.iter().zip(&widths) {
                let _written = write!(out, "{cell:>width$}  ");
            }
            out.push('\n');
        }
        out.push_str("\nThe interval is Clopper–Pearson's, over the runs in which a chunk was lost.\n");
        out
    }
}
