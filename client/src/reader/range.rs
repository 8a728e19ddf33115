//! A range of one chunk, read from whichever replica is good.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::{StreamExt as _, stream::FuturesUnordered};
use quarry_env::Instant;
use quarry_proto::WireError;
use quarry_types::{ChunkId, ErrorCode, ReplicaState, ServerId, limits::BLOCK_BYTES};

use super::{
    Opened,
    conversation::{Conversation, Next, Verified, Wanted},
    failures::{Failures, Judged},
    whole::{Verdict, WholeCheck},
};
use crate::{ChunkInfo, ChunkState, ClientError, ReplicaInfo, pool::Target, retry::Backoff};

/// A conversation that was not attended to for this long is begun anew: the server may have given up on it.
const UNATTENDED_MAX: Duration = Duration::from_secs(10);
/// Replicas asked at once for one range.
const HEDGES_MAX: usize = 2;

/// Reads one range of one chunk to its end.
pub(super) struct RangeReader {
    file: Arc<Opened>,
    chunk: ChunkInfo,
    /// What was delivered, and where the range ends, in the chunk.
    at: u64,
    to: u64,
    /// The same reader reads another range of the chunk at the same time.
    beside: bool,
    /// Verified blocks that were not handed out yet, cut to what is new.
    ready: VecDeque<Verified>,
    talk: Option<(ServerId, Conversation)>,
    /// Where the conversation stands, in the chunk: before `at` only while a chunk is checked again.
    received: u64,
    /// Present while the range is a whole sealed chunk.
    whole: Option<WholeCheck>,
    tried: BTreeSet<ServerId>,
    failures: Failures,
    failing_since: Option<Instant>,
    backoff: Backoff,
    attended: Instant,
}

/// How a replica ended before the end of a range. It may have sent less than it says it has.
fn ended_early(readable: u64, sent: u64, needed: u64) -> String {
    if readable < needed {
        return format!("has {readable} readable bytes of the chunk, {needed} are needed");
    }
    format!("stopped at byte {sent} of the chunk, {needed} are needed, although it says that {readable} are readable")
}

impl RangeReader {
    /// Reads `from..to` of `chunk`.
    pub(super) fn new(file: &Arc<Opened>, chunk: ChunkInfo, from: u64, to: u64) -> Self {
        let sealed = chunk.state != ChunkState::Open;
        let whole = (sealed && from == 0 && to == chunk.length).then(WholeCheck::default);
        RangeReader {
            file: Arc::clone(file),
            at: from,
            to,
            beside: false,
            ready: VecDeque::new(),
            talk: None,
            received: from,
            whole,
            tried: BTreeSet::new(),
            failures: Failures::default(),
            failing_since: None,
            backoff: Backoff::default(),
            attended: file.shared.world.clock.now(),
            chunk,
        }
    }

    /// The same for who compares the chunk as a whole himself.
    pub(super) fn unjudged(file: &Arc<Opened>, chunk: ChunkInfo, from: u64, to: u64, beside: bool) -> Self {
        RangeReader { whole: None, beside, ..RangeReader::new(file, chunk, from, to) }
    }

    /// Reads a whole sealed chunk again whose blocks do not make its CRC. `whole` has them, and of their bytes the first `delivered` were handed out.
    pub(super) fn again(file: &Arc<Opened>, chunk: ChunkInfo, mut whole: WholeCheck, delivered: u64) -> Self {
        whole.restart(delivered);
        let length = chunk.length;
        RangeReader { whole: Some(whole), at: delivered, ..RangeReader::new(file, chunk, 0, length) }
    }

    pub(super) fn chunk(&self) -> ChunkId {
        self.chunk.id
    }

    pub(super) fn is_beside(&self) -> bool {
        self.beside
    }

    /// The next verified bytes, or `None` at the end of the range.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        Ok(self.next_blocks().await?.map(|verified| verified.bytes))
    }

    /// The same with the CRCs of the blocks in which the bytes lie.
    pub(super) async fn next_blocks(&mut self) -> Result<Option<Verified>, ClientError> {
        if self.file.shared.world.clock.now().since(self.attended) > UNATTENDED_MAX {
            self.talk = None;
        }
        let next = self.next_verified().await;
        self.attended = self.file.shared.world.clock.now();
        next
    }

    async fn next_verified(&mut self) -> Result<Option<Verified>, ClientError> {
        loop {
            if let Some(verified) = self.ready.pop_front() {
                self.file.counters.bytes_received.fetch_add(verified.bytes.len() as u64, Ordering::Relaxed);
                return Ok(Some(verified));
            }
            if self.at >= self.to {
                self.end().await;
                return Ok(None);
            }
            let shared = Arc::clone(&self.file.shared);
            let Some((server, talk)) = &mut self.talk else {
                self.begin().await?;
                continue;
            };
            let server = *server;
            match talk.next(&shared).await {
                Ok(next) => self.take(server, next)?,
                Err(error) => self.failed(server, error),
            }
        }
    }

    /// Behind the last bytes comes the end, and then the connection can be used again. Dropping the reader instead closes it.
    pub(super) async fn end(&mut self) {
        let Some((_, mut talk)) = self.talk.take() else { return };
        let shared = &self.file.shared;
        if let Ok(Next::End(_)) = talk.next(shared).await {
            talk.finish(shared);
        }
    }

    fn take(&mut self, server: ServerId, next: Next) -> Result<(), ClientError> {
        match next {
            Next::Data(verified) => self.accept(server, verified),
            Next::Anew => {
                self.talk = None;
                Ok(())
            }
            Next::End(readable) => {
                // A sealed replica that ends early is wrong; of an open one other members may have more.
                let code =
                    if self.chunk.state == ChunkState::Open { ErrorCode::Unavailable } else { ErrorCode::Corrupt };
                let message = ended_early(readable, self.received, self.to);
                self.failed(server, WireError::new(code, message));
                Ok(())
            }
        }
    }

    /// Hands out what is new in `verified`, unless it ends a whole chunk that is not the recorded one.
    fn accept(&mut self, server: ServerId, verified: Verified) -> Result<(), ClientError> {
        let Verified { offset, mut bytes, crcs } = verified;
        let end = offset + bytes.len() as u64;
        self.received = end;
        self.failing_since = None;
        if matches!(self.talk, Some((_, Conversation::Local(_)))) {
            self.file.counters.local_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        if let Some(whole) = &mut self.whole {
            whole.push(&crcs, bytes.len() as u64);
        }
        let low = self.at.clamp(offset, end);
        bytes.advance((low - offset) as usize);
        bytes.truncate((self.to.clamp(low, end) - low) as usize);
        if self.whole.as_ref().is_some_and(|whole| whole.bytes() >= self.chunk.length) {
            match self.judge() {
                Verdict::Right => {}
                Verdict::WrongReplica => {
                    let message = format!("its blocks do not make the recorded CRC {}", self.chunk.crc);
                    self.failed(server, WireError::new(ErrorCode::Corrupt, message));
                    return Ok(());
                }
                Verdict::WrongBefore => {
                    let message = "bytes that were read before are not those of the chunk: a replica was wrong in a way \
                                   that only the whole chunk shows; discard what was read and read again";
                    return Err(self.error(ErrorCode::Corrupt, message));
                }
            }
        }
        if !bytes.is_empty() {
            self.at += bytes.len() as u64;
            let (first, last) =
                ((low - offset) / BLOCK_BYTES, (low - offset + bytes.len() as u64).div_ceil(BLOCK_BYTES));
            let crcs = crcs.get(first as usize..last as usize).unwrap_or_default().to_vec();
            self.ready.push_back(Verified { offset: low, bytes, crcs });
        }
        Ok(())
    }

    fn judge(&self) -> Verdict {
        self.whole.as_ref().map_or(Verdict::Right, |whole| whole.judge(self.chunk.length, self.chunk.crc))
    }

    /// Notes that `server` failed; reading goes on with another.
    fn failed(&mut self, server: ServerId, error: WireError) {
        let file = &self.file;
        let now = file.shared.world.clock.now();
        self.talk = None;
        self.tried.insert(server);
        self.failing_since.get_or_insert(now);
        file.counters.failovers.fetch_add(1, Ordering::Relaxed);
        if let Some(whole) = &mut self.whole
            && whole.bytes() >= self.chunk.length
        {
            // Which of the replicas read from is wrong is unknown: read all of it again from another.
            whole.restart(self.at);
            self.received = 0;
        }
        tracing::info!(chunk = %self.chunk.id, %server, code = %error.code, error = error.message, "a replica failed");
        match error.code {
            ErrorCode::Corrupt => {
                file.counters.corrupt.fetch_add(1, Ordering::Relaxed);
                file.report(self.chunk.id, server, error.code);
            }
            ErrorCode::NoReplica | ErrorCode::DiskFailed => file.report(self.chunk.id, server, error.code),
            ErrorCode::Mismatch | ErrorCode::Busy | ErrorCode::Fenced => {}
            _ => file.shared.server_failed(server),
        }
        let address = self.chunk.replicas.iter().find(|r| r.server == server).map(|r| r.address.clone());
        self.failures.push(server, address.unwrap_or_default(), error);
    }

    /// Begins a conversation with the best replica that was not tried, or asks the master again.
    async fn begin(&mut self) -> Result<(), ClientError> {
        let candidates = self.candidates();
        if candidates.is_empty() {
            return self.refresh().await;
        }
        let (file, chunk, from, to) = (Arc::clone(&self.file), self.chunk.clone(), self.received, self.to);
        let beside = self.beside;
        let mut waiting: VecDeque<ReplicaInfo> = candidates.into();
        let mut running = FuturesUnordered::new();
        let start = file.shared.world.clock.now();
        let mut hedge = file.shared.world.clock.sleep(file.shared.first_byte.patience());
        let mut hedged = false;
        let ask = |replica: ReplicaInfo| {
            let (shared, wanted) = (&file.shared, Wanted { chunk: &chunk, from, to, beside });
            let target = Target { cluster: file.cluster, server: replica.server, address: replica.address };
            async move { (target.server, Conversation::begin(shared, &target, wanted).await) }
        };
        running.extend(waiting.pop_front().map(&ask));
        loop {
            tokio::select! {
                biased;
                answer = running.next() => match answer {
                    Some((server, Ok((talk, next)))) => {
                        file.shared.server_succeeded(server);
                        file.shared.first_byte.took(file.shared.world.clock.now().since(start));
                        drop(running);
                        self.talk = Some((server, talk));
                        return self.take(server, next);
                    }
                    Some((server, Err(error))) => {
                        self.failed(server, error);
                        if running.is_empty() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                () = &mut hedge, if !hedged => {
                    hedged = true;
                    if running.len() < HEDGES_MAX && let Some(replica) = waiting.pop_front() {
                        file.counters.hedges.fetch_add(1, Ordering::Relaxed);
                        running.push(ask(replica));
                    }
                }
            }
        }
    }

    /// Replicas to be asked, best first.
    fn candidates(&self) -> Vec<ReplicaInfo> {
        let usable = |r: &&ReplicaInfo| r.state != ReplicaState::Quarantined && !self.tried.contains(&r.server);
        let mut candidates: Vec<ReplicaInfo> = self.chunk.replicas.iter().filter(usable).cloned().collect();
        // The master's order stays among equals.
        candidates.sort_by_key(|r| {
            let behind = self.chunk.state != ChunkState::Open && r.state == ReplicaState::Open;
            (!r.reachable, behind, !self.file.shared.breaker_allows(r.server))
        });
        candidates
    }

    /// Every replica failed: asks the master where the chunk is now, and says so when that does not help either.
    async fn refresh(&mut self) -> Result<(), ClientError> {
        let (world, patience) = (&self.file.shared.world, self.file.shared.config.deadline);
        let now = world.clock.now();
        let late = now.since(*self.failing_since.get_or_insert(now)) >= patience;
        if late || self.failures.judge(&self.chunk) == Judged::Hopeless {
            return Err(self.error(self.failures.code(&self.chunk), &self.failures.describe(&self.chunk)));
        }
        if self.failures.rounds() > 0 {
            world.clock.sleep(self.backoff.pause(world.random.next_u64())).await;
        }
        self.failures.next_round();
        let fresh = self.file.relocate(self.chunk.offset).await?;
        if fresh.id != self.chunk.id {
            let message = format!("chunk {} stands where it was; open the file again", fresh.id);
            return Err(self.error(ErrorCode::NotFound, &message));
        }
        if self.chunk.state == ChunkState::Open && fresh.state == ChunkState::Sealed && fresh.length < self.to {
            let message = format!("it was sealed at {} bytes, before what was to be read", fresh.length);
            return Err(self.error(ErrorCode::Corrupt, &message));
        }
        self.chunk = fresh;
        self.tried.clear();
        Ok(())
    }

    fn error(&self, code: ErrorCode, what: &str) -> ClientError {
        let ChunkInfo { id, offset, .. } = &self.chunk;
        let doing = format!("reading {}", self.file.info.path);
        ClientError::new(code, doing, format!("chunk {id} (at file offset {offset}): {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_stops_early_is_not_said_to_lack_what_it_has() {
        assert_eq!(ended_early(5, 5, 7400), "has 5 readable bytes of the chunk, 7400 are needed");
        let said = ended_early(7400, 0, 7400);
        assert!(said.contains("stopped at byte 0") && said.contains("although"), "{said}");
    }
}
