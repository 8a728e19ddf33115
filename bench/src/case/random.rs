//! Reads at random offsets, beside an empty round trip and beside local reads.

use super::{Suite, data::Field};
use crate::{
    bed::{floor, text},
    book::{FLOOR, QUARRY, Unit},
    error::Outcome,
};

/// The empty round trip.
pub const ECHO: &str = "echo";
/// Names of the cases, over the network and from a chunkserver's files, and their bytes.
const SIZES: [(&str, &str, &str); 2] =
    [("random.64k", "short.random.64k", "65536"), ("random.1m", "short.random.1m", "1048576")];

/// Measures them.
pub fn run(suite: &mut Suite, field: &mut Field<'_>) -> Outcome {
    let operations = suite.plan.operations.to_string();
    let bytes = suite.plan.stream_bytes.to_string();
    let file = field.floor_dir.join("read");
    for _ in 0..suite.plan.runs {
        let echo = floor(&["echo", "--operations", &operations])?;
        suite.book.add(ECHO, FLOOR, Unit::Microseconds, &echo);
        for (case, short, size) in SIZES {
            let args =
                ["pread", "--file", text(&file)?, "--bytes", &bytes, "--size", size, "--operations", &operations];
            let read = floor(&args)?;
            suite.book.add(case, FLOOR, Unit::Microseconds, &read);
            suite.book.add(short, FLOOR, Unit::Microseconds, &read);
        }
        for measured in field.bed.bench(&mut suite.book, &["random", "--size", &bytes, "--operations", &operations])? {
            let short = measured.case.strip_suffix("-local").map(|case| format!("short.{case}"));
            suite.book.add(short.as_ref().unwrap_or(&measured.case), QUARRY, Unit::Microseconds, &measured);
        }
    }
    Ok(())
}
