//! Making a master that is to join a cluster: an explicit act on one node, in an empty directory (S11).

use std::{path::PathBuf, time::Duration};

use quarry_env::World;
use quarry_proto::WireError;
use quarry_types::{ClusterId, ClusterKey, ErrorCode, NodeId};

use crate::{
    error::MasterError,
    identity::{self, Identity},
    raft::{self, Belonging, Group},
};

/// What `join` was told.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The directory to make, missing or empty.
    pub data: PathBuf,
    /// The cluster's key file; it is there already.
    pub key_file: PathBuf,
    /// Masters of the cluster, one at least.
    pub masters: Vec<String>,
}

/// How long to look for the leader.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// Between two rounds of asking.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// Makes the directory of a new master with a number that the cluster gives. It takes part in nothing before
/// `quarry masters add` names it.
///
/// # Errors
/// When the directory is not empty, the key is not the cluster's, no leader answers in time, or the disk fails. A directory
/// that was left half-way is refused by `run` and by another `join`.
pub async fn join(world: &World, config: &JoinConfig) -> Result<Identity, MasterError> {
    let look = {
        let (disk, config) = (world.disk.clone(), config.clone());
        move || identity::look_first(&*disk, &config.data, &config.key_file)
    };
    let key = world.blocking.run(look).await??;
    // Before anything is made, so that a cluster that does not answer leaves nothing behind.
    let (cluster, node) = number(world, &key, config).await?;
    let make = {
        let (disk, config, key) = (world.disk.clone(), config.clone(), key.clone());
        move || identity::adopt(&*disk, &config.data, &config.key_file, key)
    };
    let begun = world.blocking.run(make).await??;
    let belonging = Belonging { cluster, key };
    let path = config.data.join(Identity::FIRST_GROUP);
    let created = Group::create_empty(world, &path, node, belonging).await;
    created.map_err(|e| MasterError::Group { path, message: e.to_string() })?;
    let disk = world.disk.clone();
    world.blocking.run(move || begun.finish(&*disk, Identity { cluster, node, group: 0 })).await?
}

/// Asks one master after the other, and whom they name as the leader, until one gives a number.
async fn number(world: &World, key: &ClusterKey, config: &JoinConfig) -> Result<(ClusterId, NodeId), MasterError> {
    let began = world.clock.now();
    let mut next = config.masters.iter().cycle();
    let mut hint: Option<String> = None;
    loop {
        let address = hint.take().or_else(|| next.next().cloned()).unwrap_or_default();
        let error = match raft::ask_number(world, key, &address).await {
            Ok(given) => return Ok(given),
            Err(error) => error,
        };
        let last = world.clock.now().since(began) >= LOOK_DEADLINE;
        if last || !is_worth_asking_again(&error) {
            let message = format!("no number from the cluster's masters: {}", error.message);
            return Err(MasterError::Refused(message));
        }
        hint = error.leader;
        if hint.is_none() {
            world.clock.sleep(LOOK_PAUSE).await;
        }
    }
}

fn is_worth_asking_again(error: &WireError) -> bool {
    matches!(error.code, ErrorCode::NotLeader | ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Busy)
}
