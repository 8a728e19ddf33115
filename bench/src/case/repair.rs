//! A chunkserver dies: how fast what it held is restored, and what that costs those who write meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quarry_client::{Client, ClientConfig};
use quarry_env::{World, kv::NoKv};

use super::Suite;
use crate::{
    bed::{Bed, Durability, fresh},
    book::{Book, FLOOR, QUARRY, Unit, median},
    error::{During as _, Failed, Outcome},
    floor::serve::runtime,
    measured::Measured,
};

/// Chunkservers: one more than copies, so that there is somewhere to restore to.
const SERVERS: usize = 4;
/// Bytes per second that one server may take for repair; the default.
const BUDGET: f64 = 50e6;
/// Nothing waits for this in a benchmark.
const AT_ONCE: [&str; 3] = ["repair-delay=0", "trash=0", "reader-grace=1s"];
/// As good as no budget.
const UNBOUNDED: [&str; 3] = ["repair-rate=10000MB/s", "repair-in=8", "repair-out=8"];
/// A repair ends within this.
const LIMIT: Duration = Duration::from_secs(300);
/// Looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bytes of a put in the foreground.
const FOREGROUND_BYTES: &str = "268435456";
/// Bytes of a chunk, and of ten.
const CHUNKS: [(u64, &str); 2] = [(64 << 20, "repair.one-chunk"), (640 << 20, "repair.ten-chunks")];

/// Measures them, each on a cluster of its own.
pub fn run(suite: &mut Suite) -> Outcome {
    suite.say("repair at the default budget");
    let bytes = suite.plan.repair_bytes;
    let restored = dead(suite, bytes, &AT_ONCE, |_, _| Ok(()))?;
    suite.book.value("repair.one", QUARRY, Unit::Megabytes, restored.rate());
    // Those that are left all take what their budget allows.
    suite.book.value("repair.one", FLOOR, Unit::Megabytes, (SERVERS - 1) as f64 * BUDGET / 1e6);

    for (bytes, case) in CHUNKS {
        suite.say(format!("{case}, without a budget"));
        let restored = dead(suite, bytes, &[AT_ONCE, UNBOUNDED].concat(), |_, _| Ok(()))?;
        suite.book.value(case, QUARRY, Unit::Megabytes, restored.rate());
    }

    suite.say("puts during a repair");
    let (mut before, mut during) = (Vec::new(), Vec::new());
    dead(suite, bytes, &AT_ONCE, |bed, book| {
        let put = foreground(bed, book)?.megabytes();
        if bed.dead() {
            during.push(put)
        } else {
            before.push(put)
        }
        Ok(())
    })?;
    if during.is_empty() {
        suite.book.note("not measured: what a repair costs the foreground; it was over too soon");
        return Ok(());
    }
    during.iter().for_each(|put| suite.book.value("repair.foreground", QUARRY, Unit::Megabytes, *put));
    before.iter().for_each(|put| suite.book.value("repair.foreground", "alone", Unit::Megabytes, *put));
    let loss = 1.0 - median(&during) / median(&before);
    suite.book.value("repair.foreground-loss", QUARRY, Unit::Times, loss.max(0.0));
    Ok(())
}

/// What was restored.
struct Restored {
    bytes: u64,
    took: Duration,
}

impl Restored {
    fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64().max(1e-9)
    }
}

/// A cluster of which the last chunkserver may be dead.
struct Wounded {
    bed: Bed,
    client: Client,
    runtime: tokio::runtime::Runtime,
    dead: bool,
}

impl Wounded {
    fn dead(&self) -> bool {
        self.dead
    }

    /// Bytes that are still to be copied; `None` while the master does not know exactly.
    fn left(&self) -> Outcome<Option<u64>> {
        let reply = self.runtime.block_on(self.client.repairs(1, false)).during("asking for the repairs")?;
        Ok(reply.incomplete.is_empty().then_some(reply.bytes_left))
    }
}

fn foreground(wounded: &mut Wounded, book: &mut Book) -> Outcome<Measured> {
    let Wounded { bed, dead, .. } = wounded;
    if *dead {
        bed.cluster.servers.truncate(SERVERS - 1);
    }
    let measured = bed.bench(book, &["stream", "--size", FOREGROUND_BYTES])?;
    measured.into_iter().next().ok_or_else(|| Failed::new("putting in the foreground", "nothing was measured"))
}

/// Fills a cluster, kills a server, and waits until everything is restored. `beside` runs three times before and again and
/// again meanwhile.
fn dead(
    suite: &mut Suite,
    bytes: u64,
    settings: &[&str],
    mut beside: impl FnMut(&mut Wounded, &mut Book) -> Outcome,
) -> Outcome<Restored> {
    suite.warmth.fill()?;
    let dir = fresh(&suite.places.work, "repair")?;
    let bed = Bed::new(1, SERVERS, Durability::Sealed, &dir, settings);
    let runtime = runtime()?;
    let config = ClientConfig::new([bed.cluster.master.address.clone()]);
    let connecting = Client::connect(World::real(Arc::new(NoKv)), config);
    let client = runtime.block_on(connecting).during("connecting")?;
    let mut wounded = Wounded { bed, client, runtime, dead: false };
    put(&wounded, bytes)?;
    wounded.bed.cluster.wait_reported();
    for _ in 0..suite.plan.runs {
        beside(&mut wounded, &mut suite.book)?;
    }
    let holds: u64 = held(&wounded);
    wounded.bed.note_memory(&mut suite.book);
    if let Some(server) = wounded.bed.cluster.servers.last_mut() {
        server.kill();
    }
    wounded.dead = true;
    let restored = wait(&mut wounded, suite, holds, &mut beside)?;
    drop(wounded);
    std::fs::remove_dir_all(dir)?;
    Ok(restored)
}

fn wait(
    wounded: &mut Wounded,
    suite: &mut Suite,
    holds: u64,
    beside: &mut impl FnMut(&mut Wounded, &mut Book) -> Outcome,
) -> Outcome<Restored> {
    let killed = Instant::now();
    let mut began = None;
    loop {
        let left = wounded.left()?;
        match (left, began) {
            (Some(0), Some(began)) => return Ok(Restored { bytes: holds, took: Instant::now() - began }),
            // The ledger has it from the verdict on, that the server is dead.
            (Some(1..), None) => began = Some(Instant::now()),
            (_, Some(_)) => beside(wounded, &mut suite.book)?,
            (_, None) => {}
        }
        if killed.elapsed() > LIMIT {
            return Err(Failed::new("waiting for a repair", format!("{left:?} bytes are left after {LIMIT:?}")));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Puts one file that stays.
fn put(wounded: &Wounded, bytes: u64) -> Outcome {
    let ring = bytes::Bytes::from(crate::floor::ring::ring()?);
    wounded.runtime.block_on(async {
        let options = quarry_client::CreateOptions::default();
        let mut writer = wounded.client.create("/restored", &options).await.during("putting a file")?;
        let mut left = bytes;
        while left > 0 {
            let piece = ring.slice(..usize::try_from(left).unwrap_or(usize::MAX).min(ring.len()));
            left -= piece.len() as u64;
            writer.write_bytes(piece).await.during("putting a file")?;
        }
        writer.finish().await.map(drop).during("putting a file")
    })
}

/// Bytes that the last server holds.
fn held(wounded: &Wounded) -> u64 {
    let files = wounded.bed.cluster.chunk_files();
    let last = files.iter().filter(|(server, _)| *server == SERVERS - 1);
    last.filter_map(|(_, path)| std::fs::metadata(path).ok()).map(|found| found.len()).sum()
}
