//! The suite in a process group of its own: however it ends, every process that it started ends with it, what it mounted
//! is unmounted, and what it made for a while is removed.

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    error::{During as _, Failed, Outcome},
    plan::RunArgs,
};

/// Tells the worker where it may make directories.
const WORK: &str = "QUARRY_BENCH_WORK";
/// The same, in memory.
const MEMORY: &str = "QUARRY_BENCH_MEMORY";
/// A file system in memory, on any Linux.
const TMPFS: &str = "/dev/shm";
/// A killed process is gone within this, unless its disk hangs.
const GONE: Duration = Duration::from_secs(10);
/// Looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Directories that are removed at the end.
#[derive(Clone, Debug)]
pub struct Places {
    /// On the disk.
    pub work: PathBuf,
    /// In memory.
    pub memory: PathBuf,
}

impl Places {
    /// Those that the supervisor named.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_worker() -> Outcome<Self> {
        let named = |name| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.ok_or_else(|| Failed::new("starting the suite", format!("{name} is not set; use `quarry-bench run`")))
        };
        Ok(Places { work: named(WORK)?, memory: named(MEMORY)? })
    }
}

/// Runs `quarry-bench work` with the arguments of `quarry-bench run`, and cleans up behind it.
///
/// # Errors
/// When the worker cannot be started, or something temporary cannot be removed.
pub fn supervise(args: &RunArgs) -> Outcome<ExitCode> {
    let own = std::process::id();
    fs::create_dir_all(&args.dir).during(format!("making {}", args.dir.display()))?;
    let dir = fs::canonicalize(&args.dir).during(format!("looking at {}", args.dir.display()))?;
    let places =
        Places { work: dir.join(format!("work-{own}")), memory: Path::new(TMPFS).join(format!("quarry-bench-{own}")) };
    fs::create_dir(&places.work).during(format!("making {}", places.work.display()))?;
    let ended = watch(&places);
    clean(&places)?;
    ended
}

fn watch(places: &Places) -> Outcome<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during("starting")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).during("listening for signals")?;
        let mut terminate = signal(SignalKind::terminate()).during("listening for signals")?;
        // What the worker leaves is this process's to wait for.
        set_child_subreaper(true).during("adopting the suite's processes")?;
        let mut worker = start(places)?;
        // Waiting for a child closes its standard input, and its end means that this process is gone.
        let _held = worker.stdin.take();
        let group = worker.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let code = tokio::select! {
            ended = worker.wait() => {
                let status = ended.during("waiting for the suite")?;
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
                u8::try_from(code).unwrap_or(u8::MAX)
            }
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        };
        if let Some(group) = group {
            // Nobody left is the good case.
            let _already_gone = killpg(group, Signal::SIGKILL);
        }
        let _reaped = worker.wait().await;
        if let Some(group) = group {
            wait_gone(group).await;
        }
        Ok(ExitCode::from(code))
    })
}

fn start(places: &Places) -> Outcome<tokio::process::Child> {
    let own = std::env::current_exe().during("finding this program")?;
    let mut command = std::process::Command::new(own);
    command.arg("work").args(std::env::args_os().skip(2));
    command.env(WORK, &places.work).env(MEMORY, &places.memory).env("TMPDIR", &places.work);
    // Its end tells the worker that this process is gone.
    command.stdin(Stdio::piped()).process_group(0);
    tokio::process::Command::from(command).spawn().during("starting the suite")
}

async fn wait_gone(group: Pid) {
    let mut looked = Duration::ZERO;
    let of_group = Pid::from_raw(-group.as_raw());
    while looked < GONE {
        match waitpid(of_group, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                looked += LOOK_AGAIN;
            }
            Ok(_) => {}
            // Nobody is left.
            Err(_) => return,
        }
    }
}

fn clean(places: &Places) -> Outcome {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let ours = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(&places.work));
    for path in ours {
        let _told_below = std::process::Command::new("umount").args(["-l", path]).status();
    }
    for path in [&places.work, &places.memory] {
        if path.exists() {
            fs::remove_dir_all(path).during(format!("removing {}; do so by hand", path.display()))?;
        }
    }
    Ok(())
}

/// In the worker: ends the whole group when the supervisor is gone without having done so.
pub fn end_with_supervisor() {
    std::thread::spawn(|| {
        let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _self_included = killpg(nix::unistd::getpgrp(), Signal::SIGKILL);
    });
}
