use quarry_master_core::{command::*, limits, query, reply::Reply};
use quarry_types::{ErrorCode, SessionId, limits::SESSION_RESULTS_MAX};

use crate::world::World;

fn mkdir(session: SessionId, sequence: u64, acknowledged_below: u64, path: &str) -> Kind {
    let op = OpId { session, sequence, acknowledged_below };
    Kind::Client(ClientCommand { op, mutation: Mutation::Mkdir(Mkdir { path: path.into(), parents: false }) })
}

#[test]
fn s4_the_same_request_twice_takes_effect_once() {
    let mut world = World::new();
    let session = world.session;
    let first = world.ok(mkdir(session, 1, 0, "/a"));
    let tables = world.tables.clone();
    assert_eq!(world.ok(mkdir(session, 1, 0, "/a")), first);
    assert!(tables == world.tables);
}

#[test]
fn s4_a_refusal_is_remembered_so_that_a_late_copy_cannot_take_effect() {
    let mut world = World::new();
    let session = world.session;
    let early = mkdir(session, 1, 0, "/a/b");
    assert_eq!(world.apply(early.clone()).unwrap_err().code, ErrorCode::NotFound);
    world.ok(mkdir(session, 2, 0, "/a"));
    assert_eq!(world.apply(early).unwrap_err().code, ErrorCode::NotFound);
    assert!(world.names("/a").is_empty());
}

#[test]
fn s4_an_unknown_session_is_answered_outcome_unknown_and_never_executed() {
    let mut world = World::new();
    let session = world.session;
    world.ok(mkdir(session, 1, 0, "/a"));
    world.ok(Kind::ExpireSessions(ExpireSessions { sessions: vec![session] }));
    assert_eq!(world.refused(mkdir(session, 1, 0, "/a")), ErrorCode::OutcomeUnknown);
    assert_eq!(world.refused(mkdir(session, 2, 0, "/b")), ErrorCode::OutcomeUnknown);
    assert_eq!(world.refused(mkdir(SessionId(77), 1, 0, "/b")), ErrorCode::OutcomeUnknown);
    // The same nonce opens another session: ids are never revived.
    assert!(world.open_session(1) > session);
    world.ok(Kind::CloseSession(CloseSession { session }));
}

#[test]
fn s4_an_acknowledged_sequence_is_never_executed_again() {
    let mut world = World::new();
    let session = world.session;
    world.ok(mkdir(session, 1, 0, "/a"));
    world.ok(mkdir(session, 2, 2, "/b"));
    assert_eq!(world.refused(mkdir(session, 1, 0, "/c")), ErrorCode::OutcomeUnknown);
    assert_eq!(world.refused(mkdir(session, 3, 4, "/c")), ErrorCode::InvalidArgument);
    assert_eq!(world.refused(mkdir(session, 0, 0, "/c")), ErrorCode::InvalidArgument);
}

#[test]
fn s4_a_sequence_belongs_to_one_operation() {
    let mut world = World::new();
    let session = world.session;
    world.ok(mkdir(session, 1, 0, "/a"));
    let op = OpId { session, sequence: 1, acknowledged_below: 0 };
    let mutation = Mutation::Remove(Remove { path: "/a".into(), recursive: false, now: true });
    assert_eq!(world.refused(Kind::Client(ClientCommand { op, mutation })), ErrorCode::InvalidArgument);
}

#[test]
fn s4_results_are_bounded_by_refusing() {
    let mut world = World::new();
    let session = world.session;
    let max = SESSION_RESULTS_MAX as u64;
    for sequence in 1..=max {
        world.ok(mkdir(session, sequence, 0, &format!("/d{sequence}")));
    }
    assert_eq!(world.refused(mkdir(session, max + 1, 0, "/x")), ErrorCode::Busy);
    assert!(world.apply(mkdir(session, 1, 0, "/d1")).is_ok(), "nothing was evicted");
    world.ok(mkdir(session, max + 1, 2, "/x"));
}

#[test]
fn s4_a_nonce_opens_one_session() {
    let mut world = World::new();
    let two = world.open_session(2);
    assert_eq!(world.open_session(2), two);
    assert_ne!(two, world.session);
    assert_eq!(query::sessions(&world.tables, SessionId(0), 10).unwrap(), [world.session, two]);
    let short = Kind::OpenSession(OpenSession { nonce: vec![1; limits::NONCE_BYTES - 1] });
    assert_eq!(world.refused(short), ErrorCode::InvalidArgument);
}

#[test]
fn s4_a_lease_is_of_one_session() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    world.write(&mut put, b"abc");
    let other = world.open_session(9);
    let op = OpId { session: other, sequence: 1, acknowledged_below: 0 };
    let mutation = Mutation::Complete(crate::world::complete(&put));
    let stolen = world.apply(Kind::Client(ClientCommand { op, mutation }));
    assert_eq!(stolen.unwrap_err().code, ErrorCode::LeaseLost);
    world.complete(&put).unwrap();
}

#[test]
fn s4_nothing_is_applied_before_the_cluster_is_created_and_creation_is_once() {
    let mut world = World::empty();
    assert_eq!(world.refused(Kind::OpenSession(OpenSession { nonce: vec![0; 16] })), ErrorCode::Unavailable);
    let mine = crate::world::create_cluster();
    world.ok(Kind::CreateCluster(mine.clone()));
    world.ok(Kind::CreateCluster(mine.clone()));
    let other = CreateCluster { cluster: quarry_types::ClusterId::from_random(77), ..mine };
    assert_eq!(world.refused(Kind::CreateCluster(other)), ErrorCode::Conflict);
    let epochs: Vec<u64> = (1..=2)
        .map(|_| match world.ok(Kind::BeginEpoch(BeginEpoch { node: quarry_types::NodeId(1) })) {
            Reply::Leads(leads) => leads.leadership().epoch.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(epochs, [1, 2]);
    assert_eq!(query::leadership(&world.tables).unwrap().epoch.0, 2);
}
