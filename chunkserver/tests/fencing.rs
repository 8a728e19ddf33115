//! What refuses to be written, for good (S5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{
    Cluster, bytes, cluster, epoch, key,
    master::proof,
    open, soon,
    writer::{Writer, receipt},
};
use quarry_proto::{WireError, signed, v1, v1::command::Body};
use quarry_types::{ClusterId, ClusterKey, ErrorCode, Lineage, ServerId};
use uuid::Uuid;

async fn refused(all: &Cluster, open: v1::OpenWrite) -> WireError {
    let conn = all.connect(0).await;
    match Writer::open(conn, open).await {
        Ok(_) => panic!("the write was accepted"),
        Err(e) => e.into(),
    }
}

fn fence(chunk: u64) -> Body {
    Body::Fence(v1::Fence { chunks: vec![chunk] })
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_no_ack_after_fence() {
    let all = Cluster::start(2).await;
    let mut writer = all.write(1).await;
    let data = bytes(100_000);
    writer.send(&data).await.unwrap();
    writer.all_acked().await.unwrap();
    // Only the second member is fenced: that alone must stop the acknowledgements of both.
    let result = all.master.command(all.server(1), epoch(5), fence(1)).await;
    let fenced = receipt(&result.receipts[0]);
    assert_eq!((fenced.length, fenced.durable), (100_000, true));
    let _sent = writer.send(&data).await;
    let error = writer.failure().await;
    assert_eq!((error.code, error.server), (ErrorCode::Fenced, Some(all.server(1))), "{error}");
    assert_eq!(writer.acked, 100_000);
    // The answer to a second fence is the same.
    let again = all.master.command(all.server(1), epoch(5), fence(1)).await;
    assert_eq!(receipt(&again.receipts[0]), fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_fence_that_comes_before_the_chunk_refuses_it() {
    let all = Cluster::start(2).await;
    let result = all.master.command(all.server(1), epoch(5), fence(7)).await;
    assert_eq!(receipt(&result.receipts[0]).length, 0);
    let error = refused(&all, open(&key(), &all.grant(7))).await;
    assert_eq!((error.code, error.server), (ErrorCode::Fenced, Some(all.server(1))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_delete_that_comes_before_the_chunk_refuses_it() {
    let all = Cluster::start(1).await;
    let delete = Body::Delete(v1::Delete { chunks: vec![7] });
    let result = all.master.command(all.server(0), epoch(5), delete).await;
    assert!(result.failures.is_empty() && result.refused.is_none(), "{result:?}");
    assert_eq!(refused(&all, open(&key(), &all.grant(7))).await.code, ErrorCode::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_seal_cuts_a_member_that_had_more() {
    let all = Cluster::start(1).await;
    let data = bytes(100_000);
    let mut writer = all.write(1).await;
    writer.send(&data[..60_000]).await.unwrap();
    writer.send(&data[60_000..]).await.unwrap();
    writer.all_acked().await.unwrap();
    let crc = quarry_types::Crc32::of(&data[..60_000]);
    let seal = v1::CommittedSeal { chunk: 1, length: 60_000, crc: crc.0 };
    let fenced = all.master.command(all.server(0), epoch(5), fence(1)).await;
    assert_eq!(receipt(&fenced.receipts[0]).length, 100_000);
    let commit = Body::CommitSeals(v1::CommitSeals { seals: vec![seal] });
    let result = all.master.command(all.server(0), epoch(5), commit).await;
    assert_eq!(receipt(&result.receipts[0]).length, 60_000);
    let verify = Body::Verify(v1::Verify { seals: vec![seal] });
    let result = all.master.command(all.server(0), epoch(5), verify).await;
    assert_eq!(receipt(&result.receipts[0]).crc, crc);
    let mut conn = all.connect(0).await;
    let read = common::writer::read(&mut conn, common::writer::whole(1, 60_000, crc)).await.unwrap();
    assert!(read == data[..60_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_commands_of_an_older_or_a_sibling_master_are_refused() {
    let all = Cluster::start(1).await;
    let server = all.server(0);
    let sibling = quarry_types::Leadership { lineage: Lineage { number: 1, id: Uuid::from_u128(2) }, ..epoch(9) };
    for stale in [epoch(4), sibling] {
        let result = all.master.command(server, stale, fence(1)).await;
        let error = WireError::from(result.refused.unwrap());
        assert_eq!(error.code, ErrorCode::StaleLeader, "{error}");
    }
    // The chunk was not touched: it can be written still.
    let mut writer = all.write(1).await;
    writer.send(b"x").await.unwrap();
    writer.all_acked().await.unwrap();
    // A newer one is followed, and from then on the one before is refused.
    let result = all.master.command(server, epoch(6), fence(1)).await;
    assert_eq!(result.receipts.len(), 1);
    assert_eq!(all.running(0).store().leadership(), Some(epoch(6)));
    let result = all.master.command(server, epoch(5), fence(2)).await;
    assert_eq!(WireError::from(result.refused.unwrap()).code, ErrorCode::StaleLeader);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_commands_with_a_proof_for_somebody_else_are_refused() {
    let all = Cluster::start(1).await;
    let server = all.server(0);
    let mut forged = proof(server, epoch(5));
    forged.mac = vec![0; 32].into();
    for (bad, code) in
        [(proof(ServerId::from_random(1), epoch(5)), ErrorCode::Mismatch), (forged, ErrorCode::Unauthorized)]
    {
        let id = all.master.give(server, bad, fence(1)).await;
        let result = soon(all.master.until(|seen| seen.results.remove(&id))).await;
        assert_eq!(WireError::from(result.refused.unwrap()).code, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_bad_grants_are_refused() {
    let all = Cluster::start(2).await;
    let good = all.grant(1);
    let other_cluster = v1::Grant { cluster: ClusterId::from_random(1).to_bytes().into(), ..good.clone() };
    let older = v1::Grant { leadership: Some(epoch(4).into()), ..good.clone() };
    let sibling = quarry_types::Leadership { lineage: Lineage { number: 1, id: Uuid::from_u128(2) }, ..epoch(5) };
    let sibling = v1::Grant { leadership: Some(sibling.into()), ..good.clone() };
    let nobody = v1::Grant { members: Vec::new(), ..good.clone() };
    let twice = v1::Grant { members: vec![good.members[0].clone(), good.members[0].clone()], ..good.clone() };
    let too_long = v1::Grant { limit_bytes: u64::MAX, ..good.clone() };
    let cases = [
        (open(&ClusterKey::new([8; 32]), &good), ErrorCode::Unauthorized),
        (open(&key(), &other_cluster), ErrorCode::Mismatch),
        (open(&key(), &older), ErrorCode::StaleLeader),
        (open(&key(), &sibling), ErrorCode::StaleLeader),
        (v1::OpenWrite { position: 1, ..open(&key(), &good) }, ErrorCode::Mismatch),
        (v1::OpenWrite { position: u32::MAX, ..open(&key(), &good) }, ErrorCode::Mismatch),
        (v1::OpenWrite { grant: None, ..open(&key(), &good) }, ErrorCode::InvalidArgument),
        (open(&key(), &nobody), ErrorCode::InvalidArgument),
        (open(&key(), &twice), ErrorCode::InvalidArgument),
        (open(&key(), &too_long), ErrorCode::InvalidArgument),
    ];
    for (bad, code) in cases {
        let error = refused(&all, bad).await;
        assert_eq!((error.code, error.server), (code, Some(all.server(0))), "{error}");
    }
    // None of them opened the chunk.
    let mut writer = Writer::open(all.connect(0).await, open(&key(), &good)).await.unwrap();
    writer.send(b"x").await.unwrap();
    assert_eq!(writer.seal().await.unwrap().len(), 2);
    // And a second writer of the same chunk is refused.
    assert_eq!(refused(&all, open(&key(), &good)).await.code, ErrorCode::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_grant_of_a_newer_master_is_followed() {
    let all = Cluster::start(1).await;
    let newer = v1::Grant { leadership: Some(epoch(8).into()), ..all.grant(1) };
    Writer::open(all.connect(0).await, open(&key(), &newer)).await.unwrap();
    assert_eq!(all.running(0).store().leadership(), Some(epoch(8)));
    assert_eq!(refused(&all, open(&key(), &all.grant(2))).await.code, ErrorCode::StaleLeader);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_signature_for_another_purpose_is_worthless() {
    let all = Cluster::start(1).await;
    let receipt = v1::Receipt { cluster: cluster().to_bytes().into(), ..Default::default() };
    let bad = v1::OpenWrite { grant: Some(signed::sign(&key(), &receipt)), ..open(&key(), &all.grant(1)) };
    assert_eq!(refused(&all, bad).await.code, ErrorCode::Unauthorized);
}
