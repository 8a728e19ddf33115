//! The metadata as a whole: backups, what does not match with the chunkservers, and the hold after a restore.

use std::sync::Arc;

use bytes::Bytes;
use quarry_env::clock::timeout;
use quarry_proto::{
    WireError,
    backup::{Event, Reader},
    v1,
};
use quarry_types::ErrorCode;
use tonic::Streaming;

use crate::{Client, ClientError, admin::admin, client::Shared};

/// A backup of the metadata on its way here. What comes is checked: only when [`MetadataBackup::next`] has ended without an
/// error is it whole.
pub struct MetadataBackup {
    shared: Arc<Shared>,
    pieces: Streaming<v1::BackupPiece>,
    reader: Reader,
    header: Option<v1::BackupHeader>,
}

const DOING: &str = "taking a backup of the metadata";

impl Client {
    /// Begins a backup of the metadata with everything that was acknowledged before this call: the bytes of one file.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn backup_metadata(&self) -> Result<MetadataBackup, ClientError> {
        let pieces = self
            .shared
            .ask(DOING, v1::BackupMetadataRequest {}, |channel, request| {
                Box::pin(async move { admin(channel).backup_metadata(request).await })
            })
            .await?;
        Ok(MetadataBackup { shared: Arc::clone(&self.shared), pieces, reader: Reader::new(), header: None })
    }

    /// One page of what does not match between the namespace and what chunkservers have reported. `token` is empty for the first,
    /// and that of the page before for the others, until that has none.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn verify_metadata(&self, token: Bytes) -> Result<v1::VerifyMetadataReply, ClientError> {
        self.shared
            .ask("verifying the metadata", v1::VerifyMetadataRequest { token }, |channel, request| {
                Box::pin(async move { admin(channel).verify_metadata(request).await })
            })
            .await
    }

    /// One page of all sealed chunks with who holds them, ascending by id. `after` is 0 for the first page, and what the page before
    /// says for the others, until that is 0.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn export_chunks(&self, after: u64) -> Result<v1::ExportChunksReply, ClientError> {
        self.shared
            .ask("exporting the chunks", v1::ExportChunksRequest { after }, |channel, request| {
                Box::pin(async move { admin(channel).export_chunks(request).await })
            })
            .await
    }

    /// Lets deletions and aborts go that are held back since a restore or a recovery. Whether they were. The same again is
    /// fine.
    ///
    /// # Errors
    /// [`ErrorCode::Conflict`] while chunkservers have not reported, unless `force` is set; and others.
    pub async fn release_metadata(&self, force: bool) -> Result<bool, ClientError> {
        self.shared
            .ask("letting deletions go", v1::ReleaseHoldRequest { force }, |channel, request| {
                Box::pin(async move { admin(channel).release_hold(request).await })
            })
            .await
            .map(|reply| reply.was_held)
    }
}

impl MetadataBackup {
    /// What it is of, once the first bytes have come.
    #[must_use]
    pub fn header(&self) -> Option<&v1::BackupHeader> {
        self.header.as_ref()
    }

    /// The next bytes of the file; `None` when it is complete and was as the master sent it. Not cancel-safe: what was
    /// cancelled is begun anew.
    ///
    /// # Errors
    /// When the master breaks off, or what comes is damaged.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let damaged = |why: String| ClientError::new(ErrorCode::Corrupt, DOING, why);
        let piece = timeout(&*self.shared.world.clock, self.shared.config.deadline, self.pieces.message()).await;
        match piece.map_err(|late| ClientError::new(ErrorCode::DeadlineExceeded, DOING, late.to_string()))? {
            Ok(Some(piece)) => {
                self.reader.feed(&piece.bytes);
                while let Some(event) = self.reader.next().map_err(|e| damaged(e.to_string()))? {
                    if let Event::Header { header, .. } = event {
                        self.header = Some(header);
                    }
                }
                Ok(Some(piece.bytes))
            }
            Ok(None) => self.reader.finish().map(|()| None).map_err(|e| damaged(e.to_string())),
            Err(status) => Err(ClientError::from_wire(DOING, WireError::from(status))),
        }
    }
}
