//! The cluster key and what it signs.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Bytes of the key and of a signature.
pub const KEY_BYTES: usize = 32;

/// The secret that masters and chunkservers of one cluster share. Never printed, never logged, never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

/// An HMAC-SHA-256 signature.
pub type Mac = [u8; KEY_BYTES];

/// What a signature is for: one made for one purpose is worthless for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The master lets a client write a chunk.
    Grant,
    /// A member states what it holds.
    Receipt,
    /// A master proves that it leads with (lineage, epoch).
    Leadership,
    /// A chunkserver proves that it belongs to the cluster.
    Registration,
    /// A master says what a backup is of.
    Backup,
    /// A master speaks to another of its group. Every kind of message is a purpose of its own.
    Raft(&'static str),
}

impl Purpose {
    fn tag(self) -> [&'static [u8]; 2] {
        match self {
            Purpose::Grant => [b"quarry/1/grant", b""],
            Purpose::Receipt => [b"quarry/1/receipt", b""],
            Purpose::Leadership => [b"quarry/1/leadership", b""],
            Purpose::Registration => [b"quarry/1/registration", b""],
            Purpose::Backup => [b"quarry/1/backup", b""],
            Purpose::Raft(kind) => [b"quarry/1/raft/", kind.as_bytes()],
        }
    }
}

impl ClusterKey {
    /// From random bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        ClusterKey(bytes)
    }

    /// The key in the form of a key file: 64 hex digits and a newline.
    #[must_use]
    pub fn to_file(&self) -> String {
        let mut text: String = self.0.iter().map(|b| format!("{b:02x}")).collect();
        text.push('\n');
        text
    }

    /// Reads a key file; `None` when it is not one.
    #[must_use]
    pub fn from_file(text: &str) -> Option<Self> {
        let text = text.trim_end();
        if text.len() != 2 * KEY_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        for (i, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(ClusterKey(key))
    }

    fn hmac(&self, purpose: Purpose, bytes: &[u8]) -> Hmac<Sha256> {
        // RFC 2104 pads a short key with zeros to the block of the hash.
        let mut block = [0; 64];
        block[..KEY_BYTES].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        purpose.tag().iter().for_each(|part| mac.update(part));
        mac.update(&[0]);
        mac.update(bytes);
        mac
    }

    /// Signs `bytes` for `purpose`.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, bytes: &[u8]) -> Mac {
        self.hmac(purpose, bytes).finalize().into_bytes().into()
    }

    /// Whether `mac` signs `bytes` for `purpose`; takes the same time for every wrong one.
    #[must_use]
    pub fn verify(&self, purpose: Purpose, bytes: &[u8], mac: &[u8]) -> bool {
        self.hmac(purpose, bytes).verify_slice(mac).is_ok()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_purpose_and_bytes_only() {
        let key = ClusterKey::new([7; KEY_BYTES]);
        let mac = key.sign(Purpose::Grant, b"x");
        assert!(key.verify(Purpose::Grant, b"x", &mac));
        assert!(!key.verify(Purpose::Receipt, b"x", &mac));
        let vote = key.sign(Purpose::Raft("vote"), b"x");
        assert!(key.verify(Purpose::Raft("vote"), b"x", &vote) && !key.verify(Purpose::Raft("append"), b"x", &vote));
        assert!(!key.verify(Purpose::Grant, b"y", &mac));
        assert!(!key.verify(Purpose::Grant, b"x", &mac[..31]));
        assert!(!ClusterKey::new([8; KEY_BYTES]).verify(Purpose::Grant, b"x", &mac));
    }

    #[test]
    fn the_key_reads_back_and_is_never_shown() {
        let key = ClusterKey::new(std::array::from_fn(|i| i as u8 * 5));
        assert_eq!(ClusterKey::from_file(&key.to_file()), Some(key.clone()));
        assert_eq!(ClusterKey::from_file("00"), None);
        assert_eq!(ClusterKey::from_file(&"é".repeat(32)), None);
        assert_eq!(format!("{key:?}"), "ClusterKey(…)");
    }
}
