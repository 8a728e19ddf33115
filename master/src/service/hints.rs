//! Where chunks are by the replicated state alone, for a master that does not lead: chunkservers report to the leader only.
//!
//! | chunk | hints |
//! |---|---|
//! | sealed | the servers whose receipts were recorded, else the members that it was written with |
//! | open | its members, as the leader says as well before they report. How far it can be read they know, and nothing that they let be read is cut by a seal |
//! | doomed | none: its replicas are being deleted |
//!
//! A hint may be wrong: a replica was dropped, moved or quarantined since, or its server is dead. That costs the reader a
//! try, never wrong bytes: servers refuse what is not exactly what was asked for, quarantined replicas too, and readers
//! verify what they get (S2, S3). When all hints fail they ask the leader.

use std::collections::BTreeMap;

use quarry_master_core::{
    query::ChunkView,
    rows::{ChunkState, Server},
};
use quarry_proto::v1;
use quarry_types::{ReplicaState, ServerId};

use super::locate::{chunk_info, spread};

/// What can be said of these chunks; `chance` spreads readers over the replicas.
pub(super) fn hinted(chunks: &[ChunkView], remembered: &BTreeMap<ServerId, Server>, chance: u64) -> Vec<v1::ChunkInfo> {
    chunks.iter().map(|chunk| chunk_info(chunk, hints(chunk, remembered, chance))).collect()
}

fn hints(chunk: &ChunkView, remembered: &BTreeMap<ServerId, Server>, chance: u64) -> Vec<v1::ReplicaInfo> {
    let record = &chunk.record;
    let (servers, state): (&[ServerId], _) = match record.state {
        // Not every member confirmed the seal yet: what it has agrees, or is refused.
        ChunkState::Sealed if record.holders.is_empty() => (&record.members, ReplicaState::Fenced),
        ChunkState::Sealed => (&record.holders, ReplicaState::Sealed),
        ChunkState::Open => (&record.members, ReplicaState::Open),
        ChunkState::Doomed => (&[], ReplicaState::Open),
    };
    // A server without a row has no address to ask at.
    let mut known: Vec<(ServerId, &Server)> =
        servers.iter().filter_map(|server| Some((*server, remembered.get(server)?))).collect();
    known.sort_by_key(|(server, _)| spread(*server, chunk.id, chance));
    let hint = |(server, row): (ServerId, &Server)| v1::ReplicaInfo {
        server: server.to_bytes().into(),
        address: row.address.clone(),
        rack: row.rack.clone(),
        state: v1::ReplicaState::from(state).into(),
        // Nothing is known against it.
        reachable: true,
    };
    known.into_iter().map(hint).collect()
}

#[cfg(test)]
mod tests {
    use quarry_master_core::{
        command::{Durability, ServerWish, Verdict},
        query::ChunkRecord,
    };
    use quarry_types::{ChunkId, Crc32, InodeId};

    use super::*;

    fn server(n: u128) -> ServerId {
        ServerId::from_random(n)
    }

    fn told(state: ChunkState, members: &[u128], holders: &[u128]) -> Vec<(String, v1::ReplicaState)> {
        let servers = |numbers: &[u128]| numbers.iter().map(|n| server(*n)).collect();
        let record = ChunkRecord {
            inode: InodeId(3),
            offset: 0,
            state,
            length: 5,
            crc: Crc32(1),
            limit: 10,
            wanted: 3,
            members: servers(members),
            holders: servers(holders),
        };
        let row = |n: u128| Server {
            address: format!("h{n}:1"),
            rack: "r".into(),
            start_counter: 1,
            durability: Durability::Sealed,
            old_image: false,
            wish: ServerWish::Active,
            maintenance_until_ms: 0,
            automatic: false,
            verdict: Verdict::Alive,
            start_id: 1,
            first_chunk: ChunkId(1),
        };
        let remembered = (1..=3).map(|n| (server(n), row(n))).collect();
        let chunks = hinted(&[ChunkView { id: ChunkId(7), record }], &remembered, 5);
        let mut found: Vec<_> = chunks[0].replicas.iter().map(|r| (r.address.clone(), r.state())).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    #[test]
    fn a_master_that_hears_no_chunkserver_names_those_that_the_record_names() {
        let named = |names: &[&str], state| names.iter().map(|n| ((*n).to_owned(), state)).collect::<Vec<_>>();
        assert_eq!(
            told(ChunkState::Sealed, &[1, 2], &[2, 3]),
            named(&["h2:1", "h3:1"], v1::ReplicaState::Sealed),
            "who is recorded as a holder, not who wrote it"
        );
        assert_eq!(told(ChunkState::Sealed, &[1, 2], &[]), named(&["h1:1", "h2:1"], v1::ReplicaState::Fenced));
        assert_eq!(told(ChunkState::Open, &[1, 2, 9], &[]), named(&["h1:1", "h2:1"], v1::ReplicaState::Open));
        assert_eq!(told(ChunkState::Doomed, &[1, 2], &[1, 2]), []);
    }
}
