use quarry_master_core::{command::*, query, reply::*, rows::Server};
use quarry_types::ErrorCode;

use crate::world::{World, create, put, server};

fn replicas(world: &World, path: &str) -> u32 {
    query::stat(&world.tables, path).unwrap().replicas
}

#[test]
fn chunks_follow_what_their_file_wants_in_bounded_steps() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Visible).unwrap();
    for _ in 0..25 {
        world.write(&mut put, b"abc");
    }
    let Reply::File(file) = world.set_replicas("/f", 5).unwrap() else { panic!() };
    assert_eq!((file.replicas, file.version), (5, 26), "what is in the file has not changed");
    let chunk = world.add(&put, 10).unwrap();
    assert_eq!(world.chunk(chunk).unwrap().wanted, 5, "a new chunk wants it at once");
    let mut told = Vec::new();
    loop {
        let followed = world.follow(10);
        assert!(followed.chunks.len() <= 10);
        told.extend(followed.chunks);
        if !followed.more {
            break;
        }
    }
    let old: Vec<_> = put.chunks.iter().map(|c| c.chunk).collect();
    assert_eq!(told, old, "each chunk that was there, once");
    assert!(old.iter().all(|id| world.chunk(*id).unwrap().wanted == 5));
    let nothing = Followed { worked: 0, more: false, chunks: vec![] };
    assert_eq!(world.follow(10), nothing);
    world.set_replicas("/f", 5).unwrap();
    assert_eq!(world.follow(10), nothing, "the same again is nothing to do");
}

#[test]
fn a_second_change_begins_anew() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Visible).unwrap();
    for _ in 0..10 {
        world.write(&mut put, b"abc");
    }
    world.set_replicas("/f", 5).unwrap();
    assert!(world.follow(4).more);
    world.set_replicas("/f", 1).unwrap();
    while world.follow(4).more {}
    assert!(put.chunks.iter().all(|c| world.chunk(c.chunk).unwrap().wanted == 1));
}

#[test]
fn what_is_gone_follows_no_more_and_what_lies_in_the_trash_does() {
    let mut world = World::new();
    let (kept, gone) = (world.file("/kept", b"abc"), world.file("/gone", b"abc"));
    for path in ["/kept", "/gone"] {
        world.set_replicas(path, 1).unwrap();
    }
    world.remove("/kept", false, false).unwrap();
    world.remove("/gone", false, true).unwrap();
    let chunk = query::rows(&world.tables, kept.inode, 0, 1).unwrap().chunks[0].id;
    assert_eq!(world.follow(100).chunks, [chunk]);
    world.collect(100);
    assert_eq!(query::inode(&world.tables, gone.inode).unwrap(), None);
}

#[test]
fn new_files_want_what_the_nearest_directory_says() {
    let mut world = World::new();
    world.mkdir("/a");
    world.mkdir("/a/b");
    world.set_replicas("/", 2).unwrap();
    world.file("/a/b/1", b"");
    world.set_replicas("/a", 4).unwrap();
    world.file("/a/b/2", b"");
    world.set_replicas("/a/b", 1).unwrap();
    world.file("/a/b/3", b"");
    let said = world.client(Mutation::Create(Create { replicas: 8, ..create("/a/b/4", CreateMode::Replace) })).unwrap();
    world.complete(&put(said)).unwrap();
    world.set_replicas("/a/b", 0).unwrap();
    world.file("/a/b/5", b"");
    let wanted: Vec<u32> = (1..=5).map(|i| replicas(&world, &format!("/a/b/{i}"))).collect();
    assert_eq!(wanted, [2, 4, 1, 8, 4]);
    assert_eq!((replicas(&world, "/a"), replicas(&world, "/a/b")), (4, 0));
    world.set_replicas("/a/b/4", 0).unwrap();
    assert_eq!(replicas(&world, "/a/b/4"), 4, "0 is what its directory says");
    for directory in ["/", "/a"] {
        world.set_replicas(directory, 0).unwrap();
    }
    world.set("default-replicas", "5");
    world.file("/a/b/6", b"");
    assert_eq!(replicas(&world, "/a/b/6"), 5);
    assert_eq!(world.set_replicas("/a", 9).unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(world.set_replicas("/x", 2).unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn s10_a_maintenance_ends_by_replicated_time() {
    let mut world = World::new();
    let (address, rack) = ("h:1".to_string(), "r".to_string());
    let durability = Durability::Sealed;
    world.ok(Kind::PutServer(PutServer {
        server: server(1),
        address,
        rack,
        start_counter: 1,
        durability,
        start_id: 1,
    }));
    let wish = |world: &World| {
        let row: Server = query::server(&world.tables, server(1)).unwrap().unwrap();
        row.wish_at(query::counters(&world.tables).unwrap().elapsed_ms)
    };
    let set = |wish, for_ms| Kind::SetServer(SetServer { server: server(1), wish, for_ms, automatic: false });
    world.ok(set(ServerWish::Maintenance, 90_000));
    world.tick(60_000);
    assert_eq!(wish(&world), ServerWish::Maintenance);
    assert!(query::is_in_maintenance(&world.tables).unwrap());
    world.tick(30_000);
    assert_eq!(wish(&world), ServerWish::Active);
    assert!(!query::is_in_maintenance(&world.tables).unwrap());
    world.ok(set(ServerWish::Draining, 0));
    world.pass(3_600_000);
    assert_eq!(wish(&world), ServerWish::Draining, "a drain does not end by itself");
}

#[test]
fn a_drain_and_a_decommission_end_only_when_an_operator_says_so() {
    let mut world = World::new();
    let (address, rack) = ("h:1".to_string(), "r".to_string());
    let durability = Durability::Sealed;
    world.ok(Kind::PutServer(PutServer {
        server: server(1),
        address,
        rack,
        start_counter: 1,
        durability,
        start_id: 1,
    }));
    let set = |wish, for_ms| Kind::SetServer(SetServer { server: server(1), wish, for_ms, automatic: false });
    let wish = |world: &World| query::server(&world.tables, server(1)).unwrap().unwrap().wish;
    world.ok(set(ServerWish::Maintenance, 90_000));
    world.ok(set(ServerWish::Draining, 0));
    world.ok(set(ServerWish::Draining, 0));
    let refused = world.apply(set(ServerWish::Maintenance, 90_000)).unwrap_err();
    assert_eq!((refused.code, wish(&world)), (ErrorCode::Conflict, ServerWish::Draining));
    world.ok(set(ServerWish::Decommissioned, 0));
    for (next, for_ms) in [(ServerWish::Draining, 0), (ServerWish::Maintenance, 90_000)] {
        let refused = world.apply(set(next, for_ms)).unwrap_err();
        assert_eq!((refused.code, wish(&world)), (ErrorCode::Conflict, ServerWish::Decommissioned));
    }
    world.ok(set(ServerWish::Decommissioned, 0));
    world.ok(set(ServerWish::Active, 0));
    world.ok(set(ServerWish::Maintenance, 90_000));
}
