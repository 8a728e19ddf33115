//! A snapshot that rotted on its sender's disk: every piece of it arrives as it was sent, and it is not installed.
#![expect(clippy::disallowed_methods, reason = "damage is done to real files, behind the store's back")]

use std::fs;

use super::{
    three::{Member, timing, until},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_snapshot_that_is_damaged_on_its_senders_disk_is_not_installed() {
    let temp = tempfile::tempdir().unwrap();
    let config = GroupConfig { keep_log: 0, ..timing() };
    let first = Member::first(&temp, config.clone()).await;
    let mut sessions = Vec::new();
    for n in 0..200 {
        sessions.push(session(&first.group, n).await.unwrap());
    }
    let upto = first.group.snapshot().await.unwrap();
    first.group.purged(upto).await;
    let snapshot = first.group.state().newest_snapshot().unwrap();
    snapshot.verify(&first.world).unwrap();
    let tables = fs::read_dir(snapshot.path().join("kv")).unwrap().map(|entry| entry.unwrap().path());
    for table in tables.filter(|path| path.extension().is_some_and(|e| e == "sst")) {
        let mut bytes = fs::read(&table).unwrap();
        bytes[16] ^= 0x10;
        // A file of its own: the state shares the old one.
        fs::remove_file(&table).unwrap();
        fs::write(&table, bytes).unwrap();
    }
    let damaged = snapshot.verify(&first.world).unwrap_err().to_string();
    assert!(damaged.contains("damaged"), "{damaged}");
    drop(snapshot);
    let second = Member::another(&temp, 2, config).await;
    first.group.add(second.node.clone()).await.unwrap();
    let arrives = || {
        let entries = fs::read_dir(temp.path().join("2")).unwrap();
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("incoming"))
    };
    until("the snapshot arrives", async || arrives()).await;
    until("it is thrown away", async || !arrives()).await;
    assert!(second.group.state().mark().unwrap().is_none(), "nothing of it is installed");
    // Another one, of the state, which is whole.
    sessions.push(session(&first.group, 1000).await.unwrap());
    first.group.snapshot().await.unwrap();
    for session in &sessions {
        second.has(*session).await;
    }
    first.stop().await;
    second.stop().await;
}
