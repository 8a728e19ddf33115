use quarry_master_core::{command::*, limits::MASTERS_MAX, query, reply::Reply};
use quarry_types::{ErrorCode, NodeId};

use crate::world::World;

#[test]
fn s11_masters_get_numbers_that_no_other_ever_had() {
    let mut world = World::new();
    let mut number = || match world.ok(Kind::NumberMaster(NumberMaster {})) {
        Reply::Master(numbered) => numbered.node,
        other => panic!("{other:?}"),
    };
    assert_eq!([number(), number(), number()], [NodeId(2), NodeId(3), NodeId(4)], "1 is the first master's");
}

#[test]
fn s11_what_a_master_has_acknowledged_never_becomes_less_while_it_is_a_member() {
    let mut world = World::new();
    let marks = |logs: &[(u64, u64)]| {
        let logs = logs.iter().map(|(node, index)| LogMark { node: NodeId(*node), index: *index }).collect();
        Kind::MarkLogs(MarkLogs { logs })
    };
    let known = |world: &World| {
        let all = query::log_marks(&world.tables).unwrap();
        all.iter().map(|mark| (mark.node.0, mark.index)).collect::<Vec<_>>()
    };
    assert_eq!(known(&world), []);
    world.ok(marks(&[(2, 7), (1, 9)]));
    assert_eq!(known(&world), [(1, 9), (2, 7)]);
    // A leader that has not heard of the second yet knows less of it.
    world.ok(marks(&[(1, 12), (2, 0), (3, 1)]));
    assert_eq!(known(&world), [(1, 12), (2, 7), (3, 1)]);
    world.ok(marks(&[(1, 12), (3, 1)]));
    assert_eq!(known(&world), [(1, 12), (2, 7), (3, 1)], "the second has left, and its number is not free again");
    let many: Vec<(u64, u64)> = (0..=MASTERS_MAX as u64).map(|node| (node, 1)).collect();
    assert_eq!(world.refused(marks(&many)), ErrorCode::InvalidArgument);
}
