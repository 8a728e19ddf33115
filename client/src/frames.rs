//! Frames over a byte stream: what `quarry_proto::frame` encodes, read from and written to a connection.
//!
//! Chunkservers use this module too: for the ports they listen on and for the next member of a pipeline.
//! Nothing here has a deadline unless it says so: a caller wraps what it awaits in [`quarry_env::clock::timeout`].

use std::{
    io::{self, IoSlice},
    path::PathBuf,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use quarry_env::{
    World,
    clock::timeout,
    net::{self, BoxStream, ReadEnd, WriteEnd},
};
use quarry_proto::{
    PROTOCOL_VERSION, WireError, convert,
    frame::{self, Frame, FrameError, HEADER_BYTES, Header},
    v1,
};
use quarry_types::{ClusterId, ErrorCode, ServerId};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// A connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The stream failed or ended in the middle of something.
    #[error("the connection to {peer} broke: {source}")]
    Io {
        /// The other end.
        peer: String,
        /// What happened.
        source: io::Error,
    },
    /// The other end sent something that is no frame.
    #[error("{peer} sent garbage: {source}")]
    Frame {
        /// The other end.
        peer: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The other end sent a frame that does not belong here.
    #[error("{peer} sent {got} where {wanted} belongs")]
    Unexpected {
        /// The other end.
        peer: String,
        /// What it sent.
        got: &'static str,
        /// What was expected.
        wanted: &'static str,
    },
    /// What the other end sent is not what was asked for, or damaged. More of it may be on its way.
    #[error("{peer} sent what does not belong there: {source}")]
    Wrong {
        /// The other end.
        peer: String,
        /// What is wrong with it.
        source: WireError,
    },
    /// Connecting and shaking hands took too long.
    #[error("{peer} did not answer within {limit:?}")]
    Timeout {
        /// The other end.
        peer: String,
        /// The limit.
        limit: Duration,
    },
    /// The other end refused.
    #[error("{peer} refused: {source}")]
    Refused {
        /// The other end.
        peer: String,
        /// Its reason.
        source: WireError,
    },
}

impl From<ConnError> for WireError {
    fn from(from: ConnError) -> Self {
        let code = match &from {
            ConnError::Refused { source, .. } | ConnError::Wrong { source, .. } => source.code,
            ConnError::Timeout { .. } => ErrorCode::DeadlineExceeded,
            ConnError::Io { .. } => ErrorCode::Unavailable,
            ConnError::Frame { .. } | ConnError::Unexpected { .. } => ErrorCode::InvalidArgument,
        };
        let server = match &from {
            ConnError::Refused { source, .. } | ConnError::Wrong { source, .. } => source.server,
            _ => None,
        };
        WireError { server, ..WireError::new(code, from.to_string()) }
    }
}

/// Read at once, in bytes: a header and its meta, mostly. Longer reads go straight to where the bytes are wanted.
const READ_AHEAD_BYTES: usize = 4096;

/// Of a long payload, whoever waits for it is woken for so many bytes at once: each time costs as much as copying some ten thousand.
const WAKE_AT_BYTES: usize = 256 << 10;

/// Reads frames.
pub struct FrameReader<R> {
    from: BufReader<R>,
    peer: String,
    meta: BytesMut,
    payload_left: u32,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `from`; `peer` names the other end in errors.
    pub fn new(from: R, peer: impl Into<String>) -> Self {
        let from = BufReader::with_capacity(READ_AHEAD_BYTES, from);
        FrameReader { from, peer: peer.into(), meta: BytesMut::new(), payload_left: 0 }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The next frame and the bytes of payload that follow it, or `None` when the stream ended between two
    /// frames. Payload of the frame before that was not read is skipped. Not cancel-safe: after dropping the
    /// future, drop the connection.
    ///
    /// # Errors
    /// [`ConnError::Io`], [`ConnError::Frame`].
    pub async fn next(&mut self) -> Result<Option<(Frame, u32)>, ConnError> {
        self.skip_payload().await?;
        let mut head = [0; HEADER_BYTES];
        let (first, rest) = head.split_at_mut(1);
        match self.from.read(first).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(self.io(e)),
        }
        self.from.read_exact(rest).await.map_err(|e| self.io(e))?;
        let header = Header::decode(&head).map_err(|e| self.garbage(e))?;
        self.meta.resize(header.meta_bytes(), 0);
        self.from.read_exact(&mut self.meta).await.map_err(|source| io_error(&self.peer, source))?;
        let frame = header.frame(&self.meta).map_err(|e| self.garbage(e))?;
        self.payload_left = header.payload_bytes();
        Ok(Some((frame, self.payload_left)))
    }

    /// The next frame without waiting for it, if all of it is here, it has no payload and is `wanted`; else nothing is taken.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ConnError::Io`]. What is no frame is left for [`FrameReader::next`] to say.
    pub async fn at_hand<T>(&mut self, wanted: impl FnOnce(Frame) -> Option<T>) -> Result<Option<T>, ConnError> {
        if self.payload_left > 0 {
            return Ok(None);
        }
        let from = &mut self.from;
        let filled = std::future::poll_fn(|cx| match Pin::new(&mut *from).poll_fill_buf(cx) {
            Poll::Ready(filled) => Poll::Ready(filled.map(drop)),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        filled.await.map_err(|e| io_error(&self.peer, e))?;
        let here = self.from.buffer();
        let Some((head, rest)) = here.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let Ok(header) = Header::decode(head) else { return Ok(None) };
        let Some(meta) = rest.get(..header.meta_bytes()).filter(|_| header.payload_bytes() == 0) else {
            return Ok(None);
        };
        let Ok(frame) = header.frame(meta) else { return Ok(None) };
        let wanted = wanted(frame);
        if wanted.is_some() {
            let taken = HEADER_BYTES + header.meta_bytes();
            self.from.consume(taken);
        }
        Ok(wanted)
    }

    /// The next frame, where the stream must not end and a `Failure` is an error.
    ///
    /// # Errors
    /// As [`FrameReader::next`]; [`ConnError::Refused`] with what a `Failure` frame says.
    pub async fn expect(&mut self) -> Result<(Frame, u32), ConnError> {
        match self.next().await? {
            None => Err(self.io(io::ErrorKind::UnexpectedEof.into())),
            Some((Frame::Failure(detail), _)) => {
                Err(ConnError::Refused { peer: self.peer.clone(), source: detail.into() })
            }
            Some(other) => Ok(other),
        }
    }

    /// Fills `part` with the next bytes of the payload; call it repeatedly to handle a payload while it arrives.
    /// Not cancel-safe.
    ///
    /// # Errors
    /// [`ConnError::Io`]; also when `part` is longer than what is left of the payload.
    pub async fn payload(&mut self, part: &mut [u8]) -> Result<(), ConnError> {
        let left = u32::try_from(part.len()).ok().and_then(|n| self.payload_left.checked_sub(n));
        let Some(left) = left else {
            return Err(self.io(io::Error::new(io::ErrorKind::InvalidInput, "read past a frame's payload")));
        };
        self.from.read_exact(part).await.map_err(|e| self.io(e))?;
        self.payload_left = left;
        Ok(())
    }

    /// An error that says which frame came instead of the one wanted.
    pub fn unexpected(&self, got: &Frame, wanted: &'static str) -> ConnError {
        ConnError::Unexpected { peer: self.peer.clone(), got: got.name(), wanted }
    }

    async fn skip_payload(&mut self) -> Result<(), ConnError> {
        let mut sink = [0; 4096];
        while self.payload_left > 0 {
            let part = sink.len().min(self.payload_left as usize);
            self.payload(&mut sink[..part]).await?;
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> ConnError {
        io_error(&self.peer, source)
    }

    fn garbage(&self, source: FrameError) -> ConnError {
        ConnError::Frame { peer: self.peer.clone(), source }
    }
}

/// Writes frames.
pub struct FrameWriter<W> {
    to: W,
    peer: String,
    /// The beginning of a frame that waits for its first bytes of payload, so that both leave at once.
    head: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `to`; `peer` names the other end in errors.
    pub fn new(to: W, peer: impl Into<String>) -> Self {
        FrameWriter { to, peer: peer.into(), head: BytesMut::new() }
    }

    /// Sends a frame without payload. Not cancel-safe.
    ///
    /// # Errors
    /// [`ConnError::Io`], [`ConnError::Frame`].
    pub async fn send(&mut self, frame: impl Into<Frame>) -> Result<(), ConnError> {
        self.begin(frame, 0).await?;
        self.flush().await
    }

    /// Begins a frame, of which `payload_bytes` must follow through [`FrameWriter::payload`]. It leaves with the first of them,
    /// or with [`FrameWriter::flush`]. Not cancel-safe.
    ///
    /// # Errors
    /// [`ConnError::Io`], [`ConnError::Frame`].
    pub async fn begin(&mut self, frame: impl Into<Frame>, payload_bytes: u32) -> Result<(), ConnError> {
        self.write(&[]).await?;
        frame::encode(&frame.into(), payload_bytes, &mut self.head)
            .map_err(|source| ConnError::Frame { peer: self.peer.clone(), source })
    }

    /// Sends the next part of a payload. Not cancel-safe.
    ///
    /// # Errors
    /// [`ConnError::Io`].
    pub async fn payload(&mut self, part: &[u8]) -> Result<(), ConnError> {
        self.write(part).await
    }

    /// Sends the last part of a payload, and a frame without payload right behind it. Not cancel-safe.
    ///
    /// # Errors
    /// [`ConnError::Io`], [`ConnError::Frame`].
    pub async fn payload_and_send(&mut self, part: &[u8], frame: impl Into<Frame>) -> Result<(), ConnError> {
        let mut tail = BytesMut::new();
        frame::encode(&frame.into(), 0, &mut tail)
            .map_err(|source| ConnError::Frame { peer: self.peer.clone(), source })?;
        self.write_all(part, &tail).await?;
        self.flush().await
    }

    /// Writes what waits, and `part` behind it.
    async fn write(&mut self, part: &[u8]) -> Result<(), ConnError> {
        self.write_all(part, &[]).await
    }

    async fn write_all(&mut self, part: &[u8], tail: &[u8]) -> Result<(), ConnError> {
        let head = std::mem::take(&mut self.head);
        let mut rest = [&head[..], part, tail];
        while rest.iter().any(|slice| !slice.is_empty()) {
            // A stream that takes one slice at a time takes the first that is not empty.
            let taken = self.to.write_vectored(&rest.map(IoSlice::new)).await;
            let mut taken = match taken {
                Ok(0) => return Err(io_error(&self.peer, io::ErrorKind::WriteZero.into())),
                Ok(taken) => taken,
                Err(e) => return Err(io_error(&self.peer, e)),
            };
            for slice in &mut rest {
                let of_slice = taken.min(slice.len());
                *slice = slice.get(of_slice..).unwrap_or_default();
                taken -= of_slice;
            }
        }
        self.head = head;
        self.head.clear();
        Ok(())
    }

    /// Hands everything sent so far to the network.
    ///
    /// # Errors
    /// [`ConnError::Io`].
    pub async fn flush(&mut self) -> Result<(), ConnError> {
        self.write(&[]).await?;
        self.to.flush().await.map_err(|e| io_error(&self.peer, e))
    }
}

fn io_error(peer: &str, source: io::Error) -> ConnError {
    ConnError::Io { peer: peer.into(), source }
}

/// The reading half of a connection.
pub type ConnReader = FrameReader<ReadEnd>;
/// The writing half of a connection.
pub type ConnWriter = FrameWriter<WriteEnd>;

impl ConnReader {
    /// Reads what is there of a long payload, at least one byte, to the beginning of `part`; how many bytes. Whoever waits is woken
    /// for many bytes at once, as far as the payload goes. Read the payload to its end with it, or drop the connection: what
    /// is read in another way would wait for as many bytes. Not cancel-safe.
    ///
    /// # Errors
    /// As [`FrameReader::payload`].
    pub async fn some_payload(&mut self, part: &mut [u8]) -> Result<usize, ConnError> {
        let left = part.len().min(self.payload_left as usize);
        let part = part.get_mut(..left).unwrap_or_default();
        if part.is_empty() {
            return Err(self.io(io::Error::new(io::ErrorKind::InvalidInput, "read past a frame's payload")));
        }
        // What is buffered here will not come any more; what comes behind `part` will.
        let to_come = (self.payload_left as usize).saturating_sub(self.from.buffer().len()).clamp(1, WAKE_AT_BYTES);
        self.from.get_ref().wake_at(to_come);
        let read = self.from.read(part).await.map_err(|e| self.io(e))?;
        if read == 0 {
            return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.payload_left -= read as u32;
        if self.payload_left == 0 {
            self.from.get_ref().wake_at(1);
        }
        Ok(read)
    }

    /// Whoever waits is woken for whatever comes: for a payload that [`ConnReader::some_payload`] did not read to its end.
    pub fn wake_for_anything(&self) {
        self.from.get_ref().wake_at(1);
    }

    /// Fills `part` as [`FrameReader::payload`] does, and waits as [`ConnReader::some_payload`] does.
    ///
    /// # Errors
    /// As [`FrameReader::payload`].
    pub async fn long_payload(&mut self, part: &mut [u8]) -> Result<(), ConnError> {
        let mut filled = 0;
        while let Some(rest) = part.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += self.some_payload(rest).await?;
        }
        Ok(())
    }
}

/// A connection that has shaken hands.
pub struct Conn {
    /// The reading half.
    pub reader: ConnReader,
    /// The writing half.
    pub writer: ConnWriter,
    /// Where the server gives out files, if it said so when the connection was made.
    pub local_socket: Option<PathBuf>,
    /// Whether the server knows [`v1::WriteWhole`].
    pub takes_whole: bool,
}

impl Conn {
    fn new(stream: BoxStream, peer: &str) -> Self {
        let (from, to) = net::split(stream);
        Conn {
            reader: FrameReader::new(from, peer),
            writer: FrameWriter::new(to, peer),
            local_socket: None,
            takes_whole: false,
        }
    }
}

/// Connects to the data port at `address` and makes sure that `server` of `cluster` is there, all within
/// `deadline`. Cancel-safe.
///
/// # Errors
/// [`ConnError`]; [`ConnError::Refused`] with [`ErrorCode::Mismatch`] when somebody else is there.
pub async fn connect(
    world: &World,
    address: &str,
    cluster: ClusterId,
    server: ServerId,
    deadline: Duration,
) -> Result<Conn, ConnError> {
    let making = async {
        let stream = world.net.connect(address).await.map_err(|e| io_error(address, e))?;
        let same_machine = stream.same_machine();
        let mut conn = Conn::new(stream, address);
        let hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster: cluster.to_bytes().into(),
            server: server.to_bytes().into(),
        };
        conn.writer.send(hello).await?;
        let (answer, _) = conn.reader.expect().await?;
        let Frame::HelloReply(reply) = answer else {
            return Err(conn.reader.unexpected(&answer, "HelloReply"));
        };
        if same_machine && !reply.local_socket.is_empty() {
            conn.local_socket = Some(reply.local_socket.into());
        }
        conn.takes_whole = reply.takes_whole;
        let refused = |source| ConnError::Refused { peer: address.into(), source };
        let there = convert::server(&reply.server, "server").map_err(refused)?;
        let of = convert::cluster(&reply.cluster, "cluster").map_err(refused)?;
        if (there, of) != (server, cluster) {
            let message = format!("chunkserver {there} of cluster {of} answers where {server} of {cluster} should be");
            return Err(refused(WireError::new(ErrorCode::Mismatch, message)));
        }
        Ok(conn)
    };
    let limit = deadline;
    timeout(&*world.clock, limit, making)
        .await
        .unwrap_or_else(|_| Err(ConnError::Timeout { peer: address.into(), limit }))
}

/// Shakes hands with a caller, as `server` of `cluster` (`None` while the server has not been adopted by one).
/// A caller who wants somebody else is told so; one on this machine is told of `local_socket`. Has no deadline of its own.
///
/// # Errors
/// [`ConnError`]; the caller has been told then, where it could be.
pub async fn accept(
    stream: BoxStream,
    cluster: Option<ClusterId>,
    server: ServerId,
    local_socket: Option<&str>,
) -> Result<Conn, ConnError> {
    let peer = stream.peer().to_string();
    let local_socket = local_socket.filter(|_| stream.same_machine()).unwrap_or_default().to_owned();
    let mut conn = Conn::new(stream, &peer);
    let (first, _) = conn.reader.expect().await?;
    let Frame::Hello(hello) = first else {
        return Err(conn.reader.unexpected(&first, "Hello"));
    };
    if let Err(source) = check_hello(&hello, cluster, server) {
        conn.writer.send(v1::ErrorDetail::from(&source)).await?;
        return Err(ConnError::Refused { peer, source });
    }
    let reply = v1::HelloReply {
        protocol_version: PROTOCOL_VERSION,
        cluster: hello.cluster,
        server: server.to_bytes().into(),
        local_socket,
        takes_whole: true,
    };
    conn.writer.send(reply).await?;
    Ok(conn)
}

fn check_hello(hello: &v1::Hello, cluster: Option<ClusterId>, server: ServerId) -> Result<(), WireError> {
    if hello.protocol_version != PROTOCOL_VERSION {
        let message = format!(
            "the caller speaks protocol version {}, chunkserver {server} speaks {PROTOCOL_VERSION}; run releases that \
             share one",
            hello.protocol_version
        );
        return Err(WireError::new(ErrorCode::VersionMismatch, message).of_server(server));
    }
    let wanted_cluster = convert::cluster(&hello.cluster, "cluster")?;
    let wanted = convert::server(&hello.server, "server")?;
    let Some(cluster) = cluster else {
        let message = format!("chunkserver {server} has not registered with a master yet");
        return Err(WireError::new(ErrorCode::Unavailable, message).of_server(server));
    };
    if (wanted, wanted_cluster) != (server, cluster) {
        let message =
            format!("this is chunkserver {server} of cluster {cluster}, not {wanted} of cluster {wanted_cluster}");
        return Err(WireError::new(ErrorCode::Mismatch, message).of_server(server));
    }
    Ok(())
}
