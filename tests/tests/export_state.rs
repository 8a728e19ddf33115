//! The state of a real cluster in the simulator, and what it says beside what happened.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use quarry_tests::{Cluster, Options, data, process::binary};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// A cluster with one chunk in each of `files` files.
fn cluster(chunkservers: usize, racks: usize, settings: &[&str], files: u64, bytes: usize) -> Cluster {
    let settings = settings.iter().map(|s| (*s).to_owned()).collect();
    let cluster = Cluster::start(&Options { chunkservers, racks, settings, ..Options::default() });
    for n in 0..files {
        cluster.put(&format!("/f{n}"), &[], &data::bytes(n, bytes));
    }
    cluster.wait_reported();
    cluster
}

/// Exports the state: the file's name and what is in it.
fn export(cluster: &Cluster) -> (String, Value) {
    let file = cluster.path("state.json").to_str().expect("a temporary path is text").to_owned();
    let said = cluster.quarry(&["admin", "export-state", &file, "--json"]).json();
    let state: Value = serde_json::from_slice(&fs::read(&file).expect("the state")).expect("JSON");
    for list in ["servers", "chunks"] {
        assert_eq!(said[list].as_u64(), state[list].as_array().map(|list| list.len() as u64), "{said}");
    }
    (file, state)
}

/// The servers that hold a chunk, by their places in the state.
fn on(chunk: &Value) -> Vec<usize> {
    let places = chunk["on"].as_array().expect("places");
    places.iter().map(|at| usize::try_from(at.as_u64().expect("a place")).expect("a place")).collect()
}

/// What the simulator says of the loss of the server at `address`.
fn what_if(file: &str, address: &str) -> Value {
    let kill = format!("server:{address}");
    let out = Command::new(binary("quarry-sim"))
        .args(["what-if", "--cluster", file, "--kill", &kill, "--json"])
        .output()
        .expect("quarry-sim starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

#[test]
fn the_state_of_a_live_cluster_is_exported_whole() {
    let mut cluster = cluster(4, 2, &["repair-delay=1h"], 20, 100_000);
    let (file, state) = export(&cluster);
    assert_eq!(state["settings"]["repair-delay"], "1h");
    let servers = state["servers"].as_array().expect("servers");
    let chunks = state["chunks"].as_array().expect("chunks");
    assert_eq!((servers.len(), chunks.len()), (4, 20));
    for chunk in chunks {
        let is = (chunk["bytes"].as_u64(), chunk["wanted"].as_u64(), &chunk["bad"]);
        assert_eq!(is, (Some(100_000), Some(3), &Value::Null), "{chunk}");
        let racks: BTreeSet<&str> = on(chunk).iter().filter_map(|at| servers[*at]["rack"].as_str()).collect();
        assert_eq!((on(chunk).len(), racks.len()), (3, 2), "{chunk}");
    }
    assert_eq!(cluster.quarry(&["admin", "export-state", &file]).code, 4, "it is there already");
    // What is wrong already is in it.
    let gone = cluster.servers[3].address.clone();
    cluster.servers[3].kill();
    cluster.wait_state(3, "dead", LIMIT);
    cluster.quarry(&["drain", "--no-wait", &cluster.servers[0].address]).ok();
    fs::remove_file(&file).expect("the state goes");
    let (_, state) = export(&cluster);
    let words = |address: &str| {
        let found = state["servers"].as_array().expect("servers").iter().find(|s| s["address"] == address);
        let found = found.expect("the server");
        (found["wish"].as_str().expect("a word"), found["health"].as_str().expect("a word"))
    };
    assert_eq!(words(&gone), ("active", "dead"));
    assert_eq!(words(&cluster.servers[0].address), ("draining", "alive"));
    assert_eq!(words(&cluster.servers[1].address), ("active", "alive"));
}

/// The same loss in the simulator and on real processes: as much is copied. How long both took is printed.
#[test]
fn the_simulator_copies_what_real_processes_copy_after_the_same_loss() {
    const BYTES: usize = 2 << 20;
    let settings = ["repair-delay=1s", "repair-rate=10MB/s", "maintenance=0"];
    let mut cluster = cluster(5, 5, &settings, 60, BYTES);
    let (file, state) = export(&cluster);
    let lost = cluster.servers[0].address.clone();
    let place = state["servers"].as_array().expect("servers").iter().position(|s| s["address"] == lost);
    let place = place.expect("the server");
    let held = state["chunks"].as_array().expect("chunks").iter().filter(|chunk| on(chunk).contains(&place)).count();
    let told = what_if(&file, &lost);
    let names: Vec<String> = (0..60).map(|n| format!("/f{n}")).collect();
    let start = Instant::now();
    cluster.servers[0].kill();
    cluster.wait_state(0, "dead", LIMIT);
    let dead = start.elapsed();
    let placed = cluster.wait_whole(&names, LIMIT);
    let whole = start.elapsed();
    assert!(placed.iter().all(|servers| !servers.contains(&0)), "{placed:?}");
    let copies = cluster.logged("copy done").len();
    let (began, ended) = (told["endangered"]["last"][0].as_f64(), told["endangered"]["last"][1].as_f64());
    println!(
        "{held} chunks of {} MiB lost their replica; dead after {dead:.2?} (simulated {} s), whole after {whole:.2?} \
         (simulated {:.1} s), copies {copies} (simulated {})",
        BYTES >> 20,
        told["detection"]["max"],
        ended.unwrap_or_default() - began.unwrap_or_default(),
        told["copies"],
    );
    assert_eq!(told["copies"].as_u64(), Some(held as u64), "{told}");
    assert_eq!(told["repaired_bytes"].as_u64(), Some((held * BYTES) as u64), "{told}");
    assert_eq!(told["lost_chunks"].as_u64(), Some(0), "{told}");
    assert_eq!(copies, held, "each chunk was copied once");
}
