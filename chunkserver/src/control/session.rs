//! One registration's life: beats, reports and commands, until the stream ends, the master asks for another
//! registration, or the server stops.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quarry_client::{channel::connect, leader};
use quarry_env::{Instant, clock::timeout};
use quarry_proto::{
    WireError,
    v1::{self, chunkservers_client::ChunkserversClient, master_message, server_message},
};
use quarry_types::{
    ChunkId, ErrorCode,
    limits::{CONNECT_DEADLINE, DEAD_AFTER, GRPC_MESSAGE_BYTES, SUSPECT_AFTER},
};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, metadata::MetadataValue};
use tracing::{Instrument, debug, info_span, warn};

use super::{
    channel::{CALL_DEADLINE, call},
    commands,
    register::{Registered, disk_info},
    report::Reporter,
};
use crate::{server::Context, store::Ranges};

/// Name of the gRPC metadata that carries the registration's number.
const REGISTRATION: &str = "quarry-registration";
/// Messages to the master that may wait.
const MESSAGES_MAX: usize = 64;
/// Commands carried out at once.
const COMMANDS_AT_ONCE: usize = 8;
/// Commands that may wait; further ones are refused as busy.
const COMMANDS_WAITING: usize = 256;
/// How soon a change of the inventory is reported; what comes together is reported together.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Removals of an earlier registration that are half-way are done within this, or their disk hangs.
const REMOVALS_DEADLINE: Duration = Duration::from_secs(60);
/// How long other masters may take to say who leads, when the one that led is silent.
const ASK_OTHERS: Duration = Duration::from_millis(500);
/// How often the disks are asked for their room.
const DISKS_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait for the master to take a goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// Why a registration ended.
pub(super) enum End {
    /// The server stops.
    Stopping,
    /// The master does not know it any more.
    RegisterAgain,
    /// The master closed the stream.
    Closed,
    /// The master is silent, and the one at this address leads.
    Superseded(String),
    /// Something failed.
    Failed(WireError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Stopping => f.write_str("this server stops"),
            End::RegisterAgain => f.write_str("the master asks for a new one"),
            End::Closed => f.write_str("the master closed the stream"),
            End::Superseded(leader) => write!(f, "the master answers no beats, and {leader} leads"),
            End::Failed(error) => error.fmt(f),
        }
    }
}

struct Session {
    context: Arc<Context>,
    number: u64,
    beat_interval: Duration,
    sequence: AtomicU64,
    /// When the master said something last.
    heard: watch::Sender<Instant>,
    disks: watch::Sender<Vec<v1::DiskInfo>>,
    /// Ranges that the master wants reported anew.
    wanted: AtomicU64,
    report_wanted: Notify,
    /// Commands that wait or run.
    accepted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Lives one registration.
pub(super) async fn run(context: &Arc<Context>, masters: &[String], registered: Registered) -> End {
    let Registered { master, client, number, beat_interval } = registered;
    let mut reporter = Reporter {
        world: context.world.clone(),
        store: context.store.clone(),
        master: master.clone(),
        client,
        registration: number,
        held: None,
    };
    let session = Session {
        context: Arc::clone(context),
        number,
        beat_interval,
        sequence: AtomicU64::new(0),
        heard: watch::Sender::new(context.world.clock.now()),
        disks: watch::Sender::new(Vec::new()),
        wanted: AtomicU64::new(0),
        report_wanted: Notify::new(),
        accepted: Arc::new(Semaphore::new(COMMANDS_WAITING)),
        running: Arc::new(Semaphore::new(COMMANDS_AT_ONCE)),
    };
    let begun = {
        let begin = session.begin(&master);
        tokio::pin!(begin);
        tokio::select! {
            biased;
            begun = &mut begin => begun,
            // The master may know of this registration already, so it is given the time to hear a goodbye.
            () = context.stopping.cancelled() => match timeout(&*context.world.clock, GOODBYE_DEADLINE, begin).await {
                Ok(begun) => begun,
                Err(_late) => return End::Stopping,
            },
        }
    };
    let (to_master, mut from_master) = match begun {
        Ok(streams) => streams,
        Err(error) => return End::Failed(error),
    };
    context.registered.store(true, Ordering::Relaxed);
    let end = tokio::select! {
        biased;
        () = context.stopping.cancelled() => End::Stopping,
        end = session.hear(&mut from_master, &to_master) => end,
        end = session.beat(&to_master) => end,
        end = session.report(&mut reporter) => end,
        end = session.watch_disks() => end,
        end = session.superseded(&master, masters) => end,
    };
    context.registered.store(false, Ordering::Relaxed);
    if matches!(end, End::Stopping) {
        session.goodbye(&to_master, &mut from_master).await;
    }
    end
}

type Streams = (mpsc::Sender<v1::ServerMessage>, Streaming<v1::MasterMessage>);

impl Session {
    /// Opens the heartbeat stream, on a connection of its own and before the full report: no report ever delays a beat, however
    /// long it takes or waits for its turn.
    async fn begin(&self, master: &str) -> Result<Streams, WireError> {
        let world = &self.context.world;
        if let Ok(Ok(disks)) = timeout(&*world.clock, DISKS_INTERVAL, self.context.store.disks()).await {
            self.disks.send_replace(disks.iter().map(disk_info).collect());
        }
        let channel = connect(world, master, CONNECT_DEADLINE).await?;
        let mut client = ChunkserversClient::new(channel)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES);
        let (to_master, messages) = mpsc::channel(MESSAGES_MAX);
        self.send(&to_master, server_message::Body::Beat(self.next_beat())).await?;
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert(REGISTRATION, MetadataValue::from(self.number));
        let from_master = call(world, master, CALL_DEADLINE, client.heartbeat(request)).await?.into_inner();
        Ok((to_master, from_master))
    }

    fn next_beat(&self) -> v1::Beat {
        let context = &self.context;
        let (inventory_number, sums) = context.store.sums();
        let counts = context.store.counts();
        let scrub = context.store.scrub_status();
        v1::Beat {
            registration: self.number,
            server: context.server.to_bytes().into(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            disks: self.disks.borrow().clone(),
            inventory_number,
            chunks: counts.replicas,
            digest: sums.digest(),
            ranges: sums.ranges().to_vec(),
            active_writes: u32::try_from(context.streams.count()).unwrap_or(u32::MAX),
            active_reads: context.active_reads(),
            quarantined: counts.quarantined,
            cpu_percent: context.traffic.cpu_percent.load(Ordering::Relaxed),
            latency_us: context.traffic.latency_us(context.world.clock.now()),
            read_bytes: context.traffic.read_bytes(),
            written_bytes: context.traffic.writes.bytes(),
            scrubbed_bytes: scrub.scrubbed_bytes,
            oldest_verified_ms: scrub.oldest_verified_ms,
            copies: context.copies.progress(),
            hot: context.readers.take_most(),
        }
    }

    async fn send(&self, to: &mpsc::Sender<v1::ServerMessage>, body: server_message::Body) -> Result<(), WireError> {
        let message = v1::ServerMessage { body: Some(body) };
        match timeout(&*self.context.world.clock, DEAD_AFTER, to.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(WireError::new(ErrorCode::Unavailable, "the stream to the master has ended")),
            Err(late) => Err(WireError::new(ErrorCode::Unavailable, format!("the master takes no messages: {late}"))),
        }
    }

    async fn beat(&self, to_master: &mpsc::Sender<v1::ServerMessage>) -> End {
        let (clock, random) = (&self.context.world.clock, &self.context.world.random);
        // A tenth up or down, so that the beats of many servers do not come together.
        let tenth = self.beat_interval / 10;
        loop {
            let jitter = Duration::from_micros(random.below(2 * u64::try_from(tenth.as_micros()).unwrap_or(0)));
            clock.sleep(self.beat_interval - tenth + jitter).await;
            if let Err(error) = self.send(to_master, server_message::Body::Beat(self.next_beat())).await {
                return End::Failed(error);
            }
            self.context.traffic.beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn hear(&self, from: &mut Streaming<v1::MasterMessage>, to: &mpsc::Sender<v1::ServerMessage>) -> End {
        let silence = (self.beat_interval * 3).max(DEAD_AFTER);
        let mut watermark = ChunkId(0);
        loop {
            let message = match timeout(&*self.context.world.clock, silence, from.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return End::Closed,
                Ok(Err(status)) => return End::Failed(status.into()),
                Err(late) => {
                    let message = format!("the master answers no beats: {late}");
                    return End::Failed(WireError::new(ErrorCode::Unavailable, message));
                }
            };
            self.heard.send_replace(self.context.world.clock.now());
            match message.body {
                Some(master_message::Body::Beat(reply)) => {
                    if reply.register_again {
                        return End::RegisterAgain;
                    }
                    if reply.report_wanted {
                        let ranges = if reply.ranges_wanted == 0 { Ranges::ALL } else { Ranges(reply.ranges_wanted) };
                        self.wanted.fetch_or(ranges.0, Ordering::Relaxed);
                        self.report_wanted.notify_one();
                    }
                    let open = ChunkId(reply.open_watermark);
                    if open > watermark {
                        watermark = open;
                        self.raise_watermark(open);
                    }
                }
                Some(master_message::Body::Command(command)) => self.accept(command, to).await,
                None => debug!("a message of a kind that this release does not know"),
            }
        }
    }

    /// Completes when the master at `silent` has answered no beat for a while and another of `masters` knows that another one
    /// leads. Silence alone ends a registration much later: to register anew is dear, and the master may only be busy.
    async fn superseded(&self, silent: &str, masters: &[String]) -> End {
        let world = &self.context.world;
        let suspicious = (self.beat_interval * 3 / 2).max(SUSPECT_AFTER);
        // The stream has just been opened: that was an answer.
        self.heard.send_replace(world.clock.now());
        loop {
            let left = suspicious.saturating_sub(world.clock.now().since(*self.heard.borrow()));
            if !left.is_zero() {
                world.clock.sleep(left).await;
                continue;
            }
            if let Some(leader) = leader::elsewhere(world, masters, silent, ASK_OTHERS).await {
                return End::Superseded(leader);
            }
            world.clock.sleep(ASK_OTHERS / 2).await;
        }
    }

    /// Drops tombstones in the background: a beat's answer does not wait for the disk.
    fn raise_watermark(&self, open: ChunkId) {
        let context = Arc::clone(&self.context);
        self.context.tasks.spawn(async move {
            if let Err(error) = context.store.watermark(open).await {
                warn!("cannot drop tombstones: {error}");
            }
        });
    }

    async fn accept(&self, command: v1::Command, to_master: &mpsc::Sender<v1::ServerMessage>) {
        let id = command.id;
        let Ok(accepted) = Arc::clone(&self.accepted).try_acquire_owned() else {
            let message = format!("{COMMANDS_WAITING} commands are waiting, which is the limit; send it again later");
            let result = commands::refused(&self.context, id, WireError::new(ErrorCode::Busy, message));
            // The stream's own end shows elsewhere; the master gives the command again on the next.
            let _sent = self.send(to_master, server_message::Body::Result(result)).await;
            return;
        };
        let (context, running, to_master) = (Arc::clone(&self.context), Arc::clone(&self.running), to_master.clone());
        let registration = self.number;
        let work = async move {
            let _place = match commands::takes_a_place(&command) {
                true => running.acquire().await.ok(),
                false => None,
            };
            let result = commands::carry_out(&context, registration, command).await;
            let message = v1::ServerMessage { body: Some(server_message::Body::Result(result)) };
            let _sent = timeout(&*context.world.clock, DEAD_AFTER, to_master.send(message)).await;
            drop(accepted);
        };
        let cut = self.context.cut.clone();
        self.context.tasks.spawn(
            async move {
                tokio::select! {
                    biased;
                    () = cut.cancelled() => {}
                    () = work => {}
                }
            }
            .instrument(info_span!("command", command = id)),
        );
    }

    /// The full report, when nothing that an earlier registration ordered can change what it says any more (S7), and then
    /// what changes.
    async fn report(&self, reporter: &mut Reporter) -> End {
        let (world, removals) = (&self.context.world, self.context.removals.only_of(self.number));
        if let Err(late) = timeout(&*world.clock, REMOVALS_DEADLINE, removals).await {
            let message = format!("what was to be removed before this registration is not done: {late}");
            return End::Failed(WireError::new(ErrorCode::Busy, message));
        }
        let mut done = reporter.bring_up_to_date().await;
        // What was wanted while the first report was not there has come with it.
        self.wanted.store(0, Ordering::Relaxed);
        loop {
            if let Err(error) = done {
                return End::Failed(error);
            }
            tokio::select! {
                biased;
                () = self.report_wanted.notified() => {}
                () = world.clock.sleep(REPORT_INTERVAL) => {}
            }
            done = match Ranges(self.wanted.swap(0, Ordering::Relaxed)) {
                Ranges(0) => reporter.bring_up_to_date().await,
                wanted => reporter.report_ranges(wanted).await,
            };
        }
    }

    /// Asks the disks on its own, so that one that hangs does not stop the beats.
    async fn watch_disks(&self) -> End {
        loop {
            self.context.world.clock.sleep(DISKS_INTERVAL).await;
            match self.context.store.disks().await {
                Ok(disks) => {
                    self.disks.send_replace(disks.iter().map(disk_info).collect());
                }
                Err(error) => warn!("cannot ask the disks for their room: {error}"),
            }
        }
    }

    async fn goodbye(&self, to: &mpsc::Sender<v1::ServerMessage>, from: &mut Streaming<v1::MasterMessage>) {
        let goodbye = v1::Goodbye { server: self.context.server.to_bytes().into() };
        let taken = async {
            if self.send(to, server_message::Body::Goodbye(goodbye)).await.is_ok() {
                // The master answers by ending the stream.
                while matches!(from.message().await, Ok(Some(_))) {}
            }
        };
        let _late = timeout(&*self.context.world.clock, GOODBYE_DEADLINE, taken).await;
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The longest beat of a server with one disk, two copies under way and a million chunks.
    #[test]
    fn s9_a_beat_stays_below_a_kilobyte_at_a_million_chunks() {
        let disk = v1::DiskInfo {
            path: "/var/lib/quarry/chunkserver/disk-01".into(),
            capacity_bytes: 1 << 45,
            used_bytes: 1 << 45,
            available_bytes: 1 << 45,
            failed: true,
            failed_reason: "x".repeat(super::super::register::REASON_CHARS),
            slow: true,
            latency_us: 10_000_000,
            errors: 1 << 20,
            chunks: 1_000_000,
        };
        let beat = v1::Beat {
            registration: u64::MAX,
            server: vec![7; 16].into(),
            sequence: 1 << 40,
            disks: vec![disk],
            inventory_number: 1 << 40,
            chunks: 1_000_000,
            digest: u64::MAX,
            active_writes: 96,
            active_reads: 32,
            quarantined: 1_000_000,
            ranges: vec![u64::MAX; 64],
            cpu_percent: 100,
            latency_us: 10_000_000,
            read_bytes: 1 << 50,
            written_bytes: 1 << 50,
            copies: vec![v1::CopyProgress { chunk: 1 << 40, bytes_done: 64 << 20 }; 2],
            scrubbed_bytes: 1 << 50,
            oldest_verified_ms: 1 << 41,
            hot: vec![v1::HotChunk { chunk: 1 << 40, reads: 100_000 }; crate::readers::NAMED],
        };
        assert!(beat.encoded_len() < 1024, "{} bytes", beat.encoded_len());
    }
}
