//! The `quarry-chunkserver` command.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use quarry_chunkserver::{
    config::{Cli, LogFormat, Settings, Verb, settings},
    server::Chunkserver,
};
use quarry_env::World;
use quarry_types::ClusterKey;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// See the workspace's `Cargo.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads for blocking work: disks, checksums of stored data, the index.
/// More than the reads, writes and orders that can be
/// under way at once, so that those which a hanging disk holds up leave some for the others.
const BLOCKING_THREADS_MAX: usize = 192;
/// Longest settings or key file, in bytes.
const SMALL_FILE_BYTES: usize = 1 << 20;
/// Wrong usage or settings.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Cli { verb: Verb::Run(args) } = Cli::parse();
    // A world to read settings with; its clock needs a runtime, so that comes first.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return complain(1, &format!("cannot start: {e}")),
    };
    runtime.block_on(async {
        let world = World::real(Arc::new(quarry_env_rocks::Rocks));
        let found = settings(&args, |path| read(&world, path));
        let settings = match found {
            Ok(settings) => settings,
            Err(e) => return complain(USAGE, &e.to_string()),
        };
        if args.print_config {
            return match writeln!(io::stdout(), "{}", settings.print().trim_end()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        let key = match read_key(&world, &settings.key_file) {
            Ok(key) => key,
            Err(e) => return complain(USAGE, &e),
        };
        init_log(&settings);
        run(world, settings, key).await
    })
}

async fn run(world: World, settings: Settings, key: ClusterKey) -> ExitCode {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        error!("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let server = match Chunkserver::start(world, settings.server(key)).await {
        Ok(server) => server,
        Err(e) => {
            error!("{e}");
            return ExitCode::FAILURE;
        }
    };
    let http = server.http().map(|address| format!("http on {address}\n")).unwrap_or_default();
    // The data port last: who waits for its line has seen the other.
    let said = writeln!(io::stdout(), "{http}listening on {}", server.listening()).and_then(|()| io::stdout().flush());
    if let Err(e) = said {
        info!("nobody reads standard output: {e}");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.shutdown().await;
    ExitCode::SUCCESS
}

fn read(world: &World, path: &Path) -> Result<String, String> {
    let bytes = world.disk.read_small(path, SMALL_FILE_BYTES).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|_| "not a text".into())
}

fn read_key(world: &World, path: &Path) -> Result<ClusterKey, String> {
    let name = path.display();
    let text = read(world, path).map_err(|e| format!("--key-file {name}: {e}"))?;
    ClusterKey::from_file(&text).ok_or_else(|| {
        format!("--key-file {name} is not a key file: it must be 64 hex digits, as `quarry-master init` writes them")
    })
}

fn init_log(settings: &Settings) {
    // The filter was checked with the settings.
    let filter = settings.log.parse::<EnvFilter>().unwrap_or_default();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.log_format {
        LogFormat::Human => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

fn complain(code: u8, message: &str) -> ExitCode {
    // Nowhere else to say it: logging is not set up yet.
    let _said = writeln!(io::stderr(), "quarry-chunkserver: {message}");
    ExitCode::from(code)
}
