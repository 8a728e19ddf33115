//! Each kind of loss happens; what was synced never is lost.

use std::{collections::BTreeSet, io, path::Path};

use quarry_env::{Disk, OpenMode, SyncPoint};

use super::*;

const P: SyncPoint = SyncPoint("test");
const SEEDS: u64 = 300;

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    match disk.read_small(Path::new(path), 1 << 24) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.expect("readable")),
    }
}

fn names(disk: &SimDisk, path: &str) -> Vec<String> {
    let paths = disk.list(Path::new(path)).expect("a directory");
    paths.iter().map(|p| p.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> Box<dyn quarry_env::DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::CreateNew).expect("creates");
    file.write_all_at(bytes, 0).expect("writes");
    file
}

/// A durable file `/f` of four sectors of `a`.
fn with_file() -> (SimDisk, Box<dyn quarry_env::DiskFile>) {
    let disk = SimDisk::new();
    let file = write(&disk, "/f", &[b'a'; 2048]);
    file.sync_data(P).expect("syncs");
    disk.sync_dir(Path::new("/"), P).expect("syncs");
    (disk, file)
}

/// What `/f` holds after a power loss, over many seeds: one letter a sector.
fn outcomes(prepare: impl Fn(&SimDisk, &dyn quarry_env::DiskFile)) -> BTreeSet<String> {
    let outcome = |seed| {
        let (disk, file) = with_file();
        prepare(&disk, &*file);
        disk.power_loss(seed);
        let bytes = read(&disk, "/f").expect("its name is durable");
        bytes.chunks(512).map(|s| if s.iter().all(|b| *b == s[0]) { char::from(s[0].max(b'0')) } else { '?' }).collect()
    };
    (0..SEEDS).map(outcome).collect()
}

#[test]
fn unsynced_writes_are_lost_kept_torn_and_reordered() {
    let seen = outcomes(|_, file| {
        file.write_all_at(&[b'b'; 1024], 0).expect("writes");
        file.write_all_at(&[b'c'; 1024], 1024).expect("writes");
    });
    for expected in ["aaaa", "bbcc", "baaa", "abaa", "aacc", "abca"] {
        assert!(seen.contains(expected), "{expected} not in {seen:?}");
    }
    assert_eq!(seen.len(), 16, "every sector on its own: {seen:?}");
}

#[test]
fn a_sector_falls_back_to_a_version_it_had() {
    let seen = outcomes(|_, file| {
        file.write_all_at(&[b'b'; 512], 0).expect("writes");
        file.write_all_at(&[b'c'; 512], 0).expect("writes");
    });
    assert_eq!(seen, BTreeSet::from(["aaaa".into(), "baaa".into(), "caaa".into()]));
}

#[test]
fn synced_writes_are_never_lost() {
    let seen = outcomes(|_, file| {
        file.write_all_at(&[b'b'; 4096], 1024).expect("writes");
        file.set_len(3072).expect("cuts");
        file.sync_data(P).expect("syncs");
    });
    assert_eq!(seen, BTreeSet::from(["aabbbb".into()]));
}

#[test]
fn lengths_fall_back_on_their_own() {
    let seen = outcomes(|_, file| file.write_all_at(&[b'b'; 1024], 2048).expect("writes"));
    for expected in ["aaaa", "aaaabb", "aaaa00", "aaaab0"] {
        assert!(seen.contains(expected), "{expected} not in {seen:?}");
    }
    let seen = outcomes(|_, file| file.set_len(512).expect("cuts"));
    for expected in ["aaaa", "a", "a000"] {
        assert!(seen.contains(expected), "{expected} not in {seen:?}");
    }
}

#[test]
fn a_skipped_sync_loses_what_it_was_for() {
    let seen = outcomes(|disk, file| {
        disk.skip_sync(SyncPoint("idle"));
        file.write_all_at(&[b'b'; 2048], 0).expect("writes");
        file.sync_data(SyncPoint("idle")).expect("claims to");
        let points = disk.sync_points();
        assert!(points.contains(&(SyncPoint("idle"), 1)) && points.contains(&(P, 2)), "{points:?}");
    });
    assert!(seen.contains("aaaa"), "{seen:?}");
}

#[test]
fn a_failed_sync_cannot_be_made_good_by_another() {
    let seen = outcomes(|disk, file| {
        file.write_all_at(&[b'b'; 2048], 0).expect("writes");
        disk.fail_next(DiskOp::Sync, io::ErrorKind::Other);
        assert!(file.sync_data(P).is_err());
        assert_eq!(read(disk, "/f").expect("there"), [b'b'; 2048], "reads do not show it");
        file.sync_data(P).expect("says it is fine");
    });
    assert_eq!(seen, BTreeSet::from(["aaaa".into()]));
}

#[test]
fn unsynced_names_are_lost_or_kept_one_by_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/d")).expect("creates");
        disk.sync_dir(Path::new("/"), P).expect("syncs");
        write(&disk, "/d/old", b"").sync_data(P).expect("syncs");
        disk.sync_dir(Path::new("/d"), P).expect("syncs");
        write(&disk, "/d/new", b"").sync_data(P).expect("syncs");
        disk.remove_file(Path::new("/d/old")).expect("removes");
        disk.power_loss(seed);
        seen.insert(names(&disk, "/d").join(" "));
    }
    assert_eq!(seen, ["", "new", "new old", "old"].map(String::from).into());
}

#[test]
fn a_rename_is_one_step_and_durable_only_when_synced() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new();
        disk.write_small(Path::new("/current"), b"1", P).expect("writes");
        let file = write(&disk, "/next", b"2");
        file.sync_data(P).expect("syncs");
        disk.sync_dir(Path::new("/"), P).expect("syncs");
        disk.rename(Path::new("/next"), Path::new("/current")).expect("renames");
        if seed % 2 == 0 {
            disk.power_loss(seed);
            seen.insert((names(&disk, "/").join(" "), read(&disk, "/current")));
        } else {
            disk.sync_dir(Path::new("/"), P).expect("syncs");
            disk.power_loss(seed);
            assert_eq!(read(&disk, "/current"), Some(b"2".to_vec()));
        }
    }
    let expected = [("current", b"2"), ("current next", b"1")];
    assert_eq!(seen, expected.map(|(names, bytes)| (names.into(), Some(bytes.to_vec()))).into());
}

#[test]
fn syncing_a_file_or_its_directory_does_not_keep_the_directorys_own_name() {
    let kept = (0..SEEDS).filter(|seed| {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/a/b")).expect("creates");
        write(&disk, "/a/b/f", b"x").sync_data(P).expect("syncs");
        disk.sync_dir(Path::new("/a/b"), P).expect("syncs");
        disk.power_loss(*seed);
        read(&disk, "/a/b/f").is_some()
    });
    let kept = kept.count() as u64;
    assert!(0 < kept && kept < SEEDS, "kept {kept} times of {SEEDS}");
}

#[test]
fn small_files_are_replaced_whole_at_whatever_change_the_power_goes() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new();
        disk.write_small(Path::new("/f"), &[1; 2000], P).expect("writes");
        disk.power_off_after(seed % 7);
        let done = disk.mount().write_small(Path::new("/f"), &[2; 3000], P).is_ok();
        assert_eq!(done, !disk.is_off());
        disk.power_loss(seed);
        let now = read(&disk, "/f").expect("never without one");
        assert!(now == [2; 3000] || (!done && now == [1; 2000]), "seed {seed}: {} bytes", now.len());
    }
}

#[test]
fn handles_mounts_and_locks_die_with_the_machine() {
    let (disk, file) = with_file();
    let mount = disk.mount();
    let lock = mount.lock(Path::new("/lock")).expect("free");
    assert_eq!(mount.lock(Path::new("/lock")).err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
    file.write_all_at(b"b", 0).expect("writes");
    disk.kill();
    assert!(file.write_all_at(b"c", 0).is_err() && file.sync_data(P).is_err() && mount.list(Path::new("/")).is_err());
    assert_eq!(read(&disk, "/f").expect("there")[0], b'b', "kill -9 keeps the page cache");
    let again = disk.lock(Path::new("/lock")).expect("the holder died");
    drop(lock);
    assert!(disk.lock(Path::new("/lock")).is_err(), "a dead holder's guard must not free the lock");
    drop(again);
    assert!(disk.lock(Path::new("/lock")).is_ok());
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let (disk, file) = with_file();
    disk.set_capacity(Some(2500));
    assert_eq!(disk.space(Path::new("/")).expect("known").available, 452);
    let full = file.write_all_at(&[b'b'; 500], 2001).expect_err("452 are left");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&disk, "/f").expect("there"), [b'a'; 2048]);
    file.write_all_at(&[b'b'; 500], 0).expect("takes no more room");
    disk.remove_file(Path::new("/f")).expect("removes");
    assert_eq!(disk.space(Path::new("/")).expect("known").available, 452, "it is still open");
    drop(file);
    assert_eq!(disk.space(Path::new("/")).expect("known").available, 2500);
}

#[test]
fn failures_strike_where_and_as_often_as_asked() {
    let (disk, file) = with_file();
    disk.create_dir_all(Path::new("/d")).expect("creates");
    let other = write(&disk, "/d/g", b"x");
    disk.fail_next_under(Path::new("/d"), DiskOp::Write, io::ErrorKind::TimedOut);
    file.write_all_at(b"b", 0).expect("elsewhere");
    assert_eq!(other.write_all_at(b"y", 0).err().map(|e| e.kind()), Some(io::ErrorKind::TimedOut));
    other.write_all_at(b"y", 0).expect("only once");
    disk.break_under(Path::new("/d"), io::ErrorKind::Other);
    assert!(other.len().is_err() && disk.list(Path::new("/d")).is_err() && other.sync_data(P).is_err());
    disk.mend();
    assert_eq!(other.len().expect("mended"), 1);
}

#[test]
fn a_flipped_bit_stays() {
    let (disk, _file) = with_file();
    disk.corrupt(Path::new("/f"), 700).expect("in the file");
    disk.power_loss(1);
    let bytes = read(&disk, "/f").expect("there");
    assert_eq!((bytes[699], bytes[700], bytes[701]), (b'a', b'a' ^ 1, b'a'));
    assert!(disk.corrupt(Path::new("/f"), 4096).is_err());
    assert_eq!(disk.files(), [("/f".into(), 2048)]);
}

#[test]
fn names_behave_like_names() {
    let disk = SimDisk::new();
    let missing = disk.open(Path::new("/a/f"), OpenMode::CreateNew).err().map(|e| e.kind());
    assert_eq!(missing, Some(io::ErrorKind::NotFound));
    disk.create_dir_all(Path::new("/a/b")).expect("creates");
    disk.create_dir_all(Path::new("/a/b")).expect("fine if it exists");
    write(&disk, "/a/f", b"1");
    let taken = disk.open(Path::new("/a/f"), OpenMode::CreateNew).err().map(|e| e.kind());
    assert_eq!(taken, Some(io::ErrorKind::AlreadyExists));
    let reader = disk.open(Path::new("/a/f"), OpenMode::Read).expect("opens");
    assert!(reader.write_all_at(b"2", 0).is_err() && reader.read_exact_at(&mut [0; 2], 0).is_err());
    disk.rename(Path::new("/a/f"), Path::new("/a/b/f")).expect("renames");
    assert_eq!(names(&disk, "/a"), ["b"]);
    assert!(disk.rename(Path::new("/a"), Path::new("/a/b/c")).is_err());
    disk.rename(Path::new("/a/b"), Path::new("/c")).expect("renames");
    assert_eq!(read(&disk, "/c/f"), Some(b"1".to_vec()));
    assert!(disk.remove_file(Path::new("/c")).is_err());
    disk.remove_dir_all(Path::new("/c")).expect("removes");
    disk.remove_dir_all(Path::new("/c")).expect("fine if it does not exist");
    assert!(!disk.exists(Path::new("/c/f")).expect("looks"));
}

#[test]
fn what_is_there_now_and_what_is_certain_to_stay_can_be_read_whatever_fails() {
    let (disk, file) = with_file();
    file.write_all_at(&[b'b'; 10], 0).expect("writes");
    write(&disk, "/new", b"synced, without a durable name").sync_data(P).expect("syncs");
    disk.break_under(Path::new("/"), io::ErrorKind::Other);
    assert_eq!(disk.contents(Path::new("/f")).expect("is there")[..11], *b"bbbbbbbbbba");
    assert_eq!(disk.durable(Path::new("/f")).expect("is there"), [b'a'; 2048]);
    assert_eq!(disk.contents(Path::new("/new")).expect("is there").len(), 30);
    assert_eq!(disk.durable(Path::new("/new")).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
}

#[test]
fn the_power_goes_at_a_named_sync_before_it_does_anything() {
    const OTHER: SyncPoint = SyncPoint("another");
    let (disk, file) = with_file();
    file.write_all_at(b"b", 0).expect("writes");
    disk.power_off_at(OTHER);
    file.sync_data(P).expect("that is not the one");
    file.write_all_at(b"c", 0).expect("writes");
    assert!(file.sync_data(OTHER).is_err() && disk.is_off());
    assert!(file.sync_data(P).is_err(), "the power is off");
    assert_eq!(disk.durable(Path::new("/f")).expect("there")[0], b'b');
    disk.power_loss(1);
    assert!(!disk.is_off(), "and it strikes once");
    let (disk, file) = with_file();
    disk.power_off_at(OTHER);
    disk.power_off_after(0);
    disk.power_stays_on();
    file.write_all_at(b"c", 0).expect("writes");
    file.sync_data(OTHER).expect("it was taken back");
}

#[test]
fn an_image_is_what_was_durable_and_takes_the_place_of_everything() {
    let (disk, file) = with_file();
    file.write_all_at(b"b", 0).expect("writes");
    write(&disk, "/unsynced", b"x");
    let image = disk.image();
    file.sync_data(P).expect("syncs");
    write(&disk, "/later", b"x").sync_data(P).expect("syncs");
    disk.sync_dir(Path::new("/"), P).expect("syncs");
    disk.put_image(&image);
    assert!(file.write_all_at(b"c", 0).is_err(), "who had it open is dead");
    assert_eq!(names(&disk, "/"), ["f"]);
    assert_eq!(read(&disk, "/f"), Some(vec![b'a'; 2048]));
    disk.power_loss(1);
    assert_eq!(read(&disk, "/f"), Some(vec![b'a'; 2048]), "all of it is durable");
    write(&disk, "/new", b"x");
    disk.put_image(&image);
    assert_eq!(names(&disk, "/"), ["f"], "an image can be put back twice");
}
