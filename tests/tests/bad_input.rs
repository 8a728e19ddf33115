//! Bad names, sizes, flags, and bytes that are no protocol: clear errors, no panic, nothing lost.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    net::TcpStream,
    os::unix::ffi::OsStrExt,
    process::Command,
    time::Duration,
};

use quarry_tests::{Cluster, Options, cli, data, process::binary};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// No panic anywhere, and the servers still do their work.
fn assert_healthy(cluster: &mut Cluster) {
    cli::run_with_input(&cluster.master.address, &["put", "--overwrite", "-", "/healthy"], b"yes").ok();
    assert_eq!(cluster.quarry(&["cat", "/healthy"]).ok(), b"yes");
    assert!(!cluster.master.log().contains("panicked"), "{}", cluster.master.log());
    for server in &mut cluster.servers {
        assert!(server.process().running() && !server.log().contains("panicked"), "{}", server.log());
    }
}

#[test]
fn bad_names_are_refused_by_name() {
    let mut cluster = Cluster::start(&Options::default());
    let long = format!("/{}", "x".repeat(256));
    let deep = "/d".repeat(300);
    let huge = format!("/{}", "y/".repeat(3000));
    for name in ["", "relative", "/a/../b", "/.", "/..", "//", "/a//b", &long, &deep, &huge] {
        for args in [&["mkdir", name][..], &["put", "-", name], &["stat", name], &["mv", "/", name]] {
            let out = cli::run_with_input(&cluster.master.address, args, b"x");
            assert!(out.code > 0 && !out.stderr.contains("panicked"), "{args:?}: {out:?}");
            assert!(!out.stderr.trim().is_empty(), "{args:?} says why");
        }
    }
    let foreign = Command::new(binary("quarry"))
        .env("QUARRY_MASTERS", &cluster.master.address)
        .arg("stat")
        .arg(OsStr::from_bytes(b"/not\xffutf8"))
        .output()
        .expect("quarry starts");
    assert!(!foreign.status.success() && !String::from_utf8_lossy(&foreign.stderr).contains("panicked"));
    assert_healthy(&mut cluster);
}

#[test]
fn bad_flags_and_configuration_are_usage_errors() {
    for args in [&["--no-such-flag"][..], &["put"], &["put", "--replicas", "-1", "a", "/b"], &["frobnicate"]] {
        assert_eq!(cli::run("127.0.0.1:1", args).code, 2, "{args:?}");
    }
    let out = cli::run("127.0.0.1:1", &["put", "--replicas", "99999999999", "Cargo.toml", "/b"]);
    assert_eq!(out.code, 2, "{out:?}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "no_such_key = 1\n").expect("a temporary file");
    for program in ["quarry-master", "quarry-chunkserver"] {
        for args in [vec!["run", "--no-such-flag"], vec!["run", "--config", config.to_str().expect("text")]] {
            let out = Command::new(binary(program)).args(&args).output().expect("it starts");
            let said = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(2), "{program} {args:?}: {said}");
            assert!(said.contains("no_such_key") || said.contains("no-such-flag"), "names what is wrong: {said}");
        }
    }
}

#[test]
fn more_copies_than_servers_are_warned_of_and_a_put_that_waits_for_servers_says_so_soon() {
    let mut cluster = Cluster::start(&Options::default());
    cluster.put("/file", &[], b"x");
    let set = cluster.quarry(&["set-replicas", "5", "/file"]);
    assert!(set.code == 0 && set.stderr.contains("5 copies are wanted, and 3 chunkservers take part"), "{set:?}");
    let set = cluster.quarry(&["settings", "min-replicas=4", "default-replicas=4"]);
    assert!(set.code == 0 && set.stderr.contains("min-replicas is 4, and 3 chunkservers take part"), "{set:?}");
    let address = cluster.servers[0].address.clone();
    let put = cli::run_with_input(&cluster.master.address, &["put", "--timeout", "4s", "-", "/refused"], b"x");
    assert!(put.code != 0 && put.stderr.contains("warning: writes are refused: 3 chunkservers"), "{put:?}");
    cluster.set(&["min-replicas=2", "default-replicas=3"]);
    let drained = cluster.quarry(&["drain", "--no-wait", &address]);
    let warned = format!("without {address} 2 chunkservers take part, and default-replicas is 3");
    assert!(drained.code == 0 && drained.stderr.contains(&warned), "{drained:?}");
    assert_healthy(&mut cluster);
}

#[test]
fn a_tree_is_put_into_the_root() {
    let cluster = Cluster::start(&Options::default());
    let tree = cluster.path("tree");
    std::fs::create_dir_all(tree.join("below")).expect("a temporary directory");
    std::fs::write(tree.join("below/file"), b"in it").expect("a temporary file");
    let named = |end: &str| format!("{}{end}", tree.to_str().expect("text"));
    cluster.quarry(&["put", "-r", &named("/."), "/"]).ok();
    assert_eq!(cluster.quarry(&["cat", "/below/file"]).ok(), b"in it");
    cluster.quarry(&["put", "-r", &named(""), "/"]).ok();
    assert_eq!(cluster.quarry(&["cat", "/tree/below/file"]).ok(), b"in it");
}

#[test]
fn random_bytes_and_cut_frames_on_every_port_harm_nobody() {
    let mut cluster = Cluster::start(&Options::default());
    let seed = data::seed("QUARRY_GARBAGE_SEED", 11);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut ports = vec![cluster.master.address.clone()];
    ports.extend(cluster.servers.iter().map(|s| s.address.clone()));
    for round in 0..60 {
        for port in &ports {
            let mut stream = TcpStream::connect(port).expect("the port is open");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
            let length = rng.random_range(0..3000);
            let mut bytes = data::bytes(rng.random(), length);
            if round % 2 == 0 {
                // Looks like a frame for as long as possible.
                let head = [b"QRYF\x01".as_slice(), &[rng.random_range(0..20)], &[0xff; 6]].concat();
                bytes.splice(0..0, head);
            }
            // The other side may close early: that is its answer.
            let _early = stream.write_all(&bytes);
            let _early = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _reset = stream.take(1 << 20).read_to_end(&mut answer);
        }
    }
    for server in &mut cluster.servers {
        assert!(server.process().peak_memory() < 256 << 20, "bounded memory");
    }
    assert!(cluster.master.process().peak_memory() < 256 << 20, "bounded memory");
    assert_healthy(&mut cluster);
}
