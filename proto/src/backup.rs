//! The file that `quarry metadata backup` writes and `quarry-master restore` reads.
//!
//! ```text
//! magic      8 bytes "QRYBKUP\n"
//! format     u32, 1
//! records    kind u8, length u32, payload, CRC-32 of kind, length and payload
//!     1      header: a signed BackupHeader; the first record, once
//!     2      piece: place of the file u32, offset u64, bytes; of each file in order, without gaps
//!     3      end of a file: place u32, length u64, CRC-32 of its bytes
//!     4      trailer: number of records before it u64, bytes before it u64, CRC-32 of those; nothing follows
//! ```
//! Numbers are little endian. A flipped bit fails a CRC, and what was cut off lacks the trailer; the trailer also covers what
//! lies between records and their order. CRCs are no proof against intent: only the header is signed, so that a mix-up of
//! keys is noticed.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use quarry_types::{ClusterKey, Crc32};

use crate::{signed, v1};

/// What a backup begins with.
pub const MAGIC: &[u8; 8] = b"QRYBKUP\n";
/// The format that this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Bytes of a file in one piece, at most.
pub const PIECE_BYTES: usize = 512 << 10;
/// Longest header, in bytes: it lists the files.
const HEADER_BYTES: usize = 8 << 20;
/// Files of one backup.
pub const FILES_MAX: usize = 65_536;
/// Longest name of a file, in bytes.
const NAME_BYTES: usize = 200;

const HEADER: u8 = 1;
const PIECE: u8 = 2;
const FILE_END: u8 = 3;
const TRAILER: u8 = 4;
/// Kind and length.
const RECORD_HEAD: usize = 5;
const RECORD_CRC: usize = 4;
const PIECE_HEAD: usize = 12;
const FILE_END_BYTES: usize = 16;
const TRAILER_BYTES: usize = 20;

/// Why bytes are not a whole and undamaged backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// They are something else.
    #[error("not a backup of metadata: it does not begin as one")]
    NotABackup,
    /// A newer build wrote it.
    #[error("the backup has format {found}, and this build reads format {FORMAT}; use the newer build")]
    Newer {
        /// The format.
        found: u32,
    },
    /// Something in it is not as it was written.
    #[error("the backup is damaged at byte {at}: {what}; use another one")]
    Damaged {
        /// About where.
        at: u64,
        /// What was found.
        what: &'static str,
    },
    /// Its end is missing.
    #[error("the backup ends at byte {at} without its trailer: it was cut off; use another one")]
    CutOff {
        /// How long it is.
        at: u64,
    },
}

/// Makes the bytes of a backup, in order. What it returns is written one after the other.
#[derive(Debug)]
pub struct Writer {
    records: u64,
    bytes: u64,
    crc: Crc32,
    place: u32,
    offset: u64,
    file: Crc32,
}

impl Writer {
    /// Begins: with the files that will follow, signed with the cluster's key.
    #[must_use]
    pub fn begin(key: &ClusterKey, header: &v1::BackupHeader) -> (Self, Bytes) {
        let mut writer = Writer { records: 0, bytes: 0, crc: Crc32::EMPTY, place: 0, offset: 0, file: Crc32::EMPTY };
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT);
        writer.count(&out);
        out.extend_from_slice(&writer.record(HEADER, &signed::sign(key, header).encode_to_vec()));
        (writer, out.freeze())
    }

    /// The next bytes of the present file, at most [`PIECE_BYTES`].
    #[must_use]
    pub fn piece(&mut self, bytes: &[u8]) -> Bytes {
        let mut payload = BytesMut::with_capacity(PIECE_HEAD + bytes.len());
        payload.put_u32_le(self.place);
        payload.put_u64_le(self.offset);
        payload.put_slice(bytes);
        self.offset += bytes.len() as u64;
        self.file = self.file.extend(bytes);
        self.record(PIECE, &payload)
    }

    /// The present file is complete; the next one begins.
    #[must_use]
    pub fn file_end(&mut self) -> Bytes {
        let mut payload = BytesMut::with_capacity(FILE_END_BYTES);
        payload.put_u32_le(self.place);
        payload.put_u64_le(self.offset);
        payload.put_u32_le(self.file.0);
        (self.place, self.offset, self.file) = (self.place + 1, 0, Crc32::EMPTY);
        self.record(FILE_END, &payload)
    }

    /// All files are in it.
    #[must_use]
    pub fn end(mut self) -> Bytes {
        let mut payload = BytesMut::with_capacity(TRAILER_BYTES);
        payload.put_u64_le(self.records);
        payload.put_u64_le(self.bytes);
        payload.put_u32_le(self.crc.0);
        self.record(TRAILER, &payload)
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(RECORD_HEAD + payload.len() + RECORD_CRC);
        out.put_u8(kind);
        // Payloads are pieces and headers of bounded length.
        out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        out.put_slice(payload);
        let crc = Crc32::of(&out);
        out.put_u32_le(crc.0);
        self.records += 1;
        self.count(&out);
        out.freeze()
    }

    fn count(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = self.crc.extend(bytes);
    }
}

/// What a backup holds, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What it is of, with its signature: see [`verify`].
    Header {
        /// The header. Its files have names that lie in one directory or in `kv/` below it.
        header: v1::BackupHeader,
        /// As it was signed.
        signed: v1::Signed,
    },
    /// The next bytes of a file.
    Piece {
        /// Its place in the header's list.
        place: usize,
        /// Where in the file.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A file is complete, and was read as it was written.
    FileEnd {
        /// Its place in the header's list.
        place: usize,
    },
    /// The backup is complete, and was read as it was written.
    End,
}

/// Whether the key is the one of the cluster that the backup is of.
#[must_use]
pub fn verify(key: &ClusterKey, header: &v1::Signed) -> bool {
    signed::open::<v1::BackupHeader>(key, header).is_ok()
}

/// Takes a backup apart, as it comes. Holds one record at most.
#[derive(Debug, Default)]
pub struct Reader {
    waiting: BytesMut,
    /// Bytes taken out of `waiting`.
    at: u64,
    crc: Crc32,
    records: u64,
    begun: bool,
    files: Option<Vec<v1::SnapshotFile>>,
    place: usize,
    offset: u64,
    file: Crc32,
    ended: bool,
}

impl Reader {
    /// At the beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the backup. Take what is in them with [`Reader::next`] before more are given.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// What comes next; `None` when more bytes are needed first.
    ///
    /// # Errors
    /// [`BackupError`]; the backup is of no use then.
    // Not an iterator: it goes on after `None`.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>, BackupError> {
        if !self.begun && !self.begin()? {
            return Ok(None);
        }
        if self.ended {
            return if self.waiting.is_empty() { Ok(None) } else { Err(self.damaged("something follows its trailer")) };
        }
        let Some((kind, payload, whole)) = self.record()? else { return Ok(None) };
        let event = match kind {
            HEADER => self.header(payload)?,
            PIECE => self.piece(payload)?,
            FILE_END => self.file_end(payload)?,
            TRAILER => self.trailer(payload)?,
            _ => return Err(self.damaged("a record of an unknown kind")),
        };
        self.count(&whole);
        self.records += 1;
        Ok(Some(event))
    }

    /// The bytes have ended: whether the backup has.
    ///
    /// # Errors
    /// [`BackupError`] when something of it is missing.
    pub fn finish(&self) -> Result<(), BackupError> {
        match () {
            () if self.ended && self.waiting.is_empty() => Ok(()),
            () if self.ended => Err(self.damaged("something follows its trailer")),
            () => Err(BackupError::CutOff { at: self.at + self.waiting.len() as u64 }),
        }
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { at: self.at, what }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        self.crc = self.crc.extend(bytes);
    }

    fn begin(&mut self) -> Result<bool, BackupError> {
        let seen = self.waiting.len().min(MAGIC.len());
        if self.waiting.get(..seen) != MAGIC.get(..seen) {
            return Err(BackupError::NotABackup);
        }
        if self.waiting.len() < MAGIC.len() + 4 {
            return Ok(false);
        }
        let head = self.waiting.split_to(MAGIC.len() + 4);
        let format = head.get(MAGIC.len()..).map_or(0, |mut rest| rest.get_u32_le());
        if format > FORMAT {
            return Err(BackupError::Newer { found: format });
        }
        if format != FORMAT {
            return Err(self.damaged("its format is none"));
        }
        self.count(&head);
        self.begun = true;
        Ok(true)
    }

    /// The next record: its kind, what is in it, and all its bytes.
    fn record(&mut self) -> Result<Option<(u8, Bytes, Bytes)>, BackupError> {
        let Some(mut head) = self.waiting.get(..RECORD_HEAD) else { return Ok(None) };
        let (kind, length) = (head.get_u8(), head.get_u32_le() as usize);
        let most = match kind {
            HEADER => HEADER_BYTES,
            PIECE => PIECE_HEAD + PIECE_BYTES,
            FILE_END => FILE_END_BYTES,
            TRAILER => TRAILER_BYTES,
            _ => return Err(self.damaged("a record of an unknown kind")),
        };
        if length > most {
            return Err(self.damaged("a record is longer than any can be"));
        }
        let total = RECORD_HEAD + length + RECORD_CRC;
        if self.waiting.len() < total {
            return Ok(None);
        }
        let whole = self.waiting.split_to(total).freeze();
        let (covered, mut crc) = (whole.slice(..total - RECORD_CRC), whole.slice(total - RECORD_CRC..));
        if Crc32::of(&covered).0 != crc.get_u32_le() {
            return Err(self.damaged("a record does not have its checksum"));
        }
        Ok(Some((kind, covered.slice(RECORD_HEAD..), whole)))
    }

    fn header(&mut self, payload: Bytes) -> Result<Event, BackupError> {
        if self.files.is_some() {
            return Err(self.damaged("a second header"));
        }
        let decoded = v1::Signed::decode(payload)
            .ok()
            .and_then(|signed| Some((v1::BackupHeader::decode(&*signed.body).ok()?, signed)));
        let (header, signed) = decoded.ok_or_else(|| self.damaged("the header does not decode"))?;
        check_files(&header.files).map_err(|what| self.damaged(what))?;
        self.files = Some(header.files.clone());
        Ok(Event::Header { header, signed })
    }

    /// The length of the present file.
    fn length(&self) -> Result<u64, BackupError> {
        let files = self.files.as_ref().ok_or_else(|| self.damaged("a file before the header"))?;
        let file = files.get(self.place).ok_or_else(|| self.damaged("more files than the header lists"))?;
        Ok(file.length)
    }

    fn piece(&mut self, mut payload: Bytes) -> Result<Event, BackupError> {
        let length = self.length()?;
        if payload.len() <= PIECE_HEAD {
            return Err(self.damaged("a piece without bytes"));
        }
        let (place, offset) = (payload.get_u32_le() as usize, payload.get_u64_le());
        let bytes = payload.len() as u64;
        if (place, offset) != (self.place, self.offset) || bytes > length.saturating_sub(offset) {
            return Err(self.damaged("a piece that is out of order"));
        }
        self.offset += bytes;
        self.file = self.file.extend(&payload);
        Ok(Event::Piece { place, offset, bytes: payload })
    }

    fn file_end(&mut self, mut payload: Bytes) -> Result<Event, BackupError> {
        let length = self.length()?;
        if payload.len() != FILE_END_BYTES {
            return Err(self.damaged("an end of a file of another form"));
        }
        let (place, said, crc) = (payload.get_u32_le() as usize, payload.get_u64_le(), payload.get_u32_le());
        if (place, said, crc) != (self.place, self.offset, self.file.0) || said != length {
            return Err(self.damaged("a file is not as it was written"));
        }
        (self.place, self.offset, self.file) = (place + 1, 0, Crc32::EMPTY);
        Ok(Event::FileEnd { place })
    }

    fn trailer(&mut self, mut payload: Bytes) -> Result<Event, BackupError> {
        if payload.len() != TRAILER_BYTES {
            return Err(self.damaged("a trailer of another form"));
        }
        let said = (payload.get_u64_le(), payload.get_u64_le(), payload.get_u32_le());
        let complete = self.files.as_ref().is_some_and(|files| files.len() == self.place) && self.offset == 0;
        if said != (self.records, self.at, self.crc.0) || !complete {
            return Err(self.damaged("its trailer tells of something else"));
        }
        self.ended = true;
        Ok(Event::End)
    }
}

/// Names that could place files elsewhere are refused, and what is over the limits.
fn check_files(files: &[v1::SnapshotFile]) -> Result<(), &'static str> {
    if files.is_empty() || files.len() > FILES_MAX {
        return Err("the header lists no files, or too many");
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let plain = |name: &str| {
        let word = name.strip_prefix("kv/").unwrap_or(name);
        !word.is_empty() && name.len() <= NAME_BYTES && !word.starts_with('.') && word.bytes().all(good)
    };
    if !files.iter().all(|file| plain(&file.name)) {
        return Err("the header names a file that is none of a backup");
    }
    let mut names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err("the header names a file twice");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
