//! Connections, bounded in number and time.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use quarry_env::{Clock, Listener, clock::Sleep, net::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::warn;

/// Connections at once; further ones wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// A connection takes requests for this long, so that one that sends nothing, or slowly, does not keep its place.
pub(crate) const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// After a failed accept (too many open files, mostly) the next try waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Bounded {
    listener: Box<dyn Listener>,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    open: Arc<Semaphore>,
}

impl Bounded {
    pub(crate) fn new(
        listener: Box<dyn Listener>,
        address: SocketAddr,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        Bounded { listener, address, clock, stop, open: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // It is never closed.
            let permit = Arc::clone(&self.open).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok(stream) => {
                    let peer = stream.peer();
                    let (life, stopped) = (self.clock.sleep(CONNECTION_LIFE), self.stop.clone().cancelled_owned());
                    return (Connection { stream, life, stopped: Box::pin(stopped), _permit: permit }, peer);
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that counts towards [`CONNECTIONS_MAX`] while it is open.
pub(crate) struct Connection {
    stream: BoxStream,
    life: Sleep,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let over = self.life.as_mut().poll(cx).is_ready() || self.stopped.as_mut().poll(cx).is_ready();
        if over {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let over = self.life.as_mut().poll(cx).is_ready() || self.stopped.as_mut().poll(cx).is_ready();
        if over {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
