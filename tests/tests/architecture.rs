//! Which way knowledge flows, enforced on the crate graph.

use std::{collections::BTreeSet, process::Command};

/// Everything `package` links in a normal build, itself left out.
fn links(package: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package])
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("names are text");
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let links: BTreeSet<String> = names.filter(|name| *name != package).map(String::from).collect();
    assert!(!links.is_empty(), "{package} links nothing: is the name right?");
    links
}

fn assert_none(package: &str, banned: &[&str]) {
    let links = links(package);
    let found: Vec<_> = banned.iter().filter(|name| links.contains(**name)).collect();
    assert!(found.is_empty(), "{package} must not link {found:?}");
}

/// What does I/O, keeps time or asks the operating system for randomness.
const IMPURE: &[&str] = &[
    "tokio",
    "tonic",
    "hyper",
    "openraft",
    "rocksdb",
    "librocksdb-sys",
    "mio",
    "socket2",
    "nix",
    "rustix",
    "getrandom",
    "tempfile",
    "quarry-env",
    "quarry-env-rocks",
    "quarry-proto",
    "quarry-client",
    "turmoil",
    "chrono",
    "time",
];

#[test]
fn the_cores_do_no_io() {
    for core in ["quarry-types", "quarry-master-core", "quarry-chunkserver-core", "quarry-sim"] {
        assert_none(core, IMPURE);
    }
}

#[test]
fn the_client_links_no_server_code_and_no_rocksdb() {
    assert_none(
        "quarry-client",
        &[
            "rocksdb",
            "librocksdb-sys",
            "openraft",
            "quarry-master",
            "quarry-master-core",
            "quarry-chunkserver",
            "quarry-chunkserver-core",
            "quarry-env-rocks",
            "quarry-env-sim",
            "turmoil",
        ],
    );
}

#[test]
fn shipped_crates_link_no_simulation() {
    for shipped in ["quarry-client", "quarry-master", "quarry-chunkserver"] {
        assert_none(shipped, &["quarry-env-sim", "turmoil", "quarry-tests"]);
    }
}
