//! Which replicas are to be checked because a reader complained. A complaint only schedules a check (S2), and not
//! twice within a while, so that complaints cannot keep a server's disks busy.

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_types::{ChunkId, ServerId};

/// A replica is checked at most this often on complaints.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Complaints remembered; further ones are dropped until old ones have gone.
const REMEMBERED_MAX: usize = 10_000;

/// Complaints that wait, and those that were acted on lately.
#[derive(Debug, Default)]
pub struct Verifying {
    waiting: Vec<(ServerId, ChunkId)>,
    lately: BTreeMap<(ServerId, ChunkId), Instant>,
}

impl Verifying {
    /// A reader complained. Whether a check was scheduled for it.
    pub fn complain(&mut self, server: ServerId, chunk: ChunkId, now: Instant) -> bool {
        if self.lately.len() >= REMEMBERED_MAX {
            self.lately.retain(|_, at| now.since(*at) < AGAIN_AFTER);
        }
        let recent = self.lately.get(&(server, chunk)).is_some_and(|at| now.since(*at) < AGAIN_AFTER);
        if recent || self.lately.len() >= REMEMBERED_MAX {
            return false;
        }
        self.lately.insert((server, chunk), now);
        self.waiting.push((server, chunk));
        true
    }

    /// Takes what waits.
    pub fn take(&mut self) -> Vec<(ServerId, ChunkId)> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_a_complaint_schedules_one_check_in_a_while() {
        let (mut verifying, server) = (Verifying::default(), ServerId::from_random(1));
        let at = |seconds| Instant(Duration::from_secs(seconds));
        assert!(verifying.complain(server, ChunkId(1), at(0)));
        assert!(!verifying.complain(server, ChunkId(1), at(59)));
        assert!(verifying.complain(server, ChunkId(2), at(59)));
        assert_eq!(verifying.take(), [(server, ChunkId(1)), (server, ChunkId(2))]);
        assert!(verifying.complain(server, ChunkId(1), at(60)));
        for chunk in 0..2 * REMEMBERED_MAX as u64 {
            verifying.complain(server, ChunkId(chunk), at(61));
        }
        assert!(verifying.waiting.len() <= REMEMBERED_MAX && verifying.lately.len() <= REMEMBERED_MAX);
    }
}
