//! The inventory, in full and as changes.

use std::time::Duration;

use quarry_chunkserver_core::inventory::{Change, ReplicaItem};
use quarry_env::World;
use quarry_proto::{
    WireError,
    v1::{self, chunkservers_client::ChunkserversClient},
};
use quarry_types::{ServerId, limits::REPORT_PAGE};
use tonic::transport::Channel;

use super::channel::call;
use crate::store::Store;

/// A report must be taken within this, however long it is.
const REPORT_DEADLINE: Duration = Duration::from_secs(60);

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
        let reply = self.send(full_pages(self.registration, server, number, replicas)).await?;
        self.held = (!reply.full_wanted).then_some(number);
        Ok(())
    }

    async fn send(
        &mut self,
        pages: impl Iterator<Item = v1::InventoryPage> + Send + 'static,
    ) -> Result<v1::ReportReply, WireError> {
        let sending = self.client.report(tokio_stream::iter(pages));
        Ok(call(&self.world, &self.master, REPORT_DEADLINE, sending).await?.into_inner())
    }
}

fn full_pages(
    registration: u64,
    server: ServerId,
    number: u64,
    replicas: Vec<ReplicaItem>,
) -> impl Iterator<Item = v1::InventoryPage> + Send + 'static {
    // An empty inventory is a report too: one empty page.
    let pages = replicas.len().div_ceil(REPORT_PAGE).max(1);
    (0..pages).map(move |page| v1::InventoryPage {
        registration,
        server: server.to_bytes().into(),
        number,
        full: true,
        replicas: replicas.iter().skip(page * REPORT_PAGE).take(REPORT_PAGE).map(replica).collect(),
        last: page + 1 == pages,
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
        let pages: Vec<_> = full_pages(9, server, 5, (0..many).map(item).collect()).collect();
        assert_eq!(pages.iter().map(|p| p.replicas.len()).collect::<Vec<_>>(), [REPORT_PAGE, 1]);
        assert_eq!(pages.iter().map(|p| p.last).collect::<Vec<_>>(), [false, true]);
        assert!(pages.iter().all(|p| p.full && p.number == 5 && p.registration == 9));
        let empty: Vec<_> = full_pages(9, server, 0, Vec::new()).collect();
        assert!(empty.len() == 1 && empty[0].last);
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
