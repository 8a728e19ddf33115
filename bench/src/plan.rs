//! What a run of the suite does, and how much of it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Groups of cases, in the order in which they are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Large files, random reads, appends and small files; also those of the peers
    Data,
    /// Names: create, stat, rename, remove, list; one master and three
    Metadata,
    /// Repair, and what it costs those who write meanwhile
    Repair,
    /// A master's memory and start with many files
    Memory,
    /// What beats and reports of many chunkservers cost the master
    Beats,
}

/// Every group.
pub const GROUPS: [Group; 5] = [Group::Data, Group::Metadata, Group::Repair, Group::Memory, Group::Beats];

/// `quarry-bench run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Smaller files, fewer of them, fewer runs
    #[arg(long)]
    pub quick: bool,
    /// Measure MooseFS and SeaweedFS, too, where they are installed
    #[arg(long)]
    pub peers: bool,
    /// Only these groups
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Group>,
    /// Runs of each case [default: 5, with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub runs: Option<u64>,
    /// Where data and results go; what the suite makes below it is removed, but for the results
    #[arg(long, default_value = "bench-results")]
    pub dir: PathBuf,
    /// Results of an earlier run, to be compared with: a JSON file
    #[arg(long)]
    pub against: Option<PathBuf>,
    /// Do not fill free memory before each run: the first touch of memory counts, then
    #[arg(long)]
    pub cold: bool,
    /// Divide every size and number by this: to try the suite out, not to measure
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), hide = true)]
    pub scale: u64,
    /// Files that the memory group makes [default: 1000000,10000000; with --quick 200000]
    #[arg(long, value_delimiter = ',')]
    pub memory_files: Vec<u64>,
}

/// How much is done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Runs of each case.
    pub runs: usize,
    /// Bytes of the large file.
    pub stream_bytes: u64,
    /// Bytes of all files that go at once.
    pub parallel_bytes: u64,
    /// Files of 4 KiB; of longer ones fewer.
    pub small_files: u64,
    /// Random reads, and appends.
    pub operations: u64,
    /// Names, and concurrency, of the metadata cases.
    pub metadata: Vec<(u64, u32)>,
    /// Names in the directory that is listed.
    pub list_files: u64,
    /// Seconds of each floor that runs for a time.
    pub floor_seconds: f64,
    /// Bytes that a repair restores.
    pub repair_bytes: u64,
    /// Files of the memory group.
    pub memory_files: Vec<u64>,
    /// Simulated chunkservers of the beats group.
    pub beats_servers: Vec<u64>,
    /// Replicas that they have.
    pub beats_replicas: u64,
    /// Measure peers.
    pub peers: bool,
}

impl Plan {
    /// What the arguments ask for.
    pub fn of(args: &RunArgs) -> Self {
        let pick = |full: u64, quick: u64| (if args.quick { quick } else { full } / args.scale).max(1);
        let memory_files = match (args.memory_files.as_slice(), args.quick) {
            ([], true) => vec![200_000],
            ([], false) => vec![1_000_000, 10_000_000],
            (asked, _) => asked.to_vec(),
        };
        Plan {
            runs: usize::try_from(args.runs.unwrap_or(if args.quick { 3 } else { 5 })).unwrap_or(1),
            stream_bytes: pick(1 << 30, 512 << 20),
            parallel_bytes: pick(2 << 30, 1 << 30),
            small_files: pick(4000, 1000),
            operations: pick(5000, 1000),
            metadata: vec![(pick(3000, 500), 1), (pick(20_000, 4000), 16), (pick(60_000, 12_000), 256)],
            list_files: pick(100_000, 10_000),
            floor_seconds: if args.quick { 1.0 } else { 3.0 } / args.scale as f64,
            repair_bytes: pick(2 << 30, 512 << 20),
            memory_files,
            beats_servers: if args.quick { vec![200] } else { vec![1000, 10_000] },
            beats_replicas: pick(30_000_000, 300_000),
            peers: args.peers,
        }
    }
}
