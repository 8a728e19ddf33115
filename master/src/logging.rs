//! Log lines: for people or as JSON, on stderr. Payloads and keys are never logged; spans carry the request id.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, MasterConfig};

/// Starts writing log lines. Only the binary calls this, once.
///
/// # Errors
/// Names the filter when it is malformed.
pub fn start(config: &MasterConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log).map_err(|e| format!("log {:?} is not a filter: {e}", config.log))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Human => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|e| format!("logging cannot start: {e}"))
}
