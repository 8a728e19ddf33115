use quarry_master_core::{command::*, query, reply::Reply};
use quarry_types::{Crc32, ErrorCode, InodeId, limits::CHUNK_BYTES};

use crate::world::{World, add_chunk, complete, create, put, sealed, server};

#[test]
fn s4_an_atomic_file_is_visible_on_completion_only() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    world.write(&mut put, b"hello ");
    world.write(&mut put, b"world");
    assert!(world.names("/").is_empty());
    let Reply::Completed(done) = world.complete(&put).unwrap() else { panic!() };
    assert_eq!((done.file.path.as_str(), done.file.length), ("/f", 11));
    assert_eq!(done.file.crc, Crc32::of(b"hello world"));
    assert_eq!(query::stat(&world.tables, "/f").unwrap(), done.file);
    assert!(!done.file.open);
}

#[test]
fn s4_a_completion_must_match_the_rows_exactly() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    world.write(&mut put, b"one");
    world.write(&mut put, b"two");
    let good = complete(&put);
    let mut bad: Vec<Complete> = vec![
        Complete { length: 7, ..good.clone() },
        Complete { crc: Crc32(1), ..good.clone() },
        Complete { chunks: vec![], length: 0, crc: Crc32::EMPTY, ..good.clone() },
        Complete { chunks: good.chunks[..1].to_vec(), length: 3, crc: Crc32::of(b"one"), ..good.clone() },
        Complete { chunks: vec![good.chunks[1].clone(), good.chunks[0].clone()], ..good.clone() },
        Complete { chunks: [good.chunks.clone(), good.chunks.clone()].concat(), ..good.clone() },
    ];
    for (field, at) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        let mut one = good.clone();
        let chunk = &mut one.chunks[at];
        match field {
            0 => chunk.chunk.0 += 10,
            1 => chunk.offset += 1,
            2 => chunk.length -= 1,
            _ => chunk.crc.0 ^= 1,
        }
        bad.push(one);
    }
    for one in bad {
        assert_eq!(world.code(Mutation::Complete(one)), ErrorCode::Mismatch);
        assert!(world.names("/").is_empty());
    }
    world.client(Mutation::Complete(good)).unwrap();
}

#[test]
fn s4_a_gap_between_chunks_or_an_open_one_refuses_the_completion() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    put.wrote(chunk, b"abc");
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::Conflict);
    world.seal(chunk, b"abc", &[server(1), server(2)]).unwrap();
    put.length = 10;
    world.write(&mut put, b"behind the gap");
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::Mismatch);
}

#[test]
fn s4_a_completion_below_a_removed_directory_is_refused() {
    let mut world = World::new();
    world.mkdir("/d");
    world.mkdir("/d/e");
    let mut put = world.create("/d/e/f", CreateMode::Replace).unwrap();
    world.write(&mut put, b"abc");
    world.remove("/d", true, true).unwrap();
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.add(&put, 10).unwrap_err().code, ErrorCode::NotFound);
    while world.collect(1).more {}
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::NotFound);
    world.client(Mutation::Abort(Abort { inode: put.inode, lease: put.lease })).unwrap();
    assert!(!world.collect(100).more);
    assert_eq!((world.totals().doomed, world.totals().chunks, world.totals().removed), (1, 0, 0));
}

#[test]
fn s4_a_completion_follows_its_directory_when_that_is_renamed() {
    let mut world = World::new();
    world.mkdir("/d");
    let mut put = world.create("/d/f", CreateMode::FailIfPresent).unwrap();
    world.write(&mut put, b"abc");
    world.rename("/d", "/e", false).unwrap();
    let Reply::Completed(done) = world.complete(&put).unwrap() else { panic!() };
    assert_eq!(done.file.path, "/e/f");
}

#[test]
fn s4_of_two_writers_of_one_name_each_mode_gets_what_it_asked_for() {
    let mut world = World::new();
    let only = world.create("/f", CreateMode::FailIfPresent).unwrap();
    let first = world.file("/f", b"first");
    assert_eq!(world.complete(&only).unwrap_err().code, ErrorCode::AlreadyExists);
    for mode in [CreateMode::FailIfPresent, CreateMode::Visible] {
        assert_eq!(world.create("/f", mode).unwrap_err().code, ErrorCode::AlreadyExists);
    }
    let unchanged = |inode, version| {
        let expected =
            Create { expected_inode: inode, expected_version: version, ..create("/f", CreateMode::IfUnchanged) };
        Mutation::Create(expected)
    };
    assert_eq!(world.code(unchanged(first.inode, first.version + 1)), ErrorCode::Conflict);
    assert_eq!(world.code(unchanged(InodeId(99), first.version)), ErrorCode::Conflict);
    let swap = put(world.client(unchanged(first.inode, first.version)).unwrap());
    let late = put(world.client(unchanged(first.inode, first.version)).unwrap());
    world.complete(&swap).unwrap();
    assert_eq!(world.complete(&late).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(query::stat(&world.tables, "/f").unwrap().inode, swap.inode);
    assert_eq!(world.totals().files, 1);
}

#[test]
fn s4_an_append_changes_the_version_and_goes_on_in_a_new_chunk() {
    let mut world = World::new();
    let file = world.file("/f", b"start ");
    let open = Mutation::OpenAppend(OpenAppend { path: "/f".into() });
    let mut append = put(world.client(open.clone()).unwrap());
    assert_eq!((append.length, append.crc, append.inode), (6, file.crc, file.inode));
    assert_eq!(world.code(open), ErrorCode::LeaseHeld);
    world.write(&mut append, b"middle ");
    world.write(&mut append, b"end");
    let Reply::Completed(done) = world.complete(&append).unwrap() else { panic!() };
    assert_eq!((done.file.length, done.file.crc), (16, Crc32::of(b"start middle end")));
    assert!(done.file.version > file.version);
    let rows = query::rows(&world.tables, file.inode, 6, 10).unwrap();
    assert_eq!(rows.chunks.iter().map(|c| c.record.offset).collect::<Vec<_>>(), [6, 13]);
}

#[test]
fn s4_a_visible_file_has_one_open_chunk_at_its_end() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Visible).unwrap();
    assert_eq!(world.names("/"), ["/f"]);
    let chunk = world.add(&put, 100).unwrap();
    assert_eq!(world.add(&put, 100).unwrap_err().code, ErrorCode::Conflict);
    put.length = 100;
    assert_eq!(world.add(&put, 100).unwrap_err().code, ErrorCode::Conflict);
    // The seal may come with the next chunk, which then begins where the sealed one ended.
    let mut next = add_chunk(&put, 100);
    next.offset = 3;
    next.seals = vec![sealed(chunk, b"abc", &[server(1), server(2)])];
    world.client(Mutation::AddChunk(next)).unwrap();
    assert_eq!(query::stat(&world.tables, "/f").unwrap().length, 3);
}

#[test]
fn s4_chunks_of_an_atomic_file_do_not_overlap_and_a_short_one_is_continued() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Replace).unwrap();
    let first = world.add(&put, 100).unwrap();
    put.length = 100;
    let second = world.add(&put, 100).unwrap();
    for offset in [0, 50, 99, 150, 199] {
        put.length = offset;
        assert_eq!(world.add(&put, 10).unwrap_err().code, ErrorCode::Conflict, "at {offset}");
    }
    world.seal(first, &[1; 40], &[server(1), server(2)]).unwrap();
    world.seal(second, &[2; 100], &[server(1), server(2)]).unwrap();
    put.length = 40;
    assert_eq!(world.add(&put, 61).unwrap_err().code, ErrorCode::Conflict);
    let rest = world.add(&put, 60).unwrap();
    world.seal(rest, &[3; 60], &[server(1), server(3)]).unwrap();
    put.length = 0;
    put.wrote(first, &[1; 40]);
    put.wrote(rest, &[3; 60]);
    put.wrote(second, &[2; 100]);
    let Reply::Completed(done) = world.complete(&put).unwrap() else { panic!() };
    assert_eq!(done.file.crc, Crc32::of(&[vec![1; 40], vec![3; 60], vec![2; 100]].concat()));
}

#[test]
fn s4_sizes_and_members_of_a_chunk_are_bounded() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Replace).unwrap();
    let good = add_chunk(&put, 100);
    for bad in [
        AddChunk { limit: 0, ..good.clone() },
        AddChunk { limit: CHUNK_BYTES + 1, ..good.clone() },
        AddChunk { offset: u64::MAX, ..good.clone() },
        AddChunk { offset: quarry_types::limits::FILE_BYTES, ..good.clone() },
        AddChunk { members: vec![], ..good.clone() },
        AddChunk { members: vec![server(1), server(1)], ..good.clone() },
        AddChunk { members: (0..9).map(server).collect(), ..good.clone() },
    ] {
        assert_eq!(world.code(Mutation::AddChunk(bad)), ErrorCode::InvalidArgument);
    }
    let foreign = world.create("/g", CreateMode::Replace).unwrap();
    let chunk = world.add(&foreign, 10).unwrap();
    let seals = vec![sealed(chunk, b"abc", &[])];
    assert_eq!(world.code(Mutation::AddChunk(AddChunk { seals, ..good })), ErrorCode::InvalidArgument);
}

#[test]
fn s4_a_refused_add_chunk_uses_up_no_id() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Visible).unwrap();
    let first = world.add(&put, 10).unwrap();
    world.add(&put, 10).unwrap_err();
    world.seal(first, b"", &[]).unwrap();
    assert_eq!(world.add(&put, 10).unwrap().0, first.0 + 1);
}

#[test]
fn s4_a_removed_or_replaced_file_ends_its_writer() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Visible).unwrap();
    world.add(&put, 10).unwrap();
    world.remove("/f", false, false).unwrap();
    assert_eq!(world.add(&put, 10).unwrap_err().code, ErrorCode::LeaseLost);
    assert_eq!(world.complete(&put).unwrap_err().code, ErrorCode::LeaseLost);
    let put = world.create("/f", CreateMode::Visible).unwrap();
    world.file("/f", b"new");
    let abort = Mutation::Abort(Abort { inode: put.inode, lease: put.lease });
    assert_eq!(world.code(abort), ErrorCode::LeaseLost);
    // The first file's chunk is still open, and the leader can seal it.
    let open = query::open_chunks(&world.tables, None, 10).unwrap();
    assert_eq!(open.len(), 1);
    world.seal(open[0].id, b"abc", &[]).unwrap();
}
