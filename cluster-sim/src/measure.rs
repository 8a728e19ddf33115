//! What is measured while the world runs. All of it is bounded, however long the run.
//!
//! | module | holds |
//! |---|---|
//! | [`histogram`] | a distribution of times |
//! | [`series`] | a figure over time, for plots and averages |
//! | [`truth`] | how many chunks have too few replicas that can be read, as it really is |
//! | [`timeline`] | what happened, in words |

pub mod histogram;
pub mod series;
pub mod timeline;
pub mod truth;

use histogram::Histogram;
use series::Series;
use timeline::Timeline;
use truth::Truth;

use crate::units::Micros;

/// All measurements of a run.
#[derive(Clone, Debug)]
pub struct Measures {
    /// Chunks with too few replicas.
    pub truth: Truth,
    /// What happened.
    pub timeline: Timeline,
    /// From a server's silence to the verdict that it is dead.
    pub detection: Histogram,
    /// From a chunk's entry into the ledger until it is whole by copies.
    pub repair: Histogram,
    /// Bytes per second that repair copies.
    pub copying: Series,
    /// By how much clients wait longer on servers that copy or are slow; 1: not at all.
    pub slowdown: Series,
    /// Chunks in the ledger.
    pub ledger: Series,
    /// Bytes that copies brought, by why they were made.
    pub repaired_bytes: u64,
    /// Of these, for drains, balancing and racks.
    pub moved_bytes: u64,
    /// Bytes of copies that were cancelled or failed.
    pub wasted_bytes: u64,
    /// Copies that were done.
    pub copies: u64,
    /// Copies that failed.
    pub failed_copies: u64,
    /// Copies that were cancelled because they were needless.
    pub needless_copies: u64,
    /// Surplus and bad replicas dropped.
    pub drops: u64,
    /// Most copies at once.
    pub copies_at_once: u64,
    /// Copies under way now.
    pub copying_now: u64,
    /// Time during which the brake held, in microseconds.
    pub braked: Micros,
    /// When the brake began to hold, while it does.
    pub braked_from: Option<Micros>,
    /// Rotten replicas that were found.
    pub rot_found: u64,
    /// Rotten replicas that came about.
    pub rot: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Servers that were thought dead.
    pub deaths: u64,
    /// Servers that were thought partitioned.
    pub partitions: u64,
    /// Chunks that clients wrote.
    pub written: u64,
    /// Chunks that clients could not write, for want of servers.
    pub refused: u64,
    /// Events handled.
    pub events: u64,
    /// Decisions asked of the master's code.
    pub decisions: u64,
}

impl Measures {
    /// Of a run of this length.
    #[must_use]
    pub fn new(lasts: Micros) -> Self {
        Measures {
            truth: Truth::new(lasts),
            timeline: Timeline::default(),
            detection: Histogram::default(),
            repair: Histogram::default(),
            copying: Series::new(lasts),
            slowdown: Series::new(lasts),
            ledger: Series::new(lasts),
            repaired_bytes: 0,
            moved_bytes: 0,
            wasted_bytes: 0,
            copies: 0,
            failed_copies: 0,
            needless_copies: 0,
            drops: 0,
            copies_at_once: 0,
            copying_now: 0,
            braked: 0,
            braked_from: None,
            rot_found: 0,
            rot: 0,
            faults: 0,
            deaths: 0,
            partitions: 0,
            written: 0,
            refused: 0,
            events: 0,
            decisions: 0,
        }
    }

    /// The run is over.
    pub fn finish(&mut self, now: Micros) {
        self.truth.finish(now);
        for series in [&mut self.copying, &mut self.slowdown, &mut self.ledger] {
            series.hold(now);
        }
        if let Some(from) = self.braked_from.take() {
            self.braked += now.saturating_sub(from);
        }
    }
}
