use quarry_master_core::{command::*, reply::Reply};
use quarry_types::ErrorCode;

use crate::world::{World, server};

#[test]
fn s1_a_completion_waits_for_min_replicas_and_its_retry_is_not_stuck_with_the_refusal() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    world.seal(chunk, b"abc", &[server(1)]).unwrap();
    put.wrote(chunk, b"abc");
    let op = world.op();
    let command = Kind::Client(ClientCommand { op, mutation: Mutation::Complete(crate::world::complete(&put)) });
    assert_eq!(world.apply(command.clone()).unwrap_err().code, ErrorCode::UnderReplicated);
    assert!(world.names("/").is_empty(), "it is not visible");
    let confirm = ConfirmReplicas { chunk, servers: vec![server(2), server(1)], gone: vec![] };
    world.ok(Kind::ConfirmReplicas(confirm));
    match world.ok(command) {
        Reply::Completed(done) => assert_eq!((done.fewest_replicas, done.wanted), (2, 3)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s1_seals_that_came_with_an_under_replicated_completion_stay() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    put.wrote(chunk, b"abc");
    let mut complete = crate::world::complete(&put);
    complete.seals = vec![crate::world::sealed(chunk, b"abc", &[server(1)])];
    assert_eq!(world.code(Mutation::Complete(complete.clone())), ErrorCode::UnderReplicated);
    world.ok(Kind::ConfirmReplicas(ConfirmReplicas { chunk, servers: vec![server(3)], gone: vec![] }));
    world.client(Mutation::Complete(complete)).unwrap();
    assert_eq!(world.names("/"), ["/f"]);
}

#[test]
fn s1_a_file_that_wants_fewer_replicas_than_the_minimum_waits_for_all_it_wants() {
    let mut world = World::new();
    let create = Create { replicas: 1, ..crate::world::create("/f", CreateMode::Replace) };
    let mut put = crate::world::put(world.client(Mutation::Create(create)).unwrap());
    let chunk = world.add(&put, 100).unwrap();
    world.seal(chunk, b"abc", &[]).unwrap();
    put.wrote(chunk, b"abc");
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::UnderReplicated);
    world.ok(Kind::ConfirmReplicas(ConfirmReplicas { chunk, servers: vec![server(9)], gone: vec![] }));
    world.complete(&put).unwrap();
}
