//! Backups of the metadata, and a master that is made from one: the namespace is that of the backup, nothing is deleted before
//! an operator lets go, no id is used twice, and the old history is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use quarry_tests::{Cluster, Options, Output, data, process::binary, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster that deletes at once what may be deleted at all.
fn eager(chunkservers: usize) -> Options {
    let settings = ["trash=0", "reader-grace=0", "orphan-grace=0", "maintenance=0"].map(String::from).to_vec();
    Options { chunkservers, settings, ..Options::default() }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Runs `quarry-master restore` into the master's directory.
fn restore(cluster: &Cluster, key: &Path, from: &Path, more: &[&str]) -> Output {
    let out = Command::new(binary("quarry-master"))
        .args(["restore", "--data", text(&cluster.master.data), "--key-file", text(key), "--from", text(from)])
        .args(["--advertise", &cluster.master.address])
        .args(more)
        .output()
        .expect("quarry-master starts");
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    Output { code: out.status.code().unwrap_or(-1), stdout: out.stdout, stderr }
}

fn key(cluster: &Cluster) -> PathBuf {
    cluster.path("cluster.key")
}

fn backup(cluster: &Cluster, name: &str) -> PathBuf {
    let file = cluster.path(name);
    let said = cluster.quarry(&["metadata", "backup", text(&file), "--json"]).json();
    assert_eq!(said["bytes"].as_u64(), Some(fs::metadata(&file).expect("the backup").len()));
    file
}

/// Everything that users see of the namespace.
fn namespace(cluster: &Cluster) -> BTreeMap<String, (Value, Value)> {
    let names = cluster.quarry(&["ls", "-R", "/"]).text();
    let of = |name: &str| {
        let path = format!("/{}", name.trim_end_matches('/').trim_start_matches('/'));
        let stat = cluster.quarry(&["stat", "--json", &path]).json();
        let directory = stat.to_string().contains("\"kind\":\"directory\"");
        let chunks = if directory { Value::Null } else { Value::from(chunk_ids(cluster, &path)) };
        (path, (stat, chunks))
    };
    names.lines().map(of).collect()
}

fn chunk_ids(cluster: &Cluster, path: &str) -> Vec<u64> {
    let chunks = cluster.chunks(path)["chunks"].as_array().cloned().unwrap_or_default();
    chunks.iter().filter_map(|chunk| chunk["id"].as_u64()).collect()
}

/// The names of the chunk files on each server.
fn files(cluster: &Cluster) -> BTreeSet<(usize, PathBuf)> {
    cluster.chunk_files().into_iter().collect()
}

/// The servers that have a file of a chunk.
fn holders(cluster: &Cluster, chunk: u64) -> usize {
    let names = [format!("{chunk}.chunk"), format!("c{chunk}.chunk"), format!("{chunk:016x}.chunk")];
    let is = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.iter().any(|n| n == name))
    };
    files(cluster).iter().filter(|(_, path)| is(path)).count()
}

fn verify(cluster: &Cluster) -> Value {
    cluster.quarry(&["metadata", "verify", "--json"]).json()
}

/// What verify says once every server has reported.
fn verify_whole(cluster: &Cluster) -> Value {
    wait::until("every server to report", LIMIT, || {
        let found = verify(cluster);
        if found["complete"] == true { Ok(found) } else { Err(found.to_string()) }
    })
}

fn listed(found: &Value, list: &str) -> BTreeSet<u64> {
    let servers = found[list].as_array().cloned().unwrap_or_default();
    let ids = servers.iter().flat_map(|server| server["chunks"].as_array().cloned().unwrap_or_default());
    ids.filter_map(|id| id.as_u64()).collect()
}

fn restart_all(cluster: &mut Cluster) {
    cluster.master.restart();
    for server in &mut cluster.servers {
        server.restart();
    }
    cluster.wait_alive(cluster.servers.len());
}

fn kill_all(cluster: &mut Cluster) {
    cluster.master.kill();
    cluster.servers.iter_mut().for_each(quarry_tests::cluster::Server::kill);
}

#[test]
fn s6_a_restored_master_has_the_backups_namespace_and_deletes_nothing_before_it_is_let_go() {
    let mut cluster = Cluster::start(&eager(3));
    let bytes = |seed| data::bytes(seed, 200_000);
    cluster.quarry(&["mkdir", "/d"]).ok();
    for (seed, name) in [(1, "/a"), (2, "/d/replaced"), (3, "/d/removed"), (4, "/kept")] {
        cluster.put(name, &[], &bytes(seed));
    }
    cluster.wait_reported();
    let before = namespace(&cluster);
    let file = backup(&cluster, "backup");

    // History goes on: more files, one replaced, one removed for good.
    cluster.put("/after", &[], &bytes(5));
    cluster.put("/d/replaced", &["--overwrite"], &bytes(6));
    let [after, removed, replaced] = ["/after", "/d/removed", "/d/replaced"].map(|path| {
        *before
            .get(path)
            .map_or_else(|| chunk_ids(&cluster, path), |(_, ids)| serde_json::from_value(ids.clone()).expect("ids"))
            .first()
            .expect("a chunk")
    });
    let newer = *chunk_ids(&cluster, "/d/replaced").first().expect("a chunk");
    cluster.quarry(&["rm", "/d/removed"]).ok();
    wait::until("what was removed and replaced is deleted", LIMIT, || {
        let left = (holders(&cluster, removed), holders(&cluster, replaced));
        if left == (0, 0) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let highest = after.max(newer);

    kill_all(&mut cluster);
    let old = cluster.path("old-master");
    fs::rename(&cluster.master.data, &old).expect("the directory moves");
    restore(&cluster, &key(&cluster), &file, &[]).ok();
    let on_disk = files(&cluster);
    restart_all(&mut cluster);

    let status = cluster.status();
    assert_eq!((&status["held"], &status["lineage"]), (&Value::Bool(true), &Value::from(2)));
    let notices = status["notices"].to_string();
    assert!(notices.contains("metadata verify") && notices.contains("metadata release"), "{notices}");
    assert_eq!(namespace(&cluster), before);
    for (seed, name) in [(1, "/a"), (4, "/kept")] {
        assert_eq!(cluster.quarry(&["cat", name]).ok(), bytes(seed), "{name}");
    }
    let lost = cluster.quarry(&["cat", "--timeout", "2s", "/d/removed"]);
    assert!(lost.code == 5 || lost.code == 6, "its chunk is gone: {lost:?}");

    let found = verify_whole(&cluster);
    assert_eq!(listed(&found, "orphans"), BTreeSet::from([after, newer]), "{found}");
    assert_eq!((listed(&found, "beyond"), &found["held"]), (BTreeSet::new(), &Value::Bool(true)));
    let missing = found["missing"]["chunks"].to_string();
    assert!(missing.contains("/d/removed") && missing.contains("/d/replaced"), "{missing}");
    assert_eq!(found["missing"]["count"], 2, "{found}");
    assert_eq!(found["under_replicated"]["count"], 0, "{found}");

    cluster.put("/new", &[], &bytes(7));
    let new = chunk_ids(&cluster, "/new");
    assert!(new.iter().all(|id| *id > highest), "{new:?} and {highest}");
    cluster.quarry(&["rm", "--now", "/kept"]).ok();
    // Everything was reported and compared many times over by now; so it is after a restart.
    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(3);
    verify_whole(&cluster);
    cluster.put("/newer", &[], &bytes(8));
    assert!(on_disk.is_subset(&files(&cluster)), "nothing was deleted");
    assert_eq!(cluster.status()["totals"]["doomed"], 0);
    assert_eq!(cluster.quarry(&["trash", "--empty"]).code, 0, "there is nothing in it");

    cluster.quarry(&["metadata", "release"]).ok();
    assert_eq!(cluster.status()["held"], false);
    let kept = before["/kept"].1[0].as_u64().expect("a chunk");
    wait::until("what was held is deleted", LIMIT, || {
        let left = [after, newer, kept].map(|chunk| holders(&cluster, chunk));
        if left == [0, 0, 0] { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(cluster.quarry(&["cat", "/new"]).ok(), bytes(7));
    refuses_the_old_and_siblings(&mut cluster, &old, &file, new[0]);
}

/// Servers that follow the new lineage refuse the old one and another one of the same number, and follow a higher one.
fn refuses_the_old_and_siblings(cluster: &mut Cluster, old: &Path, file: &Path, used: u64) {
    let log_has = |cluster: &Cluster, what: &str| {
        wait::until(what, LIMIT, || {
            let said = cluster.servers.iter().all(|server| server.log().contains(what));
            if said { Ok(()) } else { Err("not yet".into()) }
        });
    };
    cluster.master.kill();
    let mine = cluster.master.data.clone();
    fs::rename(&mine, cluster.path("restored")).expect("the directory moves");
    fs::rename(old, &mine).expect("the directory moves");
    cluster.master.restart();
    log_has(cluster, "refuses an older leader");
    cluster.master.kill();
    fs::remove_dir_all(&mine).expect("the directory goes");
    restore(cluster, &key(cluster), file, &[]).ok();
    cluster.master.restart();
    log_has(cluster, "refuses a leader of another history");
    cluster.wait_state(0, "dead", LIMIT);
    let notices = cluster.status()["notices"].to_string();
    assert!(notices.contains("refuses a leader of another history"), "{notices}");
    cluster.master.kill();
    fs::remove_dir_all(&mine).expect("the directory goes");
    restore(cluster, &key(cluster), file, &["--lineage", "3"]).ok();
    cluster.master.restart();
    cluster.wait_alive(3);
    cluster.put("/third", &[], b"third");
    let third = chunk_ids(cluster, "/third");
    assert!(third.iter().all(|id| *id > used), "{third:?} and {used}");
    assert!(listed(&verify_whole(cluster), "orphans").contains(&used), "what the sibling had put");
}

#[test]
fn s6_a_release_waits_for_servers_that_have_not_reported() {
    let mut cluster = Cluster::start(&eager(3));
    cluster.put("/a", &[], b"abc");
    let file = backup(&cluster, "backup");
    kill_all(&mut cluster);
    fs::remove_dir_all(&cluster.master.data).expect("the directory goes");
    restore(&cluster, &key(&cluster), &file, &[]).ok();
    cluster.master.restart();
    cluster.servers[0].restart();
    cluster.servers[1].restart();
    cluster.wait_alive(2);
    wait::until("two servers to report", LIMIT, || {
        let missing = verify(&cluster)["unreported"].as_array().map_or(0, Vec::len);
        if missing == 1 { Ok(()) } else { Err(format!("{missing} have not")) }
    });
    let refused = cluster.quarry(&["metadata", "release"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains(&cluster.servers[2].address), "{}", refused.stderr);
    let human = cluster.quarry(&["metadata", "verify"]).text();
    assert!(human.contains("the picture is incomplete: 1 chunkservers"), "{human}");
    cluster.quarry(&["metadata", "release", "--force"]).ok();
    assert_eq!(cluster.status()["held"], false);
    assert_eq!(cluster.quarry(&["metadata", "release"]).text(), "nothing was held back\n");
}

#[test]
fn a_damaged_backup_a_wrong_key_or_a_directory_in_use_is_refused() {
    let mut cluster = Cluster::start(&Options { chunkservers: 1, ..Options::default() });
    cluster.quarry(&["mkdir", "/d"]).ok();
    let file = backup(&cluster, "backup");
    let again = cluster.quarry(&["metadata", "backup", text(&file)]);
    assert!(again.code == 4 && again.stderr.contains("--overwrite"), "{again:?}");
    cluster.quarry(&["metadata", "backup", "--overwrite", text(&file)]).ok();
    cluster.master.kill();
    let refused = |cluster: &Cluster, key: &Path, from: &Path, why: &str| {
        let out = restore(cluster, key, from, &[]);
        assert!(out.code == 1 && out.stderr.contains(why), "{why}: {out:?}");
    };
    refused(&cluster, &key(&cluster), &file, "not empty");
    fs::remove_dir_all(&cluster.master.data).expect("the directory goes");
    let good = fs::read(&file).expect("the backup");
    let bad = cluster.path("bad");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for (bytes, why) in [
        (&flipped[..], "damaged at byte"),
        (&good[..good.len() - 1], "cut off"),
        (&good[..good.len() / 2], "cut off"),
        (b"something else", "not a backup"),
        (b"", "cut off"),
    ] {
        fs::write(&bad, bytes).expect("a file");
        refused(&cluster, &key(&cluster), &bad, why);
    }
    let other = cluster.path("other.key");
    fs::write(&other, format!("{}\n", "07".repeat(32))).expect("a file");
    refused(&cluster, &other, &file, "not the one of the cluster");
    assert!(!cluster.master.data.exists(), "nothing was made");
    restore(&cluster, &key(&cluster), &file, &[]).ok();
    cluster.master.restart();
    cluster.wait_alive(1);
    assert_eq!(cluster.quarry(&["ls", "/"]).text(), "d\n");
}
