//! The group on real stores (`group`), on a disk that forgets (`power`, `must_sync`), and under openraft's own suite
//! (`suite`).

mod alone;
mod bounded;
mod cut;
mod damage;
mod digests;
mod group;
mod killed;
mod levels;
mod million;
mod must_sync;
mod power;
mod suite;
mod three;

use std::path::PathBuf;

use quarry_env::World;
use quarry_master_core::{
    command::{Command, CreateCluster, Kind, OpenSession, Settings},
    query,
    reply::Reply,
};
use quarry_types::{ClusterId, ClusterKey, NodeId, SessionId};

use super::*;

const NODE: NodeId = NodeId(1);

fn first() -> Command {
    let (cluster, lineage_id) = (ClusterId::from_random(7), uuid::Uuid::from_u128(8));
    Command {
        wall_ms: 1,
        kind: Kind::CreateCluster(CreateCluster { cluster, lineage_id, settings: Settings::default() }),
    }
}

fn me() -> Node {
    Node { id: NODE, address: "master:9400".into() }
}

fn us() -> Belonging {
    Belonging { cluster: ClusterId::from_random(7), key: ClusterKey::new([7; 32]) }
}

/// Without the room that a test's disk may lack.
fn config() -> GroupConfig {
    GroupConfig { reserve_bytes: 0, ..GroupConfig::default() }
}

fn open_session(n: u64) -> Command {
    let mut nonce = vec![0; quarry_master_core::limits::NONCE_BYTES];
    nonce[..8].copy_from_slice(&n.to_be_bytes());
    Command { wall_ms: 1, kind: Kind::OpenSession(OpenSession { nonce }) }
}

/// Opens the `n`th session; an error is one of the group, or a refusal because the group has lost its beginning.
async fn session(group: &Group, n: u64) -> Result<SessionId, ProposeError> {
    match group.propose(open_session(n)).await? {
        Ok(Reply::Session(opened)) => Ok(opened.session),
        other => Err(ProposeError::Unavailable(format!("opening a session answered {other:?}"))),
    }
}

/// Waits until this member leads, as the master's service does before it proposes.
async fn led(group: &Group) {
    group.leader().wait_for(|state| state.me_since_term.is_some()).await.unwrap();
}

async fn has_session(group: &Group, id: SessionId) -> bool {
    let view = group.read().await.unwrap();
    group.blocking(move || view.at_once(|tables| query::session_exists(tables, id).unwrap())).await
}

impl Group {
    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.world().blocking.run(work).await.unwrap()
    }
}

fn real() -> World {
    World::real(std::sync::Arc::new(quarry_env_rocks::Rocks))
}

fn dir_in(temp: &tempfile::TempDir) -> PathBuf {
    temp.path().join("group")
}
