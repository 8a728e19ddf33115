//! A leader whose disk is full hands over to a master that has room, since every change would be refused.

use std::time::Duration;

use quarry_types::NodeId;

use crate::{error::Fault, service::masters, shared::Shared};

/// When nobody could take over it is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn step(shared: &Shared) -> Result<bool, Fault> {
    if !shared.group.is_short_of_room().await {
        return Ok(false);
    }
    let status = shared.group.status();
    for master in masters::successors(&status, shared.node) {
        let said = shared.group.introduced(&master.address).await;
        if !said.is_ok_and(|said| said.id.0 == master.id && !said.short_of_room) {
            continue;
        }
        let to = NodeId(master.id);
        let dir = shared.group.dir();
        tracing::warn!(%to, dir = %dir.display(), "the disk of this master is full, and the leadership goes to one that has \
             room; free some room on that file system, and start this master again if it has stopped");
        if shared.group.transfer(to).await? {
            break;
        }
    }
    shared.world.clock.sleep(AGAIN).await;
    Ok(false)
}
