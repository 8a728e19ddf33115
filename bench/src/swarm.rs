//! Simulated chunkservers: they register, beat each second and report what they hold, as real ones do, and hold nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quarry_chunkserver_core::inventory::{DigestKey, ReplicaItem, Sums};
use quarry_client::channel::connect;
use quarry_env::{World, kv::NoKv};
use quarry_proto::{
    PROTOCOL_VERSION, signed,
    v1::{self, chunkservers_client::ChunkserversClient, master_message, server_message},
};
use quarry_types::{
    ClusterKey, Crc32, ReplicaState, ServerId,
    limits::{CHUNK_BYTES, REPORT_PAGE},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::{
    error::{During as _, Failed, Outcome},
    forged,
};

/// Replicas of each chunk.
pub const COPIES: u32 = 3;
/// Servers that share one connection: ten thousand connections are more than a master takes.
const ON_A_CONNECTION: u64 = 20;
/// As the chunkserver names its registration.
const REGISTRATION: &str = "quarry-registration";
/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// Reports sent at once; a master takes eight.
const REPORTS: usize = 8;
/// A connection is made within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of each simulated disk.
const DISK_BYTES: u64 = 1 << 44;
/// Messages of one server that wait.
const MESSAGES: usize = 4;

/// The name of server `k`.
pub fn server(k: u64) -> ServerId {
    ServerId::from_random(u128::from(k) + 1)
}

/// Who holds the chunk of file `n`, of so many servers.
pub fn holders(n: u64, servers: u64) -> Vec<ServerId> {
    (0..u64::from(COPIES)).map(|copy| server((n + copy) % servers)).collect()
}

/// What a swarm has done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Beats that were answered.
    pub beats: AtomicU64,
    /// Servers whose full report was taken.
    pub reported: AtomicU64,
}

/// Servers that live until this is dropped.
pub struct Swarm {
    tasks: JoinSet<Outcome>,
    /// What they did.
    pub counts: Arc<Counts>,
}

struct One {
    k: u64,
    servers: u64,
    files: u64,
    key: ClusterKey,
    counts: Arc<Counts>,
    turn: Arc<Semaphore>,
}

impl Swarm {
    /// Lets `servers` servers loose that hold the chunks of `files` files among them.
    ///
    /// # Errors
    /// When the master cannot be reached.
    pub async fn start(master: &str, key: &ClusterKey, servers: u64, files: u64) -> Outcome<Self> {
        let world = World::real(Arc::new(NoKv));
        let (counts, turn) = (Arc::new(Counts::default()), Arc::new(Semaphore::new(REPORTS)));
        let mut tasks = JoinSet::new();
        let mut channel = None;
        for k in 0..servers {
            if k % ON_A_CONNECTION == 0 {
                channel = Some(connect(&world, master, PATIENCE).await.during("reaching the master")?);
            }
            let Some(channel) = channel.clone() else { continue };
            let (counts, turn) = (Arc::clone(&counts), Arc::clone(&turn));
            let one = One { k, servers, files, key: key.clone(), counts, turn };
            tasks.spawn(async move { one.live(channel).await });
        }
        Ok(Swarm { tasks, counts })
    }

    /// Waits until every server has reported.
    ///
    /// # Errors
    /// When a server ends, or it takes longer than `limit`.
    pub async fn reported(&mut self, servers: u64, limit: Duration) -> Outcome {
        let all = async {
            while self.counts.reported.load(Ordering::Relaxed) < servers {
                tokio::select! {
                    ended = self.tasks.join_next() => ended.map_or(Ok(()), |ended| ended.during("simulating")?)?,
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
            Ok(())
        };
        tokio::time::timeout(limit, all).await.during("waiting for the reports of simulated chunkservers")?
    }
}

impl One {
    async fn live(self, channel: Channel) -> Outcome {
        let mut client = ChunkserversClient::new(channel);
        let request = v1::RegisterRequest { registration: Some(signed::sign(&self.key, &self.registration())) };
        let registration = client.register(request).await.during("registering")?.into_inner().registration;
        let (to_master, messages) = mpsc::channel(MESSAGES);
        let sums = self.sums();
        let mut sequence = 0;
        to_master.send(self.beat(registration, sequence, &sums)).await.during("beating")?;
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert(REGISTRATION, MetadataValue::from(registration));
        let mut from_master = client.heartbeat(request).await.during("beating")?.into_inner();

        let reporting = self.report(client, registration);
        tokio::pin!(reporting);
        // The last beat that was sent before the report was taken: answers up to that one say nothing about it.
        let mut reported = None;
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                done = &mut reporting, if reported.is_none() => {
                    done?;
                    reported = Some(sequence);
                    self.counts.reported.fetch_add(1, Ordering::Relaxed);
                }
                message = from_master.message() => match message.during("beating")?.and_then(|message| message.body) {
                    Some(master_message::Body::Beat(reply)) if reply.register_again => {
                        return Err(Failed::new("simulating", "the master asks for another registration"));
                    }
                    Some(master_message::Body::Beat(reply))
                        if reply.report_wanted && reported.is_some_and(|at| reply.sequence > at) =>
                    {
                        return Err(Failed::new("simulating", "the master does not believe a sum"));
                    }
                    Some(master_message::Body::Beat(_)) => drop(self.counts.beats.fetch_add(1, Ordering::Relaxed)),
                    // Orders: there is nothing to carry out.
                    Some(master_message::Body::Command(_)) => {}
                    None => return Err(Failed::new("simulating", "the master ended the beats")),
                },
                _ = ticks.tick() => {
                    sequence += 1;
                    to_master.send(self.beat(registration, sequence, &sums)).await.during("beating")?;
                }
            }
        }
    }

    /// Sends the full report, when it is this server's turn.
    async fn report(&self, mut client: ChunkserversClient<Channel>, registration: u64) -> Outcome {
        let _turn = self.turn.acquire().await.during("reporting")?;
        loop {
            let (server, all) = (server(self.k).to_bytes(), self.items().count());
            let pages = all.div_ceil(REPORT_PAGE).max(1);
            let (k, servers, files) = (self.k, self.servers, self.files);
            let mut items = items(k, servers, files);
            let page = move |number: usize| v1::InventoryPage {
                registration,
                server: server.clone().into(),
                number: 1,
                full: true,
                replicas: items.by_ref().take(REPORT_PAGE).map(|item| replica(&item)).collect(),
                last: number + 1 == pages,
                ranges: 0,
            };
            match client.report(tokio_stream::iter((0..pages).map(page))).await {
                Ok(reply) if reply.get_ref().full_wanted => {}
                Ok(_) => return Ok(()),
                // Others report; so does a real server wait.
                Err(busy) if busy.code() == tonic::Code::ResourceExhausted => tokio::time::sleep(BEAT).await,
                Err(error) => return Err(Failed::new("reporting", error)),
            }
        }
    }

    fn items(&self) -> impl Iterator<Item = ReplicaItem> + use<> {
        items(self.k, self.servers, self.files)
    }

    fn sums(&self) -> (u64, Sums) {
        let key = DigestKey::new(&self.key, server(self.k));
        let (mut sums, mut count) = (Sums::default(), 0);
        for item in self.items() {
            sums.change(item.chunk, 0, key.weigh(&item));
            count += 1;
        }
        (count, sums)
    }

    fn disks(&self) -> Vec<v1::DiskInfo> {
        vec![v1::DiskInfo {
            path: "/simulated".into(),
            capacity_bytes: DISK_BYTES,
            available_bytes: DISK_BYTES / 2,
            used_bytes: DISK_BYTES / 2,
            ..Default::default()
        }]
    }

    fn registration(&self) -> v1::Registration {
        v1::Registration {
            cluster: bytes::Bytes::new(),
            server: server(self.k).to_bytes().into(),
            start_counter: 1,
            start_id: 1,
            // Nobody is there: nothing is read from or written to simulated servers.
            address: format!("127.0.0.1:{}", 1 + self.k % 1000),
            rack: format!("rack-{}", self.k % 20),
            disks: self.disks(),
            durability: v1::Durability::Sealed.into(),
            build: "quarry-bench".into(),
            protocol_version: PROTOCOL_VERSION,
            follows: None,
        }
    }

    fn beat(&self, registration: u64, sequence: u64, (chunks, sums): &(u64, Sums)) -> v1::ServerMessage {
        let beat = v1::Beat {
            registration,
            server: server(self.k).to_bytes().into(),
            sequence,
            disks: self.disks(),
            inventory_number: 1,
            chunks: *chunks,
            digest: sums.digest(),
            ranges: sums.ranges().to_vec(),
            ..Default::default()
        };
        v1::ServerMessage { body: Some(server_message::Body::Beat(beat)) }
    }
}

/// What server `k` holds, in order of the chunks' ids; the counterpart of [`holders`].
fn items(k: u64, servers: u64, files: u64) -> impl Iterator<Item = ReplicaItem> {
    // Looking at each file would take many servers minutes.
    let mut held: Vec<u64> = (0..u64::from(COPIES)).map(|copy| (k + servers - copy % servers) % servers).collect();
    held.sort_unstable();
    held.dedup();
    let rounds = (0..files.div_ceil(servers)).flat_map(move |round| {
        let of_round = held.clone().into_iter();
        of_round.map(move |rest| round * servers + rest)
    });
    rounds.filter(move |n| *n < files).map(|n| ReplicaItem {
        chunk: forged::chunk(n),
        state: ReplicaState::Sealed,
        length: CHUNK_BYTES,
        crc: Crc32(n as u32),
    })
}

fn replica(item: &ReplicaItem) -> v1::Replica {
    v1::Replica {
        chunk: item.chunk.0,
        state: v1::ReplicaState::from(item.state).into(),
        length: item.length,
        crc: item.crc.0,
        gone: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_chunk_and_what_a_server_holds_agree() {
        for servers in [3, 10, 17] {
            for n in 0..50 {
                let holding =
                    (0..servers).filter(|k| items(*k, servers, 50).any(|item| item.chunk == forged::chunk(n)));
                let mut found: Vec<ServerId> = holding.map(server).collect();
                let mut wanted = holders(n, servers);
                found.sort_unstable();
                wanted.sort_unstable();
                assert_eq!(found, wanted, "{n} of {servers}");
            }
        }
    }
}
