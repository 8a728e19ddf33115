//! A snapshot of a million files on RocksDB: how it is made, and what memory that takes.
#![expect(clippy::disallowed_methods, reason = "it looks at its own process and at the files themselves")]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use quarry_env::Space;
use quarry_master_core::{
    command::CreateMode,
    keys,
    reply::FileKind,
    rows::{Chunk, ChunkState, Entry, Inode, InodeState, Record as _, Row},
    tables::{Change, Table},
};
use quarry_types::{ChunkId, Crc32, InodeId, LeaseId, ServerId};

use super::*;
use crate::store::{Layout, State};

const FILES: u64 = 1_000_000;
/// Files written by one batch.
const STEP: u64 = 2000;
/// The ids of files begin here, far from what the group gives out meanwhile.
const FIRST: u64 = 1 << 32;
const KEEP_LOG: u64 = 10;
/// What making the snapshot may take beyond what the process has, in bytes.
const EXTRA_MAX: u64 = 64 << 20;
/// What the whole process may take at any time, in bytes: a master is given so much.
const ALL_MAX: u64 = 256 << 20;

/// The rows of a file with one sealed chunk on three servers, as its completion leaves them.
fn rows(n: u64) -> [Change; 4] {
    let (inode, chunk, parent) = (InodeId(FIRST + n), ChunkId(FIRST + n), InodeId(FIRST - 1 - n / 1000));
    let name = format!("measurement-{n:07}.dat");
    let servers: Vec<ServerId> = (0..3).map(|k| ServerId::from_random(u128::from(n % 7 + k))).collect();
    let length = 64 << 20;
    let crc = Crc32(u32::try_from(n).unwrap());
    let file = Inode {
        kind: FileKind::File,
        state: InodeState::Live,
        parent,
        name: name.clone(),
        version: n,
        replicas: 3,
        length,
        crc,
        chunks: 1,
        modified_ms: n,
        lease: LeaseId(0),
        mode: CreateMode::Visible,
        expected_inode: InodeId(0),
        expected_version: 0,
        collect_at_ms: 0,
        removal: 0,
    };
    let record = Chunk {
        inode,
        offset: 0,
        state: ChunkState::Sealed,
        length,
        crc,
        limit: length,
        wanted: 3,
        members: servers.clone(),
        holders: servers,
    };
    [
        (Table::Inode, keys::inode(inode), Some(file.encode())),
        (Table::Entry, keys::entry(parent, &name), Some(Entry { inode }.encode())),
        (Table::Row, keys::row(inode, 0), Some(Row { chunk }.encode())),
        (Table::Chunk, keys::chunk(chunk), Some(record.encode())),
    ]
}

/// Writes the files beside Raft, which has nothing to do meanwhile: the mark stays what it is.
fn fill(state: &State) {
    let mark = state.mark().unwrap().unwrap();
    for step in 0..FILES / STEP {
        let changes = (step * STEP..(step + 1) * STEP).flat_map(rows).collect();
        state.update(&mark, |_| Ok((changes, ()))).unwrap();
    }
}

/// How many files and chunks a store holds.
fn count(kv: &dyn quarry_env::Kv) -> (u64, u64) {
    let of = |table: Table| {
        let (mut from, mut count) = (keys::inode(InodeId(FIRST)), 0);
        loop {
            let page = kv.scan(Space(table.name()), &from, None, 10_000).unwrap();
            let Some((last, _)) = page.last() else { return count };
            from = keys::behind(last);
            count += u64::try_from(page.len()).unwrap();
        }
    };
    (of(Table::Inode), of(Table::Chunk))
}

/// A line of this process's memory figures, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let number: String = line.chars().filter(char::is_ascii_digit).collect();
    number.parse::<u64>().unwrap() << 10
}

/// Runs `work` and returns by how much the memory of this process rose at most.
async fn rise<T>(work: impl Future<Output = T>) -> (T, u64) {
    // Begins the peak afresh.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let done = work.await;
    (done, memory("VmHWM:").saturating_sub(before))
}

/// Bytes of tables in a directory, and how many of them are under another name as well.
fn tables(dir: &Path) -> (u64, u64) {
    let (mut all, mut shared) = (0, 0);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|e| e == "sst") {
            let file = entry.metadata().unwrap();
            all += file.len();
            shared += if file.nlink() > 1 { file.len() } else { 0 };
        }
    }
    (all, shared)
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_snapshot_of_a_million_files_is_a_checkpoint_and_takes_little_memory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = dir_in(&temp);
    let world = real();
    Group::create(&world, &dir, me(), us(), first()).await.unwrap();
    let config = GroupConfig { keep_log: KEEP_LOG, ..config() };
    let group = Group::open(&world, &dir, us(), config.clone()).await.unwrap();
    led(&group).await;
    let mut sessions = Vec::new();
    for n in 0..100 {
        sessions.push(session(&group, n).await.unwrap());
    }
    let state = Arc::clone(group.state());
    group.blocking(move || fill(&state)).await;

    let filling = memory("VmHWM:");
    let (upto, extra) = rise(group.snapshot()).await;
    let (upto, all) = (upto.unwrap(), memory("VmHWM:").max(filling));
    println!("snapshot up to {upto}: {} MiB more, {} MiB in all", extra >> 20, all >> 20);
    assert!(extra < EXTRA_MAX, "making the snapshot took {extra} bytes");
    assert!(all < ALL_MAX, "the process took {all} bytes");

    // The log is purged behind it.
    group.purged(upto - KEEP_LOG).await;
    sessions.push(session(&group, 100).await.unwrap());

    // It is a directory whose tables are the state's own files.
    let snapshot = group.state().newest_snapshot().unwrap();
    assert_eq!(snapshot.mark().unwrap().index, upto);
    let kv = snapshot.path().join("kv");
    let (bytes, shared) = tables(&kv);
    println!("{} MiB of tables, {} MiB of them shared", bytes >> 20, shared >> 20);
    assert!(bytes > FILES * 50 && shared > bytes / 2, "{bytes} bytes of tables, {shared} of them shared");

    // Without the state the snapshot has everything, and the log the rest. That is a checkpoint as well.
    group.shutdown().await;
    drop((group, snapshot));
    let layout = Layout::new(&world, &dir);
    world.disk.remove_dir_all(&layout.state(&layout.current().unwrap().unwrap())).unwrap();
    let (group, extra) = rise(Group::open(&world, &dir, us(), config)).await;
    let group = group.unwrap();
    led(&group).await;
    println!("restored: {} MiB more", extra >> 20);
    assert!(extra < EXTRA_MAX, "restoring the state took {extra} bytes");
    for id in sessions {
        assert!(has_session(&group, id).await, "{id}");
    }
    let state = Arc::clone(group.state());
    assert_eq!(group.blocking(move || count(&*state.kv())).await, (FILES, FILES));
    group.shutdown().await;
}
