//! The metadata as a file: a checkpoint of the state, read in pieces.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use quarry_env::{DiskFile, OpenMode, World, clock::timeout};
use quarry_proto::{
    backup::{PIECE_BYTES, Writer},
    v1,
};
use quarry_types::ErrorCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, Span};

use super::Service;
use crate::{
    error::{Fault, fault, job_lost},
    store::{Mark, Snapshot},
};

/// Pieces read ahead of the one who takes them.
const PIECES_AHEAD: usize = 4;
/// One who takes nothing for so long is gone: the checkpoint keeps room on the disk.
const TAKE_DEADLINE: Duration = Duration::from_secs(60);

impl Service {
    /// The metadata with everything that was acknowledged before this call, as the bytes of a backup file. The files of the
    /// checkpoint stay until the stream is dropped or has ended.
    pub async fn backup(&self, span: Span) -> Result<impl Stream<Item = Result<Bytes, Fault>> + Send + 'static, Fault> {
        let leading = self.shared.leading()?;
        // What is applied here after this has all that was acknowledged before.
        drop(self.shared.group.read().await?);
        let snapshot = self.shared.group.checkpoint().await.map_err(|e| failed(&e))?;
        let (world, listed) = (self.shared.world.clone(), snapshot.clone());
        let files = self.shared.world.blocking.run(move || listed.files(&world)).await.map_err(job_lost)?;
        let header = v1::BackupHeader {
            cluster: self.shared.cluster.to_bytes().into(),
            lineage_number: leading.leadership.lineage.number,
            lineage_id: leading.leadership.lineage.id.as_bytes().to_vec().into(),
            index: snapshot.mark().map_or(0, |mark: &Mark| mark.index),
            taken_ms: self.shared.world.clock.wall_ms(),
            build: env!("CARGO_PKG_VERSION").into(),
            files: files.map_err(|e| failed(&e))?,
        };
        let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
        let (writer, first) = Writer::begin(&self.shared.key, &header);
        tracing::info!(index = header.index, files = header.files.len(), "a backup of the metadata is taken");
        let sending = Sending { world: self.shared.world.clone(), snapshot, files: header.files, writer, pieces };
        tokio::spawn(sending.run(first).instrument(span));
        Ok(ReceiverStream::new(stream))
    }
}

fn failed(why: &dyn std::fmt::Display) -> Fault {
    fault(ErrorCode::Unavailable, format!("taking a backup of the metadata: {why}"))
}

/// Whoever took the pieces has gone.
struct Gone;

struct Sending {
    world: World,
    snapshot: Snapshot,
    files: Vec<v1::SnapshotFile>,
    writer: Writer,
    pieces: mpsc::Sender<Result<Bytes, Fault>>,
}

impl Sending {
    async fn run(mut self, first: Bytes) {
        match self.send_all(first).await {
            Ok(Ok(())) => match self.send_end().await {
                Ok(()) => tracing::info!("the backup was taken"),
                Err(Gone) => tracing::info!("nobody takes the backup any more"),
            },
            Ok(Err(Gone)) => tracing::info!("nobody takes the backup any more"),
            Err(error) => {
                tracing::warn!(%error, "the backup failed");
                // One that has gone needs no error.
                let _gone = self.pieces.send(Err(error)).await;
            }
        }
    }

    async fn send_all(&mut self, first: Bytes) -> Result<Result<(), Gone>, Fault> {
        if self.give(first).await.is_err() {
            return Ok(Err(Gone));
        }
        for listed in std::mem::take(&mut self.files) {
            let file = self.open(&listed.name).await?;
            let mut offset = 0;
            while offset < listed.length {
                let bytes = self.read(&file, offset, listed.length).await?;
                offset += bytes.len() as u64;
                let piece = self.writer.piece(&bytes);
                if self.give(piece).await.is_err() {
                    return Ok(Err(Gone));
                }
            }
            let end = self.writer.file_end();
            if self.give(end).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(()))
    }

    async fn send_end(self) -> Result<(), Gone> {
        let Sending { world, writer, pieces, .. } = self;
        give(&world, &pieces, writer.end()).await
    }

    async fn give(&self, bytes: Bytes) -> Result<(), Gone> {
        give(&self.world, &self.pieces, bytes).await
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, Fault> {
        let (world, path) = (self.world.clone(), self.snapshot.path().join(name));
        let opened = self.world.blocking.run(move || world.disk.open(&path, OpenMode::Read));
        Ok(opened.await.map_err(job_lost)?.map_err(|e| failed(&e))?.into())
    }

    async fn read(&self, file: &Arc<dyn DiskFile>, offset: u64, end: u64) -> Result<Vec<u8>, Fault> {
        let file = Arc::clone(file);
        let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let read = self.world.blocking.run(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        });
        read.await.map_err(job_lost)?.map_err(|e| failed(&e))
    }
}

async fn give(world: &World, pieces: &mpsc::Sender<Result<Bytes, Fault>>, bytes: Bytes) -> Result<(), Gone> {
    match timeout(&*world.clock, TAKE_DEADLINE, pieces.send(Ok(bytes))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}
