//! RocksDB with the options of the master's log: small records in synced batches.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use quarry_env::{Batch, KvFactory as _, KvOptions, Space, SyncPoint};
use quarry_env_rocks::Rocks;

use crate::{
    error::{During as _, Outcome},
    measured::{Latencies, Measured, Meter},
};

/// Where the records are.
const SPACE: Space = Space("records");
/// Bytes of a record: about what the commands that create and complete a file take in the log.
const RECORD_BYTES: usize = 200;

/// Writes batches of `batch` records for `time`. One operation is one record.
pub fn run(dir: &Path, batch: u32, time: Duration) -> Outcome<Measured> {
    std::fs::create_dir_all(dir).during(format!("making {}", dir.display()))?;
    let store = Rocks.open(dir, &[SPACE], KvOptions::default()).during("opening a store")?;
    let (mut next, mut latencies, meter) = (0_u64, Latencies::new()?, Meter::begin()?);
    while meter.elapsed() < time {
        let mut records = Batch::default();
        for _ in 0..batch {
            records.put(SPACE, next.to_be_bytes(), vec![next.to_le_bytes()[0]; RECORD_BYTES]);
            next += 1;
        }
        let began = Instant::now();
        store.write(records, Some(SyncPoint("a benchmark"))).during("writing a batch")?;
        let took = began.elapsed();
        (0..batch).for_each(|_| latencies.add(took));
    }
    let measured = meter.end("kv", batch, 0, &latencies, 0.0)?;
    drop(store);
    std::fs::remove_dir_all(dir).during("removing the store")?;
    Ok(measured)
}
