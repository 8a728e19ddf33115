//! The local socket: to whom, and of what, a file is given out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;

use bytes::BytesMut;
use common::{Cluster, bytes, cluster, epoch, soon, writer};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use quarry_chunkserver::store::ReplicaItem;
use quarry_chunkserver_core::layout::DATA_OFFSET;
use quarry_env::{
    OpenMode,
    local::{BoxLocalStream, LocalMessage},
};
use quarry_proto::{
    PROTOCOL_VERSION, WireError,
    frame::{self, Frame, MESSAGE_BYTES_MAX},
    v1,
};
use quarry_types::{ChunkId, Crc32, ErrorCode, ReplicaState, limits::BLOCK_BYTES};

const CHUNK: u64 = 7;
const LENGTH: usize = 3 * BLOCK_BYTES as usize + 77;
/// Connections that the server takes at once.
const CONNECTIONS: usize = 64;

/// A server with a sealed chunk.
struct Given {
    all: Cluster,
    data: Vec<u8>,
}

impl Given {
    async fn start() -> Given {
        let given = Given { all: Cluster::start(1).await, data: bytes(LENGTH) };
        given.seal(CHUNK).await;
        given.commit(CHUNK).await;
        given
    }

    /// Writes a chunk and seals it, which its server does not know to be committed.
    async fn seal(&self, chunk: u64) {
        let mut writer = self.all.write(chunk).await;
        writer.send(&self.data).await.unwrap();
        writer.seal().await.unwrap();
    }

    async fn commit(&self, chunk: u64) {
        let (length, crc) = (LENGTH as u64, Crc32::of(&self.data));
        self.all.running(0).store().commit_seal(epoch(5), ChunkId(chunk), length, crc).await.unwrap();
    }

    fn path(&self) -> PathBuf {
        self.all.dirs[0].path().join("data/local.sock")
    }

    fn connect(&self) -> BoxLocalStream {
        self.all.world.net.connect_local(&self.path()).unwrap()
    }

    fn right(&self) -> v1::OpenLocal {
        v1::OpenLocal {
            protocol_version: PROTOCOL_VERSION,
            cluster: cluster().to_bytes().into(),
            server: self.all.server(0).to_bytes().into(),
            chunk: CHUNK,
            length: LENGTH as u64,
            crc: Crc32::of(&self.data).0,
            request_id: "r".into(),
        }
    }

    fn chunk_file(&self) -> PathBuf {
        self.all.dirs[0].path().join(format!("data/chunks/{CHUNK:02x}/{CHUNK:016x}.chunk"))
    }

    /// What comes with the file, if it is given out, is what was written.
    async fn check(&self, answer: LocalMessage) {
        let Frame::LocalFile(about) = frame::decode_message(&answer.bytes).unwrap() else { panic!("{answer:?}") };
        let file = answer.file.unwrap();
        let mut read = vec![0; LENGTH];
        file.read_exact_at(&mut read, about.data_offset).unwrap();
        assert!(read == self.data && about.data_offset == DATA_OFFSET);
        let crcs: Vec<u32> = self.data.chunks(BLOCK_BYTES as usize).map(|block| Crc32::of(block).0).collect();
        assert_eq!(about.block_crcs, crcs);
        assert!(file.write_all_at(b"x", 0).is_err(), "it can only be read");
    }
}

fn message(frame: impl Into<Frame>) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::encode(&frame.into(), 0, &mut bytes).unwrap();
    bytes
}

/// The answer, or `None` when the server closes the connection.
async fn ask(stream: &BoxLocalStream, open: v1::OpenLocal) -> Option<LocalMessage> {
    soon(stream.send(&message(open), None)).await.ok()?;
    soon(stream.receive(MESSAGE_BYTES_MAX)).await.ok().flatten()
}

/// The refusal, with which no file comes.
async fn refusal(stream: &BoxLocalStream, open: v1::OpenLocal) -> WireError {
    let answer = ask(stream, open).await.unwrap();
    assert!(answer.file.is_none());
    match frame::decode_message(&answer.bytes).unwrap() {
        Frame::Failure(detail) => detail.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_file_is_given_out_under_its_exact_names_and_no_others() {
    let given = Given::start().await;
    let stream = given.connect();
    let right = given.right();
    given.check(ask(&stream, right.clone()).await.unwrap()).await;
    let foreign = vec![9; 16];
    for (wrong, code) in [
        (v1::OpenLocal { cluster: foreign.clone().into(), ..right.clone() }, ErrorCode::Mismatch),
        (v1::OpenLocal { server: foreign.into(), ..right.clone() }, ErrorCode::Mismatch),
        (v1::OpenLocal { length: right.length - 1, ..right.clone() }, ErrorCode::Mismatch),
        (v1::OpenLocal { length: 0, crc: 0, ..right.clone() }, ErrorCode::Mismatch),
        (v1::OpenLocal { crc: right.crc ^ 1, ..right.clone() }, ErrorCode::Mismatch),
        (v1::OpenLocal { chunk: CHUNK + 1, ..right.clone() }, ErrorCode::NoReplica),
        (v1::OpenLocal { cluster: vec![1, 2].into(), ..right.clone() }, ErrorCode::InvalidArgument),
        (v1::OpenLocal { protocol_version: 0, ..right.clone() }, ErrorCode::VersionMismatch),
    ] {
        let refused = refusal(&stream, wrong.clone()).await;
        assert_eq!(refused.code, code, "{wrong:?}: {refused}");
    }
    given.check(ask(&stream, right).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_sealed_replicas_are_given_out() {
    let given = Given::start().await;
    let stream = given.connect();
    let mut open = given.all.write(8).await;
    open.send(&given.data).await.unwrap();
    open.all_acked().await.unwrap();
    assert_eq!(refusal(&stream, v1::OpenLocal { chunk: 8, ..given.right() }).await.code, ErrorCode::Mismatch);
    // Its writer has ended it, and no master has committed that yet.
    given.seal(9).await;
    assert_eq!(refusal(&stream, v1::OpenLocal { chunk: 9, ..given.right() }).await.code, ErrorCode::Mismatch);
    given.commit(9).await;
    given.check(ask(&stream, v1::OpenLocal { chunk: 9, ..given.right() }).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_after_a_deletion_no_file_is_given_out() {
    let given = Given::start().await;
    let stream = given.connect();
    let before = ask(&stream, given.right()).await.unwrap();
    given.all.running(0).store().delete(epoch(5), ChunkId(CHUNK)).await.unwrap();
    assert_eq!(refusal(&stream, given.right()).await.code, ErrorCode::NoReplica);
    assert!(!given.chunk_file().exists());
    // Who reads it goes on reading.
    given.check(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_a_replica_in_quarantine_is_not_given_out() {
    let given = Given::start().await;
    let stream = given.connect();
    given.check(ask(&stream, given.right()).await.unwrap()).await;
    let file = given.all.world.disk.open(&given.chunk_file(), OpenMode::Write).unwrap();
    file.write_all_at(&[given.data[5] ^ 1], DATA_OFFSET + 5).unwrap();
    let store = given.all.running(0).store();
    let verified = store.verify(ChunkId(CHUNK), LENGTH as u64, Crc32::of(&given.data)).await;
    assert_eq!(verified.unwrap_err().code(), ErrorCode::Corrupt);
    assert_eq!(refusal(&stream, given.right()).await.code, ErrorCode::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_file_whose_checksums_are_not_those_of_the_chunk_is_not_given_out() {
    let given = Given::start().await;
    let file = given.all.world.disk.open(&given.chunk_file(), OpenMode::Write).unwrap();
    file.write_all_at(&[1, 2, 3, 4], 4096).unwrap();
    let stream = given.connect();
    assert_eq!(refusal(&stream, given.right()).await.code, ErrorCode::Corrupt);
    let item = ReplicaItem {
        chunk: ChunkId(CHUNK),
        state: ReplicaState::Quarantined,
        length: LENGTH as u64,
        crc: Crc32::of(&given.data),
    };
    assert_eq!(given.all.running(0).store().inventory().1, [item]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_does_to_its_file_concerns_nobody_else() {
    let given = Given::start().await;
    let (first, second) = (given.connect(), given.connect());
    let one = ask(&first, given.right()).await.unwrap().file.unwrap();
    let other = ask(&second, given.right()).await.unwrap().file.unwrap();
    // Two descriptors of one open file would share its position.
    let one = std::fs::File::from(one.descriptor().unwrap().try_clone_to_owned().unwrap());
    let mut other = std::fs::File::from(other.descriptor().unwrap().try_clone_to_owned().unwrap());
    std::io::Seek::seek(&mut &one, std::io::SeekFrom::Start(99)).unwrap();
    assert_eq!(std::io::Seek::stream_position(&mut other).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_local_connections_are_bounded() {
    let given = Given::start().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = given.connect();
        given.check(ask(&stream, given.right()).await.unwrap()).await;
        streams.push(stream);
    }
    assert!(ask(&given.connect(), given.right()).await.is_none(), "one more is turned away");
    streams.pop();
    soon(async {
        while ask(&given.connect(), given.right()).await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    given.check(ask(&streams[0], given.right()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_random_bytes_at_the_local_socket_harm_nobody() {
    let given = Given::start().await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[4; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let noise = prop::collection::vec(any::<u8>(), 1..3000);
    let file = given.all.world.disk.open(&given.chunk_file(), OpenMode::Read).unwrap();
    for n in 0..200 {
        let stream = given.connect();
        let bytes = noise.new_tree(&mut runner).unwrap().current();
        // Descriptors that nobody asked for are closed.
        soon(stream.send(&bytes, (n % 2 == 0).then_some(&*file))).await.unwrap();
        let said = soon(stream.receive(MESSAGE_BYTES_MAX)).await;
        assert!(matches!(said, Ok(None) | Err(_)), "{said:?}");
    }
    for frame in [Frame::from(v1::Probe {}), v1::LocalFile { data_offset: 0, block_crcs: vec![] }.into()] {
        let stream = given.connect();
        soon(stream.send(&message(frame), None)).await.unwrap();
        assert!(!matches!(soon(stream.receive(MESSAGE_BYTES_MAX)).await, Ok(Some(_))));
    }
    // News of what was never given out.
    let stream = given.connect();
    for bytes in [0, u64::MAX] {
        let news = v1::ReadLocally { chunk: bytes, bytes, done: bytes > 0 };
        soon(stream.send(&message(news), None)).await.unwrap();
    }
    given.check(ask(&stream, given.right()).await.unwrap()).await;
    let mut conn = given.all.connect(0).await;
    let read = writer::whole(CHUNK, LENGTH as u64, Crc32::of(&given.data));
    assert!(writer::read(&mut conn, read).await.unwrap() == given.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_on_this_machine_is_told_of_the_socket_which_goes_with_the_server() {
    let mut given = Given::start().await;
    let conn = given.all.connect(0).await;
    assert_eq!(conn.local_socket, Some(given.path()));
    assert!(given.path().exists());
    given.all.servers[0].take().unwrap().shutdown().await;
    assert!(!given.path().exists());
}
