use quarry_master_core::{command::*, keys, query, reply::*, rows::ChunkState, tables::Table};
use quarry_types::ErrorCode;

use crate::world::World;

fn message(outcome: Outcome) -> String {
    outcome.unwrap_err().message
}

fn listed(world: &World, path: &str) -> Vec<String> {
    query::trash(&world.tables, path, &[], 1000).unwrap().entries.into_iter().map(|e| e.file.path).collect()
}

#[test]
fn s6_a_removed_file_can_be_taken_back_until_its_time_is_over() {
    let mut world = World::new();
    let file = world.file("/f", b"abc");
    world.remove("/f", false, false).unwrap();
    world.pass(24 * 3_600_000 - 60_000);
    world.collect(100);
    let page = query::trash(&world.tables, "/", &[], 10).unwrap();
    assert_eq!((page.entries[0].left_ms, page.entries[0].file.length), (60_000, 3));
    let Reply::File(back) = world.undelete("/f", 0, "").unwrap() else { panic!() };
    assert_eq!((back.path.as_str(), back.inode, back.version), ("/f", file.inode, file.version));
    assert_eq!((world.totals().removed, world.totals().trashed, world.totals().files), (0, 0, 1));
    world.remove("/f", false, false).unwrap();
    world.pass(24 * 3_600_000);
    assert!(message(world.undelete("/f", 0, "")).contains("is over"));
    assert!(listed(&world, "/").is_empty());
    world.collect(100);
    assert_eq!(world.totals().doomed, 0, "readers have their grace after it");
    world.pass_grace();
    world.collect(100);
    assert_eq!((world.totals().doomed, world.totals().trashed), (1, 0));
    assert_eq!(world.undelete("/f", file.inode.0, "").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_directory_comes_back_with_everything_below_it() {
    let mut world = World::new();
    world.mkdir("/d");
    world.mkdir("/d/e");
    world.file("/d/e/f", b"abc");
    world.remove("/d", true, false).unwrap();
    assert!(query::stat(&world.tables, "/d/e/f").is_err());
    world.pass(3_600_000);
    world.collect(100);
    world.undelete("/d", 0, "").unwrap();
    assert_eq!(query::stat(&world.tables, "/d/e/f").unwrap().length, 3);
    world.remove("/d/e", true, false).unwrap();
    world.undelete("/d/e", 0, "/moved").unwrap();
    assert_eq!(
        (world.names("/"), world.names("/moved")),
        (vec!["/d".into(), "/moved".into()], vec!["/moved/f".into()])
    );
}

#[test]
fn replaced_files_and_those_removed_now_cannot_be_taken_back() {
    let mut world = World::new();
    world.file("/f", b"old");
    world.file("/f", b"new");
    world.file("/g", b"abc");
    world.rename("/g", "/f", true).unwrap();
    world.remove("/f", false, true).unwrap();
    assert_eq!((world.totals().trashed, world.totals().removed), (0, 3));
    assert_eq!(world.undelete("/f", 0, "").unwrap_err().code, ErrorCode::NotFound);
    world.set("trash", "0");
    world.file("/f", b"abc");
    world.remove("/f", false, false).unwrap();
    assert_eq!(world.totals().trashed, 0);
}

#[test]
fn of_several_removed_under_one_name_the_last_comes_back_or_the_one_named() {
    let mut world = World::new();
    let inodes: Vec<u64> = [b"1".as_slice(), b"22", b"333"]
        .into_iter()
        .map(|bytes| {
            let file = world.file("/f", bytes);
            world.remove("/f", false, false).unwrap();
            file.inode.0
        })
        .collect();
    // Names that begin alike lie side by side in the table.
    world.file("/f2", b"other");
    world.remove("/f2", false, false).unwrap();
    assert_eq!(listed(&world, "/"), ["/f", "/f", "/f", "/f2"]);
    world.undelete("/f", 0, "").unwrap();
    assert_eq!(query::stat(&world.tables, "/f").unwrap().length, 3);
    let taken = world.undelete("/f", 0, "").unwrap_err();
    assert_eq!(taken.code, ErrorCode::AlreadyExists);
    assert!(taken.message.contains("--to"), "{}", taken.message);
    world.undelete("/f", inodes[0], "/first").unwrap();
    assert_eq!(query::stat(&world.tables, "/first").unwrap().length, 1);
    assert_eq!(world.undelete("/f", inodes[0], "/x").unwrap_err().code, ErrorCode::NotFound, "it is back already");
    assert_eq!(world.undelete("/g", inodes[1], "/x").unwrap_err().code, ErrorCode::NotFound, "another name");
    world.undelete("/f", 0, "/second").unwrap();
    assert_eq!(query::stat(&world.tables, "/second").unwrap().length, 2);
}

#[test]
fn what_was_removed_moves_with_its_directory_and_waits_for_it() {
    let mut world = World::new();
    world.mkdir("/a");
    world.mkdir("/a/b");
    world.file("/a/b/f", b"abc");
    world.remove("/a/b/f", false, false).unwrap();
    world.rename("/a", "/moved", false).unwrap();
    assert_eq!(listed(&world, "/moved"), ["/moved/b/f"]);
    assert_eq!(listed(&world, "/moved/b"), ["/moved/b/f"]);
    world.remove("/moved/b", true, false).unwrap();
    // Its directory lies in the trash itself.
    let why = message(world.undelete("/moved/b/f", 0, ""));
    assert!(why.contains("/moved/b does not exist") && why.contains("take that directory back first"), "{why}");
    let page = query::trash(&world.tables, "/", &[], 10).unwrap();
    assert_eq!((page.entries.len(), page.hidden.len()), (1, 1));
    // Another directory of that name is another one.
    world.mkdir("/moved/b");
    assert_eq!(world.undelete("/moved/b/f", 0, "").unwrap_err().code, ErrorCode::NotFound);
    world.undelete("/moved/b", 0, "/b").unwrap();
    world.undelete("/b/f", 0, "").unwrap();
    assert_eq!(world.names("/b"), ["/b/f"]);
}

#[test]
fn s6_a_trashed_file_outlives_its_directory_and_goes_at_its_own_time() {
    let mut world = World::new();
    world.mkdir("/d");
    let file = world.file("/d/f", b"abc");
    world.remove("/d/f", false, false).unwrap();
    world.remove("/d", true, true).unwrap();
    world.collect(100);
    assert_eq!((world.totals().directories, world.totals().removed, world.totals().trashed), (0, 1, 1));
    world.pass(25 * 3_600_000);
    world.collect(100);
    assert_eq!((world.totals().removed, world.totals().trashed, world.totals().doomed), (0, 0, 1));
    assert_eq!(query::inode(&world.tables, file.inode).unwrap(), None);
}

#[test]
fn s6_a_directory_that_is_being_taken_apart_does_not_come_back() {
    let mut world = World::new();
    world.mkdir("/d");
    for i in 0..10 {
        world.file(&format!("/d/{i}"), b"abc");
    }
    world.set("trash", "2m");
    world.remove("/d", true, false).unwrap();
    world.pass(120_000);
    world.pass_grace();
    assert!(world.collect(3).more);
    // Neither by the time that is over, nor by a longer one set now.
    world.set("trash", "30d");
    assert_eq!(world.undelete("/d", 0, "").unwrap_err().code, ErrorCode::NotFound);
    while world.collect(3).more {}
    assert_eq!((world.totals().removed, world.totals().doomed), (0, 10));
}

#[test]
fn emptying_gives_room_back_at_once_and_spares_what_came_back() {
    let mut world = World::new();
    let (kept, gone) = (world.file("/kept", b"abc"), world.file("/gone", b"abc"));
    world.remove("/kept", false, false).unwrap();
    world.remove("/gone", false, false).unwrap();
    let page = query::trash(&world.tables, "/", &[], 10).unwrap();
    let removals: Vec<_> = page.entries.iter().map(|e| Removal { inode: e.file.inode, removal: e.removal }).collect();
    world.undelete("/kept", 0, "").unwrap();
    world.remove("/kept", false, false).unwrap();
    let empty = Kind::EmptyTrash(EmptyTrash { removals: removals.clone() });
    assert_eq!(world.ok(empty.clone()), Reply::Emptied(Emptied { emptied: 1 }), "a later removal is another one");
    assert_eq!(world.ok(empty), Reply::Emptied(Emptied { emptied: 0 }));
    assert_eq!(world.undelete("/gone", 0, "").unwrap_err().code, ErrorCode::NotFound);
    world.collect(100);
    assert_eq!(query::inode(&world.tables, gone.inode).unwrap(), None);
    assert_eq!(world.totals().doomed, 1);
    world.undelete("/kept", kept.inode.0, "").unwrap();
    let many = Kind::EmptyTrash(EmptyTrash { removals: vec![removals[0].clone(); 1001] });
    assert_eq!(world.refused(many), ErrorCode::InvalidArgument);
}

#[test]
fn s2_a_file_removed_while_it_was_written_comes_back_with_its_last_chunk_or_not_yet() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Visible).unwrap();
    world.write(&mut put, b"abc");
    let open = world.add(&put, 100).unwrap();
    world.remove("/f", false, false).unwrap();
    assert_eq!(world.undelete("/f", 0, "").unwrap_err().code, ErrorCode::Busy);
    world.seal(open, b"def", &[]).unwrap();
    let Reply::File(back) = world.undelete("/f", 0, "").unwrap() else { panic!() };
    assert_eq!((back.length, back.open, back.chunks), (6, false, 2));
    let Reply::Writer(writer) = world.client(Mutation::OpenAppend(OpenAppend { path: "/f".into() })).unwrap() else {
        panic!()
    };
    assert_eq!(writer.length, 6);
    assert_eq!(world.chunk(open).unwrap().state, ChunkState::Sealed);
}

#[test]
fn s4_an_undelete_that_is_repeated_takes_effect_once() {
    let mut world = World::new();
    world.file("/f", b"abc");
    world.remove("/f", false, false).unwrap();
    let op = world.op();
    let undelete = Undelete { path: "/f".into(), inode: quarry_types::InodeId(0), to: String::new() };
    let kind = Kind::Client(ClientCommand { op, mutation: Mutation::Undelete(undelete) });
    let first = world.apply(kind.clone());
    world.remove("/f", false, false).unwrap();
    assert_eq!(world.apply(kind), first);
    assert!(world.names("/").is_empty(), "a late copy does not take it back again");
}

#[test]
fn s9_a_listing_of_the_trash_comes_in_pages() {
    let mut world = World::new();
    world.mkdir("/d");
    world.mkdir("/e");
    for i in 0..25 {
        let directory = if i % 2 == 0 { "/d" } else { "/e" };
        world.file(&format!("{directory}/{i:02}"), b"");
        world.remove(&format!("{directory}/{i:02}"), false, false).unwrap();
    }
    let (mut token, mut found) = (Vec::new(), 0);
    loop {
        let page = query::trash(&world.tables, "/d", &token, 10).unwrap();
        assert!(page.entries.len() <= 10);
        found += page.entries.len();
        if page.token.is_empty() {
            break;
        }
        token = page.token;
    }
    assert_eq!(found, 13);
    assert!(query::trash(&world.tables, "/d/00", &[], 10).is_err());
    assert!(query::trash(&world.tables, "/", b"x", 10).is_err());
}

#[test]
fn a_large_tree_goes_and_comes_back_in_one_small_step() {
    let mut world = World::new();
    world.mkdir("/d");
    for i in 0..200 {
        world.file(&format!("/d/{i}"), b"");
    }
    let changes = |world: &World, mutation| {
        let op = OpId { session: world.session, sequence: world.sequence + 1, acknowledged_below: world.sequence };
        let command = Command { wall_ms: 1, kind: Kind::Client(ClientCommand { op, mutation }) };
        let mut overlay = quarry_master_core::tables::Overlay::new(&world.tables);
        quarry_master_core::apply::apply(&mut overlay, 1, &command).unwrap().unwrap();
        // What those who watch are told is one event and the count of all, however large the tree is.
        let told = |table, key: &[u8]| table == Table::Event || key == keys::EVENTS;
        let (told, done): (Vec<_>, Vec<_>) = overlay.into_changes().into_iter().partition(|(t, key, _)| told(*t, key));
        assert_eq!(told.len(), 2);
        done.len()
    };
    let remove = Mutation::Remove(Remove { path: "/d".into(), recursive: true, now: false });
    assert!(changes(&world, remove) < 12);
    world.remove("/d", true, false).unwrap();
    let undelete =
        Mutation::Undelete(Undelete { path: "/d".into(), inode: quarry_types::InodeId(0), to: String::new() });
    assert!(changes(&world, undelete) < 12);
    world.undelete("/d", 0, "").unwrap();
    assert_eq!(world.names("/d").len(), 100);
}
