//! A master with many files: how soon it serves, what memory it takes, how a long directory is listed.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `QUARRY_MANY_FILES` | how many files there are; a tenth of them in one directory | 200,000 |
//!
//! With 10,000,000 it takes longer than a test may unless it is run with `--profile long`.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use quarry_env::{
    KvFactory as _, KvOptions, Space, SyncPoint,
    kv::{Batch, Change},
};
use quarry_env_rocks::Rocks;
use quarry_master_core::{
    command::CreateMode,
    keys,
    reply::FileKind,
    rows::{Chunk, ChunkState, Entry, Inode, InodeState, Record as _, Row, Totals},
    tables::Table,
};
use quarry_tests::{Cluster, Options, cli, wait};
use quarry_types::{ChunkId, Crc32, InodeId, LeaseId, ServerId, ids::ROOT};

/// Ids begin here, far from what the master gives out.
const FIRST: u64 = 1 << 32;
/// Files written by one batch.
const STEP: u64 = 2000;
/// Memory for what is written and not yet in tables, in bytes.
const FILL_BUFFER: usize = 256 << 20;
/// Files in each directory but the first.
const IN_ONE: u64 = 1000;
/// What the master may take, in bytes, however many files there are.
const MEMORY_MAX: u64 = 512 << 20;
/// A first page is no more than this, however long the directory is.
const PAGE_MAX: usize = 10_000;

/// Where file `n` of `files` is: its directory's number, and its name.
fn place(n: u64, files: u64) -> (u64, String) {
    let first = files / 10;
    (if n < first { 0 } else { 1 + (n - first) / IN_ONE }, format!("measurement-{n:08}.dat"))
}

fn inode(kind: FileKind, parent: InodeId, name: String, n: u64) -> Inode {
    let file = kind == FileKind::File;
    Inode {
        kind,
        state: InodeState::Live,
        parent,
        name,
        version: 1,
        replicas: if file { 3 } else { 0 },
        length: if file { 64 << 20 } else { 0 },
        crc: Crc32(u32::try_from(n % (1 << 32)).expect("32 bits")),
        chunks: u64::from(file),
        modified_ms: n,
        lease: LeaseId(0),
        mode: CreateMode::Visible,
        expected_inode: InodeId(0),
        expected_version: 0,
        collect_at_ms: 0,
        removal: 0,
    }
}

/// A file with one sealed chunk on three servers, as its completion leaves it.
fn file(n: u64, files: u64) -> Vec<Change> {
    let (directory, name) = place(n, files);
    let (id, chunk, parent) = (InodeId(FIRST + n), ChunkId(FIRST + n), InodeId(FIRST - 1 - directory));
    let servers: Vec<ServerId> = (0..3).map(|k| ServerId::from_random(u128::from(n % 7 + k))).collect();
    let inode = inode(FileKind::File, parent, name.clone(), n);
    let record = Chunk {
        inode: id,
        offset: 0,
        state: ChunkState::Sealed,
        length: inode.length,
        crc: inode.crc,
        limit: inode.length,
        wanted: 3,
        members: servers.clone(),
        holders: servers,
    };
    vec![
        put(Table::Inode, keys::inode(id), inode.encode()),
        put(Table::Entry, keys::entry(parent, &name), Entry { inode: id }.encode()),
        put(Table::Row, keys::row(id, 0), Row { chunk }.encode()),
        put(Table::Chunk, keys::chunk(chunk), record.encode()),
    ]
}

fn directory(n: u64) -> Vec<Change> {
    let (id, name) = (InodeId(FIRST - 1 - n), format!("d{n}"));
    let inode = inode(FileKind::Directory, ROOT, name.clone(), n);
    vec![
        put(Table::Inode, keys::inode(id), inode.encode()),
        put(Table::Entry, keys::entry(ROOT, &name), Entry { inode: id }.encode()),
    ]
}

fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Change {
    Change::Put(Space(table.name()), key, value)
}

/// The one state of a master that does not run.
fn state_of(data: &Path) -> PathBuf {
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the master").flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("state-") {
                return entry.path();
            }
            if entry.path().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    panic!("no state in {}", data.display());
}

/// Writes the files beside Raft, as if they had always been there.
fn fill(data: &Path, files: u64) {
    let spaces: Vec<Space> = Table::ALL.iter().map(|table| Space(table.name())).chain([Space("applied")]).collect();
    // With the master's own write buffer most of the time would go into compactions.
    let options = KvOptions { write_buffer_bytes: FILL_BUFFER, ..KvOptions::default() };
    let kv = Rocks.open(&state_of(data), &spaces, options).expect("the state opens");
    let write = |changes: Vec<Change>| kv.write(Batch { changes }, None).expect("the state takes it");
    let directories = place(files - 1, files).0 + 1;
    write((0..directories).flat_map(directory).collect());
    for step in 0..files.div_ceil(STEP) {
        write((step * STEP..files.min((step + 1) * STEP)).flat_map(|n| file(n, files)).collect());
    }
    let totals = kv.get(Space(Table::Meta.name()), keys::TOTALS).expect("the state is read").expect("totals");
    let mut totals = Totals::decode(&totals).expect("its totals");
    totals.files += files;
    totals.chunks += files;
    totals.directories += directories;
    write(vec![put(Table::Meta, keys::TOTALS.to_vec(), totals.encode())]);
    kv.flush(SyncPoint("test: files")).expect("the state takes it");
}

/// Resident memory of a process now, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a figure");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number") * 1024
}

/// Lists a directory: the lines, and when the first one and the last one were there.
fn list(cluster: &Cluster, path: &str) -> (Vec<String>, Duration, Duration) {
    let start = Instant::now();
    let mut child =
        cli::command(&cluster.masters, &["ls", path]).stdout(Stdio::piped()).spawn().expect("quarry starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines().map(|l| l.expect("text"));
    let mut all: Vec<String> = lines.next().into_iter().collect();
    let first = start.elapsed();
    all.extend(lines);
    assert!(child.wait().expect("it ends").success());
    (all, first, start.elapsed())
}

#[test]
fn s9_memory_is_bounded_and_a_long_directory_comes_by_pages_however_many_files_there_are() {
    let files: u64 = std::env::var("QUARRY_MANY_FILES").map_or(200_000, |v| v.parse().expect("a number"));
    let mut cluster = Cluster::start(&Options { chunkservers: 0, ..Options::default() });
    let pid = cluster.master.process().pid();
    let empty = resident(pid);
    cluster.quarry(&["mkdir", "/before"]).ok();
    cluster.master.kill();
    fill(&cluster.master.data, files);
    let start = Instant::now();
    cluster.master.restart();
    wait::until("a file to be found", Duration::from_secs(60), || {
        let (directory, name) = place(files - 1, files);
        let out = cluster.quarry(&["stat", "--json", &format!("/d{directory}/{name}")]);
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
    let served = start.elapsed();
    let pid = cluster.master.process().pid();
    let idle = resident(pid);
    let (lines, first, whole) = list(&cluster, "/d0");
    let wanted: Vec<String> = (0..files / 10).map(|n| place(n, files).1).collect();
    assert!(lines == wanted, "{} names, the first {:?}", lines.len(), lines.first());
    for directory in [1, 2, (files - 1 - files / 10) / IN_ONE] {
        let (names, ..) = list(&cluster, &format!("/d{directory}"));
        assert!(!names.is_empty() && names.len() <= PAGE_MAX, "{} names", names.len());
    }
    // It goes on as it was.
    cluster.quarry(&["mkdir", "/d0/after"]).ok();
    cluster.quarry(&["rm", &format!("/d0/{}", wanted[0])]).ok();
    assert_eq!(cluster.quarry(&["stat", &format!("/d0/{}", wanted[0])]).code, 3, "it was removed");
    cluster.quarry(&["stat", "/before"]).ok();
    let (peak, now) = (cluster.master.process().peak_memory(), resident(pid));
    println!(
        "{files} files: served {served:.2?} after the start; {} MiB resident then, {} MiB after listing, {} MiB at most, \
         {} MiB without files; {:.1} bytes a file; the first name of {} after {first:.2?}, the last after {whole:.2?}",
        idle >> 20,
        now >> 20,
        peak >> 20,
        empty >> 20,
        peak.saturating_sub(empty) as f64 / files as f64,
        wanted.len()
    );
    assert!(peak <= MEMORY_MAX, "the master took {peak} bytes");
}
