//! What an operator sets: command line, environment and file, in this order of precedence.

mod file;
mod sizes;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quarry_chunkserver_core::{Durability, scrub::Pace};
use quarry_types::{
    ClusterKey, duration,
    limits::{CHUNKSERVER_HTTP_PORT, DATA_PORT},
};

use crate::{
    scrub,
    server::ChunkserverConfig,
    store::{DirConfig, INDEX_BYTES, INDEX_BYTES_MAX},
};

pub use sizes::{parse_size, print_size};

/// Turns the HTTP port, the local socket or the keeping of small chunks in the index off.
const NONE: &str = "none";
/// The local socket in the first data directory.
const LOCAL_SOCKET: &str = "local.sock";

/// Quarry's chunkserver: keeps chunks on the disks of one machine.
#[derive(Debug, Parser)]
#[command(name = "quarry-chunkserver", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve until SIGTERM or SIGINT.
    Run(Box<RunArgs>),
}

/// Settings of `run`. Each can also stand in the file, under its name with `_` for `-`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// A TOML file with settings; a flag or a variable wins over it.
    #[arg(long, env = "QUARRY_CHUNKSERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for chunks; repeat it for several disks.
    #[arg(long, env = "QUARRY_CHUNKSERVER_DATA", value_name = "DIR", value_delimiter = ',')]
    pub data: Vec<PathBuf>,
    /// Most bytes to use in a directory, like 10GiB; one per --data, in the same order. Without it: the file system.
    #[arg(long, env = "QUARRY_CHUNKSERVER_CAPACITY", value_name = "SIZE", value_delimiter = ',')]
    pub capacity: Vec<String>,
    /// The cluster's key file, made by `quarry-master init`.
    #[arg(long, env = "QUARRY_CHUNKSERVER_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The masters, as HOST:PORT, separated by commas.
    #[arg(long, env = "QUARRY_CHUNKSERVER_MASTERS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub masters: Vec<String>,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, env = "QUARRY_CHUNKSERVER_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where clients and other chunkservers reach this one. Without it: where it listens.
    #[arg(long, env = "QUARRY_CHUNKSERVER_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The failure domain; replicas are spread over racks.
    #[arg(long, env = "QUARRY_CHUNKSERVER_RACK", value_name = "NAME")]
    pub rack: Option<String>,
    /// `sealed` makes data durable before it is acknowledged as such; `buffered` does not.
    #[arg(long, env = "QUARRY_CHUNKSERVER_DURABILITY", value_name = "sealed|buffered")]
    pub durability: Option<String>,
    /// Where to serve /metrics, /healthz and /readyz, as HOST:PORT; port 0 lets the system choose, `none` turns it off.
    #[arg(long, env = "QUARRY_CHUNKSERVER_HTTP", value_name = "HOST:PORT|none")]
    pub http: Option<String>,
    /// Where clients on this machine get the files of sealed chunks, to read them without this server. Without it:
    /// `local.sock` in the first data directory; `none` turns it off. Whoever may reach the path may read.
    #[arg(long, env = "QUARRY_CHUNKSERVER_LOCAL_SOCKET", value_name = "PATH|none")]
    pub local_socket: Option<PathBuf>,
    /// Chunks of at most so many bytes that come whole are kept in the index instead of in files of their own, like 16KiB,
    /// which is the default, up to 64KiB; `none` turns it off.
    #[arg(long, env = "QUARRY_CHUNKSERVER_SMALL_CHUNKS", value_name = "SIZE|none")]
    pub small_chunks: Option<String>,
    /// Every sealed replica is read again and verified once within this, like 14d.
    #[arg(long, env = "QUARRY_CHUNKSERVER_SCRUB_PERIOD", value_name = "DURATION")]
    pub scrub_period: Option<String>,
    /// Most bytes per second to read for that, like 32MiB.
    #[arg(long, env = "QUARRY_CHUNKSERVER_SCRUB_RATE", value_name = "SIZE")]
    pub scrub_rate: Option<String>,
    /// How log lines look, on standard error.
    #[arg(long, env = "QUARRY_CHUNKSERVER_LOG_FORMAT", value_name = "human|json")]
    pub log_format: Option<String>,
    /// Which log lines are written, like `info` or `info,quarry_chunkserver=debug`.
    #[arg(long, env = "QUARRY_CHUNKSERVER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Print the settings that would be used, and stop.
    #[arg(long)]
    pub print_config: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories with their limits.
    pub dirs: Vec<DirConfig>,
    /// The cluster's key file.
    pub key_file: PathBuf,
    /// The masters' addresses.
    pub masters: Vec<String>,
    /// Where to listen.
    pub listen: String,
    /// Where others reach this server, when not where it listens.
    pub advertise: Option<String>,
    /// The failure domain.
    pub rack: String,
    /// Whether flushes and seals are made durable.
    pub durability: Durability,
    /// Where metrics and health are served, if anywhere.
    pub http: Option<String>,
    /// Where clients on this machine get the files of sealed chunks, if anywhere.
    pub local_socket: Option<PathBuf>,
    /// Chunks of at most so many bytes are kept in the index.
    pub small_chunks: u64,
    /// How fast sealed replicas are read again.
    pub scrub: Pace,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log: String,
}

/// Settings that cannot be used; all faults at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings cannot be used:\n  - {}", .0.join("\n  - "))]
pub struct ConfigError(pub Vec<String>);

/// Merges command line, environment and file, and checks the result. `read` reads a file.
///
/// # Errors
/// [`ConfigError`] with every fault found.
pub fn settings(
    args: &RunArgs,
    read: impl FnOnce(&std::path::Path) -> Result<String, String>,
) -> Result<Settings, ConfigError> {
    let mut faults = Vec::new();
    let mut args = args.clone();
    if let Some(path) = &args.config.clone() {
        match read(path) {
            Ok(text) => file::fill(&mut args, &text, &path.display().to_string(), &mut faults),
            Err(e) => faults.push(format!("--config {}: {e}", path.display())),
        }
    }
    let settings = check(&args, &mut faults);
    match settings {
        Some(settings) if faults.is_empty() => Ok(settings),
        _ => Err(ConfigError(faults)),
    }
}

fn check(args: &RunArgs, faults: &mut Vec<String>) -> Option<Settings> {
    let dirs = check_dirs(args, faults);
    if args.key_file.is_none() {
        faults.push("--key-file is missing: name the cluster's key file, made by `quarry-master init`".into());
    }
    if args.masters.is_empty() {
        faults.push("--masters is missing: name at least one master as HOST:PORT".into());
    }
    for master in &args.masters {
        check_address("--masters", master, false, faults);
    }
    let listen = args.listen.clone().unwrap_or_else(|| format!("127.0.0.1:{DATA_PORT}"));
    check_address("--listen", &listen, true, faults);
    match &args.advertise {
        Some(address) => check_address("--advertise", address, true, faults),
        None if ["0.0.0.0:", "[::]:"].iter().any(|any| listen.starts_with(any)) => {
            faults.push(format!(
                "--advertise is missing: nobody can connect to {listen}; name an address that others reach"
            ));
        }
        None => {}
    }
    let rack = args.rack.clone().unwrap_or_else(|| "default".into());
    if rack.is_empty() || rack.len() > 255 || rack.chars().any(char::is_control) {
        faults.push(format!("--rack {rack:?}: write 1 to 255 bytes without control characters"));
    }
    let durability = match args.durability.as_deref() {
        None | Some("sealed") => Durability::Sealed,
        Some("buffered") => Durability::Buffered,
        Some(other) => {
            faults.push(format!("--durability {other:?}: write `sealed` or `buffered`"));
            Durability::Sealed
        }
    };
    let http = args.http.clone().unwrap_or_else(|| format!("127.0.0.1:{CHUNKSERVER_HTTP_PORT}"));
    let http = (http != NONE).then_some(http);
    if let Some(address) = &http {
        check_address("--http", address, true, faults);
    }
    let local_socket = check_local_socket(args, faults);
    let small_chunks = check_small_chunks(args, faults);
    let mut pace = Pace { period: scrub::PERIOD, rate: scrub::RATE };
    if let Some(text) = &args.scrub_period {
        match duration::parse(text) {
            Some(found) => pace.period = found,
            None => faults.push(format!("--scrub-period {text:?} is not {}", duration::EXPECTED)),
        }
    }
    if let Some(text) = &args.scrub_rate {
        parse_size(text).map_or_else(|e| faults.push(format!("--scrub-rate {e}")), |found| pace.rate = found);
    }
    let log_format = match args.log_format.as_deref() {
        None => LogFormat::Human,
        Some(text) => LogFormat::from_str(text, false).unwrap_or_else(|_| {
            faults.push(format!("--log-format {text:?}: write `human` or `json`"));
            LogFormat::Human
        }),
    };
    let log = args.log.clone().unwrap_or_else(|| "info".into());
    if let Err(e) = log.parse::<tracing_subscriber::EnvFilter>() {
        faults.push(format!("--log {log:?}: {e}"));
    }
    Some(Settings {
        dirs,
        key_file: args.key_file.clone()?,
        masters: args.masters.clone(),
        listen,
        advertise: args.advertise.clone(),
        rack,
        durability,
        http,
        local_socket,
        small_chunks,
        scrub: pace,
        log_format,
        log,
    })
}

fn check_dirs(args: &RunArgs, faults: &mut Vec<String>) -> Vec<DirConfig> {
    if args.data.is_empty() {
        faults.push("--data is missing: name at least one directory for chunks".into());
    }
    for (i, dir) in args.data.iter().enumerate() {
        if args.data[..i].contains(dir) {
            faults.push(format!("--data {} is named twice", dir.display()));
        }
    }
    if !args.capacity.is_empty() && args.capacity.len() != args.data.len() {
        let (dirs, sizes) = (args.data.len(), args.capacity.len());
        faults.push(format!("--capacity is given {sizes} times for {dirs} directories: give one for each, or none"));
    }
    let mut sizes = args.capacity.iter().map(|text| match parse_size(text) {
        Ok(size) => Some(size),
        Err(e) => {
            faults.push(format!("--capacity {e}"));
            None
        }
    });
    let dirs =
        args.data.iter().map(|path| DirConfig { path: path.clone(), capacity: sizes.next().flatten() }).collect();
    // Sizes without a directory are checked all the same.
    sizes.for_each(drop);
    dirs
}

fn check_local_socket(args: &RunArgs, faults: &mut Vec<String>) -> Option<PathBuf> {
    let named = match &args.local_socket {
        Some(path) if path.as_os_str() == NONE => return None,
        Some(path) => path.clone(),
        None => args.data.first()?.join(LOCAL_SOCKET),
    };
    // Others are told the path, and are elsewhere.
    match std::path::absolute(&named) {
        Ok(path) => Some(path),
        Err(e) => {
            faults.push(format!("--local-socket {}: {e}; write a path, or `none`", named.display()));
            None
        }
    }
}

fn check_small_chunks(args: &RunArgs, faults: &mut Vec<String>) -> u64 {
    match args.small_chunks.as_deref() {
        None => INDEX_BYTES,
        Some(NONE) => 0,
        Some(text) => match parse_size(text) {
            Ok(size) if size <= INDEX_BYTES_MAX => size,
            Ok(_) => {
                let most = print_size(INDEX_BYTES_MAX);
                faults.push(format!("--small-chunks {text:?}: at most {most}; longer chunks are better off in files"));
                INDEX_BYTES
            }
            Err(e) => {
                faults.push(format!("--small-chunks {e}, or `none`"));
                INDEX_BYTES
            }
        },
    }
}

fn check_address(flag: &str, address: &str, zero_port: bool, faults: &mut Vec<String>) {
    let good = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|port| port > 0 || zero_port)
    });
    if !good {
        faults.push(format!("{flag} {address:?}: write HOST:PORT"));
    }
}

impl Settings {
    /// The settings as a file that would bring them about.
    #[must_use]
    pub fn print(&self) -> String {
        use toml::Value;
        let text = |text: &str| Value::String(text.into());
        let mut table = toml::Table::new();
        table.insert(
            "data".into(),
            self.dirs.iter().map(|d| text(&d.path.display().to_string())).collect::<Vec<_>>().into(),
        );
        let sizes: Option<Vec<u64>> = self.dirs.iter().map(|d| d.capacity).collect();
        if let Some(sizes) = sizes {
            table.insert("capacity".into(), sizes.into_iter().map(|s| text(&print_size(s))).collect::<Vec<_>>().into());
        }
        table.insert("key_file".into(), text(&self.key_file.display().to_string()));
        table.insert("masters".into(), self.masters.iter().map(|m| text(m)).collect::<Vec<_>>().into());
        table.insert("listen".into(), text(&self.listen));
        if let Some(address) = &self.advertise {
            table.insert("advertise".into(), text(address));
        }
        table.insert("rack".into(), text(&self.rack));
        table.insert("durability".into(), text(durability_name(self.durability)));
        table.insert("http".into(), text(self.http.as_deref().unwrap_or(NONE)));
        let local_socket = self.local_socket.as_ref().map(|path| path.display().to_string());
        table.insert("local_socket".into(), text(local_socket.as_deref().unwrap_or(NONE)));
        let small_chunks = if self.small_chunks == 0 { NONE.into() } else { print_size(self.small_chunks) };
        table.insert("small_chunks".into(), text(&small_chunks));
        table.insert("scrub_period".into(), text(&duration::show(self.scrub.period)));
        table.insert("scrub_rate".into(), text(&print_size(self.scrub.rate)));
        table.insert("log_format".into(), text(if self.log_format == LogFormat::Json { "json" } else { "human" }));
        table.insert("log".into(), text(&self.log));
        table.to_string()
    }

    /// What the server itself takes of them.
    #[must_use]
    pub fn server(self, key: ClusterKey) -> ChunkserverConfig {
        ChunkserverConfig {
            dirs: self.dirs,
            key,
            masters: self.masters,
            listen: self.listen,
            advertise: self.advertise,
            rack: self.rack,
            durability: self.durability,
            small_chunks: self.small_chunks,
            scrub: self.scrub,
            http: self.http,
            local_socket: self.local_socket,
        }
    }
}

/// The name of a durability, as in flags and logs.
#[must_use]
pub fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Sealed => "sealed",
        Durability::Buffered => "buffered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> RunArgs {
        let Verb::Run(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().verb;
        *args
    }

    const GOOD: &str = "quarry-chunkserver run --data /a --data /b --capacity 10GiB,5GB --key-file /k --masters h:1,i:2 \
                        --listen 127.0.0.1:0 --rack r1";

    #[test]
    fn flags_win_over_the_file_and_what_is_printed_reads_back() {
        let args = parse(&format!("{GOOD} --config /c --http none --scrub-period 10s"));
        let file = "rack = \"r2\"\nscrub_rate = \"1MiB\"\nscrub_period = \"1d\"\ndurability = \"buffered\"\nadvertise = \"there:9\"\n";
        let found = settings(&args, |_| Ok(file.into())).unwrap();
        assert_eq!((found.rack.as_str(), found.durability), ("r1", Durability::Buffered));
        assert_eq!(found.dirs[1].capacity, Some(5_000_000_000));
        let pace = Pace { period: std::time::Duration::from_secs(10), rate: 1 << 20 };
        assert_eq!((found.scrub, &found.http), (pace, &None));
        assert_eq!(found.local_socket.as_deref(), Some(std::path::Path::new("/a/local.sock")));
        let off =
            settings(&parse(&format!("{GOOD} --local-socket none --small-chunks 4KiB")), |_| unreachable!()).unwrap();
        assert_eq!(off.local_socket, None);
        assert!(off.print().contains("local_socket = \"none\""), "{}", off.print());
        assert_eq!((found.small_chunks, off.small_chunks), (16 << 10, 4 << 10));
        let printed = found.print();
        let again = settings(&parse("quarry-chunkserver run --config /c"), |_| Ok(printed.clone())).unwrap();
        assert_eq!(again.print(), printed);
        assert_eq!(again.advertise.as_deref(), Some("there:9"));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let args =
            parse("quarry-chunkserver run --data /a --capacity huge --masters nonsense --listen 0.0.0.0:1 --config /c");
        let file = "rakc = \"r\"\ndurability = \"maybe\"\nlog_format = 3\nscrub_period = \"often\"\nscrub_rate = \"fast\"\nhttp = \"web\"\nsmall_chunks = \"1MiB\"\n";
        let ConfigError(faults) = settings(&args, |_| Ok(file.into())).unwrap_err();
        let all = faults.join("\n");
        for part in [
            "rakc",
            "maybe",
            "log_format",
            "huge",
            "nonsense",
            "--key-file",
            "--advertise",
            "often",
            "fast",
            "web",
            "1MiB",
        ] {
            assert!(all.contains(part), "{part} is missing in:\n{all}");
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(Cli::try_parse_from(["quarry-chunkserver", "run", "--dataa", "x"]).is_err());
    }
}
