//! A full chunk whose end is awaited while the next one is written already.
//!
//! Sealing makes everything durable on all members, and a file that shows only when it is complete need not wait for that. Only a
//! chunk of which every member has every byte is ended so: however its seal fails, the master finds all of it on any member that
//! kept running, so that nothing behind it has to be sent again.

use quarry_proto::v1;
use quarry_types::ErrorCode;
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::pipeline::{Broken, Ended, Permit, Pipeline, Sums},
    Engine,
};
use crate::ClientError;

/// A chunk that is being ended.
pub(super) type Ending = AbortOnDropHandle<(Pipeline, Result<Ended, Broken>)>;

impl Engine {
    /// Ends the current chunk, which is full. The next may begin when this returns.
    pub(super) async fn end_full(&mut self) -> Result<(), ClientError> {
        if !self.target.atomic {
            return self.seal_current().await;
        }
        while let Some(pipeline) = self.pipeline.as_mut().filter(|pipeline| pipeline.waits()) {
            let heard = pipeline.heard().await;
            self.settle();
            if let Err(broken) = heard {
                return self.seal_broken(broken).await;
            }
        }
        self.settle_ending().await?;
        if let Some(mut pipeline) = self.pipeline.take() {
            let ending = async move {
                let ended = pipeline.seal().await;
                (pipeline, ended)
            };
            self.ending = Some(AbortOnDropHandle::new(tokio::spawn(ending)));
        }
        Ok(())
    }

    /// Waits until the chunk before the current one has ended. Whoever notes a chunk does so first: they stand in file order.
    pub(super) async fn settle_ending(&mut self) -> Result<(), ClientError> {
        let Some(ending) = self.ending.take() else { return Ok(()) };
        match ending.await {
            Ok((pipeline, Ok(ended))) => {
                self.note_sealed(&pipeline.permit, ended);
                pipeline.finish().await;
                Ok(())
            }
            Ok((pipeline, Err(broken))) => {
                let (permit, sums) = pipeline.into_parts();
                self.end_by_master(&permit, &sums, broken).await
            }
            Err(error) => Err(ClientError::new(ErrorCode::Internal, self.doing(), error.to_string())),
        }
    }

    /// Has the master seal a chunk whose members did not end it.
    async fn end_by_master(&mut self, permit: &Permit, sums: &Sums, broken: Broken) -> Result<(), ClientError> {
        self.note_broken(permit, broken)?;
        let sealed = self.seal_at_master(permit.chunk, false).await?;
        let (chunk, length, crc) = (permit.chunk, sealed.length, sealed.crc);
        let (sent, sent_crc) = sums.whole();
        if (length, crc) != (sent, sent_crc.0) {
            let message = format!(
                "chunk {chunk} was sealed at {length} bytes with CRC {crc:08x}, but all its members had {sent} with \
                 {sent_crc}, which are no longer held here; write the file again"
            );
            let code = if length < sent { ErrorCode::PipelineBroken } else { ErrorCode::Corrupt };
            return Err(ClientError::new(code, self.doing(), message));
        }
        self.chunks.push(v1::ChunkRef { chunk, offset: permit.offset, length, crc });
        if sealed.replicas < self.target.wanted {
            self.weak.push(chunk);
        }
        Ok(())
    }
}
