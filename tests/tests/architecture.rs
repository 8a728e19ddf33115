//! Which way knowledge flows, enforced on the crate graph; and that the table of promises names what exists.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

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
        assert_none(shipped, &["quarry-env-sim", "turmoil", "quarry-tests", "quarry-chaos"]);
    }
}

/// The top of the clone.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of every Rust file below `dir`, build directories left out.
fn rust_text(dir: &Path, into: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a directory of the clone") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            rust_text(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("Rust is text"));
        }
    }
}

/// What stands between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_of_promises_names_tests_and_files_that_exist() {
    let table = std::fs::read_to_string(top().join("docs/INVARIANTS.md")).expect("the table is there");
    let mut code = String::new();
    for part in ["proto", "env", "client", "master", "chunkserver", "cluster-sim", "tests"] {
        rust_text(&top().join(part), &mut code);
    }
    let (mut tests, mut missing) = (0, Vec::new());
    for line in table.lines().filter(|line| line.starts_with('|')) {
        for name in quoted(line) {
            if name.contains('/') || name.ends_with(".rs") {
                if !top().join(name).exists() {
                    missing.push(name);
                }
            } else if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.matches('_').count() > 2 {
                tests += 1;
                if !code.contains(&format!("fn {name}(")) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/INVARIANTS.md names what does not exist: {missing:#?}");
    assert!(tests > 80, "only {tests} tests were found in the table");
}
