//! The files that are held open, and for how long. Pure; time is passed in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quarry_env::Instant;
use quarry_types::{ChunkId, Crc32, ServerId};

use crate::ChunkInfo;

/// A file is let go this long after it was given out, however much it is read, and is asked for again if need be: a chunk that
/// was deleted takes room until nobody has its file open.
pub(super) const HELD_FOR: Duration = Duration::from_secs(10);
/// Files held at once; past it the one held longest is let go. So much room, times the longest chunk, can a client keep deleted
/// chunks from giving back for [`HELD_FOR`].
pub(super) const HELD_MAX: usize = 64;
/// So many bytes of a file are read before its server is told, which then learns of all but the last few.
const TOLD_BYTES: u64 = 8 << 20;

/// Names one replica of one sealed chunk, as the master recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) server: ServerId,
    pub(crate) chunk: ChunkId,
    length: u64,
    crc: Crc32,
}

impl Key {
    pub(crate) fn of(server: ServerId, chunk: &ChunkInfo) -> Key {
        Key { server, chunk: chunk.id, length: chunk.length, crc: chunk.crc }
    }
}

struct File<F> {
    since: Instant,
    /// Read, and not told yet.
    untold: u64,
    file: Arc<F>,
}

/// Files by what they are.
pub(super) struct Held<F> {
    files: BTreeMap<Key, File<F>>,
}

impl<F> Default for Held<F> {
    fn default() -> Self {
        Held { files: BTreeMap::new() }
    }
}

/// A file that was let go, and what was read of it since that was told last.
pub(super) type LetGo = (Key, u64);

impl<F> Held<F> {
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Arc<F>> {
        let held = self.files.get(key)?;
        (now.since(held.since) < HELD_FOR).then(|| Arc::clone(&held.file))
    }

    /// Holds a file that was given out at `now`. What is let go for it is returned.
    pub(super) fn put(&mut self, key: Key, file: Arc<F>, now: Instant) -> Option<LetGo> {
        let mut before = self.files.insert(key, File { since: now, untold: 0, file }).map(|old| (key, old.untold));
        if self.files.len() > HELD_MAX
            && let Some(oldest) = self.files.iter().min_by_key(|(_, held)| held.since).map(|(key, _)| *key)
        {
            before = self.remove(&oldest);
        }
        before
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<LetGo> {
        self.files.remove(key).map(|held| (*key, held.untold))
    }

    /// Lets go what was held long enough.
    pub(super) fn remove_old(&mut self, now: Instant) -> Vec<LetGo> {
        let old = |held: &File<F>| now.since(held.since) >= HELD_FOR;
        let keys: Vec<Key> = self.files.iter().filter(|(_, held)| old(held)).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// When the next one is to be let go.
    pub(super) fn next(&self) -> Option<Instant> {
        self.files.values().map(|held| held.since.plus(HELD_FOR)).min()
    }

    /// Whether files of `server` are held.
    pub(super) fn any_of(&self, server: ServerId) -> bool {
        self.files.keys().any(|key| key.server == server)
    }

    /// Notes that `bytes` were read; how many to tell the server now.
    pub(super) fn read(&mut self, key: &Key, bytes: u64) -> Option<u64> {
        let held = self.files.get_mut(key)?;
        held.untold = held.untold.saturating_add(bytes);
        (held.untold >= TOLD_BYTES).then(|| std::mem::take(&mut held.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(Duration::from_millis(ms))
    }

    fn key(chunk: u64) -> Key {
        Key { server: ServerId::from_random(1), chunk: ChunkId(chunk), length: 5, crc: Crc32(1) }
    }

    #[test]
    fn a_file_is_let_go_in_time_however_often_it_is_used() {
        let mut held = Held::default();
        held.put(key(1), Arc::new("one"), at(0));
        held.put(key(2), Arc::new("two"), at(4000));
        assert_eq!((held.get(&key(1), at(9999)).as_deref(), held.next()), (Some(&"one"), Some(at(10_000))));
        assert_eq!(held.get(&key(1), at(10_000)), None, "also when nobody has taken it away yet");
        assert_eq!(held.read(&key(1), 100), None);
        assert_eq!(held.remove_old(at(10_000)), [(key(1), 100)]);
        assert_eq!((held.next(), held.any_of(ServerId::from_random(1))), (Some(at(14_000)), true));
        assert_eq!(held.remove_old(at(14_000)), [(key(2), 0)]);
        assert_eq!((held.next(), held.any_of(ServerId::from_random(1))), (None, false));
        assert_eq!(held.get(&Key { crc: Crc32(2), ..key(2) }, at(0)), None, "another CRC is another replica");
    }

    #[test]
    fn s9_no_more_files_are_held_than_the_limit() {
        let mut held = Held::default();
        for n in 0..=HELD_MAX as u64 {
            let gone = held.put(key(n), Arc::new(n), at(n));
            assert_eq!(gone, (n == HELD_MAX as u64).then_some((key(0), 0)));
        }
        assert_eq!(held.files.len(), HELD_MAX);
    }

    #[test]
    fn what_is_read_is_told_now_and_then() {
        let mut held = Held::default();
        held.put(key(1), Arc::new(()), at(0));
        let told: Vec<_> = (0..20).filter_map(|_| held.read(&key(1), 1 << 20)).collect();
        assert_eq!(told, [8 << 20, 8 << 20]);
        assert_eq!(held.remove(&key(1)), Some((key(1), 4 << 20)));
    }
}
