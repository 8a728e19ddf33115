//! Whether this server reaches others, for a master that does not.

use std::time::Duration;

use futures::future::join_all;
use quarry_client::frames::{self, ConnError};
use quarry_env::clock::timeout;
use quarry_proto::{WireError, convert, frame::Frame, v1};
use quarry_types::{ClusterId, ErrorCode, ServerId};

use crate::server::Context;

/// Peers that one order may name.
const PEERS_MAX: usize = 16;
/// Connecting, shaking hands and the answer to the probe together.
const PEER_DEADLINE: Duration = Duration::from_secs(1);

/// Probes all of them at once.
///
/// # Errors
/// InvalidArgument past the limit or for a malformed member: nobody was probed then.
pub(super) async fn reach(context: &Context, peers: Vec<v1::Member>) -> Result<Vec<v1::Reached>, WireError> {
    if peers.len() > PEERS_MAX {
        let message = format!("{} peers to reach; at most {PEERS_MAX} go into one order", peers.len());
        return Err(WireError::new(ErrorCode::InvalidArgument, message));
    }
    let cluster = context.store.identity().cluster.unwrap_or_default();
    let peers: Vec<_> = peers
        .into_iter()
        .map(|peer| Ok((convert::server(&peer.server, "peer")?, peer.address)))
        .collect::<Result<_, WireError>>()?;
    let one = async |(server, address): &(ServerId, String)| {
        let answer = timeout(&*context.world.clock, PEER_DEADLINE, probe(context, cluster, *server, address)).await;
        let error = match answer {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(late) => Some(format!("{address}: {late}")),
        };
        v1::Reached { server: server.to_bytes().into(), reached: error.is_none(), error: error.unwrap_or_default() }
    };
    Ok(join_all(peers.iter().map(one)).await)
}

async fn probe(context: &Context, cluster: ClusterId, server: ServerId, address: &str) -> Result<(), ConnError> {
    let mut conn = frames::connect(&context.world, address, cluster, server, PEER_DEADLINE).await?;
    conn.writer.send(v1::Probe {}).await?;
    match conn.reader.expect().await?.0 {
        Frame::ProbeReply(_) => Ok(()),
        other => Err(conn.reader.unexpected(&other, "ProbeReply")),
    }
}
