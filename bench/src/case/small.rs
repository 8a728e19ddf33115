//! Small files, sixteen at once: put, stat, get, remove.

use super::{Suite, data::Field};
use crate::{
    book::{QUARRY, Unit},
    error::Outcome,
};

/// At once.
const AT_ONCE: u32 = 16;
/// Their bytes, the names of the cases, and by how much fewer of them there are.
pub(super) const SIZES: [(u64, &str, u64); 3] = [(4 << 10, "4k", 1), (64 << 10, "64k", 2), (1 << 20, "1m", 8)];

/// Measures them, and the peers right behind.
pub fn run(suite: &mut Suite, field: &mut Field<'_>) -> Outcome {
    for (bytes, name, fewer) in SIZES {
        let files = (suite.plan.small_files / fewer).max(u64::from(AT_ONCE));
        let (at_once, count, size) = (AT_ONCE.to_string(), files.to_string(), bytes.to_string());
        let args = ["small", "--concurrency", &at_once, "--files", &count, "--file-size", &size];
        for _ in 0..suite.plan.runs {
            for measured in field.bed.bench(&mut suite.book, &args)? {
                let case = field.case(&measured.case.replace("small", name));
                suite.book.add(&case, QUARRY, Unit::Operations, &measured);
            }
            for peer in field.peers {
                for measured in peer.small(bytes, files, AT_ONCE, field.durability)? {
                    let case = field.case(&measured.case.replace("small", name));
                    suite.book.add(&case, peer.name(), Unit::Operations, &measured);
                }
            }
        }
    }
    Ok(())
}
