//! Asking a server on this machine for the file of a chunk.

use std::{io, path::Path};

use bytes::BytesMut;
use quarry_env::{
    DiskFile, World,
    local::{BoxLocalStream, LocalMessage, LocalStream},
};
use quarry_proto::{
    PROTOCOL_VERSION, WireError,
    frame::{self, Frame, FrameError, MESSAGE_BYTES_MAX},
    v1,
};
use quarry_types::{ChunkSums, Crc32, limits::BLOCK_BYTES};

use crate::{ChunkInfo, pool::Target};

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoFile {
    /// The server says so.
    #[error("{0}")]
    Refused(WireError),
    /// There is no talking to it.
    #[error("the local socket: {0}")]
    Io(#[from] io::Error),
    /// It does not speak the protocol.
    #[error("the local socket sent garbage: {0}")]
    Frame(#[from] FrameError),
    /// What it gave is not what was asked for.
    #[error("a file came that {0}")]
    Wrong(&'static str),
    /// It is not on this machine, or was of no use a moment ago.
    #[error("no local socket")]
    Nowhere,
    /// It took too long.
    #[error("the local socket did not answer in time")]
    Late,
}

/// The file of a sealed replica, with checksums that combine to the recorded CRC.
pub(crate) struct ChunkFile {
    pub(super) file: Box<dyn DiskFile>,
    /// Where in the file the chunk begins.
    pub(super) start: u64,
    /// Of each block.
    pub(super) crcs: Vec<Crc32>,
}

/// Asks for the file of `chunk`. `conn` is used when it is there, and is left there when it can be used again.
pub(super) async fn ask(
    world: &World,
    path: &Path,
    conn: &mut Option<BoxLocalStream>,
    target: &Target,
    chunk: &ChunkInfo,
    request_id: &str,
) -> Result<ChunkFile, NoFile> {
    let request = encode(v1::OpenLocal {
        protocol_version: PROTOCOL_VERSION,
        cluster: target.cluster.to_bytes().into(),
        server: target.server.to_bytes().into(),
        chunk: chunk.id.0,
        length: chunk.length,
        crc: chunk.crc.0,
        request_id: request_id.to_owned(),
    })?;
    // It is put back only behind an answer: whoever drops this future leaves no half conversation for the next.
    let before = conn.take();
    let answered = match before {
        // The server closes connections that it has not heard of for a while.
        Some(stream) => talk(&*stream, &request).await.ok().map(|answer| (answer, stream)),
        None => None,
    };
    let (answer, stream) = match answered {
        Some(answered) => answered,
        None => {
            let stream = world.net.connect_local(path)?;
            (talk(&*stream, &request).await?, stream)
        }
    };
    let frame = frame::decode_message(&answer.bytes)?;
    *conn = Some(stream);
    match (frame, answer.file) {
        (Frame::LocalFile(about), Some(file)) => check(chunk, &about, file),
        (Frame::LocalFile(_), None) => Err(NoFile::Wrong("was announced and did not come")),
        (Frame::Failure(detail), _) => Err(NoFile::Refused(detail.into())),
        _ => Err(NoFile::Wrong("was not asked for")),
    }
}

async fn talk(stream: &dyn LocalStream, request: &[u8]) -> io::Result<LocalMessage> {
    stream.send(request, None).await?;
    stream.receive(MESSAGE_BYTES_MAX).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Only checksums that combine to the recorded CRC vouch for what is read (S3).
fn check(chunk: &ChunkInfo, about: &v1::LocalFile, file: Box<dyn DiskFile>) -> Result<ChunkFile, NoFile> {
    let crcs: Vec<Crc32> = about.block_crcs.iter().map(|crc| Crc32(*crc)).collect();
    if crcs.len() as u64 != chunk.length.div_ceil(BLOCK_BYTES) {
        return Err(NoFile::Wrong("has checksums for another length"));
    }
    let sums = ChunkSums::from_blocks(crcs.clone(), chunk.length);
    if sums.is_none_or(|sums| sums.combined() != chunk.crc) {
        return Err(NoFile::Wrong("has checksums that do not make the recorded CRC"));
    }
    let end = about.data_offset.checked_add(chunk.length);
    if !end.is_some_and(|end| file.len().is_ok_and(|there| there >= end)) {
        return Err(NoFile::Wrong("is shorter than the chunk"));
    }
    Ok(ChunkFile { file, start: about.data_offset, crcs })
}

/// A message.
pub(super) fn encode(frame: impl Into<Frame>) -> Result<BytesMut, FrameError> {
    let mut bytes = BytesMut::new();
    frame::encode(&frame.into(), 0, &mut bytes)?;
    Ok(bytes)
}
