//! A new lineage holds deletions and aborts until an operator lets go.

use quarry_master_core::{command::*, limits::LINEAGE_ID_STEP, query, reply::Reply, rows::ChunkState};
use quarry_types::{ChunkId, ClusterId, ErrorCode, Lineage, NodeId};

use crate::world::{Put, World, put, server};

fn lineage(number: u64, id: u128) -> Lineage {
    Lineage { number, id: ClusterId::from_random(id).0 }
}

fn begin_from(world: &World, to: Lineage) -> Kind {
    let from = query::cluster(&world.tables).unwrap().unwrap().lineage;
    Kind::BeginLineage(BeginLineage { from, to, cause: LineageCause::Restored, node: NodeId(7) })
}

/// The state goes on in a new lineage, with a new session.
fn hold(world: &mut World) {
    let begin = begin_from(world, lineage(2, 77));
    world.ok(begin);
    world.session = world.open_session(99);
    world.sequence = 0;
}

fn release(world: &mut World) {
    world.ok(Kind::ReleaseHold(ReleaseHold {}));
}

#[test]
fn s6_a_new_lineage_gives_out_no_id_of_the_one_before() {
    let mut world = World::new();
    let before = world.file("/f", b"abc");
    let counters = query::counters(&world.tables).unwrap();
    hold(&mut world);
    let after = world.file("/g", b"abc");
    let now = query::counters(&world.tables).unwrap();
    let numbered = world.ok(Kind::NumberMaster(NumberMaster {}));
    assert!(matches!(&numbered, Reply::Master(new) if new.node.0 == 8), "7 is the master that began it: {numbered:?}");
    let ids =
        |c: &quarry_master_core::rows::Counters| [c.next_chunk, c.next_inode, c.next_lease, c.next_session, c.removals];
    for (old, new) in ids(&counters).into_iter().zip(ids(&now)) {
        assert!(new >= old + LINEAGE_ID_STEP, "{old} → {new}");
    }
    assert!(after.inode.0 > before.inode.0 + LINEAGE_ID_STEP);
    assert_eq!(now.epoch, counters.epoch);
}

#[test]
fn s6_a_lineage_that_skips_siblings_gives_out_none_of_their_ids_either() {
    let mut world = World::new();
    let mut sibling = World::new();
    let begin = begin_from(&sibling, lineage(2, 88));
    sibling.ok(begin);
    let begin = begin_from(&world, lineage(3, 89));
    world.ok(begin);
    let next = |world: &World| query::counters(&world.tables).unwrap().next_chunk;
    assert!(next(&world) >= next(&sibling) + LINEAGE_ID_STEP);
}

#[test]
fn s5_a_lineage_begins_once_and_only_where_it_says() {
    let mut world = World::new();
    let begin = begin_from(&world, lineage(2, 77));
    world.ok(begin.clone());
    let counters = query::counters(&world.tables).unwrap();
    world.ok(begin);
    assert_eq!(query::counters(&world.tables).unwrap(), counters, "a repetition jumps no further");
    let old = lineage(1, 2);
    let stale = BeginLineage { from: old, to: lineage(3, 5), cause: LineageCause::Restored, node: NodeId(7) };
    assert_eq!(world.refused(Kind::BeginLineage(stale)), ErrorCode::Conflict);
    for number in [0, 1, 2, 5000, u64::MAX] {
        let bad = begin_from(&world, lineage(number, 78));
        assert_eq!(world.refused(bad), ErrorCode::InvalidArgument, "{number}");
    }
    let same_id = begin_from(&world, lineage(3, 77));
    assert_eq!(world.refused(same_id), ErrorCode::InvalidArgument);
    assert_eq!(query::leadership(&world.tables).unwrap().lineage, lineage(2, 77));
}

#[test]
fn s4_all_sessions_end_with_their_lineage() {
    let mut world = World::new();
    let old = world.session;
    let mutation = Mutation::Mkdir(Mkdir { path: "/d".into(), parents: false });
    let op = OpId { session: old, sequence: 1, acknowledged_below: 0 };
    let retry = Kind::Client(ClientCommand { op, mutation });
    world.ok(retry.clone());
    hold(&mut world);
    assert_eq!(world.refused(retry), ErrorCode::OutcomeUnknown, "also one whose answer is in the books");
    assert!(!query::session_exists(&world.tables, old).unwrap());
    assert!(query::session_exists(&world.tables, world.session).unwrap());
    let again = world.open_session(1);
    assert!(again > old, "what opened a session of the earlier lineage opens another one");
    assert_eq!(world.open_session(1), again);
    world.ok(Kind::ExpireSessions(ExpireSessions { sessions: vec![old] }));
}

#[test]
fn s6_while_held_what_was_removed_is_not_taken_apart_nor_the_trash_emptied() {
    let mut world = World::new();
    let (now, later) = (world.file("/now", b"abc"), world.file("/later", b"abc"));
    world.remove("/now", false, true).unwrap();
    world.set("trash", "2m");
    world.remove("/later", false, false).unwrap();
    let removal = query::inode(&world.tables, later.inode).unwrap().unwrap().removal;
    hold(&mut world);
    world.pass(24 * 3_600_000);
    assert_eq!(world.refused(Kind::CollectRemoved(CollectRemoved { limit: 100 })), ErrorCode::Conflict);
    let empty = EmptyTrash { removals: vec![Removal { inode: later.inode, removal }] };
    assert_eq!(world.refused(Kind::EmptyTrash(empty)), ErrorCode::Conflict);
    assert_eq!(world.totals().doomed, 0);
    world.undelete("/later", 0, "").unwrap();
    release(&mut world);
    world.collect(100);
    assert_eq!(world.totals().doomed, 1, "what was removed for good goes now");
    assert!(query::inode(&world.tables, now.inode).unwrap().is_none());
}

#[test]
fn s6_while_held_replicated_time_stands_still() {
    let mut world = World::new();
    world.tick(60_000);
    let elapsed = |world: &World| query::counters(&world.tables).unwrap().elapsed_ms;
    hold(&mut world);
    world.tick(60_000);
    assert_eq!(elapsed(&world), 60_000);
    release(&mut world);
    world.tick(60_000);
    assert_eq!(elapsed(&world), 120_000);
}

#[test]
fn s6_while_held_what_clients_remove_or_replace_keeps_its_chunks() {
    let mut world = World::new();
    world.file("/f", b"abc");
    hold(&mut world);
    world.file("/f", b"new");
    world.remove("/f", false, true).unwrap();
    world.pass_grace();
    assert_eq!(world.refused(Kind::CollectRemoved(CollectRemoved { limit: 100 })), ErrorCode::Conflict);
    assert_eq!((world.totals().doomed, world.totals().chunks), (0, 2));
}

#[test]
fn s6_while_held_doomed_chunks_are_not_forgotten() {
    let mut world = World::new();
    world.file("/f", b"abc");
    world.remove("/f", false, true).unwrap();
    world.collect(100);
    let doomed = query::doomed(&world.tables, None, 10).unwrap()[0].id;
    hold(&mut world);
    let forget = Kind::ForgetDoomed(ForgetDoomed { chunks: vec![doomed] });
    assert_eq!(world.refused(forget.clone()), ErrorCode::Conflict);
    release(&mut world);
    world.ok(forget);
}

#[test]
fn s6_while_held_no_put_is_aborted_by_its_lease() {
    let mut world = World::new();
    let old = world.create("/old", CreateMode::Replace).unwrap();
    let visible = world.create("/visible", CreateMode::Visible).unwrap();
    hold(&mut world);
    let new = world.create("/new", CreateMode::Replace).unwrap();
    let expire = |put: &Put| Kind::ExpireLease(ExpireLease { lease: put.lease });
    for pending in [&old, &new] {
        assert_eq!(world.refused(expire(pending)), ErrorCode::Conflict);
    }
    // That of a visible file aborts nothing.
    world.ok(expire(&visible));
    release(&mut world);
    world.ok(expire(&old));
    world.collect(100);
    assert_eq!(query::inode(&world.tables, old.inode).unwrap(), None);
}

#[test]
fn s6_while_held_a_chunk_of_an_earlier_lineage_is_not_sealed_and_a_new_one_is() {
    let mut world = World::new();
    let visible = world.create("/visible", CreateMode::Visible).unwrap();
    let old = world.add(&visible, 100).unwrap();
    hold(&mut world);
    for bytes in [&b""[..], b"ab"] {
        assert_eq!(world.seal(old, bytes, &[server(1)]).unwrap_err().code, ErrorCode::Conflict);
    }
    assert_eq!(world.chunk(old).unwrap().state, ChunkState::Open);
    let mut new = world.create("/new", CreateMode::Replace).unwrap();
    let chunk = world.write(&mut new, b"abc");
    world.complete(&new).unwrap();
    assert_eq!(world.chunk(chunk).unwrap().state, ChunkState::Sealed);
    release(&mut world);
    world.seal(old, b"ab", &[server(1)]).unwrap();
}

#[test]
fn s6_while_held_the_ids_that_servers_report_are_not_given_out() {
    let mut world = World::new();
    let raise = |chunk| Kind::RaiseIds(RaiseIds { chunk: ChunkId(chunk) });
    assert_eq!(world.refused(raise(1 << 50)), ErrorCode::Conflict, "else it is an alarm");
    hold(&mut world);
    world.ok(raise(1 << 50));
    world.ok(raise(5));
    let file = world.create("/f", CreateMode::Replace).unwrap();
    assert_eq!(world.add(&file, 10).unwrap(), ChunkId((1 << 50) + 1));
    assert_eq!(world.refused(raise(u64::MAX)), ErrorCode::InvalidArgument);
}

#[test]
fn a_hold_says_why_it_is_there_and_goes_once() {
    let mut world = World::new();
    assert_eq!(query::hold(&world.tables).unwrap(), None);
    hold(&mut world);
    let found = query::hold(&world.tables).unwrap().unwrap();
    assert_eq!(found.cause, LineageCause::Restored);
    assert!(found.is_inherited(ChunkId(1)) && !found.is_inherited(found.first_chunk));
    release(&mut world);
    release(&mut world);
    assert_eq!(query::hold(&world.tables).unwrap(), None);
    // Sessions stay ended.
    let reply = world.client(Mutation::Create(crate::world::create("/f", CreateMode::Replace))).unwrap();
    assert!(put(reply).lease.0 > LINEAGE_ID_STEP);
}
