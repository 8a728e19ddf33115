//! The pipeline cuts through: packets are passed on while they still arrive, and several are on the way at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::sync::{Arc, Mutex};

use common::{
    Cluster, bytes,
    gate::{Gate, GatedDisk, OpenOnDrop},
    soon,
};
use quarry_env::World;
use quarry_types::{
    ServerId,
    limits::{PACKET_BYTES, WINDOW_BYTES},
};
use tokio::sync::Notify;
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

/// Packets that are sent while no disk takes one.
const IN_FLIGHT: usize = 6;

#[derive(Clone, Debug, Default, PartialEq)]
struct Event {
    name: String,
    server: String,
    request_id: String,
    chunk: u64,
    offset: u64,
    bytes: u64,
}

impl Visit for Event {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "chunk" => self.chunk = value,
            "offset" => self.offset = value,
            "bytes" => self.bytes = value,
            _ => {}
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "request_id" {
            self.request_id = value.into();
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.name = format!("{value:?}"),
            "server" => self.server = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Keeps the pipeline's events in the order in which they happened.
#[derive(Clone, Default)]
struct Recorder(Arc<(Mutex<Vec<Event>>, Notify)>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "quarry::pipeline" {
            let mut found = Event::default();
            event.record(&mut found);
            self.0.0.lock().unwrap().push(found);
            self.0.1.notify_waiters();
        }
    }
}

impl Recorder {
    fn position(&self, name: &str, server: ServerId, offset: u64) -> Option<usize> {
        let server = server.to_string();
        let events = self.0.0.lock().unwrap();
        events.iter().position(|e| e.name == name && e.server == server && e.offset == offset)
    }

    async fn wait(&self, name: &str, server: ServerId, offset: u64) {
        loop {
            let changed = self.0.1.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.position(name, server, offset).is_some() {
                return;
            }
            changed.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_is_passed_on_while_it_arrives_and_several_are_in_flight() {
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(recorder.clone())).unwrap();
    let gate = Gate::default();
    let _opened_whatever_happens = OpenOnDrop(gate.clone());
    let world = common::world();
    let world = World { disk: Arc::new(GatedDisk { disk: Arc::clone(&world.disk), gate: gate.clone() }), ..world };
    let all = Cluster::start_in(world, 3).await;
    let mut writer = all.write(1).await;
    let packet_bytes = PACKET_BYTES as usize;
    let data = bytes(16 * packet_bytes);
    let (halves, whole) = data.split_at(4 * packet_bytes);

    // Half a packet: the last member has begun it though the first cannot have ended it.
    for packet in halves.chunks(packet_bytes) {
        let offset = writer.end;
        let (first, second) = packet.split_at(packet_bytes / 2);
        writer.begin(packet).await.unwrap();
        writer.conn.writer.payload(first).await.unwrap();
        writer.conn.writer.flush().await.unwrap();
        soon(recorder.wait("packet_begin", all.server(2), offset)).await;
        assert_eq!(recorder.position("packet_end", all.server(0), offset), None);
        writer.conn.writer.payload(second).await.unwrap();
        writer.conn.writer.flush().await.unwrap();
        writer.sent_bytes += PACKET_BYTES;
    }
    writer.all_acked().await.unwrap();

    // With all disks held up nothing is acknowledged, and yet packets arrive at the last member, one after another.
    gate.close();
    for packet in whole.chunks(packet_bytes).take(IN_FLIGHT) {
        writer.send(packet).await.unwrap();
    }
    for i in 0..3 {
        soon(recorder.wait("packet_end", all.server(i), writer.end - PACKET_BYTES)).await;
    }
    assert_eq!(writer.end - writer.acked, IN_FLIGHT as u64 * PACKET_BYTES);
    gate.open();
    for packet in whole.chunks(packet_bytes).skip(IN_FLIGHT) {
        writer.send(packet).await.unwrap();
        while writer.end - writer.acked >= WINDOW_BYTES {
            writer.hear().await.unwrap();
        }
    }
    writer.seal().await.unwrap();

    // The client sends the data once; each member receives each packet once, in order.
    assert_eq!(writer.sent_bytes, data.len() as u64);
    let events = recorder.0.0.lock().unwrap().clone();
    for i in 0..3 {
        let server = all.server(i).to_string();
        for name in ["packet_begin", "packet_end"] {
            let mine: Vec<_> = events.iter().filter(|e| e.name == name && e.server == server).collect();
            let offsets: Vec<_> = mine.iter().map(|e| e.offset).collect();
            assert_eq!(offsets, (0..16).map(|n| n * PACKET_BYTES).collect::<Vec<_>>());
            assert!(mine.iter().all(|e| e.bytes == PACKET_BYTES && e.chunk == 1 && e.request_id == "test-1"));
        }
    }
}
