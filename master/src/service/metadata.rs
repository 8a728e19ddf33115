//! What does not match between the namespace and what chunkservers have reported, and letting a hold go.

use std::collections::BTreeSet;

use quarry_master_core::{
    command::{Kind, ReleaseHold},
    detector::Health,
    query::{self, ChunkView},
    repair::Quality,
    rows::{ChunkState, Hold},
};
use quarry_proto::v1;
use quarry_types::{ChunkId, ErrorCode, ServerId};

use super::Service;
use crate::{
    error::{Fault, fault},
    lookups, repairing,
    shared::{Leading, Soft},
};

/// Chunks or replicas looked at for one page.
const STEP: usize = 1000;
/// Servers named in a refusal.
const NAMED: usize = 5;

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Chunks of the namespace behind this one.
    Chunks(ChunkId),
    /// Replicas of this server from this chunk on.
    Replicas(ServerId, ChunkId),
}

impl Place {
    fn to_token(self) -> Vec<u8> {
        match self {
            Place::Chunks(after) => [&[0][..], &after.0.to_be_bytes()].concat(),
            Place::Replicas(server, from) => [&[1][..], &server.to_bytes(), &from.0.to_be_bytes()].concat(),
        }
    }

    fn from_token(token: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| Some(ChunkId(u64::from_be_bytes(bytes.try_into().ok()?)));
        match token.split_first() {
            None => Some(Place::Chunks(ChunkId(0))),
            Some((0, after)) => Some(Place::Chunks(number(after)?)),
            Some((1, rest)) => {
                let (server, from) = rest.split_at_checked(16)?;
                Some(Place::Replicas(ServerId::from_bytes(server)?, number(from)?))
            }
            Some(_) => None,
        }
    }
}

impl Service {
    /// A page of what does not match. Each page is what it was when the page was made.
    pub async fn verify_metadata(&self, token: &[u8]) -> Result<v1::VerifyMetadataReply, Fault> {
        let leading = self.shared.leading()?;
        let place = Place::from_token(token)
            .ok_or_else(|| fault(ErrorCode::InvalidArgument, "field token was not given out by a master"))?;
        let (next_chunk, held) = self
            .shared
            .read(|tables| Ok((query::counters(tables)?.next_chunk, query::hold(tables)?.is_some())))
            .await?;
        let mut reply = v1::VerifyMetadataReply {
            held,
            next_chunk,
            lineage_number: leading.leadership.lineage.number,
            unreported: unreported(&leading.soft()).into_iter().map(|server| server.to_bytes().into()).collect(),
            ..Default::default()
        };
        let next = match place {
            Place::Chunks(after) => self.chunks_page(&leading, after, &mut reply).await?,
            Place::Replicas(server, from) => self.replicas_page(&leading, server, from, &mut reply).await?,
        };
        reply.token = next.map(Place::to_token).unwrap_or_default().into();
        Ok(reply)
    }

    async fn chunks_page(
        &self,
        leading: &Leading,
        after: ChunkId,
        reply: &mut v1::VerifyMetadataReply,
    ) -> Result<Option<Place>, Fault> {
        let page = self.shared.peek(move |tables| Ok(lookups::chunks(tables, after, STEP)?)).await?;
        {
            let soft = leading.soft();
            let now = self.shared.now();
            for view in page.iter().filter(|view| view.record.state == ChunkState::Sealed) {
                reply.chunks += 1;
                reply.short.extend(short(&soft, view, now));
            }
        }
        let paths = self.paths(reply.short.iter().map(|row| ChunkId(row.chunk)).collect()).await?;
        for row in &mut reply.short {
            row.path = paths.get(&ChunkId(row.chunk)).cloned().unwrap_or_default();
        }
        match page.last() {
            Some(last) if page.len() == STEP => Ok(Some(Place::Chunks(last.id))),
            _ => Ok(leading.soft().locations.servers().min().map(|first| Place::Replicas(first, ChunkId(0)))),
        }
    }

    async fn replicas_page(
        &self,
        leading: &Leading,
        server: ServerId,
        from: ChunkId,
        reply: &mut v1::VerifyMetadataReply,
    ) -> Result<Option<Place>, Fault> {
        let (chunks, next_server) = {
            let soft = leading.soft();
            let next = soft.locations.servers().filter(|other| *other > server).min();
            (soft.locations.chunks_of(server, from, STEP), next)
        };
        let next = match chunks.last().and_then(|last| last.0.checked_add(1)).filter(|_| chunks.len() == STEP) {
            Some(next) => Some(Place::Replicas(server, ChunkId(next))),
            None => next_server.map(|next| Place::Replicas(next, ChunkId(0))),
        };
        reply.replicas = chunks.len() as u64;
        let (unknown, next_chunk) = self
            .shared
            .peek(move |tables| {
                let mut unknown = Vec::new();
                for chunk in chunks {
                    if query::chunk(tables, chunk)?.is_none() {
                        unknown.push(chunk);
                    }
                }
                Ok((unknown, query::counters(tables)?.next_chunk))
            })
            .await?;
        let stray = |chunk: ChunkId| v1::StrayReplica {
            server: server.to_bytes().into(),
            chunk: chunk.0,
            beyond: chunk.0 >= next_chunk,
        };
        reply.stray = unknown.into_iter().map(stray).collect();
        Ok(next)
    }

    /// Lets deletions and aborts go. Whether they were held.
    pub async fn release_hold(&self, force: bool) -> Result<bool, Fault> {
        let leading = self.shared.leading()?;
        if self.shared.read(|tables| Ok(query::hold(tables)?)).await?.is_none() {
            leading.set_held(false);
            return Ok(false);
        }
        let unreported = unreported(&leading.soft());
        if !unreported.is_empty() && !force {
            return Err(fault(ErrorCode::Conflict, not_yet(&leading.soft(), &unreported)));
        }
        tracing::warn!(force, unreported = unreported.len(), "an operator lets deletions and aborts go");
        self.shared.propose(Kind::ReleaseHold(ReleaseHold {})).await?;
        leading.set_held(false);
        Ok(true)
    }
}

/// Servers that the state knows and that have not reported to this leader. Those that are gone for good need not.
fn unreported(soft: &Soft) -> BTreeSet<ServerId> {
    let reported = |server| soft.locations.number(server).is_some();
    soft.servers.awaited(&reported)
}

fn not_yet(soft: &Soft, servers: &BTreeSet<ServerId>) -> String {
    let named = servers.iter().take(NAMED).map(|server| format!("{server} ({})", soft.servers.address(*server)));
    let more = if servers.len() > NAMED { ", …" } else { "" };
    format!(
        "{} chunkservers have not reported to this master, and what they hold is not in `quarry metadata verify`: {}{more}; \
         start them, `quarry decommission` those that are gone for good, or release with --force",
        servers.len(),
        named.collect::<Vec<_>>().join(", ")
    )
}

/// A chunk that has fewer good replicas than its file wants, by what servers reported.
fn short(soft: &Soft, view: &ChunkView, now: quarry_env::Instant) -> Option<v1::ShortChunk> {
    let facts = repairing::facts(soft, view.id, &view.record, now);
    let good = facts.holders.iter().filter(|h| h.quality == Quality::Good && h.reported && h.health != Health::Dead);
    let good = u32::try_from(good.count()).unwrap_or(u32::MAX);
    (good < view.record.wanted).then(|| v1::ShortChunk {
        chunk: view.id.0,
        path: String::new(),
        inode: view.record.inode.0,
        good,
        wanted: view.record.wanted,
    })
}

/// What a held state means, for `status`.
pub(super) fn notice(hold: &Hold) -> String {
    use quarry_master_core::command::LineageCause;
    let cause = match hold.cause {
        LineageCause::Restored => "restored from a backup",
        LineageCause::Recovered => "recovered from one master",
    };
    format!(
        "the metadata was {cause}: no chunk or replica is deleted, no put is aborted and the trash keeps what it has, until \
         you have looked at `quarry metadata verify` and let go with `quarry metadata release`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_and_others_are_refused() {
        let server = ServerId::from_random(7);
        for place in [Place::Chunks(ChunkId(300)), Place::Replicas(server, ChunkId(5))] {
            assert_eq!(Place::from_token(&place.to_token()), Some(place));
        }
        assert_eq!(Place::from_token(&[]), Some(Place::Chunks(ChunkId(0))));
        for bad in [&[0][..], &[2], &[1, 2, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert_eq!(Place::from_token(bad), None, "{bad:?}");
        }
    }
}
