//! Everything that is said in a run, with the simulated time and the machine that said it.
//!
//! Only our own targets: other crates print instants and addresses of memory.

use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, format::Writer},
    registry::LookupSpan,
};

/// All of it: what two runs of a seed are compared by. turmoil's spans name the machine.
const ALL: &str = "off,turmoil=info,quarry=trace";
/// What a person wants to read.
const READABLE: &str = "off,turmoil=info,quarry=info,quarry_decisions=off";
/// The name of turmoil's span around all that a machine does.
const NODE: &str = "node";
/// Who says what no machine says.
const WORLD: &str = "-";

/// How much of a run is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every call to a disk and every piece sent, too.
    All,
    /// What a person wants to read.
    Readable,
}

/// Where it goes.
#[derive(Clone)]
struct Trace(Arc<Mutex<BufWriter<Box<dyn io::Write + Send>>>>);

static STARTED: OnceLock<Trace> = OnceLock::new();

impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Trace;

    fn make_writer(&'a self) -> Trace {
        self.clone()
    }
}

/// A line: simulated microseconds, machine, level, who in its code, what.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match turmoil::sim_elapsed() {
            Some(elapsed) => write!(to, "{:>12}us ", elapsed.as_micros())?,
            None => write!(to, "{WORLD:>14} ")?,
        }
        let (mut machine, mut spans) = (WORLD.to_owned(), String::new());
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map(|f| f.as_str()).unwrap_or_default();
            if span.name() == NODE {
                fields.trim_start_matches("name=").trim_matches('"').clone_into(&mut machine);
            } else {
                spans.push_str(&format!("{}{{{fields}}}: ", span.name()));
            }
        }
        let about = event.metadata();
        write!(to, "{machine:<8} {:>5} {}: {spans}", about.level(), about.target())?;
        ctx.field_format().format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

/// Writes what is said in this process to the file at `path` from now on, or to the standard output. What is written may
/// lag behind until [`flush`]; a panic flushes.
///
/// # Panics
/// When the file cannot be made, or something else collects already.
pub fn start(path: Option<&Path>, detail: Detail) {
    let to: Box<dyn io::Write + Send> = match path {
        Some(path) => Box::new(File::create(path).expect("the trace can be written")),
        None => Box::new(io::stdout()),
    };
    let trace = Trace(Arc::new(Mutex::new(BufWriter::with_capacity(1 << 20, to))));
    assert!(STARTED.set(trace.clone()).is_ok(), "a process has one trace");
    let filter = match detail {
        Detail::All => ALL,
        Detail::Readable => READABLE,
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(false)
        .event_format(Lines)
        .with_writer(trace)
        .init();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        flush();
        report(info);
    }));
}

/// Writes out what was said so far.
pub fn flush() {
    if let Some(trace) = STARTED.get() {
        // A reader of the standard output that has gone is no reason to stop.
        let _gone = trace.clone().flush();
    }
}
