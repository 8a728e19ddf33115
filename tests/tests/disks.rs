//! One data directory of two fails: only its chunks are repaired, and its server stays.

use std::{fs, path::Path, time::Duration};

use quarry_tests::{Cluster, Options, cli, data, wait};

const FILES: u64 = 30;
const LIMIT: Duration = Duration::from_secs(120);

/// Two directories with a capacity each: on one file system they would not differ in room.
fn second_directory(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("text").to_owned();
    vec!["--data".into(), path, "--capacity".into(), "2GiB".into(), "--capacity".into(), "2GiB".into()]
}

#[test]
fn a_directory_that_vanishes_loses_only_its_own_chunks() {
    let extra = tempfile::tempdir().expect("a temporary directory can be made");
    let second = extra.path().join("disk");
    let mut cluster = Cluster::start(&Options {
        chunkservers: 4,
        racks: 4,
        settings: vec!["repair-delay=0s".into()],
        args_of: vec![second_directory(&second)],
        ..Options::default()
    });
    let contents: Vec<Vec<u8>> = (0..FILES).map(|n| data::bytes(n, 100_000)).collect();
    let names: Vec<String> = (0..FILES).map(|n| format!("/f{n}")).collect();
    for (name, bytes) in names.iter().zip(&contents) {
        cli::run_with_input(&cluster.master.address, &["put", "-", name], bytes).ok();
    }
    let copies = || cluster.master.log().lines().filter(|line| line.contains("copy done")).count();
    let _ = cluster.wait_whole(&names, LIMIT);
    let before = copies();
    let count = |dir: &Path| {
        let shelves = fs::read_dir(dir.join("chunks")).into_iter().flatten().flatten();
        shelves.flat_map(|shelf| fs::read_dir(shelf.path()).into_iter().flatten()).count()
    };
    let (on_second, on_first) = (count(&second), count(&cluster.servers[0].data));
    assert!(on_second > 0 && on_first > 0, "both directories are used: {on_first}, {on_second}");
    fs::rename(&second, extra.path().join("away")).expect("a directory can be renamed");
    wait::until("the disk to show as failed", LIMIT, || {
        let status = cluster.status().to_string();
        if status.contains("\"failed\":true") { Ok(()) } else { Err(status) }
    });
    // A beat tells of the disk, a report of what was on it: either may come first.
    wait::until("copies of what was on it", LIMIT, || {
        let copies = copies() - before;
        if copies >= on_second { Ok(()) } else { Err(format!("{copies} of {on_second}")) }
    });
    let placed = cluster.wait_whole(&names, LIMIT);
    assert!(placed.iter().all(|servers| servers.len() == 3), "{placed:?}");
    cluster.wait_state(0, "alive", LIMIT);
    assert_eq!(copies() - before, on_second, "only what was on the directory is copied");
    for (name, bytes) in names.iter().zip(&contents) {
        assert_eq!(&cluster.quarry(&["cat", name]).ok(), bytes);
    }
    assert!(cluster.servers[0].process().running());
}
