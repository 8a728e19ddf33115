//! The gRPC port over the injected network.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use quarry_env::{Clock, Listener, net::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tonic::transport::server::Connected;

/// Connections open at once; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections accepted and not yet picked up by the server.
const ACCEPTED_MAX: usize = 16;
/// After a failed accept (too many open files, mostly) the next try waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that counts towards [`CONNECTIONS_MAX`] while it is open.
pub struct Connection {
    stream: BoxStream,
    _permit: OwnedSemaphorePermit,
}

/// What a request knows about the connection it came by.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        Peer(self.stream.peer())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The connections that come in, until the stream is dropped.
pub fn connections(
    listener: Box<dyn Listener>,
    clock: Arc<dyn Clock>,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    tokio::spawn(accept(listener, clock, accepted));
    tokio_stream::wrappers::ReceiverStream::new(incoming)
}

async fn accept(listener: Box<dyn Listener>, clock: Arc<dyn Clock>, accepted: mpsc::Sender<io::Result<Connection>>) {
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = open.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            biased;
            stream = listener.accept() => stream,
            () = accepted.closed() => return,
        };
        match stream {
            Ok(stream) => {
                if accepted.send(Ok(Connection { stream, _permit: permit })).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
