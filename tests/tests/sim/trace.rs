//! Everything that is said in a run, with the simulated time and the machine that said it.
//!
//! Only our own targets: other crates print instants and addresses of memory.

use std::{
    fmt,
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

/// turmoil's spans name the machine.
const FILTER: &str = "off,turmoil=info,quarry=trace,sim_world=trace";

/// Where the trace goes, line by line: a run that hangs or panics has left it as well.
#[derive(Clone)]
struct Trace(Arc<Mutex<File>>);

impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Trace;

    fn make_writer(&'a self) -> Trace {
        self.clone()
    }
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        match turmoil::sim_elapsed() {
            Some(elapsed) => write!(to, "{:>12}us", elapsed.as_micros()),
            None => write!(to, "{:>14}", "-"),
        }
    }
}

/// Writes the trace of this process to `path` from now on.
///
/// # Panics
/// When the file cannot be made, or something else collects already.
pub fn start(path: &Path) {
    let trace = Trace(Arc::new(Mutex::new(File::create(path).expect("the trace can be written"))));
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(FILTER))
        .with_timer(SimulatedTime)
        .with_ansi(false)
        .with_writer(trace)
        .init();
}
