//! What each replica of a chunk failed with, and whether trying again can help. Pure.

use std::collections::BTreeMap;

use quarry_proto::WireError;
use quarry_types::{ErrorCode, ReplicaState, ServerId};

use crate::ChunkInfo;

/// Rounds over all replicas after which bytes that are wrong everywhere count as lost.
const ROUNDS_CORRUPT: u32 = 2;
/// Rounds after which replicas that are not there or differ count as lost: a chunk that was sealed a moment ago is cut on
/// its members one after the other.
const ROUNDS_ABSENT: u32 = 6;

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It may.
    Hopeful,
    /// It cannot: every replica is known to be bad.
    Hopeless,
}

/// The last failure of each replica, over rounds of trying all of them.
#[derive(Debug, Default)]
pub(super) struct Failures {
    last: BTreeMap<ServerId, (String, WireError)>,
    rounds: u32,
}

impl Failures {
    pub(super) fn push(&mut self, server: ServerId, address: String, error: WireError) {
        self.last.insert(server, (address, error));
    }

    /// Rounds begun after the first.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(super) fn next_round(&mut self) {
        self.rounds += 1;
    }

    /// Judges after each replica of `chunk` was tried in this round.
    pub(super) fn judge(&self, chunk: &ChunkInfo) -> Judged {
        let mut limit = ROUNDS_CORRUPT;
        for replica in &chunk.replicas {
            if replica.state == ReplicaState::Quarantined {
                continue;
            }
            match self.last.get(&replica.server).map(|(_, error)| error.code) {
                Some(ErrorCode::Corrupt) => {}
                Some(ErrorCode::NoReplica | ErrorCode::Mismatch | ErrorCode::DiskFailed) => limit = ROUNDS_ABSENT,
                Some(_) | None => return Judged::Hopeful,
            }
        }
        // A master that began to lead a moment ago may not know yet where a chunk is.
        let known = !chunk.replicas.is_empty();
        if known && self.rounds + 1 >= limit { Judged::Hopeless } else { Judged::Hopeful }
    }

    /// The code for all of them.
    pub(super) fn code(&self, chunk: &ChunkInfo) -> ErrorCode {
        let codes = || self.last.values().map(|(_, error)| error.code);
        let quarantined = chunk.replicas.iter().any(|r| r.state == ReplicaState::Quarantined);
        if quarantined || codes().any(|code| code == ErrorCode::Corrupt) {
            return ErrorCode::Corrupt;
        }
        codes().next_back().unwrap_or(ErrorCode::Unavailable)
    }

    /// Each replica and what is wrong with it.
    pub(super) fn describe(&self, chunk: &ChunkInfo) -> String {
        let mut parts: Vec<String> = Vec::new();
        for replica in chunk.replicas.iter().filter(|r| r.state == ReplicaState::Quarantined) {
            parts.push(format!("{} at {}: quarantined after a failed check", replica.server, replica.address));
        }
        for (server, (address, error)) in &self.last {
            if !chunk.replicas.iter().any(|r| r.server == *server && r.state == ReplicaState::Quarantined) {
                parts.push(format!("{server} at {address}: {error}"));
            }
        }
        if parts.is_empty() {
            return "no chunkserver is known to have it".into();
        }
        format!("no replica can be read ({})", parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use quarry_types::{ChunkId, Crc32};

    use super::*;
    use crate::{ChunkState, ReplicaInfo};

    fn chunk(states: &[ReplicaState]) -> ChunkInfo {
        let replica = |(i, state): (usize, &ReplicaState)| ReplicaInfo {
            server: ServerId::from_random(i as u128),
            address: format!("h{i}:1"),
            rack: String::new(),
            state: *state,
            reachable: true,
        };
        let replicas = states.iter().enumerate().map(replica).collect();
        ChunkInfo { id: ChunkId(7), offset: 0, length: 5, crc: Crc32(1), state: ChunkState::Sealed, replicas }
    }

    fn fail(failures: &mut Failures, n: u128, code: ErrorCode) {
        failures.push(ServerId::from_random(n), format!("h{n}:1"), WireError::new(code, format!("{code}")));
    }

    #[test]
    fn wrong_bytes_everywhere_are_hopeless_after_asking_again() {
        let chunk = chunk(&[ReplicaState::Sealed, ReplicaState::Quarantined, ReplicaState::Sealed]);
        let mut failures = Failures::default();
        fail(&mut failures, 0, ErrorCode::Corrupt);
        fail(&mut failures, 2, ErrorCode::Corrupt);
        assert_eq!(failures.judge(&chunk), Judged::Hopeful);
        failures.next_round();
        assert_eq!(failures.judge(&chunk), Judged::Hopeless);
        assert_eq!(failures.code(&chunk), ErrorCode::Corrupt);
        let text = failures.describe(&chunk);
        assert!(["h0:1", "h1:1: quarantined", "h2:1: Corrupt"].iter().all(|part| text.contains(part)), "{text}");
    }

    #[test]
    fn a_server_that_is_away_may_come_back() {
        let chunk = chunk(&[ReplicaState::Sealed, ReplicaState::Sealed]);
        let mut failures = Failures::default();
        fail(&mut failures, 0, ErrorCode::Corrupt);
        fail(&mut failures, 1, ErrorCode::Unavailable);
        for _ in 0..100 {
            failures.next_round();
        }
        assert_eq!(failures.judge(&chunk), Judged::Hopeful);
    }

    #[test]
    fn a_chunk_without_known_replicas_is_not_given_up_at_once() {
        let mut failures = Failures::default();
        for _ in 0..100 {
            failures.next_round();
        }
        assert_eq!(failures.judge(&chunk(&[])), Judged::Hopeful);
        assert_eq!(failures.describe(&chunk(&[])), "no chunkserver is known to have it");
    }
}
