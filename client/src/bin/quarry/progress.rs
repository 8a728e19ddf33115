//! Progress on a terminal; silence elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar is drawn, at most.
const DRAWS_PER_SECOND: u8 = 10;

/// The bars of one command, when standard error is a terminal.
pub fn bars(wanted: bool) -> Option<MultiProgress> {
    (wanted && io::stderr().is_terminal())
        .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)))
}

/// How far a command has come. Cheap to clone; all clones move one bar.
#[derive(Clone)]
pub struct Progress {
    bytes: ProgressBar,
}

impl Progress {
    /// One file of `length` bytes (unknown for standard input).
    pub fn of_file(bars: Option<&MultiProgress>, name: &str, length: Option<u64>) -> Progress {
        let template = match length {
            Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        let bar = shown(bars, length, template);
        bar.set_message(name.to_string());
        Progress { bytes: bar }
    }

    /// A tree, whose size shows only on the way.
    pub fn of_tree(bars: Option<&MultiProgress>) -> Progress {
        Progress { bytes: shown(bars, None, "{spinner} {prefix} files, {bytes} {bytes_per_sec} {wide_msg}") }
    }

    /// So many bytes more are done.
    pub fn add(&self, bytes: u64) {
        self.bytes.inc(bytes);
    }

    /// So many files are done, the last being `name`.
    pub fn files(&self, done: u64, name: &str) {
        if !self.bytes.is_hidden() {
            self.bytes.set_prefix(done.to_string());
            self.bytes.set_message(name.to_string());
        }
    }

    /// Takes the bar off the screen: what is printed next begins a line of its own.
    pub fn finish(&self) {
        self.bytes.finish_and_clear();
    }
}

fn shown(bars: Option<&MultiProgress>, length: Option<u64>, template: &str) -> ProgressBar {
    let Some(bars) = bars else {
        return ProgressBar::hidden();
    };
    let bar = bars.add(length.map_or_else(ProgressBar::new_spinner, ProgressBar::new));
    // A template that does not parse is a mistake of this file, which the test finds.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        for template in [
            "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            "{msg} {spinner} {bytes} {bytes_per_sec}",
            "{spinner} {prefix} files, {bytes} {bytes_per_sec} {wide_msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
