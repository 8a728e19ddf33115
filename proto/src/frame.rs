//! The frames of the data port.
//!
//! ```text
//! offset  bytes
//!      0      4  magic "QRYF"
//!      4      1  version of this layout, 1
//!      5      1  kind, see [`Frame`]
//!      6      2  bytes of meta, little endian
//!      8      4  bytes of payload, little endian, at most 1 MiB
//!     12      4  CRC-32 of the 12 bytes before and of the meta, little endian
//!     16         meta (protobuf), then payload (raw; its own CRCs are in the meta)
//! ```
//!
//! A connection begins with `Hello` from the caller and `HelloReply` from the server. Then the caller has one
//! conversation after another: a read, or a write from `OpenWrite` or `WriteWhole` to `SealReply`. `Failure` ends a conversation
//! and, where bytes may still be under way (writes), the connection.
//!
//! This module only encodes and decodes; who reads and writes sockets is the caller's affair.

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use quarry_types::{Crc32, limits::PACKET_BYTES};

use crate::v1;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 16;
/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"QRYF";
/// Version of the frame layout.
pub const FRAME_VERSION: u8 = 1;
/// Most bytes of meta.
pub const META_BYTES_MAX: usize = u16::MAX as usize;

/// Bytes that are not a frame. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not our protocol.
    #[error("the other side does not speak Quarry's data protocol (first bytes {0:02x?})")]
    Magic([u8; 4]),
    /// Another version of it.
    #[error("the other side speaks frame version {0}, this one speaks {FRAME_VERSION}; run the same release on both")]
    Version(u8),
    /// An unknown kind.
    #[error("a frame of the unknown kind {0}; run the same release on both sides")]
    Kind(u8),
    /// A payload over the limit, or one where none belongs.
    #[error("a frame of kind {kind} announces {bytes} payload bytes")]
    Payload {
        /// The frame's kind.
        kind: u8,
        /// What it announces.
        bytes: u32,
    },
    /// Damaged on the way.
    #[error("a frame's checksum is wrong: damaged on the way")]
    Checksum,
    /// The meta is not the message that the kind says.
    #[error("a frame's meta does not decode: {0}")]
    Meta(#[from] prost::DecodeError),
    /// A meta too long to send.
    #[error("a frame's meta of {0} bytes is longer than {META_BYTES_MAX}")]
    MetaLength(usize),
}

/// A decoded header. The meta and the payload follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    meta_bytes: u16,
    payload_bytes: u32,
    crc: Crc32,
    prefix_crc: Crc32,
}

impl Header {
    /// Decodes the fixed header.
    ///
    /// # Errors
    /// [`FrameError`]; limits are checked here, before anything is allocated.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let prefix_crc = bytes.first_chunk::<12>().map_or(Crc32::EMPTY, |prefix| Crc32::of(prefix));
        let mut from = &bytes[..];
        let mut magic = [0; 4];
        from.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let version = from.get_u8();
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = from.get_u8();
        let meta_bytes = from.get_u16_le();
        let payload_bytes = from.get_u32_le();
        let crc = Crc32(from.get_u32_le());
        if u64::from(payload_bytes) > PACKET_BYTES || (payload_bytes > 0 && !has_payload(kind)) {
            return Err(FrameError::Payload { kind, bytes: payload_bytes });
        }
        Ok(Header { kind, meta_bytes, payload_bytes, crc, prefix_crc })
    }

    /// Bytes of meta that follow the header.
    #[must_use]
    pub fn meta_bytes(&self) -> usize {
        usize::from(self.meta_bytes)
    }

    /// Bytes of payload that follow the meta.
    #[must_use]
    pub fn payload_bytes(&self) -> u32 {
        self.payload_bytes
    }

    /// Verifies and decodes the meta.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn frame(&self, meta: &[u8]) -> Result<Frame, FrameError> {
        if meta.len() != self.meta_bytes() || self.prefix_crc.extend(meta) != self.crc {
            return Err(FrameError::Checksum);
        }
        Frame::decode(self.kind, meta)
    }
}

macro_rules! frames {
    ($($(#[$doc:meta])* $name:ident($message:ty) = $number:literal,)*) => {
        /// A frame without its payload.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Frame {
            $($(#[$doc])* $name($message),)*
        }

        impl Frame {
            fn decode(kind: u8, meta: &[u8]) -> Result<Frame, FrameError> {
                match kind {
                    $($number => Ok(Frame::$name(<$message>::decode(meta)?)),)*
                    other => Err(FrameError::Kind(other)),
                }
            }

            fn encode_meta(&self, to: &mut BytesMut) -> u8 {
                match self {
                    // Writing to a growing buffer cannot run out of room.
                    $(Frame::$name(message) => { message.encode_raw(to); $number })*
                }
            }

            /// The frame's name, for errors and logs.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Frame::$name(_) => stringify!($name),)*
                }
            }
        }

        $(impl From<$message> for Frame {
            fn from(message: $message) -> Frame {
                Frame::$name(message)
            }
        })*
    };
}

frames! {
    /// First of a connection, by the caller.
    Hello(v1::Hello) = 1,
    /// First of a connection, by the server.
    HelloReply(v1::HelloReply) = 2,
    /// Begins a write.
    OpenWrite(v1::OpenWrite) = 3,
    /// Every member has the chunk open.
    OpenWriteReply(v1::OpenWriteReply) = 4,
    /// Bytes to write.
    Packet(v1::Packet) = 5,
    /// Every member has written up to here.
    Ack(v1::Ack) = 6,
    /// Asks for durability up to here.
    Flush(v1::Flush) = 7,
    /// Durable on every member up to here.
    FlushReply(v1::FlushReply) = 8,
    /// Ends the chunk.
    Seal(v1::Seal) = 9,
    /// The members' receipts.
    SealReply(v1::SealReply) = 10,
    /// Asks for a range.
    Read(v1::Read) = 11,
    /// Bytes read.
    ReadData(v1::ReadData) = 12,
    /// The range is complete.
    ReadEnd(v1::ReadEnd) = 13,
    /// The conversation failed.
    Failure(v1::ErrorDetail) = 14,
    /// Is anybody there?
    Probe(v1::Probe) = 15,
    /// Yes, and the disk works.
    ProbeReply(v1::ProbeReply) = 16,
    /// Asks for the file of a sealed replica, over the local socket.
    OpenLocal(v1::OpenLocal) = 17,
    /// Comes with it.
    LocalFile(v1::LocalFile) = 18,
    /// What was read of one.
    ReadLocally(v1::ReadLocally) = 19,
    /// Writes a small chunk and ends it.
    WriteWhole(v1::WriteWhole) = 20,
}

/// Most bytes of a frame without payload.
pub const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + META_BYTES_MAX;

/// Decodes a message that is one frame without payload, as the local socket carries them.
///
/// # Errors
/// [`FrameError`]; [`FrameError::Checksum`] also when it is cut short or something follows.
pub fn decode_message(bytes: &[u8]) -> Result<Frame, FrameError> {
    let (head, meta) = bytes.split_first_chunk().ok_or(FrameError::Checksum)?;
    let header = Header::decode(head)?;
    match header.payload_bytes() {
        0 => header.frame(meta),
        bytes => Err(FrameError::Payload { kind: header.kind, bytes }),
    }
}

fn has_payload(kind: u8) -> bool {
    matches!(kind, 5 | 12 | 20)
}

/// Encodes header and meta of `frame` onto the end of `to`; the caller sends `payload_bytes` bytes behind it.
///
/// # Errors
/// [`FrameError::MetaLength`] or [`FrameError::Payload`]; `to` is as it was.
pub fn encode(frame: &Frame, payload_bytes: u32, to: &mut BytesMut) -> Result<(), FrameError> {
    let start = to.len();
    to.put_bytes(0, HEADER_BYTES);
    let kind = frame.encode_meta(to);
    let meta_bytes = to.len() - start - HEADER_BYTES;
    let Ok(meta_u16) = u16::try_from(meta_bytes) else {
        to.truncate(start);
        return Err(FrameError::MetaLength(meta_bytes));
    };
    if u64::from(payload_bytes) > PACKET_BYTES || (payload_bytes > 0 && !has_payload(kind)) {
        to.truncate(start);
        return Err(FrameError::Payload { kind, bytes: payload_bytes });
    }
    let mut header = BytesMut::with_capacity(HEADER_BYTES);
    header.put_slice(&MAGIC);
    header.put_u8(FRAME_VERSION);
    header.put_u8(kind);
    header.put_u16_le(meta_u16);
    header.put_u32_le(payload_bytes);
    let (space, meta) = to[start..].split_at_mut(HEADER_BYTES);
    header.put_u32_le(Crc32::of(&header).extend(meta).0);
    space.copy_from_slice(&header);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<(Frame, u32), FrameError> {
        let header = Header::decode(bytes.first_chunk().unwrap())?;
        let meta = bytes.get(HEADER_BYTES..HEADER_BYTES + header.meta_bytes()).unwrap_or_default();
        Ok((header.frame(meta)?, header.payload_bytes()))
    }

    fn sample() -> (Frame, BytesMut) {
        let frame = Frame::from(v1::Packet { offset: 3 << 16, piece_crcs: vec![1, 2, 0xffff_ffff], acked: 5 });
        let mut bytes = BytesMut::new();
        encode(&frame, 1000, &mut bytes).unwrap();
        (frame, bytes)
    }

    #[test]
    fn reads_yesterdays_bytes() {
        let (frame, bytes) = sample();
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "5152594601051400e803000045bd36750880800c120c0100000002000000ffffffff1805");
        assert_eq!(decode(&bytes), Ok((frame, 1000)));
    }

    #[test]
    fn golden_whole_write_and_the_hello_that_allows_it() {
        let grant = Some(v1::Signed { body: vec![7].into(), mac: vec![9].into() });
        let whole = v1::WriteWhole { grant, position: 1, request_id: "r".into(), crc: 0x0102_0304 };
        let mut bytes = BytesMut::new();
        encode(&Frame::from(whole.clone()), 5, &mut bytes).unwrap();
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "5152594601141200050000008bf011fa0a060a010712010910011a01722504030201");
        assert_eq!(decode(&bytes), Ok((Frame::from(whole), 5)));
        let hello = v1::HelloReply { takes_whole: true, ..Default::default() };
        assert_eq!(hello.encode_to_vec(), [0x28, 1]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_, bytes) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn limits_hold_before_anything_is_read() {
        let (frame, _) = sample();
        assert!(encode(&frame, u32::try_from(PACKET_BYTES).unwrap() + 1, &mut BytesMut::new()).is_err());
        assert!(encode(&Frame::from(v1::Probe {}), 1, &mut BytesMut::new()).is_err());
        let long = Frame::from(v1::Packet { offset: 0, piece_crcs: vec![1; 20_000], acked: 0 });
        let mut to = BytesMut::from(&b"before"[..]);
        assert!(matches!(encode(&long, 1, &mut to), Err(FrameError::MetaLength(_))));
        assert_eq!(to, &b"before"[..]);
    }

    #[test]
    fn a_message_is_one_frame_and_nothing_else() {
        let file = v1::LocalFile { data_offset: 8192, block_crcs: vec![1, 0xffff_ffff] };
        let mut bytes = BytesMut::new();
        encode(&Frame::from(file.clone()), 0, &mut bytes).unwrap();
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "5152594601120d0000000000829cd8ec088040120801000000ffffffff", "yesterday's bytes");
        assert_eq!(decode_message(&bytes), Ok(Frame::LocalFile(file)));
        for cut in 0..bytes.len() {
            assert!(decode_message(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes.put_u8(0);
        assert!(decode_message(&bytes).is_err());
        let (_, packet) = sample();
        assert!(matches!(decode_message(&packet), Err(FrameError::Payload { .. })));
    }

    #[test]
    fn the_checksums_of_a_whole_chunk_fit_a_message() {
        let block_crcs = vec![u32::MAX; usize::try_from(quarry_types::limits::BLOCKS_PER_CHUNK).unwrap()];
        encode(&Frame::from(v1::LocalFile { data_offset: u64::MAX, block_crcs }), 0, &mut BytesMut::new()).unwrap();
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), HEADER_BYTES..400)) {
            let _ = decode(&bytes);
            let _ = decode_message(&bytes);
        }

        #[test]
        fn random_metas_never_panic(kind: u8, meta in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::decode(kind, &meta);
        }
    }
}
