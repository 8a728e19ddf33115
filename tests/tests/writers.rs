//! Several writers, dying writers, and files that go away under their readers.

use std::{
    io::{Read, Write},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quarry_client::{Client, ClientConfig, CreateMode, CreateOptions, FileWriter};
use quarry_env::{World, kv::NoKv};
use quarry_tests::{Cluster, Options, cli, data, wait};
use tokio::io::AsyncWriteExt as _;

/// A put or an append whose input the test feeds.
fn put_from_pipe(cluster: &Cluster, args: &[&str]) -> std::process::Child {
    cli::command(&cluster.master.address, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quarry starts")
}

fn wait_for_open_chunk(cluster: &Cluster) {
    wait::until("an open chunk", Duration::from_secs(30), || {
        let open = cluster.status()["totals"]["open"].as_u64();
        if open >= Some(1) { Ok(()) } else { Err(format!("{open:?} open")) }
    });
}

#[test]
fn of_two_writers_of_one_file_one_wins_and_the_other_is_told() {
    let cluster = Cluster::start(&Options::default());
    let (a, b) = (data::bytes(1, 2 << 20), data::bytes(2, 2 << 20));
    let mut first = put_from_pipe(&cluster, &["put", "-", "/f"]);
    let mut input = first.stdin.take().expect("stdin is piped");
    input.write_all(&a).expect("the put reads");
    wait_for_open_chunk(&cluster);
    let second = cli::run_with_input(&cluster.master.address, &["put", "-", "/f"], &b);
    assert_eq!(second.code, 0, "nothing of that name is visible yet: {}", second.stderr);
    drop(input);
    let first = cli::collect(first);
    assert_eq!(first.code, 4, "the name was taken meanwhile: {}", first.stderr);
    assert_eq!(cluster.quarry(&["cat", "/f"]).ok(), b);

    cli::run_with_input(&cluster.master.address, &["put", "-", "/log"], b"start").ok();
    let mut appending = put_from_pipe(&cluster, &["append", "-", "/log"]);
    let mut input = appending.stdin.take().expect("stdin is piped");
    input.write_all(&a).expect("the append reads");
    wait_for_open_chunk(&cluster);
    let refused = cli::run_with_input(&cluster.master.address, &["--timeout", "2s", "append", "-", "/log"], b"x");
    assert_ne!(refused.code, 0, "one appender at a time");
    drop(input);
    assert_eq!(cli::collect(appending).code, 0);
    assert_eq!(cluster.quarry(&["cat", "/log"]).ok(), [&b"start"[..], &a].concat());
}

#[test]
fn a_writer_that_dies_leaves_nothing_of_an_atomic_put() {
    let cluster = Cluster::start(&Options { master_args: vec!["--lease".into(), "2s".into()], ..Options::default() });
    let mut putting = put_from_pipe(&cluster, &["put", "-", "/f"]);
    let mut input = putting.stdin.take().expect("stdin is piped");
    input.write_all(&data::bytes(1, 2 << 20)).expect("the put reads");
    wait_for_open_chunk(&cluster);
    putting.kill().expect("it runs");
    putting.wait().expect("it ended");
    wait::until("the open chunk to be collected", Duration::from_secs(60), || {
        let open = cluster.status()["totals"]["open"].as_u64();
        if open == Some(0) { Ok(()) } else { Err(format!("{open:?} open")) }
    });
    assert_eq!(cluster.quarry(&["stat", "/f"]).code, 3);
    wait::until("its chunk files to go", Duration::from_secs(60), || {
        let files = cluster.chunk_files();
        if files.is_empty() { Ok(()) } else { Err(format!("{files:?}")) }
    });
}

/// Starts a `cat` of a large file, takes its first bytes, does `change`, and expects the old bytes to the end.
fn reading_survives(change: impl FnOnce(&Cluster)) {
    let cluster = Cluster::start(&Options::default());
    let local = cluster.path("local");
    let sha = data::file(&local, 3, 200 << 20);
    cluster.quarry(&["put", local.to_str().expect("text"), "/f"]).ok();
    let mut reading = cli::start(&cluster.master.address, &["cat", "/f"]);
    let mut stdout = reading.stdout.take().expect("stdout is piped");
    let mut got = vec![0; 1 << 20];
    stdout.read_exact(&mut got).expect("the first bytes come");
    change(&cluster);
    stdout.read_to_end(&mut got).expect("the rest comes");
    let out = cli::collect(reading);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let back = cluster.path("back");
    std::fs::write(&back, &got).expect("a temporary file");
    assert_eq!(data::sums(&back).0, sha);
}

#[test]
fn s6_a_replace_under_a_running_get_does_not_cut_it() {
    reading_survives(|cluster| {
        cli::run_with_input(&cluster.master.address, &["put", "--overwrite", "-", "/f"], b"new").ok();
        assert_eq!(cluster.quarry(&["cat", "/f"]).ok(), b"new");
    });
}

#[test]
fn s6_a_removal_under_a_running_get_does_not_cut_it() {
    reading_survives(|cluster| {
        cluster.quarry(&["rm", "/f"]).ok();
        assert_eq!(cluster.quarry(&["stat", "/f"]).code, 3);
    });
}

#[test]
fn s4_a_put_whose_parent_was_removed_is_refused() {
    let cluster = Cluster::start(&Options::default());
    cluster.quarry(&["mkdir", "-p", "/dir/sub"]).ok();
    let mut putting = put_from_pipe(&cluster, &["put", "-", "/dir/sub/f"]);
    let mut input = putting.stdin.take().expect("stdin is piped");
    input.write_all(&data::bytes(1, 2 << 20)).expect("the put reads");
    wait_for_open_chunk(&cluster);
    cluster.quarry(&["rm", "-r", "/dir"]).ok();
    drop(input);
    let out = cli::collect(putting);
    assert_ne!(out.code, 0, "the directory is gone");
    assert_eq!(cluster.quarry(&["ls", "/"]).text(), "");
}

#[test]
fn an_interrupted_append_gives_the_file_back_at_once() {
    let cluster = Cluster::start(&Options::default());
    cli::run_with_input(&cluster.master.address, &["put", "-", "/f"], b"one").ok();
    let mut interrupted = put_from_pipe(&cluster, &["append", "-", "/f"]);
    let mut input = interrupted.stdin.take().expect("stdin is piped");
    input.write_all(&data::bytes(1, 2 << 20)).expect("the append reads");
    wait_for_open_chunk(&cluster);
    let pid = Pid::from_raw(i32::try_from(interrupted.id()).expect("a pid fits"));
    kill(pid, Signal::SIGINT).expect("it runs");
    assert_eq!(cli::collect(interrupted).code, 130);
    // Well below the lease of a minute.
    let again = cli::run_with_input(&cluster.master.address, &["--timeout", "20s", "append", "-", "/f"], b"two");
    assert_eq!(again.code, 0, "{}", again.stderr);
    let back = cluster.quarry(&["cat", "/f"]).ok();
    assert!(back.starts_with(b"one") && back.ends_with(b"two"), "{} bytes", back.len());
}

#[test]
fn removed_now_gives_the_space_back() {
    let cluster = Cluster::start(&Options::default());
    cli::run_with_input(&cluster.master.address, &["put", "-", "/f"], &data::bytes(1, 2 << 20)).ok();
    assert_eq!(cluster.chunk_files().len(), 3);
    cluster.quarry(&["rm", "--now", "/f"]).ok();
    wait::until("the chunk files to go", Duration::from_secs(60), || {
        let files = cluster.chunk_files();
        if files.is_empty() { Ok(()) } else { Err(format!("{files:?}")) }
    });
    let status = cluster.status();
    assert_eq!((&status["totals"]["files"], &status["totals"]["missing"]), (&0.into(), &0.into()), "{status}");
}

/// A client whose chunks are small.
async fn client(cluster: &Cluster, chunk_bytes: u64) -> Client {
    let config = ClientConfig { chunk_bytes, ..ClientConfig::new(cluster.masters.split(',')) };
    Client::connect(World::real(Arc::new(NoKv)), config).await.expect("a client")
}

/// The master learns that a full chunk has ended with the writer's next call, which may be long in coming.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_flushed_can_be_read_while_its_writer_pauses_also_where_a_chunk_is_exactly_full() {
    const CHUNK: usize = 2 << 20;
    let cluster = Cluster::start(&Options::default());
    let (writes, reads) = (client(&cluster, CHUNK as u64).await, client(&cluster, CHUNK as u64).await);
    let options = CreateOptions { mode: CreateMode::Visible, ..CreateOptions::default() };
    let mut writer = writes.create("/log", &options).await.expect("it is created");
    let bytes = data::bytes(7, 3 * CHUNK);
    for (from, to) in [(0, CHUNK), (CHUNK, CHUNK + 100), (CHUNK + 100, 2 * CHUNK), (2 * CHUNK, 3 * CHUNK)] {
        writer.write_all(&bytes[from..to]).await.expect("it takes bytes");
        writer.flush_durable().await.expect("it is flushed");
        let reader = reads.open("/log").await.expect("it can be opened while its writer pauses");
        let read = reader.read_range(0, to).await.expect("what was flushed can be read");
        assert!(read == bytes[..to], "{} of {to} bytes", read.len());
    }
    writer.finish().await.expect("it is completed");
    let reader = reads.open("/log").await.expect("it is there");
    assert!(reader.read_range(0, 3 * CHUNK).await.expect("it can be read") == bytes);
}

/// Writes half a chunk, of 4 MiB, of `/f`, stops the second of its three members, so that the third gets nothing more, and goes on into
/// the next chunk: which the master has given before the first one has ended.
async fn stopped_before_a_chunk_ends(cluster: &mut Cluster, writes: &Client, bytes: &[u8]) -> (FileWriter, usize) {
    let mut writer = writes.create("/f", &CreateOptions::default()).await.expect("it is created");
    writer.write_all(&bytes[..2 << 20]).await.expect("it takes bytes");
    writer.flush_durable().await.expect("it is flushed");
    let stopped = cluster.members_granted_last()[1];
    cluster.servers[stopped].process().signal(Signal::SIGSTOP);
    writer.write_all(&bytes[2 << 20..6 << 20]).await.expect("there is room for what is not acknowledged");
    wait::until("two open chunks", Duration::from_secs(20), || {
        let open = cluster.status()["totals"]["open"].as_u64();
        if open == Some(2) { Ok(()) } else { Err(format!("{open:?} open")) }
    });
    (writer, stopped)
}

async fn ends_well(reads: &Client, mut writer: FileWriter, bytes: &[u8]) -> u64 {
    writer.write_all(&bytes[6 << 20..]).await.expect("it takes bytes");
    let finished = writer.finish().await.expect("it is completed");
    let reader = reads.open("/f").await.expect("it is there");
    assert!(reader.read_range(0, bytes.len()).await.expect("it can be read") == bytes);
    finished.stats.seals_on_failure
}

/// The members of the next chunk are ready when the last bytes of the one before are on their way.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_chunk_is_opened_before_the_last_one_has_ended() {
    let mut cluster = Cluster::start(&Options::default());
    let writes = client(&cluster, 4 << 20).await;
    let bytes = data::bytes(3, 11 << 20);
    let (writer, stopped) = stopped_before_a_chunk_ends(&mut cluster, &writes, &bytes).await;
    cluster.servers[stopped].process().signal(Signal::SIGCONT);
    assert_eq!(ends_well(&writes, writer, &bytes).await, 0);
}

/// A chunk that breaks when the next one is there already is continued by one that ends where that begins.
#[tokio::test(flavor = "multi_thread")]
async fn s4_a_chunk_that_breaks_before_the_next_one_is_continued_between_them() {
    let mut cluster = Cluster::start(&Options { chunkservers: 5, racks: 5, ..Options::default() });
    let writes = client(&cluster, 4 << 20).await;
    let bytes = data::bytes(4, 11 << 20);
    let (writer, stopped) = stopped_before_a_chunk_ends(&mut cluster, &writes, &bytes).await;
    cluster.servers[stopped].kill();
    assert!(ends_well(&writes, writer, &bytes).await > 0);
    let chunks = cluster.chunks("/f");
    let bounds: Vec<_> = chunks["chunks"]
        .as_array()
        .expect("chunks")
        .iter()
        .map(|c| (c["offset"].as_u64(), c["length"].as_u64()))
        .collect();
    let begins: Vec<_> = bounds.iter().filter_map(|(offset, _)| *offset).collect();
    assert!(begins.contains(&(4 << 20)) && begins.iter().any(|at| (2 << 20..4 << 20).contains(at)), "{bounds:?}");
}
