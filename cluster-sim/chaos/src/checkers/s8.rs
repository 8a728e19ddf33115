//! **S8, errors, not hangs.**
//!
//! *Observes* every call of the client library that ended: how long it took in simulated time, and with which error. *From* the
//! clients. No call may outlast its deadline by more than [`SLACK`] for as long as nothing moves, and only errors that tell the
//! caller something true about a cluster with faults may come (`worker.rs` has the list). A call that never ends shows as a
//! simulation that does not end.
//!
//! *Cannot see* whether a person understands the words of an error.

use std::time::Duration;

/// What a deadline may be passed by: retries under way are waited for, and a writer has several steps.
pub const SLACK: Duration = Duration::from_secs(60);

/// What is wrong with a call without data to move, which took so long under this deadline.
pub fn call(doing: &str, took: Duration, deadline: Duration) -> Option<String> {
    (took > deadline + SLACK).then(|| format!("S8: {doing} took {took:?}, and its deadline is {deadline:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_refused() {
        let (second, deadline) = (Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(call("stat", second, deadline), None);
        assert!(call("stat", Duration::from_secs(71), deadline).is_some());
    }
}
