//! Going on alone when the majority of a group is lost for good (S6, S11).
//!
//! The new group of one is made beside the old one's files, which stay as they are; one atomic write of `IDENTITY` switches to
//! it. Interrupted before that, the directory is still the old master's.

use std::{path::PathBuf, time::Duration};

use quarry_env::World;
use quarry_master_core::command::LineageCause;

use crate::{
    error::MasterError,
    identity::{self, Identity},
    raft::{
        Belonging,
        alone::{self, Beginning, Origin},
    },
    restore::NewLineage,
};

/// What `recover` was told.
#[derive(Clone, Debug)]
pub struct RecoverConfig {
    /// The data directory of a master that is left.
    pub data: PathBuf,
    /// The cluster's key.
    pub key_file: PathBuf,
    /// Where others will reach this master; `None`: as before.
    pub advertise: Option<String>,
    /// The other members are asked for so long.
    pub ask: Duration,
}

/// How long the other members are asked, unless told otherwise: longer than a restart takes.
pub const ASK_DEFAULT: Duration = Duration::from_secs(15);

/// Makes the master in a directory a group of one, in a new lineage, with deletions and aborts held back. Everything in its
/// log is committed by that, also what no majority had acknowledged yet, as far as it knows: the lost ones may have.
///
/// # Errors
/// When the directory is in use, a member of the group answers, there is no other member, or the disk fails.
pub async fn recover(world: &World, config: &RecoverConfig) -> Result<NewLineage, MasterError> {
    let (disk, opening) = (world.disk.clone(), config.clone());
    let data = world.blocking.run(move || identity::open(&*disk, &opening.data, &opening.key_file)).await??;
    let old = config.data.join(data.identity.group_dir());
    let of_group = |e: crate::raft::GroupError| MasterError::Group { path: old.clone(), message: e.to_string() };
    let (me, others) = alone::members(world, &old).await.map_err(of_group)?;
    if others.is_empty() {
        let why =
            "this master is alone in its group: there is no majority to be lost; start it with `quarry-master run`";
        return Err(MasterError::Refused(format!("{}: {why}", config.data.display())));
    }
    let belonging = Belonging { cluster: data.identity.cluster, key: data.key.clone() };
    if let Some(alive) = alone::first_to_answer(world, &belonging, me.id, &others, config.ask).await {
        let why = format!(
            "master {} at {} answers: what it knows would be lost. Start the others that are left with `quarry-master run`; \
             stop every other master for good before one goes on alone",
            alive.id, alive.address
        );
        return Err(MasterError::Refused(why));
    }
    let group = u64::from(u32::MAX) & world.random.next_u64() | 1;
    let identity = Identity { group, ..data.identity };
    let path = config.data.join(identity.group_dir());
    let beginning = Beginning {
        origin: Origin::Member(old.clone()),
        cause: LineageCause::Recovered,
        number: None,
        address: config.advertise.clone().unwrap_or(me.address),
    };
    let begun = alone::begin(world, &path, belonging, beginning).await;
    let begun = begun.map_err(|e| MasterError::Group { path, message: e.to_string() })?;
    let identity = Identity { node: begun.node, ..identity };
    let disk = world.disk.clone();
    let switched = world.blocking.run(move || data.switch(&*disk, identity)).await??;
    Ok(NewLineage { cluster: switched.cluster, node: switched.node, lineage: begun.lineage })
}
