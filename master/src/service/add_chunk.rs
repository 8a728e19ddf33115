use quarry_master_core::{
    command::{AddChunk, Mutation, OpId, SealedChunk},
    placement::{self, Request, Weights},
    query,
    reply::{AddedChunk, Reply},
};
use quarry_proto::{signed, v1};
use quarry_types::{ErrorCode, InodeId, LeaseId, ServerId};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{Receipts, Service, check};
use crate::{
    error::{Fault, fault},
    shared::{Leading, Shared, unexpected},
};

/// A writer asks for its next chunk.
#[derive(Clone, Debug)]
pub struct AddChunkCall {
    /// Which operation of which session.
    pub op: OpId,
    /// The file.
    pub inode: InodeId,
    /// The right to write it.
    pub lease: LeaseId,
    /// Where in the file the chunk begins.
    pub offset: u64,
    /// Longest it may become.
    pub limit: u64,
    /// Chunks that ended since the last call.
    pub seals: Vec<v1::SealedChunk>,
    /// Servers that failed the writer just now.
    pub avoid: Vec<ServerId>,
}

/// Servers that a writer may name as to be avoided.
const AVOID_MAX: usize = 1000;

impl Service {
    /// Commits a chunk with its members, then signs the permission to write it: never the other way round (S6).
    pub async fn add_chunk(&self, call: AddChunkCall) -> Result<v1::AddChunkReply, Fault> {
        check::op(&call.op)?;
        if call.avoid.len() > AVOID_MAX {
            return Err(fault(ErrorCode::InvalidArgument, format!("avoid names more than {AVOID_MAX} servers")));
        }
        let leading = self.shared.leading()?;
        self.renew(&leading, call.lease)?;
        let seals = Receipts::new(&self.shared, &leading).seals(call.seals.clone()).await?;
        let members = self.place(&leading, &call).await?;
        let mut add = AddChunk {
            inode: call.inode,
            lease: call.lease,
            offset: call.offset,
            limit: call.limit,
            members,
            seals: Vec::new(),
        };
        check::mutation(&Mutation::AddChunk(add.clone()))?;
        add.seals.clone_from(&seals);
        let added = match self.mutate(call.op, Mutation::AddChunk(add)).await? {
            Reply::Chunk(added) => added,
            other => return Err(unexpected(&other)),
        };
        self.took_effect(&leading, &seals, &added);
        self.grant(&leading, added).await
    }

    fn took_effect(&self, leading: &Leading, seals: &[SealedChunk], added: &AddedChunk) {
        let mut soft = leading.soft();
        for seal in seals {
            soft.sealed(seal.chunk, &seal.holders);
        }
        soft.servers.placed(&added.members);
    }

    async fn place(&self, leading: &Leading, call: &AddChunkCall) -> Result<Vec<ServerId>, Fault> {
        let inode = call.inode;
        let (found, settings) =
            self.shared.glance(move |tables| Ok((query::inode(tables, inode)?, query::settings(tables)?))).await?;
        let found = found.ok_or_else(|| {
            fault(ErrorCode::LeaseLost, format!("file {inode} is gone, and the lease on it with it; create it again"))
        })?;
        let request = Request {
            wanted: found.replicas,
            min: settings.min_replicas.min(found.replicas),
            bytes: call.limit,
            avoid: call.avoid.clone(),
            exclude: Vec::new(),
            weights: Weights::of(&settings),
        };
        let candidates = leading.soft().servers.candidates(self.shared.now());
        let mut rng = rng(&self.shared);
        placement::place(&candidates, &request, &mut rng).map_err(|why| {
            let code = if why.for_want_of_room() { ErrorCode::NoSpace } else { ErrorCode::NotEnoughServers };
            fault(code, why.to_string())
        })
    }

    async fn grant(&self, leading: &Leading, added: AddedChunk) -> Result<v1::AddChunkReply, Fault> {
        let members = self.addresses(leading, added.members).await?;
        let grant = v1::Grant {
            cluster: self.shared.cluster.to_bytes().into(),
            leadership: Some(leading.leadership.into()),
            chunk: added.chunk.0,
            members: members.clone(),
            limit_bytes: added.limit,
        };
        let signed = signed::sign(&self.shared.key, &grant);
        let addresses: Vec<&str> = members.iter().map(|m| m.address.as_str()).collect();
        tracing::debug!(chunk = %added.chunk, members = addresses.join(","), "chunk granted");
        Ok(v1::AddChunkReply { chunk: added.chunk.0, grant: Some(signed), members, wanted: added.wanted })
    }

    /// Where the members are: as registered with this leader, else as the replicated state remembers them.
    async fn addresses(&self, leading: &Leading, members: Vec<ServerId>) -> Result<Vec<v1::Member>, Fault> {
        let known: Vec<Option<String>> = {
            let soft = leading.soft();
            members.iter().map(|m| soft.servers.get(*m).map(|s| s.address.clone())).collect()
        };
        let asked = members.clone();
        let remembered = if known.iter().all(Option::is_some) {
            Vec::new()
        } else {
            let read = move |tables: &dyn quarry_master_core::tables::ReadTables| {
                Ok(asked.iter().map(|m| query::server(tables, *m)).collect::<Result<Vec<_>, _>>()?)
            };
            self.shared.glance(read).await?
        };
        let mut remembered = remembered.into_iter();
        Ok(members
            .into_iter()
            .zip(known)
            .map(|(member, address)| {
                let remembered = remembered.next().flatten().map(|s| s.address);
                let address = address.or(remembered).unwrap_or_default();
                v1::Member { server: member.to_bytes().into(), address }
            })
            .collect())
    }
}

/// Chance for a placement.
pub(super) fn rng(shared: &Shared) -> StdRng {
    StdRng::seed_from_u64(shared.world.random.next_u64())
}
