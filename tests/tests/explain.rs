//! What it does not do, it explains; and what it did can be seen again.

use std::time::Duration;

use quarry_master_core::repair::{Cluster as Facts, Decision, Policy, decide, decide::Question};
use quarry_tests::{Cluster, Options, cli, data, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn put(cluster: &Cluster, name: &str) -> String {
    cli::run_with_input(&cluster.master.address, &["put", "-", name], &data::bytes(1, 100_000)).ok();
    cluster.chunks(name)["chunks"][0]["id"].to_string().trim_matches('"').to_owned()
}

fn explain(cluster: &Cluster, chunk: &str) -> Value {
    cluster.quarry(&["explain", "chunk", chunk, "--json"]).json()
}

/// Waits until the explanation of a chunk says `what`, and gives it.
fn wait_for(cluster: &Cluster, chunk: &str, what: &str) -> Value {
    wait::until(&format!("an explanation with {what:?}"), LIMIT, || {
        let explained = explain(cluster, chunk);
        if explained["verdict"].to_string().contains(what) { Ok(explained) } else { Err(explained.to_string()) }
    })
}

#[test]
fn a_chunk_that_cannot_be_repaired_names_the_exact_predicate_and_the_remedy() {
    let mut cluster = Cluster::start(&Options {
        chunkservers: 3,
        racks: 3,
        settings: vec!["repair-delay=0s".into()],
        ..Options::default()
    });
    let chunk = put(&cluster, "/f");
    assert!(explain(&cluster, &chunk)["verdict"].to_string().contains("as it should be"));
    cluster.servers[0].kill();
    let explained = wait_for(&cluster, &chunk, "0 of 3 chunkservers");
    assert!(explained["verdict"].to_string().contains("1 not alive"), "{explained}");
    assert!(explained["verdict"].to_string().contains("2 with a replica already"), "{explained}");
    assert!(explained["remedy"].to_string().contains("start the chunkservers"), "{explained}");
    let rows = cluster.repairs();
    assert_eq!((rows.len(), rows[0]["state"].as_str(), rows[0]["missing"].as_u64()), (1, Some("blocked"), Some(1)));
    assert_eq!(rows[0]["path"], "/f");
    // What stands in the way changes as the cluster does.
    cluster.servers[0].restart();
    cluster.wait_alive(3);
    let address = cluster.servers[1].address.clone();
    cluster.quarry(&["drain", &address, "--no-wait"]).ok();
    let explained = wait_for(&cluster, &chunk, "3 with a replica already");
    assert!(explained["remedy"].to_string().contains("add a chunkserver"), "{explained}");
    assert!(explained["facts"].to_string().contains("to be moved"), "{explained}");
    cluster.quarry(&["undrain", &address]).ok();
    wait_for(&cluster, &chunk, "as it should be");
}

#[test]
fn a_live_decision_can_be_made_again_from_what_it_rested_on() {
    let log = "quarry_master=info,quarry_decisions=debug";
    let mut cluster = Cluster::start(&Options {
        chunkservers: 4,
        racks: 4,
        settings: vec!["repair-delay=0s".into()],
        master_args: vec!["--log-format".into(), "json".into()],
        master_log: log.into(),
        ..Options::default()
    });
    for n in 0..10 {
        put(&cluster, &format!("/f{n}"));
    }
    cluster.servers[0].kill();
    wait::until(
        "copies",
        LIMIT,
        || if cluster.master.log().contains("copy done") { Ok(()) } else { Err("none".into()) },
    );
    let mut copies = 0;
    for line in cluster.master.log().lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let Some(recorded) = line["decision"].as_str().or(line["fields"]["decision"].as_str()) else { continue };
        let (question, facts, policy, decided): (Question, Facts, Policy, Decision) =
            serde_json::from_str(recorded).expect("a recorded decision");
        assert_eq!(decide(&question, &facts, &policy).1, decided);
        copies += usize::from(matches!(decided, Decision::Copy { .. }));
    }
    assert!(copies > 0);
}
