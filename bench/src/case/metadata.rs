//! Names: one master and a group of three.

use std::thread;

use quarry_tests::pages::metric;

use super::Suite;
use crate::{
    bed::{Bed, Durability, floor, fresh, text},
    book::{FLOOR, QUARRY, Unit},
    error::{Failed, Outcome},
    measured::Measured,
};

/// How the leading master appended commands to its log: commands, and syncs of them.
#[derive(Clone, Copy)]
struct Appended {
    commands: f64,
    syncs: f64,
}

impl Appended {
    /// So far.
    fn by(bed: &mut Bed) -> Outcome<Self> {
        let master = bed.cluster.master.process();
        let figure = |name: &str| {
            let found = metric(master, &format!("quarry_master_{name}"));
            found.ok_or_else(|| Failed::new("asking the master", format!("its metrics do not have {name}")))
        };
        Ok(Appended { commands: figure("last_log_index")?, syncs: figure("log_appends_total")? })
    }

    /// Commands that shared a sync, on average, since `before`.
    fn batch_since(self, before: Appended) -> u32 {
        // A few hundred at most.
        ((self.commands - before.commands) / (self.syncs - before.syncs).max(1.0)).round().max(1.0) as u32
    }
}

/// Measures both groups.
pub fn run(suite: &mut Suite) -> Outcome {
    for masters in [1, 3] {
        suite.say(format!("metadata, {masters} master{}", if masters > 1 { "s" } else { "" }));
        let dir = fresh(&suite.places.work, "metadata")?;
        let floor_dir = fresh(&suite.places.work, "floor")?;
        let mut bed = Bed::new(masters, 3, Durability::Sealed, &dir, &["trash=0", "reader-grace=1s"]);
        for (files, at_once) in suite.plan.metadata.clone() {
            for _ in 0..suite.plan.runs {
                let name = |what: &str| format!("masters{masters}.c{at_once}.{what}");
                let (count, seconds) = (at_once.to_string(), suite.plan.floor_seconds.to_string());
                let rpc = floor(&["rpc", "--concurrency", &count, "--seconds", &seconds])?;
                suite.book.add(&name("stat"), FLOOR, Unit::Operations, &rpc);
                let args = ["metadata", "--files", &files.to_string(), "--concurrency", &count];
                let before = Appended::by(&mut bed)?;
                for measured in bed.bench(&mut suite.book, &args)? {
                    let case = name(measured.case.trim_start_matches("metadata."));
                    suite.book.add(&case, QUARRY, Unit::Operations, &measured);
                }
                let batch = Appended::by(&mut bed)?.batch_since(before);
                suite.say(format!("{at_once} at once: {batch} commands a sync"));
                suite.book.add(&name("create"), FLOOR, Unit::Operations, &kv(suite, &floor_dir, masters, batch)?);
            }
        }
        let files = suite.plan.list_files.to_string();
        for measured in bed.bench(&mut suite.book, &["list", "--files", &files])? {
            let case = format!("masters{masters}.{}", measured.case);
            suite.book.add(&case, QUARRY, Unit::Microseconds, &measured);
        }
        bed.note_memory(&mut suite.book);
        drop(bed);
        std::fs::remove_dir_all(&dir)?;
        std::fs::remove_dir_all(&floor_dir)?;
    }
    Ok(())
}

/// As many RocksDBs at once as there are masters. The slowest counts: a majority must have each command, and all of them do
/// the same work.
fn kv(suite: &Suite, dir: &std::path::Path, masters: usize, batch: u32) -> Outcome<Measured> {
    let (batch, seconds) = (batch.to_string(), suite.plan.floor_seconds.to_string());
    let stores = (0..masters).map(|_| fresh(dir, "kv")).collect::<Outcome<Vec<_>>>()?;
    let all: Vec<Outcome<Measured>> = thread::scope(|scope| {
        let run = |store: &std::path::PathBuf| {
            let (store, batch, seconds) = (store.clone(), batch.clone(), seconds.clone());
            scope.spawn(move || floor(&["kv", "--dir", text(&store)?, "--batch", &batch, "--seconds", &seconds]))
        };
        let running: Vec<_> = stores.iter().map(run).collect();
        let lost = |_| Err(Failed::new("running a floor", "its thread ended"));
        running.into_iter().map(|one| one.join().unwrap_or_else(lost)).collect()
    });
    let all = all.into_iter().collect::<Outcome<Vec<_>>>()?;
    let slowest = all.into_iter().min_by(|a, b| a.rate().total_cmp(&b.rate()));
    slowest.ok_or_else(|| Failed::new("running a floor", "there is no master"))
}
