//! The one place that writes to standard output and standard error.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::error::{CliError, Kind, Outcome};

/// Text is handed to standard output in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// Standard output, gathered in pieces. What is not flushed is not printed.
pub struct Out {
    stdout: tokio::io::Stdout,
    text: Vec<u8>,
    terminal: bool,
}

impl Out {
    pub fn new() -> Self {
        Out { stdout: tokio::io::stdout(), text: Vec::new(), terminal: io::stdout().is_terminal() }
    }

    /// Whether somebody looks at it as it comes.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a line. Control characters cannot reach a terminal, where a name could use them to act on it.
    pub async fn line(&mut self, line: impl AsRef<str>) -> Outcome {
        if self.terminal {
            self.text.extend_from_slice(visible(line.as_ref()).as_bytes());
        } else {
            self.text.extend_from_slice(line.as_ref().as_bytes());
        }
        self.text.push(b'\n');
        self.flush_if_full().await
    }

    /// Prints one JSON document, as a line.
    pub async fn json(&mut self, value: &Value) -> Outcome {
        self.raw(format!("{value}\n").as_bytes()).await
    }

    /// Prints bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> Outcome {
        self.text.extend_from_slice(bytes);
        self.flush_if_full().await
    }

    /// Hands everything to standard output.
    pub async fn flush(&mut self) -> Outcome {
        let done = async {
            self.stdout.write_all(&self.text).await?;
            self.stdout.flush().await
        };
        let done = done.await;
        self.text.clear();
        done.map_err(|error| stdout_error(&error))
    }

    async fn flush_if_full(&mut self) -> Outcome {
        if self.text.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }
}

fn stdout_error(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::of_kind(Kind::OutputClosed, ""),
        _ => CliError::local(format!("cannot write to standard output: {error}")),
    }
}

/// Standard error: notes, warnings and errors, a line each, above the progress bars if there are any.
#[derive(Clone)]
pub struct Notes {
    json: bool,
    verbose: bool,
    bars: Option<MultiProgress>,
}

impl Notes {
    pub fn new(json: bool, verbose: bool, bars: Option<MultiProgress>) -> Self {
        Notes { json, verbose, bars }
    }

    /// Something the user should know, though the command succeeds.
    pub fn warning(&self, text: impl AsRef<str>) {
        self.say("warning: ", text.as_ref());
    }

    /// Something left out on purpose.
    pub fn note(&self, text: impl AsRef<str>) {
        self.say("note: ", text.as_ref());
    }

    /// What was done, with `--verbose` only.
    pub fn verbose(&self, text: impl AsRef<str>) {
        if self.verbose {
            self.say("", text.as_ref());
        }
    }

    /// An error.
    pub fn error(&self, error: &CliError) {
        match error.kind {
            Kind::OutputClosed => {}
            _ if self.json => self.say("", &error_json(error).to_string()),
            _ => self.say("quarry: ", &error.to_string()),
        }
    }

    fn say(&self, label: &str, text: &str) {
        let line = format!("{label}{}\n", visible(text));
        let write = || {
            // Nobody is left to tell when standard error is gone.
            let _unheard = io::stderr().write_all(line.as_bytes());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// `{"error": {code, message}}`.
pub fn error_json(error: &CliError) -> Value {
    json!({"error": {"code": error.code_name(), "message": error.to_string()}})
}

/// The text with control characters replaced.
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use quarry_types::ErrorCode;

    use super::*;

    #[test]
    fn errors_have_the_json_shape_of_the_contract() {
        let error = CliError::new(ErrorCode::NotFound, "no such file /a");
        assert_eq!(error_json(&error), json!({"error": {"code": "NotFound", "message": "no such file /a"}}));
    }

    #[test]
    fn names_cannot_act_on_a_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\nc"), "a?[2Jb?c");
    }
}
