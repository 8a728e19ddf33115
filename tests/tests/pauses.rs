//! SIGSTOP for longer than the lease, then SIGCONT: nothing acknowledged is lost, nothing is acknowledged after the fence.

use std::{
    io::Write,
    process::{Child, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quarry_tests::{Cluster, Options, cli, data, wait};

fn short_lease() -> Options {
    Options { chunkservers: 4, master_args: ["--lease", "2s"].map(String::from).to_vec(), ..Options::default() }
}

fn put_from_pipe(cluster: &Cluster, path: &str) -> Child {
    cli::command(&cluster.master.address, &["put", "-", path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quarry starts")
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid fits")), signal).expect("it runs");
}

fn open_chunks(cluster: &Cluster) -> Option<u64> {
    cluster.status()["totals"]["open"].as_u64()
}

fn wait_open(cluster: &Cluster, wanted: u64) {
    wait::until(&format!("{wanted} open chunks"), Duration::from_secs(60), || {
        let open = open_chunks(cluster);
        if open == Some(wanted) { Ok(()) } else { Err(format!("{open:?}")) }
    });
}

#[test]
fn s5_a_stopped_writer_loses_its_lease_and_its_late_completion_is_refused() {
    let cluster = Cluster::start(&short_lease());
    let mut putting = put_from_pipe(&cluster, "/f");
    let mut input = putting.stdin.take().expect("stdin is piped");
    input.write_all(&data::bytes(1, 2 << 20)).expect("the put reads");
    wait_open(&cluster, 1);
    signal(putting.id(), Signal::SIGSTOP);
    wait_open(&cluster, 0);
    signal(putting.id(), Signal::SIGCONT);
    drop(input);
    let out = cli::collect(putting);
    assert_ne!(out.code, 0, "a late completion is refused");
    assert_eq!(cluster.quarry(&["stat", "/f"]).code, 3, "and nothing is visible");
}

#[test]
fn s1_a_stopped_primary_is_written_around_and_harms_nothing_when_it_goes_on() {
    let mut cluster = Cluster::start(&short_lease());
    let local = cluster.path("local");
    let sha = data::file(&local, 2, 200 << 20);
    let mut putting = put_from_pipe(&cluster, "/f");
    let mut input = putting.stdin.take().expect("stdin is piped");
    let bytes = std::fs::read(&local).expect("it was just made");
    input.write_all(&bytes[..10 << 20]).expect("the put reads");
    wait_open(&cluster, 1);
    let victim = cluster.members_granted_last()[0];
    cluster.servers[victim].process().signal(Signal::SIGSTOP);
    input.write_all(&bytes[10 << 20..]).expect("the put goes on");
    drop(input);
    let out = cli::collect(putting);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let before = cluster.chunks("/f");
    cluster.servers[victim].process().signal(Signal::SIGCONT);
    cluster.wait_alive(4);
    let after = cluster.chunks("/f");
    for key in ["length", "crc32"] {
        assert_eq!(before[key], after[key]);
    }
    let back = cluster.path("back");
    cluster.quarry(&["get", "/f", back.to_str().expect("text")]).ok();
    assert_eq!(data::sums(&back).0, sha);
    wait::until("the stopped server's replica to be cut to the seal", Duration::from_secs(60), || {
        let status = cluster.status();
        let (open, corrupt) = (&status["totals"]["open"], &status["totals"]["corrupt"]);
        if (open, corrupt) == (&0.into(), &0.into()) { Ok(()) } else { Err(status["totals"].to_string()) }
    });
}

#[test]
fn s10_a_stopped_master_goes_on_where_it_was() {
    let mut cluster = Cluster::start(&short_lease());
    let local = cluster.path("local");
    let sha = data::file(&local, 3, 150 << 20);
    let mut putting = put_from_pipe(&cluster, "/f");
    let mut input = putting.stdin.take().expect("stdin is piped");
    let bytes = std::fs::read(&local).expect("it was just made");
    input.write_all(&bytes[..10 << 20]).expect("the put reads");
    wait_open(&cluster, 1);
    cluster.master.process().signal(Signal::SIGSTOP);
    // Longer than the lease, by the wall; the master must not hold the time it slept against the writer or a server.
    std::thread::sleep(Duration::from_secs(4));
    cluster.master.process().signal(Signal::SIGCONT);
    input.write_all(&bytes[10 << 20..]).expect("the put goes on");
    drop(input);
    let out = cli::collect(putting);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let back = cluster.path("back");
    cluster.quarry(&["get", "/f", back.to_str().expect("text")]).ok();
    assert_eq!(data::sums(&back).0, sha);
}
