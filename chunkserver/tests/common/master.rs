//! A master whose decisions the test makes.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use quarry_env::World;
use quarry_proto::{
    WireError, convert, signed,
    v1::{
        self,
        chunkservers_server::{Chunkservers, ChunkserversServer},
        command, master_message, server_message,
    },
};
use quarry_types::{ErrorCode, Leadership, ServerId};
use tokio::sync::{Notify, mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status, Streaming};

use super::{cluster, key};

#[derive(Default)]
pub struct Seen {
    pub registrations: Vec<v1::Registration>,
    pub pages: Vec<v1::InventoryPage>,
    pub beats: BTreeMap<ServerId, v1::Beat>,
    pub results: BTreeMap<u64, v1::CommandResult>,
    pub goodbyes: Vec<ServerId>,
    commands: BTreeMap<ServerId, mpsc::Sender<Result<v1::MasterMessage, Status>>>,
    next_command: u64,
}

pub struct Inner {
    pub seen: Mutex<Seen>,
    pub leader_hint: Mutex<Option<String>>,
    pub leadership: Mutex<Leadership>,
    /// Reports that are refused as busy before others are taken.
    pub busy: Mutex<u32>,
    /// Ranges that the next answer to a beat asks for.
    pub wanted: Mutex<u64>,
    changed: Notify,
    down: CancellationToken,
}

/// The running fake.
pub struct Master {
    pub inner: Arc<Inner>,
    pub address: String,
    serving: AbortOnDropHandle<()>,
}

impl Master {
    pub async fn start(_: &World, leadership: Leadership) -> Master {
        Self::start_at("127.0.0.1:0", leadership).await
    }

    #[expect(clippy::disallowed_methods, reason = "the fake is not part of what is tested")]
    pub async fn start_at(address: &str, leadership: Leadership) -> Master {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let down = CancellationToken::new();
        let inner = Arc::new(Inner {
            seen: Mutex::default(),
            leader_hint: Mutex::default(),
            leadership: Mutex::new(leadership),
            busy: Mutex::default(),
            wanted: Mutex::default(),
            changed: Notify::new(),
            down: down.clone(),
        });
        let service = ChunkserversServer::new(Service(Arc::clone(&inner)));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                out = serving => out.unwrap(),
                () = down.cancelled() => {}
            }
        }));
        Master { inner, address, serving }
    }

    /// Ends it; its address is free on return.
    pub async fn stop(mut self) {
        self.inner.down.cancel();
        let _ended = (&mut self.serving).await;
    }

    /// Waits until `look` finds something in what was seen.
    pub async fn until<T>(&self, mut look: impl FnMut(&mut Seen) -> Option<T>) -> T {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.inner.seen.lock().unwrap()) {
                return found;
            }
            changed.await;
        }
    }

    pub async fn beat_of(&self, server: ServerId) -> v1::Beat {
        self.until(|seen| seen.beats.get(&server).cloned()).await
    }

    /// Waits for the end of a full report.
    pub async fn report_of(&self, server: ServerId) {
        let full = |page: &v1::InventoryPage| page.full && page.last && page.server == server.to_bytes().as_slice();
        self.until(|seen| seen.pages.iter().any(full).then_some(())).await;
    }

    /// Gives a command with the proof of `leadership` and waits for the result.
    pub async fn command(&self, server: ServerId, leadership: Leadership, body: command::Body) -> v1::CommandResult {
        let id = self.give(server, proof(server, leadership), body).await;
        super::soon(self.until(|seen| seen.results.remove(&id))).await
    }

    /// Gives a command with any proof.
    pub async fn give(&self, server: ServerId, leadership: v1::Signed, body: command::Body) -> u64 {
        let (id, to) = {
            let mut seen = self.inner.seen.lock().unwrap();
            seen.next_command += 1;
            (seen.next_command, seen.commands[&server].clone())
        };
        let command = v1::Command { id, leadership: Some(leadership), body: Some(body) };
        to.send(Ok(v1::MasterMessage { body: Some(master_message::Body::Command(command)) })).await.unwrap();
        id
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.inner.down.cancel();
        self.inner.seen.lock().unwrap().commands.clear();
    }
}

pub fn proof(server: ServerId, leadership: Leadership) -> v1::Signed {
    let proof = v1::LeadershipProof {
        cluster: cluster().to_bytes().into(),
        server: server.to_bytes().into(),
        leadership: Some(leadership.into()),
    };
    signed::sign(&key(), &proof)
}

impl Inner {
    fn take_busy(&self) -> Option<u32> {
        let mut busy = self.busy.lock().unwrap();
        *busy = busy.checked_sub(1)?;
        Some(*busy)
    }
}

struct Service(Arc<Inner>);

#[tonic::async_trait]
impl Chunkservers for Service {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterReply>, Status> {
        if let Some(leader) = self.0.leader_hint.lock().unwrap().clone() {
            return Err(WireError { leader: Some(leader), ..WireError::new(ErrorCode::NotLeader, "not me") }.into());
        }
        let signed = request.into_inner().registration.unwrap();
        let registration: v1::Registration = signed::open(&key(), &signed)?;
        let server = convert::server(&registration.server, "server")?;
        let leadership = proof(server, *self.0.leadership.lock().unwrap());
        let number = {
            let mut seen = self.0.seen.lock().unwrap();
            seen.registrations.push(registration);
            seen.registrations.len() as u64
        };
        self.0.changed.notify_waiters();
        Ok(Response::new(v1::RegisterReply {
            leadership: Some(leadership),
            cluster: cluster().to_bytes().into(),
            beat_interval_ms: 100,
            registration: number,
        }))
    }

    async fn report(
        &self,
        request: Request<Streaming<v1::InventoryPage>>,
    ) -> Result<Response<v1::ReportReply>, Status> {
        let mut pages = request.into_inner();
        let mut number = 0;
        if let Some(left) = self.0.take_busy() {
            return Err(WireError::new(ErrorCode::Busy, format!("{left} more times")).into());
        }
        while let Some(page) = pages.message().await? {
            number = page.number + if page.full { 0 } else { page.replicas.len() as u64 };
            self.0.seen.lock().unwrap().pages.push(page);
        }
        self.0.changed.notify_waiters();
        Ok(Response::new(v1::ReportReply { number, full_wanted: false }))
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<v1::MasterMessage, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::ServerMessage>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        assert!(request.metadata().contains_key("quarry-registration"));
        let mut from = request.into_inner();
        let (to, messages) = mpsc::channel(64);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Some(Ok(message)) = from.next().await {
                match message.body.unwrap() {
                    server_message::Body::Beat(beat) => {
                        let server = convert::server(&beat.server, "server").unwrap();
                        let ranges_wanted = std::mem::take(&mut *inner.wanted.lock().unwrap());
                        let report_wanted = ranges_wanted != 0;
                        let sequence = beat.sequence;
                        let reply = v1::BeatReply { sequence, report_wanted, ranges_wanted, ..Default::default() };
                        {
                            let mut seen = inner.seen.lock().unwrap();
                            seen.beats.insert(server, beat);
                            seen.commands.insert(server, to.clone());
                        }
                        let reply = v1::MasterMessage { body: Some(master_message::Body::Beat(reply)) };
                        if to.send(Ok(reply)).await.is_err() {
                            break;
                        }
                    }
                    server_message::Body::Result(result) => {
                        inner.seen.lock().unwrap().results.insert(result.id, result);
                    }
                    server_message::Body::Goodbye(goodbye) => {
                        let server = convert::server(&goodbye.server, "server").unwrap();
                        let mut seen = inner.seen.lock().unwrap();
                        seen.goodbyes.push(server);
                        seen.commands.remove(&server);
                        break;
                    }
                }
                inner.changed.notify_waiters();
            }
            inner.changed.notify_waiters();
        });
        let down = self.0.down.clone();
        let messages =
            futures::StreamExt::take_until(ReceiverStream::new(messages), async move { down.cancelled().await });
        Ok(Response::new(Box::pin(messages)))
    }
}
