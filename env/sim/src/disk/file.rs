//! The contents of one file: as seen now, as durable, and what happened in between.

use std::{collections::BTreeMap, io};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

#[derive(Default)]
pub(super) struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
    /// Handles that are open; such a file keeps its room without a name.
    pub(super) opens: u32,
}

enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

fn size(n: u64) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

impl Change {
    /// The bytes whose contents the change sets, given the length before it.
    fn touches(&self, length: u64) -> (u64, u64) {
        match self {
            Change::Write { offset, bytes } => (*offset, offset + bytes.len() as u64),
            Change::SetLen(to) => (*to, length.max(*to)),
        }
    }

    fn length_after(&self, length: u64) -> u64 {
        match self {
            Change::Write { offset, bytes } => length.max(offset + bytes.len() as u64),
            Change::SetLen(to) => *to,
        }
    }

    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => put(image, *offset, bytes),
            Change::SetLen(to) => image.resize(usize::try_from(*to).unwrap_or(usize::MAX), 0),
        }
    }

    /// Applies only what falls into `from..to`, without changing the length otherwise.
    fn apply_part(&self, image: &mut Vec<u8>, from: u64, to: u64) {
        match self {
            Change::Write { offset, bytes } => {
                let start = usize::try_from(from - offset).unwrap_or(usize::MAX);
                let end = usize::try_from(to - offset).unwrap_or(usize::MAX);
                put(image, from, bytes.get(start..end).unwrap_or_default());
            }
            Change::SetLen(_) => put(image, from, &vec![0; usize::try_from(to - from).unwrap_or(0)]),
        }
    }
}

fn put(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes.len());
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(to) = image.get_mut(start..end) {
        to.copy_from_slice(bytes);
    }
}

impl File {
    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// What a power loss leaves for certain, as a file of its own.
    pub(super) fn durable_copy(&self) -> File {
        File { current: self.durable.clone(), durable: self.durable.clone(), pending: Vec::new(), opens: 0 }
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = size(offset)?;
        let from = start.checked_add(buffer.len()).and_then(|end| self.current.get(start..end));
        buffer.copy_from_slice(from.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    /// How long the file would be after writing `length` bytes at `offset`.
    pub(super) fn length_with(&self, offset: u64, length: usize) -> io::Result<u64> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= u64::from(u32::MAX));
        Ok(self.len().max(end.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?))
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.change(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.length_with(length, 0)?;
        self.change(Change::SetLen(length));
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync failed: what was pending never becomes durable, whatever later syncs say.
    pub(super) fn drop_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn corrupt(&mut self, offset: u64) -> io::Result<()> {
        let at = size(offset)?;
        let byte = self.current.get_mut(at).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        *byte ^= 1;
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= 1;
        }
        Ok(())
    }

    /// The power went away.
    pub(super) fn settle(&mut self, rng: &mut ChaCha8Rng) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            match rng.random_range(0..4) {
                0 => {}
                1 => pending.iter().for_each(|change| change.apply(&mut self.durable)),
                _ => self.tear(&pending, rng),
            }
        }
        self.current = self.durable.clone();
    }

    fn tear(&mut self, pending: &[Change], rng: &mut ChaCha8Rng) {
        let mut lengths = vec![self.durable.len() as u64];
        let mut versions: BTreeMap<u64, u32> = BTreeMap::new();
        each_sector(self.durable.len() as u64, pending, |change, sector, _, _, length| {
            if let Some(sector) = sector {
                *versions.entry(sector).or_default() += 1;
            } else {
                lengths.push(change.length_after(length));
            }
        });
        let mut left: BTreeMap<u64, u32> =
            versions.iter().map(|(sector, count)| (*sector, rng.random_range(0..=*count))).collect();
        let length = lengths.get(rng.random_range(0..lengths.len())).copied().unwrap_or_default();
        let before = self.durable.len() as u64;
        let image = &mut self.durable;
        each_sector(before, pending, |change, sector, from, to, _| {
            let Some(left) = sector.and_then(|sector| left.get_mut(&sector)) else { return };
            if *left > 0 {
                *left -= 1;
                change.apply_part(image, from, to);
            }
        });
        self.durable.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
    }
}

/// Calls `visit(change, Some(sector), from, to, _)` for every part of a change that falls into one sector, and after
/// those `visit(change, None, 0, 0, length before)`.
fn each_sector<'a>(length: u64, changes: &'a [Change], mut visit: impl FnMut(&'a Change, Option<u64>, u64, u64, u64)) {
    let mut length = length;
    for change in changes {
        let (mut from, end) = change.touches(length);
        while from < end {
            let to = ((from / SECTOR + 1) * SECTOR).min(end);
            visit(change, Some(from / SECTOR), from, to, length);
            from = to;
        }
        visit(change, None, 0, 0, length);
        length = change.length_after(length);
    }
}
