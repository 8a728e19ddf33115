//! **S10, time is not trusted.**
//!
//! *Observes* replicated time in every change of the state, while the wall clocks of all machines jump by hours. *From* the
//! masters' state, compared with simulated time: it never goes back, and it never runs ahead of how long the cluster has existed.
//!
//! *Cannot see* a lease that ended too early by a few seconds: that shows as work that failed with `LeaseLost`, which is
//! allowed. Clocks of processes do not stand still here, since a simulated process cannot be stopped (`faults.rs`).

use std::time::Duration;

/// What is wrong with replicated time moving so, when the cluster runs for so long.
pub fn time(before_ms: u64, after_ms: u64, run: Duration) -> Option<String> {
    if after_ms < before_ms {
        return Some(format!("S10: replicated time goes back from {before_ms} ms to {after_ms} ms"));
    }
    let run_ms = u64::try_from(run.as_millis()).unwrap_or(u64::MAX);
    (after_ms > run_ms).then(|| format!("S10: replicated time is {after_ms} ms after a run of {run_ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_neither_goes_back_nor_ahead() {
        assert_eq!(time(5, 6, Duration::from_millis(6)), None);
        assert!(time(6, 5, Duration::from_secs(1)).is_some());
        assert!(time(5, 7, Duration::from_millis(6)).is_some());
    }
}
