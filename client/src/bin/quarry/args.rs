//! The command line: what clap parses, with the texts of `--help`.

mod bench;
mod operate;
mod values;
mod watch;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use quarry_types::limits::{MASTER_PORT, REPLICAS_MAX};

use crate::error::{CliError, EXIT_CODES, Outcome};

use values::{duration, host_port, setting, signal};

pub use bench::{Bench, Case};

pub use watch::{From, Watch};

pub use operate::{
    Admin, Explain, Leave, Maintenance, MastersVerb, Metadata, MetadataVerify, Rebalance, Repairs, Server,
};

/// Stores files on a Quarry cluster: puts and gets them, looks at them, and runs a cluster on this machine.
#[derive(Debug, Parser)]
#[command(name = "quarry", version, after_help = EXIT_CODES, propagate_version = false)]
pub struct Cli {
    /// What every verb accepts.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb accepts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where the masters are; after `local start`: how many masters [env: QUARRY_MASTERS=] [default: 127.0.0.1:9400]
    // One flag with two meanings, because clap knows global flags by name. The environment is read by `masters`,
    // so that it never counts as the number of masters of `local start`.
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    pub masters: Option<String>,
    /// Print data, and errors, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Give up when nothing moves for this long, as in 500ms, 30s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Write a log to standard error: error, warn, info, debug, trace, or a filter as in quarry_client=debug
    #[arg(long, global = true, env = "QUARRY_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
    /// Show no progress bars even on a terminal
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Say what was done on standard error
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Name of this request in every server's log; random when absent
    #[arg(long, global = true, value_name = "ID")]
    pub request_id: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For eyes.
    Human,
    /// An object a line.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy local files or trees into the cluster
    Put(Put),
    /// Copy files or trees out of the cluster
    Get(Get),
    /// Write files to standard output
    Cat(Looked),
    /// Append a local file to a file in the cluster
    Append(Append),
    /// List names, one a line
    #[command(disable_help_flag = true)]
    Ls(Ls),
    /// Show what is known of files and directories
    Stat(Looked),
    /// Make directories
    Mkdir(Mkdir),
    /// Rename a file or directory, or move several into a directory
    Mv(Mv),
    /// Remove files, or with -r directories with all below them
    Rm(Rm),
    /// Take back what was removed, with everything below a directory
    Undelete(Undelete),
    /// List what was removed and can be taken back: kind, size, when (UTC), how long it stays, inode and path
    #[command(disable_help_flag = true)]
    Trash(Trash),
    /// Change how many copies of files are kept
    SetReplicas(SetReplicas),
    /// Sum up what lies below paths
    #[command(disable_help_flag = true)]
    Du(Du),
    /// Show the room on the chunkservers
    #[command(disable_help_flag = true)]
    Df(Df),
    /// Print the CRC-32 of whole files (that of zlib) from metadata, without reading data
    Checksum(Looked),
    /// Show the chunks of a file and where their replicas are
    Chunks(Chunks),
    /// List the cluster's settings, or change some
    Settings(Settings),
    /// Show masters, chunkservers and totals
    Status,
    /// Show the group of masters, or change it
    Masters {
        /// What to do; without it: show them
        #[command(subcommand)]
        verb: Option<MastersVerb>,
    },
    /// Show every chunk that is not as it should be, why, what is done about it and when it will be done
    Repairs(Repairs),
    /// Show why something is decided as it is, and what could be done about it
    #[command(subcommand)]
    Explain(Explain),
    /// Empty a chunkserver: what it holds is copied elsewhere first; then it can be stopped and nothing is missing
    ///
    /// It takes nothing new from now on, and still serves what it holds. Shows how far that is until it is done;
    /// interrupted, the drain goes on, and the same command shows it again. `undrain` takes it back.
    Drain(Leave),
    /// Let a chunkserver take part in everything again: ends a drain, and takes back a decommission
    Undrain(Server),
    /// Announce that a chunkserver will be away for a while
    ///
    /// It takes nothing new, and while it is away what it holds is not copied elsewhere as long as another replica is
    /// there. When the time is over it takes part again, or counts as dead if it is not back.
    Maintenance(Maintenance),
    /// Empty a chunkserver that will not come back
    ///
    /// As `drain`, but for good: it counts as part of the cluster no more, whether it runs or not, and what only it holds
    /// is lost when it is wiped before this is done. Shows how far that is until it is done; interrupted, it goes on,
    /// and the same command shows it again. `undrain` takes it back.
    Decommission(Leave),
    /// Even out how full the chunkservers are
    ///
    /// Shows how far that is until nothing is left to move; interrupted, it goes on, and the same command shows it again.
    Rebalance(Rebalance),
    /// Print what changes, as it is committed: a line a change, with the revision to go on from
    ///
    /// Files and directories at REMOTE, below it, or above it; and of the cluster chunkservers (registered, drained, dead, back),
    /// settings and leaders. Goes on by itself when another master leads; nothing is left out or printed twice.
    Watch(Watch),
    /// Measure how fast this cluster is, from here
    ///
    /// Works in a new directory, which is removed at the end with all that was in it, also when interrupted.
    /// Rates, latencies, and the processor time of this process and of --processes.
    Bench(Bench),
    /// Back up the masters' metadata, compare it with what chunkservers have, and let deletions go after a restore
    #[command(subcommand)]
    Metadata(Metadata),
    /// What other tools need to know of a cluster
    #[command(subcommand)]
    Admin(Admin),
    /// Run a cluster of several processes on this machine
    #[command(subcommand)]
    Local(Local),
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Several paths in the cluster.
#[derive(Debug, Args)]
pub struct Remotes {
    /// Paths in the cluster
    #[arg(required = true, value_name = "REMOTE")]
    pub remotes: Vec<OsString>,
}

/// How old answers may be.
#[derive(Clone, Copy, Debug, Args)]
pub struct Stale {
    /// Take answers of any master, also while none leads, that lack only what changed less than this ago, as in 5s
    ///
    /// Without it the leader answers, with everything that was acknowledged. A master that cannot prove how old its answer
    /// would be gives none, and others are asked until --timeout. What a file holds is verified as ever.
    #[arg(long = "stale-ok", value_name = "TIME", value_parser = duration)]
    pub ok: Option<Duration>,
}

/// Several paths that are looked up.
#[derive(Debug, Args)]
pub struct Looked {
    /// How old answers may be
    #[command(flatten)]
    pub stale: Stale,
    /// Paths in the cluster
    #[command(flatten)]
    pub remotes: Remotes,
}

/// `chunks`.
#[derive(Debug, Args)]
pub struct Chunks {
    /// How old answers may be
    #[command(flatten)]
    pub stale: Stale,
    /// Path in the cluster
    pub remote: OsString,
}

/// `put`.
#[derive(Debug, Args)]
pub struct Put {
    /// Copy directories with all below them; symbolic links are skipped with a note
    #[arg(short, long)]
    pub recursive: bool,
    /// Copies to keep of each file; what its directory says, or the cluster's default, when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICAS_MAX)))]
    pub replicas: Option<u32>,
    /// Replace files that exist
    #[arg(long, conflicts_with = "no_clobber")]
    pub overwrite: bool,
    /// Leave files that exist as they are, silently
    #[arg(long)]
    pub no_clobber: bool,
    /// Local files, `-` for standard input; then the path in the cluster (into it, if it is a directory)
    #[arg(required = true, num_args = 2.., value_names = ["LOCAL", "REMOTE"])]
    pub paths: Vec<OsString>,
}

/// `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Copy directories with all below them
    #[arg(short, long)]
    pub recursive: bool,
    /// How old answers may be
    #[command(flatten)]
    pub stale: Stale,
    /// Paths in the cluster; then the local path (into it, if it is a directory), `-` for standard output
    #[arg(required = true, num_args = 2.., value_names = ["REMOTE", "LOCAL"])]
    pub paths: Vec<OsString>,
}

/// `append`.
#[derive(Debug, Args)]
pub struct Append {
    /// Local file, `-` for standard input
    pub local: PathBuf,
    /// File in the cluster; it must exist
    pub remote: OsString,
}

/// `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Kind, copies, size, time of change (UTC) and name
    #[arg(short)]
    pub long: bool,
    /// Sizes as people write them, as in 1.5M
    #[arg(short = 'h', long)]
    pub human_readable: bool,
    /// Everything below as well, as paths relative to REMOTE
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// How old answers may be
    #[command(flatten)]
    pub stale: Stale,
    /// Paths in the cluster
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub remotes: Vec<OsString>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// `mkdir`.
#[derive(Debug, Args)]
pub struct Mkdir {
    /// Make missing parents, and be content if it exists
    #[arg(short, long)]
    pub parents: bool,
    /// Directories to make
    #[command(flatten)]
    pub remotes: Remotes,
}

/// `mv`.
#[derive(Debug, Args)]
pub struct Mv {
    /// Replace a file of the target's name
    #[arg(long)]
    pub overwrite: bool,
    /// Paths in the cluster; the last is the new path, or an existing directory to move into
    #[arg(required = true, num_args = 2.., value_names = ["FROM", "TO"])]
    pub paths: Vec<OsString>,
}

/// `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Remove directories with all below them
    #[arg(short, long)]
    pub recursive: bool,
    /// Give the room back at once: it cannot be taken back, and a get that is under way fails
    #[arg(long)]
    pub now: bool,
    /// What to remove
    #[command(flatten)]
    pub remotes: Remotes,
}

/// `undelete`.
#[derive(Debug, Args)]
pub struct Undelete {
    /// Which of several that were removed under this path, by its inode in `quarry trash` [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub inode: Option<u64>,
    /// Where it shall be from now on [default: where it was]
    #[arg(long, value_name = "REMOTE")]
    pub to: Option<OsString>,
    /// Path in the cluster, as it was removed
    pub remote: OsString,
}

/// `trash`.
#[derive(Debug, Args)]
pub struct Trash {
    /// Give up for good what would be listed, and give its room back; of / everything in the trash
    #[arg(long)]
    pub empty: bool,
    /// Sizes as people write them, as in 1.5M
    #[arg(short = 'h', long)]
    pub human_readable: bool,
    /// Directory: what was removed from it and from directories below it
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub remote: OsString,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// `set-replicas`.
#[derive(Debug, Args)]
pub struct SetReplicas {
    /// Every file below directories as well
    #[arg(short, long)]
    pub recursive: bool,
    /// Copies to keep; 0: as many as the directory above says
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(REPLICAS_MAX)))]
    pub replicas: u32,
    /// Files; or directories, for what is put into them from now on
    #[command(flatten)]
    pub remotes: Remotes,
}

/// `settings`.
#[derive(Debug, Args)]
pub struct Settings {
    /// Settings to change, all or none, as in trash=7d repair-rate=100MB/s
    #[arg(value_name = "NAME=VALUE", value_parser = setting)]
    pub changes: Vec<(String, String)>,
}

/// `du`.
#[derive(Debug, Args)]
pub struct Du {
    /// Sizes as people write them, as in 1.5M
    #[arg(short = 'h', long)]
    pub human_readable: bool,
    /// How old answers may be
    #[command(flatten)]
    pub stale: Stale,
    /// Paths in the cluster
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub remotes: Vec<OsString>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// `df`.
#[derive(Debug, Args)]
pub struct Df {
    /// Sizes as people write them, as in 1.5M
    #[arg(short = 'h', long)]
    pub human_readable: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// `local …`.
#[derive(Debug, Subcommand)]
pub enum Local {
    /// Start a cluster, or what does not run of it (`--masters M`: with so many masters)
    Start(LocalStart),
    /// Stop every process of the cluster; its data stays
    Stop(LocalDir),
    /// Show the cluster's processes
    Status(LocalDir),
    /// Send a signal to one process
    Kill(LocalKill),
    /// Start one process
    StartOne(LocalOne),
    /// Become the leader of a new session and then the program named (used by `start`)
    #[command(hide = true)]
    ExecDetached {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Which local cluster.
#[derive(Debug, Args)]
pub struct LocalDir {
    /// The cluster's directory
    #[arg(long, value_name = "D")]
    pub dir: PathBuf,
}

/// `local start`.
#[derive(Debug, Args)]
pub struct LocalStart {
    /// Which cluster
    #[command(flatten)]
    pub dir: LocalDir,
    /// Chunkservers [default: 3, or as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub chunkservers: Option<u16>,
    /// Racks that the chunkservers are dealt out to [default: 1]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    pub racks: Option<u16>,
    /// The first master's port; those of the other masters and of the chunkservers follow, 10 apart [default: 9400 if free,
    /// else others]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: Option<u16>,
    /// Wait this long for every process to be alive
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub wait: Duration,
}

/// `local start-one`.
#[derive(Debug, Args)]
pub struct LocalOne {
    /// Which cluster
    #[command(flatten)]
    pub dir: LocalDir,
    /// The process, by its name in `local status`
    pub name: String,
    /// Wait this long for it to be alive
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub wait: Duration,
}

/// `local kill`.
#[derive(Debug, Args)]
pub struct LocalKill {
    /// Which cluster
    #[command(flatten)]
    pub dir: LocalDir,
    /// The process, by its name in `local status`
    pub name: String,
    /// By name or number, as in KILL, SIGSTOP, 15
    #[arg(long, value_name = "S", default_value = "KILL", value_parser = signal)]
    pub signal: nix::sys::signal::Signal,
}

impl Global {
    /// The masters' addresses: from the flag, else from `environment`, else the default.
    pub fn master_addresses(&self, environment: Option<String>) -> Outcome<Vec<String>> {
        let (text, from) = match (&self.masters, environment.filter(|text| !text.trim().is_empty())) {
            (Some(flag), _) => (flag.clone(), "--masters"),
            (None, Some(text)) => (text, "QUARRY_MASTERS"),
            (None, None) => (format!("127.0.0.1:{MASTER_PORT}"), "the default"),
        };
        text.split(',').map(|one| host_port(one.trim()).map_err(|error| error.about(from))).collect()
    }

    /// `--masters` as the number of masters of `local start`.
    pub fn masters_wanted(&self) -> Outcome<Option<u16>> {
        match self.masters.as_deref().map(str::parse) {
            None => Ok(None),
            Some(Ok(number)) if number > 0 => Ok(Some(number)),
            Some(_) => Err(CliError::usage("--masters of `local start` is a number of masters, as in 3")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    pub fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn h_means_human_sizes_for_ls() {
        let Ok(Cli { verb: Verb::Ls(ls), .. }) = parse("quarry ls -l -h -R /a") else { panic!() };
        assert!(ls.long && ls.human_readable && ls.recursive);
        assert_eq!(ls.remotes, ["/a"]);
        assert_eq!(parse("quarry ls --help").unwrap_err().kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn put_takes_any_number_of_locals() {
        let Ok(Cli { verb: Verb::Put(put), .. }) = parse("quarry put -r --replicas 2 a - c /d") else { panic!() };
        assert_eq!((put.paths.len(), put.replicas, put.recursive), (4, Some(2), true));
        assert!(parse("quarry put a").is_err());
        assert!(parse("quarry put --replicas 9 a /b").is_err());
        assert!(parse("quarry put --replicas 0 a /b").is_err());
        assert!(parse("quarry put --overwrite --no-clobber a /b").is_err());
    }

    #[test]
    fn global_flags_go_anywhere() {
        let cli = parse("quarry status --masters a:1,b:2 --json --timeout 1500ms").unwrap();
        assert_eq!(cli.global.master_addresses(Some("c:3".into())).unwrap(), ["a:1", "b:2"]);
        assert_eq!((cli.global.json, cli.global.timeout), (true, Duration::from_millis(1500)));
        let cli = parse("quarry --json status").unwrap();
        assert_eq!(cli.global.master_addresses(Some("c:3".into())).unwrap(), ["c:3"]);
        assert_eq!(cli.global.master_addresses(None).unwrap(), ["127.0.0.1:9400"]);
        for bad in ["a", "a:0", ":1", "a:1,", "a:99999"] {
            let cli = parse(&format!("quarry status --masters {bad}")).unwrap();
            assert_eq!(cli.global.master_addresses(None).unwrap_err().exit_number(), 2, "{bad}");
        }
    }

    #[test]
    fn masters_of_local_start_is_a_count() {
        let cli = parse("quarry local start --dir /d --chunkservers 5 --masters 3 --racks 2 --base-port 7000").unwrap();
        assert_eq!(cli.global.masters_wanted().unwrap(), Some(3));
        let Verb::Local(Local::Start(start)) = cli.verb else { panic!() };
        assert_eq!((start.chunkservers, start.racks, start.base_port), (Some(5), Some(2), Some(7000)));
        assert_eq!(parse("quarry local start --dir /d").unwrap().global.masters_wanted().unwrap(), None);
        for bad in ["0", "a:1", "-1"] {
            let cli = parse(&format!("quarry local start --dir /d --masters={bad}")).unwrap();
            assert!(cli.global.masters_wanted().is_err());
        }
    }

    #[test]
    fn h_means_human_sizes_for_trash_and_set_replicas_takes_a_number_first() {
        let Ok(Cli { verb: Verb::Trash(trash), .. }) = parse("quarry trash -h /a") else { panic!() };
        assert!(trash.human_readable && !trash.empty && trash.remote == "/a");
        let Ok(Cli { verb: Verb::SetReplicas(set), .. }) = parse("quarry set-replicas -r 2 /a /b") else { panic!() };
        assert_eq!((set.recursive, set.replicas, set.remotes.remotes.len()), (true, 2, 2));
        assert!(parse("quarry set-replicas 9 /a").is_err() && parse("quarry set-replicas 2").is_err());
        let Ok(Cli { verb: Verb::Settings(set), .. }) = parse("quarry settings a=b=c d=") else { panic!() };
        assert_eq!(set.changes, [("a".into(), "b=c".into()), ("d".into(), String::new())]);
        assert!(parse("quarry settings trash").is_err() && parse("quarry undelete --inode 0 /a").is_err());
    }
}
