//! Running `quarry` as a person would.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
};

use crate::process::binary;

/// What a finished `quarry` left.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The output of a command that must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, 0, "quarry failed: {}", self.stderr);
        self.stdout
    }

    /// Same, as text.
    ///
    /// # Panics
    /// When the command failed or printed no text.
    #[must_use]
    pub fn text(self) -> String {
        String::from_utf8(self.ok()).expect("text")
    }

    /// Same, as JSON.
    ///
    /// # Panics
    /// When the command failed or printed no JSON.
    #[must_use]
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_slice(&out).unwrap_or_else(|e| panic!("not JSON ({e}): {}", String::from_utf8_lossy(&out)))
    }
}

/// The command, ready for more settings.
#[must_use]
pub fn command(masters: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary("quarry"));
    command.env("QUARRY_MASTERS", masters).args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
///
/// # Panics
/// When the binary does not start.
#[must_use]
pub fn run(masters: &str, args: &[&str]) -> Output {
    collect(command(masters, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("quarry starts"))
}

/// Runs it with `input` on its standard input.
///
/// # Panics
/// When the binary does not start.
#[must_use]
pub fn run_with_input(masters: &str, args: &[&str], input: &[u8]) -> Output {
    let mut child = command(masters, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quarry starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        // It may stop reading early, when it fails: that shows in its exit code.
        scope.spawn(move || drop(stdin.write_all(input)));
        collect(child)
    })
}

/// Starts it in the background.
///
/// # Panics
/// When the binary does not start.
#[must_use]
pub fn start(masters: &str, args: &[&str]) -> Child {
    command(masters, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("quarry starts")
}

/// Waits for one that was started.
///
/// # Panics
/// When its output cannot be read.
#[must_use]
pub fn collect(child: Child) -> Output {
    let out = child.wait_with_output().expect("quarry's output can be read");
    Output {
        code: out.status.code().unwrap_or(-1),
        stdout: out.stdout,
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}
