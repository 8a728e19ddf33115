//! A master that comes back with an old copy of its disk, or with a log that lost its end, must not vote: it could undo what
//! it had acknowledged.

use std::{fs, fs::File, path::Path, time::Duration};

use nix::sys::signal::Signal;
use quarry_tests::{Cluster, Options, group, wait};

const LIMIT: Duration = Duration::from_secs(60);

fn three() -> Cluster {
    Cluster::start(&Options { masters: 3, ..Options::default() })
}

fn put(cluster: &Cluster, from: u32, count: u32) {
    for n in from..from + count {
        cluster.put(&format!("/f{n}"), &[], format!("bytes {n}").as_bytes());
    }
}

fn check(cluster: &Cluster, count: u32) {
    for n in 0..count {
        assert_eq!(cluster.quarry(&["cat", &format!("/f{n}")]).ok(), format!("bytes {n}").as_bytes());
    }
}

/// Stops a master, keeps a copy of its disk, and starts it again.
fn copied(cluster: &mut Cluster, address: &str) -> std::path::PathBuf {
    let copy = cluster.path("copy");
    group::at(cluster, address).kill();
    group::copy_dir(&group::at(cluster, address).data, &copy);
    group::at(cluster, address).restart();
    group::wait_whole(cluster, 3);
    copy
}

/// Puts the copy in the place of the disk of a stopped master.
fn put_back(cluster: &mut Cluster, address: &str, copy: &Path) {
    let data = group::at(cluster, address).data.clone();
    fs::remove_dir_all(&data).expect("the present disk");
    fs::rename(copy, &data).expect("the copy takes its place");
}

/// Waits until it is recorded how far all three have acknowledged what is in the log now.
fn wait_recorded(cluster: &Cluster) {
    let last = group::masters(cluster).iter().filter_map(|m| m["last_log"].as_u64()).max();
    // The record is made by whoever leads, and names the entry up to which all three have acknowledged.
    let recorded = |line: &str| line.split("lowest=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    wait::until("a record of how far the logs are", LIMIT, || {
        let all = [&cluster.master].into_iter().chain(&cluster.others);
        let lines: Vec<String> = all.flat_map(|m| m.log().lines().map(String::from).collect::<Vec<_>>()).collect();
        let records = lines.iter().filter(|line| line.contains("was recorded"));
        if records.filter_map(|line| recorded(line)).max() >= last { Ok(()) } else { Err("none yet".to_owned()) }
    });
    group::wait_whole(cluster, 3);
}

fn is_refused(cluster: &mut Cluster, address: &str, words: &[&str]) {
    let said = group::refused(cluster, address);
    let last = said.lines().rev().find(|line| line.contains("quarry-master: ")).unwrap_or_default();
    println!("{last}");
    for word in words.iter().chain(&["quarry masters remove", "quarry-master join", "quarry masters add"]) {
        assert!(last.contains(word), "{word:?} is missing in: {last}");
    }
}

#[test]
fn s11_an_old_image_of_a_master_is_refused_by_the_others_and_replaced() {
    let mut cluster = three();
    put(&cluster, 0, 5);
    let victim = group::follower(&cluster);
    let number = group::number(&cluster, &victim);
    let copy = copied(&mut cluster, &victim);
    put(&cluster, 5, 5);
    group::wait_whole(&cluster, 3);
    group::at(&mut cluster, &victim).kill();
    put_back(&mut cluster, &victim, &copy);
    is_refused(&mut cluster, &victim, &["old image", &format!("master m{number} ends at")]);
    put(&cluster, 10, 2);
    check(&cluster, 12);
    group::replace(&mut cluster, &victim);
    check(&cluster, 12);
}

#[test]
fn s11_an_old_image_is_refused_also_by_a_leader_that_was_elected_since() {
    let mut cluster = three();
    put(&cluster, 0, 5);
    let victim = group::follower(&cluster);
    let copy = copied(&mut cluster, &victim);
    put(&cluster, 5, 5);
    wait_recorded(&cluster);
    group::at(&mut cluster, &victim).kill();
    let old = group::leader(&cluster);
    cluster.quarry(&["masters", "step-down"]).ok();
    assert_ne!(group::leader(&cluster), old);
    put_back(&mut cluster, &victim, &copy);
    is_refused(&mut cluster, &victim, &["old image"]);
    check(&cluster, 10);
}

/// Power is lost everywhere, and the leader's disk comes back without what it was told last: nobody else knows exactly what it
/// had acknowledged, so it must not go on as if it led still.
#[test]
fn s1_s11_a_leader_that_lost_its_last_entries_undoes_nothing_that_was_acknowledged() {
    let mut cluster = three();
    put(&cluster, 0, 5);
    wait_recorded(&cluster);
    let leads = group::leader(&cluster);
    let copy = cluster.path("copy");
    // It must run meanwhile, or another one would lead. Nothing is written now, so that the copy is one moment's.
    group::copy_dir(&group::at(&mut cluster, &leads).data, &copy);
    put(&cluster, 5, 5);
    let Cluster { master, others, .. } = &mut cluster;
    [master].into_iter().chain(others).for_each(|master| master.kill());
    put_back(&mut cluster, &leads, &copy);
    let Cluster { master, others, .. } = &mut cluster;
    [master].into_iter().chain(others).for_each(|master| master.restart());
    check(&cluster, 10);
    put(&cluster, 10, 2);
    check(&cluster, 12);
}

#[test]
fn s4_s11_a_copy_of_the_empty_files_of_a_member_undoes_nothing_that_was_acknowledged() {
    let mut cluster = three();
    let victim = group::follower(&cluster);
    let fresh = cluster.path("fresh");
    group::replace_keeping(&mut cluster, &victim, &fresh);
    let leads = group::leader(&cluster);
    let third = [&cluster.master].into_iter().chain(&cluster.others).map(|m| m.address.clone());
    let third = third.into_iter().find(|address| *address != leads && *address != victim).expect("three masters");
    // What follows only the leader and the victim acknowledge.
    group::at(&mut cluster, &third).process().signal(Signal::SIGSTOP);
    put(&cluster, 0, 5);
    group::at(&mut cluster, &leads).kill();
    group::at(&mut cluster, &victim).kill();
    put_back(&mut cluster, &victim, &fresh);
    group::at(&mut cluster, &third).process().signal(Signal::SIGCONT);
    group::at(&mut cluster, &victim).restart();
    wait::until("it to wait for a leader", LIMIT, || {
        let waits = group::at(&mut cluster, &victim).log().contains("in no group yet");
        if waits { Ok(()) } else { Err("it does not say so".to_owned()) }
    });
    group::at(&mut cluster, &leads).restart();
    assert_eq!(group::leader(&cluster), leads, "only who has everything can lead");
    check(&cluster, 5);
}

#[test]
fn s11_a_number_that_was_in_the_group_is_not_taken_in_again() {
    let mut cluster = three();
    let victim = group::follower(&cluster);
    let fresh = cluster.path("fresh");
    group::replace_keeping(&mut cluster, &victim, &fresh);
    let number = group::number(&cluster, &victim);
    put(&cluster, 0, 5);
    wait_recorded(&cluster);
    cluster.quarry(&["masters", "remove", &format!("m{number}")]).ok();
    group::at(&mut cluster, &victim).kill();
    put_back(&mut cluster, &victim, &fresh);
    group::at(&mut cluster, &victim).restart();
    let out = cluster.quarry(&["masters", "add", &victim]);
    assert_ne!(out.code, 0);
    assert!(
        out.stderr.contains("old copy of its files") && out.stderr.contains("quarry-master join"),
        "{}",
        out.stderr
    );
    check(&cluster, 5);
}

#[test]
fn s11_a_master_whose_log_lost_what_it_acknowledged_is_refused() {
    let mut cluster = three();
    put(&cluster, 0, 10);
    let victim = group::follower(&cluster);
    group::wait_whole(&cluster, 3);
    group::at(&mut cluster, &victim).kill();
    let dir = group::log_dir(&group::at(&mut cluster, &victim).data);
    let logs = fs::read_dir(&dir).expect("a store").map(|entry| entry.expect("an entry").path());
    let log = logs.filter(|path| path.extension().is_some_and(|e| e == "log")).max().expect("a store has a log");
    // To RocksDB, and to this master, it looks like a record that was being written when the power went.
    let file = File::options().write(true).open(&log).expect("a file of a stopped master");
    file.set_len(file.metadata().expect("its length").len() * 3 / 4).expect("a cut");
    is_refused(&mut cluster, &victim, &[]);
    check(&cluster, 10);
    group::replace(&mut cluster, &victim);
    check(&cluster, 10);
}

#[test]
fn s11_a_master_that_hears_no_other_one_waits_and_says_so() {
    let mut cluster = Cluster::start(&Options { masters: 3, chunkservers: 0, ..Options::default() });
    let victim = group::follower(&cluster);
    let Cluster { master, others, .. } = &mut cluster;
    [master].into_iter().chain(others).for_each(|master| master.kill());
    group::at(&mut cluster, &victim).restart();
    wait::until("it says that it waits", LIMIT, || {
        let log = group::at(&mut cluster, &victim).log();
        if log.contains("no other master answers") { Ok(()) } else { Err(log) }
    });
    let Cluster { master, others, .. } = &mut cluster;
    [master].into_iter().chain(others).filter(|m| m.address != victim).for_each(|master| master.restart());
    group::wait_whole(&cluster, 3);
    cluster.quarry(&["mkdir", "/d"]).ok();
}
