//! The figures of a run. Times are in seconds, sizes in bytes.

use serde::Serialize;

use crate::{
    measure::{Measures, histogram::Histogram, truth::State},
    units::{Micros, SECOND, YEAR},
    world::World,
};

/// Seconds of a time.
#[must_use]
pub fn seconds(micros: Micros) -> f64 {
    micros as f64 / SECOND as f64
}

/// A distribution of times, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half are not longer, to a tenth.
    pub median: f64,
    /// 90 % are not longer.
    pub p90: f64,
    /// 99 % are not longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl From<&Histogram> for Times {
    fn from(from: &Histogram) -> Self {
        Times {
            count: from.count(),
            min: seconds(from.min()),
            mean: seconds(from.mean()),
            median: seconds(from.quantile(0.5)),
            p90: seconds(from.quantile(0.9)),
            p99: seconds(from.quantile(0.99)),
            max: seconds(from.max()),
        }
    }
}

/// Chunks that were in a state for a while.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stretch {
    /// Chunks times hours.
    pub chunk_hours: f64,
    /// The most chunks at once.
    pub most: f64,
    /// Chunks at the end.
    pub at_the_end: u64,
    /// From the first chunk until none was left.
    pub episodes: Times,
    /// When the last such time began, and when it ended, in seconds.
    pub last: Option<(f64, f64)>,
}

impl From<&State> for Stretch {
    fn from(from: &State) -> Self {
        Stretch {
            chunk_hours: from.hours(),
            most: from.chunks.max(),
            at_the_end: from.count(),
            episodes: Times::from(&from.episodes),
            last: from.last.map(|(began, ended)| (seconds(began), seconds(ended))),
        }
    }
}

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When, in seconds.
    pub at: f64,
    /// What.
    pub what: String,
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The version of this form.
    pub version: u32,
    /// What was simulated.
    pub name: String,
    /// The question it answers.
    pub question: String,
    /// The seed: with the same scenario it repeats the run byte by byte.
    pub seed: u64,
    /// Simulated seconds.
    pub seconds: f64,
    /// Chunkservers.
    pub servers: u64,
    /// Racks.
    pub racks: u64,
    /// Chunks at the end.
    pub chunks: u64,
    /// Faults, those of the scenario's events among them.
    pub faults: u64,
    /// Verdicts that a server is dead.
    pub deaths: u64,
    /// Verdicts that a server is partitioned.
    pub partitions: u64,
    /// From a server's silence until it was thought dead.
    pub detection: Times,
    /// From a chunk's entry into the ledger until copies had made it whole.
    pub repair: Times,
    /// Chunks with fewer readable replicas than wanted.
    pub endangered: Stretch,
    /// Chunks with one readable replica of several that are wanted.
    pub single: Stretch,
    /// Chunks without a readable replica.
    pub unavailable: Stretch,
    /// Chunks of which no whole replica was left anywhere.
    pub lost_chunks: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// When the first was lost, in seconds.
    pub first_lost: Option<f64>,
    /// Copies done.
    pub copies: u64,
    /// Copies that failed.
    pub failed_copies: u64,
    /// Copies that were cancelled because replicas came back.
    pub needless_copies: u64,
    /// The most copies at once.
    pub copies_at_once: u64,
    /// Bytes copied for chunks that missed a replica.
    pub repaired_bytes: u64,
    /// Bytes copied for drains, balancing and racks.
    pub moved_bytes: u64,
    /// Bytes of copies that failed or were cancelled.
    pub wasted_bytes: u64,
    /// Bytes per second of repair, while the last endangered chunks were repaired.
    pub repair_rate: Option<f64>,
    /// Replicas dropped.
    pub drops: u64,
    /// Seconds during which the brake held.
    pub braked: f64,
    /// Replicas that rotted.
    pub rotten: u64,
    /// Of these, found.
    pub rotten_found: u64,
    /// By how much clients waited longer, in the mean over all servers and all the time; 1: not at all.
    pub slowdown_mean: f64,
    /// The same at the worst moment.
    pub slowdown_most: f64,
    /// Chunks that clients wrote.
    pub written: u64,
    /// Chunks that they could not write.
    pub refused_writes: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Decisions asked of the master's code.
    pub decisions: u64,
    /// What happened, the first lines.
    pub timeline: Vec<Line>,
    /// How many more lines there were.
    pub timeline_more: u64,
    /// The plots' points.
    pub plots: Plots,
}

/// Points of plots: seconds, and the largest value in that part of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plots {
    /// Chunks with too few replicas.
    pub endangered: Vec<(f64, f64)>,
    /// Chunks with one replica.
    pub single: Vec<(f64, f64)>,
    /// Chunks without a readable replica.
    pub unavailable: Vec<(f64, f64)>,
    /// Bytes per second of copies.
    pub copying: Vec<(f64, f64)>,
    /// How much longer clients wait.
    pub slowdown: Vec<(f64, f64)>,
    /// Repair times: seconds, and how many.
    pub repair: Vec<(f64, f64)>,
}

fn bars(of: &Histogram) -> Vec<(f64, f64)> {
    of.bars().into_iter().map(|(at, count)| (seconds(at), count as f64)).collect()
}

/// Bytes per second, over the last time in which chunks were endangered.
fn repair_rate(from: &Measures) -> Option<f64> {
    let (began, ended) = from.truth.endangered.last.filter(|_| from.truth.endangered.episodes.count() == 1)?;
    Some(from.repaired_bytes as f64 / seconds(ended.saturating_sub(began).max(1))).filter(|rate| *rate > 0.0)
}

impl Outcome {
    /// The version of [`Outcome`]'s JSON.
    pub const VERSION: u32 = 1;

    /// Of a world whose time is over.
    #[must_use]
    pub fn of(world: &World, name: &str, question: &str, seed: u64) -> Self {
        let from = &world.measures;
        let line = |(at, what): &(Micros, String)| Line { at: seconds(*at), what: what.clone() };
        Outcome {
            version: Self::VERSION,
            name: name.into(),
            question: question.into(),
            seed,
            seconds: seconds(world.until),
            servers: world.servers.len() as u64,
            racks: world.racks.len() as u64,
            chunks: world.chunks.count(),
            faults: from.faults,
            deaths: from.deaths,
            partitions: from.partitions,
            detection: (&from.detection).into(),
            repair: (&from.repair).into(),
            endangered: (&from.truth.endangered).into(),
            single: (&from.truth.single).into(),
            unavailable: (&from.truth.unavailable).into(),
            lost_chunks: from.truth.lost,
            lost_bytes: from.truth.lost_bytes,
            first_lost: from.truth.first_lost.map(seconds),
            copies: from.copies,
            failed_copies: from.failed_copies,
            needless_copies: from.needless_copies,
            copies_at_once: from.copies_at_once,
            repaired_bytes: from.repaired_bytes,
            moved_bytes: from.moved_bytes,
            wasted_bytes: from.wasted_bytes,
            repair_rate: repair_rate(from),
            drops: from.drops,
            braked: seconds(from.braked),
            rotten: from.rot,
            rotten_found: from.rot_found,
            slowdown_mean: from.slowdown.mean(),
            slowdown_most: from.slowdown.max(),
            written: from.written,
            refused_writes: from.refused,
            events: from.events,
            decisions: from.decisions,
            timeline: from.timeline.lines().iter().map(line).collect(),
            timeline_more: from.timeline.more(),
            plots: Plots {
                endangered: from.truth.endangered.chunks.points(),
                single: from.truth.single.chunks.points(),
                unavailable: from.truth.unavailable.chunks.points(),
                copying: from.copying.points(),
                slowdown: from.slowdown.points(),
                repair: bars(&from.repair),
            },
        }
    }

    /// Simulated years.
    #[must_use]
    pub fn years(&self) -> f64 {
        self.seconds / seconds(YEAR)
    }
}
