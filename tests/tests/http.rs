//! What the servers show over HTTP: metrics, and whether they can do their work.

use std::time::Duration;

use quarry_tests::{
    Cluster, Options, cli,
    cluster::Server,
    data,
    pages::{metric, page},
    process::Process,
    wait,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn wait_metric(process: &Process, name: &str, good: impl Fn(f64) -> bool) {
    wait::until(name, PATIENCE, || match metric(process, name) {
        Some(value) if good(value) => Ok(()),
        other => Err(format!("it is {other:?}")),
    });
}

#[test]
fn every_server_answers_three_pages_and_a_lost_replica_shows_until_it_is_copied() {
    let options = Options { chunkservers: 4, settings: vec!["repair-delay=1s".into()], ..Options::default() };
    let mut cluster = Cluster::start(&options);
    let bytes = data::bytes(1, 300_000);
    cli::run_with_input(&cluster.master.address, &["put", "-", "/f"], &bytes).ok();
    cluster.quarry(&["mkdir", "/d"]).ok();

    let master = cluster.master.process();
    for path in ["/healthz", "/readyz"] {
        assert!(page(master, path).starts_with("HTTP/1.1 200"), "{path}: {}", page(master, path));
    }
    for (name, value) in [
        ("leader", 1.0),
        ("chunkservers{state=\"alive\"}", 4.0),
        ("chunkservers{state=\"dead\"}", 0.0),
        ("files", 1.0),
        ("directories", 1.0),
        ("chunks", 1.0),
        ("open_chunks", 0.0),
        ("trashed", 0.0),
        ("ledger_chunks{missing=\"1\"}", 0.0),
        ("ledger_complete", 1.0),
        ("lost_chunks", 0.0),
        ("repair_left_bytes", 0.0),
        ("brake_held", 0.0),
        ("repair_share_ratio", 1.0),
        ("copies_total{outcome=\"done\"}", 0.0),
    ] {
        wait_metric(master, &format!("quarry_master_{name}"), |is| (is - value).abs() < f64::EPSILON);
    }
    for name in ["epoch", "term", "applied_index", "log_appends_total", "capacity_bytes", "used_bytes"] {
        wait_metric(master, &format!("quarry_master_{name}"), |is| is >= 1.0);
    }

    let lost = cluster.placed("/f").concat().into_iter().next().expect("it has a replica");
    let server = cluster.servers[lost].process();
    assert!(page(server, "/readyz").starts_with("HTTP/1.1 200"), "{}", page(server, "/readyz"));
    wait_metric(server, "quarry_chunkserver_registered", |is| is >= 1.0);
    cluster.servers[lost].kill();
    let master = cluster.master.process();
    wait_metric(master, "quarry_master_chunkservers{state=\"dead\"}", |is| is >= 1.0);
    wait_metric(master, "quarry_master_copies_total{outcome=\"done\"}", |is| is >= 1.0);
    wait_metric(master, "quarry_master_copied_bytes_total", |is| is >= 300_000.0);
}

#[test]
fn of_three_masters_all_are_ready_and_one_is_the_leader() {
    let mut cluster = Cluster::start(&Options { masters: 3, chunkservers: 0, ..Options::default() });
    let answers = |cluster: &mut Cluster, path: &str| -> Vec<bool> {
        let all = [&mut cluster.master].into_iter().chain(&mut cluster.others);
        all.map(|master| page(master.process(), path).starts_with("HTTP/1.1 200")).collect()
    };
    let is = |cluster: &mut Cluster, path: &str, wanted: &[bool]| {
        wait::until(path, PATIENCE, || match answers(cluster, path) {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?}")),
        });
    };
    is(&mut cluster, "/readyz", &[true, true, true]);
    is(&mut cluster, "/leader", &[true, false, false]);
    cluster.quarry(&["masters", "transfer-leader", "m2"]).ok();
    is(&mut cluster, "/leader", &[false, true, false]);
    // One that is no member any more is not sent requests.
    cluster.quarry(&["masters", "remove", "m3"]).ok();
    let removed = cluster.others[1].process();
    wait::until("it to notice", PATIENCE, || match page(removed, "/readyz") {
        said if said.starts_with("HTTP/1.1 503") && said.contains("in this group no more") => Ok(()),
        said => Err(said),
    });
    // Without a majority nobody is ready, whoever led last.
    cluster.others.iter_mut().for_each(Server::kill);
    let first = cluster.master.process();
    wait::until("it to notice", PATIENCE, || match page(first, "/readyz") {
        said if said.starts_with("HTTP/1.1 503") && said.contains("a majority of the masters") => Ok(()),
        said => Err(said),
    });
}
