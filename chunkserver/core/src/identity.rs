//! The file `IDENTITY` of a data directory.
//!
//! ```text
//! offset   bytes
//!      0       8  magic "QRYCSDIR"
//!      8       4  version of the directory's format, 1
//!     12       1  1 when the cluster is known, else 0
//!     13      16  cluster
//!     29      16  server
//!     45      16  directory
//!     61       4  CRC-32 of the 61 bytes before
//! ```

use bytes::{Buf, BufMut};
use quarry_types::{ClusterId, Crc32, ServerId};
use uuid::Uuid;

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"QRYCSDIR";
/// Version of the data directory's format as a whole: files, index and this file.
pub const VERSION: u32 = 1;
/// Bytes of the file.
pub const IDENTITY_BYTES: usize = 65;

const HASHED_BYTES: usize = IDENTITY_BYTES - 4;

/// What a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirIdentity {
    /// Absent until the server has spoken to its first master.
    pub cluster: Option<ClusterId>,
    /// The server, the same in all its directories.
    pub server: ServerId,
    /// The directory itself; its index carries the same, so that the two are not mixed up.
    pub directory: Uuid,
}

/// Bytes that are not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Another kind of file.
    #[error("it is not a Quarry chunkserver's identity file")]
    Magic,
    /// Made by a newer release.
    #[error("the data directory has format version {0}, this release knows {VERSION}: run a newer release")]
    Newer(u32),
    /// Damaged.
    #[error("it is damaged (wrong length or checksum)")]
    Damaged,
}

impl DirIdentity {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(IDENTITY_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u8(u8::from(self.cluster.is_some()));
        out.put_slice(&self.cluster.unwrap_or_default().to_bytes());
        out.put_slice(&self.server.to_bytes());
        out.put_slice(self.directory.as_bytes());
        out.put_u32_le(Crc32::of(&out).0);
        out
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`IdentityError`]. The version is looked at before anything else, since a newer one may look otherwise.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(IdentityError::Magic)?;
        let version = rest.try_get_u32_le().map_err(|_| IdentityError::Damaged)?;
        if version > VERSION {
            return Err(IdentityError::Newer(version));
        }
        let hashed = bytes.get(..HASHED_BYTES).ok_or(IdentityError::Damaged)?;
        let crc = bytes.get(HASHED_BYTES..).filter(|b| b.len() == 4).ok_or(IdentityError::Damaged)?;
        if crc != Crc32::of(hashed).0.to_le_bytes() || version != VERSION {
            return Err(IdentityError::Damaged);
        }
        let has_cluster = rest.try_get_u8().map_err(|_| IdentityError::Damaged)?;
        let cluster = rest.get(..16).and_then(ClusterId::from_bytes).ok_or(IdentityError::Damaged)?;
        let server = rest.get(16..32).and_then(ServerId::from_bytes).ok_or(IdentityError::Damaged)?;
        let directory = rest.get(32..48).and_then(|b| Uuid::from_slice(b).ok()).ok_or(IdentityError::Damaged)?;
        Ok(DirIdentity { cluster: (has_cluster == 1).then_some(cluster), server, directory })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> DirIdentity {
        DirIdentity {
            cluster: ClusterId::from_bytes(&[1; 16]),
            server: ServerId::from_bytes(&[2; 16]).unwrap(),
            directory: Uuid::from_bytes([3; 16]),
        }
    }

    #[test]
    fn golden_identity() {
        let mut golden = b"QRYCSDIR\x01\0\0\0\x01".to_vec();
        golden.extend([1; 16]);
        golden.extend([2; 16]);
        golden.extend([3; 16]);
        golden.extend([0x99, 0x1e, 0xd1, 0x38]);
        let bytes = identity().encode();
        assert_eq!(bytes, golden, "{:02x?}", &bytes[61..]);
        assert_eq!(DirIdentity::decode(&golden), Ok(identity()));
        let young = DirIdentity { cluster: None, ..identity() };
        assert_eq!(DirIdentity::decode(&young.encode()), Ok(young));
    }

    #[test]
    fn s11_a_newer_format_is_told_apart_from_damage() {
        let mut bytes = identity().encode();
        bytes[8] = 9;
        assert_eq!(DirIdentity::decode(&bytes), Err(IdentityError::Newer(9)));
        assert_eq!(DirIdentity::decode(b"QRYCSDIR"), Err(IdentityError::Damaged));
        assert_eq!(DirIdentity::decode(b""), Err(IdentityError::Magic));
    }

    proptest! {
        #[test]
        fn s11_any_flipped_bit_is_noticed(bit in 0usize..IDENTITY_BYTES * 8) {
            let mut bytes = identity().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(DirIdentity::decode(&bytes).is_err());
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = DirIdentity::decode(&bytes);
        }
    }
}
