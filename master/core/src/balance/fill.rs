//! How full servers are, and what triggers balancing.

use std::fmt;

use quarry_types::{ServerId, limits::BLOCK_BYTES};

use crate::{command::Settings, settings};

/// Fewer bytes than this are not worth a move.
pub(super) const WORTH: u64 = BLOCK_BYTES;

/// How full a server is, and what is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Who.
    pub server: ServerId,
    /// Bytes it may hold; more than 0.
    pub capacity: u64,
    /// Bytes it holds.
    pub used: u64,
    /// Bytes of it that moves under way take away.
    pub leaving: u64,
    /// Bytes that moves under way bring.
    pub coming: u64,
    /// Those of them that have come and are held already, while where they come from has not let go of them yet.
    pub arrived: u64,
    /// It can take something.
    pub takes: bool,
}

impl Fill {
    /// What is there in the end, of what is known now.
    #[must_use]
    pub fn planned(&self) -> u64 {
        // What has arrived is not counted twice: where drops are slow the mean of all would rise, and servers that are even would
        // look empty.
        self.used.saturating_add(self.coming).saturating_sub(self.leaving).saturating_sub(self.arrived)
    }

    /// What it is taken to hold when it may give: a byte that has left and is still counted is not given twice.
    pub(super) fn at_least(&self) -> u64 {
        self.used.saturating_sub(self.leaving)
    }

    /// What it is taken to hold when it may take: a byte that comes counts as there.
    pub(super) fn at_most(&self) -> u64 {
        self.used.saturating_add(self.coming)
    }

    /// `percent` of its capacity, in bytes.
    pub(super) fn share(&self, percent: u64) -> u64 {
        scaled(self.capacity, percent, 100)
    }
}

/// `of * by / per`, rounded down.
pub(super) fn scaled(of: u64, by: u64, per: u64) -> u64 {
    let wide = u128::from(of) * u128::from(by) / u128::from(per.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// What an operator set about balancing, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How far a server may be from the mean.
    pub band: u64,
    /// A server fuller than this gives away.
    pub full: u64,
}

impl Limits {
    /// From the settings.
    #[must_use]
    pub fn of(from: &Settings) -> Self {
        Limits { band: from.get(&settings::BALANCE_BAND), full: from.get(&settings::BALANCE_FULL) }
    }
}

/// What all servers hold together, to tell what is even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mean {
    used: u64,
    capacity: u64,
}

impl Mean {
    pub(super) fn of(fills: &[Fill]) -> Self {
        let sum = |of: fn(&Fill) -> u64| fills.iter().fold(0u64, |sum, fill| sum.saturating_add(of(fill)));
        Mean { used: sum(Fill::planned), capacity: sum(|fill| fill.capacity) }
    }

    /// What a server holds that is as full as all together.
    pub(super) fn bytes(self, fill: &Fill) -> u64 {
        scaled(fill.capacity, self.used, self.capacity)
    }

    fn percent(self) -> u64 {
        scaled(self.used, 100, self.capacity)
    }
}

/// Why balancing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A server is over its limit, and others are not.
    Full {
        /// Who.
        server: ServerId,
        /// How full it is, in percent.
        percent: u64,
        /// The limit.
        limit: u64,
    },
    /// A server is off the mean.
    Uneven {
        /// Who.
        server: ServerId,
        /// How full it is, in percent.
        percent: u64,
        /// All together.
        mean: u64,
        /// How far off it may be.
        band: u64,
    },
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Full { server, percent, limit } => {
                write!(f, "chunkserver {server} is {percent} % full, over `balance-full` ({limit} %)")
            }
            Trigger::Uneven { server, percent, mean, band } => write!(
                f,
                "chunkserver {server} is {percent} % full, more than `balance-band` ({band} %) off the mean of {mean} %"
            ),
        }
    }
}

/// Whether, and why, balancing begins: a server is over the limit while all together are not, or further off the mean than
/// the band. The one that is furthest off is named; ties go to the lower id.
#[must_use]
pub fn trigger(fills: &[Fill], limits: &Limits) -> Option<Trigger> {
    let mean = Mean::of(fills);
    if !fills.iter().any(|fill| fill.takes && fill.at_most() < mean.bytes(fill)) {
        return None;
    }
    let off = |fill: &Fill| {
        let even = mean.bytes(fill);
        let over = fill.at_least().saturating_sub(even);
        let under = if fill.takes { even.saturating_sub(fill.at_most()) } else { 0 };
        over.max(under)
    };
    let percent = |fill: &Fill| scaled(fill.planned(), 100, fill.capacity);
    let furthest = |of: &mut dyn Iterator<Item = &Fill>| {
        let share = |fill: &Fill| scaled(off(fill), 1_000_000, fill.capacity);
        of.max_by(|a, b| share(a).cmp(&share(b)).then(b.server.cmp(&a.server))).cloned()
    };
    let is_full = |fill: &&Fill| is_full(fill, mean, limits) && off(fill) >= WORTH;
    if let Some(fill) = furthest(&mut fills.iter().filter(is_full)) {
        return Some(Trigger::Full { server: fill.server, percent: percent(&fill), limit: limits.full });
    }
    let is_off = |fill: &&Fill| off(fill) > fill.share(limits.band).max(WORTH);
    furthest(&mut fills.iter().filter(is_off)).map(|fill| Trigger::Uneven {
        server: fill.server,
        percent: percent(&fill),
        mean: mean.percent(),
        band: limits.band,
    })
}

/// Over the limit, while all together are not: where everybody is full, moving helps nobody.
pub(super) fn is_full(fill: &Fill, mean: Mean, limits: &Limits) -> bool {
    let limit = fill.share(limits.full);
    fill.at_least() > limit && mean.bytes(fill) < limit
}
