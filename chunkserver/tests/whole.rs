//! Small chunks that are written and ended in one conversation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::{Cluster, bytes, cluster, fast::Fast, key, soon, world, writer};
use quarry_client::frames::{Conn, ConnError, FrameReader, FrameWriter};
use quarry_env::{
    World,
    net::{self, Listener},
};
use quarry_proto::{WireError, frame::Frame, signed, v1};
use quarry_types::{ChunkId, Crc32, ErrorCode, Receipt, ServerId, limits::BLOCK_BYTES};

const BLOCK: usize = BLOCK_BYTES as usize;

async fn send(conn: &mut Conn, grant: &v1::Grant, data: &[u8], crc: Crc32) -> Result<Vec<Receipt>, WireError> {
    let grant = Some(signed::sign(&key(), grant));
    let whole = v1::WriteWhole { grant, position: 0, request_id: "test-1".into(), crc: crc.0 };
    let asking = async {
        conn.writer.begin(whole, data.len() as u32).await?;
        conn.writer.payload(data).await?;
        conn.writer.flush().await?;
        conn.reader.expect().await
    };
    match soon(asking).await {
        Ok((Frame::SealReply(reply), _)) => Ok(reply.receipts.iter().map(writer::receipt).collect()),
        Err(ConnError::Refused { source, .. }) => Err(source),
        other => panic!("{other:?}"),
    }
}

async fn write(all: &Cluster, chunk: u64, data: &[u8]) -> Result<Vec<Receipt>, WireError> {
    send(&mut all.connect(0).await, &all.grant(chunk), data, Crc32::of(data)).await
}

async fn read(all: &Cluster, server: usize, chunk: u64, data: &[u8]) -> Vec<u8> {
    let (length, crc) = (data.len() as u64, Crc32::of(data));
    let read = v1::Read { chunk, length, crc: crc.0, offset: 0, bytes: length, ..Default::default() };
    writer::read(&mut all.connect(server).await, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_whole_chunk_is_on_every_member_when_it_is_answered() {
    let all = Cluster::start(3).await;
    let mut conn = all.connect(0).await;
    assert!(conn.takes_whole);
    for (chunk, length) in (1..).zip([1, 5000, BLOCK - 1, BLOCK]) {
        let data = bytes(length);
        // The same connection serves one after the other, and so do those between the members.
        let receipts = send(&mut conn, &all.grant(chunk), &data, Crc32::of(&data)).await.unwrap();
        assert_eq!(receipts.iter().map(|r| r.server).collect::<Vec<_>>(), [0, 1, 2].map(|i| all.server(i)));
        for receipt in receipts {
            assert!(receipt.durable && !receipt.restarted);
            assert_eq!((receipt.chunk, receipt.length, receipt.crc), (ChunkId(chunk), length as u64, Crc32::of(&data)));
        }
        for server in 0..3 {
            assert_eq!(read(&all, server, chunk, &data).await, data);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_whole_chunk_with_a_wrong_checksum_or_length_is_not_taken() {
    let all = Cluster::start(2).await;
    let good = bytes(5000);
    for (chunk, data, crc, code) in [
        (1, &good, Crc32(1), ErrorCode::Corrupt),
        (2, &Vec::new(), Crc32::EMPTY, ErrorCode::InvalidArgument),
        (3, &bytes(BLOCK + 1), Crc32::of(&bytes(BLOCK + 1)), ErrorCode::InvalidArgument),
    ] {
        let refused = send(&mut all.connect(0).await, &all.grant(chunk), data, crc).await.unwrap_err();
        assert_eq!((refused.code, refused.server), (code, Some(all.server(0))), "{refused}");
        for server in 0..2 {
            assert!(all.running(server).store().inventory().1.is_empty(), "{refused}");
        }
    }
    let short = v1::Grant { limit_bytes: 4999, ..all.grant(4) };
    let refused = send(&mut all.connect(0).await, &short, &good, Crc32::of(&good)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument, "{refused}");
    let forged = v1::WriteWhole {
        grant: Some(signed::sign(&quarry_types::ClusterKey::new([8; 32]), &all.grant(5))),
        crc: Crc32::of(&good).0,
        ..Default::default()
    };
    let mut conn = all.connect(0).await;
    conn.writer.begin(forged, 5000).await.unwrap();
    conn.writer.payload(&good).await.unwrap();
    conn.writer.flush().await.unwrap();
    let refused = WireError::from(soon(conn.reader.expect()).await.unwrap_err());
    assert_eq!(refused.code, ErrorCode::Unauthorized, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_fenced_chunk_and_one_that_is_here_are_not_written_whole() {
    let all = Cluster::start(2).await;
    let data = bytes(5000);
    all.running(1).store().fence(ChunkId(1)).await.unwrap();
    let refused = write(&all, 1, &data).await.unwrap_err();
    assert_eq!((refused.code, refused.server), (ErrorCode::Fenced, Some(all.server(1))), "{refused}");
    write(&all, 2, &data).await.unwrap();
    let refused = write(&all, 2, &bytes(100)).await.unwrap_err();
    assert_eq!((refused.code, refused.server), (ErrorCode::Fenced, Some(all.server(0))), "{refused}");
    assert_eq!(read(&all, 0, 2, &data).await, data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_gone_is_named_also_after_it_served() {
    for (victim, name) in [(1, "middle"), (2, "tail")] {
        let mut all = Cluster::start(3).await;
        write(&all, 1, &bytes(100)).await.unwrap();
        let gone = all.server(victim);
        all.kill(victim);
        let error = write(&all, 2, &bytes(100)).await.unwrap_err();
        assert_eq!((error.code, error.server), (ErrorCode::PipelineBroken, Some(gone)), "{name}: {error}");
    }
}

/// A member that the test plays, behind all servers.
async fn with_played(all: &Cluster, chunk: u64) -> (v1::Grant, Box<dyn Listener>, ServerId) {
    let listener = all.world.net.bind("127.0.0.1:0").await.unwrap();
    let server = ServerId::from_random(99);
    let address = listener.local_addr().unwrap().to_string();
    let mut grant = all.grant(chunk);
    grant.members.push(v1::Member { server: server.to_bytes().into(), address });
    (grant, listener, server)
}

/// Shakes hands like a server of before `takes_whole`, and ends a chunk that comes in three frames.
async fn older_member(listener: Box<dyn Listener>, server: ServerId) -> Vec<u8> {
    let (from, to) = net::split(listener.accept().await.unwrap());
    let (mut reader, mut writer) = (FrameReader::new(from, "caller"), FrameWriter::new(to, "caller"));
    let (Frame::Hello(hello), _) = reader.expect().await.unwrap() else { panic!() };
    let reply = v1::HelloReply {
        protocol_version: hello.protocol_version,
        cluster: hello.cluster,
        server: server.to_bytes().into(),
        ..Default::default()
    };
    writer.send(reply).await.unwrap();
    let (Frame::OpenWrite(open), _) = reader.expect().await.unwrap() else { panic!() };
    let grant: v1::Grant = signed::open(&key(), &open.grant.unwrap()).unwrap();
    assert_eq!(open.position, 1);
    writer.send(v1::OpenWriteReply {}).await.unwrap();
    let (Frame::Packet(packet), length) = reader.expect().await.unwrap() else { panic!() };
    let mut data = vec![0; length as usize];
    reader.payload(&mut data).await.unwrap();
    assert_eq!((packet.offset, packet.piece_crcs), (0, vec![Crc32::of(&data).0]));
    let (Frame::Seal(seal), _) = reader.expect().await.unwrap() else { panic!() };
    assert_eq!((seal.length, seal.crc), (data.len() as u64, Crc32::of(&data).0));
    writer.send(v1::Ack { length: seal.length }).await.unwrap();
    let receipt = Receipt {
        cluster: cluster(),
        server,
        chunk: ChunkId(grant.chunk),
        length: seal.length,
        crc: Crc32(seal.crc),
        durable: true,
        restarted: false,
    };
    let receipts = vec![signed::sign(&key(), &v1::Receipt::from(receipt))];
    writer.send(v1::SealReply { receipts }).await.unwrap();
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_an_older_release_is_asked_in_its_own_way() {
    let all = Cluster::start(1).await;
    let (grant, listener, older) = with_played(&all, 1).await;
    let member = tokio::spawn(older_member(listener, older));
    let data = bytes(5000);
    let receipts = send(&mut all.connect(0).await, &grant, &data, Crc32::of(&data)).await.unwrap();
    assert_eq!(receipts.iter().map(|r| r.server).collect::<Vec<_>>(), [all.server(0), older]);
    assert_eq!(member.await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_member_that_says_nothing_is_named() {
    let real = world();
    let fast = World { clock: Arc::new(Fast(Arc::clone(&real.clock))), ..real };
    let all = Cluster::start_in(fast, 2).await;
    let (grant, listener, silent) = with_played(&all, 1).await;
    let member = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap();
        let mut conn = quarry_client::frames::accept(stream, Some(cluster()), silent, None).await.unwrap();
        while let Ok(Some(_)) = conn.reader.next().await {}
    });
    let data = bytes(100);
    let error = send(&mut all.connect(0).await, &grant, &data, Crc32::of(&data)).await.unwrap_err();
    assert_eq!((error.code, error.server), (ErrorCode::PipelineBroken, Some(silent)), "{error}");
    member.abort();
}
