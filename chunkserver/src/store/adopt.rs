//! Following a master (S5): what is followed is durable before it counts.

use std::sync::PoisonError;

use quarry_chunkserver_core::identity::DirIdentity;
use quarry_types::{ClusterId, ErrorCode, Leadership, ids::LeadershipRefusal, planted};

use super::{StoreError, dir::lock, index::Changes, open::IDENTITY, shared::Shared, sync_points};

impl Shared {
    pub(super) fn adopt(&self, cluster: ClusterId, leadership: Leadership) -> Result<(), StoreError> {
        // What the leader before ordered is done, or will be refused.
        let _alone = self.following.write().unwrap_or_else(PoisonError::into_inner);
        let (ours, current) = {
            let state = lock(&self.state);
            (state.cluster, state.leadership)
        };
        if let Some(ours) = ours.filter(|ours| *ours != cluster) {
            return Err(StoreError::new(
                ErrorCode::Mismatch,
                format!(
                    "this chunkserver's data belongs to cluster {ours}, the master leads cluster {cluster}: it never changes \
                     over; check --masters, or give it an empty data directory"
                ),
            ));
        }
        if let Some(current) = current.filter(|_| !planted!("forget-epoch-check")) {
            current.accepts(&leadership).map_err(|why| stale(&current, &leadership, why))?;
        }
        if ours.is_none() {
            self.persist_cluster(cluster)?;
        }
        if current != Some(leadership) {
            let changes = || Changes::default().leadership(&leadership);
            self.write_all(changes, sync_points::LEADERSHIP)?;
        }
        let mut state = lock(&self.state);
        state.cluster = Some(cluster);
        state.leadership = Some(leadership);
        Ok(())
    }

    fn persist_cluster(&self, cluster: ClusterId) -> Result<(), StoreError> {
        for dir in self.working() {
            let Some(directory) = dir.id else { continue };
            let identity = DirIdentity { cluster: Some(cluster), server: self.server, directory };
            let path = dir.path.join(IDENTITY);
            if let Err(error) = self.world.disk.write_small(&path, &identity.encode(), sync_points::IDENTITY_CLUSTER) {
                self.fail_dir(&dir, &StoreError::io(&path, "write", &error).to_string());
            }
        }
        if self.working().next().is_none() {
            return Err(StoreError::new(ErrorCode::DiskFailed, "no data directory of this chunkserver is in service"));
        }
        Ok(())
    }
}

fn stale(current: &Leadership, offered: &Leadership, why: LeadershipRefusal) -> StoreError {
    let why = match why {
        LeadershipRefusal::Older => "led in the past",
        LeadershipRefusal::Sibling => "follows a history that forked off from ours",
    };
    StoreError::new(
        ErrorCode::StaleLeader,
        format!(
            "the master with lineage {} ({}) and epoch {} {why}: this chunkserver follows lineage {} ({}), epoch {}",
            offered.lineage.number,
            offered.lineage.id,
            offered.epoch,
            current.lineage.number,
            current.lineage.id,
            current.epoch
        ),
    )
}
