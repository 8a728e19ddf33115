//! The chunk file.
//!
//! ```text
//! offset   bytes
//!      0    4096  header
//!   4096    4096  CRC-32 of each block, 1024 × u32 little endian; a block that is not complete has 0 until the seal
//!   8192          data
//!
//! header
//!      0       8  magic "QRYCHUNK"
//!      8       4  version, 1
//!     12      16  cluster
//!     28      16  server
//!     44       8  chunk
//!     52       4  CRC-32 of the 52 bytes before
//!     56          zero
//! ```
//! Numbers are little endian. The header tells swapped and foreign files apart (S3); the CRCs are the ones that the
//! writer sent, never computed from stored bytes.

use bytes::{Buf, BufMut};
use quarry_types::{
    ChunkId, ClusterId, Crc32, ServerId,
    limits::{BLOCK_BYTES, BLOCKS_PER_CHUNK},
};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of the page of block CRCs.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of one slot of the page.
pub const SLOT_BYTES: u64 = 4;
/// Where the page begins.
pub const PAGE_OFFSET: u64 = HEADER_BYTES as u64;
/// Where the data begins.
pub const DATA_OFFSET: u64 = (HEADER_BYTES + PAGE_BYTES) as u64;
/// First bytes of a chunk file.
pub const MAGIC: [u8; 8] = *b"QRYCHUNK";
/// Version of this layout.
pub const VERSION: u32 = 1;

const HASHED_BYTES: usize = 52;
/// Bytes of the header that are not padding.
pub const HEADER_DATA_BYTES: usize = HASHED_BYTES + 4;
const _: () = assert!(PAGE_BYTES as u64 == BLOCKS_PER_CHUNK * SLOT_BYTES);

/// Whose bytes a chunk file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// The server that wrote it.
    pub server: ServerId,
    /// The chunk.
    pub chunk: ChunkId,
}

/// Bytes that are not the header of a chunk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Another kind of file, or damaged at its very start.
    #[error("it is not a chunk file")]
    Magic,
    /// Written by another release.
    #[error("its format version is {0}, this release knows {VERSION}")]
    Version(u32),
    /// Damaged.
    #[error("its header fails its checksum")]
    Checksum,
}

impl Header {
    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_slice(&self.cluster.to_bytes());
        out.put_slice(&self.server.to_bytes());
        out.put_u64_le(self.chunk.0);
        out.put_u32_le(Crc32::of(&out).0);
        out.resize(HEADER_BYTES, 0);
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let hashed = bytes.get(..HASHED_BYTES).ok_or(HeaderError::Magic)?;
        let (magic, mut rest) = hashed.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let crc = bytes.get(HASHED_BYTES..).and_then(|mut b| b.try_get_u32_le().ok()).ok_or(HeaderError::Magic)?;
        let version = rest.try_get_u32_le().map_err(|_| HeaderError::Magic)?;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        if Crc32::of(hashed).0 != crc {
            return Err(HeaderError::Checksum);
        }
        let cluster = rest.get(..16).and_then(ClusterId::from_bytes).ok_or(HeaderError::Magic)?;
        let server = rest.get(16..32).and_then(ServerId::from_bytes).ok_or(HeaderError::Magic)?;
        let chunk = rest.get(32..).and_then(|mut b| b.try_get_u64_le().ok()).ok_or(HeaderError::Magic)?;
        Ok(Header { cluster, server, chunk: ChunkId(chunk) })
    }
}

/// Where the slot of `block` lies in the file.
#[must_use]
pub fn slot_offset(block: u64) -> u64 {
    PAGE_OFFSET + block * SLOT_BYTES
}

/// Bytes of a file that holds `length` bytes of data.
#[must_use]
pub fn file_bytes(length: u64) -> u64 {
    DATA_OFFSET + length
}

/// Blocks that `length` bytes of data take.
#[must_use]
pub fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES)
}

/// The bytes of consecutive slots.
#[must_use]
pub fn encode_slots(slots: impl IntoIterator<Item = Crc32>) -> Vec<u8> {
    slots.into_iter().flat_map(|crc| crc.0.to_le_bytes()).collect()
}

/// Reads consecutive slots; an incomplete last one is left out.
#[must_use]
pub fn decode_slots(bytes: &[u8]) -> Vec<Crc32> {
    bytes.as_chunks::<4>().0.iter().map(|b| Crc32(u32::from_le_bytes(*b))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            cluster: ClusterId::from_bytes(&[0x11; 16]).unwrap(),
            server: ServerId::from_bytes(&[0x22; 16]).unwrap(),
            chunk: ChunkId(0x0102_0304_0506_0708),
        }
    }

    #[test]
    fn golden_header() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        let mut golden = b"QRYCHUNK\x01\0\0\0".to_vec();
        golden.extend([0x11; 16]);
        golden.extend([0x22; 16]);
        golden.extend([8, 7, 6, 5, 4, 3, 2, 1]);
        golden.extend([0xa1, 0xd3, 0x86, 0x9d]);
        assert_eq!(&bytes[..56], &golden[..], "{:02x?}", &bytes[52..56]);
        assert!(bytes[56..].iter().all(|b| *b == 0));
        assert_eq!(Header::decode(&golden), Ok(header()));
    }

    #[test]
    fn golden_page_of_block_crcs() {
        let slots = [Crc32(0x0403_0201), Crc32(0xffff_fffe)];
        assert_eq!(encode_slots(slots), [1, 2, 3, 4, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(decode_slots(&[1, 2, 3, 4, 0xfe, 0xff, 0xff, 0xff, 9]), slots);
        assert_eq!((slot_offset(0), slot_offset(1023), DATA_OFFSET), (4096, 8188, 8192));
    }

    #[test]
    fn a_newer_version_says_so() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Version(2)));
    }

    proptest! {
        #[test]
        fn s3_any_flipped_bit_of_a_header_is_noticed(bit in 0usize..56 * 8) {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = Header::decode(&bytes);
            let _ = decode_slots(&bytes);
        }
    }
}
