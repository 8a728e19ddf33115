//! Who leads, when the one that led says nothing any more.

use std::{future, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use quarry_env::{World, clock::timeout};
use quarry_proto::v1;
use tonic::Request;

use crate::{admin::admin, channel};

/// Asks all masters of `known` but the one at `silent` whom they follow, and gives the address of the first leader that is
/// another one. A leader that stands still or is cut off does not say so, but the others have another one soon. Takes at
/// most `within`. Cancel-safe.
pub async fn elsewhere(world: &World, known: &[String], silent: &str, within: Duration) -> Option<String> {
    let others = known.iter().filter(|other| *other != silent);
    let asked: FuturesUnordered<_> = others.map(|other| followed_by(world, other, within)).collect();
    let mut named = asked.filter_map(|leader| future::ready(leader.filter(|leader| leader != silent)));
    timeout(&*world.clock, within, named.next()).await.ok().flatten()
}

/// Who leads, as the master at `address` knows.
async fn followed_by(world: &World, address: &str, within: Duration) -> Option<String> {
    let channel = channel::connect(world, address, within).await.ok()?;
    let mut request = Request::new(v1::MastersRequest { brief: true });
    request.set_timeout(within);
    let reply = admin(channel).masters(request).await.ok()?.into_inner();
    reply.masters.into_iter().find(|master| master.id == reply.leader).map(|master| master.address)
}
