//! Writes through three members, and reads.

mod common;

use common::{
    Cluster, bytes, cluster, soon,
    writer::{read, whole},
};
use quarry_proto::{frame::Frame, v1};
use quarry_types::{
    Crc32, ErrorCode,
    limits::{BLOCK_BYTES, PACKET_BYTES},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_three_members_sealed_reads_back_from_each() {
    let all = Cluster::start(3).await;
    let data = bytes(3 * PACKET_BYTES as usize + 12_345);
    let mut writer = all.write(1).await;
    // Odd packets: they begin and end within blocks.
    for part in data.chunks(PACKET_BYTES as usize - 777) {
        writer.send(part).await.unwrap();
    }
    writer.flush().await.unwrap();
    let receipts = writer.seal().await.unwrap();
    let members: Vec<_> = receipts.iter().map(|r| r.server).collect();
    assert_eq!(members, (0..3).map(|i| all.server(i)).collect::<Vec<_>>());
    for receipt in receipts {
        assert_eq!((receipt.length, receipt.crc), (data.len() as u64, Crc32::of(&data)));
        assert!(receipt.durable && !receipt.restarted && receipt.cluster == cluster());
    }
    for i in 0..3 {
        let mut conn = all.connect(i).await;
        let whole = whole(1, data.len() as u64, Crc32::of(&data));
        assert!(read(&mut conn, whole.clone()).await.unwrap() == data);
        // The same connection serves another read: whole blocks that cover the range.
        let part = v1::Read { offset: BLOCK_BYTES + 5, bytes: BLOCK_BYTES, ..whole };
        let start = BLOCK_BYTES as usize;
        assert!(read(&mut conn, part).await.unwrap() == data[start..3 * start]);
    }
    // The writer's connection is free for another conversation.
    writer.conn.writer.send(v1::Probe {}).await.unwrap();
    assert!(matches!(soon(writer.conn.reader.expect()).await.unwrap().0, Frame::ProbeReply(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_expects_something_else_is_refused_and_the_connection_lives_on() {
    let all = Cluster::start(1).await;
    let data = bytes(100_000);
    let mut writer = all.write(1).await;
    writer.send(&data).await.unwrap();
    writer.seal().await.unwrap();
    let good = whole(1, data.len() as u64, Crc32::of(&data));
    let mut conn = all.connect(0).await;
    for (bad, code) in [
        (v1::Read { chunk: 2, ..good.clone() }, ErrorCode::NoReplica),
        (v1::Read { length: 99_999, ..good.clone() }, ErrorCode::Mismatch),
        (v1::Read { crc: 1, ..good.clone() }, ErrorCode::Mismatch),
        (v1::Read { offset: 100_001, ..good.clone() }, ErrorCode::InvalidArgument),
    ] {
        let error = quarry_proto::WireError::from(read(&mut conn, bad).await.unwrap_err());
        assert_eq!((error.code, error.server), (code, Some(all.server(0))), "{error}");
    }
    assert!(read(&mut conn, good).await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_chunk_reads_up_to_what_all_members_have() {
    let all = Cluster::start(2).await;
    let data = bytes(BLOCK_BYTES as usize * 2 + 10);
    let mut writer = all.write(1).await;
    writer.send(&data).await.unwrap();
    writer.all_acked().await.unwrap();
    // The primary knows what all have; the second hears it with the next packet.
    let open = v1::Read { open: true, ..whole(1, 0, Crc32::EMPTY) };
    let open = v1::Read { bytes: data.len() as u64 + 100, ..open };
    let mut primary = all.connect(0).await;
    assert!(read(&mut primary, open.clone()).await.unwrap() == data);
    let mut second = all.connect(1).await;
    assert!(read(&mut second, open.clone()).await.unwrap().is_empty());
    writer.send(b"more").await.unwrap();
    writer.all_acked().await.unwrap();
    assert!(read(&mut second, open).await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_is_named_and_nothing_more_is_acknowledged() {
    for (victim, name) in [(1, "middle"), (2, "tail")] {
        let mut all = Cluster::start(3).await;
        let mut writer = all.write(1).await;
        writer.send(&bytes(100_000)).await.unwrap();
        writer.all_acked().await.unwrap();
        let killed = all.server(victim);
        all.kill(victim);
        // Sending may fail as well once the primary has closed.
        let _sent = writer.send(&bytes(PACKET_BYTES as usize)).await;
        let error = writer.failure().await;
        assert_eq!(error.code, ErrorCode::PipelineBroken, "{name}: {error}");
        assert_eq!(error.server, Some(killed), "{name}: {error}");
        assert_eq!(writer.acked, 100_000, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_gone_before_the_write_is_named() {
    let mut all = Cluster::start(3).await;
    let gone = all.server(2);
    all.kill(2);
    let mut conn = all.connect(0).await;
    conn.writer.send(common::open(&common::key(), &all.grant(1))).await.unwrap();
    let error = quarry_proto::WireError::from(soon(conn.reader.expect()).await.unwrap_err());
    assert_eq!((error.code, error.server), (ErrorCode::PipelineBroken, Some(gone)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_bytes_with_a_wrong_checksum_are_never_acknowledged() {
    let all = Cluster::start(2).await;
    let mut writer = all.write(1).await;
    let mut data = bytes(PACKET_BYTES as usize);
    writer.begin(&data).await.unwrap();
    data[700_000] ^= 1;
    writer.conn.writer.payload(&data).await.unwrap();
    let error = writer.failure().await;
    assert_eq!((error.code, error.server), (ErrorCode::Corrupt, Some(all.server(0))), "{error}");
    assert_eq!(writer.acked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_do_not_fit_the_stream_end_it() {
    let all = Cluster::start(1).await;
    let data = bytes(100);
    let good = common::writer::packet(0, &data, 0);
    for (chunk, bad) in [
        v1::Packet { offset: 1, ..good.clone() },
        v1::Packet { acked: 1, ..good.clone() },
        v1::Packet { piece_crcs: Vec::new(), ..good.clone() },
        v1::Packet { piece_crcs: vec![1, 2], ..good },
    ]
    .into_iter()
    .enumerate()
    {
        let mut writer = all.write(chunk as u64 + 1).await;
        writer.conn.writer.begin(bad, 100).await.unwrap();
        let _sent = writer.conn.writer.payload(&data).await;
        assert_eq!(writer.failure().await.code, ErrorCode::InvalidArgument);
    }
    let mut writer = all.write(9).await;
    writer.conn.writer.send(v1::Seal { length: 5, crc: 0 }).await.unwrap();
    assert_eq!(writer.failure().await.code, ErrorCode::InvalidArgument);
}
