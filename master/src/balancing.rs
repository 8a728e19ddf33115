//! What the leader knows about balancing: soft state of one leadership. A new leader plans anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quarry_env::Instant;
use quarry_master_core::{
    balance::{Fill, Hot, traffic},
    command::{ServerWish, Settings},
    detector::Health,
    placement::vitals::Vitals,
    repair::{
        Reason,
        queue::{Entry, Work},
    },
    settings::BALANCE_ASKED,
};
use quarry_proto::v1;
use quarry_types::{ChunkId, ServerId};

use crate::{
    repairing::Repairing,
    servers::{Server, Servers},
    shared::Soft,
};

/// Moves at once in the whole cluster.
const MOVES_MAX: usize = 4096;
/// Moves away from one server at once.
const MOVES_PER_SERVER: usize = 64;
/// Moves toward one server at once: it takes a few at a time, and each that waits is looked at again and again.
const MOVES_TO_SERVER: usize = 16;
/// A chunkserver looks at its room every second and says so in its next beat: until then, what has moved counts as under way.
const SETTLE: Duration = Duration::from_secs(5);
/// A move that has not begun after this is given up: what it was planned with has changed.
const GIVE_UP: Duration = Duration::from_secs(600);
/// A capacity that grows by more than one part in so many has grown.
const NEW_ROOM: u64 = 100;
/// Over how long traffic is measured.
const TRAFFIC_SPAN: Duration = Duration::from_secs(10);

/// Why nothing can be moved where no chunk was found that could.
const NOTHING_FOUND: &str = "the chunkservers that hold more have no chunk to give";
/// Why balancing runs that somebody asked for.
pub const BY_REQUEST: &str = "an operator asked for it";

/// A replica that balancing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Away from here.
    pub from: ServerId,
    /// To here.
    pub to: ServerId,
    /// Bytes of the chunk.
    pub bytes: u64,
    /// When it was planned.
    pub since: Instant,
}

/// Balancing that is under way.
#[derive(Clone, Debug)]
pub struct Run {
    /// What triggered it.
    pub why: String,
    /// Bytes moved since it began.
    pub moved: u64,
}

/// What kept a replica from moving that could have evened something out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Moved, it would even nothing out.
    Size,
    /// Who could get more has a replica of the chunk.
    Held,
    /// Who could get more is on a rack that its chunk uses already.
    Racks,
    /// Its chunk is being repaired, or read much, or who should get it cannot take it.
    Busy,
}

impl Obstacle {
    fn words(self) -> &'static str {
        match self {
            Obstacle::Size => "chunks are too large to even it out further",
            Obstacle::Held => "the chunkservers that should get more have replicas of the same chunks",
            Obstacle::Racks => "the chunkservers that should get more are on racks that their chunks use already",
            Obstacle::Busy => "chunks are under repair or read much, or who should get them cannot take them",
        }
    }
}

/// A chunkserver that takes part, as far as that says what can be moved to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    capacity: u64,
    rack: String,
}

impl Place {
    /// There is more room than before, or it is elsewhere. What other programs write moves capacities a little all the time.
    fn is_better(&self, before: &Place) -> bool {
        self.rack != before.rack || self.capacity > before.capacity.saturating_add(before.capacity / NEW_ROOM)
    }

    fn is_less(&self, before: &Place) -> bool {
        self.capacity < before.capacity.saturating_sub(before.capacity / NEW_ROOM)
    }
}

/// How far the look at a server's chunks has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// It goes on here; with whether something was found that can move.
    At(ChunkId, bool),
    /// All was looked at, and nothing can move.
    Spent,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    bytes: u64,
    rate: f64,
}

/// What the leader knows about balancing.
#[derive(Default)]
pub struct Balancing {
    /// Chunks that are read much.
    pub hot: Hot,
    /// Balancing that is under way.
    pub run: Option<Run>,
    /// An operator ended it. The setting says so as well, and outlasts this leadership; this one holds at once, whatever
    /// settings a look that is under way has read.
    pub stopped: bool,
    /// What kept replicas from moving since the last one that moved.
    pub obstacles: BTreeSet<Obstacle>,
    /// Nothing could be moved: it does not begin again by itself before this.
    rest_until: Option<Instant>,
    /// Who took part at the last look.
    places: BTreeMap<ServerId, Place>,
    /// How the last run ended.
    pub last: Option<String>,
    moves: BTreeMap<ChunkId, Move>,
    leaving: BTreeMap<ServerId, usize>,
    coming: BTreeMap<ServerId, usize>,
    settling: Vec<(Instant, Move)>,
    walks: BTreeMap<ServerId, Walk>,
    traffic: BTreeMap<ServerId, Sample>,
}

/// One fewer; none is not kept.
fn less(counts: &mut BTreeMap<ServerId, usize>, of: ServerId) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
        }
    }
}

impl Balancing {
    /// An operator asked for balancing, maybe another leader, and it has not ended yet.
    #[must_use]
    pub fn is_asked(&self, settings: &Settings) -> bool {
        settings.get(&BALANCE_ASKED) != 0 && !self.stopped
    }

    /// A chunk's move.
    #[must_use]
    pub fn get(&self, chunk: ChunkId) -> Option<&Move> {
        self.moves.get(&chunk)
    }

    /// Moves that are under way or wait.
    pub fn moves(&self) -> impl Iterator<Item = (ChunkId, &Move)> {
        self.moves.iter().map(|(chunk, one)| (*chunk, one))
    }

    /// Nothing is under way, and what was is counted where it is.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.moves.is_empty() && self.settling.is_empty()
    }

    /// How many more moves may leave a server now.
    #[must_use]
    pub fn room(&self, from: ServerId) -> usize {
        let here = self.leaving.get(&from).copied().unwrap_or(0);
        MOVES_PER_SERVER.saturating_sub(here).min(MOVES_MAX.saturating_sub(self.moves.len()))
    }

    /// Whether one more move may go to a server now.
    #[must_use]
    pub fn takes(&self, to: ServerId) -> bool {
        self.coming.get(&to).is_none_or(|coming| *coming < MOVES_TO_SERVER)
    }

    /// A replica is to move.
    pub fn begin(&mut self, chunk: ChunkId, planned: Move) {
        self.abandon(chunk);
        *self.leaving.entry(planned.from).or_default() += 1;
        *self.coming.entry(planned.to).or_default() += 1;
        self.moves.insert(chunk, planned);
    }

    /// A replica is to stay where it is.
    pub fn abandon(&mut self, chunk: ChunkId) -> Option<Move> {
        let ended = self.moves.remove(&chunk)?;
        less(&mut self.leaving, ended.from);
        less(&mut self.coming, ended.to);
        Some(ended)
    }

    /// A chunk is as it should be, or is gone: a move of it is over. `moved`: it has left.
    pub fn ended(&mut self, chunk: ChunkId, moved: bool, now: Instant) {
        let Some(ended) = self.abandon(chunk) else { return };
        if let Some(run) = self.run.as_mut().filter(|_| moved) {
            run.moved = run.moved.saturating_add(ended.bytes);
        }
        self.obstacles.clear();
        // Room came about, and who was busy is not.
        self.walks.retain(|_, walk| *walk != Walk::Spent);
        self.settling.push((now.plus(SETTLE), ended));
    }

    /// Where to go on in a server's chunks; `None`: nothing that it holds can move.
    #[must_use]
    pub fn cursor(&self, server: ServerId) -> Option<ChunkId> {
        match self.walks.get(&server) {
            Some(Walk::Spent) => None,
            Some(Walk::At(chunk, _)) => Some(*chunk),
            None => Some(ChunkId(0)),
        }
    }

    /// Chunks of a server up to `last` were looked at, or with `None` all that were left. `found`: one of them moves.
    pub fn looked(&mut self, server: ServerId, last: Option<ChunkId>, found: bool) {
        let found = found || matches!(self.walks.get(&server), Some(Walk::At(_, true)));
        let walk = match last.and_then(|last| last.0.checked_add(1)) {
            Some(next) => Walk::At(ChunkId(next), found),
            None if found => Walk::At(ChunkId(0), false),
            None => Walk::Spent,
        };
        self.walks.insert(server, walk);
    }

    /// Begins a run, and ends a rest.
    pub fn run(&mut self, why: String) {
        self.obstacles.clear();
        (self.run, self.rest_until) = (Some(Run { why, moved: 0 }), None);
    }

    /// Ends a run since nothing can be moved, and rests; why.
    pub fn rest(&mut self, until: Instant) -> String {
        let why: Vec<&str> = self.obstacles.iter().map(|obstacle| obstacle.words()).collect();
        let why = if why.is_empty() { NOTHING_FOUND.into() } else { why.join("; ") };
        let how = format!("nothing more can be moved: {why}");
        self.end(how.clone());
        self.rest_until = Some(until);
        how
    }

    /// The last look at everything found that nothing can be moved, and since then nobody came who could take something.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        self.run.is_none() && self.rest_until.is_some_and(|until| now < until)
    }

    /// An operator asked for it: it need not rest any more.
    pub fn wake(&mut self) {
        self.rest_until = None;
    }

    /// Takes who takes part now. Where somebody came, or room, what could not be moved before perhaps can.
    fn meet(&mut self, places: BTreeMap<ServerId, Place>) {
        let before = |server: &ServerId| self.places.get(server);
        let came = |(server, place): (&ServerId, &Place)| before(server).is_none_or(|before| place.is_better(before));
        if places.iter().any(came) {
            if self.rest_until.take().is_some() {
                tracing::info!("balancing rests no longer: a chunkserver or room came");
            }
            self.walks.clear();
            self.obstacles.clear();
            self.places = places;
            return;
        }
        // Little by little is not lost: what was known stays until it is much less.
        self.places.retain(|server, before| places.get(server).is_some_and(|place| !place.is_less(before)));
        for (server, place) in places {
            self.places.entry(server).or_insert(place);
        }
    }

    /// Ends a run.
    pub fn end(&mut self, how: String) {
        self.run = None;
        self.last = Some(how);
        self.walks.clear();
    }

    /// What has moved is counted by the servers themselves after a while.
    pub fn settle(&mut self, now: Instant) {
        self.settling.retain(|(until, _)| *until > now);
    }

    /// Takes the traffic of servers; those that have much more than the others are returned.
    pub fn busy(&mut self, servers: &Servers, now: Instant) -> Vec<ServerId> {
        self.traffic.retain(|server, _| servers.get(*server).is_some());
        for (server, known) in servers.registered() {
            let bytes = known.traffic_bytes;
            let sample = self.traffic.entry(server).or_insert(Sample { at: now, bytes, rate: 0.0 });
            let span = now.since(sample.at);
            // A count that went back is that of another start.
            if bytes < sample.bytes {
                *sample = Sample { at: now, bytes, rate: 0.0 };
            } else if span >= TRAFFIC_SPAN {
                let rate = (bytes - sample.bytes) as f64 / span.as_secs_f64();
                *sample = Sample { at: now, bytes, rate };
            }
        }
        let rates: Vec<_> = self.traffic.iter().map(|(server, sample)| (*server, sample.rate)).collect();
        traffic::busy(&rates)
    }

    fn sums(&self, of: fn(&Move) -> ServerId) -> BTreeMap<ServerId, u64> {
        let mut sums: BTreeMap<ServerId, u64> = BTreeMap::new();
        for one in self.moves.values().chain(self.settling.iter().map(|(_, one)| one)) {
            let sum = sums.entry(of(one)).or_default();
            *sum = sum.saturating_add(one.bytes);
        }
        sums
    }
}

/// Whether a chunk that moves waits for somebody to take it, and for nothing else: with the move given up it is as it should be.
fn cannot_go_on(entry: &Entry) -> bool {
    entry.work == Work::None
        && entry.need.missing == 0
        && matches!(entry.reason, Some(Reason::NoTarget(_) | Reason::NoRack(_)))
}

/// How full the servers are that take part, in server order.
#[must_use]
pub fn fills(soft: &Soft, now: Instant) -> Vec<Fill> {
    let balancing = &soft.repairing.balancing;
    let (leaving, coming) = (balancing.sums(|one| one.from), balancing.sums(|one| one.to));
    let of = |sums: &BTreeMap<ServerId, u64>, server| sums.get(&server).copied().unwrap_or(0);
    let mut arrived: BTreeMap<ServerId, u64> = BTreeMap::new();
    for (chunk, one) in balancing.moves() {
        let there = |server| soft.locations.replica(server, chunk).is_some();
        if there(one.from) && there(one.to) {
            let sum = arrived.entry(one.to).or_default();
            *sum = sum.saturating_add(one.bytes);
        }
    }
    let mut fills = Vec::new();
    for candidate in soft.servers.candidates(now) {
        let Some(known) = soft.servers.get(candidate.server) else { continue };
        if !candidate.is_active() || candidate.capacity_bytes == 0 {
            continue;
        }
        fills.push(Fill {
            server: candidate.server,
            capacity: candidate.capacity_bytes,
            used: used(&known.disks),
            leaving: of(&leaving, candidate.server),
            coming: of(&coming, candidate.server),
            arrived: of(&arrived, candidate.server),
            takes: candidate.available_bytes > 0 && has_good_disks(known),
        });
    }
    fills
}

/// A disk that is slow or fails is not filled. Busy processors pass by themselves, and often all are on one machine.
fn has_good_disks(server: &Server) -> bool {
    Vitals { cpu_percent: 0, ..server.vitals() }.sickness().is_none()
}

/// Bytes on the disks that work.
fn used(disks: &[v1::DiskInfo]) -> u64 {
    disks.iter().filter(|disk| !disk.failed).fold(0, |sum, disk| sum.saturating_add(disk.used_bytes))
}

impl Soft {
    /// Ends a rest of balancing when somebody came who could take something.
    pub fn meet_places(&mut self, now: Instant) {
        let candidates = self.servers.candidates(now);
        let takes_part = candidates.iter().filter(|one| one.is_active() && one.capacity_bytes > 0);
        let place = |rack: &str, capacity| Place { capacity, rack: rack.to_owned() };
        let places = takes_part.map(|one| (one.server, place(&one.rack, one.capacity_bytes))).collect();
        self.repairing.balancing.meet(places);
    }

    /// Gives up moves that `which` says: their chunks are looked at again, which cancels copies that are needless then.
    pub fn give_up_moves(&mut self, which: impl Fn(&Servers, &Repairing, ChunkId, &Move) -> bool) {
        let balancing = &self.repairing.balancing;
        let ends = |(chunk, one): &(ChunkId, &Move)| which(&self.servers, &self.repairing, *chunk, one);
        let given_up: Vec<ChunkId> = balancing.moves().filter(ends).map(|(chunk, _)| chunk).collect();
        for chunk in given_up {
            self.repairing.balancing.abandon(chunk);
            self.locations.look_again(chunk);
        }
    }

    /// Gives up moves that cannot go on: a server does not take part any more, nobody can take it where it was to go, or it took
    /// too long to begin.
    pub fn give_up_stuck_moves(&mut self, now: Instant) {
        self.give_up_moves(|servers, repairing, chunk, one| {
            let active = |server| {
                servers.wish(server) == ServerWish::Active
                    && matches!(servers.health(server, now), Health::Alive | Health::Suspect)
            };
            let entry = repairing.queue.get(chunk);
            let idle = entry.is_none_or(|entry| entry.work == Work::None);
            let blocked = entry.is_some_and(cannot_go_on);
            !active(one.from) || !active(one.to) || blocked || (now.since(one.since) >= GIVE_UP && idle)
        });
    }
}

#[cfg(test)]
mod tests {
    use quarry_master_core::{command::Durability, placement::filter::Tally, repair::Need};
    use quarry_types::{ClusterKey, Crc32, ReplicaState};

    use super::*;
    use crate::{
        locations::Replica,
        repairing::tests::sealed,
        servers::{Registered, Start},
    };

    #[test]
    fn a_move_that_nobody_can_take_any_more_is_given_up_at_once_and_one_that_waits_for_its_turn_is_not() {
        let chunk = ChunkId(7);
        let given_up = |reason: Reason, missing: u32| {
            let mut soft = Soft::new(ClusterKey::new([7; 32]));
            let moving = Need { wanted: 3, good: 3, missing, moving: 1, ..Need::default() };
            soft.repairing.queue.assess(chunk, moving, 1, Duration::ZERO);
            soft.repairing.queue.wait(chunk, reason, Duration::ZERO);
            let entry = soft.repairing.queue.get(chunk);
            entry.is_some_and(cannot_go_on)
        };
        assert!(given_up(Reason::NoTarget(Tally::default()), 0));
        assert!(given_up(Reason::NoRack(Tally::default()), 0));
        assert!(!given_up(Reason::TargetsBusy(Tally::default()), 0));
        assert!(!given_up(Reason::NoTarget(Tally::default()), 1), "another replica is what is waited for");
    }

    #[test]
    fn s9_moves_toward_one_server_are_bounded() {
        let (a, b) = (ServerId::from_random(1), ServerId::from_random(2));
        let mut balancing = Balancing::default();
        for chunk in 0..MOVES_TO_SERVER as u64 {
            assert!(balancing.takes(b));
            balancing.begin(ChunkId(chunk), Move { from: a, to: b, bytes: 1, since: Instant(Duration::ZERO) });
        }
        assert!(!balancing.takes(b) && balancing.takes(a));
        balancing.abandon(ChunkId(0));
        assert!(balancing.takes(b));
    }

    fn at(secs: u64) -> Instant {
        Instant(Duration::from_secs(secs))
    }

    /// A server that beats, with this room.
    fn join(soft: &mut Soft, n: u128, capacity: u64, now: Instant) {
        let disk = v1::DiskInfo { capacity_bytes: capacity, available_bytes: capacity, ..Default::default() };
        let from = Registered {
            start: Start { counter: 1, id: 1 },
            registration: 1,
            address: format!("h:{n}"),
            rack: "r".into(),
            durability: Durability::Sealed,
            disks: vec![disk],
        };
        soft.servers.register(ServerId::from_random(n), from, now);
    }

    #[test]
    fn a_rest_ends_when_a_server_or_room_comes_and_not_when_some_goes_or_changes_a_little() {
        let mut soft = Soft::new(ClusterKey::new([7; 32]));
        let rests_after = |soft: &mut Soft, now| {
            soft.meet_places(now);
            let rests = soft.repairing.balancing.rests(now);
            soft.repairing.balancing.rest(at(600));
            rests
        };
        join(&mut soft, 1, 1000, at(0));
        join(&mut soft, 2, 1000, at(0));
        soft.meet_places(at(0));
        soft.repairing.balancing.rest(at(600));
        assert!(rests_after(&mut soft, at(0)), "nothing is new");
        join(&mut soft, 2, 1005, at(1));
        assert!(rests_after(&mut soft, at(1)), "a little more");
        join(&mut soft, 2, 1011, at(1));
        assert!(!rests_after(&mut soft, at(1)), "little by little it became more");
        join(&mut soft, 2, 500, at(1));
        assert!(rests_after(&mut soft, at(1)), "less");
        join(&mut soft, 2, 1000, at(1));
        assert!(!rests_after(&mut soft, at(1)), "and back");
        join(&mut soft, 3, 1, at(1));
        assert!(!rests_after(&mut soft, at(1)), "a third one");
        join(&mut soft, 1, 1000, at(100));
        assert!(rests_after(&mut soft, at(100)), "two are silent");
        join(&mut soft, 2, 1000, at(101));
        assert!(!rests_after(&mut soft, at(101)), "one is back");
        assert!(!soft.repairing.balancing.rests(at(600)), "a rest ends by itself");
    }

    #[test]
    fn a_rest_says_what_forbade_moves_since_the_last_one() {
        let mut balancing = Balancing::default();
        balancing.run("somebody is full".into());
        balancing.obstacles.extend([Obstacle::Racks, Obstacle::Size, Obstacle::Racks]);
        let how = balancing.rest(at(600));
        assert_eq!(
            how,
            "nothing more can be moved: chunks are too large to even it out further; the chunkservers that should get more \
             are on racks that their chunks use already"
        );
        assert_eq!(
            (balancing.last.clone(), balancing.rests(at(599)), balancing.rests(at(600))),
            (Some(how), true, false)
        );
        balancing.run("somebody else is full".into());
        assert!(balancing.obstacles.is_empty() && !balancing.rests(at(599)));
    }

    #[test]
    fn a_move_is_over_when_the_replica_that_left_is_gone_and_not_when_its_drop_was_ordered() {
        let (chunk, from, to) = (ChunkId(7), ServerId::from_random(1), ServerId::from_random(2));
        let mut soft = Soft::new(ClusterKey::new([7; 32]));
        let replica = Replica { state: ReplicaState::Sealed, length: 10, crc: Crc32(7) };
        let report = |soft: &mut Soft, server| soft.locations.full_report(server, 1, [(chunk, replica)].into());
        report(&mut soft, from);
        report(&mut soft, to);
        let now = Instant(Duration::from_secs(1));
        soft.repairing.balancing.begin(chunk, Move { from, to, bytes: 10, since: now });
        soft.repairing.drop_sent(chunk, from);
        // The servers never registered, so that nothing else is to be done about the chunk: it wants none of them.
        let record = sealed(0);
        let _none = soft.look_at(chunk, Some(&record), 0, now);
        assert!(soft.repairing.balancing.get(chunk).is_some(), "its server counts the replica still");
        soft.repairing.drop_done(chunk, from, true);
        soft.locations.full_report(from, 2, BTreeMap::new());
        soft.repairing.reported(from, &soft.locations);
        let _none = soft.look_at(chunk, Some(&record), 0, now);
        assert!(soft.repairing.balancing.get(chunk).is_none());
        assert!(!soft.repairing.balancing.is_quiet(), "its room is counted by its server in a moment");
    }
}
