//! Keeping house: the trash, wanted replicas, settings.

use std::{fs, path::Path, time::Duration};

use quarry_tests::{Cluster, Options, cli, data, wait};

const PATIENCE: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Puts these bytes under this path.
fn put(cluster: &Cluster, path: &str, bytes: &[u8]) {
    cli::run_with_input(&cluster.master.address, &["put", "-", path], bytes).ok();
}

fn trash(cluster: &Cluster, path: &str) -> Vec<serde_json::Value> {
    cluster.quarry(&["trash", "--json", path]).json()["entries"].as_array().cloned().expect("entries")
}

#[test]
fn s6_what_was_removed_comes_back_with_its_bytes_and_emptying_gives_its_room_back() {
    let mut cluster = Cluster::start(&Options::default());
    let bytes = data::bytes(1, 300_000);
    cluster.quarry(&["mkdir", "-p", "/d/e"]).ok();
    put(&cluster, "/d/e/f", &bytes);
    put(&cluster, "/d/e/g", b"second");
    cluster.quarry(&["rm", "/d/e/f"]).ok();
    cluster.quarry(&["rm", "-r", "/d/e"]).ok();
    let listed = trash(&cluster, "/d");
    assert_eq!(
        (listed.len(), listed[0]["path"].as_str(), listed[0]["kind"].as_str()),
        (1, Some("/d/e"), Some("directory"))
    );
    assert!(listed[0]["left_ms"].as_u64().is_some_and(|left| (80_000_000..=86_400_000).contains(&left)));

    let out = cluster.quarry(&["undelete", "/d/e/f"]);
    assert_eq!(out.code, 3);
    assert!(
        out.stderr.contains("/d/e does not exist") && out.stderr.contains("take that directory back"),
        "{}",
        out.stderr
    );
    // What lies in the trash outlives the master.
    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(3);
    cluster.quarry(&["undelete", "/d/e"]).ok();
    cluster.quarry(&["undelete", "/d/e/f"]).ok();
    assert_eq!(cluster.quarry(&["cat", "/d/e/f"]).ok(), bytes);
    assert_eq!(cluster.quarry(&["cat", "/d/e/g"]).ok(), b"second");

    cluster.quarry(&["rm", "/d/e/f"]).ok();
    put(&cluster, "/d/e/f", b"another");
    let out = cluster.quarry(&["undelete", "/d/e/f"]);
    assert_eq!(out.code, 4);
    assert!(out.stderr.contains("--to"), "{}", out.stderr);
    let inode = trash(&cluster, "/")[0]["inode"].to_string();
    cluster.quarry(&["undelete", "--inode", &inode, "--to", "/back", "/d/e/f"]).ok();
    assert_eq!(cluster.quarry(&["cat", "/back"]).ok(), bytes);

    cluster.quarry(&["rm", "-r", "/d"]).ok();
    cluster.quarry(&["rm", "/back"]).ok();
    assert!(!cluster.chunk_files().is_empty());
    assert_eq!(cluster.quarry(&["trash", "--empty", "--json"]).json()["emptied"], 2);
    assert!(trash(&cluster, "/").is_empty());
    wait::until("the chunks are deleted", PATIENCE, || match cluster.chunk_files() {
        files if files.is_empty() => Ok(()),
        files => Err(format!("{files:?}")),
    });
    assert_eq!(cluster.quarry(&["undelete", "/back"]).code, 3);
}

#[test]
fn directories_say_how_many_copies_new_files_get_and_a_tree_is_changed_at_once() {
    let cluster = Cluster::start(&Options::default());
    cluster.quarry(&["mkdir", "-p", "/d/e"]).ok();
    put(&cluster, "/d/e/old", b"old");
    cluster.quarry(&["set-replicas", "1", "/d"]).ok();
    put(&cluster, "/d/e/new", b"new");
    let copies = |path: &str| cluster.chunks(path)["chunks"][0]["replicas"].as_array().map(Vec::len);
    assert_eq!((copies("/d/e/old"), copies("/d/e/new")), (Some(3), Some(1)));
    let wanted = |path: &str| cluster.quarry(&["stat", "--json", path]).json()["replicas"].as_u64();
    assert_eq!((wanted("/d"), wanted("/d/e"), wanted("/d/e/old")), (Some(1), Some(0), Some(3)));
    assert!(cluster.quarry(&["ls", "-l", "/"]).text().starts_with("d  1"));

    cluster.quarry(&["set-replicas", "1", "/d/e"]).ok();
    let done = cluster.quarry(&["set-replicas", "-r", "--json", "2", "/d"]).json();
    assert_eq!((done["replicas"].as_u64(), done["changed_below"].as_u64()), (Some(2), Some(3)));
    let all = ["/d", "/d/e", "/d/e/old", "/d/e/new"].map(|path| wanted(path).expect("a number"));
    assert_eq!(all, [2, 0, 2, 2]);
    wait::until("the chunks follow", PATIENCE, || {
        let now = (copies("/d/e/old"), copies("/d/e/new"));
        if now == (Some(2), Some(2)) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert_eq!(cluster.quarry(&["set-replicas", "9", "/d"]).code, 2);
    assert_eq!(cluster.quarry(&["set-replicas", "2", "/nothing"]).code, 3);
}

#[test]
fn settings_are_listed_changed_together_and_kept() {
    let settings = vec!["trash=7d".into(), "orphan-grace=0".into()];
    let mut cluster = Cluster::start(&Options { chunkservers: 1, settings, ..Options::default() });
    let value = |cluster: &Cluster, name: &str| {
        let all = cluster.quarry(&["settings", "--json"]).json();
        let all = all["settings"].as_array().cloned().expect("settings");
        all.iter().find(|s| s["name"] == name).and_then(|s| s["value"].as_str().map(String::from)).expect("a setting")
    };
    assert_eq!((value(&cluster, "trash"), value(&cluster, "orphan-grace")), ("7d".into(), "0s".into()));
    let out = cluster.quarry(&["settings", "repair-in=3", "repair-rate=1kB/s"]);
    assert_eq!(out.code, 2);
    assert!(out.stderr.contains("repair-rate cannot be 1kB/s; choose 100kB/s to"), "{}", out.stderr);
    assert_eq!(value(&cluster, "repair-in"), "2", "all or nothing");
    assert_eq!(cluster.quarry(&["settings", "colour=red"]).code, 2);
    // Each of many who change something else at the same time gets what it wants.
    let changes = ["repair-in=3", "repair-out=5", "hot-reads=70", "brake-share=30 %", "min-replicas=1", "trash=1d"];
    let running: Vec<_> =
        changes.iter().map(|change| cli::start(&cluster.master.address, &["settings", change])).collect();
    running.into_iter().for_each(|one| drop(cli::collect(one).ok()));
    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(1);
    for change in changes {
        let (name, wanted) = change.split_once('=').expect("a change");
        assert_eq!(value(&cluster, name), wanted);
    }
    assert!(cluster.quarry(&["settings"]).text().contains("brake-share"));
}

#[test]
fn removed_files_go_after_the_trash_and_the_grace() {
    let settings = ["trash=5s", "reader-grace=1s"].map(String::from).to_vec();
    let cluster = Cluster::start(&Options { settings, ..Options::default() });
    let local = cluster.path("local");
    fs::write(&local, data::bytes(1, 100_000)).expect("a temporary file");
    cluster.quarry(&["put", text(&local), "/f"]).ok();
    cluster.quarry(&["rm", "/f"]).ok();
    assert_eq!(trash(&cluster, "/").len(), 1);
    wait::until("the chunks are deleted", PATIENCE, || match cluster.chunk_files() {
        files if files.is_empty() => Ok(()),
        files => Err(format!("{files:?}")),
    });
    assert!(trash(&cluster, "/").is_empty());
}
