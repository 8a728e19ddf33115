//! Measuring: `quarry bench` on a cluster in use, and the suite that starts clusters of its own. How fast anything is asserts
//! nobody here.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quarry_tests::{
    Cluster, Options, cli,
    process::{Ended, binary},
    wait,
};

/// Long enough for what takes seconds, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(240);

/// Every case of `quarry bench`.
const CASES: [&str; 20] = [
    "append",
    "list.all",
    "list.first",
    "metadata.create",
    "metadata.remove",
    "metadata.rename",
    "metadata.stat",
    "parallel.get",
    "parallel.put",
    "random.1m",
    "random.1m-local",
    "random.64k",
    "random.64k-local",
    "small.get",
    "small.put",
    "small.remove",
    "small.stat",
    "stream.get",
    "stream.get-local",
    "stream.put",
];

fn wait_empty(cluster: &Cluster) {
    assert_eq!(cluster.quarry(&["ls", "/"]).text(), "", "nothing is left in the cluster");
    assert!(cluster.quarry(&["trash", "--json", "/"]).json()["entries"].as_array().is_some_and(Vec::is_empty));
    wait::until("the chunks are deleted", LIMIT, || match cluster.chunk_files() {
        files if files.is_empty() => Ok(()),
        files => Err(format!("{files:?}")),
    });
}

#[test]
fn every_case_of_quarry_bench_runs_and_nothing_is_left_behind() {
    let mut cluster = Cluster::start(&Options::default());
    let pid = cluster.master.process().pid().to_string();
    let args = [
        "--json",
        "bench",
        "--size",
        "3MiB",
        "--files",
        "20",
        "--operations",
        "10",
        "--concurrency",
        "1,4",
        "--processes",
        &pid,
    ];
    let said = cluster.quarry(&args).json();
    let results = said["results"].as_array().cloned().expect("results");
    let names: BTreeSet<&str> = results.iter().filter_map(|one| one["case"].as_str()).collect();
    assert_eq!(names, CASES.into_iter().collect());
    let of = |case: &str| results.iter().filter(|one| one["case"] == case).cloned().collect::<Vec<_>>();
    assert_eq!((of("small.put").len(), of("metadata.stat").len()), (2, 2), "once for each concurrency");
    assert_eq!(of("stream.put")[0]["bytes"], 3 << 20);
    assert_eq!(of("small.get")[0]["bytes"], 20 * 4096);
    assert_eq!(of("append")[0]["operations"], 10);
    for one in &results {
        assert!(one["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{one}");
        assert!(one["latency_us"]["p50"].as_u64() <= one["latency_us"]["p99"].as_u64(), "{one}");
        assert!(one["cpu_seconds"]["others"].is_number(), "{one}");
    }
    assert!(said["peak_memory"]["client"].as_u64() > Some(1 << 20), "{said}");
    assert!(said["peak_memory"]["processes"][pid.as_str()].as_u64() > Some(1 << 20), "{said}");
    wait_empty(&cluster);

    let text = cluster.quarry(&["bench", "metadata", "--files", "5"]).text();
    assert!(text.contains("metadata.rename") && !text.contains("stream"), "{text}");
    let out = cluster.quarry(&["bench", "metadata", "--within", "/nowhere"]);
    assert_eq!(out.code, 3, "{}", out.stderr);
    assert!(!out.stderr.contains("is left"), "{}", out.stderr);
    wait_empty(&cluster);
}

#[test]
fn an_interrupted_quarry_bench_leaves_nothing_behind() {
    let cluster = Cluster::start(&Options::default());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let child = cli::start(&cluster.masters, &["bench", "small", "--files", "1000000", "--file-size", "20KiB"]);
        wait::until("files to be there", LIMIT, || {
            let dir = cluster.quarry(&["ls", "/"]).text();
            let du = cluster.quarry(&["du", "--json", "/"]).text();
            if dir.contains("quarry-bench") && !cluster.chunk_files().is_empty() { Ok(()) } else { Err(du) }
        });
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("it runs");
        let out = cli::collect(child);
        assert_eq!(out.code, 128 + signal as i32, "{}", out.stderr);
        wait_empty(&cluster);
    }
}

/// Starts the suite with little to do.
fn suite(dir: &Path, scale: &str, group: &str) -> Ended {
    let mut command = Command::new(binary("quarry-bench"));
    command.args(["run", "--quick", "--cold", "--runs", "1", "--scale", scale, "--only", group, "--dir"]).arg(dir);
    let log = fs::File::create(dir.join("said")).expect("a log file can be made");
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    Ended::new(started.expect("a built binary starts"))
}

/// Processes that have the directory on their command line.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a temporary path is text");
    let lines = fs::read_dir("/proc").expect("this is Linux").flatten();
    let lines = lines.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(dir) && line.contains("quarry")).collect()
}

fn left_of(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_suite_measures_data_beside_its_floors_and_cleans_up() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let said = || fs::read_to_string(temp.path().join("said")).unwrap_or_default();
    let status = suite(temp.path(), "200", "data").wait(LIMIT, said);
    assert!(status.success(), "{}", said());
    let json = fs::read_to_string(temp.path().join("results.json")).expect("results");
    let book: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let rows = book["rows"].as_array().cloned().expect("rows");
    let value = |case: &str, system: &str| {
        let row = rows.iter().find(|row| row["case"] == case && row["system"] == system);
        row.and_then(|row| row["values"][0].as_f64()).unwrap_or_default()
    };
    let measured = [
        ("sealed.disk.put", "floor"),
        ("sealed.disk.put", "quarry"),
        ("buffered.disk.get", "floor"),
        ("buffered.disk.get", "quarry"),
        ("buffered.tmpfs.put", "quarry"),
        ("sealed.disk.parallel.get", "quarry"),
        ("sealed.disk.4k.put", "quarry"),
        ("echo", "floor"),
        ("random.64k", "quarry"),
        ("short.get", "floor"),
        ("short.get", "quarry"),
        ("short.random.64k", "floor"),
        ("short.random.64k", "quarry"),
        ("memory.chunkserver", "quarry"),
    ];
    for (case, system) in measured {
        assert!(value(case, system) > 0.0, "{case} of {system}: {json}");
    }
    let text = fs::read_to_string(temp.path().join("results.txt")).expect("results");
    assert!(text.contains("put, sealed, against the floor with fsync"), "{text}");
    assert_eq!(left_of(temp.path()), ["results.html", "results.json", "results.txt", "said"]);
    assert_eq!(processes_of(temp.path()), Vec::<String>::new());
}

#[test]
fn a_suite_that_is_stopped_ends_its_processes_and_removes_what_it_made() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut running = suite(temp.path(), "1", "metadata");
    wait::until("its servers run", LIMIT, || {
        let all = processes_of(temp.path());
        if all.iter().any(|line| line.contains("quarry-chunkserver")) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let supervisor = processes_of(temp.path()).len();
    assert!(supervisor > 2);
    running.signal(Signal::SIGTERM);
    let status = running.wait(LIMIT, String::new);
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert_eq!(left_of(temp.path()), ["said"]);
    assert_eq!(processes_of(temp.path()), Vec::<String>::new());
}
