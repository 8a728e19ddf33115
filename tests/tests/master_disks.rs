//! What a master's disk can do to it, on one of three: the other two go on, it says what happened, where, and what to do, and
//! after that the group is three again with everything that was acknowledged.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use quarry_tests::{Cluster, Options, group, mount::Mount, skipped, wait};

const LIMIT: Duration = Duration::from_secs(90);
const MIB: u64 = 1 << 20;

/// Three masters; the first one's data lies at `first`, if that is said.
fn three(first: Option<PathBuf>) -> Cluster {
    Cluster::start(&Options { masters: 3, master_dir: first, ..Options::default() })
}

/// Files that were acknowledged.
#[derive(Default)]
struct Acknowledged(u32);

impl Acknowledged {
    fn put(&mut self, cluster: &Cluster, count: u32) {
        for n in self.0..self.0 + count {
            cluster.put(&format!("/f{n}"), &[], format!("bytes {n}").as_bytes());
        }
        self.0 += count;
    }

    fn check(&self, cluster: &Cluster) {
        for n in 0..self.0 {
            assert_eq!(cluster.quarry(&["cat", &format!("/f{n}")]).ok(), format!("bytes {n}").as_bytes());
        }
    }
}

/// Changes until the master at `address` has ended by itself, and everything that it said.
fn ends(cluster: &mut Cluster, address: &str, done: &mut Acknowledged) -> String {
    wait::until("the master to end", LIMIT, || {
        done.put(cluster, 1);
        let ended = !group::at(cluster, address).process().running();
        if ended { Ok(()) } else { Err("it still runs".to_owned()) }
    });
    group::at(cluster, address).log()
}

/// The last line, which `main` writes, says all of this.
fn says(log: &str, words: &[&str]) {
    let last = log.lines().rev().find(|line| line.contains("quarry-master: ")).unwrap_or_default();
    println!("{last}");
    for word in words {
        assert!(last.contains(word), "{word:?} is missing in: {last}");
    }
}

const REPLACE: [&str; 3] = ["quarry masters remove", "quarry-master join", "quarry masters add"];

/// Flips a byte of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("a file of a stopped master");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a write");
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).expect("a store").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

/// The file that a store's log is written to.
fn newest_log(dir: &Path) -> PathBuf {
    files(dir, "log").pop().expect("a store has a log")
}

#[test]
fn s8_s11_a_master_whose_disk_is_full_hands_over_and_comes_back_when_there_is_room() {
    let disk = match Mount::memory(256 * MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a full disk of one of three masters", &why),
    };
    let mut cluster = three(Some(disk.at.join("data")));
    let mut done = Acknowledged::default();
    done.put(&cluster, 5);
    let first = cluster.master.address.clone();
    assert_eq!(group::leader(&cluster), first);
    let ballast = disk.at.join("ballast");
    let mut file = File::create(&ballast).expect("a file");
    let piece = vec![7; 1 << 20];
    while file.write_all(&piece).is_ok() {}
    // What is left of the last mebibyte, too.
    while file.write_all(&[7]).is_ok() {}
    // An open file would keep its room also when it is removed.
    drop(file);
    // The leader refuses for want of room, and another one has some.
    wait::until("the others to go on", LIMIT, || {
        let out = cluster.quarry(&["--timeout", "5s", "mkdir", "-p", "/d"]);
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
    wait::until("another one to lead", LIMIT, || {
        if group::leader(&cluster) == first { Err("it still leads".to_owned()) } else { Ok(()) }
    });
    done.put(&cluster, 5);
    let log = cluster.master.log();
    let said = log.lines().find(|line| line.contains("disk of this master is full")).expect("it is said");
    assert!(said.contains(disk.at.to_str().expect("text")) && said.contains("free some room"), "{said}");
    // Its stores have some room set aside, so it may go on as a follower for a while; where it does not, it says why.
    let ended = !cluster.master.process().running();
    let back = cluster.quarry(&["masters", "transfer-leader", &first]);
    let why = ["full disk", "not reachable"].iter().any(|why| back.stderr.contains(why));
    assert!(back.code != 0 && why, "{}", back.stderr);
    if ended {
        says(&cluster.master.log(), &[disk.at.to_str().expect("text"), "no space left", "free some room"]);
    }
    fs::remove_file(&ballast).expect("the ballast");
    if ended {
        cluster.master.restart();
    }
    group::wait_whole(&cluster, 3);
    done.check(&cluster);
    // A measurement of the room holds for a moment, so that right after the removal it may still be full for the others.
    wait::until("the first one to be handed the leadership", LIMIT, || {
        let out = cluster.quarry(&["masters", "transfer-leader", &first]);
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
    done.put(&cluster, 2);
    assert_eq!(group::leader(&cluster), first);
}

#[test]
fn s8_s11_a_master_whose_disk_can_only_be_read_stops_and_is_replaced() {
    let disk = match Mount::ext4(512 * MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a read-only disk of one of three masters", &why),
    };
    let mut cluster = three(Some(disk.at.join("data")));
    let mut done = Acknowledged::default();
    done.put(&cluster, 5);
    let first = cluster.master.address.clone();
    disk.abort().expect("an ext4 can be aborted");
    let log = ends(&mut cluster, &first, &mut done);
    says(&log, &[disk.at.to_str().expect("text"), "check the disk"]);
    done.check(&cluster);
    // The disk is gone for good; another one takes its place.
    disk.take_away().expect("it is mounted");
    disk.mount_memory(512 * MIB).expect("it worked before");
    group::replace(&mut cluster, &first);
    done.put(&cluster, 2);
    done.check(&cluster);
}

#[test]
fn s11_a_torn_end_of_a_masters_log_needs_nobody() {
    let mut cluster = three(None);
    let mut done = Acknowledged::default();
    done.put(&cluster, 5);
    let victim = group::follower(&cluster);
    group::at(&mut cluster, &victim).kill();
    done.put(&cluster, 2);
    // A record of a thousand bytes of which the power left a hundred: nobody was told that it is durable.
    let log = newest_log(&group::log_dir(&group::at(&mut cluster, &victim).data));
    let record = [&[1, 2, 3, 4][..], &1000_u16.to_le_bytes(), &[1], &[9; 100]].concat();
    File::options().append(true).open(&log).and_then(|mut file| file.write_all(&record)).expect("a write");
    group::at(&mut cluster, &victim).restart();
    group::wait_whole(&cluster, 3);
    done.check(&cluster);
}

#[test]
fn s11_a_corrupt_middle_of_a_masters_log_stops_it_and_it_is_replaced() {
    let mut cluster = three(None);
    let mut done = Acknowledged::default();
    done.put(&cluster, 20);
    let victim = group::follower(&cluster);
    group::at(&mut cluster, &victim).kill();
    let dir = group::log_dir(&group::at(&mut cluster, &victim).data);
    let log = newest_log(&dir);
    flip(&log, fs::metadata(&log).expect("a file").len() / 2);
    let said = group::refused(&mut cluster, &victim);
    says(&said, &[dir.to_str().expect("text"), "damaged"]);
    says(&said, &REPLACE);
    done.put(&cluster, 2);
    done.check(&cluster);
    group::replace(&mut cluster, &victim);
    done.put(&cluster, 2);
    done.check(&cluster);
}

#[test]
fn s11_a_corrupt_state_of_a_master_stops_it_and_it_is_replaced() {
    let mut cluster = three(None);
    let mut done = Acknowledged::default();
    done.put(&cluster, 20);
    let first = cluster.master.address.clone();
    let victim = cluster.others[0].address.clone();
    // A backup is a checkpoint, which puts what is in memory into tables; of the leader.
    cluster.quarry(&["masters", "transfer-leader", &victim]).ok();
    assert_eq!(group::leader(&cluster), victim);
    let backup = cluster.path("backup");
    cluster.quarry(&["metadata", "backup", backup.to_str().expect("text")]).ok();
    cluster.quarry(&["masters", "transfer-leader", &first]).ok();
    assert_eq!(group::leader(&cluster), first);
    group::at(&mut cluster, &victim).kill();
    let dir = group::state_dir(&group::at(&mut cluster, &victim).data);
    let tables = files(&dir, "sst");
    assert!(!tables.is_empty(), "there is something to damage");
    // The first block of each, where its rows are.
    tables.iter().for_each(|table| flip(table, 16));
    let said = {
        let address = victim.clone();
        done.put(&cluster, 1);
        group::refused(&mut cluster, &address)
    };
    says(&said, &[dir.to_str().expect("text"), "damaged"]);
    says(&said, &REPLACE);
    done.check(&cluster);
    group::replace(&mut cluster, &victim);
    done.put(&cluster, 2);
    done.check(&cluster);
}
