//! What follows when a chunk breaks: the master seals it where it stands, and writing goes on behind that.

use std::{sync::atomic::Ordering, time::Duration};

use quarry_proto::v1;
use quarry_types::{Crc32, ErrorCode};

use super::Engine;
use crate::{
    ClientError,
    retry::Backoff,
    session::namespace,
    writer::{
        permit::Permit,
        pipeline::{Broken, Sums},
    },
};

/// A server that failed this writer gets no new chunk of it for this long.
const AVOID_FOR: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) async fn seal_broken(&mut self, broken: Broken) -> Result<(), ClientError> {
        let Some(pipeline) = self.pipeline.take() else { return Ok(()) };
        let (permit, sums) = pipeline.into_parts();
        self.continue_after(permit, &sums, broken).await
    }

    /// Has the master seal a chunk that broke, and takes up writing where it ends.
    pub(super) async fn continue_after(
        &mut self,
        permit: Permit,
        sums: &Sums,
        broken: Broken,
    ) -> Result<(), ClientError> {
        let now = self.shared.world.clock.now();
        let Broken { error, culprit } = broken;
        tracing::warn!(
            path = self.target.path,
            chunk = permit.chunk,
            culprit = culprit.map(|server| server.to_string()),
            error = error.message,
            "a chunk broke; it is sealed where it stands and writing goes on in a new one"
        );
        if let Some(server) = culprit {
            self.avoid.insert(server, now.plus(AVOID_FOR));
        }
        self.counters.seals_on_failure.fetch_add(1, Ordering::Relaxed);
        let patience = self.shared.config.deadline;
        if now.since(*self.failing_since.get_or_insert(now)) >= patience {
            let message = format!("nothing moved for {patience:?}; the last failure was: {}", error.message);
            return Err(ClientError::new(error.code, self.doing(), message));
        }
        let sealed = self.seal_at_master(permit.chunk, false).await?;
        let before = self.window.start();
        self.go_on_from(&permit, sums, &sealed)?;
        if self.window.retained() == 0 {
            // Nothing waits to move on, so nothing counts as not moving, however long the writer is idle now.
            (self.failing_since, self.backoff) = (None, Backoff::default());
        } else if self.window.start() == before {
            let pause = self.backoff.pause(self.shared.world.random.next_u64());
            self.shared.world.clock.sleep(pause).await;
        }
        Ok(())
    }

    /// Has the master seal a chunk, if it has not yet; with `durable` it answers only once enough replicas are.
    pub(super) async fn seal_at_master(
        &mut self,
        chunk: u64,
        durable: bool,
    ) -> Result<v1::SealChunkReply, ClientError> {
        let doing = format!("sealing chunk {chunk} of {}", self.target.path);
        let (inode, lease) = (self.target.inode, self.target.lease.lease);
        let make = |op| v1::SealChunkRequest { op: Some(op), inode, lease, chunk, durable };
        self.shared
            .sessions
            .mutate(&doing, make, |channel, request| {
                Box::pin(async move { namespace(channel).seal_chunk(request).await })
            })
            .await
    }

    /// Moves the window to the end of the sealed chunk, whose bytes must be those that were sent.
    fn go_on_from(&mut self, permit: &Permit, sums: &Sums, sealed: &v1::SealChunkReply) -> Result<(), ClientError> {
        let end = permit.offset.saturating_add(sealed.length);
        let doing = self.doing();
        let corrupt = |message: String| ClientError::new(ErrorCode::Corrupt, doing.clone(), message);
        let (chunk, length) = (permit.chunk, sealed.length);
        let sent = self.window.sent().saturating_sub(permit.offset);
        if end > self.window.sent() {
            return Err(corrupt(format!("chunk {chunk} was sealed at {length} bytes, but only {sent} were sent")));
        }
        if end < self.window.start() {
            let acked = self.window.start().saturating_sub(permit.offset);
            let message = format!(
                "chunk {chunk} was sealed at {length} bytes: all its members failed and lost what they had not synced; \
                 {acked} of the {sent} bytes sent were acknowledged and are no longer held here; write the file again"
            );
            return Err(ClientError::new(ErrorCode::PipelineBroken, doing, message));
        }
        let (known, crc) = sums.known_prefix(length);
        let crc = self.window.extend_crc(crc, permit.offset + known, end);
        if crc != Some(Crc32(sealed.crc)) {
            return Err(corrupt(format!(
                "chunk {chunk} was sealed at {length} bytes with CRC {:08x}, which is not that of the bytes sent",
                sealed.crc
            )));
        }
        if sealed.length > 0 {
            self.chunks.push(v1::ChunkRef { chunk, offset: permit.offset, length, crc: sealed.crc });
            if sealed.replicas < self.target.wanted {
                self.weak.push(chunk);
            }
        }
        self.durable = self.durable.max(end);
        self.release(end);
        self.window
            .rewind(end)
            .map_err(|gone| corrupt(format!("bytes before file offset {} are no longer held", gone.start)))
    }
}
