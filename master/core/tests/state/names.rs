use quarry_master_core::{command::*, query, query::Fault, reply::Reply};
use quarry_types::{ChunkId, ErrorCode, limits::LIST_PAGE};

use crate::world::{World, create, put, server};

fn refusal<T: std::fmt::Debug>(result: Result<T, Fault>) -> ErrorCode {
    match result.unwrap_err() {
        Fault::Refused(refusal) => refusal.code,
        Fault::Table(error) => panic!("{error}"),
    }
}

#[test]
fn mkdir_makes_one_or_all_that_are_missing() {
    let mut world = World::new();
    let mkdir = |path: &str, parents| Mutation::Mkdir(Mkdir { path: path.into(), parents });
    assert_eq!(world.code(mkdir("/a/b/c", false)), ErrorCode::NotFound);
    world.client(mkdir("/a/b/c", true)).unwrap();
    world.client(mkdir("/a/b/c", true)).unwrap();
    world.client(mkdir("/", true)).unwrap();
    assert_eq!(world.code(mkdir("/", false)), ErrorCode::AlreadyExists);
    assert_eq!(world.code(mkdir("/a/b", false)), ErrorCode::AlreadyExists);
    world.file("/a/f", b"");
    assert_eq!(world.code(mkdir("/a/f/x", true)), ErrorCode::NotADirectory);
    assert_eq!(world.code(mkdir("/a/f", true)), ErrorCode::NotADirectory);
    assert_eq!(world.code(mkdir("/a/f/x", false)), ErrorCode::NotADirectory);
    assert_eq!(world.code(mkdir("/a/../x", true)), ErrorCode::InvalidArgument);
    assert_eq!(world.totals().directories, 3);
}

#[test]
fn a_refused_create_with_parents_makes_no_directory() {
    let mut world = World::new();
    world.mkdir("/a");
    let deep = Create { parents: true, replicas: 9, ..create("/x/y/f", CreateMode::Replace) };
    assert_eq!(world.code(Mutation::Create(deep.clone())), ErrorCode::InvalidArgument);
    let unchanged = Create { replicas: 0, mode: CreateMode::IfUnchanged, ..deep.clone() };
    assert_eq!(world.code(Mutation::Create(unchanged)), ErrorCode::Conflict);
    assert_eq!(world.names("/"), ["/a"]);
    let reply = world.client(Mutation::Create(Create { replicas: 8, ..deep })).unwrap();
    world.complete(&put(reply)).unwrap();
    assert_eq!(world.names("/x/y"), ["/x/y/f"]);
    assert_eq!(world.create("/a", CreateMode::Replace).unwrap_err().code, ErrorCode::IsADirectory);
    assert_eq!(world.create("/a/f/", CreateMode::Replace).unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(world.create("/", CreateMode::Replace).unwrap_err().code, ErrorCode::InvalidArgument);
}

#[test]
fn rename_moves_files_and_whole_directories() {
    let mut world = World::new();
    world.mkdir("/a");
    world.mkdir("/a/b");
    let file = world.file("/a/b/f", b"abc");
    let Reply::File(moved) = world.rename("/a/b", "/c", false).unwrap() else { panic!() };
    assert_eq!(moved.path, "/c");
    assert_eq!(query::stat(&world.tables, "/c/f").unwrap().inode, file.inode);
    assert!(world.names("/a").is_empty());
    world.rename("/c/f", "/c/f", true).unwrap();
    world.rename("/c", "/c", false).unwrap();
    assert_eq!(world.rename("/nothing", "/x", false).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.rename("/c", "/x/y", false).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.rename("/", "/x", false).unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(world.rename("/c/f", "/g/", false).unwrap_err().code, ErrorCode::NotADirectory);
}

#[test]
fn s4_a_directory_cannot_move_below_itself() {
    let mut world = World::new();
    world.mkdir("/a");
    world.mkdir("/a/b");
    world.mkdir("/a/b/c");
    for to in ["/a/x", "/a/b/x", "/a/b/c/x"] {
        assert_eq!(world.rename("/a", to, true).unwrap_err().code, ErrorCode::Cycle);
    }
    assert_eq!(world.rename("/a/b", "/a/b/c/x", true).unwrap_err().code, ErrorCode::Cycle);
    world.rename("/a/b", "/a/x", false).unwrap();
}

#[test]
fn rename_replaces_a_file_when_asked_and_never_a_directory() {
    let mut world = World::new();
    world.mkdir("/d");
    world.file("/f", b"abc");
    world.file("/g", b"other");
    assert_eq!(world.rename("/f", "/g", false).unwrap_err().code, ErrorCode::AlreadyExists);
    assert_eq!(world.rename("/f", "/d", true).unwrap_err().code, ErrorCode::AlreadyExists);
    assert_eq!(world.rename("/d", "/f", true).unwrap_err().code, ErrorCode::AlreadyExists);
    world.rename("/f", "/g", true).unwrap();
    assert_eq!(query::stat(&world.tables, "/g").unwrap().length, 3);
    assert_eq!(world.names("/"), ["/d", "/g"]);
}

#[test]
fn remove_refuses_what_is_not_empty_or_not_there() {
    let mut world = World::new();
    world.mkdir("/d");
    world.file("/d/f", b"abc");
    assert_eq!(world.remove("/d", false, false).unwrap_err().code, ErrorCode::NotEmpty);
    assert_eq!(world.remove("/x", true, false).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.remove("/", true, false).unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(world.remove("/d/f/", true, false).unwrap_err().code, ErrorCode::NotADirectory);
    world.remove("/d/f", false, false).unwrap();
    world.remove("/d", false, false).unwrap();
    assert!(world.names("/").is_empty());
}

#[test]
fn a_listing_goes_on_where_its_token_says() {
    let mut world = World::new();
    world.mkdir("/d");
    for i in 0..25 {
        world.mkdir(&format!("/d/{i:02}"));
    }
    world.mkdir("/e");
    let (mut token, mut names) = (Vec::new(), Vec::new());
    loop {
        let page = query::list(&world.tables, "/d", &token, 10).unwrap();
        assert!(page.entries.len() <= 10);
        names.extend(page.entries.into_iter().map(|e| e.path));
        if page.token.is_empty() {
            break;
        }
        token = page.token;
        // What goes away or comes meanwhile does not disturb the rest.
        world.remove(names.last().unwrap(), false, false).unwrap();
    }
    assert_eq!(names, (0..25).map(|i| format!("/d/{i:02}")).collect::<Vec<_>>());
    assert_eq!(refusal(query::list(&world.tables, "/e", &token, 10)), ErrorCode::Conflict);
    assert_eq!(refusal(query::list(&world.tables, "/d", b"abc", 10)), ErrorCode::InvalidArgument);
    assert_eq!(refusal(query::list(&world.tables, "/d", &[0xff; 12], 10)), ErrorCode::InvalidArgument);
    assert!(query::list(&world.tables, "/d", &[], usize::MAX).unwrap().entries.len() <= LIST_PAGE);
    world.file("/f", b"abc");
    assert_eq!(query::list(&world.tables, "/f", &[], 10).unwrap().entries[0].path, "/f");
}

#[test]
fn rows_begin_at_the_chunk_that_holds_the_offset() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    for _ in 0..5 {
        world.write(&mut put, &[7; 100]);
    }
    let offsets = |from, limit| {
        let found = query::rows(&world.tables, put.inode, from, limit).unwrap();
        (found.chunks.iter().map(|c| c.record.offset).collect::<Vec<_>>(), found.more)
    };
    assert_eq!(offsets(0, 2), (vec![0, 100], true));
    assert_eq!(offsets(99, 1), (vec![0], true));
    assert_eq!(offsets(100, 10), (vec![100, 200, 300, 400], false));
    assert_eq!(offsets(350, 2), (vec![300, 400], false));
    assert_eq!(offsets(500, 2), (vec![], false));
    assert_eq!(offsets(u64::MAX, 2), (vec![], false));
}

fn register(start_counter: u64, start_id: u64) -> Kind {
    let (address, rack, durability) = ("h:1".to_string(), "r".to_string(), Durability::Sealed);
    Kind::PutServer(PutServer { server: server(1), address, rack, start_counter, durability, start_id })
}

fn old_image(world: &mut World, kind: Kind) -> bool {
    match world.ok(kind) {
        Reply::Server(registered) => registered.old_image,
        other => panic!("{other:?}"),
    }
}

#[test]
fn s11_an_old_image_of_a_server_is_marked_until_it_is_trusted() {
    let mut world = World::new();
    assert!(!old_image(&mut world, register(5, 50)));
    assert!(!old_image(&mut world, register(5, 50)));
    assert!(old_image(&mut world, register(3, 30)));
    assert!(old_image(&mut world, register(6, 60)), "it stays marked");
    let trust = |start_counter, start_id| Kind::TrustServer(TrustServer { server: server(1), start_counter, start_id });
    assert!(old_image(&mut world, trust(3, 30)), "another start was verified");
    assert!(old_image(&mut world, trust(6, 61)), "another start of this number");
    assert!(!old_image(&mut world, trust(6, 60)));
    assert_eq!(query::servers(&world.tables, None, 10).unwrap()[0].record.start_counter, 6);
    assert!(
        old_image(&mut world, register(6, 61)),
        "a second start with this number comes from an image that was before it"
    );
    let long = PutServer {
        server: server(2),
        address: "x".repeat(256),
        rack: String::new(),
        start_counter: 0,
        durability: Durability::Buffered,
        start_id: 1,
    };
    assert_eq!(world.refused(Kind::PutServer(long)), ErrorCode::InvalidArgument);
}

#[test]
fn s11_a_start_begins_with_the_chunks_that_are_placed_after_it() {
    let mut world = World::new();
    let first_chunk = |world: &World| query::server(&world.tables, server(1)).unwrap().unwrap().first_chunk;
    let next_chunk = |world: &World| ChunkId(query::counters(&world.tables).unwrap().next_chunk);
    world.ok(register(5, 50));
    let before = first_chunk(&world);
    assert_eq!(before, next_chunk(&world));
    world.file("/f", b"abc");
    world.ok(register(5, 50));
    assert_eq!(first_chunk(&world), before, "the same start registers again");
    assert!(before < next_chunk(&world));
    world.ok(register(6, 60));
    assert_eq!(first_chunk(&world), next_chunk(&world));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let mut world = World::new();
    let bad = Settings { min_replicas: 0, ..Settings::default() };
    assert_eq!(world.refused(Kind::PutSettings(PutSettings { settings: bad })), ErrorCode::InvalidArgument);
    let one = Settings { default_replicas: 1, ..Settings::default() };
    world.ok(Kind::PutSettings(PutSettings { settings: one }));
    world.file("/f", b"abc");
    assert_eq!(query::stat(&world.tables, "/f").unwrap().replicas, 1);
}
