//! 1 KiB at the end of a file, flushed each time.

use super::{Suite, data::Field};
use crate::{
    book::{QUARRY, Unit},
    error::Outcome,
};

/// Appends and flushes.
pub fn run(suite: &mut Suite, field: &mut Field<'_>) -> Outcome {
    let operations = suite.plan.operations.to_string();
    for _ in 0..suite.plan.runs {
        for measured in field.bed.bench(&mut suite.book, &["append", "--operations", &operations])? {
            suite.book.add(&field.case("append"), QUARRY, Unit::Operations, &measured);
        }
    }
    Ok(())
}
