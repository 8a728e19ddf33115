//! Bytes to write: random, so that nothing on the way makes them smaller, and few, so that they cost no memory.

use bytes::{Bytes, BytesMut};
use quarry_client::FileWriter;
use quarry_env::Random;

use crate::error::Outcome;

/// Bytes are handed over in pieces of this size; as long as a packet, so that nothing copies them.
const PIECE_BYTES: usize = 1 << 20;
/// Different pieces.
const PIECES: usize = 8;

/// Endless bytes, which repeat after 8 MiB.
#[derive(Clone)]
pub struct Source(Bytes);

impl Source {
    /// New ones.
    pub fn new(random: &dyn Random) -> Self {
        let mut bytes = BytesMut::with_capacity(PIECE_BYTES * PIECES);
        while bytes.len() < PIECE_BYTES * PIECES {
            bytes.extend_from_slice(&random.next_u128().to_le_bytes());
        }
        Source(bytes.freeze())
    }

    /// The longest piece at `offset` of at most `most` bytes.
    fn piece(&self, offset: u64, most: u64) -> Bytes {
        let at = usize::try_from(offset).unwrap_or_default() % self.0.len();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.0.slice(at..at + most.min(PIECE_BYTES - at % PIECE_BYTES))
    }

    /// Writes the first `length` bytes.
    ///
    /// # Errors
    /// As the writer.
    pub async fn write(&self, writer: &mut FileWriter, length: u64) -> Outcome {
        let mut offset = 0;
        while offset < length {
            let piece = self.piece(offset, length - offset);
            offset += piece.len() as u64;
            writer.write_bytes(piece).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quarry_env::{World, kv::NoKv};

    use super::*;

    #[test]
    fn pieces_follow_each_other_and_are_as_long_as_asked_for() {
        let source = Source::new(&*World::real(Arc::new(NoKv)).random);
        assert_eq!(source.piece(0, 4096).len(), 4096);
        assert_eq!(source.piece(100, u64::MAX).len(), PIECE_BYTES - 100);
        assert_eq!(source.piece(8 << 20, 10), source.piece(0, 10));
        assert_ne!(source.piece(1 << 20, 10), source.piece(0, 10));
    }
}
