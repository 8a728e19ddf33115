//! A server that keeps coming and going, seen by the detector and by repair together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use quarry_master_core::{
    command::ServerWish,
    detector::{Detector, Health},
    placement::Candidate,
    repair::{
        ChunkFacts, Cluster, Decision, Holder, Policy, Quality, Queue, assess, budget::Budget, decide, decide::Question,
    },
};
use quarry_types::{ChunkId, Crc32, ServerId, limits::CHUNK_BYTES};

const SERVERS: u128 = 6;
const STEP: Duration = Duration::from_millis(100);

/// What a run came to.
#[derive(Debug, Default)]
struct Copied {
    /// Copies that were ordered, of which some became needless.
    started: usize,
    /// Copies that were made to the end.
    made: usize,
}

struct World {
    now: Duration,
    detector: Detector,
    queue: Queue,
    budget: Budget,
    policy: Policy,
    /// Who holds each chunk.
    chunks: BTreeMap<ChunkId, (u32, Vec<ServerId>)>,
    /// Copies under way, and when each is there.
    copies: BTreeMap<ChunkId, (ServerId, ServerId, Duration)>,
    copied: Copied,
}

fn server(n: u128) -> ServerId {
    ServerId::from_random(n)
}

fn rack(server: ServerId) -> String {
    server.to_string()
}

impl World {
    /// Each of `count` chunks that want `wanted` replicas has one on server 0.
    fn new(count: u64, wanted: u32) -> Self {
        let holders =
            |n: u64| (0..u128::from(wanted)).map(move |k| if k == 0 { 0 } else { 1 + (u128::from(n) + k) % 5 });
        World {
            now: Duration::ZERO,
            detector: Detector::new(),
            queue: Queue::default(),
            budget: Budget::default(),
            policy: Policy::default(),
            chunks: (0..count).map(|n| (ChunkId(n), (wanted, holders(n).map(server).collect()))).collect(),
            copies: BTreeMap::new(),
            copied: Copied::default(),
        }
    }

    fn facts(&self, chunk: ChunkId) -> ChunkFacts {
        let (wanted, held_by) = &self.chunks[&chunk];
        let holder = |server: &ServerId| Holder {
            server: *server,
            rack: rack(*server),
            health: self.detector.state(*server, self.now),
            wish: ServerWish::Active,
            quality: Quality::Good,
            reported: true,
            leaving: false,
            dropping: false,
        };
        let mut holders: Vec<Holder> = held_by.iter().map(holder).collect();
        holders.sort_by_key(|h| h.server);
        ChunkFacts { extra: 0, toward: None, chunk, length: CHUNK_BYTES, crc: Crc32(1), wanted: *wanted, holders }
    }

    fn cluster(&self) -> Cluster {
        let candidate = |n| {
            let room = self.budget.room(server(n), &self.policy, self.now);
            Candidate {
                health: self.detector.state(server(n), self.now),
                copies_in: room.copies_in,
                copies_out: room.copies_out,
                budget_in: room.bytes_in,
                budget_out: room.bytes_out,
                ..Candidate::idle(server(n), &rack(server(n)), 1 << 50, 1 << 49)
            }
        };
        let mut candidates: Vec<Candidate> = (0..SERVERS).map(candidate).collect();
        candidates.sort_by_key(|c| c.server);
        let racks = (0..SERVERS).map(|n| rack(server(n))).collect();
        Cluster { candidates, racks, brake: None, ready: true, budget: i64::MAX, held: false }
    }

    fn look(&mut self, chunk: ChunkId) {
        let needless = self.queue.assess(chunk, assess(&self.facts(chunk), SERVERS as usize), CHUNK_BYTES, self.now);
        if let Some((source, target, _)) = needless.and_then(|needless| self.copies.remove(&needless.chunk)) {
            self.budget.end(source, target);
        }
    }

    fn finish_copies(&mut self) {
        let here: Vec<ChunkId> =
            self.copies.iter().filter(|(_, (_, _, at))| *at <= self.now).map(|(chunk, _)| *chunk).collect();
        for chunk in here {
            let (source, target, _) = self.copies.remove(&chunk).unwrap();
            self.budget.end(source, target);
            self.chunks.get_mut(&chunk).unwrap().1.push(target);
            self.queue.done(chunk, self.now);
            self.copied.made += 1;
            self.look(chunk);
        }
    }

    /// One step of the leader, in which the servers of `up` beat if it is time to.
    fn step(&mut self, flapping_is_up: bool) {
        for n in 0..SERVERS {
            let beats = self.now.subsec_millis() == 0 && (n > 0 || flapping_is_up);
            if beats {
                self.detector.beat(server(n), self.now);
            }
        }
        let changed = self.detector.changes(self.now).iter().any(|c| c.from == Health::Dead || c.to == Health::Dead);
        if changed {
            self.chunks.keys().copied().collect::<Vec<_>>().into_iter().for_each(|chunk| self.look(chunk));
            self.queue.unblock(usize::MAX);
        }
        self.finish_copies();
        for chunk in self.queue.due(self.now, 64) {
            let since = self.queue.get(chunk).unwrap().since;
            let question = Question { facts: self.facts(chunk), since, failed: vec![], now: self.now, chance: chunk.0 };
            match decide(&question, &self.cluster(), &self.policy).1 {
                Decision::Copy { target, sources, urgent } => {
                    self.copied.started += 1;
                    self.queue.copying(chunk, sources[0], target, self.now);
                    self.budget.start(sources[0], target, CHUNK_BYTES, urgent, &self.policy, self.now);
                    let takes = Duration::from_millis(CHUNK_BYTES * 1000 / self.policy.rate);
                    self.copies.insert(chunk, (sources[0], target, self.now + takes));
                }
                Decision::Drop { server, .. } => {
                    self.chunks.get_mut(&chunk).unwrap().1.retain(|holder| *holder != server);
                    self.queue.dropping(chunk, server);
                    self.queue.done(chunk, self.now);
                    self.look(chunk);
                }
                Decision::Wait(reason) => self.queue.wait(chunk, reason, self.now),
                Decision::Nothing => {}
            }
        }
        self.now += STEP;
    }

    fn run(&mut self, period: Duration, times: u32) {
        for n in 0..times * 2 {
            let until = period * (n + 1);
            while self.now < until {
                self.step(n % 2 == 0);
            }
        }
    }
}

#[test]
fn a_server_that_is_back_before_the_delay_is_over_costs_no_copy() {
    let mut world = World::new(50, 3);
    world.run(Duration::from_secs(10), 10);
    assert_eq!(world.copied.started, 0);
}

/// Chunks of two replicas are copied at once, and down for longer than the delay all are. Without the damping of servers that
/// flap, each death costs each chunk a copy: ten, or nearly six where one round is too short to copy them all.
#[test]
fn whatever_its_rhythm_a_flapping_server_costs_each_chunk_a_bounded_number_of_copies() {
    const CHUNKS: usize = 50;
    const COPIES_PER_CHUNK: usize = 5;
    for (wanted, seconds) in [(2, 10), (2, 30), (3, 30), (3, 60)] {
        let mut world = World::new(CHUNKS as u64, wanted);
        world.run(Duration::from_secs(seconds), 10);
        println!("wanted {wanted}, {seconds} s: {:?}", world.copied);
        assert!(world.copied.started <= COPIES_PER_CHUNK * CHUNKS, "wanted {wanted}, {seconds} s: {:?}", world.copied);
    }
}
