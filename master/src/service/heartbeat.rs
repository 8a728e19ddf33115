use std::sync::{Arc, atomic::Ordering};

use futures::{Stream, StreamExt as _};
use quarry_chunkserver_core::inventory::Ranges;
use quarry_env::clock::timeout;
use quarry_master_core::{command::ServerWish, query, settings::MAINTENANCE};
use quarry_proto::{convert, v1};
use quarry_types::{ChunkId, ErrorCode, ServerId, limits::DEAD_AFTER};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::Service;
use crate::{
    dispatch::{Outbox, STREAM_QUEUE},
    error::{Fault, fault},
    shared::{Leading, Shared},
};

/// A stream without a beat for this long is dead, whatever its connection says: the server opens another.
const SILENCE_MAX: std::time::Duration = DEAD_AFTER.saturating_mul(3);

impl Service {
    /// Opens the stream of one registration: beats and results come up, replies and commands go down.
    pub async fn heartbeat(
        &self,
        registration: Option<u64>,
        mut messages: impl Stream<Item = Result<v1::ServerMessage, Status>> + Unpin + Send + 'static,
        span: Span,
    ) -> Result<impl Stream<Item = Result<v1::MasterMessage, Status>> + Send + 'static, Fault> {
        let leading = self.shared.leading()?;
        let invalid = |why: &str| fault(ErrorCode::InvalidArgument, why);
        let registration =
            registration.ok_or_else(|| invalid("metadata quarry-registration is missing or no number"))?;
        let first = timeout(&*self.shared.world.clock, DEAD_AFTER, messages.next()).await;
        let first = first.map_err(|_| invalid("no beat came on a new heartbeat stream"))?;
        let first = first.transpose()?.and_then(|message| message.body);
        let Some(v1::server_message::Body::Beat(beat)) = first else {
            return Err(invalid("the first message of a heartbeat stream is not a beat"));
        };
        let server = convert::server(&beat.server, "server")?;
        if beat.registration != registration || !leading.soft().servers.is_registered(server, registration) {
            let why = format!("chunkserver {server} is not registered with this leader; register again");
            return Err(fault(ErrorCode::StaleLeader, why));
        }
        let (outbox, stream) = mpsc::channel(STREAM_QUEUE);
        leading.dispatch.attach(server, registration, outbox.clone());
        let link = Link { shared: self.shared.clone(), leading, server, registration, outbox };
        tokio::spawn(link.run(beat, messages).instrument(span));
        Ok(ReceiverStream::new(stream))
    }
}

/// One heartbeat stream.
struct Link {
    shared: Arc<Shared>,
    leading: Arc<Leading>,
    server: ServerId,
    registration: u64,
    outbox: Outbox,
}

impl Link {
    async fn run(
        self,
        first: v1::Beat,
        mut messages: impl Stream<Item = Result<v1::ServerMessage, Status>> + Unpin + Send,
    ) {
        let mut alive = self.beat(&first).await;
        while alive {
            let message = tokio::select! {
                biased;
                // Commands of an old leadership would be refused by now; the server has to register with the new one.
                () = self.leading.ended.cancelled() => break,
                () = self.outbox.closed() => break,
                message = timeout(&*self.shared.world.clock, SILENCE_MAX, messages.next()) => message,
            };
            alive = match message {
                Ok(Some(Ok(message))) => self.take(message.body).await,
                Ok(Some(Err(_)) | None) | Err(_) => false,
            };
        }
        tracing::info!(server = %self.server, "heartbeat stream ended");
        self.leading.dispatch.detach(self.server, self.registration, &self.outbox);
        self.leading.soft().servers.stream_ended(self.server, self.registration);
    }

    /// Whether the stream goes on.
    async fn take(&self, body: Option<v1::server_message::Body>) -> bool {
        match body {
            Some(v1::server_message::Body::Beat(beat)) => self.beat(&beat).await,
            Some(v1::server_message::Body::Result(result)) => {
                self.leading.dispatch.result(self.server, result);
                true
            }
            Some(v1::server_message::Body::Goodbye(_)) => {
                tracing::info!(server = %self.server, "chunkserver stops");
                // First what it means, then that it is gone: else its chunks would be copied in between.
                self.begin_maintenance().await;
                self.leading.soft().servers.goodbye(self.server);
                false
            }
            None => true,
        }
    }

    /// A server that stops on purpose is expected back for a while.
    async fn begin_maintenance(&self) {
        let begun = async {
            let settings = self.shared.peek(query::settings).await?;
            let for_ms = settings.get(&MAINTENANCE);
            if for_ms > 0 {
                self.shared.set_server(&self.leading, self.server, ServerWish::Maintenance, for_ms, true).await?;
            }
            Ok::<(), Fault>(())
        };
        if let Err(error) = begun.await {
            tracing::warn!(server = %self.server, %error, "the maintenance of a server that stops was not recorded");
        }
    }

    async fn beat(&self, beat: &v1::Beat) -> bool {
        let known = {
            let now = self.shared.now();
            let mut soft = self.leading.soft();
            for copy in &beat.copies {
                soft.repairing.copied_so_far(self.server, ChunkId(copy.chunk), copy.bytes_done, now);
            }
            let held = soft.locations.sums(self.server);
            let known = soft.servers.beat(self.server, beat, held, self.shared.now());
            if known.is_some() {
                let hot = beat.hot.iter().map(|hot| (ChunkId(hot.chunk), hot.reads));
                soft.repairing.balancing.hot.report(self.server, hot);
            }
            known
        };
        let reply = v1::BeatReply {
            sequence: beat.sequence,
            open_watermark: self.leading.open_watermark.load(Ordering::Acquire),
            register_again: known.is_none(),
            report_wanted: known.is_some_and(|wanted| wanted != Ranges(0)),
            ranges_wanted: known.filter(|wanted| *wanted != Ranges::ALL).map_or(0, |wanted| wanted.0),
        };
        let message = v1::MasterMessage { body: Some(v1::master_message::Body::Beat(reply)) };
        // A server that does not read its replies is as good as gone.
        let sent = timeout(&*self.shared.world.clock, DEAD_AFTER, self.outbox.send(Ok(message))).await;
        matches!(sent, Ok(Ok(()))) && known.is_some()
    }
}
