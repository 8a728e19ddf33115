//! **S7, repair never makes it worse.**
//!
//! *Observes* every replica of a sealed chunk that a chunkserver takes out of its index. *From* the disks of all chunkservers just
//! before the change, asking nobody: what a master believes, or a chunkserver reports, is what is being checked. At least the
//! wanted number of other good replicas must lie on disks, on no fewer racks than before (as far as the wanted number can use
//! them). Only servers count that follow the leader who ordered it, or a later one, as the server that removes does: of others
//! he knew nothing. And none that has been without power for longer than a decision and its command take; one that has just
//! died counts: nobody could know.
//!
//! *Cannot see* through what bounds knowledge, and excuses just that: for [`NEWS`](crate::books::NEWS) what is wanted now may
//! not have been wanted when the command was given, and a replica that rots counts until it has been in quarantine for so long.

use std::fmt;

/// What is there when a replica is about to go. Servers by number, with their racks.
pub struct Removal<'a> {
    pub racks: &'a dyn Fn(&[usize]) -> usize,
    pub names: &'a dyn Fn(&[usize]) -> Vec<&'static str>,
    pub server: usize,
    pub was_good: bool,
    /// Who else has a good one, or one that nobody can know to be bad yet.
    pub others: Vec<usize>,
    /// Those of them that were not off for long, and of which the leader could know.
    pub counted: Vec<usize>,
}

impl Removal<'_> {
    /// What is wrong with it while so many are wanted.
    pub fn breaks(&self, wanted: usize) -> Option<&'static str> {
        if self.others.len() < wanted {
            return Some("a replica is dropped and fewer than wanted remain");
        }
        if self.counted.len() < wanted {
            return Some("a replica is dropped and others count of which the leader could not know");
        }
        let mut before = self.others.clone();
        before.extend(self.was_good.then_some(self.server));
        if (self.racks)(&self.others) < (self.racks)(&before).min(wanted) {
            return Some("a replica is dropped and a rack is lost");
        }
        None
    }
}

impl fmt::Display for Removal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, others) = ((self.names)(&[self.server]), (self.names)(&self.others));
        let (what, counted) = (if self.was_good { "good" } else { "bad" }, (self.names)(&self.counted));
        write!(f, "a {what} one of {server:?}; good ones are on {others:?}, of these count {counted:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_refused_and_a_lost_rack_too() {
        // Servers 0 and 1 share a rack.
        let racks = |of: &[usize]| {
            of.iter().map(|s| if *s < 2 { 0 } else { *s }).collect::<std::collections::BTreeSet<_>>().len()
        };
        let names = |of: &[usize]| vec!["a server"; of.len()];
        let removal = |server, others: &[usize], counted: &[usize]| Removal {
            racks: &racks,
            names: &names,
            server,
            was_good: true,
            others: others.into(),
            counted: counted.into(),
        };
        assert_eq!(removal(0, &[1, 2, 3], &[1, 2, 3]).breaks(3), None);
        assert!(removal(0, &[1, 2], &[1, 2]).breaks(3).is_some());
        assert!(removal(0, &[1, 2, 3], &[1, 2]).breaks(3).is_some());
        assert!(removal(2, &[0, 1, 3], &[0, 1, 3]).breaks(3).is_some(), "the rack of 2 is lost");
    }
}
