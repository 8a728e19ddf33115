//! Lets chunks want as many replicas as their files do.

use quarry_master_core::{
    command::{FollowWanted, Kind},
    limits::FOLLOW_MAX,
    reply::Reply,
    tables::Table,
};
use quarry_types::ChunkId;

use crate::{
    error::Fault,
    shared::{Leading, Shared, unexpected},
};

pub(super) async fn step(shared: &Shared, leading: &Leading) -> Result<bool, Fault> {
    if shared.peek(|tables| Ok(tables.scan(Table::Wanted, &[], None, 1)?.is_empty())).await? {
        return Ok(false);
    }
    match shared.propose(Kind::FollowWanted(FollowWanted { limit: FOLLOW_MAX })).await? {
        Reply::Followed(followed) => {
            wanted_changed(leading, &followed.chunks);
            Ok(followed.more)
        }
        other => Err(unexpected(&other)),
    }
}

/// These chunks want another number of replicas than before, by commit.
fn wanted_changed(leading: &Leading, chunks: &[ChunkId]) {
    let mut soft = leading.soft();
    chunks.iter().for_each(|chunk| soft.locations.look_again(*chunk));
}
