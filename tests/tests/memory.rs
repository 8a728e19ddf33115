//! Peak memory while a large file goes through.

use std::{path::Path, process::Stdio, thread, time::Duration};

use quarry_tests::{Cluster, Options, cli, data, process::peak_memory};

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Runs `quarry` and returns its peak memory in bytes.
fn peak_of(cluster: &Cluster, args: &[&str]) -> u64 {
    let mut child = cli::command(&cluster.master.address, args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut peak = 0;
    loop {
        peak = peak.max(peak_memory(child.id()));
        if child.try_wait().expect("it can be waited for").is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let out = cli::collect(child);
    assert_eq!(out.code, 0, "{args:?}: {}", out.stderr);
    peak
}

#[test]
fn s9_memory_stays_bounded_while_a_large_file_goes_through() {
    let mib: u64 = std::env::var("QUARRY_LARGE_MIB").map_or(512, |v| v.parse().expect("a number of MiB"));
    let mut cluster = Cluster::start(&Options::default());
    let (local, back) = (cluster.path("local"), cluster.path("back"));
    let sha = data::file(&local, 1, mib << 20);
    let put = peak_of(&cluster, &["put", text(&local), "/f"]);
    let get = peak_of(&cluster, &["get", "/f", text(&back)]);
    assert_eq!(data::sums(&back).0, sha);
    let master = cluster.master.process().peak_memory();
    let servers: Vec<u64> = cluster.servers.iter_mut().map(|s| s.process().peak_memory()).collect();
    println!(
        "peak memory in MiB, {mib} MiB file: put {}, get {}, master {}, chunkservers {:?}",
        put >> 20,
        get >> 20,
        master >> 20,
        servers.iter().map(|s| s >> 20).collect::<Vec<_>>()
    );
    assert!(put.max(get) <= 128 << 20, "client");
    assert!(master <= 256 << 20, "master");
    assert!(servers.iter().all(|s| *s <= 256 << 20), "chunkservers");
}
