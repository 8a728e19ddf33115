#![expect(clippy::disallowed_methods, reason = "what a kill leaves is made by copying real files")]

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use quarry_env::{Batch, Kv, KvError, KvFactory, KvOptions, Recovery, Space, SyncPoint, kv::AtHand};

use rocksdb::{
    ErrorKind,
    perf::{PerfContext, PerfMetric},
};

use crate::Rocks;

const A: Space = Space("a");
const B: Space = Space("b");
const SYNC: Option<SyncPoint> = Some(SyncPoint("test"));

fn open(path: &Path) -> Result<Arc<dyn Kv>, KvError> {
    Rocks.open(path, &[A, B], KvOptions::default())
}

fn put(kv: &dyn Kv, space: Space, key: &str, value: &[u8], sync: Option<SyncPoint>) {
    let mut batch = Batch::default();
    batch.put(space, key, value);
    kv.write(batch, sync).unwrap();
}

fn keys(kv: &dyn Kv, space: Space) -> Vec<String> {
    let pairs = kv.scan(space, b"", None, usize::MAX).unwrap();
    pairs.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

/// Leaves a store as a kill would: its directory, copied while it is open and before anything was flushed.
fn killed_copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn newest_wal(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|e| e == "log")).max().unwrap()
}

/// A killed store with 100 batches of about 1 KiB in its write-ahead log.
fn killed_store(dir: &Path) -> PathBuf {
    let live = dir.join("live");
    let kv = open(&live).unwrap();
    for n in 0..100 {
        put(&*kv, A, &format!("{n:03}"), &[n; 1000], SYNC);
    }
    let dead = dir.join("dead");
    killed_copy(&live, &dead);
    dead
}

/// After a sync that failed the log may be read from a cache and not be on the disk. What was opened rests on it no more.
#[test]
fn what_is_recovered_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed_store(dir.path());
    let old = newest_wal(&dead);
    drop(open(&dead).unwrap());
    if old.exists() {
        fs::remove_file(&old).unwrap();
    }
    assert_eq!(keys(&*open(&dead).unwrap(), A).len(), 100);
}

#[test]
fn spaces_are_apart_and_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(&dir.path().join("s")).unwrap();
    for key in ["c", "a", "b"] {
        put(&*kv, A, key, b"1", None);
    }
    put(&*kv, B, "z", b"2", SYNC);
    assert_eq!(keys(&*kv, A), ["a", "b", "c"]);
    assert_eq!(kv.scan(A, b"a", Some(b"c"), 10).unwrap().len(), 2);
    assert_eq!(kv.scan(A, b"b", None, 1).unwrap(), [(b"b".to_vec(), b"1".to_vec())]);
    assert_eq!(kv.scan(A, b"c", Some(b"a"), 10).unwrap(), []);
    assert_eq!(kv.last(A).unwrap().unwrap().0, b"c");
    assert_eq!(kv.get(B, b"z").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(kv.get(B, b"a").unwrap(), None);
}

#[test]
fn a_batch_is_applied_in_order_and_ranges_are_half_open() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(&dir.path().join("s")).unwrap();
    for key in ["a", "b", "c", "d"] {
        put(&*kv, A, key, b"1", None);
    }
    let mut batch = Batch::default();
    batch.delete_range(A, "a", "c");
    batch.put(A, "b", "2");
    batch.delete(A, "d");
    batch.delete_range(A, "x", "x");
    kv.write(batch, SYNC).unwrap();
    assert_eq!(keys(&*kv, A), ["b", "c"]);
}

#[test]
fn what_was_written_is_there_after_reopening_and_flushing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let kv = open(&path).unwrap();
    put(&*kv, A, "1", b"x", None);
    kv.flush(SyncPoint("test")).unwrap();
    put(&*kv, B, "2", b"y", None);
    kv.write(Batch::default(), SYNC).unwrap();
    drop(kv);
    // Spaces that are not named are kept; new ones appear.
    let kv = Rocks.open(&path, &[Space("new"), A], KvOptions::default()).unwrap();
    assert_eq!(keys(&*kv, A), ["1"]);
    assert_eq!(keys(&*kv, B), ["2"]);
    assert_eq!(keys(&*kv, Space("new")), [] as [String; 0]);
}

#[test]
fn what_is_at_hand_is_what_a_read_finds_and_the_rest_is_not_known() {
    let temp = tempfile::tempdir().unwrap();
    let kv = open(temp.path()).unwrap();
    for n in 0..10 {
        put(&*kv, A, &format!("{n}"), b"value", SYNC);
    }
    let at_hand = |kv: &dyn Kv, key: &str| kv.get_at_hand(A, key.as_bytes()).unwrap();
    let scanned = |kv: &dyn Kv, limit| kv.scan_at_hand(A, b"3", Some(b"9"), limit).unwrap();
    let check = |kv: &dyn Kv| {
        assert_eq!(at_hand(kv, "7"), AtHand::Found(Some(b"value".to_vec())));
        assert_eq!(at_hand(kv, "x"), AtHand::Found(None));
        for limit in [2, 100] {
            assert_eq!(scanned(kv, limit), AtHand::Found(kv.scan(A, b"3", Some(b"9"), limit).unwrap()));
        }
    };
    check(&*kv);
    kv.flush(SyncPoint("test")).unwrap();
    drop(kv);
    // Now it is in a table of which nothing was read yet.
    let kv = open(temp.path()).unwrap();
    assert_eq!((at_hand(&*kv, "7"), scanned(&*kv, 2)), (AtHand::Unknown, AtHand::Unknown));
    assert_eq!(kv.get(A, b"7").unwrap(), Some(b"value".to_vec()));
    check(&*kv);
    // What was removed is walked over, but not for long.
    for n in 0..200 {
        put(&*kv, B, &format!("{n:03}"), b"", SYNC);
    }
    let mut batch = Batch::default();
    (0..199).for_each(|n| batch.delete(B, format!("{n:03}")));
    kv.write(batch, SYNC).unwrap();
    assert_eq!(kv.scan_at_hand(B, b"", None, 1).unwrap(), AtHand::Unknown);
    assert_eq!(keys(&*kv, B), ["199"]);
}

#[test]
fn a_second_opener_and_an_unknown_space_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let kv = open(&path).unwrap();
    let second = open(&path).err().unwrap();
    assert!(matches!(second, KvError::Failed { .. }), "{second}");
    let unknown = kv.get(Space("nowhere"), b"k").unwrap_err();
    assert!(unknown.to_string().contains("nowhere"), "{unknown}");
}

#[test]
fn a_store_or_checkpoint_of_yesterday_opens_with_spaces_that_it_did_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("s"), dir.path().join("copy"));
    let old = Rocks.open(&path, &[A], KvOptions::default()).unwrap();
    put(&*old, A, "1", b"x", SYNC);
    old.checkpoint(&copy).unwrap();
    drop(old);
    for path in [&path, &copy] {
        let kv = Rocks.open(path, &[A, B], KvOptions { upkeep: false, ..KvOptions::default() }).unwrap();
        assert_eq!((keys(&*kv, A), keys(&*kv, B)), (vec!["1".to_string()], vec![]));
        put(&*kv, B, "2", b"x", None);
        drop(kv);
        assert_eq!(keys(&*open(path).unwrap(), B), ["2"]);
    }
}

#[test]
fn a_checkpoint_opens_as_it_was_and_refuses_to_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(&dir.path().join("s")).unwrap();
    put(&*kv, A, "1", b"x", None);
    let copy = dir.path().join("copy");
    kv.checkpoint(&copy).unwrap();
    put(&*kv, A, "2", b"x", None);
    assert!(kv.checkpoint(&copy).is_err());
    let copied = open(&copy).unwrap();
    assert_eq!(keys(&*copied, A), ["1"]);
    assert_eq!(keys(&*kv, A), ["1", "2"]);
}

#[test]
fn a_frozen_store_stays_as_it_was_and_lets_go_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let kv = open(&path).unwrap();
    put(&*kv, A, "1", b"x", None);
    put(&*kv, A, "2", b"x", None);
    let frozen = Arc::clone(&kv).freeze().unwrap();
    put(&*kv, A, "1", b"y", None);
    put(&*kv, A, "3", b"x", None);
    kv.flush(SyncPoint("test")).unwrap();
    let rows = frozen.scan(A, b"", None, 10).unwrap();
    assert_eq!(rows, [(b"1".to_vec(), b"x".to_vec()), (b"2".to_vec(), b"x".to_vec())]);
    assert_eq!(frozen.scan(A, b"2", None, 10).unwrap().len(), 1);
    assert_eq!(frozen.scan(A, b"1", Some(b"2"), 10).unwrap().len(), 1);
    assert!(frozen.scan(Space("nowhere"), b"", None, 1).is_err());
    drop(kv);
    assert_eq!(frozen.scan(A, b"", None, 1).unwrap().len(), 1, "the store is open while it is read");
    drop(frozen);
    assert_eq!(keys(&*open(&path).unwrap(), A), ["1", "2", "3"]);
}

#[test]
fn s11_an_unfinished_last_batch_is_a_tail() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed_store(dir.path());
    let wal = fs::OpenOptions::new().write(true).open(newest_wal(&dead)).unwrap();
    // The last record's end never reached the disk.
    wal.set_len(wal.metadata().unwrap().len() - 300).unwrap();
    let kv = open(&dead).unwrap();
    assert_eq!(keys(&*kv, A).len(), 99);
}

/// Flips a bit in the middle of the newest write-ahead log.
fn damage_middle(dead: &Path) {
    let wal = newest_wal(dead);
    let middle = fs::metadata(&wal).unwrap().len() / 2;
    flip(&wal, middle);
}

fn flip(file: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

/// Long values have files of their own, and damage there concerns nobody who does not read that value.
#[test]
fn s3_a_damaged_value_that_is_kept_apart_is_told_and_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let options = KvOptions { apart: &[A], ..KvOptions::default() };
    let open = || Rocks.open(dir.path(), &[A, B], options).unwrap();
    let value = |n: u32| [&b"value"[..], &n.to_be_bytes(), &[n as u8; 4000]].concat();
    let kv = open();
    for n in 0..100 {
        put(&*kv, A, &format!("{n:03}"), &value(n), SYNC);
        put(&*kv, B, &format!("{n:03}"), &value(n), SYNC);
    }
    kv.flush(SyncPoint("test")).unwrap();
    drop(kv);
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let blobs: Vec<_> = files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "blob")).collect();
    assert_eq!(blobs.len(), 1, "of one space only");
    let bytes = fs::read(&blobs[0]).unwrap();
    let at = bytes.windows(9).position(|window| window == &value(42)[..9]).unwrap();
    flip(&blobs[0], at as u64 + 100);
    let kv = open();
    let damaged = kv.get(A, b"042").err().unwrap();
    assert!(matches!(damaged, KvError::Damaged { .. }), "{damaged}");
    assert_eq!(kv.get(A, b"041").unwrap(), Some(value(41)));
    // All others are written anew, until nothing of the first file is left but the damaged one; compactions never move that.
    let blobs = || {
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|e| e == "blob")).count()
    };
    let anew = |round: u32| {
        for n in (0..100).filter(|n| *n != 42) {
            put(&*kv, A, &format!("{n:03}"), &value(n + round), SYNC);
        }
        kv.flush(SyncPoint("test")).unwrap();
    };
    let mut round = 0;
    let compacted = |round: u32, files: usize| round > 8 && files < 8;
    while !compacted(round, blobs()) {
        round += 1;
        assert!(round < 200, "what was written anew keeps its old files: {} of {round}", blobs());
        anew(round);
    }
    assert!(matches!(kv.get(A, b"042"), Err(KvError::Damaged { .. })));
    put(&*kv, A, "042", b"anew", SYNC);
    drop(kv);
    let kv = open();
    assert_eq!(kv.get(A, b"042").unwrap(), Some(b"anew".to_vec()));
    assert_eq!(kv.get(A, b"041").unwrap(), Some(value(41 + round)));
    assert_eq!(keys(&*kv, A).len(), 100);
}

/// Rows of a release that did not keep them apart are read, and so are those that were, when they are not to be any more.
#[test]
fn what_is_kept_apart_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let apart = KvOptions { apart: &[A], ..KvOptions::default() };
    let mut expected = Vec::new();
    for (n, options) in [KvOptions::default(), apart, KvOptions::default(), apart].into_iter().enumerate() {
        let kv = Rocks.open(dir.path(), &[A, B], options).unwrap();
        put(&*kv, A, &n.to_string(), &[n as u8; 5000], SYNC);
        kv.flush(SyncPoint("test")).unwrap();
        expected.push((n.to_string().into_bytes(), vec![n as u8; 5000]));
        assert_eq!(kv.scan(A, b"", None, 10).unwrap(), expected);
    }
}

#[test]
fn s11_a_corrupt_middle_is_not_a_tail() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed_store(dir.path());
    damage_middle(&dead);
    let refused = open(&dead).err().unwrap();
    assert!(matches!(refused, KvError::Damaged { .. }), "{refused}");
}

#[test]
fn a_store_that_can_be_repeated_keeps_what_is_before_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed_store(dir.path());
    damage_middle(&dead);
    let options = KvOptions { recovery: Recovery::Prefix, ..KvOptions::default() };
    let kv = Rocks.open(&dead, &[A, B], options).unwrap();
    let kept = keys(&*kv, A).len();
    assert!((1..100).contains(&kept), "{kept}");
}

#[test]
fn s11_an_older_log_that_lost_its_end_is_not_a_tail() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let small = KvOptions { write_buffer_bytes: 256 << 10, ..KvOptions::default() };
    let kv = Rocks.open(&live, &[A, B], small).unwrap();
    // The one change of B stays in memory and keeps the first log alive, while A outgrows its buffer.
    put(&*kv, B, "first", b"x", SYNC);
    let logs = || {
        let files = fs::read_dir(&live).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        logs
    };
    let mut n = 0_u32;
    while logs().len() < 2 {
        put(&*kv, A, &format!("{n:06}"), &[7; 1000], SYNC);
        n += 1;
        assert!(n < 10_000, "the log was never switched");
    }
    put(&*kv, A, "last", b"x", SYNC);
    let oldest = logs().remove(0);
    let dead = dir.path().join("dead");
    killed_copy(&live, &dead);
    let oldest = fs::OpenOptions::new().write(true).open(dead.join(oldest.file_name().unwrap())).unwrap();
    oldest.set_len(oldest.metadata().unwrap().len() - 300).unwrap();
    let refused = Rocks.open(&dead, &[A, B], small).err().unwrap();
    assert!(matches!(refused, KvError::Damaged { .. }), "{refused}");
}

#[test]
fn a_full_disk_has_a_kind_of_its_own() {
    let path = Path::new("p");
    let full = "IO error: No space left on device: While appending to file: p/000004.log: No space left on device";
    assert!(matches!(crate::error::classify(path, ErrorKind::IOError, full), KvError::Full { .. }));
    let other = "IO error: While fdatasync: p/000004.log: Input/output error";
    assert!(matches!(crate::error::classify(path, ErrorKind::IOError, other), KvError::Failed { .. }));
    assert!(matches!(crate::error::classify_read(path, ErrorKind::IOError, other), KvError::Damaged { .. }));
    let busy = "IO error: While open a file for random read: p/000007.blob: Too many open files";
    assert!(matches!(crate::error::classify_read(path, ErrorKind::IOError, busy), KvError::Failed { .. }));
    let damage = "Corruption: No space left on device";
    assert!(matches!(crate::error::classify(path, ErrorKind::Corruption, damage), KvError::Damaged { .. }));
}

#[test]
fn a_queue_is_not_walked_over_again_and_again() {
    let temp = tempfile::tempdir().unwrap();
    let kv = open(temp.path()).unwrap();
    let skipped = || PerfContext::default().metric(PerfMetric::InternalDeleteSkippedCount);
    let mut walked = 0;
    for n in 0..5000 {
        put(&*kv, A, &format!("{n:05}"), b"job", None);
        let before = skipped();
        assert_eq!(kv.scan(A, b"", None, 1).unwrap()[0].0, format!("{n:05}").into_bytes());
        walked += skipped() - before;
        let mut batch = Batch::default();
        batch.delete(A, format!("{n:05}"));
        kv.write(batch, None).unwrap();
    }
    // Each one is walked over a hundred times before that is found worth remembering, and then once.
    assert!(walked < 5000 * 10, "5000 keys were walked over {walked} times");
    // What comes back is found, wherever it is.
    for key in ["00007", "04999", "9"] {
        put(&*kv, A, key, b"again", None);
        assert!(keys(&*kv, A).contains(&key.to_owned()), "{key}");
    }
    assert_eq!(keys(&*kv, A), ["00007", "04999", "9"]);
}
