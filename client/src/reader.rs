//! A file being read.
//!
//! | module | does |
//! |---|---|
//! | `opened` | what was opened and where its chunks are |
//! | `conversation`, `from_file` | one read from one replica, each block verified; the same without its server |
//! | `range` | a range of a chunk: failover, hedging, the whole chunk's CRC |
//! | `whole`, `failures` | the verdicts, pure |
//! | `ahead` | fetching the next ranges while the present one is used |

mod ahead;
mod conversation;
mod failures;
mod from_file;
mod opened;
mod range;
mod whole;

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use quarry_types::ErrorCode;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::{ClientError, FileInfo, stale::Lookups};
use ahead::Ahead;
use opened::Opened;
use range::RangeReader;

/// What a reader did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Verified payload bytes handed out.
    pub bytes_received: u64,
    /// Of these, read from the files of servers on this machine.
    pub local_bytes: u64,
    /// How often reading went on with another replica.
    pub failovers: u64,
    /// Replicas whose bytes failed a check.
    pub corrupt: u64,
    /// How often a second replica was asked because the first was slow.
    pub hedges: u64,
}

#[derive(Default)]
struct Counters {
    bytes_received: AtomicU64,
    local_bytes: AtomicU64,
    failovers: AtomicU64,
    corrupt: AtomicU64,
    hedges: AtomicU64,
}

/// A file being read, made by [`Client::open`](crate::Client::open).
///
/// It shows the file as it was when it was opened, even if the name is replaced or removed meanwhile. Every byte was
/// verified before it is handed out: each block against its CRC, and when a chunk is read from its start to its end,
/// all of it against the CRC in the master's metadata before its last bytes are. When a replica fails, stalls or is wrong,
/// reading goes on with another from the same place.
///
/// Reading in order ([`AsyncRead`], [`FileReader::next_bytes`]) fetches up to 16 MiB ahead, two ranges at once;
/// [`FileReader::read_range`] and [`FileReader::read_at`] fetch exactly what they are asked for and can be called
/// concurrently.
///
/// # Cancelling
/// All methods may be cancelled; the reader stays usable.
pub struct FileReader {
    file: Arc<Opened>,
    ahead: Option<Ahead>,
    /// Bytes at the position, of which the first `used` were handed out.
    current: Bytes,
    used: usize,
    position: u64,
    /// A chunk of which something was handed out that may not be the recorded bytes: what is behind it is given only to who reads the
    /// chunk again from its start.
    doubted: Option<Range<u64>>,
}

impl FileReader {
    pub(crate) async fn open(lookups: &Lookups, path: &str) -> Result<Self, ClientError> {
        let file = Opened::open(lookups, path).await?;
        Ok(FileReader { file, ahead: None, current: Bytes::new(), used: 0, position: 0, doubted: None })
    }

    /// The file as it was when it was opened.
    #[must_use]
    pub fn info(&self) -> &FileInfo {
        &self.file.info
    }

    /// Bytes that can be read: of a file being written, `info().length` and what its writer got acknowledged since.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.file.length
    }

    /// The file offset at which reading in order goes on.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        let counters = &self.file.counters;
        ReadStats {
            bytes_received: counters.bytes_received.load(Ordering::Relaxed),
            local_bytes: counters.local_bytes.load(Ordering::Relaxed),
            failovers: counters.failovers.load(Ordering::Relaxed),
            corrupt: counters.corrupt.load(Ordering::Relaxed),
            hedges: counters.hedges.load(Ordering::Relaxed),
        }
    }

    /// Fills `buf` from file offset `offset`, without moving the position. Returns how many bytes were read: fewer than
    /// `buf` holds only at the end of the file.
    ///
    /// # Errors
    /// [`ErrorCode::Corrupt`] names the chunk when no replica has the right bytes; [`ErrorCode::NotFound`] when the
    /// file was removed for good; and others. `buf` may have been written to then.
    pub async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ClientError> {
        let mut filled = 0;
        let end = self.end(offset, buf.len());
        let mut at = offset;
        while at < end {
            let mut reader = self.range(at, end).await?;
            while let Some(bytes) = reader.next().await? {
                let Some(to) = buf.get_mut(filled..filled + bytes.len()) else { return Err(self.too_long()) };
                to.copy_from_slice(&bytes);
                filled += bytes.len();
                at += bytes.len() as u64;
                self.file.shared.buffers.give(bytes);
            }
        }
        Ok(filled)
    }

    /// The `length` bytes from file offset `offset` on, fewer at the end of the file. They are all held in memory.
    ///
    /// # Errors
    /// As [`FileReader::read_at`].
    pub async fn read_range(&self, offset: u64, length: usize) -> Result<Bytes, ClientError> {
        let end = self.end(offset, length);
        let mut all = BytesMut::new();
        let mut at = offset;
        while at < end {
            let mut reader = self.range(at, end).await?;
            while let Some(bytes) = reader.next().await? {
                at += bytes.len() as u64;
                if at >= end && all.is_empty() {
                    // The usual case, without a copy.
                    reader.end().await;
                    return Ok(bytes);
                }
                all.extend_from_slice(&bytes);
                self.file.shared.buffers.give(bytes);
            }
        }
        Ok(all.freeze())
    }

    /// The next bytes in order, at most 1 MiB and without copying them, or `None` at the end of the file.
    ///
    /// # Errors
    /// As [`FileReader::read_at`].
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, ClientError> {
        if !std::future::poll_fn(|cx| self.poll_current(cx)).await? {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.current);
        let rest = bytes.split_off(std::mem::take(&mut self.used));
        self.position += rest.len() as u64;
        Ok(Some(rest))
    }

    fn end(&self, offset: u64, length: usize) -> u64 {
        offset.saturating_add(length as u64).min(self.file.length)
    }

    /// Reads on from file offset `at`, at most to `end` and to the end of the chunk.
    async fn range(&self, at: u64, end: u64) -> Result<RangeReader, ClientError> {
        let part = self.file.part(at).await?;
        let to = part.to.min(part.from + (end - at));
        Ok(RangeReader::new(&self.file, part.chunk, part.from, to))
    }

    fn too_long(&self) -> ClientError {
        let doing = format!("reading {}", self.file.info.path);
        ClientError::new(ErrorCode::Internal, doing, "more bytes came than were asked for")
    }

    /// Makes sure that there are current bytes; `false` at the end of the file.
    fn poll_current(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ClientError>> {
        if self.used < self.current.len() {
            return Poll::Ready(Ok(true));
        }
        if !self.current.is_empty() {
            self.used = 0;
            self.file.shared.buffers.give(std::mem::take(&mut self.current));
        }
        let (file, position) = (&self.file, self.position);
        if self.ahead.is_none()
            && let Some(chunk) = self.doubted.take_if(|chunk| chunk.contains(&position))
            && chunk.start < position
        {
            let from = chunk.start;
            self.doubted = Some(chunk);
            let message = format!(
                "bytes that were read before are not those of the chunk at file offset {from}; discard them and read again from there"
            );
            let doing = format!("reading {}", file.info.path);
            return Poll::Ready(Err(ClientError::new(ErrorCode::Corrupt, doing, message)));
        }
        let ahead = self.ahead.get_or_insert_with(|| Ahead::new(file, position));
        match ready!(ahead.poll_next(cx)) {
            Some(Ok(bytes)) => {
                self.current = bytes;
                self.used = 0;
                Poll::Ready(Ok(true))
            }
            Some(Err(error)) => {
                // The next attempt begins at the same place, unless what is before it is in doubt.
                self.doubted = ahead.doubted().or(self.doubted.take());
                self.ahead = None;
                Poll::Ready(Err(error))
            }
            None => Poll::Ready(Ok(false)),
        }
    }

    fn seek_to(&mut self, position: u64) {
        let start = self.position - self.used as u64;
        let within = position.checked_sub(start).and_then(|n| usize::try_from(n).ok());
        if let Some(used) = within.filter(|used| *used <= self.current.len()) {
            self.used = used;
        } else {
            self.current = Bytes::new();
            self.used = 0;
            self.ahead = None;
        }
        self.position = position;
    }
}

impl AsyncRead for FileReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        if buf.remaining() > 0 && ready!(reader.poll_current(cx))? {
            let rest = reader.current.get(reader.used..).unwrap_or_default();
            let taken = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..taken]);
            reader.used += taken;
            reader.position += taken as u64;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for FileReader {
    fn start_seek(self: Pin<&mut Self>, to: io::SeekFrom) -> io::Result<()> {
        let reader = self.get_mut();
        let target = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => reader.file.length.checked_add_signed(by),
            io::SeekFrom::Current(by) => reader.position.checked_add_signed(by),
        };
        let target = target.ok_or_else(|| {
            let doing = format!("reading {}", reader.file.info.path);
            ClientError::new(ErrorCode::InvalidArgument, doing, "a seek to before the start of the file")
        })?;
        reader.seek_to(target);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader")
            .field("info", &self.file.info)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
