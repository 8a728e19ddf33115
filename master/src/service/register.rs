use quarry_master_core::{
    command::{Durability, Kind, PutServer},
    query,
    reply::Reply,
};
use quarry_proto::{PROTOCOL_VERSION, convert, signed, v1};
use quarry_types::{ErrorCode, Leadership, ServerId, limits::BEAT_INTERVAL};

use super::Service;
use crate::{
    config::is_address,
    error::{Fault, fault},
    servers::{Registered, Start},
    shared::{Leading, unexpected},
};

/// Disks that one server may have.
const DISKS_MAX: usize = 1024;

impl Service {
    /// Lets a chunkserver in: it proves by the key that it is of this cluster, and gets the proof that this master leads.
    pub async fn register(&self, request: v1::RegisterRequest) -> Result<v1::RegisterReply, Fault> {
        let leading = self.shared.leading()?;
        let signed = convert::required(request.registration, "registration")?;
        let registration: v1::Registration = signed::open(&self.shared.key, &signed)?;
        let (server, durability) = self.check(&registration)?;
        self.check_followed(&leading, server, &registration)?;
        let put = PutServer {
            server,
            address: registration.address.clone(),
            rack: registration.rack.clone(),
            start_counter: registration.start_counter,
            durability,
            start_id: registration.start_id,
        };
        let old_image = self.remember(put).await?;
        self.shared.refresh(&leading, server).await?;
        let number = self.shared.world.random.next_u64();
        self.admit(&leading, server, number, registration, durability, old_image);
        Ok(v1::RegisterReply {
            leadership: Some(leading.dispatch.proof(server)),
            cluster: self.shared.cluster.to_bytes().into(),
            beat_interval_ms: u64::try_from(BEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX),
            registration: number,
        })
    }

    fn check(&self, registration: &v1::Registration) -> Result<(ServerId, Durability), Fault> {
        let server = convert::server(&registration.server, "server")?;
        if registration.protocol_version != PROTOCOL_VERSION {
            let why = format!(
                "chunkserver {server} speaks protocol version {}, this master {PROTOCOL_VERSION}; run builds that fit",
                registration.protocol_version
            );
            return Err(fault(ErrorCode::VersionMismatch, why));
        }
        // A server whose directories are new belongs to no cluster yet; the key proves which one it is for.
        if !registration.cluster.is_empty() {
            let cluster = convert::cluster(&registration.cluster, "cluster")?;
            if cluster != self.shared.cluster {
                let why = format!(
                    "chunkserver {server} holds data of cluster {cluster}, and this master is of {}; name the masters of \
                     its own cluster",
                    self.shared.cluster
                );
                return Err(fault(ErrorCode::Mismatch, why));
            }
        }
        if !is_address(&registration.address) {
            let why =
                format!("chunkserver {server} names {:?} as its address, which is not HOST:PORT", registration.address);
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        if registration.disks.len() > DISKS_MAX {
            return Err(fault(ErrorCode::InvalidArgument, format!("more than {DISKS_MAX} disks")));
        }
        let durability = match v1::Durability::try_from(registration.durability) {
            Ok(v1::Durability::Sealed) => Durability::Sealed,
            Ok(v1::Durability::Buffered) => Durability::Buffered,
            Err(_) => return Err(fault(ErrorCode::InvalidArgument, "field durability is unknown")),
        };
        Ok((server, durability))
    }

    /// Refuses a server that would refuse this master's orders: it is not there for this master, whatever it says of itself.
    fn check_followed(&self, leading: &Leading, server: ServerId, said: &v1::Registration) -> Result<(), Fault> {
        let Some(followed) = said.follows.clone().map(Leadership::try_from).transpose()? else { return Ok(()) };
        let offered = leading.leadership;
        let Err(refusal) = followed.accepts(&offered) else { return Ok(()) };
        let why = format!("chunkserver {server} ({}) {}", said.address, refusal.explain(&followed, &offered));
        leading.soft().servers.refuses(server, why.clone(), self.shared.now());
        Err(fault(ErrorCode::StaleLeader, why))
    }

    /// Makes the group remember the server. Whether it came back with an old image of its disks, and nothing verified them
    /// since.
    async fn remember(&self, put: PutServer) -> Result<bool, Fault> {
        let server = put.server;
        let known = self.shared.peek(move |tables| Ok(query::server(tables, server)?)).await?;
        if let Some(known) = known {
            let same = (&known.address, &known.rack, known.start_counter, known.start_id, known.durability)
                == (&put.address, &put.rack, put.start_counter, put.start_id, put.durability);
            // One that is back from a graceful stop is not in maintenance any more.
            if same && !known.automatic {
                return Ok(known.old_image);
            }
        }
        match self.shared.propose(Kind::PutServer(put)).await? {
            Reply::Server(registered) => Ok(registered.old_image),
            other => Err(unexpected(&other)),
        }
    }

    fn admit(
        &self,
        leading: &Leading,
        server: ServerId,
        number: u64,
        registration: v1::Registration,
        durability: Durability,
        old_image: bool,
    ) {
        if old_image {
            tracing::warn!(%server, "came back with an old image of its disks: nothing on it counts until it is verified");
        }
        let (address, rack) = (registration.address, registration.rack);
        let start = Start { counter: registration.start_counter, id: registration.start_id };
        tracing::info!(
            %server, address, rack, start = start.counter, build = registration.build, "chunkserver registered"
        );
        let registered =
            Registered { registration: number, address, rack, start, durability, disks: registration.disks };
        let mut soft = leading.soft();
        soft.servers.register(server, registered, self.shared.now());
        soft.locations.registered(server, old_image);
    }
}
