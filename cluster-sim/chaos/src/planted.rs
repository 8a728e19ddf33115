//! The bugs that can be planted, and running one until it is caught.

use std::{path::Path, process::Command};

use crate::Scenario;

/// A bug in the real code that exists only in a build with `--cfg quarry_planted`.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// What [`quarry_types::planted!`] calls it.
    pub name: &'static str,
    /// What is done wrong.
    pub what: &'static str,
    /// Where it shows.
    pub scenario: Scenario,
}

const fn bug(name: &'static str, what: &'static str, scenario: Scenario) -> Bug {
    Bug { name, what, scenario }
}

/// All of them.
pub const BUGS: &[Bug] = &[
    bug("ack-before-tail", "a member acknowledges before the members behind it have it", Scenario::Any),
    bug("seal-at-longest", "a broken chunk is sealed at the largest length that a member has", Scenario::Any),
    bug("forget-tombstone", "a replica is removed without a tombstone", Scenario::Any),
    bug("forget-epoch-check", "an older leader is obeyed", Scenario::Any),
    bug("delete-before-doomed", "chunks of removed files are deleted before they are doomed", Scenario::Any),
    bug("complete-after-abort", "a put whose lease ran out can be completed all the same", Scenario::Lapsed),
    bug("count-old-report", "a replica counts because it was there once", Scenario::Any),
    bug("trim-below-wanted", "one replica too many is dropped", Scenario::Any),
    bug("forget-racks", "surplus is dropped without a look at racks", Scenario::Any),
    bug("forget-drops", "a drop that was sent does not count as done", Scenario::Any),
    bug("apply-retry-twice", "a repeated request takes effect again", Scenario::Any),
    bug("rename-over", "a rename replaces what it was not asked to", Scenario::Any),
    bug("stale-read", "a leader that is cut off goes on leading, and answers from what it has", Scenario::Deposed),
    bug("forget-min-replicas", "a put completes with too few durable replicas", Scenario::Any),
    bug("lose-last-crc", "the CRC of the last block is not written at the seal", Scenario::Any),
    bug("skip-fsync-before-receipt", "a receipt says durable before anything is synced", Scenario::Any),
    bug("skip-fsync-of-flush", "a flush is answered before anything is synced", Scenario::Any),
    bug("skip-fsync-of-log", "a master acknowledges entries that are not on its disk", Scenario::Any),
    bug("skip-fsync-of-vote", "a master votes without writing it down", Scenario::Any),
    bug("trust-wall-clock", "replicated time moves by the wall clock", Scenario::Any),
    bug("seal-before-commit", "a fenced replica calls itself sealed", Scenario::Any),
    bug("scrub-sees-nothing", "scrubbing does not notice blocks that differ", Scenario::Any),
    bug("watermark-over-open", "tombstones go although chunks below are open", Scenario::Any),
    bug("forget-start", "the start counter does not count", Scenario::Any),
];

/// How a bug was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    /// By which seed.
    pub seed: u64,
    /// How many seeds were run until then.
    pub seeds: u64,
    /// What the checker said, in one line.
    pub by: String,
}

/// Runs seeds from `first` on with this bug alive, at most so many, until one fails. `program` is `quarry-chaos` built with
/// planted bugs.
///
/// # Errors
/// When the program does not run.
pub fn catch(program: &Path, bug: &Bug, first: u64, most: u64) -> std::io::Result<Option<Caught>> {
    for seed in first..first.saturating_add(most) {
        let output = Command::new(program)
            .args(["seed", "--scenario", bug.scenario.name(), "--seed", &seed.to_string()])
            .env("QUARRY_PLANTED", bug.name)
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let panic = || said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
            let by = said.lines().find(|line| line.contains(&format!("seed {seed}"))).or_else(panic);
            let by = by.unwrap_or_default().chars().take(240).collect();
            return Ok(Some(Caught { seed, seeds: seed - first + 1, by }));
        }
    }
    Ok(None)
}
