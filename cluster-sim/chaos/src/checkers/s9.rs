//! **S9, bounded.**
//!
//! *Observes* the tables of the replicated state after every command, and the tombstones of every chunkserver at the end. *From*
//! the metadata stores. What belongs to work that has ended must go: leases, results, nonces, open and doomed chunks. Tables that
//! have a limit stay below it.
//!
//! *Cannot see* memory, queues and connections of the processes, which run in one process here: `tests/tests/memory.rs` and
//! the tests beside the code look at those.

/// The most rows of each table that so few clients can have a use for at a time.
const ROWS_MAX: [(&str, usize); 3] = [("lease", 64), ("open", 256), ("result", 4096)];

/// What is wrong with so many rows in a table.
pub fn table(name: &str, rows: usize) -> Option<String> {
    let (_, most) = ROWS_MAX.iter().find(|(bounded, _)| *bounded == name)?;
    (rows > *most).then(|| format!("S9: table {name} has {rows} rows, and {most} are the most that this work needs"))
}

/// What is wrong at the end, when all is at rest: rows that no work has a use for any more.
pub fn at_rest(name: &str, rows: usize) -> Option<String> {
    (name == "open" && rows > 0).then(|| format!("S9: table {name} still has {rows} rows at rest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_only_grows_is_refused() {
        assert!(table("lease", 65).is_some() && table("lease", 64).is_none() && table("chunk", 1 << 20).is_none());
        assert!(at_rest("open", 1).is_some() && at_rest("open", 0).is_none() && at_rest("chunk", 9).is_none());
    }
}
