//! A leader whose wall clock jumps: it is for display, and nothing ends by it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use quarry_tests::{Cluster, Options, cli, data, skipped, wait};

/// Of Debian's package libfaketime: tells a process another time.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;
const TRASH_MS: u64 = 60 * 60 * 1000;
const LIMIT: Duration = Duration::from_secs(60);

/// For a master whose wall clock is off by what the file says; the clock that it measures time with is right.
fn env(offset: &Path) -> Vec<(String, String)> {
    let text = offset.to_str().expect("a temporary path is text");
    let all = [
        ("LD_PRELOAD", LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", text),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    all.map(|(name, value)| (name.into(), value.into())).to_vec()
}

/// A put whose bytes do not come to an end before its input is dropped.
fn put_from_pipe(cluster: &Cluster, path: &str) -> Child {
    let mut command = cli::command(&cluster.masters, &["put", "-", path]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("quarry starts")
}

fn modified_ms(cluster: &Cluster, path: &str) -> u64 {
    cluster.quarry(&["stat", "--json", path]).json()["modified_ms"].as_u64().expect("a time")
}

/// How long a removed file stays in the trash, in milliseconds.
fn left_ms(cluster: &Cluster) -> u64 {
    let trash = cluster.quarry(&["trash", "--json"]).json();
    trash["entries"][0]["left_ms"].as_u64().unwrap_or_else(|| panic!("nothing in the trash: {trash}"))
}

/// Waits until replicated time has gone on, and checks that it did so by little.
fn goes_on(cluster: &Cluster) {
    let before = left_ms(cluster);
    wait::until("replicated time to go on", LIMIT, || match left_ms(cluster) {
        now if now < before => Ok(()),
        now => Err(format!("{now} ms are left, as before")),
    });
    assert!(left_ms(cluster) > TRASH_MS / 2, "an hour passed at once");
}

fn jump(offset: &Path, text: &str) {
    let new = offset.with_extension("new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, offset)).expect("a file in a temporary directory");
}

#[test]
fn s10_a_leader_whose_clock_jumps_a_year_ends_and_deletes_nothing() {
    if !Path::new(LIBRARY).exists() {
        return skipped("a clock that jumps", "there is no libfaketime here (Debian's package libfaketime)");
    }
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let offsets: Vec<PathBuf> = (0..3).map(|n| dir.path().join(format!("offset{n}"))).collect();
    offsets.iter().for_each(|offset| jump(offset, "+0"));
    let mut cluster = Cluster::start(&Options {
        masters: 3,
        settings: vec!["trash=1h".into(), "reader-grace=1h".into()],
        env_of_masters: offsets.iter().map(|offset| env(offset)).collect(),
        ..Options::default()
    });
    let bytes = data::bytes(1, 3 << 20);
    cluster.put("/removed", &[], &bytes);
    cluster.quarry(&["rm", "/removed"]).ok();
    let mut putting = put_from_pipe(&cluster, "/open");
    let mut input = putting.stdin.take().expect("stdin is piped");
    input.write_all(&bytes[..2 << 20]).expect("the put reads");
    wait::until("the open chunk", LIMIT, || match cluster.status()["totals"]["open"].as_u64() {
        Some(1) => Ok(()),
        other => Err(format!("{other:?} open")),
    });
    cluster.quarry(&["mkdir", "/before"]).ok();
    let files = cluster.chunk_files().len();

    // The first master leads: it was there first.
    jump(&offsets[0], "+365d");
    cluster.quarry(&["mkdir", "/jumped"]).ok();
    let jumped = modified_ms(&cluster, "/jumped") - modified_ms(&cluster, "/before");
    assert!(jumped >= YEAR_MS, "its clock did not jump: {jumped} ms");
    goes_on(&cluster);

    // The next leader's clock is right, a year behind the one before.
    cluster.master.kill();
    cluster.quarry(&["mkdir", "/back"]).ok();
    assert!(modified_ms(&cluster, "/back") < modified_ms(&cluster, "/jumped"), "another one leads");
    goes_on(&cluster);

    input.write_all(&bytes[2 << 20..]).expect("the put goes on");
    drop(input);
    let out = cli::collect(putting);
    assert_eq!(out.code, 0, "its lease held: {}", out.stderr);
    assert_eq!(cluster.quarry(&["cat", "/open"]).ok(), bytes);
    cluster.quarry(&["undelete", "/removed"]).ok();
    assert_eq!(cluster.quarry(&["cat", "/removed"]).ok(), bytes);
    assert!(cluster.chunk_files().len() >= files, "a chunk was deleted");
}
