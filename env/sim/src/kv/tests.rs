use std::collections::BTreeSet;

use super::*;
use crate::SimDisk;

const P: SyncPoint = SyncPoint("test");
const S: Space = Space("s");

fn open(disk: &SimDisk, path: &str) -> Result<Arc<dyn Kv>, KvError> {
    open_with(disk, path, Recovery::Prefix)
}

fn open_with(disk: &SimDisk, path: &str, recovery: Recovery) -> Result<Arc<dyn Kv>, KvError> {
    let options = KvOptions { recovery, ..KvOptions::default() };
    let path = Path::new(path);
    let kv = SimKvFactory::new(disk.mount()).open(path, &[S, Space("t")], options)?;
    disk.sync_dir(path.parent().expect("below the root"), SyncPoint("name")).expect("the name is ours to sync");
    Ok(kv)
}

fn put(kv: &dyn Kv, key: u8, sync: Option<SyncPoint>) -> Result<(), KvError> {
    let mut batch = Batch::default();
    batch.put(S, [key], [key; 40]);
    batch.put(Space("t"), [key], b"");
    kv.write(batch, sync)
}

fn keys(kv: &dyn Kv) -> Vec<u8> {
    let pairs = kv.scan(S, b"", None, usize::MAX).expect("scans");
    assert_eq!(kv.scan(Space("t"), b"", None, usize::MAX).expect("scans").len(), pairs.len(), "a batch is atomic");
    pairs.iter().map(|(key, _)| key[0]).collect()
}

#[test]
fn it_is_an_ordered_map() {
    let kv = open(&SimDisk::new(), "/kv").expect("opens");
    (0..10).for_each(|key| put(&*kv, key, None).expect("writes"));
    assert_eq!(kv.get(S, &[3]).expect("gets"), Some(vec![3; 40]));
    assert_eq!(kv.last(S).expect("there").expect("one").0, [9]);
    let some = kv.scan(S, &[2], Some(&[8]), 3).expect("scans");
    assert_eq!(some.iter().map(|p| p.0[0]).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(kv.scan(S, &[8], Some(&[2]), 3).expect("scans").is_empty());
    let mut batch = Batch::default();
    for space in [S, Space("t")] {
        batch.delete(space, [0]);
        batch.delete_range(space, [3], [9]);
    }
    kv.write(batch, None).expect("writes");
    assert_eq!(keys(&*kv), [1, 2, 9]);
    assert!(kv.get(Space("unknown"), b"").is_err());
}

#[test]
fn a_random_suffix_after_the_last_sync_is_lost() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new();
        let kv = open(&disk, "/kv").expect("opens");
        (0..4).for_each(|key| put(&*kv, key, None).expect("writes"));
        put(&*kv, 4, Some(P)).expect("writes");
        (5..10).for_each(|key| put(&*kv, key, None).expect("writes"));
        disk.power_loss(seed);
        assert!(put(&*kv, 99, None).is_err() && kv.get(S, &[1]).is_err(), "an old handle is dead");
        let kv = open(&disk, "/kv").expect("opens");
        let left = keys(&*kv);
        assert_eq!(left, (0..left.len() as u8).collect::<Vec<_>>(), "seed {seed}: not a prefix");
        seen.insert(left.len());
        put(&*kv, 50, Some(P)).expect("goes on");
        disk.power_loss(seed);
        assert_eq!(keys(&*open(&disk, "/kv").expect("opens")).len(), left.len() + 1);
    }
    assert!(seen.contains(&5) && seen.contains(&10) && seen.len() > 3 && !seen.contains(&4), "{seen:?}");
}

#[test]
fn a_skipped_sync_loses_and_a_flush_keeps() {
    let left = |seed, flush: bool| {
        let disk = SimDisk::new();
        disk.skip_sync(P);
        let kv = open(&disk, "/kv").expect("opens");
        put(&*kv, 0, Some(P)).expect("writes");
        if flush {
            kv.flush(SyncPoint("flush")).expect("flushes");
        }
        disk.power_loss(seed);
        keys(&*open(&disk, "/kv").expect("opens")).len()
    };
    assert!((0..50).any(|seed| left(seed, false) == 0));
    assert!((0..50).all(|seed| left(seed, true) == 1));
}

#[test]
fn one_opener_at_a_time() {
    let disk = SimDisk::new();
    let kv = open(&disk, "/kv").expect("opens");
    assert!(open(&disk, "/kv").is_err());
    drop(kv);
    open(&disk, "/kv").expect("free again");
}

#[test]
fn a_checkpoint_is_a_durable_store_of_its_own() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).expect("creates");
    disk.sync_dir(Path::new("/"), P).expect("syncs");
    let kv = open(&disk, "/d/kv").expect("opens");
    put(&*kv, 1, None).expect("writes");
    kv.checkpoint(Path::new("/d/copy")).expect("copies");
    disk.sync_dir(Path::new("/d"), P).expect("the names are ours to sync");
    assert!(kv.checkpoint(Path::new("/d/copy")).is_err(), "never over another");
    put(&*kv, 2, Some(P)).expect("writes");
    disk.power_loss(1);
    disk.rename(Path::new("/d/copy"), Path::new("/d/moved")).expect("a directory like any other");
    assert_eq!(keys(&*open(&disk, "/d/moved").expect("opens")), [1]);
    assert_eq!(keys(&*open(&disk, "/d/kv").expect("opens")), [1, 2]);
}

#[test]
fn a_full_disk_takes_nothing_of_a_batch_and_the_store_lives_on() {
    let disk = SimDisk::new();
    let kv = open(&disk, "/kv").expect("opens");
    put(&*kv, 1, None).expect("writes");
    disk.set_capacity(Some(disk.files().iter().map(|f| f.1).sum::<u64>() + 10));
    assert!(matches!(put(&*kv, 2, None), Err(KvError::Full { .. })));
    assert_eq!(keys(&*kv), [1]);
    disk.set_capacity(None);
    put(&*kv, 3, Some(P)).expect("writes");
    assert_eq!(keys(&*kv), [1, 3]);
}

#[test]
fn a_store_is_closed_by_an_error() {
    let disk = SimDisk::new();
    let kv = open(&disk, "/kv").expect("opens");
    disk.fail_next(crate::DiskOp::Sync, io::ErrorKind::Other);
    assert!(put(&*kv, 1, Some(P)).is_err());
    assert!(matches!(kv.get(S, &[1]), Err(KvError::Failed { .. })));
}

#[test]
fn s11_a_damaged_middle_is_not_a_tail() {
    let disk = SimDisk::new();
    let kv = open(&disk, "/kv").expect("opens");
    (0..3).for_each(|key| put(&*kv, key, Some(P)).expect("writes"));
    let end = disk.files().iter().find(|f| f.0.ends_with("batches.log")).expect("the log").1;
    drop(kv);
    let log = Path::new("/kv/batches.log");
    disk.corrupt(log, end - 1).expect("flips");
    let with_a_bad_tail = disk.image();
    assert_eq!(keys(&*open_with(&disk, "/kv", Recovery::Synced).expect("only the tail")), [0, 1]);
    disk.put_image(&with_a_bad_tail);
    disk.corrupt(log, 60).expect("flips");
    assert!(open_with(&disk, "/kv", Recovery::Synced).is_err());
    assert!(keys(&*open(&disk, "/kv").expect("asked for a prefix")).is_empty());
}
