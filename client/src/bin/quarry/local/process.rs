//! Processes of a local cluster: started apart from the command, and known again by pid and start time.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::{self, Pid},
};
use quarry_env::World;

use super::cluster::{Cluster, Member, Role};
use crate::{
    error::{CliError, Outcome},
    local_fs,
};

/// How often a process is looked at while waiting for it.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: i32,
    /// In clock ticks since the machine started. A pid is given out again; with its start time it is unique.
    started: u64,
}

impl Running {
    /// The process that runs as `member` now. A pid file whose process ended, or whose pid somebody else has by
    /// now, does not count.
    pub fn find(cluster: &Cluster, member: &Member) -> Outcome<Option<Running>> {
        let Some(text) = local_fs::read_text(&cluster.pid_file(member))? else { return Ok(None) };
        let mut words = text.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(pid)), Some(Ok(started))) = (words.next(), words.next()) else { return Ok(None) };
        let Ok(pid) = i32::try_from(pid) else { return Ok(None) };
        let running = Running { pid, started };
        Ok((pid > 0 && running.still_runs()? && running.has_command(cluster, member)?).then_some(running))
    }

    /// Whether this very process runs still. One that ended and waits for its parent to notice does not.
    pub fn still_runs(self) -> Outcome<bool> {
        let stat = local_fs::read_text(Path::new(&format!("/proc/{}/stat", self.pid))).ok().flatten();
        Ok(stat
            .as_deref()
            .and_then(state_and_start)
            .is_some_and(|(state, start)| !matches!(state, 'Z' | 'X' | 'x') && start == self.started))
    }

    /// Whether its command line is the one of `member`, or the one that becomes it in a moment.
    fn has_command(self, cluster: &Cluster, member: &Member) -> Outcome<bool> {
        let words = local_fs::read_text(Path::new(&format!("/proc/{}/cmdline", self.pid)))?.unwrap_or_default();
        let data = cluster.data_dir(member);
        let mut words = words.split('\0');
        Ok(words.any(|word| word.ends_with(member.role.program())) && words.any(|word| Path::new(word) == data))
    }

    /// Sends a signal. A process that ended meanwhile is no error.
    pub fn signal(self, signal: Signal) -> Outcome {
        if !self.still_runs()? {
            return Ok(());
        }
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(CliError::local(format!("cannot send {signal} to process {}: {error}", self.pid))),
        }
    }

    /// Waits until it has ended, at most `limit`; says whether it has.
    pub async fn wait_end(self, world: &World, limit: Duration) -> Outcome<bool> {
        let deadline = world.clock.now().plus(limit);
        while self.still_runs()? {
            if world.clock.now() >= deadline {
                return Ok(false);
            }
            world.clock.sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }
}

/// The state letter and the start time in a `/proc/PID/stat`. The command's name in it may contain anything, so
/// fields are counted from its closing parenthesis.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// Starts `member` apart from this command and notes its pid.
pub fn spawn(cluster: &Cluster, member: &Member) -> Outcome<Running> {
    let program = find_program(member.role)?;
    let own = env::current_exe().map_err(|error| CliError::local(format!("cannot find the own program: {error}")))?;
    let log = local_fs::open_log(&cluster.log(member))?;
    let failed = |error| CliError::file("start", &program, &error);
    let child = Command::new(own)
        .args(["local", "exec-detached", "--"])
        .arg(&program)
        .args(cluster.arguments(member))
        .current_dir(&cluster.dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let pid = i32::try_from(child.id()).map_err(|_| CliError::local("a pid is out of range"))?;
    let stat = local_fs::read_text(Path::new(&format!("/proc/{pid}/stat")))?.unwrap_or_default();
    let Some((_, started)) = state_and_start(&stat) else {
        return Err(CliError::local(format!("cannot read the start time of process {pid} in /proc")));
    };
    let running = Running { pid, started };
    local_fs::replace_text(&cluster.pid_file(member), &format!("{pid} {started}\n"))?;
    Ok(running)
}

/// Makes a new session, which no terminal's end reaches, and becomes the program. The pid stays the same.
pub fn exec_detached(command: &[OsString]) -> Outcome {
    unistd::setsid().map_err(|error| CliError::local(format!("cannot make a session: {error}")))?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(CliError::usage("no program is named"));
    };
    // Only a failure returns.
    let error = Command::new(program).args(arguments).exec();
    Err(CliError::file("start", Path::new(program), &error))
}

/// The program of a role: in `QUARRY_BIN_DIR`, else beside this one, else in `PATH`.
pub fn find_program(role: Role) -> Outcome<PathBuf> {
    let name = role.program();
    let wanted = env::var_os("QUARRY_BIN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let beside = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match wanted {
        Some(dir) => vec![dir],
        None => beside.into_iter().chain(env::split_paths(&path)).collect(),
    };
    let found = places.iter().map(|dir| dir.join(name)).find(|program| program.is_file());
    found.and_then(|program| std::path::absolute(program).ok()).ok_or_else(|| {
        CliError::new(
            quarry_types::ErrorCode::NotFound,
            format!(
                "program {name} is neither beside quarry nor in PATH; build it with `cargo build -p {name}` or set \
                 QUARRY_BIN_DIR to where it is"
            ),
        )
    })
}

/// Runs `quarry-master init` for the cluster's first master.
pub async fn init_master(world: &World, cluster: &Cluster, member: &Member) -> Outcome {
    make_master(world, cluster, member, &["init"]).await
}

/// Makes the data directory of a further master; another one runs and leads.
pub async fn join_master(world: &World, cluster: &Cluster, member: &Member) -> Outcome {
    make_master(world, cluster, member, &["join", "--masters", &cluster.masters()]).await
}

async fn make_master(world: &World, cluster: &Cluster, member: &Member, verb: &[&str]) -> Outcome {
    let program = find_program(Role::Master)?;
    let log = local_fs::open_log(&cluster.log(member))?;
    let failed = {
        let program = program.clone();
        move |error| CliError::file("run", &program, &error)
    };
    let mut command = Command::new(&program);
    command.args(verb).arg("--data").arg(cluster.data_dir(member)).arg("--key-file").arg(cluster.key_file());
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(&failed)?).stderr(log);
    let ended = world.blocking.run(move || command.status()).await;
    let status = ended.map_err(|lost| CliError::local(lost.to_string()))?.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let word = verb.first().copied().unwrap_or_default();
    Err(CliError::local(format!("{} {word} failed ({status})", program.display())).hint(format!(
        "its log {} ends: {}",
        cluster.log(member).display(),
        last_lines(cluster, member)
    )))
}

/// The last lines of a process's log, for an error message.
pub fn last_lines(cluster: &Cluster, member: &Member) -> String {
    let tail = local_fs::tail(&cluster.log(member), 4096);
    let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_read_behind_any_name() {
        let stat = "42 (a ) R 1 b) S 1 42 42 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(state_and_start(stat), Some(('S', 98765)));
        assert_eq!(state_and_start("42 (x) S 1"), None);
        assert_eq!(state_and_start(""), None);
    }

    #[test]
    fn only_the_very_process_counts_as_running() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, started) = state_and_start(&stat).unwrap();
        assert!(Running { pid, started }.still_runs().unwrap());
        let other = Running { pid, started: started + 1 };
        assert!(!other.still_runs().unwrap());
        // Were it sent, the test would end here.
        other.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_pid_of_somebody_else_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(dir.path().into(), 1, &[1]);
        let member = cluster.members[0].clone();
        assert_eq!(Running::find(&cluster, &member).unwrap(), None);
        local_fs::make_directory(&dir.path().join("run")).unwrap();
        let pid = std::process::id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, started) = state_and_start(&stat).unwrap();
        for text in [format!("{pid} {started}"), "1 0".into(), "-5 1".into(), "x".into(), String::new()] {
            local_fs::replace_text(&cluster.pid_file(&member), &text).unwrap();
            assert_eq!(Running::find(&cluster, &member).unwrap(), None, "{text}");
        }
    }
}
