//! A cluster's masters as a group: who leads, and replacing one as the messages say.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    Cluster,
    cluster::Server,
    process::{Ended, binary},
    wait,
};

const LIMIT: Duration = Duration::from_secs(60);

/// What `quarry masters --json` says; `null` when it fails.
#[must_use]
pub fn shown(cluster: &Cluster) -> Value {
    let out = cluster.quarry(&["masters", "--json"]);
    if out.code == 0 { serde_json::from_slice(&out.stdout).unwrap_or_default() } else { Value::Null }
}

/// The masters in it.
#[must_use]
pub fn masters(cluster: &Cluster) -> Vec<Value> {
    shown(cluster)["masters"].as_array().cloned().unwrap_or_default()
}

/// The address of the one master that leads, once one does and is reachable.
///
/// # Panics
/// When none does in time.
#[must_use]
pub fn leader(cluster: &Cluster) -> String {
    wait::until("one master to lead and to be reachable", LIMIT, || {
        let all = masters(cluster);
        let leaders: Vec<&Value> = all.iter().filter(|m| m["role"] == "leader" && m["reachable"] == true).collect();
        match leaders.as_slice() {
            [one] => Ok(one["address"].as_str().unwrap_or_default().to_owned()),
            _ => Err(format!("{all:?}")),
        }
    })
}

/// The address of a master that follows, once one leads.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn follower(cluster: &Cluster) -> String {
    let leads = leader(cluster);
    let all = [&cluster.master].into_iter().chain(&cluster.others).map(|master| master.address.clone());
    all.into_iter().find(|address| *address != leads).expect("another master")
}

/// The master at an address.
///
/// # Panics
/// When there is none.
pub fn at<'a>(cluster: &'a mut Cluster, address: &str) -> &'a mut Server {
    let Cluster { master, others, .. } = cluster;
    [master].into_iter().chain(others).find(|m| m.address == address).expect("a master of this cluster")
}

/// Its number in the group.
///
/// # Panics
/// When it is not in the group.
#[must_use]
pub fn number(cluster: &Cluster, address: &str) -> u64 {
    let all = masters(cluster);
    let found = all.iter().find(|m| m["address"] == address).and_then(|m| m["id"].as_u64());
    found.unwrap_or_else(|| panic!("{address} is in the group: {all:?}"))
}

/// Waits until so many masters vote, answer and have applied what the leader's log holds.
///
/// # Panics
/// When they do not in time.
pub fn wait_whole(cluster: &Cluster, count: usize) {
    wait::until("all masters to vote, answer and have everything", LIMIT, || {
        let all = masters(cluster);
        let end = all.iter().filter(|m| m["role"] == "leader").filter_map(|m| m["last_log"].as_u64()).max();
        let good = |m: &&Value| m["role"] != "learner" && m["reachable"] == true && m["applied"].as_u64() >= end;
        let whole = all.len() == count && end.is_some() && all.iter().filter(good).count() == count;
        if whole { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

/// Replaces a master as the messages and docs/OPERATIONS.md say: out of the group, an empty directory in the place of the
/// damaged one, a new number, back in.
///
/// # Panics
/// When a step fails.
pub fn replace(cluster: &mut Cluster, address: &str) {
    replaced(cluster, address, None);
}

/// The same, with a copy of the new directory as it was before it was run.
///
/// # Panics
/// When a step fails.
pub fn replace_keeping(cluster: &mut Cluster, address: &str, copy: &Path) {
    replaced(cluster, address, Some(copy));
}

fn replaced(cluster: &mut Cluster, address: &str, copy: Option<&Path>) {
    let number = number(cluster, address);
    cluster.quarry(&["masters", "remove", &format!("m{number}")]).ok();
    let data = at(cluster, address).data.clone();
    at(cluster, address).kill();
    if data.exists() {
        fs::remove_dir_all(&data).expect("a data directory can be removed");
    }
    let join = Command::new(binary("quarry-master"))
        .args(["join", "--masters", &cluster.masters, "--data"])
        .arg(&data)
        .arg("--key-file")
        .arg(cluster.path("cluster.key"))
        .output()
        .expect("quarry-master starts");
    assert!(join.status.success(), "{}", String::from_utf8_lossy(&join.stderr));
    if let Some(copy) = copy {
        copy_dir(&data, copy);
    }
    at(cluster, address).restart();
    cluster.quarry(&["masters", "add", address]).ok();
    wait_whole(cluster, 3);
}

/// Starts a master that is to end by itself, and what it said on standard error until then.
///
/// # Panics
/// When it goes on running, or ends well.
#[must_use]
pub fn refused(cluster: &mut Cluster, address: &str) -> String {
    let errors = cluster.path("refused.log");
    let command = at(cluster, address).command();
    let said = File::create(&errors).expect("a log file can be made");
    let started = { command }.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn();
    let mut ended = Ended::new(started.expect("a built binary starts"));
    let status = ended.wait(LIMIT, || fs::read_to_string(&errors).unwrap_or_default());
    let said = fs::read_to_string(&errors).unwrap_or_default();
    assert!(!status.success(), "it ended well: {said}");
    said
}

/// The directory of the log of a master's group.
#[must_use]
pub fn log_dir(data: &Path) -> PathBuf {
    data.join("group/log")
}

/// The directory of the state in use.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn state_dir(data: &Path) -> PathBuf {
    let name = fs::read_to_string(data.join("group/CURRENT")).expect("a state is in use");
    data.join(format!("group/state-{}", name.trim()))
}

/// Copies a directory with everything in it.
///
/// # Panics
/// When that fails.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to);
        } else if let Err(error) = fs::copy(entry.path(), &to) {
            // A store that runs removes files of its own.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", entry.path().display());
        }
    }
}
