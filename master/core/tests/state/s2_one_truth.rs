use quarry_master_core::{command::*, query, reply::Reply, rows::ChunkState};
use quarry_types::{Crc32, ErrorCode};

use crate::world::{World, sealed, server};

#[test]
fn s2_a_seal_is_a_compare_and_set_on_an_open_chunk() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Visible).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    world.seal(chunk, b"abc", &[server(1)]).unwrap();
    // The same again is fine and may add a holder.
    match world.seal(chunk, b"abc", &[server(1), server(2)]).unwrap() {
        Reply::Sealed(at) => assert_eq!((at.length, at.crc, at.replicas), (3, Crc32::of(b"abc"), 2)),
        other => panic!("{other:?}"),
    }
    for other in [&b"abd"[..], b"ab", b""] {
        assert_eq!(world.refused(Kind::Seal(sealed(chunk, other, &[]))), ErrorCode::Conflict);
    }
    let file = query::stat(&world.tables, "/f").unwrap();
    assert_eq!((file.length, file.crc, file.open), (3, Crc32::of(b"abc"), true));
}

#[test]
fn s2_a_seal_beyond_the_limit_or_of_no_chunk_is_refused() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Visible).unwrap();
    let chunk = world.add(&put, 2).unwrap();
    assert_eq!(world.refused(Kind::Seal(sealed(chunk, b"abc", &[]))), ErrorCode::InvalidArgument);
    let odd = SealedChunk { chunk, length: 0, crc: Crc32(1), holders: vec![] };
    assert_eq!(world.refused(Kind::Seal(odd)), ErrorCode::InvalidArgument);
    let none = sealed(quarry_types::ChunkId(99), b"a", &[]);
    assert_eq!(world.refused(Kind::Seal(none)), ErrorCode::NotFound);
}

#[test]
fn s2_a_chunk_sealed_empty_is_doomed_and_its_offset_is_free_again() {
    let mut world = World::new();
    let mut put = world.create("/f", CreateMode::Visible).unwrap();
    let first = world.add(&put, 100).unwrap();
    world.seal(first, b"", &[]).unwrap();
    assert_eq!(world.chunk(first).unwrap().state, ChunkState::Doomed);
    world.seal(first, b"", &[]).unwrap();
    let second = world.write(&mut put, b"abc");
    assert!(second > first);
    world.complete(&put).unwrap();
    assert_eq!(query::rows(&world.tables, put.inode, 0, 10).unwrap().chunks.len(), 1);
}

#[test]
fn s2_replicas_are_confirmed_of_sealed_chunks_only() {
    let mut world = World::new();
    let put = world.create("/f", CreateMode::Visible).unwrap();
    let chunk = world.add(&put, 100).unwrap();
    let confirm = Kind::ConfirmReplicas(ConfirmReplicas { chunk, servers: vec![server(1)], gone: vec![] });
    assert_eq!(world.refused(confirm.clone()), ErrorCode::Conflict);
    world.seal(chunk, b"", &[]).unwrap();
    assert_eq!(world.refused(confirm), ErrorCode::NotFound);
}
