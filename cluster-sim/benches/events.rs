//! What an event of the simulation costs, with everything that it makes the master's code decide: `cargo bench -p quarry-sim`.
//!
//! One run prints every figure with its ratio to the smallest size. Each size loses one server.

#![allow(clippy::disallowed_methods, reason = "it measures how long pure functions take, and nothing depends on it")]
#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "it must stop where an assumption is wrong")]

use std::time::Instant;

use quarry_sim::{scenario::Scenario, world::World};

/// Chunkservers; each has [`CHUNKS_EACH`] chunks of its own.
const SERVERS: [u64; 3] = [100, 1_000, 5_000];
const CHUNKS_EACH: u64 = 1_000;

fn scenario(servers: u64) -> Scenario {
    let text = format!(
        r#"
question = "What does an event cost?"
[run]
for = "1h"
[cluster]
racks = 20
servers = {servers}
disk = "1TB"
[data]
chunks = {}
chunk = "64MiB"
[workload]
reads = "{}MB/s"
[[event]]
at = "1m"
do = "lose"
target = "server:7"
[[event]]
at = "2m"
do = "crash"
target = "server:8"
lasts = "5m"
[[event]]
at = "20m"
do = "partition"
target = "server:9"
lasts = "5m"
"#,
        servers * CHUNKS_EACH,
        servers * 10,
    );
    Scenario::parse("bench", &text).unwrap()
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() {
    println!(
        "{:>8}{:>12}{:>14}{:>14}{:>12}{:>16}{:>18}",
        "servers", "events", "decisions", "us/event", "ratio", "layout ns/chunk", "memory B/chunk"
    );
    let mut first = None;
    for servers in SERVERS {
        let (scenario, before, began) = (scenario(servers), resident(), Instant::now());
        let mut world = World::new(&scenario, 1);
        let (laid, chunks) = (began.elapsed(), servers * CHUNKS_EACH);
        let memory = resident().saturating_sub(before) as f64 / chunks as f64;
        let began = Instant::now();
        world.run();
        let cost = began.elapsed().as_secs_f64() * 1e6 / world.measures.events.max(1) as f64;
        let ratio = cost / *first.get_or_insert(cost);
        let (events, decisions) = (world.measures.events, world.measures.decisions);
        assert_eq!(world.measures.truth.endangered.count(), 0, "all was repaired");
        let layout = laid.as_nanos() as f64 / chunks as f64;
        println!(
            "{servers:>8}{events:>12}{decisions:>14}{cost:>14.1}{:>12}{layout:>16.0}{memory:>18.1}",
            format!("x{ratio:.1}")
        );
    }
}
