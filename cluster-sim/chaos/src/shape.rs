//! What a seed picks before a run begins: machines, knobs, durability, work, and which faults there may be.
//!
//! # The fault budget
//! What a run may do to the cluster, so that what was promised must still hold:
//! - **Machines** may lose power or be killed at any moment, one or all, as often as it likes, also at a named point of their
//!   work (a sync, a moment of a command's life). Disks keep what was synced, and nothing else for certain.
//! - **The network** may cut, silence and delay any link, both ways or one, and lose every connection. Nothing is corrupted under
//!   way (that is outside the model until there is TLS).
//! - **Wall clocks** may jump by a day in either direction, at any time, on any machine.
//! - **Bits rot** only in a replica of which two others are good, and never twice in one chunk: three copies survive the loss of
//!   one, and nobody promised more.
//! - **One chunkserver** of the run, the frail one, may lose more than its power: syncs and reads fail there, or its disk is
//!   replaced by an older image of itself. That is a lost replica of every chunk, so it happens only while every sealed chunk has
//!   a good replica elsewhere, and its bits do not rot besides.
//! - **`buffered` durability** promises no survival of power losses on chunkservers: there they are only killed, one at a time and
//!   not soon after one another (`FAULT_MODEL.md` says what is lost when all processes are killed at once), and none is frail.
//! - A majority of masters comes back before long.
//!
//! At the end everything starts, heals and is fast again, and then the cluster must come to rest.

use std::time::Duration;

use quarry_chunkserver_core::Durability;
use quarry_client::ErrorCode;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{cluster::Plan, operator::SETTLE_DEADLINE, worker::Habits};

const SERVERS: [&str; 4] = ["chunk1", "chunk2", "chunk3", "chunk4"];
/// Two racks of two and one of one.
const ON_RACKS: [(&str, &str); 5] =
    [("chunk1", "r1"), ("chunk2", "r1"), ("chunk3", "r2"), ("chunk4", "r2"), ("chunk5", "r3")];
/// Servers of which one may stay drained there at the end: each rack that is left has another one.
const MAY_EMPTY: usize = 4;
/// So small that the servers are not evenly full, and yet much more than is written.
const CAPACITY: u64 = 256 << 20;
/// Short, so that what dead writers leave is collected within the run.
const LEASE: Duration = Duration::from_secs(10);
const SESSION: Duration = Duration::from_secs(60);

/// Where replicas rot the only one that can be reached may be bad and is refused; and who waits for a late disk may learn of its
/// end before the server is gone. A server that has not looked at its disks yet counts as one without room.
const ALSO_PASSING: [ErrorCode; 3] = [ErrorCode::Corrupt, ErrorCode::DiskFailed, ErrorCode::NoSpace];

/// A run before it begins.
#[derive(Clone)]
pub struct Shape {
    pub plan: Plan,
    pub habits: Habits,
    pub trouble: Trouble,
    /// Whether there is an operator, and of how many servers one may stay drained.
    pub operator: Option<usize>,
}

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Also what repair has to do with: long absences, replicas that rot, disks that take their time, leaders that follow one
    /// another while commands are on their way.
    pub repair: bool,
    /// Also what came later: losses at named moments, slow links, lost connections, disks that fail, old images.
    pub named: bool,
    /// Chunkservers lose no power and are killed one at a time.
    pub gentle: bool,
    /// The chunkserver whose disk may fail.
    pub frail: Option<usize>,
}

impl Shape {
    /// One master, four servers, and the plain faults.
    pub fn work(_seed: u64) -> Self {
        let mut plan = Plan { lease: LEASE, session: SESSION, ..Plan::new(&SERVERS) };
        plan.settings.push(("reader-grace", "5s".into()));
        let habits = Habits {
            deeds: 20,
            pause_ms: 500,
            set_replicas: false,
            also_passing: &[],
            heal_deadline: Duration::from_secs(300),
            players: 0,
            together: 0,
            min_replicas: 2,
        };
        let trouble = Trouble { repair: false, named: false, gentle: false, frail: None };
        Shape { plan, habits, trouble, operator: None }
    }

    /// One master, five servers on three racks, an operator, and all that repair has to do with.
    pub fn repair(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let habits = Habits {
            deeds: 25,
            pause_ms: 4000,
            set_replicas: true,
            also_passing: &ALSO_PASSING,
            heal_deadline: SETTLE_DEADLINE,
            ..Self::work(seed).habits
        };
        let mut plan = Plan {
            servers: ON_RACKS.into(),
            capacity: Some(CAPACITY),
            lease: LEASE,
            session: SESSION,
            ..Plan::new(&[])
        };
        plan.settings.extend(repair_settings(&mut rng));
        let trouble = Trouble { repair: true, ..Self::work(seed).trouble };
        Shape { plan, habits, trouble, operator: Some(MAY_EMPTY) }
    }

    /// Whatever the seed picks.
    pub fn any(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0073_6861_7065);
        let repair = rng.random_bool(0.5);
        let mut shape = if repair { Self::repair(rng.random()) } else { Self::work(seed) };
        let (plan, habits) = (&mut shape.plan, &mut shape.habits);
        plan.masters = if rng.random_bool(0.5) { 3 } else { 1 };
        if !repair && rng.random_bool(0.5) {
            // Just enough: no other one can take its place.
            plan.servers.truncate(3);
        }
        if rng.random_bool(0.2) {
            plan.durability = Durability::Buffered;
        }
        plan.lease = Duration::from_secs([5, 10, 20][rng.random_range(0..3)]);
        plan.session = Duration::from_secs([30, 60][rng.random_range(0..2)]);
        if !repair {
            // A read that fails puts a replica into quarantine, where it would stay for a day.
            plan.settings.push(("quarantine-keep", "4s".into()));
        }
        habits.also_passing = &ALSO_PASSING;
        habits.heal_deadline = SETTLE_DEADLINE;
        habits.deeds = rng.random_range(8..=16);
        habits.pause_ms =
            if repair { [1500, 4000][rng.random_range(0..2)] } else { [300, 1500][rng.random_range(0..2)] };
        habits.players = [0, 3, 4][rng.random_range(0..3)];
        habits.together = [0, 2, 3][rng.random_range(0..3)];
        let buffered = plan.durability == Durability::Buffered;
        let frail = (rng.random_bool(0.4) && plan.servers.len() > 3 && !buffered)
            .then(|| rng.random_range(0..plan.servers.len()));
        shape.trouble = Trouble { repair, named: true, gentle: buffered, frail };
        shape
    }
}

/// Knobs of repair, small ones: from copies that take seconds to copies that take none.
fn repair_settings(rng: &mut ChaCha8Rng) -> Vec<(&'static str, String)> {
    let delay = ["0s", "1s", "4s"][rng.random_range(0..3)];
    let rate = ["100kB/s", "400kB/s", "50MB/s"][rng.random_range(0..3)];
    let keep = ["0s", "4s"][rng.random_range(0..2)];
    let all = [
        ("reader-grace", "5s"),
        ("repair-delay", delay),
        ("repair-rate", rate),
        ("quarantine-keep", keep),
        ("brake-hold", "15s"),
        ("partitioned-limit", "10s"),
        ("balance-band", "1%"),
    ];
    all.map(|(name, value)| (name, value.to_owned())).into()
}
