use quarry_master_core::{command::*, limits::TICK_MS_MAX, query, reply::Reply};
use quarry_types::{ErrorCode, LeaseId};

use crate::world::World;

#[test]
fn s10_replicated_time_moves_by_bounded_ticks_only() {
    let mut world = World::new();
    let Reply::Time(time) = world.ok(Kind::Tick(Tick { elapsed_ms: u64::MAX })) else { panic!() };
    assert_eq!(time.elapsed_ms, TICK_MS_MAX);
    world.file("/f", b"abc");
    world.remove("/f", false, false).unwrap();
    world.tick(u64::MAX);
    world.collect(100);
    assert_eq!(world.totals().doomed, 0, "a clock that jumped ends no reader's grace");
    assert_eq!(query::counters(&world.tables).unwrap().elapsed_ms, 2 * TICK_MS_MAX);
}

#[test]
fn s10_a_lease_ends_by_a_command_only() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    world.pass_grace();
    world.write(&mut put, b"abc");
    world.complete(&put).unwrap();
    world.ok(Kind::ExpireLease(ExpireLease { lease: put.lease }));
    assert_eq!(world.names("/"), ["/f"], "an expiry that comes after the completion changes nothing");
}

#[test]
fn s10_the_open_chunk_of_an_expired_visible_file_is_sealed_first() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Visible).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    let expire = Kind::ExpireLease(ExpireLease { lease: put.lease });
    assert_eq!(world.refused(expire.clone()), ErrorCode::Busy);
    let leases = query::leases(&world.tables, LeaseId(0), 10).unwrap();
    assert_eq!((leases[0].id, leases[0].record.open.as_slice()), (put.lease, &[chunk][..]));
    world.seal(chunk, b"abc", &[]).unwrap();
    world.ok(expire);
    let file = query::stat(&world.tables, "/f").unwrap();
    assert_eq!((file.length, file.open), (3, false));
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::LeaseLost);
}

#[test]
fn s10_wall_time_is_for_display() {
    let mut world = World::new();
    let file = world.file("/f", b"abc");
    assert_eq!(query::stat(&world.tables, "/f").unwrap().modified_ms, file.modified_ms);
    assert!(file.modified_ms > 0);
    assert_eq!(query::counters(&world.tables).unwrap().elapsed_ms, 0);
}
