//! Everything that is said in a run, with the simulated time and the machine that said it.
//!
//! Only our own targets: other crates print instants and addresses of memory.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

/// turmoil's spans name the machine.
const FILTER: &str = "off,turmoil=info,quarry=trace,sim_world=trace";

/// The trace of this process so far.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<u8>>>);

impl Trace {
    /// Takes what was collected.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
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

/// Collects the trace of this process from now on.
///
/// # Panics
/// When something else collects already.
pub fn start() -> Trace {
    let trace = Trace::default();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(FILTER))
        .with_timer(SimulatedTime)
        .with_ansi(false)
        .with_writer(trace.clone())
        .init();
    trace
}
