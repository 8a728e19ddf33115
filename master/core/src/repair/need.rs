//! What a chunk lacks or has too much of.

use std::collections::BTreeSet;

use quarry_types::planted;
use serde::{Deserialize, Serialize};

use super::facts::{ChunkFacts, Holder, Quality};
use crate::{command::ServerWish, detector::Health};

/// What a sealed chunk lacks, or has too much of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Wanted replicas.
    pub wanted: u32,
    /// Good replicas on servers that are not counted as lost.
    pub good: u32,
    /// Replicas that are lost: wanted and not good.
    pub missing: u32,
    /// Good replicas that are to be elsewhere (drains, balancing) and have no successor yet, and those wanted for a while:
    /// copies of what does not miss anything.
    pub moving: u32,
    /// It lies on fewer racks than the cluster has for it.
    pub rack_short: bool,
    /// Good replicas beyond those wanted.
    pub surplus: u32,
    /// Replicas that are of no use, on servers that are not counted as lost.
    pub bad: u32,
    /// Of the good ones: on servers that are away in maintenance.
    #[serde(default)]
    pub away: u32,
}

impl Need {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_met(&self) -> bool {
        !self.wants_copy() && self.surplus == 0 && self.bad == 0 && !self.is_thin()
    }

    /// Nothing counts as missing, but only one replica can be reached: the others are on servers that are away in maintenance.
    #[must_use]
    pub fn is_thin(&self) -> bool {
        self.away > 0 && self.good - self.away <= 1
    }

    /// How endangered it is, in missing replicas: with one good replica left as if two were missing at least, however many are
    /// wanted.
    #[must_use]
    pub fn danger(&self) -> u32 {
        if self.missing > 0 && self.good == 1 { self.missing.max(2) } else { self.missing }
    }

    /// A copy is to be made.
    #[must_use]
    pub fn wants_copy(&self) -> bool {
        self.missing > 0 || self.moving > 0 || self.rack_short
    }
}

/// The replicas that count toward what is wanted. That of a server in maintenance does although it is away, as long as
/// another one is there.
pub(super) fn counted(facts: &ChunkFacts) -> impl Iterator<Item = &Holder> {
    let there = facts.holders.iter().any(Holder::serves);
    facts.holders.iter().filter(move |holder| {
        holder.quality == Quality::Good
            && !holder.dropping
            && (holder.health != Health::Dead || (holder.wish == ServerWish::Maintenance && there))
    })
}

/// A replica that is of no use but takes room. That of a server which could not remove it now counts as well: nobody looks at
/// the chunk only because the server can again.
pub(super) fn is_bad(holder: &Holder) -> bool {
    matches!(holder.quality, Quality::Quarantined | Quality::Unfit) && holder.health != Health::Dead && !holder.dropping
}

/// What a chunk needs. `racks`: how many the cluster has.
#[must_use]
pub fn assess(facts: &ChunkFacts, racks: usize) -> Need {
    let (mut good, mut away, mut staying, mut used) = (0u32, 0u32, 0u32, BTreeSet::new());
    for holder in counted(facts) {
        good += 1;
        away += u32::from(holder.health == Health::Dead);
        if !holder.leaves() {
            staying += 1;
            used.insert(holder.rack.as_str());
        }
    }
    let wanted = facts.wanted;
    let missing = wanted.saturating_sub(good);
    let for_now = wanted.saturating_add(facts.extra);
    let moving = for_now.saturating_sub(staying).saturating_sub(missing);
    let rack_short = staying >= wanted && used.len() < racks.min(wanted as usize);
    let mut surplus = if staying >= for_now && !rack_short { good.saturating_sub(for_now) } else { 0 };
    if planted!("trim-below-wanted") && missing == 0 {
        surplus = good.saturating_sub(wanted.saturating_sub(1));
    }
    let bad = facts.holders.iter().filter(|h| is_bad(h)).count();
    Need { wanted, good, missing, moving, rack_short, surplus, bad: u32::try_from(bad).unwrap_or(u32::MAX), away }
}
