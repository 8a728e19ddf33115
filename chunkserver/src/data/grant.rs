//! Whether a write may begin.

use std::collections::BTreeSet;

use quarry_proto::{WireError, convert, signed, v1};
use quarry_types::{
    ChunkId, ClusterId, ErrorCode, Leadership, ServerId,
    limits::{CHUNK_BYTES, REPLICAS_MAX},
};

use crate::server::Context;

/// A write that may begin.
pub(super) struct Permitted {
    pub(super) cluster: ClusterId,
    pub(super) chunk: ChunkId,
    pub(super) limit_bytes: u64,
    /// As it came: the next member verifies it itself.
    pub(super) grant: v1::Signed,
    pub(super) position: u32,
    /// The next member, if this is not the last.
    pub(super) next: Option<(ServerId, String)>,
    /// Members behind this one.
    pub(super) behind: u32,
    pub(super) request_id: String,
}

/// Checks the grant and this server's place in it. A grant of a newer master makes this server follow that one, which
/// is persisted first; a grant of an older one is refused (S5).
///
/// # Errors
/// Says what does not fit; nothing has been opened then.
pub(super) async fn check(context: &Context, open: v1::OpenWrite) -> Result<Permitted, WireError> {
    let request_id = super::listen::clean_request_id(&open.request_id);
    let signed = convert::required(open.grant, "grant")?;
    let grant: v1::Grant = signed::open(&context.key, &signed)?;
    let cluster = convert::cluster(&grant.cluster, "cluster")?;
    let leadership = Leadership::try_from(convert::required(grant.leadership, "leadership")?)?;
    let members = members(&grant.members)?;
    let me = members.get(open.position as usize).map(|(server, _)| *server);
    if me != Some(context.server) {
        let message = format!(
            "the grant for chunk {} has another server at position {}, not {}; ask the master again",
            ChunkId(grant.chunk),
            open.position,
            context.server
        );
        return Err(WireError::new(ErrorCode::Mismatch, message));
    }
    if grant.limit_bytes == 0 || grant.limit_bytes > CHUNK_BYTES {
        let message = format!("the grant allows {} bytes; a chunk has 1 to {CHUNK_BYTES}", grant.limit_bytes);
        return Err(WireError::new(ErrorCode::InvalidArgument, message));
    }
    // A server that never registered has no cluster; only a master it asked may give it one.
    context.obey(cluster, leadership).await?;
    let last = members.len() - 1;
    let next = members.into_iter().nth(open.position as usize + 1);
    let behind = u32::try_from(last).unwrap_or(u32::MAX).saturating_sub(open.position);
    Ok(Permitted {
        cluster,
        chunk: ChunkId(grant.chunk),
        limit_bytes: grant.limit_bytes,
        grant: signed,
        position: open.position,
        next,
        behind,
        request_id,
    })
}

fn members(from: &[v1::Member]) -> Result<Vec<(ServerId, String)>, WireError> {
    let bad = |what: &str| WireError::new(ErrorCode::InvalidArgument, format!("the grant names {what}"));
    if from.is_empty() || from.len() > REPLICAS_MAX as usize {
        return Err(bad(&format!("{} members; 1 to {REPLICAS_MAX} can write a chunk", from.len())));
    }
    let members: Vec<_> = from
        .iter()
        .map(|member| Ok((convert::server(&member.server, "member")?, member.address.clone())))
        .collect::<Result<_, WireError>>()?;
    let distinct: BTreeSet<_> = members.iter().map(|(server, _)| *server).collect();
    if distinct.len() != members.len() {
        return Err(bad("a member twice"));
    }
    Ok(members)
}
