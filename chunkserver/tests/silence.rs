//! A member that neither answers nor breaks off.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::{Cluster, bytes, cluster, fast::Fast, key, open, world, writer::Writer};
use quarry_client::frames::{self, Conn};
use quarry_env::{World, net::Listener};
use quarry_proto::{frame::Frame, v1};
use quarry_types::{ErrorCode, ServerId};

/// Opens the write and then takes everything in silence.
async fn silent_member(listener: Box<dyn Listener>, server: ServerId) {
    let stream = listener.accept().await.unwrap();
    let Conn { mut reader, mut writer, .. } = frames::accept(stream, Some(cluster()), server, None).await.unwrap();
    let (first, _) = reader.expect().await.unwrap();
    assert!(matches!(first, Frame::OpenWrite(_)));
    writer.send(v1::OpenWriteReply {}).await.unwrap();
    while let Ok(Some(_)) = reader.next().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_silent_member_is_named_by_the_one_before_it() {
    let real = world();
    let fast = World { clock: Arc::new(Fast(Arc::clone(&real.clock))), ..real };
    let all = Cluster::start_in(fast, 2).await;
    let listener = all.world.net.bind("127.0.0.1:0").await.unwrap();
    let silent = ServerId::from_random(99);
    let mut grant = all.grant(1);
    grant
        .members
        .push(v1::Member { server: silent.to_bytes().into(), address: listener.local_addr().unwrap().to_string() });
    let member = tokio::spawn(silent_member(listener, silent));
    let mut writer = Writer::open(all.connect(0).await, open(&key(), &grant)).await.unwrap();
    writer.send(&bytes(100_000)).await.unwrap();
    let error = writer.failure().await;
    assert_eq!((error.code, error.server), (ErrorCode::PipelineBroken, Some(silent)), "{error}");
    assert_eq!(writer.acked, 0);
    member.abort();
}
