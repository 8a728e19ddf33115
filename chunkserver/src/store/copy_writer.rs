//! Receiving a copy, as the rest of the server sees it.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use quarry_chunkserver_core::assembly::Assembly;
use quarry_types::{Crc32, Receipt};

use super::{StoreError, copy::Receiving, shared::Shared, work};

/// How a copy starts.
pub enum CopyStart {
    /// The replica is good already.
    Here(Receipt),
    /// Blocks are wanted.
    Receiving(CopyWriter),
}

/// Receives a copy. Dropping it gives its room back and leaves its file to the next start; [`CopyWriter::abandon`] removes
/// that as well.
pub struct CopyWriter {
    shared: Arc<Shared>,
    copy: Arc<Receiving>,
}

impl CopyWriter {
    pub(super) fn new(shared: Arc<Shared>, copy: Arc<Receiving>) -> Self {
        CopyWriter { shared, copy }
    }

    /// Blocks come from another source from now on.
    pub fn begin_source(&self) {
        Shared::with_assembly(&self.copy, Assembly::begin_source);
    }

    /// Forgets what rests on a source that may have been wrong.
    pub fn begin_again(&self) {
        Shared::with_assembly(&self.copy, Assembly::begin_again);
    }

    /// Whether something was forgotten, so that a source that was asked before may have what is missing now.
    #[must_use]
    pub fn doubted(&self) -> bool {
        Shared::with_assembly(&self.copy, |assembly| assembly.doubted())
    }

    /// Whether the CRC of every block is proven, so that only missing blocks are of use.
    #[must_use]
    pub fn proven(&self) -> bool {
        Shared::with_assembly(&self.copy, |assembly| assembly.proven())
    }

    /// The first run of missing blocks at or behind `from`, in bytes of the chunk.
    #[must_use]
    pub fn missing(&self, from: u64) -> Option<Range<u64>> {
        Shared::with_assembly(&self.copy, |assembly| assembly.missing(from))
    }

    /// Bytes that are here.
    #[must_use]
    pub fn done(&self) -> u64 {
        Shared::with_assembly(&self.copy, |assembly| assembly.done())
    }

    /// Verifies blocks against the CRCs that came with them and keeps those that are missing; how many were bad.
    ///
    /// # Errors
    /// InvalidArgument for what is no blocks of the chunk; Unavailable when the copy was ended; NoSpace; DiskFailed.
    pub async fn take(&self, offset: u64, crcs: Vec<Crc32>, data: Bytes) -> Result<u64, StoreError> {
        let copy = Arc::clone(&self.copy);
        work(&self.shared, move |shared| shared.take_copied(&copy, offset, &crcs, &data)).await
    }

    /// What the present source amounts to: whether the chunk is together.
    #[must_use]
    pub fn settle(&self) -> bool {
        Shared::with_assembly(&self.copy, |assembly| assembly.settle().is_some())
    }

    /// Makes the copy the replica: durable, recorded and shown on return.
    ///
    /// # Errors
    /// Corrupt when it is not together; StaleLeader when who ordered it is not followed any more; Unavailable when it was
    /// ended; Busy when the replica that it was to replace has changed; NoSpace; DiskFailed.
    pub async fn finish(&self) -> Result<Receipt, StoreError> {
        let copy = Arc::clone(&self.copy);
        work(&self.shared, move |shared| shared.finish_copy(&copy)).await
    }

    /// Gives the copy up and removes its file.
    pub async fn abandon(self) {
        let copy = Arc::clone(&self.copy);
        let removed = work(&self.shared, move |shared| {
            shared.abandon_copy(&copy);
            Ok(())
        });
        // Only a process that stops does not carry it out, and the next start does.
        let _at_the_next_start = removed.await;
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        self.shared.end_copy(&self.copy);
    }
}
