//! What an operator set about repair.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{command::Settings, placement::Weights, settings};

/// What an operator set about repair, see [`crate::settings`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Durable replicas that a completion waits for.
    pub min_replicas: u32,
    /// How servers are scored.
    pub weights: Weights,
    /// A chunk that misses one replica waits this long.
    pub delay: Duration,
    /// Copies to one server at once.
    pub copies_in: u32,
    /// Copies from one server at once.
    pub copies_out: u32,
    /// Bytes per second to one server, and from one.
    pub rate: u64,
    /// Bytes per second in the whole cluster.
    pub rate_cluster: u64,
    /// When clients are served slower than this, copies slow down.
    pub latency: Duration,
    /// Replicas that failed a check are kept for this long after their chunk is whole again.
    pub quarantine_keep: Duration,
    /// Share of the servers that may go at once, in percent.
    pub brake_share: u64,
    /// How long the brake holds after the last loss.
    pub brake_hold: Duration,
}

impl Policy {
    /// From the settings.
    #[must_use]
    pub fn of(from: &Settings) -> Self {
        let count = |of| u32::try_from(from.get(of)).unwrap_or(u32::MAX);
        Policy {
            min_replicas: from.min_replicas,
            weights: Weights::of(from),
            delay: from.duration(&settings::REPAIR_DELAY),
            copies_in: count(&settings::REPAIR_IN),
            copies_out: count(&settings::REPAIR_OUT),
            rate: from.get(&settings::REPAIR_RATE),
            rate_cluster: from.get(&settings::REPAIR_RATE_CLUSTER),
            latency: from.duration(&settings::REPAIR_LATENCY),
            quarantine_keep: from.duration(&settings::QUARANTINE_KEEP),
            brake_share: from.get(&settings::BRAKE_SHARE),
            brake_hold: from.duration(&settings::BRAKE_HOLD),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy::of(&Settings::default())
    }
}
