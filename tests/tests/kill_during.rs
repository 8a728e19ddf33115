//! `kill -9` of any one chunkserver during a put and during a get.

use std::{fs, io::Write, path::Path, process::Stdio, time::Duration};

use quarry_tests::{Cluster, Options, cli, data, wait};

const LENGTH: u64 = 300 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Waits until the members hold that many bytes together.
fn wait_for_bytes(cluster: &Cluster, bytes: u64) {
    wait::until("bytes to arrive", Duration::from_secs(60), || {
        let files = cluster.chunk_files();
        let sum: u64 = files.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|m| m.len()).sum();
        if sum >= bytes { Ok(()) } else { Err(format!("{sum} of {bytes}")) }
    });
}

/// Where the put is when the server dies: in the middle of the second chunk.
const KILLED_AT: usize = 90 << 20;
/// What may be unacknowledged, and so sent again.
const WINDOW: u64 = 8 << 20;

/// Kills the server at `position` of the pipeline while bytes flow.
fn kill_in_put(position: usize) {
    let mut cluster = Cluster::start(&Options { chunkservers: 4, ..Options::default() });
    let (local, back) = (cluster.path("local"), cluster.path("back"));
    let sha = data::file(&local, 7, LENGTH);
    let bytes = fs::read(&local).expect("it was just made");
    let mut putting = cli::command(&cluster.master.address, &["put", "--json", "-", "/f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quarry starts");
    let mut input = putting.stdin.take().expect("stdin is piped");
    input.write_all(&bytes[..KILLED_AT]).expect("the put reads");
    // All but what the pipe and the put itself may hold back.
    wait_for_bytes(&cluster, 3 * (KILLED_AT as u64 - (2 << 20)));
    let victim = cluster.members_granted_last()[position];
    // Less than the chunk has room for, so that the chunk that breaks is this one.
    input.write_all(&bytes[KILLED_AT..KILLED_AT + (20 << 20)]).expect("the put reads");
    cluster.servers[victim].kill();
    input.write_all(&bytes[KILLED_AT + (20 << 20)..]).expect("the put goes on");
    drop(input);
    let out = cli::collect(putting);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let put = out.json();
    let (sent, again) = (put["bytes_sent"].as_u64(), put["bytes_resent"].as_u64());
    assert_eq!(sent.zip(again).map(|(sent, again)| sent - again), Some(LENGTH), "{put}");
    assert!(again <= Some(WINDOW), "no more than the unacknowledged window is sent again: {put}");
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
        file.write_all(&part).expect("a temporary file");
        std::io::copy(&mut stdout, &mut file).expect("the rest comes");
        let out = cli::collect(getting);
        assert_eq!(out.code, 0, "{}", out.stderr);
        assert_eq!(data::sums(&back).0, sha, "server {victim} died");
        cluster.servers[victim].restart();
        cluster.wait_alive(3);
    }
}
