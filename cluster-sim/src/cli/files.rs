//! The only place that reads, writes and prints. This crate links no injected world: its files are those of its command line.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr, reason = "see above")]

use std::{fs, io::Write as _, path::Path};

use super::{Failed, Output};
use crate::report::{Outcome, html::html, text::text};

/// A file as text.
pub fn read(path: &Path) -> Result<String, Failed> {
    let failed = |error| format!("{}: {error}; name a file that is there and can be read", path.display());
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{}: it is not a regular file; name one", path.display()));
    }
    fs::read_to_string(path).map_err(failed)
}

/// The page is not to take the place of what is read.
pub fn spare(input: &Path, output: &Output) -> Result<(), Failed> {
    let Some(page) = &output.html else { return Ok(()) };
    match (fs::canonicalize(input), fs::canonicalize(page)) {
        (Ok(input), Ok(page)) if input == page => {
            Err(format!("--html {}: that is the file that is read; name another", page.display()))
        }
        _ => Ok(()),
    }
}

/// Prints; who closed the other end wants no more.
pub fn print(text: &str) {
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

/// Says what went wrong.
pub fn complain(error: &str) {
    eprintln!("quarry-sim: {error}");
}

/// A value as JSON.
pub fn json(of: &impl serde::Serialize) -> Result<String, Failed> {
    let failed =
        |error| format!("the report cannot be written as JSON: {error}; this is a bug of quarry-sim, report it");
    serde_json::to_string_pretty(of).map(|text| text + "\n").map_err(failed)
}

/// Prints a report, and writes its page.
pub fn put(outcome: &Outcome, output: &Output) -> Result<(), Failed> {
    if let Some(path) = &output.html {
        let failed = |error| format!("{}: {error}; name a file that can be written", path.display());
        fs::write(path, html(outcome)).map_err(failed)?;
    }
    let shown = if output.json { json(outcome)? } else { text(outcome) };
    print(&shown);
    Ok(())
}
