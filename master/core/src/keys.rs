//! Keys: numbers big-endian, so that key order is number order.

use quarry_types::{ChunkId, InodeId, LeaseId, ServerId, SessionId};

/// Meta: [`crate::rows::Cluster`].
pub const CLUSTER: &[u8] = b"cluster";
/// Meta: [`crate::rows::Counters`].
pub const COUNTERS: &[u8] = b"counters";
/// Meta: [`crate::rows::Totals`].
pub const TOTALS: &[u8] = b"totals";
/// Meta: [`crate::rows::Settings`].
pub const SETTINGS: &[u8] = b"settings";
/// Meta: [`crate::rows::Hold`].
pub const HOLD: &[u8] = b"hold";
/// Meta: [`crate::rows::LogMarks`].
pub const LOG_MARKS: &[u8] = b"log-marks";
/// Meta: [`crate::rows::FeatureLevel`].
pub const FEATURE_LEVEL: &[u8] = b"feature-level";
/// Meta: [`crate::rows::Events`].
pub const EVENTS: &[u8] = b"events";

/// Of one number.
#[must_use]
pub fn one(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Of two numbers, ordered by the first.
#[must_use]
pub fn two(first: u64, second: u64) -> Vec<u8> {
    [first.to_be_bytes(), second.to_be_bytes()].concat()
}

/// The number of a key of [`one`].
#[must_use]
pub fn read_one(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// The numbers of a key of [`two`].
#[must_use]
pub fn read_two(key: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = key.split_at_checked(8)?;
    Some((read_one(first)?, read_one(second)?))
}

/// Of an inode.
#[must_use]
pub fn inode(id: InodeId) -> Vec<u8> {
    one(id.0)
}

/// Of a name in a directory.
#[must_use]
pub fn entry(directory: InodeId, name: &str) -> Vec<u8> {
    let mut key = one(directory.0);
    key.extend_from_slice(name.as_bytes());
    key
}

/// The directory and the name of a key of [`entry`].
#[must_use]
pub fn read_entry(key: &[u8]) -> Option<(InodeId, &str)> {
    let (directory, name) = key.split_at_checked(8)?;
    Some((InodeId(read_one(directory)?), std::str::from_utf8(name).ok()?))
}

/// Of a piece of a file.
#[must_use]
pub fn row(file: InodeId, offset: u64) -> Vec<u8> {
    two(file.0, offset)
}

/// Of a chunk.
#[must_use]
pub fn chunk(id: ChunkId) -> Vec<u8> {
    one(id.0)
}

/// Of a lease.
#[must_use]
pub fn lease(id: LeaseId) -> Vec<u8> {
    one(id.0)
}

/// Of a session.
#[must_use]
pub fn session(id: SessionId) -> Vec<u8> {
    one(id.0)
}

/// Of an operation's result.
#[must_use]
pub fn result(session: SessionId, sequence: u64) -> Vec<u8> {
    two(session.0, sequence)
}

/// Of a removed inode.
#[must_use]
pub fn removed(collect_at_ms: u64, inode: InodeId) -> Vec<u8> {
    two(collect_at_ms, inode.0)
}

/// Of something in the trash. Of those that were removed under one name the last comes first; a name has no zero byte.
#[must_use]
pub fn trash(directory: InodeId, name: &str, removal: u64) -> Vec<u8> {
    [&entry(directory, name)[..], &[0], &(!removal).to_be_bytes()].concat()
}

/// The range of keys of everything removed under one name.
#[must_use]
pub fn trash_range(directory: InodeId, name: &str) -> (Vec<u8>, Vec<u8>) {
    let of = entry(directory, name);
    ([&of[..], &[0]].concat(), [&of[..], &[1]].concat())
}

/// The directory, the name and the number of the removal of a key of [`trash`].
#[must_use]
pub fn read_trash(key: &[u8]) -> Option<(InodeId, &str, u64)> {
    let (of, removal) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let (directory, name) = read_entry(of.strip_suffix(&[0])?)?;
    Some((directory, name, !read_one(removal)?))
}

/// Of an event: the `position`th (from 1) that the command at `index` of the log made.
#[must_use]
pub fn event(index: u64, position: u64) -> Vec<u8> {
    two(index, position)
}

/// Of a chunkserver.
#[must_use]
pub fn server(id: ServerId) -> Vec<u8> {
    id.to_bytes()
}

/// Where the keys of `number` and of all after it in a two-number table end: the first key of the next number.
/// `None`: at the end of the table.
#[must_use]
pub fn after(number: u64) -> Option<Vec<u8>> {
    number.checked_add(1).map(one)
}

/// The first key behind `key`.
#[must_use]
pub fn behind(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    key.push(0);
    key
}
