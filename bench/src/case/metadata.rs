//! Names: one master and a group of three.

use std::thread;

use super::Suite;
use crate::{
    bed::{Bed, Durability, floor, fresh, text},
    book::{FLOOR, QUARRY, Unit},
    error::{Failed, Outcome},
    measured::Measured,
};

/// Records of a batch that the RocksDB floor syncs at once, where this many commands are under way.
fn batch(at_once: u32) -> u32 {
    at_once
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
                suite.book.add(&name("create"), FLOOR, Unit::Operations, &kv(suite, &floor_dir, masters, at_once)?);
                let (count, seconds) = (at_once.to_string(), suite.plan.floor_seconds.to_string());
                let rpc = floor(&["rpc", "--concurrency", &count, "--seconds", &seconds])?;
                suite.book.add(&name("stat"), FLOOR, Unit::Operations, &rpc);
                let args = ["metadata", "--files", &files.to_string(), "--concurrency", &count];
                for measured in bed.bench(&mut suite.book, &args)? {
                    let case = name(measured.case.trim_start_matches("metadata."));
                    suite.book.add(&case, QUARRY, Unit::Operations, &measured);
                }
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
fn kv(suite: &Suite, dir: &std::path::Path, masters: usize, at_once: u32) -> Outcome<Measured> {
    let (batch, seconds) = (batch(at_once).to_string(), suite.plan.floor_seconds.to_string());
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
