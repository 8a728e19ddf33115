//! A master's state with many files, written into its store while the master is down: through the front door ten million
//! files would take an hour. The rows are those that completing a file leaves.

use std::path::Path;

use nix::sys::signal::Signal;
use quarry_env::{Batch, KvFactory as _, KvOptions, Recovery, Space, SyncPoint};
use quarry_env_rocks::Rocks;
use quarry_master_core::{
    command::CreateMode,
    keys,
    reply::FileKind,
    rows::{Chunk, ChunkState, Entry, Inode, InodeState, Record as _, Row, Totals},
    tables::Table,
};
use quarry_tests::{cluster::Server, group::state_dir};
use quarry_types::{ChunkId, Crc32, InodeId, LeaseId, limits::CHUNK_BYTES};

use crate::{
    error::{During as _, Outcome},
    swarm::{COPIES, holders},
};

/// Files written by one batch.
const STEP: u64 = 2000;
/// Their ids begin here, far from what the master gives out meanwhile.
const FIRST: u64 = 1 << 32;
/// A master that is asked to stop has stopped within this.
const STOP: std::time::Duration = std::time::Duration::from_secs(60);

/// The chunk of file `n`.
pub fn chunk(n: u64) -> ChunkId {
    ChunkId(FIRST + n)
}

/// Stops the master, writes `files` files of one chunk each into the directory whose inode is `parent`, with replicas on
/// simulated `servers`, and leaves the master down.
///
/// # Errors
/// When the store cannot be opened or written.
pub fn forge(master: &mut Server, parent: InodeId, files: u64, servers: u64) -> Outcome {
    master.process().signal(Signal::SIGTERM);
    master.process().wait(STOP);
    master.kill();
    let spaces: Vec<Space> = Table::ALL.iter().map(|table| Space(table.name())).collect();
    let options = KvOptions { recovery: Recovery::Prefix, ..KvOptions::default() };
    let state: &Path = &state_dir(&master.data);
    let store = Rocks.open(state, &spaces, options).during("opening the master's state")?;
    let mut next = 0;
    while next < files {
        let end = (next + STEP).min(files);
        let mut batch = Batch::default();
        (next..end).for_each(|n| add(&mut batch, parent, n, servers));
        store.write(batch, None).during("writing the master's state")?;
        next = end;
    }
    let meta = Space(Table::Meta.name());
    let totals = store.get(meta, keys::TOTALS).during("reading the master's state")?.unwrap_or_default();
    let mut totals = Totals::decode(&totals).during("reading the master's state")?;
    (totals.files, totals.chunks) = (totals.files + files, totals.chunks + files);
    let mut batch = Batch::default();
    batch.put(meta, keys::TOTALS, totals.encode());
    store.write(batch, None).during("writing the master's state")?;
    store.flush(SyncPoint("a benchmark")).during("writing the master's state")
}

fn add(batch: &mut Batch, parent: InodeId, n: u64, servers: u64) {
    let (inode, chunk, name) = (InodeId(FIRST + n), chunk(n), format!("measurement-{n:08}.dat"));
    let holders = holders(n, servers);
    // A CRC is four bytes; any will do.
    let crc = Crc32(n as u32);
    let file = Inode {
        kind: FileKind::File,
        state: InodeState::Live,
        parent,
        name: name.clone(),
        version: 1,
        replicas: COPIES,
        length: CHUNK_BYTES,
        crc,
        chunks: 1,
        modified_ms: n,
        lease: LeaseId(0),
        mode: CreateMode::Replace,
        expected_inode: InodeId(0),
        expected_version: 0,
        collect_at_ms: 0,
        removal: 0,
    };
    let record = Chunk {
        inode,
        offset: 0,
        state: ChunkState::Sealed,
        length: CHUNK_BYTES,
        crc,
        limit: CHUNK_BYTES,
        wanted: COPIES,
        members: holders.clone(),
        holders,
    };
    batch.put(Space(Table::Inode.name()), keys::inode(inode), file.encode());
    batch.put(Space(Table::Entry.name()), keys::entry(parent, &name), Entry { inode }.encode());
    batch.put(Space(Table::Row.name()), keys::row(inode, 0), Row { chunk }.encode());
    batch.put(Space(Table::Chunk.name()), keys::chunk(chunk), record.encode());
}
