//! The master's process.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use quarry_env::World;
use quarry_master::{
    InitConfig, JoinConfig, Master, MasterConfig, RecoverConfig, RestoreConfig,
    config::{self, ConfigFaults, ENV_CONFIG, Settings},
    init, join, logging, recover,
    restore::{self, NewLineage},
};
use quarry_master_core::command::Settings as CoreSettings;
use quarry_types::limits;

/// See the workspace's `Cargo.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The master of a Quarry cluster: it keeps the namespace and knows where every chunk is.
#[derive(Parser)]
#[command(
    name = "quarry-master",
    version,
    about,
    after_help = "Exit codes: 0 stopped cleanly, 1 failed, 2 wrong usage"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new cluster: its key, and this first master's data directory
    Init(InitArgs),
    /// Make the data directory of one more master of a cluster that runs
    ///
    /// It gets its number from the cluster, and needs a copy of the cluster's key. Then run it, and let it in with
    /// `quarry masters add HOST:PORT`.
    Join(JoinArgs),
    /// Make a master from a backup of the metadata, in a new lineage
    ///
    /// For when all masters are lost. The master goes on alone, from the moment of the backup: what was put later is lost to
    /// the namespace, and what was deleted later is there again as far as its chunks are. Until an operator has looked at
    /// `quarry metadata verify` and let go with `quarry metadata release`, nothing is deleted and no put is aborted.
    /// Chunkservers follow the new lineage and refuse masters of the old one from then on: stop those first.
    Restore(RestoreArgs),
    /// Let one master go on alone when the majority of the group is lost for good
    ///
    /// Refused while any other master of the group answers. The master must be stopped; choose the one that has applied most
    /// (`last_log` in `quarry masters`, or the metric `last_log_index`). Everything in its log counts from then on. As after `restore`, a
    /// new lineage begins, and nothing is deleted before `quarry metadata release`. The old group's files stay in DIR.
    Recover(RecoverArgs),
    /// Run a master whose data directory was made by one of these
    Run(RunArgs),
}

#[derive(clap::Args)]
struct InitArgs {
    /// Directory to make; it must be missing or empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Key file to make; the chunkservers need a copy [default: DIR/cluster.key]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where others will reach this master
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<String>,
    /// Copies of a file that does not say
    #[arg(long, value_name = "N", default_value_t = limits::REPLICAS_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::REPLICAS_MAX)))]
    replicas: u32,
    /// Durable copies that a completed write has at least
    #[arg(long, value_name = "N", default_value_t = limits::REPLICAS_MIN,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::REPLICAS_MAX)))]
    min_replicas: u32,
    /// Replaced and removed files stay readable for who has them open this long
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    reader_grace: std::time::Duration,
    /// Any setting, as `quarry settings` lists them; may be given again
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

#[derive(clap::Args)]
struct JoinArgs {
    /// Directory to make; it must be missing, or empty but for the key file
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A copy of the cluster's key [default: DIR/cluster.key]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Masters of the cluster
    #[arg(long, value_name = "HOST:PORT,…", required = true, value_delimiter = ',', value_parser = address)]
    masters: Vec<String>,
}

#[derive(clap::Args)]
struct RestoreArgs {
    /// Directory to make; it must be missing or empty, but for the key
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The cluster's key: a copy of the one that the chunkservers have
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The backup, as `quarry metadata backup` wrote it
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Where others will reach this master
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<String>,
    /// Number of the new lineage. When the same backup was restored before, chunkservers follow that lineage and refuse a
    /// second one of its number: name one above it [default: the backup's, and one more]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    lineage: Option<u64>,
}

#[derive(clap::Args)]
struct RecoverArgs {
    /// Data directory of the master that is left
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The cluster's key [default: DIR/cluster.key]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where others will reach this master [default: as before]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<String>,
    /// How long the other masters are asked before they count as gone
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    ask: std::time::Duration,
}

/// Every setting can also stand in the file (`key-file = "…"`) or the environment (`QUARRY_MASTER_KEY_FILE`); a flag
/// beats the environment, and that beats the file.
#[derive(clap::Args)]
struct RunArgs {
    /// Configuration file (TOML) [env: QUARRY_MASTER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that results, and do nothing
    #[arg(long)]
    print_config: bool,
    /// Data directory
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The cluster's key [default: DIR/cluster.key]
    #[arg(long, value_name = "FILE")]
    key_file: Option<String>,
    /// Where to listen; port 0 lets the system pick [default: 127.0.0.1:9400]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where others reach this master [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where to serve /metrics, /healthz, /readyz and /leader; port 0 lets the system pick, `none` turns it off [default: 127.0.0.1:9401]
    #[arg(long, value_name = "HOST:PORT|none")]
    http: Option<String>,
    /// A writer lease that is not renewed ends after this [default: 60s]
    #[arg(long, value_name = "TIME")]
    lease: Option<String>,
    /// A session without a call ends after this [default: 10m]
    #[arg(long, value_name = "TIME")]
    session: Option<String>,
    /// Log lines for people (human) or programs (json) [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines, like `info` or `quarry_master=debug` [default: info,openraft=error]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn address(text: &str) -> Result<String, String> {
    match text {
        _ if !config::is_address(text) => Err("not HOST:PORT".into()),
        _ if config::is_everywhere(text) => {
            Err("where others reach this master is one address, not all of them".into())
        }
        _ => Ok(text.to_owned()),
    }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    quarry_types::duration::parse(text).ok_or_else(|| format!("not {}", quarry_types::duration::EXPECTED))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE, as in trash=7d")?;
    CoreSettings::default().change(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Wrong usage, or a failure while running.
enum Failure {
    Usage(String),
    Runtime(String),
}

impl From<ConfigFaults> for Failure {
    fn from(from: ConfigFaults) -> Self {
        Failure::Usage(from.to_string())
    }
}

fn main() -> ExitCode {
    // clap itself ends the process with 2 on wrong usage, and with 0 after --help and --version.
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let done = match (runtime, cli.verb) {
        (Err(e), _) => Err(Failure::Runtime(format!("the runtime does not start: {e}"))),
        (Ok(runtime), Verb::Init(args)) => runtime.block_on(make(args)),
        (Ok(runtime), Verb::Join(args)) => runtime.block_on(enter(args)),
        (Ok(runtime), Verb::Restore(args)) => runtime.block_on(restore(args)),
        (Ok(runtime), Verb::Recover(args)) => runtime.block_on(recover(args)),
        (Ok(runtime), Verb::Run(args)) => runtime.block_on(run(args)),
    };
    let (code, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Runtime(message)) => (1, message),
    };
    // Where stderr is closed the exit code has to speak.
    let _closed = writeln!(std::io::stderr(), "quarry-master: {message}");
    ExitCode::from(code)
}

/// Threads for blocking work: reads of the state and the disk.
const BLOCKING_THREADS: usize = 32;

fn world() -> World {
    World::real(Arc::new(quarry_env_rocks::Rocks))
}

fn say(line: &str) {
    // A closed stdout is no reason to stop.
    let _closed = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
}

async fn make(args: InitArgs) -> Result<(), Failure> {
    let mut config = InitConfig::new(&args.data);
    if args.min_replicas > args.replicas {
        let why = "--min-replicas is more than --replicas: no write could complete with the default number of copies";
        return Err(Failure::Usage(why.into()));
    }
    if let Some(key_file) = args.key_file {
        config.key_file = key_file;
    }
    if let Some(advertise) = args.advertise {
        config.advertise = advertise;
    }
    config.settings.default_replicas = args.replicas;
    config.settings.min_replicas = args.min_replicas;
    config.settings.reader_grace_ms = u64::try_from(args.reader_grace.as_millis()).unwrap_or(u64::MAX);
    for (name, value) in &args.settings {
        config.settings.change(name, value).map_err(Failure::Usage)?;
    }
    let identity = init::init(&world(), &config).await.map_err(|e| Failure::Runtime(e.to_string()))?;
    say(&format!("made cluster {} in {}", identity.cluster, config.data.display()));
    say(&format!("its key is {}: chunkservers need a copy, nobody else may read it", config.key_file.display()));
    Ok(())
}

async fn enter(args: JoinArgs) -> Result<(), Failure> {
    let key_file = args.key_file.unwrap_or_else(|| args.data.join(config::KEY_FILE));
    let config = JoinConfig { data: args.data, key_file, masters: args.masters };
    let identity = join::join(&world(), &config).await.map_err(|e| Failure::Runtime(e.to_string()))?;
    say(&format!("made master {} of cluster {} in {}", identity.node, identity.cluster, config.data.display()));
    say("run it, then let it in with `quarry masters add HOST:PORT`");
    Ok(())
}

fn says(begun: &NewLineage, data: &Path) {
    let NewLineage { cluster, node, lineage } = begun;
    say(&format!(
        "master {node} of cluster {cluster} begins lineage {} ({}) in {}",
        lineage.number,
        lineage.id,
        data.display()
    ));
    say("deletions and aborts are held back: start it with `quarry-master run`, wait for the chunkservers, look at \
         `quarry metadata verify`, then let go with `quarry metadata release`");
}

async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let mut config = RestoreConfig::new(args.data, args.key_file, args.from);
    config.lineage = args.lineage;
    if let Some(advertise) = args.advertise {
        config.advertise = advertise;
    }
    let begun = restore::restore(&world(), &config).await.map_err(|e| Failure::Runtime(e.to_string()))?;
    says(&begun, &config.data);
    Ok(())
}

async fn recover(args: RecoverArgs) -> Result<(), Failure> {
    let key_file = args.key_file.unwrap_or_else(|| args.data.join(config::KEY_FILE));
    let config = RecoverConfig { data: args.data, key_file, advertise: args.advertise, ask: args.ask };
    let begun = recover::recover(&world(), &config).await.map_err(|e| Failure::Runtime(e.to_string()))?;
    says(&begun, &config.data);
    Ok(())
}

fn configure(args: &RunArgs) -> Result<MasterConfig, Failure> {
    let mut flags = Settings::new();
    for (name, value) in [
        ("data", &args.data),
        ("key-file", &args.key_file),
        ("listen", &args.listen),
        ("advertise", &args.advertise),
        ("http", &args.http),
        ("lease", &args.lease),
        ("session", &args.session),
        ("log-format", &args.log_format),
        ("log", &args.log),
    ] {
        if let Some(value) = value {
            flags.insert(name.into(), value.clone());
        }
    }
    let variables: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    let path = args.config.clone().or_else(|| variables.get(ENV_CONFIG).map(PathBuf::from));
    let (env, mut faults) = config::from_env(variables);
    let mut file = Settings::new();
    if let Some(path) = path {
        let more;
        (file, more) = config::from_file(&read(&path)?);
        faults.extend(more);
    }
    Ok(config::resolve(&[flags, env, file], faults)?)
}

/// A configuration file is longer than this only by mistake, in bytes.
const CONFIG_BYTES: usize = 1 << 20;

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = world().disk.read_small(path, CONFIG_BYTES);
    let text = bytes.and_then(|b| String::from_utf8(b).map_err(std::io::Error::other));
    text.map_err(|e| Failure::Usage(format!("cannot read the configuration file {}: {e}", path.display())))
}

async fn run(args: RunArgs) -> Result<(), Failure> {
    let config = configure(&args)?;
    if args.print_config {
        say(config.to_file().trim_end());
        return Ok(());
    }
    logging::start(&config).map_err(Failure::Usage)?;
    // Before anything is opened, so that no moment is left in which a signal would not stop cleanly.
    let stop = stop_signal().map_err(|e| Failure::Runtime(format!("signals cannot be watched: {e}")))?;
    let master = Master::start(world(), config).await.map_err(|e| Failure::Runtime(e.to_string()))?;
    if let Some(http) = master.http() {
        say(&format!("http on {http}"));
    }
    // The gRPC port last: who waits for its line has seen the other.
    say(&format!("listening on {}", master.address()));
    let failed = tokio::select! {
        () = stop => None,
        reason = master.failed() => Some(reason),
    };
    master.shutdown().await;
    failed.map_or(Ok(()), |reason| Err(Failure::Runtime(reason)))
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
