//! Files go in and come out identical.

use std::{fs, path::Path, time::Duration};

use quarry_tests::{Cluster, Options, data, wait};

/// Bytes around every edge of a block and of a chunk.
const EDGES: &[u64] = &[0, 1, 65_535, 65_536, 65_537, (64 << 20) - 1, 64 << 20, (64 << 20) + 1];

/// The large file of the CI run, in MiB; `scripts/soak` takes 3072.
fn large_mib() -> u64 {
    std::env::var("QUARRY_LARGE_MIB").map_or(512, |v| v.parse().expect("a number of MiB"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

#[test]
fn files_of_every_edge_come_back_identical_and_checksum_agrees_with_zlib() {
    let cluster = Cluster::start(&Options::default());
    let (local, back) = (cluster.path("local"), cluster.path("back"));
    let large = large_mib() << 20;
    for length in EDGES.iter().copied().chain([large]) {
        let sha = data::file(&local, length, length);
        let (_, crc) = data::sums(&local);
        let remote = format!("/edges/{length}");
        cluster.quarry(&["mkdir", "-p", "/edges"]).ok();
        cluster.quarry(&["put", text(&local), &remote]).ok();
        let printed = cluster.quarry(&["checksum", &remote]).text();
        assert_eq!(printed.split_whitespace().next(), Some(crc.as_str()), "checksum of {length} bytes");
        let chunks = cluster.chunks(&remote);
        assert_eq!((chunks["length"].as_u64(), chunks["crc32"].as_str()), (Some(length), Some(crc.as_str())));
        let rows = chunks["chunks"].as_array().expect("chunks");
        assert_eq!(rows.len() as u64, length.div_ceil(64 << 20));
        for row in rows {
            assert_eq!(row["state"], "sealed", "{row}");
            assert_eq!(row["replicas"].as_array().map(Vec::len), Some(3), "{row}");
        }
        cluster.quarry(&["get", &remote, text(&back)]).ok();
        assert_eq!(data::sums(&back), (sha, crc), "{length} bytes");
        fs::remove_file(&back).expect("it was just made");
    }
    let listed = cluster.quarry(&["ls", "/edges"]).text();
    assert_eq!(listed.lines().count(), EDGES.len() + 1);
}

#[test]
fn a_tree_comes_back_identical() {
    let cluster = Cluster::start(&Options::default());
    let files: usize = std::env::var("QUARRY_TREE_FILES").map_or(400, |v| v.parse().expect("a number"));
    let tree = cluster.path("tree");
    for i in 0..files {
        let dir = tree.join(format!("d{}/e{}", i % 7, i % 31));
        fs::create_dir_all(&dir).expect("a temporary directory");
        fs::write(dir.join(format!("file {i} ü")), data::bytes(i as u64, i * 37 % 9000)).expect("a file");
    }
    fs::create_dir_all(tree.join("empty")).expect("a temporary directory");
    cluster.quarry(&["put", "-r", text(&tree), "/"]).ok();
    let back = cluster.path("back");
    fs::create_dir(&back).expect("a temporary directory");
    cluster.quarry(&["get", "-r", "/tree", text(&back)]).ok();
    let diff = std::process::Command::new("diff").arg("-r").args([&tree, &back.join("tree")]).output().expect("diff");
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let du = cluster.quarry(&["du", "--json", "/tree"]).json();
    assert!(du.to_string().contains(&files.to_string()), "{du}");
}

#[test]
fn pipes_cat_append_and_the_rest_of_the_verbs() {
    let cluster = Cluster::start(&Options::default());
    let first = data::bytes(1, 200_000);
    let put = quarry_tests::cli::run_with_input(&cluster.master.address, &["put", "-", "/piped"], &first);
    put.ok();
    assert_eq!(cluster.quarry(&["cat", "/piped"]).ok(), first);
    let more = data::bytes(2, 70_001);
    quarry_tests::cli::run_with_input(&cluster.master.address, &["append", "-", "/piped"], &more).ok();
    let whole = [first, more].concat();
    assert_eq!(cluster.quarry(&["cat", "/piped"]).ok(), whole);
    let crc = format!("{:08x}", crc32fast::hash(&whole));
    assert!(cluster.quarry(&["checksum", "/piped"]).text().starts_with(&crc));

    cluster.quarry(&["mkdir", "-p", "/a/b"]).ok();
    cluster.quarry(&["mv", "/piped", "/a/b/moved"]).ok();
    assert_eq!(cluster.quarry(&["ls", "/a/b"]).text(), "moved\n");
    assert_eq!(cluster.quarry(&["cat", "/piped"]).code, 3, "not found has a code of its own");
    assert_ne!(cluster.quarry(&["mv", "/a", "/a/b/c"]).code, 0, "a directory cannot move below itself");
    assert_ne!(cluster.quarry(&["rm", "/a"]).code, 0, "a directory wants -r");
    cluster.quarry(&["rm", "-r", "/a"]).ok();
    assert_eq!(cluster.quarry(&["ls", "/"]).text(), "");
}

#[test]
fn put_replaces_only_when_told() {
    let cluster = Cluster::start(&Options::default());
    let put = |args: &[&str], bytes: &[u8]| {
        let args = [&["put"], args, &["-", "/f"]].concat();
        quarry_tests::cli::run_with_input(&cluster.master.address, &args, bytes)
    };
    put(&[], b"one").ok();
    assert_eq!(put(&[], b"two").code, 4);
    put(&["--no-clobber"], b"two").ok();
    assert_eq!(cluster.quarry(&["cat", "/f"]).ok(), b"one");
    put(&["--overwrite"], b"three").ok();
    assert_eq!(cluster.quarry(&["cat", "/f"]).ok(), b"three");
}

#[test]
fn fewer_copies_than_wanted_are_said() {
    let cluster = Cluster::start(&Options { chunkservers: 2, ..Options::default() });
    let out = quarry_tests::cli::run_with_input(&cluster.master.address, &["put", "-", "/f"], b"bytes");
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("warning") && out.stderr.contains('2') && out.stderr.contains('3'), "{}", out.stderr);
    // The master counts chunks at most every so often.
    wait::until("status to show it", Duration::from_secs(30), || {
        let status = cluster.status();
        if status["totals"]["under_replicated"] == 1 { Ok(()) } else { Err(status.to_string()) }
    });
    let one = quarry_tests::cli::run_with_input(&cluster.master.address, &["put", "--replicas", "1", "-", "/g"], b"x");
    assert_eq!((one.code, one.stderr.contains("warning")), (0, false), "{}", one.stderr);
}
