//! What happens next: a heap of events in virtual time. Events of one moment happen in the order in which they were planned.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::units::Micros;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The leader's look and decisions.
    Tick,
    /// The detector is asked.
    Consult,
    /// A step of balancing.
    Balance,
    /// A copy has all its bytes, if it is still in this turn.
    Copied {
        /// Which.
        flow: u32,
        /// See [`crate::model::network::Flow::turn`].
        turn: u32,
    },
    /// A copy whose other end is gone is given up.
    Abandoned {
        /// Which.
        flow: u32,
        /// See [`crate::model::network::Flow::turn`].
        turn: u32,
    },
    /// A replica that was to be dropped is.
    Dropped {
        /// Of this chunk.
        chunk: u32,
        /// Whose.
        server: u16,
    },
    /// A peer has reached a suspect.
    Reached {
        /// The suspect.
        server: u16,
    },
    /// A server's full report has come.
    Reported {
        /// Whose.
        server: u16,
        /// In this registration.
        registration: u32,
    },
    /// A server notices that a disk is gone.
    DiskNoticed {
        /// Whose.
        server: u16,
        /// Which.
        disk: u8,
    },
    /// A replica is read by scrubbing.
    Scrubbed {
        /// Of this chunk.
        chunk: u32,
        /// Whose.
        server: u16,
    },
    /// What goes wrong by chance goes wrong again.
    Chance(u8),
    /// An event of the scenario.
    Planned(u32),
    /// What went wrong is over, or changes.
    Mends(u32),
    /// A maintenance has run out.
    MaintenanceEnds {
        /// Whose.
        server: u16,
    },
    /// A client writes a chunk.
    Write,
}

/// What is planned.
#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    planned: u64,
}

impl Agenda {
    /// Plans an event.
    pub fn plan(&mut self, at: Micros, event: Event) {
        self.heap.push(Reverse((at, self.planned, event)));
        self.planned += 1;
    }

    /// The next event not later than `until`.
    pub fn next(&mut self, until: Micros) -> Option<(Micros, Event)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > until {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_time_and_those_of_one_moment_as_planned() {
        let mut agenda = Agenda::default();
        agenda.plan(5, Event::Write);
        agenda.plan(5, Event::Tick);
        agenda.plan(3, Event::Consult);
        agenda.plan(9, Event::Balance);
        let all: Vec<_> = std::iter::from_fn(|| agenda.next(8)).collect();
        assert_eq!(all, [(3, Event::Consult), (5, Event::Write), (5, Event::Tick)]);
        assert_eq!(agenda.next(9), Some((9, Event::Balance)));
    }
}
