use std::{collections::BTreeMap, time::Duration};

use futures::{Stream, StreamExt as _};
use quarry_chunkserver_core::inventory::Ranges;
use quarry_env::clock::timeout;
use quarry_proto::{convert, v1};
use quarry_types::{
    ChunkId, Crc32, ErrorCode, ServerId,
    limits::{CHUNK_BYTES, DEAD_AFTER, REPORT_PAGE},
};
use tokio::sync::SemaphorePermit;
use tonic::Status;

use super::Service;
use crate::{
    error::{Fault, fault},
    locations::{Change, Replica},
    shared::Leading,
};

/// Replicas that one server may hold: the master's memory is bounded.
const REPLICAS_PER_SERVER: usize = 4_000_000;
/// Full reports gathered at once; when many servers return together the others wait for their turn and go on beating.
pub const FULL_REPORTS: usize = 8;
/// How long a report waits for its turn before its server is told to come again.
const TURN_WAIT: Duration = Duration::from_secs(10);

impl Service {
    /// Takes a full inventory, or some ranges of one, which takes effect with its last page, or the changes since a number.
    pub async fn report(
        &self,
        mut pages: impl Stream<Item = Result<v1::InventoryPage, Status>> + Unpin,
    ) -> Result<v1::ReportReply, Fault> {
        let leading = self.shared.leading()?;
        let mut report: Option<Report> = None;
        let mut _turn = None;
        loop {
            let page = timeout(&*self.shared.world.clock, DEAD_AFTER, pages.next()).await.map_err(|_| cut_off())?;
            let Some(page) = page.transpose()? else { return Err(cut_off()) };
            let report = match &mut report {
                Some(report) => report,
                none => {
                    let begun = none.insert(begin(&leading, &page)?);
                    if page.full {
                        _turn = Some(self.turn(&leading).await?);
                    }
                    begun
                }
            };
            let last = page.last;
            report.add(page)?;
            if last {
                return report.take_effect(&leading);
            }
        }
    }

    /// Waits until a full report may be gathered.
    async fn turn<'a>(&self, leading: &'a Leading) -> Result<SemaphorePermit<'a>, Fault> {
        let turn = tokio::select! {
            biased;
            () = leading.ended.cancelled() => None,
            turn = timeout(&*self.shared.world.clock, TURN_WAIT, leading.reports.acquire()) => turn.ok().and_then(Result::ok),
        };
        let why = || format!("{FULL_REPORTS} other chunkservers are reporting, which is the limit; report again later");
        turn.ok_or_else(|| fault(ErrorCode::Busy, why()))
    }

    /// A reader complains about a replica. Whatever it says, only a check by the server itself follows (S2).
    pub async fn report_replica(&self, chunk: ChunkId, server: ServerId, code: u32) -> Result<(), Fault> {
        let leading = self.shared.leading()?;
        let mut soft = leading.soft();
        if soft.locations.replica(server, chunk).is_none() {
            let why = format!("chunkserver {server} is not known to hold chunk {chunk}");
            return Err(fault(ErrorCode::NoReplica, why));
        }
        let scheduled = soft.verifying.complain(server, chunk, self.shared.now());
        tracing::info!(%server, %chunk, code = %ErrorCode::from_number(code), scheduled, "a reader met a bad replica");
        Ok(())
    }
}

fn cut_off() -> Fault {
    fault(ErrorCode::InvalidArgument, "the report ended without a last page; nothing of it was taken")
}

struct Report {
    server: ServerId,
    registration: u64,
    number: u64,
    /// Which part of the inventory it is about; of changes all.
    ranges: Ranges,
    content: Content,
}

enum Content {
    Full(BTreeMap<ChunkId, Replica>),
    Changes(Vec<Change>),
}

fn begin(leading: &Leading, page: &v1::InventoryPage) -> Result<Report, Fault> {
    let server = convert::server(&page.server, "server")?;
    let (registration, number) = (page.registration, page.number);
    if !leading.soft().servers.is_registered(server, registration) {
        return Err(unregistered(server));
    }
    let content = if page.full { Content::Full(BTreeMap::new()) } else { Content::Changes(Vec::new()) };
    Ok(Report { server, registration, number, ranges: ranges(page), content })
}

/// None named means all.
fn ranges(page: &v1::InventoryPage) -> Ranges {
    if page.ranges == 0 { Ranges::ALL } else { Ranges(page.ranges) }
}

fn unregistered(server: ServerId) -> Fault {
    fault(ErrorCode::StaleLeader, format!("chunkserver {server} is not registered with this leader; register again"))
}

impl Report {
    fn add(&mut self, page: v1::InventoryPage) -> Result<(), Fault> {
        let same = convert::server(&page.server, "server")? == self.server
            && (page.registration, page.number) == (self.registration, self.number)
            && page.full == matches!(self.content, Content::Full(_))
            && ranges(&page) == self.ranges;
        if !same {
            return Err(fault(ErrorCode::InvalidArgument, "the pages of a report belong to different reports"));
        }
        if page.replicas.len() > REPORT_PAGE {
            return Err(fault(ErrorCode::InvalidArgument, format!("a page has more than {REPORT_PAGE} replicas")));
        }
        for replica in page.replicas {
            self.add_one(&replica)?;
        }
        let held = match &self.content {
            Content::Full(replicas) => replicas.len(),
            Content::Changes(changes) => changes.len(),
        };
        if held > REPLICAS_PER_SERVER {
            let why = format!("chunkserver {} reports more than {REPLICAS_PER_SERVER} replicas", self.server);
            return Err(fault(ErrorCode::Busy, why));
        }
        Ok(())
    }

    fn add_one(&mut self, from: &v1::Replica) -> Result<(), Fault> {
        let chunk = ChunkId(from.chunk);
        if !self.ranges.hold(chunk) {
            let why = format!("a report of some ranges names chunk {chunk}, which lies in none of them");
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        if from.length > CHUNK_BYTES {
            let why = format!(
                "a report names a replica of chunk {chunk} with {} bytes, and none has more than {CHUNK_BYTES}",
                from.length
            );
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        let replica = if from.gone {
            None
        } else {
            Some(Replica { state: convert::replica_state(from.state)?, length: from.length, crc: Crc32(from.crc) })
        };
        match (&mut self.content, replica) {
            (Content::Changes(changes), replica) => changes.push(Change { chunk, replica }),
            (Content::Full(replicas), Some(replica)) => {
                replicas.insert(chunk, replica);
            }
            (Content::Full(_), None) => {
                return Err(fault(ErrorCode::InvalidArgument, "a full report names a replica that is gone"));
            }
        }
        Ok(())
    }

    fn take_effect(&mut self, leading: &Leading) -> Result<v1::ReportReply, Fault> {
        let mut soft = leading.soft();
        let soft = &mut *soft;
        // The pages took a while; the server may have registered again meanwhile.
        if !soft.servers.is_registered(self.server, self.registration) {
            return Err(unregistered(self.server));
        }
        let first = soft.locations.number(self.server).is_none();
        let taken = match &mut self.content {
            Content::Full(replicas) if self.ranges != Ranges::ALL => {
                tracing::info!(server = %self.server, number = self.number, replicas = replicas.len(), "report of what differed");
                soft.locations.ranges_report(self.server, self.number, self.ranges, replicas).map(|()| self.number)
            }
            Content::Full(replicas) => {
                tracing::info!(server = %self.server, number = self.number, replicas = replicas.len(), "full report");
                soft.locations.full_report(self.server, self.number, std::mem::take(replicas));
                if first {
                    soft.reported_in_full(self.server);
                }
                Ok(self.number)
            }
            Content::Changes(changes) => soft.locations.changes(self.server, self.number, changes),
        };
        match taken {
            Ok(number) => {
                soft.repairing.reported(self.server, &soft.locations);
                Ok(v1::ReportReply { number, full_wanted: false })
            }
            Err(wanted) => Ok(v1::ReportReply { number: wanted.number, full_wanted: true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_a_replica_that_is_longer_than_a_chunk_is_refused() {
        let (server, content) = (ServerId::from_random(1), Content::Full(BTreeMap::new()));
        let mut report = Report { server, registration: 1, number: 1, ranges: Ranges::ALL, content };
        let state = v1::ReplicaState::Sealed.into();
        let of = |length| v1::Replica { chunk: 1, length, state, ..v1::Replica::default() };
        assert!(report.add_one(&of(CHUNK_BYTES)).is_ok());
        let refused = report.add_one(&of(CHUNK_BYTES + 1)).map_err(|fault| fault.to_string());
        assert!(refused.is_err_and(|why| why.contains("67108865 bytes")));
    }
}
