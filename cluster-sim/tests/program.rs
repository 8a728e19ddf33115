//! The program itself, from its command line to what it prints.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quarry-sim")).args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let out = sim(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn refused(args: &[&str]) -> String {
    let out = sim(args);
    assert_eq!(out.status.code(), Some(2), "{args:?}");
    assert!(out.stdout.is_empty());
    String::from_utf8(out.stderr).unwrap()
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn scenario(name: &str) -> String {
    scenarios().join(name).display().to_string()
}

#[test]
fn the_same_seed_prints_the_same_bytes_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let storm = scenario("five-servers.toml");
    let pages: Vec<(String, String, Vec<u8>)> = (0..2)
        .map(|n| {
            let page = dir.path().join(format!("{n}.html"));
            let text = stdout(&["run", &storm, "--seed", "5", "--html", page.to_str().unwrap()]);
            (text, stdout(&["run", &storm, "--seed", "5", "--json"]), std::fs::read(page).unwrap())
        })
        .collect();
    assert_eq!(pages[0], pages[1]);
    assert_ne!(pages[0].1, stdout(&["run", &storm, "--seed", "6", "--json"]));
    let page = String::from_utf8(pages[0].2.clone()).unwrap();
    assert!(page.contains("<svg") && page.contains("</html>"));
    for elsewhere in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "the page wants something from elsewhere: {elsewhere}");
    }
}

#[test]
fn one_of_five_servers_is_repaired_after_its_detection_and_the_delay() {
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&["run", &scenario("five-servers.toml"), "--json"])).unwrap();
    let of = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(-1.0);
    assert!(of("/detection/max") >= 2.0 && of("/detection/max") <= 3.1, "{json}");
    assert!(
        of("/endangered/episodes/max") > 12.0 && of("/endangered/episodes/max") < 20.0,
        "10 s delay, and the copies"
    );
    assert_eq!((of("/lost_chunks"), of("/endangered/at_the_end")), (0.0, 0.0));
}

#[test]
fn every_scenario_of_the_library_is_read_and_asks_its_question() {
    let mut count = 0;
    for entry in std::fs::read_dir(scenarios()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}: the question stands at its head", path.display());
        let read = quarry_sim::scenario::Scenario::parse(&path.display().to_string(), &text).unwrap();
        assert!(read.question.ends_with('?'), "{}: {}", path.display(), read.question);
        count += 1;
    }
    assert!(count >= 10, "only {count} scenarios");
}

#[test]
fn a_sweep_puts_values_side_by_side_whatever_the_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.toml");
    let text = r#"
question = "?"
[run]
for = "2d"
[cluster]
racks = 3
servers = 6
disk = "10GB"
[data]
chunks = 60
chunk = "64MiB"
[faults]
server-loss = { every = "3d", replaced-after = "1h" }
"#;
    std::fs::write(&file, text).unwrap();
    let small = file.to_str().unwrap();
    let sweep =
        |jobs| stdout(&["sweep", small, "--vary", "data.replicas=1,3", "--seeds", "6", "--jobs", jobs, "--json"]);
    let (one, two) = (sweep("1"), sweep("2"));
    assert_eq!(one, two);
    let json: serde_json::Value = serde_json::from_str(&one).unwrap();
    let of = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(-1.0);
    assert_eq!((of("/rows/0/runs"), of("/rows/0/runs_with_loss")), (6.0, 6.0), "one replica loses data");
    assert!(of("/rows/1/loss_per_year") < of("/rows/0/loss_per_year"));
    assert!(of("/rows/1/loss_interval/low") <= of("/rows/1/loss_per_year"));
    let text = stdout(&["sweep", small, "--vary", "repair.bandwidth=5MB,50MB", "--seeds", "2", "--years", "0.003"]);
    assert!(text.contains("repair.bandwidth") && text.contains("5MB") && text.contains("95 % interval"), "{text}");
}

#[test]
fn what_if_answers_for_racks_servers_and_disks_of_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.json");
    std::fs::write(&state, include_str!("../src/state/golden-v1.json")).unwrap();
    let state = state.to_str().unwrap();
    for target in
        ["rack:r1", "server:10.0.0.2:9410", "server:00000002-0000-4000-8000-000000000000", "disk:10.0.0.2:9410/0"]
    {
        let text = stdout(&["what-if", "--cluster", state, "--kill", target, "--for", "1h"]);
        assert!(text.contains(target) && text.contains("2 chunks") && text.contains("nothing"), "{text}");
    }
    let back = stdout(&["what-if", "--cluster", state, "--kill", "rack:r1", "--back-after", "5m", "--json"]);
    assert!(back.contains("\"lost_chunks\": 0"));
    assert!(refused(&["what-if", "--cluster", state, "--kill", "rack:r7"]).contains("there is no rack:r7"));
    assert!(refused(&["what-if", "--cluster", state, "--kill", "rack:r1", "--set", "colour=red"]).contains("colour"));
    assert!(refused(&["what-if", "--cluster", state, "--kill", "shelf"]).contains("rack:NAME"));
    let early = refused(&["what-if", "--cluster", state, "--kill", "rack:r1", "--for", "1m"]);
    assert!(early.contains("--for 1 m"), "{early}");
    let setting = refused(&["what-if", "--cluster", state, "--kill", "rack:r1", "--set", "default-replicas=2"]);
    assert!(setting.contains("--replicas"), "{setting}");
}

#[test]
fn what_if_counts_what_is_on_the_disks_and_asks_for_other_replicas() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    let ask = |state: &serde_json::Value, more: &[&str]| -> serde_json::Value {
        std::fs::write(&file, state.to_string()).unwrap();
        let args = ["what-if", "--cluster", file.to_str().unwrap(), "--kill", "rack:r2", "--for", "1h", "--json"];
        serde_json::from_str(&stdout(&[&args[..], more].concat())).unwrap()
    };
    let of = |json: &serde_json::Value, pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_f64);
    let mut state: serde_json::Value = serde_json::from_str(include_str!("../src/state/golden-v1.json")).unwrap();
    let roomy = ask(&state, &[]);
    assert_eq!((of(&roomy, "/endangered/at_the_end"), of(&roomy, "/lost_chunks")), (Some(0.0), Some(0.0)), "{roomy}");
    let one = ask(&state, &["--replicas", "1"]);
    assert_eq!(of(&one, "/copied/copies").or(of(&one, "/copies")), Some(0.0), "{one}");
    for server in state["servers"].as_array_mut().unwrap() {
        let disk = &mut server["disks"][0];
        disk["used_bytes"] = (disk["capacity_bytes"].as_u64().unwrap() - 1000).into();
    }
    let full = ask(&state, &[]);
    assert!(of(&full, "/endangered/at_the_end") > Some(0.0), "nobody has room: {full}");
}

#[test]
fn wrong_files_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "question = \"?\"\n[run]\nfor = \"1 fortnight\"\n").unwrap();
    let error = refused(&["run", bad.to_str().unwrap()]);
    assert!(error.contains("bad.toml:3") && error.contains("run.for") && error.contains("like \"30s\""), "{error}");
    assert!(refused(&["run", "/nowhere.toml"]).contains("/nowhere.toml"));
    assert!(refused(&["run", &scenario("five-servers.toml"), "--years=-1"]).contains("--years"));
    assert!(refused(&["sweep", &scenario("five-servers.toml"), "--seeds", "0"]).contains("--seeds"));
    let short = refused(&["run", &scenario("five-servers.toml"), "--years", "0.000001"]);
    assert!(short.contains("event[0].at") && short.contains("the run is over"), "{short}");
}
