//! The log of batches: its records and its life on disk.
//!
//! A record is the length of its body (u32), the body's CRC-32 (u32) and the body: for each change a tag (1 put,
//! 2 delete, 3 delete range) and three strings, each with a u32 length: space, key, value or end of the range.

use std::{io, path::Path};

use quarry_env::{Disk, DiskFile, OpenMode, kv::Change};

use super::{HOUSEKEEPING, Maps, delete_range};

pub(super) const FILE: &str = "batches.log";
const NEW: &str = "batches.new";
const HEAD: usize = 8;

fn push(body: &mut Vec<u8>, tag: u8, parts: [&[u8]; 3]) {
    body.push(tag);
    for part in parts {
        body.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend_from_slice(part);
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + body.len());
    record.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

pub(super) fn record(changes: &[Change]) -> Vec<u8> {
    // Never empty: a record of zeros would be what a lost sector looks like.
    let mut body = vec![1];
    for change in changes {
        match change {
            Change::Put(space, key, value) => push(&mut body, 1, [space.0.as_bytes(), key, value]),
            Change::Delete(space, key) => push(&mut body, 2, [space.0.as_bytes(), key, b""]),
            Change::DeleteRange(space, from, to) => push(&mut body, 3, [space.0.as_bytes(), from, to]),
        }
    }
    frame(&body)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(n)?;
    *bytes = tail;
    Some(head)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let raw = <[u8; 4]>::try_from(take(bytes, 4)?).ok()?;
    usize::try_from(u32::from_le_bytes(raw)).ok()
}

/// Replays the record at the head of `bytes` and steps over it; `None` when there is no whole one.
fn replay(bytes: &mut &[u8], maps: &mut Maps) -> Option<()> {
    let mut rest = *bytes;
    let length = number(&mut rest)?;
    let crc = number(&mut rest)?;
    let mut body = take(&mut rest, length)?;
    if crc32fast::hash(body) as usize != crc {
        return None;
    }
    take(&mut body, 1)?;
    while !body.is_empty() {
        let tag = *take(&mut body, 1)?.first()?;
        let mut part = || {
            let n = number(&mut body)?;
            take(&mut body, n)
        };
        let (space, key, value) = (part()?, part()?, part()?);
        let map = maps.entry(String::from_utf8_lossy(space).into_owned()).or_default();
        match tag {
            1 => drop(map.insert(key.to_vec(), value.to_vec())),
            2 => drop(map.remove(key)),
            _ => delete_range(map, key, value),
        }
    }
    *bytes = rest;
    Some(())
}

/// What the records of a log add up to, as far as they are whole; and how many bytes these are.
pub(super) fn replay_all(bytes: &[u8]) -> (Maps, usize) {
    let (mut maps, mut rest) = (Maps::new(), bytes);
    while replay(&mut rest, &mut maps).is_some() {}
    (maps, bytes.len() - rest.len())
}

/// Opens the log in the directory `path`, or makes one: the file, what it holds, and where it ends. Whole records behind
/// a damaged one are dropped with `prefix`, and refuse to open without.
///
/// What is recovered is written anew, as RocksDB does (`env/rocks`, `what_is_recovered_is_written_anew`): it may have been read
/// from a cache in front of a disk that failed to take it.
pub(super) fn open(disk: &dyn Disk, path: &Path, prefix: bool) -> io::Result<(Box<dyn DiskFile>, Maps, u64)> {
    let name = path.join(FILE);
    let maps = if disk.exists(&name)? { recover(&*disk.open(&name, OpenMode::Read)?, prefix)? } else { Maps::new() };
    write(disk, path, &maps)?;
    let file = disk.open(&name, OpenMode::Write)?;
    let end = file.len()?;
    Ok((file, maps, end))
}

fn recover(file: &dyn DiskFile, prefix: bool) -> io::Result<Maps> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    let (maps, whole) = replay_all(&bytes);
    let rest = bytes.get(whole..).unwrap_or_default();
    if !prefix && (1..rest.len()).any(|at| replay(&mut rest.get(at..).unwrap_or_default(), &mut Maps::new()).is_some())
    {
        let message = format!("a record at {whole} is damaged and whole ones follow it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(maps)
}

/// Makes a store that holds `maps`, durably, in a new directory. As with RocksDB, its own name is for the caller to sync.
pub(super) fn create(disk: &dyn Disk, path: &Path, maps: &Maps) -> io::Result<()> {
    disk.create_dir_all(path)?;
    write(disk, path, maps)
}

fn write(disk: &dyn Disk, path: &Path, maps: &Maps) -> io::Result<()> {
    let new = path.join(NEW);
    if disk.exists(&new)? {
        disk.remove_file(&new)?;
    }
    let mut body = vec![1];
    for (space, map) in maps {
        for (key, value) in map {
            push(&mut body, 1, [space.as_bytes(), key, value]);
        }
    }
    let file = disk.open(&new, OpenMode::CreateNew)?;
    file.write_all_at(&frame(&body), 0)?;
    file.sync_data(HOUSEKEEPING)?;
    disk.rename(&new, &path.join(FILE))?;
    disk.sync_dir(path, HOUSEKEEPING)
}
