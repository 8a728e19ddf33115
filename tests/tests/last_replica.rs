//! Chunks that are lost, or nearly: they hold up nobody else's repair, and nobody is told that the last server of one is empty.

use std::time::Duration;

use quarry_tests::{Cluster, Options, damage::flip, data, wait};

const LIMIT: Duration = Duration::from_secs(120);

fn cluster(settings: &[&str]) -> Cluster {
    Cluster::start(&Options {
        chunkservers: 5,
        racks: 5,
        settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        ..Options::default()
    })
}

fn is_lost(cluster: &Cluster, limit: Duration) {
    wait::until("the chunk without a good replica to show", limit, || {
        let status = cluster.status();
        if status["totals"]["missing"] == 1 { Ok(()) } else { Err(status["totals"].to_string()) }
    });
}

/// How far a verb has come.
fn progress(cluster: &Cluster, verb: &str, address: &str) -> serde_json::Value {
    cluster.quarry(&[verb, address, "--no-wait", "--json"]).json()
}

#[test]
fn a_chunk_that_cannot_be_rescued_holds_up_nobody_elses_repair() {
    let mut cluster = cluster(&["repair-delay=0s"]);
    cluster.put("/lost", &[], &data::bytes(1, 50_000));
    for (_, path) in cluster.chunk_files() {
        flip(&path, 1000);
    }
    assert_ne!(cluster.quarry(&["cat", "/lost"]).code, 0);
    is_lost(&cluster, LIMIT);
    let names: Vec<String> = (0..20).map(|n| format!("/f{n}")).collect();
    for (name, seed) in names.iter().zip(10..) {
        cluster.put(name, &[], &data::bytes(seed, 100_000));
    }
    for server in [0, 1] {
        cluster.servers[server].kill();
        cluster.wait_state(server, "dead", LIMIT);
    }
    wait::until("all others to be whole", LIMIT, || {
        let placed: Vec<Vec<usize>> = names.iter().flat_map(|name| cluster.placed(name)).collect();
        match placed.iter().find(|servers| servers.len() < 3) {
            None => Ok(()),
            Some(few) => Err(format!("one is on {few:?}")),
        }
    });
    let rows = cluster.repairs();
    assert_eq!(rows.len(), 1, "the lost one stays in the ledger: {rows:?}");
    assert_eq!((rows[0]["path"].as_str(), rows[0]["missing"].as_u64()), (Some("/lost"), Some(3)));
}

#[test]
fn s7_a_server_that_did_not_report_to_this_master_is_not_called_empty_while_anything_is_missing() {
    let mut cluster = cluster(&["repair-delay=0s"]);
    cluster.put("/one", &["--replicas", "1"], &data::bytes(1, 50_000));
    cluster.put("/three", &[], &data::bytes(2, 50_000));
    let holder = cluster.placed("/one")[0][0];
    let address = cluster.servers[holder].address.clone();
    cluster.servers[holder].kill();
    cluster.wait_state(holder, "dead", LIMIT);
    cluster.master.kill();
    cluster.master.restart();
    is_lost(&cluster, LIMIT);
    for verb in ["drain", "decommission"] {
        let said = progress(&cluster, verb, &address);
        assert_eq!(said["done"], false, "{verb}: {said}");
        assert!(said["reason"].as_str().is_some_and(|why| why.contains("has not reported")), "{verb}: {said}");
    }
    // Nobody waits for the file any more: what else was there has been copied, and the server may go.
    cluster.quarry(&["rm", "--now", "/one"]).ok();
    wait::until("nothing on it is needed", LIMIT, || {
        let said = progress(&cluster, "decommission", &address);
        if said["done"] == true { Ok(()) } else { Err(said.to_string()) }
    });
    assert_eq!(cluster.placed("/three")[0].len(), 3);
}

#[test]
fn s7_the_last_replica_is_counted_although_it_is_bad() {
    let cluster = cluster(&[]);
    let bytes = data::bytes(3, 200_000);
    cluster.put("/one", &["--replicas", "1"], &bytes);
    let holder = cluster.placed("/one")[0][0];
    let address = cluster.servers[holder].address.clone();
    for (_, path) in cluster.chunk_files() {
        flip(&path, 150_000);
    }
    assert_ne!(cluster.quarry(&["cat", "/one"]).code, 0);
    is_lost(&cluster, LIMIT);
    let said = progress(&cluster, "drain", &address);
    assert_eq!((said["done"].as_bool(), said["chunks_left"].as_u64()), (Some(false), Some(1)), "{said}");
    assert!(said["reason"].as_str().is_some_and(|why| why.contains("no good replica")), "{said}");
}
