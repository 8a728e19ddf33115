use std::sync::atomic::{AtomicUsize, Ordering};

use quarry_master_core::{
    apply::apply,
    command::*,
    limits::COLLECT_MAX,
    query,
    reply::{Collected, Reply},
    rows::ChunkState,
    tables::{MemTables, Overlay, Pair, ReadTables, Table, TableError},
};
use quarry_types::{ChunkId, ErrorCode};

use crate::world::{World, server};

#[test]
fn s6_removed_files_keep_their_chunks_for_the_readers_grace() {
    let mut world = World::new();
    let file = world.file("/f", b"abc");
    world.set("trash", "2m");
    world.remove("/f", false, false).unwrap();
    world.pass(120_000);
    world.collect(100);
    let rows = query::rows(&world.tables, file.inode, 0, 10).unwrap();
    assert_eq!(rows.chunks.len(), 1, "a running get still finds them by inode, also after the trash");
    world.pass_grace();
    world.collect(100);
    assert!(query::rows(&world.tables, file.inode, 0, 10).unwrap().chunks.is_empty());
    assert_eq!(world.chunk(rows.chunks[0].id).unwrap().state, ChunkState::Doomed);
    assert_eq!(query::doomed(&world.tables, None, 10).unwrap()[0].record.holders, [server(1), server(2)]);
}

#[test]
fn s6_a_replaced_file_keeps_its_chunks_for_the_readers_grace() {
    let mut world = World::new();
    let old = world.file("/f", b"old");
    world.file("/f", b"new");
    let other = world.file("/g", b"other");
    world.rename("/g", "/f", true).unwrap();
    world.collect(100);
    assert_eq!(query::rows(&world.tables, old.inode, 0, 10).unwrap().chunks.len(), 1);
    assert_eq!(query::stat(&world.tables, "/f").unwrap().inode, other.inode);
    world.pass_grace();
    world.collect(100);
    assert_eq!((world.totals().doomed, world.totals().chunks), (2, 1));
}

#[test]
fn s6_now_gives_space_back_at_once() {
    let mut world = World::new();
    world.file("/f", b"abc");
    world.remove("/f", false, true).unwrap();
    world.collect(100);
    assert_eq!(world.totals().doomed, 1);
}

#[test]
fn s6_doom_is_irrevocable_and_only_doomed_chunks_are_forgotten() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Replace).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    let forget = Kind::ForgetDoomed(ForgetDoomed { chunks: vec![chunk] });
    assert_eq!(world.refused(forget.clone()), ErrorCode::Conflict);
    world.client(Mutation::Abort(Abort { inode: put.inode, lease: put.lease })).unwrap();
    world.collect(100);
    assert_eq!(world.chunk(chunk).unwrap().state, ChunkState::Doomed);
    assert_eq!(world.seal(chunk, b"abc", &[]).unwrap_err().code, ErrorCode::NotFound);
    world.ok(forget.clone());
    assert_eq!(world.chunk(chunk), None);
    world.ok(forget);
    // Its id is not given out again.
    let put = world.create("/g", CreateMode::Replace).unwrap();
    assert!(world.add(&put, 100).unwrap() > chunk);
}

#[test]
fn s6_an_aborted_put_goes_at_once_inode_and_chunks_together() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    world.write(&mut put, b"abc");
    world.add(&put, 100).unwrap();
    world.ok(Kind::ExpireLease(ExpireLease { lease: put.lease }));
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::LeaseLost);
    assert!(!world.collect(100).more);
    assert_eq!((world.totals().chunks, world.totals().open, world.totals().doomed), (0, 0, 2));
    assert_eq!(query::inode(&world.tables, put.inode).unwrap(), None);
}

#[test]
fn s6_a_tree_is_taken_apart_in_bounded_steps() {
    let mut world = World::new();
    world.mkdir("/d");
    for directory in 0..3 {
        world.mkdir(&format!("/d/{directory}"));
        for file in 0..3 {
            world.file(&format!("/d/{directory}/{file}"), b"abc");
        }
    }
    let open = world.create("/d/0/open", CreateMode::Visible).unwrap();
    world.add(&open, 10).unwrap();
    world.remove("/d", true, true).unwrap();
    assert!(query::stat(&world.tables, "/d/0/0").is_err(), "all below it is hidden at once");
    let mut steps = 0;
    loop {
        let collected = world.collect(2);
        assert!(collected.worked <= 2);
        steps += 1;
        if !collected.more {
            break;
        }
    }
    assert!(steps > 10);
    let totals = world.totals();
    assert_eq!((totals.files, totals.directories, totals.chunks, totals.doomed), (0, 0, 0, 10));
    assert_eq!((totals.removed, totals.leases), (0, 0));
}

#[test]
fn s6_the_open_watermark_is_the_least_open_chunk() {
    let mut world = World::new();
    assert_eq!(query::open_watermark(&world.tables).unwrap(), ChunkId(1));
    let a = world.create("/a", CreateMode::Replace).unwrap();
    let b = world.create("/b", CreateMode::Replace).unwrap();
    let (first, second) = (world.add(&a, 10).unwrap(), world.add(&b, 10).unwrap());
    assert_eq!(query::open_watermark(&world.tables).unwrap(), first);
    world.seal(first, b"abc", &[]).unwrap();
    assert_eq!(query::open_watermark(&world.tables).unwrap(), second);
    world.seal(second, b"abc", &[]).unwrap();
    assert_eq!(query::open_watermark(&world.tables).unwrap(), ChunkId(second.0 + 1));
}

/// Tables that count what is asked of them.
struct Counting<'a> {
    tables: &'a MemTables,
    /// Calls, and rows handed out.
    work: AtomicUsize,
}

impl ReadTables for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.work.fetch_add(1, Ordering::Relaxed);
        self.tables.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        let rows = self.tables.scan(table, from, to, limit)?;
        self.work.fetch_add(1 + rows.len(), Ordering::Relaxed);
        Ok(rows)
    }
}

#[test]
fn s9_taking_apart_costs_as_much_for_each_file_however_many_there_are() {
    let work = |files: usize| {
        let mut world = World::new();
        for n in 0..files {
            let path = format!("/f{n}");
            world.file(&path, b"abc");
            world.remove(&path, false, true).unwrap();
        }
        let counting = Counting { tables: &world.tables, work: AtomicUsize::new(0) };
        let mut overlay = Overlay::new(&counting);
        let command = Command { wall_ms: 0, kind: Kind::CollectRemoved(CollectRemoved { limit: COLLECT_MAX }) };
        let reply = apply(&mut overlay, world.index + 1, &command).unwrap().unwrap();
        // Each file has one chunk: two steps.
        assert_eq!(reply, Reply::Collected(Collected { worked: 2 * files as u32, more: false }));
        counting.work.into_inner() / files
    };
    let (few, many) = (work(20), work(400));
    assert!(many <= few + 2, "{few} rows for each of 20 files, {many} for each of 400");
}
