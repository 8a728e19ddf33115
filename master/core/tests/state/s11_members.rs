use quarry_master_core::{command::*, reply::Reply};
use quarry_types::NodeId;

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
