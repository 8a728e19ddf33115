//! Packet buffers. Fresh pages cost more than the copy into them, so buffers are used again; and a permit stands
//! for each, so that memory is bounded.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quarry_types::limits::PACKET_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Buffers kept for the next packets, at most.
const SPARE_MAX: usize = 32;

/// All packet buffers of a server.
pub(crate) struct Buffers {
    spare: Mutex<Vec<Box<[u8]>>>,
    shared: Arc<Semaphore>,
}

impl Buffers {
    /// `shared` buffers for all streams together, beyond the one that each stream owns.
    pub(crate) fn new(shared: usize) -> Arc<Self> {
        Arc::new(Buffers { spare: Mutex::new(Vec::new()), shared: Arc::new(Semaphore::new(shared)) })
    }

    /// The view of one stream.
    pub(super) fn stream(self: &Arc<Self>) -> StreamBuffers {
        StreamBuffers { all: Arc::clone(self), own: Arc::new(Semaphore::new(1)) }
    }
}

/// What one stream may take: its own buffer, and shared ones.
///
/// The own one is what rules out a deadlock: a stream waits for a buffer only while its own is on the way to
/// the disk, never for another stream whose progress hangs on this server.
pub(super) struct StreamBuffers {
    all: Arc<Buffers>,
    own: Arc<Semaphore>,
}

impl StreamBuffers {
    /// A buffer of a packet's size; waits until one is free. `None` never happens: the semaphores stay open.
    pub(super) async fn take(&self) -> Option<Buffer> {
        let permit = tokio::select! {
            biased;
            own = Arc::clone(&self.own).acquire_owned() => own,
            shared = Arc::clone(&self.all.shared).acquire_owned() => shared,
        };
        let bytes = self.all.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = bytes.unwrap_or_else(|| vec![0; PACKET_BYTES as usize].into_boxed_slice());
        Some(Buffer { bytes, used: 0, all: Arc::clone(&self.all), _permit: permit.ok()? })
    }
}

/// A packet buffer, given back when dropped.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    used: usize,
    all: Arc<Buffers>,
    _permit: OwnedSemaphorePermit,
}

impl Buffer {
    /// The next `bytes` bytes, to be filled. `None` past the end of the buffer.
    pub(super) fn grow(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let end = self.used.checked_add(bytes)?;
        let part = self.bytes.get_mut(self.used..end)?;
        self.used = end;
        Some(part)
    }

    /// What was filled, to be handed on; the buffer returns when the last clone is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.all.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn s9_buffers_are_bounded_and_every_stream_has_its_own() {
        let all = Buffers::new(1);
        let (a, b) = (all.stream(), all.stream());
        let own = a.take().await.unwrap();
        let shared = a.take().await.unwrap();
        assert!(a.take().now_or_never().is_none(), "its own and the shared one are out");
        let theirs = b.take().now_or_never();
        assert!(theirs.is_some(), "another stream still has its own");
        drop(own);
        assert!(a.take().now_or_never().is_some());
        drop((shared, theirs));
        assert_eq!(all.spare.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_buffer_holds_a_packet_and_no_more() {
        let mut buffer = Buffers::new(0).stream().take().await.unwrap();
        buffer.grow(3).unwrap().copy_from_slice(b"abc");
        assert!(buffer.grow(PACKET_BYTES as usize).is_none());
        assert_eq!(&buffer.freeze()[..], b"abc");
    }
}
