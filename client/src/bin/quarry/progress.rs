//! Progress on a terminal; silence elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{Notes, visible};

/// How often what goes on in the cluster is looked at again.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
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

    /// Work of the cluster, whose size may grow on the way.
    pub fn of_work(bars: Option<&MultiProgress>) -> Progress {
        Progress { bytes: shown(bars, Some(0), "{bar:30} {bytes}/{total_bytes} {wide_msg}") }
    }

    /// Lines that change as a whole.
    pub fn of_lines(bars: Option<&MultiProgress>) -> Progress {
        Progress { bytes: shown(bars, None, "{msg}") }
    }

    /// This is how far it is.
    pub fn show(&self, way: &Way, text: &str) {
        self.bytes.set_length(way.total);
        self.bytes.set_position(way.done());
        self.bytes.set_message(visible(text));
    }

    /// These lines, instead of those before.
    pub fn lines(&self, lines: &[String]) {
        let lines: Vec<String> = lines.iter().map(|line| visible(line)).collect();
        self.bytes.set_message(lines.join("\n"));
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

/// How far something is of which only what is left is known. It never goes backwards: what is added makes the way longer.
#[derive(Debug, Default)]
pub struct Way {
    total: u64,
    left: u64,
}

impl Way {
    /// So much is left now.
    pub fn left(&mut self, left: u64) {
        self.total = self.total.saturating_add(left.saturating_sub(self.left));
        self.left = left;
    }

    fn done(&self) -> u64 {
        self.total.saturating_sub(self.left)
    }
}

/// Something that goes on in the cluster when this command ends before it: dropped, it says so.
pub struct GoesOn<'a> {
    notes: &'a Notes,
    text: Option<String>,
}

impl<'a> GoesOn<'a> {
    pub fn new(notes: &'a Notes, text: String) -> Self {
        GoesOn { notes, text: Some(text) }
    }

    /// It goes on no more.
    pub fn ended(mut self) {
        self.text = None;
    }
}

impl Drop for GoesOn<'_> {
    fn drop(&mut self) {
        self.text.iter().for_each(|text| self.notes.note(text));
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
            "{bar:30} {bytes}/{total_bytes} {wide_msg}",
            "{msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn progress_never_runs_backwards() {
        let mut way = Way::default();
        let mut seen = Vec::new();
        for left in [100, 60, 80, 0, 10, 0] {
            way.left(left);
            seen.push((way.done(), way.total));
        }
        assert_eq!(seen, [(0, 100), (40, 100), (40, 120), (120, 120), (120, 130), (130, 130)]);
    }
}
