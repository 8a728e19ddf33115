//! Which replica of which chunk is on which disk.
//!
//! 100 million chunks must fit: each has a row of a few places, one more than it wants, of four bytes each. The few chunks that
//! have more replicas for a while have the rest in a map.

use std::collections::BTreeMap;

use quarry_types::ChunkId;

/// Where a replica is, and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

const EMPTY: u32 = u32::MAX;
const DISK_SHIFT: u32 = 16;
const ROTTEN: u32 = 1 << 24;
const QUARANTINED: u32 = 1 << 25;

impl Place {
    /// A good replica. `disk` is below 64.
    #[must_use]
    pub fn new(server: u16, disk: u8) -> Self {
        Place(u32::from(server) | u32::from(disk) << DISK_SHIFT)
    }

    /// Whose.
    #[must_use]
    pub fn server(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// On which of its disks.
    #[must_use]
    pub fn disk(self) -> u8 {
        (self.0 >> DISK_SHIFT & 0xff) as u8
    }

    /// Its bytes are not what they should be, whether or not anybody knows.
    #[must_use]
    pub fn is_rotten(self) -> bool {
        self.0 & ROTTEN != 0
    }

    /// It failed a check.
    #[must_use]
    pub fn is_quarantined(self) -> bool {
        self.0 & QUARANTINED != 0
    }

    /// The same, rotten.
    #[must_use]
    pub fn rotten(self) -> Self {
        Place(self.0 | ROTTEN)
    }

    /// The same, found out.
    #[must_use]
    pub fn quarantined(self) -> Self {
        Place(self.0 | ROTTEN | QUARANTINED)
    }
}

/// A value of each chunk that is mostly the same.
#[derive(Clone, Debug)]
pub enum PerChunk<T> {
    /// The same for all.
    Same(T),
    /// One for each.
    Each(Vec<T>),
}

impl<T: Copy + Default> PerChunk<T> {
    fn get(&self, chunk: u32) -> T {
        match self {
            PerChunk::Same(value) => *value,
            PerChunk::Each(values) => values.get(chunk as usize).copied().unwrap_or_default(),
        }
    }

    fn set(&mut self, chunk: u32, value: T) {
        if let PerChunk::Each(values) = self {
            let at = chunk as usize;
            if at >= values.len() {
                values.resize(at + 1, T::default());
            }
            if let Some(place) = values.get_mut(at) {
                *place = value;
            }
        }
    }
}

/// All chunks, numbered from 0.
#[derive(Clone, Debug)]
pub struct Chunks {
    places: Vec<u32>,
    width: usize,
    more: BTreeMap<u32, Vec<Place>>,
    lengths: PerChunk<u32>,
    wanted: PerChunk<u8>,
    /// Numbers of deleted chunks.
    free: Vec<u32>,
    /// What real chunks are called, in ascending order; empty where number and name are the same.
    names: Vec<u64>,
}

impl Chunks {
    /// `count` chunks without a replica. `width`: places in a row; more replicas than that cost more memory.
    #[must_use]
    pub fn new(count: usize, width: usize, lengths: PerChunk<u32>, wanted: PerChunk<u8>) -> Self {
        let width = width.max(1);
        let places = vec![EMPTY; count * width];
        Chunks { places, width, more: BTreeMap::new(), lengths, wanted, free: Vec::new(), names: Vec::new() }
    }

    /// What the chunks are called.
    pub fn call(&mut self, names: Vec<u64>) {
        self.names = names;
    }

    /// What a chunk is called.
    #[must_use]
    pub fn name(&self, chunk: u32) -> u64 {
        self.names.get(chunk as usize).copied().unwrap_or_else(|| u64::from(chunk))
    }

    /// The id under which the master's code knows a chunk.
    #[must_use]
    pub fn id(chunk: u32) -> ChunkId {
        ChunkId(u64::from(chunk))
    }

    /// The chunk of an id that [`Chunks::id`] made.
    #[must_use]
    pub fn of(id: ChunkId) -> u32 {
        u32::try_from(id.0).unwrap_or(u32::MAX)
    }

    /// Rows, those of deleted chunks among them.
    #[must_use]
    pub fn rows(&self) -> u32 {
        u32::try_from(self.places.len() / self.width).unwrap_or(u32::MAX)
    }

    /// Chunks that are there.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.rows()) - self.free.len() as u64
    }

    fn row(&self, chunk: u32) -> &[u32] {
        let at = chunk as usize * self.width;
        self.places.get(at..at + self.width).unwrap_or(&[])
    }

    /// The replicas of a chunk.
    pub fn places(&self, chunk: u32) -> impl Iterator<Item = Place> + Clone + '_ {
        let row = self.row(chunk);
        let more = if self.more.is_empty() { None } else { self.more.get(&chunk) };
        let rest = more.map_or(&[][..], Vec::as_slice);
        row.iter().filter(|place| **place != EMPTY).map(|place| Place(*place)).chain(rest.iter().copied())
    }

    /// The replica of a chunk at a server.
    #[must_use]
    pub fn at(&self, chunk: u32, server: u16) -> Option<Place> {
        self.places(chunk).find(|place| place.server() == server)
    }

    /// The length of a chunk, in bytes.
    #[must_use]
    pub fn length(&self, chunk: u32) -> u64 {
        self.lengths.get(chunk).into()
    }

    /// Wanted replicas; 0: it was deleted.
    #[must_use]
    pub fn wanted(&self, chunk: u32) -> u32 {
        u32::from(self.wanted.get(chunk))
    }

    /// Adds a replica, or replaces the one that is there.
    pub fn put(&mut self, chunk: u32, place: Place) {
        if self.replace(chunk, place) {
            return;
        }
        let at = chunk as usize * self.width;
        let row = self.places.get_mut(at..at + self.width).unwrap_or(&mut []);
        match row.iter_mut().find(|free| **free == EMPTY) {
            Some(free) => *free = place.0,
            None => self.more.entry(chunk).or_default().push(place),
        }
    }

    /// Changes a replica that is there; whether it was.
    pub fn replace(&mut self, chunk: u32, place: Place) -> bool {
        let at = chunk as usize * self.width;
        let row = self.places.get_mut(at..at + self.width).unwrap_or(&mut []);
        if let Some(same) = row.iter_mut().find(|old| **old != EMPTY && Place(**old).server() == place.server()) {
            *same = place.0;
            return true;
        }
        let more =
            self.more.get_mut(&chunk).and_then(|more| more.iter_mut().find(|old| old.server() == place.server()));
        more.map(|same| *same = place).is_some()
    }

    /// Removes the replica of a server; where it was.
    pub fn remove(&mut self, chunk: u32, server: u16) -> Option<Place> {
        let at = chunk as usize * self.width;
        let row = self.places.get_mut(at..at + self.width)?;
        if let Some(place) = row.iter_mut().find(|old| **old != EMPTY && Place(**old).server() == server) {
            let removed = Place(std::mem::replace(place, EMPTY));
            if let Some(rest) = self.more.get_mut(&chunk) {
                if let Some(moved) = rest.pop() {
                    *place = moved.0;
                }
                if rest.is_empty() {
                    self.more.remove(&chunk);
                }
            }
            return Some(removed);
        }
        let rest = self.more.get_mut(&chunk)?;
        let index = rest.iter().position(|old| old.server() == server)?;
        let removed = rest.swap_remove(index);
        if rest.is_empty() {
            self.more.remove(&chunk);
        }
        Some(removed)
    }

    /// A new chunk without replicas. `None`: there are as many as can be.
    pub fn add(&mut self, length: u32, wanted: u8) -> Option<u32> {
        let chunk = match self.free.pop() {
            Some(chunk) => chunk,
            None => {
                let chunk = self.rows();
                if chunk as usize >= crate::limits::CHUNKS_MAX {
                    return None;
                }
                self.places.resize(self.places.len() + self.width, EMPTY);
                chunk
            }
        };
        self.lengths.set(chunk, length);
        self.wanted.set(chunk, wanted);
        Some(chunk)
    }

    /// A chunk whose replicas were removed is no more.
    pub fn forget(&mut self, chunk: u32) {
        self.free.push(chunk);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks() -> Chunks {
        Chunks::new(3, 2, PerChunk::Same(10), PerChunk::Same(2))
    }

    proptest! {
        #[test]
        fn the_table_is_a_map(steps in proptest::collection::vec((0u32..3, 0u16..6, 0u8..64, any::<bool>()), 0..60)) {
            let (mut table, mut model) = (chunks(), BTreeMap::new());
            for (chunk, server, disk, puts) in steps {
                if puts {
                    table.put(chunk, Place::new(server, disk));
                    model.insert((chunk, server), disk);
                } else {
                    let removed = table.remove(chunk, server).map(Place::disk);
                    prop_assert_eq!(removed, model.remove(&(chunk, server)));
                }
                for chunk in 0..3 {
                    let mut found: Vec<_> = table.places(chunk).map(|p| (p.server(), p.disk())).collect();
                    found.sort_unstable();
                    let expected: Vec<_> = model.range((chunk, 0)..=(chunk, u16::MAX)).map(|(k, d)| (k.1, *d)).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn marks_do_not_change_where_a_replica_is() {
        let place = Place::new(9_999, 63);
        assert!(!place.is_rotten() && place.rotten().is_rotten() && !place.rotten().is_quarantined());
        let found = place.rotten().quarantined();
        assert!(found.is_quarantined() && (found.server(), found.disk()) == (9_999, 63));
    }

    #[test]
    fn numbers_of_deleted_chunks_are_used_again() {
        let mut table = chunks();
        table.forget(1);
        assert_eq!((table.count(), table.add(10, 2), table.add(10, 2), table.count()), (2, Some(1), Some(3), 4));
    }
}
