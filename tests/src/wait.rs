//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something, for at most `limit`.
///
/// # Panics
/// With `what` and the last reason when the time is up.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= end => panic!("waited {limit:?} for {what}: {reason}"),
            Err(_) => thread::sleep(POLL),
        }
    }
}
