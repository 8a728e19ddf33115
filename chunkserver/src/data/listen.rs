//! Takes connections, shakes hands, and starts one conversation after another.

use std::{sync::Arc, time::Duration};

use quarry_client::frames::{self, Conn, ConnError, ConnWriter, FrameWriter};
use quarry_env::{
    clock::timeout,
    net::{BoxStream, Listener},
};
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::ErrorCode;
use tokio::sync::Semaphore;
use tracing::{Instrument, debug, info, info_span, warn};

use super::{
    limits::{CONNECTIONS_MAX, HANDSHAKE_DEADLINE, IDLE_DEADLINE, LINGER, PROBE_DEADLINE, STALL_DEADLINE},
    read, whole, write,
};
use crate::server::Context;

/// Pause after the system could not give us a connection, for example for want of file handles.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest request id that is kept, in bytes.
const REQUEST_ID_BYTES: usize = 64;

/// Serves the data port until the server stops.
pub(crate) async fn serve(context: Arc<Context>, listener: Box<dyn Listener>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(e) => {
                warn!("cannot accept a connection: {e}");
                context.world.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&connections).try_acquire_owned() {
            Ok(permit) => {
                let (context, tasks) = (Arc::clone(&context), context.tasks.clone());
                let span = info_span!("conn", peer = %stream.peer());
                tasks.spawn(
                    async move {
                        tokio::select! {
                            biased;
                            () = context.cut.cancelled() => {}
                            () = connection(&context, stream) => {}
                        }
                        drop(permit);
                    }
                    .instrument(span),
                );
            }
            Err(_) => refuse(&context, stream).await,
        }
    }
}

/// Says that the limit is reached, if the caller takes it at once.
async fn refuse(context: &Context, stream: BoxStream) {
    let message = format!("{CONNECTIONS_MAX} connections are open, which is the limit; try again or elsewhere");
    let peer = stream.peer().to_string();
    warn!(peer, "connection refused: {message}");
    let mut writer = FrameWriter::new(stream, peer);
    let error = WireError::new(ErrorCode::Busy, message).of_server(context.server);
    let _told = timeout(&*context.world.clock, ACCEPT_PAUSE, writer.send(v1::ErrorDetail::from(&error))).await;
}

async fn connection(context: &Context, stream: BoxStream) {
    let cluster = context.store.identity().cluster;
    let shaken = frames::accept(stream, cluster, context.server, context.local_socket.as_deref());
    let mut conn = match timeout(&*context.world.clock, HANDSHAKE_DEADLINE, shaken).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(e)) => return info!("handshake refused: {e}"),
        Err(late) => return info!("no handshake: {late}"),
    };
    loop {
        let next = tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            next = timeout(&*context.world.clock, IDLE_DEADLINE, conn.reader.next()) => next,
        };
        let more = match next {
            Ok(Ok(Some((frame, bytes)))) => conversation(context, &mut conn, frame, bytes).await,
            Ok(Ok(None)) => false,
            Ok(Err(error @ ConnError::Frame { .. })) => {
                info!("{error}");
                fail(context, &mut conn, &error.into()).await;
                false
            }
            Ok(Err(error)) => {
                debug!("{error}");
                false
            }
            Err(idle) => {
                debug!("closing an idle connection: {idle}");
                false
            }
        };
        if !more {
            return;
        }
    }
}

/// Serves one conversation; `false` when the connection is of no further use.
async fn conversation(context: &Context, conn: &mut Conn, first: Frame, bytes: u32) -> bool {
    match first {
        Frame::OpenWrite(open) => {
            let span = info_span!("write", request_id = clean_request_id(&open.request_id));
            write::serve(context, conn, open).instrument(span).await
        }
        Frame::WriteWhole(whole) => {
            let span = info_span!("write", request_id = clean_request_id(&whole.request_id));
            whole::serve(context, conn, whole, bytes).instrument(span).await
        }
        Frame::Read(read) => {
            let span = info_span!("read", request_id = clean_request_id(&read.request_id));
            read::serve(context, &mut conn.writer, read).instrument(span).await
        }
        Frame::Probe(_) => match probe(context).await {
            Ok(()) => send(context, &mut conn.writer, v1::ProbeReply {}).await.is_ok(),
            Err(e) => tell(context, &mut conn.writer, &e.of_server(context.server)).await,
        },
        other => {
            let error = conn.reader.unexpected(&other, "OpenWrite, WriteWhole, Read or Probe");
            fail(context, conn, &error.into()).await;
            false
        }
    }
}

/// Answers for this process and for its disks.
async fn probe(context: &Context) -> Result<(), WireError> {
    match timeout(&*context.world.clock, PROBE_DEADLINE, context.store.probe()).await {
        Ok(touched) => touched.map_err(WireError::from),
        Err(late) => Err(WireError::new(ErrorCode::DeadlineExceeded, format!("the disks of this server: {late}"))),
    }
}

/// Tells an error and takes what the caller has under way, so that closing does not take the error from it.
pub(super) async fn fail(context: &Context, conn: &mut Conn, error: &WireError) {
    if tell(context, &mut conn.writer, &error.clone().of_server(context.server)).await {
        let drain = async { while matches!(conn.reader.next().await, Ok(Some(_))) {} };
        let _cut = timeout(&*context.world.clock, LINGER, drain).await;
    }
}

/// Sends a failure; `false` when it could not be sent.
pub(super) async fn tell(context: &Context, writer: &mut ConnWriter, error: &WireError) -> bool {
    send(context, writer, v1::ErrorDetail::from(error)).await.is_ok()
}

/// Sends a frame without payload.
pub(super) async fn send(context: &Context, writer: &mut ConnWriter, frame: impl Into<Frame>) -> Result<(), WireError> {
    timed(context, writer.send(frame)).await
}

/// Sends to a caller within a deadline. After it the connection is of no further use.
pub(super) async fn timed(
    context: &Context,
    sending: impl Future<Output = Result<(), ConnError>>,
) -> Result<(), WireError> {
    match timeout(&*context.world.clock, STALL_DEADLINE, sending).await {
        Ok(sent) => sent.map_err(WireError::from),
        Err(late) => Err(WireError::new(ErrorCode::DeadlineExceeded, format!("the caller takes nothing: {late}"))),
    }
}

/// A caller's request id as it may stand in a log line.
pub(super) fn clean_request_id(from: &str) -> String {
    let good = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    from.chars().filter(good).take(REQUEST_ID_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_cannot_forge_log_lines() {
        assert_eq!(clean_request_id("ab-12\n\"x\" é"), "ab-12x");
        assert_eq!(clean_request_id(&"x".repeat(1000)).len(), REQUEST_ID_BYTES);
    }
}
