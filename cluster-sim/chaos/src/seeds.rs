//! Seeds, each in a process of its own: what a process did before must not be able to matter.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::Scenario;

/// Lines before the first difference of two traces that are shown.
const CONTEXT_LINES: usize = 5;
/// Lines of what a failed run said that are shown.
const SAID_LINES: usize = 12;

/// Seeds from the first to the last, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| format!("{text:?} is no seed; write one as 7, or many as 1..1000"))
        };
        let range = match text.split_once("..") {
            Some((first, last)) => number(first)?..=number(last.trim_start_matches('='))?,
            None => number(text)?..=number(text)?,
        };
        if range.is_empty() {
            return Err(format!("{text:?} has no seed in it; the first comes first, as in 1..1000"));
        }
        Ok(Seeds(range))
    }
}

/// Why a run failed, and how it is had again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed} of {scenario} failed: {why}\n  replay: {replay}")]
pub struct Failed {
    /// What was run.
    pub scenario: Scenario,
    /// With which seed.
    pub seed: u64,
    /// The end of what it said.
    pub why: String,
    /// The line that repeats it.
    pub replay: String,
}

/// Runs one seed by `program`, which is `quarry-chaos`; leaves its whole trace at `trace`, if asked.
///
/// # Errors
/// [`Failed`] when it broke a rule, hung, or did not run at all.
pub fn run_one(program: &Path, scenario: Scenario, seed: u64, trace: Option<&Path>) -> Result<(), Failed> {
    let mut command = Command::new(program);
    command.args(["seed", "--scenario", scenario.name(), "--seed", &seed.to_string()]);
    if let Some(trace) = trace {
        command.arg("--trace").arg(trace);
    }
    let output = command.stdin(Stdio::null()).output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = said.lines().filter(|line| !line.contains("RUST_BACKTRACE")).collect();
            format!("{}\n    {}", output.status, lines[..lines.len().min(SAID_LINES)].join("\n    "))
        }
        Err(error) => format!("{} cannot be run: {error}", program.display()),
    };
    Err(Failed { scenario, seed, why, replay: format!("quarry-chaos replay --scenario {scenario} --seed {seed}") })
}

/// Runs one seed twice and compares the traces byte by byte; the trace.
///
/// # Errors
/// [`Failed`] also when they differ: something in the run did not come from the seed.
pub fn run_twice(program: &Path, scenario: Scenario, seed: u64) -> Result<String, Failed> {
    let replay = format!("quarry-chaos run --twice --scenario {scenario} --seeds {seed}");
    let failed = |why: String| Failed { scenario, seed, why, replay: replay.clone() };
    let dir = tempfile::tempdir().map_err(|e| failed(format!("no temporary directory: {e}")))?;
    let run = |name: &str| {
        let path = dir.path().join(name);
        run_one(program, scenario, seed, Some(&path))?;
        std::fs::read_to_string(&path).map_err(|e| failed(format!("the run left no trace: {e}")))
    };
    let (first, second) = (run("first")?, run("second")?);
    match difference(&first, &second) {
        None => Ok(first),
        Some(difference) => Err(failed(format!("two runs of one seed differ at {difference}"))),
    }
}

/// The first line in which two traces differ, with what led there; `None` when they are the same.
#[must_use]
pub fn difference(one: &str, other: &str) -> Option<String> {
    if one == other {
        return None;
    }
    let (one, other): (Vec<_>, Vec<_>) = (one.lines().collect(), other.lines().collect());
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let before = one[same.saturating_sub(CONTEXT_LINES)..same].join("\n");
    let at = |lines: &[&str]| lines.get(same).map_or("(the end)".to_owned(), |line| (*line).to_owned());
    Some(format!("line {}:\n{before}\n- {}\n+ {}", same + 1, at(&one), at(&other)))
}

/// Seeds to run.
#[derive(Clone, Debug)]
pub struct Work {
    /// `quarry-chaos`.
    pub program: PathBuf,
    /// What.
    pub scenario: Scenario,
    /// Which.
    pub seeds: Seeds,
    /// At once.
    pub jobs: usize,
    /// Twice each, comparing the traces.
    pub twice: bool,
    /// Also behind a seed that failed.
    pub keep_going: bool,
}

impl Work {
    /// Runs the seeds in order, `jobs` at a time, and tells `done` of each as it ends; how many there were.
    pub fn run(&self, done: impl Fn(u64, Result<(), Failed>) + Sync) -> u64 {
        let (next, ran, stop) = (AtomicU64::new(*self.seeds.0.start()), AtomicU64::new(0), AtomicBool::new(false));
        let telling = Mutex::new(());
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if !self.seeds.0.contains(&seed) {
                            break;
                        }
                        let outcome = match self.twice {
                            true => run_twice(&self.program, self.scenario, seed).map(|_| ()),
                            false => run_one(&self.program, self.scenario, seed, None),
                        };
                        ran.fetch_add(1, Ordering::Relaxed);
                        if outcome.is_err() && !self.keep_going {
                            stop.store(true, Ordering::Relaxed);
                        }
                        let _one_at_a_time = telling.lock().unwrap_or_else(PoisonError::into_inner);
                        done(seed, outcome);
                    }
                });
            }
        });
        ran.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_two_traces_is_found_wherever_it_is() {
        let one = "a\nb\nc\n";
        assert_eq!(difference(one, one), None);
        for (other, line) in [("a\nx\nc\n", 2), ("a\nb\n", 3), ("a\nb\nc\nd\n", 4), ("", 1)] {
            let found = difference(one, other).expect("they differ");
            assert!(found.starts_with(&format!("line {line}:")), "{other:?}: {found}");
        }
        assert!(difference("a\n", "a").is_some(), "a byte is a difference");
    }

    #[test]
    fn seeds_are_written_as_one_or_from_to() {
        assert_eq!("7".parse(), Ok(Seeds(7..=7)));
        assert_eq!("1..1000".parse(), Ok(Seeds(1..=1000)));
        for bad in ["", "a", "5..1", "1..x", "-1"] {
            assert!(bad.parse::<Seeds>().is_err(), "{bad}");
        }
    }
}
