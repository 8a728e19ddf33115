//! A data directory is a file system of its own, and that goes: only its chunks are repaired, its server stays, and it can be
//! replaced while the server runs.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use quarry_tests::{Cluster, Options, data, mount::Mount, skipped, wait};

const FILES: u64 = 30;
const LIMIT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// Of both directories, so that both are used.
const CAPACITY: u64 = 400 * MIB;
/// Of the file system, so that it is not what limits it. What is not written costs nothing.
const SIZE: u64 = 1024 * MIB;
/// Puts until one is on a new disk.
const PUTS_MAX: u64 = 100;

fn content(seed: u64) -> Vec<u8> {
    data::bytes(seed, 100_000)
}

fn name(seed: u64) -> String {
    format!("/f{seed}")
}

fn check(cluster: &Cluster, files: u64) {
    for seed in 0..files {
        assert!(cluster.quarry(&["cat", &name(seed)]).ok() == content(seed), "{} is what was put", name(seed));
    }
}

/// The chunks below a data directory.
fn chunks_in(dir: &Path) -> BTreeSet<u64> {
    let shelves = fs::read_dir(dir.join("chunks")).into_iter().flatten().flatten();
    let files = shelves.flat_map(|shelf| fs::read_dir(shelf.path()).into_iter().flatten()).flatten();
    files.filter_map(|file| u64::from_str_radix(file.path().file_stem()?.to_str()?, 16).ok()).collect()
}

/// The chunks that were copied, after so many copies.
fn copied(cluster: &Cluster, after: usize) -> BTreeSet<u64> {
    let chunk = |line: &String| line.split("chunk=").nth(1)?.split(' ').next()?.trim_start_matches('c').parse().ok();
    cluster.logged("copy starts").iter().skip(after).filter_map(chunk).collect()
}

/// What `status` says of a data directory of the first server.
fn disk(cluster: &Cluster, at: &Path) -> serde_json::Value {
    let status = cluster.status_of(0);
    let disks = status["disks"].as_array().cloned().unwrap_or_default();
    let at = at.to_str().expect("text");
    disks.into_iter().find(|disk| disk["path"] == at).expect("every directory is shown")
}

/// What a cluster's second directory held.
struct Held {
    chunks: BTreeSet<u64>,
    /// Copies that were made before.
    copies: usize,
}

/// A cluster with files, whose first server has a second directory there.
fn filled(second: &Mount) -> (Cluster, Held) {
    let size = CAPACITY.to_string();
    let extra = ["--data", second.at.to_str().expect("text"), "--capacity", &size];
    let cluster = Cluster::start(&Options {
        chunkservers: 4,
        racks: 4,
        settings: vec!["repair-delay=2s".into()],
        chunkserver_args: vec!["--capacity".into(), size.clone()],
        args_of: vec![extra.map(String::from).to_vec()],
        ..Options::default()
    });
    (0..FILES).for_each(|seed| cluster.put(&name(seed), &[], &content(seed)));
    let names: Vec<String> = (0..FILES).map(name).collect();
    let _placed = cluster.wait_whole(&names, LIMIT);
    let (chunks, copies) = (chunks_in(&second.at), cluster.logged("copy starts").len());
    assert!(!chunks.is_empty() && !chunks_in(&cluster.servers[0].data).is_empty(), "both directories are used");
    (cluster, Held { chunks, copies })
}

/// Waits until all is whole again after the second directory went.
fn wait_repaired(cluster: &mut Cluster, second: &Mount, held: &Held) {
    let why = wait::until("the disk to show as failed", LIMIT, || match disk(cluster, &second.at) {
        disk if disk["failed"] == true => Ok(disk["reason"].to_string()),
        disk => Err(disk.to_string()),
    });
    println!("{why}");
    let names: Vec<String> = (0..FILES).map(name).collect();
    wait::until("three replicas of every chunk again", LIMIT, || {
        let placed = cluster.wait_whole(&names, LIMIT);
        if placed.iter().all(|servers| servers.len() == 3) { Ok(()) } else { Err(format!("{placed:?}")) }
    });
    assert_eq!(copied(cluster, held.copies), held.chunks, "what was on the disk is copied, and nothing else");
    cluster.wait_state(0, "alive", LIMIT);
    check(cluster, FILES);
    assert!(cluster.servers[0].process().running());
}

/// Waits until the server uses its second directory, and puts files until one is there.
fn wait_used(cluster: &mut Cluster, second: &Mount) {
    wait::until("the disk to be in service", LIMIT, || match disk(cluster, &second.at) {
        disk if disk["failed"] == false => Ok(()),
        disk => Err(disk.to_string()),
    });
    let put = |seed: u64| {
        cluster.put(&name(seed), &[], &content(seed));
        seed + 1
    };
    let files = (FILES..FILES + PUTS_MAX).map(put).find(|_| !chunks_in(&second.at).is_empty());
    check(cluster, files.expect("a new disk gets chunks"));
    assert!(cluster.servers[0].process().running());
}

#[test]
fn a_disk_that_is_unmounted_costs_only_its_chunks_and_an_empty_one_takes_its_place() {
    let second = match Mount::memory(SIZE) {
        Ok(mount) => mount,
        Err(why) => return skipped("a disk that is unmounted", &why),
    };
    let (mut cluster, held) = filled(&second);
    second.take_away().expect("it is mounted");
    wait_repaired(&mut cluster, &second, &held);
    let below: Vec<_> = fs::read_dir(&second.at).expect("the directory that it was mounted on").flatten().collect();
    assert!(below.is_empty(), "nothing is written where the disk was: {below:?}");
    second.mount_memory(SIZE).expect("it worked before");
    wait_used(&mut cluster, &second);
}

#[test]
fn a_disk_that_can_only_be_read_any_more_costs_only_its_chunks_and_an_empty_one_takes_its_place() {
    let second = match Mount::ext4(SIZE) {
        Ok(mount) => mount,
        Err(why) => return skipped("a disk that fails and can only be read any more", &why),
    };
    let (mut cluster, held) = filled(&second);
    second.abort().expect("an ext4 can be aborted");
    wait_repaired(&mut cluster, &second, &held);
    second.take_away().expect("it is mounted");
    second.mount_memory(SIZE).expect("it worked before");
    wait_used(&mut cluster, &second);
}
