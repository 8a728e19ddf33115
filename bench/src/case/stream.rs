//! Large files: one, a shorter one, and four at once.

use super::{Suite, data::Field};
use crate::{
    bed::{Durability, floor, fresh, text},
    book::{FLOOR, QUARRY, Unit},
    error::Outcome,
};

/// The shorter one: one chunk.
const SHORT_BYTES: u64 = 64 << 20;
/// The long one by a client that is given the chunkservers' files.
const LOCAL: &str = "short.get";
/// Files at once.
const STREAMS: &str = "4";

/// Measures them; each run has its floor right before and the peers right behind.
pub fn run(suite: &mut Suite, field: &mut Field<'_>) -> Outcome {
    for _ in 0..suite.plan.runs {
        long(suite, field)?;
        parallel(suite, field)?;
        let short = SHORT_BYTES.to_string();
        for measured in field.bed.bench(&mut suite.book, &["stream", "--size", &short])? {
            let name = measured.case.replace("stream.", "64m.");
            suite.book.add(&field.case(&name), QUARRY, Unit::Megabytes, &measured);
        }
    }
    Ok(())
}

fn long(suite: &mut Suite, field: &mut Field<'_>) -> Outcome {
    let bytes = suite.plan.stream_bytes;
    let size = bytes.to_string();
    let (put, get) = (field.case("put"), field.case("get"));
    suite.warmth.fill()?;
    let dir = fresh(field.floor_dir, "write")?;
    let sync = if field.durability == Durability::Sealed { "chunk" } else { "none" };
    let written = floor(&["write", "--dir", text(&dir)?, "--bytes", &size, "--sync", sync])?;
    suite.book.add(&put, FLOOR, Unit::Megabytes, &written);
    let file = field.floor_dir.join("read");
    let read = floor(&["read", "--file", text(&file)?, "--bytes", &size])?;
    suite.book.add(&get, FLOOR, Unit::Megabytes, &read);
    // Once is enough: a client that reads the files does not notice what their server promises.
    let with_local = (field.place, field.durability) == ("disk", Durability::Buffered);
    if with_local {
        suite.book.add(LOCAL, FLOOR, Unit::Megabytes, &read);
    }
    suite.warmth.fill()?;
    for measured in field.bed.bench(&mut suite.book, &["stream", "--size", &size])? {
        let case = match measured.case.as_str() {
            "stream.put" => &put,
            "stream.get" => &get,
            _ if with_local => LOCAL,
            _ => continue,
        };
        suite.book.add(case, QUARRY, Unit::Megabytes, &measured);
    }
    for peer in field.peers {
        suite.warmth.fill()?;
        let [wrote, got] = peer.stream(bytes, field.durability)?;
        suite.book.add(&put, peer.name(), Unit::Megabytes, &wrote);
        suite.book.add(&get, peer.name(), Unit::Megabytes, &got);
        if with_local {
            suite.book.add(LOCAL, peer.name(), Unit::Megabytes, &got);
        }
    }
    Ok(())
}

fn parallel(suite: &mut Suite, field: &mut Field<'_>) -> Outcome {
    let size = suite.plan.parallel_bytes.to_string();
    suite.warmth.fill()?;
    for measured in field.bed.bench(&mut suite.book, &["parallel", "--streams", STREAMS, "--size", &size])? {
        suite.book.add(&field.case(&measured.case), QUARRY, Unit::Megabytes, &measured);
    }
    for peer in field.peers {
        suite.warmth.fill()?;
        for measured in peer.parallel(suite.plan.parallel_bytes, field.durability)? {
            suite.book.add(&field.case(&measured.case), peer.name(), Unit::Megabytes, &measured);
        }
    }
    Ok(())
}
