//! How much leaves whom, and toward whom.

use std::collections::BTreeMap;

use quarry_types::ServerId;

use super::fill::{Fill, Limits, Mean, WORTH, is_full};

/// Pieces that an outcome is foretold with.
const PIECES: u64 = 1024;

/// A server that is off the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    capacity: u64,
    /// Bytes to the mean; negative: moves went beyond it.
    off: i128,
    /// Of these, what must go for the server to be within half of the band, and under the limit.
    required: u64,
}

impl Side {
    /// Whether `source` gives to this server below the mean: what must go goes to anyone, and what need not only to who must get.
    fn gets_from(&self, source: &Side) -> bool {
        self.off > 0 && (source.required > 0 || self.required > 0)
    }
}

/// What is to be moved now. Each move makes its two servers more even, so moving ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    over: BTreeMap<ServerId, Side>,
    under: BTreeMap<ServerId, Side>,
    /// Bytes that servers below need, beyond what those above must give anyway.
    optional: u64,
}

impl Plan {
    /// What brings every server within half of the band, and below the limit if all together are.
    #[must_use]
    pub fn new(fills: &[Fill], limits: &Limits) -> Self {
        let mean = Mean::of(fills);
        let (mut over, mut under) = (BTreeMap::new(), BTreeMap::new());
        for fill in fills {
            let (even, half) = (mean.bytes(fill), fill.share(limits.band) / 2);
            let worth = |bytes: u64| if bytes >= WORTH { bytes } else { 0 };
            let side =
                |off: u64, required: u64| Side { capacity: fill.capacity, off: off.into(), required: worth(required) };
            let above = fill.at_least().saturating_sub(even);
            if above > 0 {
                let limit = fill.share(limits.full).saturating_sub(half);
                let too_full = if is_full(fill, mean, limits) { fill.at_least().saturating_sub(limit) } else { 0 };
                over.insert(fill.server, side(above, above.saturating_sub(half).max(too_full).min(above)));
            }
            let below = even.saturating_sub(fill.at_most());
            if below > 0 && fill.takes {
                under.insert(fill.server, side(below, below.saturating_sub(half)));
            }
        }
        let optional = required(&under).saturating_sub(required(&over));
        Plan { over, under, optional }
    }

    /// Bytes to move.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let room: i128 = self.under.values().map(|side| side.off).sum();
        required(&self.over).saturating_add(self.optional).min(u64::try_from(room).unwrap_or(0))
    }

    /// There is nothing to move.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Those that have something to give, the fullest first.
    #[must_use]
    pub fn sources(&self) -> Vec<ServerId> {
        let gives = |side: &Side| side.off > 0 && (side.required > 0 || self.optional > 0);
        let mut sources: Vec<(&ServerId, &Side)> = self.over.iter().filter(|(_, side)| gives(side)).collect();
        sources.sort_by(furthest);
        sources.into_iter().map(|(server, _)| *server).collect()
    }

    /// Whether any of those that `from` may give to `can` take something now.
    #[must_use]
    pub fn has_target(&self, from: ServerId, can: impl Fn(ServerId) -> bool) -> bool {
        let Some(source) = self.over.get(&from) else { return false };
        self.under.iter().any(|(server, side)| side.gets_from(source) && can(*server))
    }

    /// Where a replica of so many bytes may go from `from`: to the emptiest that `can` take it, and only if the two are more
    /// even then.
    #[must_use]
    pub fn target(&self, from: ServerId, bytes: u64, can: impl Fn(ServerId) -> bool) -> Option<ServerId> {
        let source = self.over.get(&from)?;
        // More than half of it is asked for.
        if bytes == 0 || bytes >= source.required.saturating_add(self.optional).saturating_mul(2) {
            return None;
        }
        // Below the mean only where nobody could give it and stay above: chunks are large for these servers then.
        let stays = |side: &Side| i128::from(bytes) < side.off.saturating_mul(2);
        if source.off <= 0 || (!stays(source) && self.over.values().any(stays)) {
            return None;
        }
        let evens = |side: &Side| {
            let (a, b) = (i128::from(source.capacity), i128::from(side.capacity));
            // The sum of the squares, each over its capacity, falls: the target stays emptier than the source was.
            i128::from(bytes).saturating_mul(a + b)
                < source.off.saturating_mul(b).saturating_add(side.off.saturating_mul(a)).saturating_mul(2)
        };
        let takes = |(server, side): &(&ServerId, &Side)| side.gets_from(source) && evens(side) && can(**server);
        self.under.iter().filter(takes).min_by(furthest).map(|(server, _)| *server)
    }

    /// A move was ordered.
    pub fn moved(&mut self, from: ServerId, to: ServerId, bytes: u64) {
        if let Some(source) = self.over.get_mut(&from) {
            source.off -= i128::from(bytes);
            self.optional = self.optional.saturating_sub(bytes.saturating_sub(source.required));
            source.required = source.required.saturating_sub(bytes);
        }
        if let Some(target) = self.under.get_mut(&to) {
            target.off -= i128::from(bytes);
            target.required = target.required.saturating_sub(bytes);
        }
    }

    /// What each server holds after everything was moved, if chunks are small enough.
    #[must_use]
    pub fn outcome(&self, fills: &[Fill]) -> BTreeMap<ServerId, u64> {
        let mut held: BTreeMap<ServerId, u64> = fills.iter().map(|fill| (fill.server, fill.planned())).collect();
        let mut plan = self.clone();
        let piece = (plan.bytes() / PIECES).max(WORTH / 2);
        while let Some((from, to)) = plan.next(piece) {
            plan.moved(from, to, piece);
            if let Some(held) = held.get_mut(&from) {
                *held = held.saturating_sub(piece);
            }
            if let Some(held) = held.get_mut(&to) {
                *held = held.saturating_add(piece);
            }
        }
        held
    }

    /// The next move of a piece that anybody may take.
    fn next(&self, piece: u64) -> Option<(ServerId, ServerId)> {
        let able = |(from, _): &(&ServerId, &Side)| self.target(**from, piece, |_| true).is_some();
        let (from, _) = self.over.iter().filter(able).min_by(furthest)?;
        Some((*from, self.target(*from, piece, |_| true)?))
    }
}

fn required(of: &BTreeMap<ServerId, Side>) -> u64 {
    of.values().fold(0, |sum, side| sum.saturating_add(side.required))
}

/// Who is further off for its capacity comes first, then the lower id.
fn furthest(a: &(&ServerId, &Side), b: &(&ServerId, &Side)) -> std::cmp::Ordering {
    let share = |side: &Side, other: &Side| side.off.saturating_mul(other.capacity.into());
    share(b.1, a.1).cmp(&share(a.1, b.1)).then(a.0.cmp(b.0))
}
