//! Gives out the files of sealed replicas to clients on this machine, which read them without this server.
//!
//! Only what a read over the network would be answered from is given out, under the same names: cluster, server, chunk, length
//! and CRC. Each caller gets an open file of its own, to be read only: what it does to it concerns nobody else. A file that
//! was given out goes on to be readable when the replica is deleted, as one that is being read does, so callers let it go
//! after a while; nothing here trusts that they do but the room on the disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use quarry_env::{
    clock::timeout,
    local::{BoxLocalListener, LocalListener, LocalStream},
};
use quarry_proto::{
    PROTOCOL_VERSION, WireError, convert,
    frame::{self, Frame},
    v1,
};
use quarry_types::{ChunkId, Crc32, ErrorCode, limits::CHUNK_BYTES};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::{
    limits::{
        GIVEN_OUT_MAX, LINGER, LOCAL_CONNECTIONS_MAX, LOCAL_IDLE_DEADLINE, LOCAL_MESSAGE_BYTES_MAX, STALL_DEADLINE,
    },
    listen::{ACCEPT_PAUSE, clean_request_id},
};
use crate::{
    readers::Reading,
    server::Context,
    store::{GivenOut, StoreError},
};

/// Between two looks at the data directory that the socket lies in.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Serves the local socket at `path` until the server stops, or the data directory that the socket lies in is out of service:
/// a socket keeps its file system from being unmounted.
pub(crate) async fn serve(context: Arc<Context>, listener: BoxLocalListener, path: PathBuf) {
    let open = context.stopping.child_token();
    tokio::select! {
        biased;
        () = context.stopping.cancelled() => {}
        () = until_out_of_service(&context, &path) => {
            warn!(path = %path.display(), "the local socket is closed until the next start: its disk is out of service");
        }
        () = accept(&context, &*listener, &open) => {}
    }
    open.cancel();
    // Its name is removed, on a disk that may hang.
    let _removed = timeout(&*context.world.clock, LINGER, context.world.blocking.run(move || drop(listener))).await;
}

async fn until_out_of_service(context: &Context, path: &Path) {
    loop {
        let disks = context.store.disks_seen();
        if disks.iter().any(|disk| disk.failed.is_some() && path.starts_with(&disk.path)) {
            return;
        }
        context.world.clock.sleep(LOOK_INTERVAL).await;
    }
}

async fn accept(context: &Arc<Context>, listener: &dyn LocalListener, open: &CancellationToken) {
    let connections = Arc::new(Semaphore::new(LOCAL_CONNECTIONS_MAX));
    loop {
        let accepted = listener.accept().await;
        let stream = match accepted {
            Ok(stream) => stream,
            Err(e) => {
                warn!("cannot accept a connection at the local socket: {e}");
                context.world.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Who is turned away reads over the network.
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            debug!("a local connection is turned away: {LOCAL_CONNECTIONS_MAX} are open");
            continue;
        };
        let (context, tasks, open) = (Arc::clone(context), context.tasks.clone(), open.clone());
        let serving = async move {
            tokio::select! {
                biased;
                () = open.cancelled() => {}
                () = connection(&context, &*stream) => {}
            }
            drop(permit);
        };
        tasks.spawn(serving.instrument(info_span!("local")));
    }
}

async fn connection(context: &Context, stream: &dyn LocalStream) {
    let clock = &*context.world.clock;
    // What the caller holds, as it says: a chunk counts as being read until it is let go.
    let mut held = BTreeMap::new();
    loop {
        let message = match timeout(clock, LOCAL_IDLE_DEADLINE, stream.receive(LOCAL_MESSAGE_BYTES_MAX)).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return,
            Ok(Err(e)) => return info!("the local connection broke: {e}"),
            Err(idle) => return debug!("closing an idle local connection: {idle}"),
        };
        let answer = match frame::decode_message(&message.bytes) {
            Ok(Frame::OpenLocal(open)) => answer(context, &mut held, &open).await,
            Ok(Frame::ReadLocally(read)) => {
                note(context, &mut held, &read);
                continue;
            }
            Ok(other) => return info!("a local caller sent {} where OpenLocal belongs", other.name()),
            Err(e) => return info!("a local caller sent garbage: {e}"),
        };
        let (frame, file) = match &answer {
            Ok(given) => (given.frame(), Some(given)),
            Err(error) => (v1::ErrorDetail::from(error).into(), None),
        };
        let mut bytes = BytesMut::new();
        if let Err(e) = frame::encode(&frame, 0, &mut bytes) {
            return warn!("an answer cannot be sent: {e}");
        }
        let sending = stream.send(&bytes, file.map(GivenOut::file));
        match timeout(clock, STALL_DEADLINE, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return info!("a file could not be given out: {e}"),
            Err(late) => return info!("a local caller takes nothing: {late}"),
        }
    }
}

async fn answer<'a>(
    context: &'a Context,
    held: &mut BTreeMap<ChunkId, Reading<'a>>,
    open: &v1::OpenLocal,
) -> Result<GivenOut, WireError> {
    let chunk = ChunkId(open.chunk);
    let request_id = clean_request_id(&open.request_id);
    let given = match give_out(context, open).await {
        Ok(given) => given,
        Err(error) => {
            info!(%chunk, request_id, code = %error.code, "no file is given out: {error}");
            return Err(error.of_server(context.server));
        }
    };
    debug!(%chunk, request_id, "a file is given out");
    context.traffic.given_out.fetch_add(1, Ordering::Relaxed);
    if held.len() < GIVEN_OUT_MAX {
        held.entry(chunk).or_insert_with(|| context.readers.begin(chunk));
    }
    Ok(given)
}

async fn give_out(context: &Context, open: &v1::OpenLocal) -> Result<GivenOut, WireError> {
    if open.protocol_version != PROTOCOL_VERSION {
        let message = format!(
            "the caller speaks protocol version {}, this chunkserver speaks {PROTOCOL_VERSION}; run releases that share one",
            open.protocol_version
        );
        return Err(WireError::new(ErrorCode::VersionMismatch, message));
    }
    let cluster = convert::cluster(&open.cluster, "cluster")?;
    let server = convert::server(&open.server, "server")?;
    if (Some(cluster), server) != (context.store.identity().cluster, context.server) {
        let message = format!("this is another chunkserver than {server} of cluster {cluster}");
        return Err(WireError::new(ErrorCode::Mismatch, message));
    }
    // The file is opened and its head read, as for a read over the network.
    let permit = timeout(&*context.world.clock, STALL_DEADLINE, context.reads.acquire()).await;
    let Ok(Ok(_permit)) = permit else {
        return Err(WireError::new(ErrorCode::Busy, "too many reads are under way; try again"));
    };
    let given = context.store.give_out(ChunkId(open.chunk), open.length, Crc32(open.crc)).await;
    given.map_err(|error: StoreError| error.into())
}

/// Takes what a caller says it read into the figures that balancing looks at: it is news, no account.
fn note(context: &Context, held: &mut BTreeMap<ChunkId, Reading<'_>>, read: &v1::ReadLocally) {
    let chunk = ChunkId(read.chunk);
    if held.contains_key(&chunk) {
        context.traffic.read_locally(read.bytes.min(CHUNK_BYTES), context.world.clock.now());
    }
    if read.done {
        held.remove(&chunk);
    }
}
