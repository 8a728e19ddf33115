//! Packet buffers, used again: touching fresh memory costs several times more than copying into warm memory.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use quarry_types::limits::PACKET_BYTES;

use crate::reused::Reused;

/// Bytes of one buffer.
pub(crate) const BUFFER_BYTES: usize = PACKET_BYTES as usize;
/// Free buffers kept for later, of each kind.
const FREE_MAX: usize = 24;

/// Buffers of [`BUFFER_BYTES`] that are free.
pub(crate) struct Buffers {
    /// To be appended to, by writers.
    free: Mutex<Vec<BytesMut>>,
    /// To be written over, by readers.
    pub(crate) reused: Arc<Reused>,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers { free: Mutex::default(), reused: Reused::new(FREE_MAX) }
    }
}

impl Buffers {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<BytesMut>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer with room for [`BUFFER_BYTES`].
    pub(crate) fn take(&self) -> BytesMut {
        self.free().pop().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// Keeps the memory of `bytes` for later, if nobody else looks at it and it is all there.
    pub(crate) fn give(&self, bytes: Bytes) {
        let Ok(mut buffer) = bytes.try_into_mut() else { return };
        buffer.clear();
        // The memory of a caller may be of any size; keeping it could keep much more than was asked for.
        if (BUFFER_BYTES..=2 * BUFFER_BYTES).contains(&buffer.capacity()) {
            let mut free = self.free();
            if free.len() < FREE_MAX {
                free.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_unless_it_is_shared() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"abc");
        let (bytes, at) = (buffer.freeze(), 0);
        let address = bytes[at..].as_ptr();
        let shared = bytes.clone();
        buffers.give(shared);
        assert!(buffers.free().is_empty(), "still looked at");
        buffers.give(bytes);
        assert_eq!(buffers.take().as_ptr(), address);
    }

    #[test]
    fn foreign_memory_is_not_kept() {
        let buffers = Buffers::default();
        buffers.give(Bytes::from(vec![0; 10]));
        buffers.give(Bytes::from(vec![0; 10 << 20]));
        assert!(buffers.free().is_empty());
    }
}
