use std::sync::{Arc, atomic::Ordering};

use futures::{Stream, StreamExt as _};
use quarry_env::clock::timeout;
use quarry_proto::{convert, v1};
use quarry_types::{ErrorCode, ServerId, limits::DEAD_AFTER};
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
                self.leading.soft().servers.goodbye(self.server);
                false
            }
            None => true,
        }
    }

    async fn beat(&self, beat: &v1::Beat) -> bool {
        let known = {
            let mut soft = self.leading.soft();
            let held = soft.locations.number(self.server).map(|n| (n, soft.locations.digest(self.server)));
            soft.servers.beat(self.server, beat, held, self.shared.now())
        };
        let reply = v1::BeatReply {
            sequence: beat.sequence,
            open_watermark: self.leading.open_watermark.load(Ordering::Acquire),
            register_again: known.is_none(),
            report_wanted: known == Some(true),
        };
        let message = v1::MasterMessage { body: Some(v1::master_message::Body::Beat(reply)) };
        // A server that does not read its replies is as good as gone.
        let sent = timeout(&*self.shared.world.clock, DEAD_AFTER, self.outbox.send(Ok(message))).await;
        matches!(sent, Ok(Ok(()))) && known.is_some()
    }
}
