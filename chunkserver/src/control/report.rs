//! The inventory, in full and as changes.

use std::{sync::Arc, time::Duration};

use quarry_chunkserver_core::inventory::{Change, Ranges, ReplicaItem};
use quarry_env::World;
use quarry_proto::{
    WireError,
    v1::{self, chunkservers_client::ChunkserversClient},
};
use quarry_types::{ErrorCode, ServerId, limits::REPORT_PAGE};
use tonic::transport::Channel;
use tracing::info;

use super::channel::call;
use crate::store::Store;

/// A report must be taken within this, however long it is.
const REPORT_DEADLINE: Duration = Duration::from_secs(60);

/// A master that has enough to do with other reports is asked again after this.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Sends reports within one registration.
pub(super) struct Reporter {
    pub(super) world: World,
    pub(super) store: Store,
    pub(super) master: String,
    pub(super) client: ChunkserversClient<Channel>,
    pub(super) registration: u64,
    /// The number that the master holds the inventory at; absent until a full report.
    pub(super) held: Option<u64>,
}

impl Reporter {
    /// Brings the master up to date, in full if it asked for that or has missed too much. Does nothing when
    /// there is nothing new.
    ///
    /// # Errors
    /// What went wrong; the registration is to be made anew then.
    pub(super) async fn bring_up_to_date(&mut self) -> Result<(), WireError> {
        let server = self.store.identity().server;
        if let Some(held) = self.held {
            if held == self.store.digest().0 {
                return Ok(());
            }
            if let Some((number, changes)) = self.store.changes_since(held) {
                let reply = self.send(change_pages(self.registration, server, held, changes)).await?;
                self.held = (!reply.full_wanted).then_some(number);
                if self.held.is_some() {
                    return Ok(());
                }
            }
        }
        let (number, replicas) = self.store.inventory();
        let replicas = Arc::new(replicas);
        let reply = self.send_in_turn(|| full_pages(self.registration, server, number, Ranges::ALL, &replicas)).await?;
        self.held = (!reply.full_wanted).then_some(number);
        Ok(())
    }

    /// Reports some ranges anew, at the number that the master is brought up to with the changes before.
    ///
    /// # Errors
    /// As [`Reporter::bring_up_to_date`].
    pub(super) async fn report_ranges(&mut self, ranges: Ranges) -> Result<(), WireError> {
        let server = self.store.identity().server;
        let (number, mut replicas) = self.store.inventory();
        let changes = self.held.and_then(|held| Some((held, self.store.changes_since(held)?.1)));
        let Some((held, mut changes)) = changes.filter(|_| ranges != Ranges::ALL) else {
            self.held = None;
            return self.bring_up_to_date().await;
        };
        // Both speak of the same moment.
        changes.retain(|change| change.number <= number);
        replicas.retain(|item| ranges.hold(item.chunk));
        let replicas = Arc::new(replicas);
        let mut reply = v1::ReportReply::default();
        if !changes.is_empty() {
            reply = self.send(change_pages(self.registration, server, held, changes)).await?;
        }
        if !reply.full_wanted {
            reply = self.send_in_turn(|| full_pages(self.registration, server, number, ranges, &replicas)).await?;
        }
        self.held = (!reply.full_wanted).then_some(number);
        self.bring_up_to_date().await
    }

    /// Sends a report as often as the master has no room for it. The server beats meanwhile.
    async fn send_in_turn<P>(&self, pages: impl Fn() -> P) -> Result<v1::ReportReply, WireError>
    where
        P: Iterator<Item = v1::InventoryPage> + Send + 'static,
    {
        loop {
            match self.send(pages()).await {
                Err(busy) if busy.code == ErrorCode::Busy => {
                    info!("the master takes the reports of others first: {busy}");
                    self.world.clock.sleep(BUSY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn send(
        &self,
        pages: impl Iterator<Item = v1::InventoryPage> + Send + 'static,
    ) -> Result<v1::ReportReply, WireError> {
        let mut client = self.client.clone();
        let sending = client.report(tokio_stream::iter(pages));
        Ok(call(&self.world, &self.master, REPORT_DEADLINE, sending).await?.into_inner())
    }
}

fn full_pages(
    registration: u64,
    server: ServerId,
    number: u64,
    ranges: Ranges,
    replicas: &Arc<Vec<ReplicaItem>>,
) -> impl Iterator<Item = v1::InventoryPage> + Send + 'static {
    let replicas = Arc::clone(replicas);
    // An empty inventory is a report too: one empty page.
    let pages = replicas.len().div_ceil(REPORT_PAGE).max(1);
    (0..pages).map(move |page| v1::InventoryPage {
        registration,
        server: server.to_bytes().into(),
        number,
        full: true,
        replicas: replicas.iter().skip(page * REPORT_PAGE).take(REPORT_PAGE).map(replica).collect(),
        last: page + 1 == pages,
        // None named means all.
        ranges: if ranges == Ranges::ALL { 0 } else { ranges.0 },
    })
}

fn change_pages(
    registration: u64,
    server: ServerId,
    held: u64,
    changes: Vec<Change>,
) -> impl Iterator<Item = v1::InventoryPage> + Send + 'static {
    let pages = changes.len().div_ceil(REPORT_PAGE).max(1);
    (0..pages).map(move |page| {
        let part = changes.iter().skip(page * REPORT_PAGE).take(REPORT_PAGE);
        v1::InventoryPage {
            registration,
            server: server.to_bytes().into(),
            number: part.clone().next().map_or(held, |first| first.number.saturating_sub(1)),
            full: false,
            replicas: part.map(change).collect(),
            last: page + 1 == pages,
            ranges: 0,
        }
    })
}

fn replica(item: &ReplicaItem) -> v1::Replica {
    v1::Replica {
        chunk: item.chunk.0,
        state: v1::ReplicaState::from(item.state).into(),
        length: item.length,
        crc: item.crc.0,
        gone: false,
    }
}

fn change(change: &Change) -> v1::Replica {
    match &change.item {
        Some(item) => replica(item),
        None => v1::Replica { chunk: change.chunk.0, gone: true, ..Default::default() },
    }
}

#[cfg(test)]
mod tests {
    use quarry_types::{ChunkId, Crc32, ReplicaState};

    use super::*;

    fn item(n: u64) -> ReplicaItem {
        ReplicaItem { chunk: ChunkId(n), state: ReplicaState::Sealed, length: n, crc: Crc32(7) }
    }

    #[test]
    fn a_report_is_cut_into_pages_of_which_one_is_the_last() {
        let server = ServerId::from_random(1);
        let many = (REPORT_PAGE + 1) as u64;
        let pages: Vec<_> = full_pages(9, server, 5, Ranges::ALL, &Arc::new((0..many).map(item).collect())).collect();
        assert_eq!(pages.iter().map(|p| p.replicas.len()).collect::<Vec<_>>(), [REPORT_PAGE, 1]);
        assert_eq!(pages.iter().map(|p| p.last).collect::<Vec<_>>(), [false, true]);
        assert!(pages.iter().all(|p| p.full && p.number == 5 && p.registration == 9 && p.ranges == 0));
        let empty: Vec<_> = full_pages(9, server, 0, Ranges(6), &Arc::new(Vec::new())).collect();
        assert!(empty.len() == 1 && empty[0].last && empty[0].ranges == 6);
    }

    #[test]
    fn pages_of_changes_continue_one_another() {
        let changes = (0..REPORT_PAGE as u64 + 3).map(|n| Change { number: 11 + n, chunk: ChunkId(n), item: None });
        let pages: Vec<_> = change_pages(9, ServerId::from_random(1), 10, changes.collect()).collect();
        assert_eq!(pages[0].number, 10);
        assert_eq!(pages[1].number, 10 + REPORT_PAGE as u64);
        assert!(pages[1].last && pages[1].replicas.iter().all(|r| r.gone));
    }
}
