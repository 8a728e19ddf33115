//! Memory that is written over again and again: touching fresh pages costs several times more than copying into warm ones, and
//! clearing them first is a copy of its own.
//!
//! Chunkservers use this module too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quarry_types::limits::{BLOCK_BYTES, PACKET_BYTES};

/// Bytes of one piece of memory.
const MEMORY_BYTES: usize = PACKET_BYTES as usize;
/// What takes no more than this gets memory of its own: it may be kept for long, and would keep a whole piece. The allocator
/// has such small ones at hand.
const SMALL_BYTES: usize = BLOCK_BYTES as usize;

/// Pieces of memory of a packet's size.
#[derive(Debug)]
pub struct Reused {
    spare: Mutex<Vec<Box<[u8]>>>,
    keep: usize,
}

/// Memory to be written over. It goes back when it is dropped, or with the last of the bytes that were made of it.
#[derive(Debug)]
pub struct Memory {
    bytes: Box<[u8]>,
    used: usize,
    home: Arc<Reused>,
}

impl Reused {
    /// Keeps at most `keep` pieces for later. How many are in use is for the caller to bound.
    #[must_use]
    pub fn new(keep: usize) -> Arc<Reused> {
        Arc::new(Reused { spare: Mutex::default(), keep })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of `bytes` bytes, with anything in it. More than a packet is not kept for later.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize) -> Memory {
        let used = bytes;
        let bytes = if used <= SMALL_BYTES || used > MEMORY_BYTES {
            vec![0; used].into_boxed_slice()
        } else {
            let spare = self.spare().pop();
            spare.unwrap_or_else(|| vec![0; MEMORY_BYTES].into_boxed_slice())
        };
        Memory { bytes, used, home: Arc::clone(self) }
    }
}

impl Memory {
    /// What was written, to be handed on.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.used).unwrap_or_default()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes.len() == MEMORY_BYTES {
            let mut spare = self.home.spare();
            if spare.len() < self.home.keep {
                spare.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_with_the_last_that_looks_at_it() {
        let reused = Reused::new(1);
        let kept = || reused.spare().len();
        let mut memory = reused.take(SMALL_BYTES + 1);
        memory.as_mut().fill(7);
        let bytes = memory.freeze();
        let part = bytes.slice(5..9);
        drop(bytes);
        assert_eq!((&part[..], kept()), (&[7; 4][..], 0));
        drop(part);
        assert_eq!(kept(), 1);
        let (one, other) = (reused.take(MEMORY_BYTES), reused.take(MEMORY_BYTES));
        assert_eq!((one.as_ref().len(), kept()), (MEMORY_BYTES, 0));
        drop((one, other));
        assert_eq!(kept(), 1, "no more are kept than was said");
        let long = reused.take(MEMORY_BYTES + 1);
        assert_eq!((long.as_ref().len(), kept()), (MEMORY_BYTES + 1, 1));
        drop(long);
        drop(reused.take(SMALL_BYTES).freeze());
        assert_eq!(kept(), 1, "small pieces have memory of their own");
    }
}
