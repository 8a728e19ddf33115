//! Making a cluster: an explicit act on one node, in an empty directory (S11).

use std::path::PathBuf;

use quarry_env::World;
use quarry_master_core::{
    command::{Command, CreateCluster, Kind, Settings},
    limits::FIRST_MASTER,
};
use quarry_types::{ClusterId, limits};
use uuid::Uuid;

use crate::{
    error::MasterError,
    identity::{self, Identity},
    raft::{Belonging, Group, Node},
};

/// What `init` was told.
#[derive(Clone, Debug)]
pub struct InitConfig {
    /// The directory to make, missing or empty.
    pub data: PathBuf,
    /// The key file to make.
    pub key_file: PathBuf,
    /// Where others will reach this master.
    pub advertise: String,
    /// The cluster's first settings.
    pub settings: Settings,
}

impl InitConfig {
    /// With the defaults for a data directory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        InitConfig {
            key_file: data.join(crate::config::KEY_FILE),
            data,
            advertise: format!("127.0.0.1:{}", limits::MASTER_PORT),
            settings: Settings::default(),
        }
    }
}

/// Creates a cluster with this one master.
///
/// # Errors
/// When the directory is not empty, a key file is there already, or the disk fails. A directory that was left half-way is
/// refused by `run` and by another `init`.
pub async fn init(world: &World, config: &InitConfig) -> Result<Identity, MasterError> {
    let cluster = ClusterId::from_random(world.random.next_u128());
    let lineage_id = uuid::Builder::from_random_bytes(world.random.next_u128().to_be_bytes()).into_uuid();
    let identity = Identity { cluster, node: FIRST_MASTER, group: 0 };
    let unfinished = world
        .blocking
        .run({
            let (world, config) = (world.clone(), config.clone());
            move || identity::begin(&*world.disk, &*world.random, &config.data, &config.key_file)
        })
        .await??;
    let belonging = Belonging { cluster, key: unfinished.key().clone() };
    create_group(world, config, belonging, lineage_id).await?;
    let disk = world.disk.clone();
    world.blocking.run(move || unfinished.finish(&*disk, identity)).await?
}

async fn create_group(
    world: &World,
    config: &InitConfig,
    belonging: Belonging,
    lineage_id: Uuid,
) -> Result<(), MasterError> {
    let me = Node { id: FIRST_MASTER, address: config.advertise.clone() };
    let create = CreateCluster { cluster: belonging.cluster, lineage_id, settings: config.settings.clone() };
    let first = Command { wall_ms: world.clock.wall_ms(), kind: Kind::CreateCluster(create) };
    let path = config.data.join(Identity::FIRST_GROUP);
    let created = Group::create(world, &path, me, belonging, first).await;
    created.map_err(|e| MasterError::Group { path, message: e.to_string() })
}
