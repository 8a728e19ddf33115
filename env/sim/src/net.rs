//! The network: TCP by turmoil.
//!
//! Streams keep order and lose nothing while they stand. What can go wrong is decided by the test, through turmoil:
//! latency, `partition` (connections are refused and broken at once), `hold` (a silent black hole), and hosts that
//! crash. Outside a simulation every call fails.
//!
//! Every connection, and every piece written and read with its CRC-32, is a trace event with the target
//! [`TRACE`]: what two runs of a seed are compared by.
//!
//! A stream takes one slice at a time: turmoil's vectored write silently takes only the first, so that the streams
//! here say that they have none.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use quarry_env::{
    Listener, Net, Stream,
    net::{BoxFuture, BoxStream},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The target of this module's trace events.
pub const TRACE: &str = "quarry_sim::net";

/// The network as the turmoil host that calls sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNet;

struct SimListener {
    inner: TcpListener,
    address: SocketAddr,
}

struct SimStream {
    inner: TcpStream,
    peer: SocketAddr,
}

fn inside() -> io::Result<()> {
    if turmoil::in_simulation() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NetworkDown, "there is no simulated network outside a turmoil simulation"))
}

/// Splits `host:port` and gives the address of `host`. Unlike a resolver it knows every name: turmoil gives a new
/// one an address, to which nobody listens.
fn resolve(address: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let ip = if host == "localhost" { IpAddr::from([127, 0, 0, 1]) } else { turmoil::lookup(host) };
    Ok(SocketAddr::new(ip, port))
}

impl Net for SimNet {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            inside()?;
            let wanted = resolve(address)?;
            // turmoil binds to loopback or to everything, and a host has one address besides loopback.
            let ip = if wanted.ip().is_loopback() { wanted.ip() } else { IpAddr::from([0, 0, 0, 0]) };
            let inner = TcpListener::bind(SocketAddr::new(ip, wanted.port())).await?;
            let port = inner.local_addr()?.port();
            Ok(Box::new(SimListener { inner, address: SocketAddr::new(wanted.ip(), port) }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            inside()?;
            let peer = resolve(address)?;
            tracing::trace!(target: TRACE, %address, "connecting");
            let inner = TcpStream::connect(peer).await?;
            tracing::trace!(target: TRACE, local = %inner.local_addr()?, %peer, "connected");
            Ok(Box::new(SimStream { inner, peer }) as BoxStream)
        })
    }
}

impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            let (inner, peer) = self.inner.accept().await?;
            tracing::trace!(target: TRACE, at = %self.address, %peer, "accepted");
            Ok(Box::new(SimStream { inner, peer }) as BoxStream)
        })
    }
}

impl Stream for SimStream {
    fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl SimStream {
    fn note(&self, what: &str, outcome: Result<&[u8], &io::Error>) {
        match outcome {
            Ok(bytes) => {
                let crc = || format!("{:08x}", crc32fast::hash(bytes));
                tracing::trace!(target: TRACE, peer = %self.peer, bytes = bytes.len(), crc = crc(), "{what}");
            }
            Err(error) => tracing::trace!(target: TRACE, peer = %self.peer, %error, "not {what}"),
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(outcome) = &polled {
            let bytes = buf.filled().get(before..).unwrap_or_default();
            self.note("read", outcome.as_ref().map(|()| bytes));
        }
        polled
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(outcome) = &polled {
            self.note("wrote", outcome.as_ref().map(|n| buf.get(..*n).unwrap_or_default()));
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        if let Poll::Ready(outcome) = &polled {
            self.note("shut down", outcome.as_ref().map(|()| &[] as &[u8]));
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn outside_a_simulation_it_fails() {
        let error = SimNet.connect("server:1").await.err().expect("no network");
        assert_eq!(error.kind(), io::ErrorKind::NetworkDown);
    }

    #[test]
    fn bytes_arrive_over_a_simulated_connection() {
        let mut sim = turmoil::Builder::new().rng_seed(1).simulation_duration(Duration::from_secs(10)).build();
        sim.host("server", || async {
            let listener = SimNet.bind("server:7000").await?;
            assert_eq!(listener.local_addr()?, SocketAddr::new(turmoil::lookup("server"), 7000));
            let mut stream = listener.accept().await?;
            let mut bytes = vec![0; 300_000];
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            Ok(())
        });
        sim.client("client", async {
            let mut stream = SimNet.connect("server:7000").await?;
            let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
            stream.write_all(&bytes).await?;
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await?;
            assert!(back == bytes);
            Ok(())
        });
        sim.run().expect("both ends finish");
    }
}
