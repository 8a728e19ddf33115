//! A network that a test can take away from one member.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use quarry_env::{
    Listener, Net, Stream, World,
    net::{BoxFuture, BoxStream},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Which connections of a member fail, old and new ones.
#[derive(Clone, Default)]
pub struct Cut {
    /// Those that it makes: what it says reaches nobody.
    pub calls: Arc<AtomicBool>,
    /// Those that others make to it: what they say does not reach it.
    pub served: Arc<AtomicBool>,
}

impl Cut {
    /// This world with a network that can be cut.
    pub fn in_world(&self, world: &World) -> World {
        World { net: Arc::new(CutNet { net: world.net.clone(), cut: self.clone() }), ..world.clone() }
    }

    pub fn off(&self, off: bool) {
        self.calls.store(off, Ordering::SeqCst);
        self.served.store(off, Ordering::SeqCst);
    }

    pub fn deaf(&self, deaf: bool) {
        self.served.store(deaf, Ordering::SeqCst);
    }
}

struct CutNet {
    net: Arc<dyn Net>,
    cut: Cut,
}

struct CutListener {
    listener: Box<dyn Listener>,
    cut: Arc<AtomicBool>,
}

struct CutStream {
    stream: BoxStream,
    cut: Arc<AtomicBool>,
}

fn check(cut: &AtomicBool) -> io::Result<()> {
    if cut.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
}

impl Net for CutNet {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async {
            let listener = self.net.bind(address).await?;
            Ok(Box::new(CutListener { listener, cut: self.cut.served.clone() }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async {
            check(&self.cut.calls)?;
            let stream = self.net.connect(address).await?;
            Ok(Box::new(CutStream { stream, cut: self.cut.calls.clone() }) as BoxStream)
        })
    }
}

impl Listener for CutListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async {
            let stream = self.listener.accept().await?;
            Ok(Box::new(CutStream { stream, cut: self.cut.clone() }) as BoxStream)
        })
    }
}

impl Stream for CutStream {
    fn peer(&self) -> SocketAddr {
        self.stream.peer()
    }
}

impl AsyncRead for CutStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // What came while nobody could hear it is not heard later.
        if read.is_ready() { Poll::Ready(check(&self.cut)) } else { read }
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        check(&self.cut)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
