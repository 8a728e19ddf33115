//! `quarry-chaos`: runs the real cluster in a bottle, and shows what happened in there.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use quarry_chaos::{
    Scenario,
    planted::{self, Bug},
    seeds::{Failed, Seeds, Work},
    trace::{self, Detail},
};

/// A run takes seconds of real time, up to two minutes; one that takes this long hangs.
const RUN_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The exit code of a run that hangs.
const HUNG: i32 = 3;

/// Real masters, chunkservers and clients in one process, on simulated network, disks, clocks and chance.
#[derive(Parser)]
#[command(name = "quarry-chaos", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs many seeds, each in a process of its own. A failure prints the line that replays it.
    Run(Run),
    /// Runs one seed and shows what each machine did.
    Replay(Replay),
    /// Runs seeds with bugs planted one at a time until each is caught. Needs a build with `--cfg quarry_planted`:
    /// `scripts/planted`.
    Planted(Planted),
    /// Runs one seed in this process and says nothing unless it fails.
    #[command(hide = true)]
    Seed(Seed),
}

#[derive(Args)]
struct Run {
    /// The seeds: 7, or 1..1000 (both ends included).
    #[arg(long, value_name = "SEEDS")]
    seeds: Seeds,
    /// What to run: put, flush, image, deposed, lapsed, work, repair, any.
    #[arg(long, default_value_t = Scenario::Any)]
    scenario: Scenario,
    /// How many at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Runs each seed twice and compares the traces byte by byte.
    #[arg(long)]
    twice: bool,
    /// Goes on behind a seed that fails.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Args)]
struct Replay {
    /// The seed.
    #[arg(long)]
    seed: u64,
    /// What to run: put, flush, image, deposed, lapsed, work, repair, any.
    #[arg(long, default_value_t = Scenario::Any)]
    scenario: Scenario,
    /// Shows every call to a disk and every piece that is sent as well: gigabytes, for some seeds.
    #[arg(long)]
    full: bool,
    /// Writes it to a file.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Args)]
struct Planted {
    /// These only; all of them when none is named.
    bugs: Vec<String>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The most seeds for each.
    #[arg(long, default_value_t = 60)]
    seeds: u64,
    /// How many bugs at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

#[derive(Args)]
struct Seed {
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    scenario: Scenario,
    #[arg(long)]
    trace: Option<PathBuf>,
}

#[expect(clippy::print_stderr, reason = "this is its output")]
fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Run(run) => many(&run),
        Verb::Replay(replay) => {
            if let Some(Err(error)) = replay.to.as_ref().map(std::fs::File::create) {
                eprintln!("the trace cannot be written: {error}; name another file with --to");
                return ExitCode::FAILURE;
            }
            end_when_hung();
            let detail = if replay.full { Detail::All } else { Detail::Readable };
            trace::start(replay.to.as_deref(), detail);
            replay.scenario.run(replay.seed);
            // Who reads the standard output may have seen enough; a file is wanted whole.
            if let (Err(error), Some(path)) = (trace::flush(), &replay.to) {
                eprintln!(
                    "the trace in {} is not whole: {error}; name a file with more room with --to",
                    path.display()
                );
                return ExitCode::FAILURE;
            }
            say(format_args!("seed {} of {}: every rule held", replay.seed, replay.scenario));
            ExitCode::SUCCESS
        }
        Verb::Planted(planted) => catch_all(&planted),
        Verb::Seed(seed) => {
            end_when_hung();
            if let Some(path) = &seed.trace {
                trace::start(Some(path), Detail::All);
            }
            seed.scenario.run(seed.seed);
            match trace::flush() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("the trace cannot be written: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is its output")]
fn many(run: &Run) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("the path of this program cannot be told, so it cannot start itself for each seed: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Run { seeds, scenario, jobs, twice, keep_going } = run;
    let work = Work {
        program,
        scenario: *scenario,
        seeds: seeds.clone(),
        jobs: usize::from(*jobs),
        twice: *twice,
        keep_going: *keep_going,
    };
    let failures = AtomicU64::new(0);
    let ran = work.run(|seed, outcome: Result<(), Failed>| match outcome {
        Ok(()) => say(format_args!("seed {seed}: every rule held")),
        Err(failed) => {
            failures.fetch_add(1, Ordering::Relaxed);
            say(format_args!("{failed}"));
        }
    });
    let failures = failures.into_inner();
    say(format_args!("{ran} seeds of {scenario}, {failures} failed"));
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The table of planted bugs, a line each as it is caught.
#[expect(clippy::print_stderr, reason = "this is its output")]
fn catch_all(planted: &Planted) -> ExitCode {
    let Ok(program) = std::env::current_exe() else {
        eprintln!("the path of this program cannot be told, so it cannot start itself for each seed");
        return ExitCode::FAILURE;
    };
    if !cfg!(quarry_planted) {
        eprintln!("this build has no planted bugs; run scripts/planted, which makes one that has");
        return ExitCode::FAILURE;
    }
    if let Some(unknown) = planted.bugs.iter().find(|name| planted::BUGS.iter().all(|bug| bug.name != **name)) {
        let names: Vec<&str> = planted::BUGS.iter().map(|bug| bug.name).collect();
        eprintln!("no bug is called {unknown:?}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let named = |bug: &&Bug| planted.bugs.is_empty() || planted.bugs.iter().any(|name| name == bug.name);
    let bugs: Vec<&Bug> = planted::BUGS.iter().filter(named).collect();
    let (next, missed) = (AtomicUsize::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..planted.jobs {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match planted::catch(&program, bug, planted.first, planted.seeds) {
                        Ok(Some(caught)) => {
                            say(format_args!("| `{}` | {} | {} | {} |", bug.name, bug.what, caught.seeds, caught.by));
                        }
                        Ok(None) => {
                            missed.fetch_add(1, Ordering::Relaxed);
                            say(format_args!("| `{}` | {} | more than {} | |", bug.name, bug.what, planted.seeds));
                        }
                        Err(error) => {
                            missed.fetch_add(1, Ordering::Relaxed);
                            say(format_args!("| `{}` | {} | could not be run: {error} | |", bug.name, bug.what));
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner();
    say(format_args!("{} bugs, {missed} not caught", bugs.len()));
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line; who closed the other end wants no more.
fn say(line: std::fmt::Arguments<'_>) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Ends this process when a run does not come to an end by itself.
#[expect(clippy::print_stderr, reason = "this is its output")]
fn end_when_hung() {
    thread::spawn(|| {
        thread::sleep(RUN_LIMIT);
        let _told_already = trace::flush();
        eprintln!("the run did not end within {RUN_LIMIT:?}");
        std::process::exit(HUNG);
    });
}
