//! Bytes on the data port that are no conversation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{Cluster, bytes, cluster, soon};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use quarry_client::frames;
use quarry_env::net::BoxStream;
use quarry_proto::{WireError, frame, v1};
use quarry_types::{ClusterId, ErrorCode, ServerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn raw(all: &Cluster) -> BoxStream {
    all.world.net.connect(all.running(0).address()).await.unwrap()
}

/// The other side closes, whatever it says before.
async fn closes(mut stream: BoxStream) {
    let mut said = Vec::new();
    // A reset is a way to close too.
    let _closed = soon(stream.read_to_end(&mut said)).await;
    assert!(said.len() < 4096, "{} bytes came back", said.len());
}

async fn still_serves(all: &Cluster, chunk: u64) {
    let mut writer = all.write(chunk).await;
    writer.send(&bytes(1000)).await.unwrap();
    writer.seal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_random_bytes_close_the_connection_and_nothing_else() {
    let all = Cluster::start(1).await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let noise = prop::collection::vec(any::<u8>(), 1..2000);
    for _ in 0..50 {
        let mut stream = raw(&all).await;
        let mut bytes = noise.new_tree(&mut runner).unwrap().current();
        // At least a header's worth, so that nobody waits for the rest.
        bytes.resize(bytes.len().max(frame::HEADER_BYTES), 0);
        let _sent = stream.write_all(&bytes).await;
        closes(stream).await;
    }
    let mut http = raw(&all).await;
    http.write_all(b"GET / HTTP/1.1\r\nHost: quarry\r\n\r\n").await.unwrap();
    closes(http).await;
    still_serves(&all, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_garbage_after_the_handshake_is_answered_and_closed() {
    let all = Cluster::start(1).await;
    let mut conn = all.connect(0).await;
    let frame = frame::Frame::from(v1::Ack { length: 1 });
    conn.writer.send(frame).await.unwrap();
    let error = WireError::from(soon(conn.reader.expect()).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    assert!(soon(conn.reader.next()).await.is_ok_and(|end| end.is_none()));
    // In the middle of a write.
    let mut writer = all.write(1).await;
    writer.conn.writer.payload(&[0xff; 100]).await.unwrap();
    writer.conn.writer.flush().await.unwrap();
    assert_eq!(writer.failure().await.code, ErrorCode::InvalidArgument);
    still_serves(&all, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_truncated_frames_leave_the_replica_open_and_the_server_well() {
    let all = Cluster::start(2).await;
    let mut packet = bytes::BytesMut::new();
    let data = bytes(200_000);
    frame::encode(&common::writer::packet(0, &data, 0).into(), 200_000, &mut packet).unwrap();
    packet.extend_from_slice(&data);
    for (chunk, length) in [1, 15, 16, 30, 70_000, 199_999].into_iter().enumerate() {
        let mut writer = all.write(chunk as u64 + 1).await;
        writer.conn.writer.payload(&packet[..length]).await.unwrap();
        drop(writer);
    }
    for i in 0..2 {
        let server = all.server(i);
        // Both notice that nobody writes any more.
        soon(all.master.until(|seen| seen.beats.get(&server).filter(|beat| beat.active_writes == 0).cloned())).await;
        assert_eq!(all.running(i).store().counts().open, 6);
    }
    still_serves(&all, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_caller_who_wants_somebody_else_is_told_who_is_here() {
    let all = Cluster::start(1).await;
    let address = all.running(0).address();
    let (me, nobody) = (all.server(0), ServerId::from_random(1));
    for (cluster, server) in [(cluster(), nobody), (ClusterId::from_random(1), me)] {
        let error = frames::connect(&all.world, address, cluster, server, common::PATIENCE).await.err().unwrap();
        let error = WireError::from(error);
        assert_eq!(error.code, ErrorCode::Mismatch);
        assert!(error.message.contains(&me.to_string()) && error.message.contains(&server.to_string()), "{error}");
    }
}
