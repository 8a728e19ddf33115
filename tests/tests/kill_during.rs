//! `kill -9` of any one chunkserver during a put and during a get.

use std::{fs, path::Path, time::Duration};

use quarry_tests::{Cluster, Options, cli, data, wait};

const LENGTH: u64 = 300 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// The members of the first open chunk anywhere on disk, by waiting until each server has a growing chunk file, and
/// then their order from `chunks` of the finished file is compared by the caller.
fn wait_for_bytes(cluster: &Cluster, bytes: u64) {
    wait::until("bytes to arrive", Duration::from_secs(60), || {
        let files = cluster.chunk_files();
        let sum: u64 = files.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|m| m.len()).sum();
        if sum >= bytes { Ok(()) } else { Err(format!("{sum} of {bytes}")) }
    });
}

/// Kills the server at `position` of the pipeline once about a third of the file is there.
fn kill_in_put(position: usize) {
    let mut cluster = Cluster::start(&Options { chunkservers: 4, ..Options::default() });
    let (local, back) = (cluster.path("local"), cluster.path("back"));
    let sha = data::file(&local, 7, LENGTH);
    let putting = cli::start(&cluster.master.address, &["put", "--json", text(&local), "/f"]);
    wait_for_bytes(&cluster, LENGTH);
    // The pipeline of the chunk that is being written now, from the members that the master granted.
    let victim = wait::until("an open chunk", Duration::from_secs(30), || {
        let open = open_members(&cluster).ok_or("no chunk is open")?;
        open.get(position).cloned().ok_or_else(|| format!("members {open:?}"))
    });
    let index = cluster.server_at(&victim);
    cluster.servers[index].kill();
    let out = cli::collect(putting);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let chunks = cluster.chunks("/f");
    let rows = chunks["chunks"].as_array().expect("chunks");
    let mut end = 0;
    let mut short = 0;
    for row in rows {
        assert_eq!(row["offset"].as_u64(), Some(end), "no gap and no overlap: {chunks}");
        let length = row["length"].as_u64().expect("a length");
        end += length;
        short += usize::from(length < 64 << 20 && end < LENGTH);
    }
    assert_eq!((end, short), (LENGTH, 1), "one short sealed chunk, and one that goes on from its offset: {chunks}");
    cluster.quarry(&["get", "/f", text(&back)]).ok();
    assert_eq!(data::sums(&back).0, sha);
}

/// Addresses of the members of the open chunk, in pipeline order.
fn open_members(cluster: &Cluster) -> Option<Vec<String>> {
    let log = cluster.master.log();
    // The master logs each grant: chunk, then the members' addresses in order.
    let line = log.lines().rev().find(|line| line.contains("chunk granted"))?;
    let members = line.split("members=").nth(1)?.split_whitespace().next()?;
    Some(members.trim_matches('"').split(',').map(String::from).collect())
}

#[test]
fn the_primary_dies_during_a_put() {
    kill_in_put(0);
}

#[test]
fn the_middle_dies_during_a_put() {
    kill_in_put(1);
}

#[test]
fn the_tail_dies_during_a_put() {
    kill_in_put(2);
}

#[test]
fn each_server_in_turn_dies_during_a_get() {
    let mut cluster = Cluster::start(&Options::default());
    let (local, back) = (cluster.path("local"), cluster.path("back"));
    let sha = data::file(&local, 8, LENGTH);
    cluster.quarry(&["put", text(&local), "/f"]).ok();
    for victim in 0..3 {
        let mut getting = cli::start(&cluster.master.address, &["cat", "/f"]);
        let mut stdout = getting.stdout.take().expect("stdout is piped");
        let mut file = fs::File::create(&back).expect("a temporary file");
        // Takes a first part, so that the get is certainly under way, then lets it go on without one server.
        let mut part = vec![0; 40 << 20];
        std::io::Read::read_exact(&mut stdout, &mut part).expect("the first 40 MiB come");
        cluster.servers[victim].kill();
        std::io::Write::write_all(&mut file, &part).expect("a temporary file");
        std::io::copy(&mut stdout, &mut file).expect("the rest comes");
        let out = cli::collect(getting);
        assert_eq!(out.code, 0, "{}", out.stderr);
        assert_eq!(data::sums(&back).0, sha, "server {victim} died");
        cluster.servers[victim].restart();
        cluster.wait_alive(3);
    }
}
