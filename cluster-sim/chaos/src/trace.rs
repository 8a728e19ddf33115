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

/// Where it goes, and the first error.
struct Sink {
    to: BufWriter<Box<dyn io::Write + Send>>,
    failed: Option<(io::ErrorKind, String)>,
}

impl Sink {
    /// Does `work`, unless something has failed before: behind a gap nothing is to follow.
    fn try_to(
        &mut self,
        work: impl FnOnce(&mut BufWriter<Box<dyn io::Write + Send>>) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some((kind, why)) = &self.failed {
            return Err(io::Error::new(*kind, why.clone()));
        }
        work(&mut self.to).inspect_err(|error| self.failed = Some((error.kind(), error.to_string())))
    }
}

#[derive(Clone)]
struct Trace(Arc<Mutex<Sink>>);

static STARTED: OnceLock<Trace> = OnceLock::new();

impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_to(|to| to.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_to(BufWriter::flush)
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
    let trace = Trace(Arc::new(Mutex::new(Sink { to: BufWriter::with_capacity(1 << 20, to), failed: None })));
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
        let _worse = flush();
        report(info);
    }));
}

/// Writes out what was said so far.
///
/// # Errors
/// It cannot be written: the disk is full, or a reader of the standard output has gone. From the first such error on nothing
/// more is written, and each call tells it.
pub fn flush() -> io::Result<()> {
    STARTED.get().map_or(Ok(()), |trace| trace.clone().flush())
}
