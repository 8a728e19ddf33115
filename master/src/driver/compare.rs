//! Compares what servers report with the records, and tells servers what follows.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt as _;
use quarry_env::Instant;
use quarry_master_core::{
    command::{Kind, RaiseIds, TrustServer},
    query::{self, ChunkRecord, ChunkView},
    reply::{RegisteredServer, Reply},
    rows::{ChunkState, Hold},
    settings::ORPHAN_GRACE,
};
use quarry_types::{Advice, ChunkId, Receipt, ReplicaState, ServerId};

use crate::{
    commit::{self, Sealed},
    driver::delete,
    error::Fault,
    locations::Replica,
    reconcile::{Action, compare, while_held},
    shared::{Leading, Shared, Soft},
};

/// Replicas of one server compared in one go.
const STEP: usize = 1024;
/// Seals in one command, and the bytes behind them that a server may have to read for it.
const SEALS_PER_COMMAND: usize = 128;
const BYTES_PER_COMMAND: u64 = 512 << 20;
/// Open chunks looked at in one go.
const OPEN_PAGE: usize = 1024;
/// Servers talked to at the same time.
const SERVERS_AT_ONCE: usize = 64;

/// What follows for one server.
#[derive(Default)]
struct Work {
    commit: Vec<(Sealed, bool)>,
    verify: Vec<(Sealed, bool)>,
    delete: Vec<ChunkId>,
    /// The highest id from beyond the counter.
    raise: Option<ChunkId>,
}

pub(super) async fn step(shared: &Shared, leading: &Leading) -> Result<bool, Fault> {
    complaints(shared, leading).await?;
    let servers: Vec<ServerId> = {
        let soft = leading.soft();
        // Only what came in a full report after the server adopted this leadership is compared (S6).
        let known = soft.locations.servers().filter(|s| soft.locations.number(*s).is_some());
        known.filter(|s| leading.dispatch.reaches(*s)).collect()
    };
    let (grace, held) = shared
        .peek(|tables| Ok((query::settings(tables)?.duration(&ORPHAN_GRACE), query::hold(tables)?.is_some())))
        .await?;
    leading.set_held(held);
    let more: Vec<Result<bool, Fault>> = futures::stream::iter(servers)
        .map(|server| one_server(shared, leading, server, grace))
        .buffer_unordered(SERVERS_AT_ONCE)
        .collect()
        .await;
    more.into_iter().try_fold(false, |any, more| Ok(any | more?))
}

/// Whether there is more to compare at once.
async fn one_server(shared: &Shared, leading: &Leading, server: ServerId, grace: Duration) -> Result<bool, Fault> {
    let replicas = due(&mut leading.soft(), server, shared.now(), grace);
    let full = replicas.len() == STEP;
    if !replicas.is_empty() {
        let chunks: Vec<ChunkId> = replicas.iter().map(|(chunk, _)| *chunk).collect();
        let looked_up = shared
            .peek(move |tables| {
                let records = chunks.into_iter().map(|id| query::chunk(tables, id)).collect::<Result<Vec<_>, _>>()?;
                Ok((records, query::counters(tables)?.next_chunk, query::hold(tables)?))
            })
            .await;
        let (records, next_chunk, hold) = match looked_up {
            Ok(found) => found,
            Err(error) => {
                let mut soft = leading.soft();
                replicas.iter().for_each(|(chunk, _)| soft.locations.compare_again(server, *chunk));
                return Err(error);
            }
        };
        let mut work = decide(leading, server, replicas, records, next_chunk, hold.as_ref());
        keep_young_orphans(&mut leading.soft(), server, &mut work.delete, shared.now(), grace);
        carry_out(shared, leading, server, work).await;
    }
    settle_doubt(shared, leading, server).await?;
    Ok(full)
}

/// What is to be compared: what changed or was not looked at yet, and orphans whose grace is over.
fn due(soft: &mut Soft, server: ServerId, now: Instant, grace: Duration) -> Vec<(ChunkId, Replica)> {
    for chunk in soft.orphans.ripe(server, now, grace, STEP) {
        match soft.locations.replica(server, chunk) {
            Some(_) => soft.locations.compare_again(server, chunk),
            None => soft.orphans.forget(server, chunk),
        }
    }
    if soft.orphans.room_again(server) {
        soft.locations.compare_all_again(server);
    }
    soft.locations.due(server, STEP)
}

/// Orphans are deleted only after this leader has seen them for a while: what looks like one by a mistake of ours can
/// then still be noticed.
fn keep_young_orphans(soft: &mut Soft, server: ServerId, orphans: &mut Vec<ChunkId>, now: Instant, grace: Duration) {
    orphans.retain(|chunk| soft.orphans.seen(server, *chunk, now, grace));
}

fn decide(
    leading: &Leading,
    server: ServerId,
    replicas: Vec<(ChunkId, Replica)>,
    records: Vec<Option<ChunkRecord>>,
    next_chunk: u64,
    hold: Option<&Hold>,
) -> Work {
    let mut work = Work::default();
    let soft = leading.soft();
    for ((chunk, replica), record) in replicas.into_iter().zip(records) {
        let doubted = soft.locations.doubts(server, chunk);
        let mut action = compare(chunk, server, &replica, doubted, record.as_ref(), next_chunk);
        if let Some(hold) = hold {
            action = while_held(action, hold, chunk, &replica, record.as_ref().map_or(0, |record| record.length));
        }
        let sealed = record
            .map(|record| (Sealed { chunk, length: record.length, crc: record.crc }, record.holders.contains(&server)));
        match (action, sealed) {
            (Action::CommitSeal, Some(sealed)) => work.commit.push(sealed),
            (Action::Verify, Some(sealed)) => work.verify.push(sealed),
            (Action::Delete, _) => work.delete.push(chunk),
            (Action::Alarm, _) => tracing::error!(
                %server, %chunk, next_chunk,
                "a chunkserver holds a chunk that this cluster never gave out: this master lacks history; nothing is deleted"
            ),
            (Action::Raise, _) => work.raise = work.raise.max(Some(chunk)),
            (Action::Nothing | Action::CommitSeal | Action::Verify, _) => {}
        }
    }
    work
}

async fn carry_out(shared: &Shared, leading: &Leading, server: ServerId, work: Work) {
    if let Some(chunk) = work.raise {
        raise(shared, leading, server, chunk).await;
    }
    for (list, verify) in [(work.commit, false), (work.verify, true)] {
        for some in batches(&list) {
            tell(shared, leading, server, some, verify).await;
        }
    }
    for some in work.delete.chunks(delete::CHUNKS_PER_COMMAND) {
        tracing::warn!(%server, chunks = some.len(), first = ?some.first(), "orphans are deleted: their chunks are known no more");
        match delete::send(leading, server, some).await {
            Ok(deleted) => deleted.iter().for_each(|chunk| leading.soft().orphans.forget(server, *chunk)),
            Err(error) => {
                tracing::info!(%server, %error, "orphans are not deleted yet");
                some.iter().for_each(|chunk| leading.soft().locations.compare_again(server, *chunk));
            }
        }
    }
}

/// Makes sure that an id from beyond the counter is not given out again.
async fn raise(shared: &Shared, leading: &Leading, server: ServerId, chunk: ChunkId) {
    match shared.propose(Kind::RaiseIds(RaiseIds { chunk })).await {
        Ok(_) => {
            tracing::warn!(%server, %chunk, "a chunkserver has a chunk from beyond the counter: ids go on behind it")
        }
        Err(error) => {
            tracing::error!(%server, %chunk, %error, "a chunkserver has a chunk from beyond the counter");
            if error.code.advice() == Advice::Retry {
                leading.soft().locations.compare_again(server, chunk);
            }
        }
    }
}

/// Cuts a list so that no command makes a server read for too long.
fn batches(list: &[(Sealed, bool)]) -> Vec<&[(Sealed, bool)]> {
    let (mut cut, mut from, mut bytes) = (Vec::new(), 0, 0u64);
    for (at, (seal, _)) in list.iter().enumerate() {
        if at > from && (at - from == SEALS_PER_COMMAND || bytes + seal.length > BYTES_PER_COMMAND) {
            cut.extend(list.get(from..at));
            (from, bytes) = (at, 0);
        }
        bytes += seal.length;
    }
    cut.extend(list.get(from..).filter(|rest| !rest.is_empty()));
    cut
}

async fn tell(shared: &Shared, leading: &Leading, server: ServerId, some: &[(Sealed, bool)], verify: bool) {
    let seals: Vec<Sealed> = some.iter().map(|(seal, _)| *seal).collect();
    let answers = match commit::tell(shared, leading, server, &seals, verify).await {
        Ok(answers) => answers,
        Err(error) => {
            tracing::debug!(%server, %error, "seals are not committed there yet");
            some.iter().for_each(|(seal, _)| leading.soft().locations.compare_again(server, seal.chunk));
            return;
        }
    };
    for (seal, known) in some {
        settle(shared, leading, server, seal.chunk, *known, &answers).await;
    }
}

async fn settle(
    shared: &Shared,
    leading: &Leading,
    server: ServerId,
    chunk: ChunkId,
    known: bool,
    answers: &BTreeMap<ChunkId, Result<Receipt, Fault>>,
) {
    match answers.get(&chunk) {
        Some(Ok(_)) => {
            leading.soft().locations.verified(server, chunk);
            if !known {
                commit::record(shared, chunk, vec![server]).await;
            }
        }
        Some(Err(error)) => {
            tracing::info!(%server, %chunk, code = %error.code, %error, "a replica does not agree with its chunk's seal");
            // A server that is only busy is told again; one that cannot agree reports the replica as quarantined.
            if error.code.advice() == Advice::Retry {
                leading.soft().locations.compare_again(server, chunk);
            }
        }
        None => {}
    }
}

/// Readers complained: the servers check.
async fn complaints(shared: &Shared, leading: &Leading) -> Result<(), Fault> {
    let mut by_server: BTreeMap<ServerId, Vec<ChunkId>> = BTreeMap::new();
    for (server, chunk) in leading.soft().verifying.take() {
        by_server.entry(server).or_default().push(chunk);
    }
    for (server, chunks) in by_server {
        let seals = shared
            .peek(move |tables| {
                let mut seals = Vec::new();
                for chunk in chunks {
                    let record = query::chunk(tables, chunk)?.filter(|r| r.state == ChunkState::Sealed);
                    // The holder is known already: a receipt confirms nothing new.
                    seals.extend(record.map(|r| (Sealed { chunk, length: r.length, crc: r.crc }, true)));
                }
                Ok(seals)
            })
            .await?;
        for some in batches(&seals) {
            tell(shared, leading, server, some, true).await;
        }
    }
    Ok(())
}

/// A server that came back with an old image counts again once everything on it was compared.
async fn settle_doubt(shared: &Shared, leading: &Leading, server: ServerId) -> Result<(), Fault> {
    let start = {
        let soft = leading.soft();
        let settled = soft.locations.is_doubt_settled(server);
        soft.servers.get(server).filter(|_| settled).map(|s| s.start)
    };
    let Some(start) = start else { return Ok(()) };
    if may_shorten(shared, leading, server).await? {
        return Ok(());
    }
    let trusts = Kind::TrustServer(TrustServer { server, start_counter: start.counter, start_id: start.id });
    let Reply::Server(RegisteredServer { old_image: false }) = shared.propose(trusts).await? else { return Ok(()) };
    let mut soft = leading.soft();
    // It may have started again meanwhile, from another image.
    if soft.servers.get(server).is_some_and(|now| now.start == start) {
        soft.locations.trust(server);
        tracing::info!(%server, "everything on the old image was verified: the server counts again");
    }
    Ok(())
}

/// Whether what the server says of the end of an open chunk must not count yet.
async fn may_shorten(shared: &Shared, leading: &Leading, server: ServerId) -> Result<bool, Fault> {
    let mut after = None;
    loop {
        let page = shared.peek(move |tables| Ok(query::open_chunks(tables, after, OPEN_PAGE)?)).await?;
        if is_older_than_one(&leading.soft(), server, &page) {
            return Ok(true);
        }
        match page.last() {
            Some(last) if page.len() == OPEN_PAGE => after = Some(last.id),
            _ => return Ok(false),
        }
    }
}

/// Whether the server may have written one of these open chunks before its disk became an old image. It would call the chunk
/// shorter than what it acknowledged, or unknown, and the seal would cut what was flushed (S1). Those that are open on it came
/// after the image: a start fences what it finds.
fn is_older_than_one(soft: &Soft, server: ServerId, open: &[ChunkView]) -> bool {
    let is_written =
        |chunk| soft.locations.replica(server, chunk).is_some_and(|replica| replica.state == ReplicaState::Open);
    open.iter().any(|chunk| chunk.record.members.contains(&server) && !is_written(chunk.id))
}

#[cfg(test)]
mod tests {
    use quarry_types::{Crc32, InodeId};

    use super::*;

    #[test]
    fn s6_an_orphan_is_looked_at_again_when_its_grace_is_over_and_deleted_only_then() {
        let (server, chunk, grace) = (ServerId::from_random(1), ChunkId(5), Duration::from_secs(60));
        let mut soft = Soft::new(quarry_types::ClusterKey::new([7; 32]));
        let replica = Replica { state: quarry_types::ReplicaState::Sealed, length: 1, crc: Crc32(7) };
        soft.locations.full_report(server, 1, [(chunk, replica)].into());
        let mut step = |seconds| {
            let now = Instant(Duration::from_secs(seconds));
            let mut orphans: Vec<ChunkId> = due(&mut soft, server, now, grace).iter().map(|(c, _)| *c).collect();
            let looked = orphans.len();
            keep_young_orphans(&mut soft, server, &mut orphans, now, grace);
            (looked, orphans)
        };
        assert_eq!(step(0), (1, vec![]));
        assert_eq!(step(59), (0, vec![]), "nothing is compared over and over");
        assert_eq!(step(60), (1, vec![chunk]));
    }

    #[test]
    fn s11_an_old_image_stays_in_doubt_while_a_chunk_is_open_that_may_be_older() {
        let [server, other] = [1, 2].map(ServerId::from_random);
        let open = |n: u64, members: &[ServerId]| ChunkView {
            id: ChunkId(n),
            record: ChunkRecord {
                inode: InodeId(2),
                offset: 0,
                state: ChunkState::Open,
                length: 0,
                crc: Crc32::EMPTY,
                limit: 1000,
                wanted: 2,
                members: members.to_vec(),
                holders: Vec::new(),
            },
        };
        let mut soft = Soft::new(quarry_types::ClusterKey::new([7; 32]));
        soft.locations.registered(server, true);
        let held = |state| Replica { state, length: 10, crc: Crc32(7) };
        let on_it = [(ChunkId(5), held(ReplicaState::Fenced)), (ChunkId(7), held(ReplicaState::Open))];
        soft.locations.full_report(server, 1, on_it.into());
        let is_older = |open: &[ChunkView]| is_older_than_one(&soft, server, open);
        assert!(is_older(&[open(4, &[other]), open(5, &[other, server])]), "it was cut short by the image");
        assert!(is_older(&[open(6, &[server])]), "it is not in the image");
        assert!(!is_older(&[open(4, &[other]), open(7, &[server, other])]), "it began after the image");
        assert!(!is_older(&[]));
    }

    #[test]
    fn s9_no_command_makes_a_server_read_for_too_long() {
        let seal = |n: u64, length| (Sealed { chunk: ChunkId(n), length, crc: Crc32(0) }, false);
        let large: Vec<_> = (0..20).map(|n| seal(n, 64 << 20)).collect();
        let cut = batches(&large);
        assert!(cut.iter().all(|some| some.iter().map(|(s, _)| s.length).sum::<u64>() <= BYTES_PER_COMMAND));
        assert_eq!(cut.iter().map(|some| some.len()).sum::<usize>(), 20);
        let small: Vec<_> = (0..300).map(|n| seal(n, 1)).collect();
        assert_eq!(batches(&small).iter().map(|some| some.len()).collect::<Vec<_>>(), [128, 128, 44]);
        assert!(batches(&[]).is_empty());
    }
}
