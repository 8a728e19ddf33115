//! Full disks: a small tmpfs under one chunkserver, under all, and under the master. Needs root, for the mount.

use std::{path::PathBuf, process::Command, time::Duration};

use quarry_tests::{Cluster, Options, cli, data, wait};
use tempfile::TempDir;

/// A small file system that is unmounted with its guard.
struct Tmpfs(TempDir);

impl Tmpfs {
    /// `None`, loudly, where this user may not mount.
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        if done.is_ok_and(|s| s.success()) {
            return Some(Tmpfs(dir));
        }
        println!("SKIPPED: this test mounts a tmpfs and needs root for it");
        None
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn s8_one_full_chunkserver_does_not_stop_a_put() {
    let Some(small) = Tmpfs::mount(100) else { return };
    let data_dirs = vec![Some(small.path())];
    let cluster = Cluster::start(&Options { chunkservers: 4, data_dirs, ..Options::default() });
    let local = cluster.path("local");
    let sha = data::file(&local, 1, 400 << 20);
    cluster.quarry(&["put", local.to_str().expect("text"), "/f"]).ok();
    let back = cluster.path("back");
    cluster.quarry(&["get", "/f", back.to_str().expect("text")]).ok();
    assert_eq!(data::sums(&back).0, sha);
}

#[test]
fn s8_when_all_chunkservers_are_full_puts_are_refused_clearly_and_work_resumes() {
    let Some(mounts) = (0..3).map(|_| Tmpfs::mount(200)).collect::<Option<Vec<_>>>() else { return };
    let data_dirs = mounts.iter().map(|m| Some(m.path())).collect();
    let cluster = Cluster::start(&Options { data_dirs, ..Options::default() });
    let kept = data::bytes(1, 20 << 20);
    cli::run_with_input(&cluster.master.address, &["put", "-", "/kept"], &kept).ok();
    let local = cluster.path("local");
    data::file(&local, 2, 400 << 20);
    let local = local.to_str().expect("text");
    let refused = cluster.quarry(&["--timeout", "10s", "put", local, "/large"]);
    assert_ne!(refused.code, 0);
    let said = refused.stderr.to_lowercase();
    assert!(said.contains("space") || said.contains("room") || said.contains("full"), "says why: {said}");
    assert_eq!(cluster.quarry(&["stat", "/large"]).code, 3, "nothing of it is visible");
    assert_eq!(cluster.quarry(&["cat", "/kept"]).ok(), kept, "nothing was lost");
    // The put gave up what it had written; nobody waits for its lease, of a minute, to run out.
    wait::until("the refused put to leave nothing", Duration::from_secs(20), || {
        let chunks = &cluster.status()["totals"]["chunks"];
        if *chunks == 1 { Ok(()) } else { Err(format!("{chunks} chunks")) }
    });
    cluster.quarry(&["rm", "--now", "/kept"]).ok();
    // What the refused put had written is collected; then there is room again.
    wait::until("room", Duration::from_secs(120), || {
        let out = cli::run_with_input(&cluster.master.address, &["--timeout", "5s", "put", "-", "/again"], &kept);
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
    assert_eq!(cluster.quarry(&["cat", "/again"]).ok(), kept);
}

#[test]
fn s8_a_master_without_room_refuses_clearly_and_resumes() {
    let Some(small) = Tmpfs::mount(256) else { return };
    let master_dir = Some(small.path());
    let mut cluster = Cluster::start(&Options { master_dir, ..Options::default() });
    cli::run_with_input(&cluster.master.address, &["put", "-", "/kept"], b"kept").ok();
    let ballast = small.0.path().join("ballast");
    // Fills the file system to the last byte; the error at the end is the point.
    let _full = Command::new("dd").args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}", ballast.display())).output();
    let refused = wait::until("a refusal", Duration::from_secs(120), || {
        let out = cluster.quarry(&["--timeout", "5s", "mkdir", "-p", "/many/names/to/fill/what/is/left"]);
        let _room = cluster.quarry(&["--timeout", "5s", "rm", "-r", "/many"]);
        if out.code == 0 { Err("still room".to_owned()) } else { Ok(out) }
    });
    let said = refused.stderr.to_lowercase();
    assert!(said.contains("space") || said.contains("room") || said.contains("full"), "says why: {said}");
    std::fs::remove_file(&ballast).expect("the ballast");
    // A store that failed for want of room may need a restart to be sure of what it has.
    if !cluster.master.process().running() {
        cluster.master.restart();
    }
    wait::until("work to resume", Duration::from_secs(60), || {
        let out = cluster.quarry(&["--timeout", "5s", "mkdir", "-p", "/after"]);
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
    assert_eq!(cluster.quarry(&["cat", "/kept"]).ok(), b"kept");
}
