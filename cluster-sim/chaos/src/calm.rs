//! Which machines nothing has happened to of late: what they were asked they have answered.

use std::{collections::BTreeMap, time::Duration};

/// After the last trouble a machine has connections again, and has answered what waited for it.
pub const SETTLED: Duration = Duration::from_secs(8);

/// Until when machines are in trouble, by name.
#[derive(Debug, Default)]
pub struct Calm(BTreeMap<&'static str, Duration>);

impl Calm {
    /// Something happens to a machine that lasts until then.
    pub fn disturb(&mut self, machine: &'static str, until: Duration) {
        let known = self.0.entry(machine).or_default();
        *known = until.max(*known);
    }

    /// Whether nothing has happened to it for long enough.
    pub fn is_calm(&self, machine: &str, now: Duration) -> bool {
        now >= self.0.get(machine).copied().unwrap_or_default() + SETTLED
    }
}
