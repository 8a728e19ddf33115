use quarry_master_core::query::{Usage, UsageWalk};

use crate::world::World;

#[test]
fn usage_sums_a_tree_in_steps_of_any_size() {
    let mut world = World::new();
    for directory in ["/a", "/a/b", "/a/b/c", "/z"] {
        world.mkdir(directory);
    }
    for (path, bytes) in [("/a/1", 10), ("/a/b/2", 20), ("/a/b/c/3", 30), ("/a/z", 40), ("/other", 50)] {
        world.file(path, &vec![1; bytes]);
    }
    for budget in [1, 2, 3, 100] {
        let mut walk = UsageWalk::begin(&world.tables, "/a").unwrap();
        while !walk.step(&world.tables, budget).unwrap() {}
        assert_eq!(walk.sum(), Usage { files: 4, directories: 3, bytes: 100, replica_bytes: 300 });
    }
    let mut one = UsageWalk::begin(&world.tables, "/other").unwrap();
    assert!(one.step(&world.tables, 1).unwrap());
    assert_eq!(one.sum(), Usage { files: 1, directories: 0, bytes: 50, replica_bytes: 150 });
    assert!(UsageWalk::begin(&world.tables, "/nothing").is_err());
}

#[test]
fn usage_goes_on_when_its_tree_is_removed_meanwhile() {
    let mut world = World::new();
    world.mkdir("/a");
    world.mkdir("/a/b");
    world.file("/a/b/f", b"abc");
    let mut walk = UsageWalk::begin(&world.tables, "/").unwrap();
    assert!(!walk.step(&world.tables, 1).unwrap());
    world.remove("/a", true, true).unwrap();
    world.collect(100);
    assert!(walk.step(&world.tables, 100).unwrap());
}
