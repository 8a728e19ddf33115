//! What is wrong with a scenario file.

use std::ops::Range;

/// What is wrong with a scenario file, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {}{what}; {remedy}", self.line.map(|line| format!(":{line}")).unwrap_or_default(), self.shown_key())]
pub struct ScenarioError {
    /// The file.
    pub file: String,
    /// The line, where it is known.
    pub line: Option<usize>,
    /// The key, with dots; empty where the file is no TOML at all.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// The line of a byte of `text`, from 1.
fn line_of(text: &str, span: Option<Range<usize>>) -> Option<usize> {
    let before = text.get(..span?.start.min(text.len()))?;
    Some(before.matches('\n').count() + 1)
}

/// The key inside a value with its place, in paths.
const SPANNED: &str = ".$__serde_spanned_private_value";

const SEE: &str = "cluster-sim/README.md describes every key";

impl ScenarioError {
    fn shown_key(&self) -> String {
        if self.key.is_empty() { String::new() } else { format!("key `{}`: ", self.key) }
    }

    /// The file is no TOML.
    #[must_use]
    pub fn syntax(file: &str, text: &str, error: &toml::de::Error) -> Self {
        ScenarioError {
            file: file.into(),
            line: line_of(text, error.span()),
            key: String::new(),
            what: format!("this is no TOML: {}", error.message()),
            remedy: "put text in quotes and one `key = value` on each line".into(),
        }
    }

    /// A key is unknown, missing, or has a value that it cannot have.
    #[must_use]
    pub fn of_key(file: &str, text: &str, error: &serde_path_to_error::Error<toml::de::Error>) -> Self {
        // What remembers where it stood is a table of its own to serde.
        let (inner, path) = (error.inner(), error.path().to_string().replace(SPANNED, ""));
        let key = if path == "." { String::new() } else { path };
        // What serde expected is what to do.
        let message = inner.message();
        let (what, remedy) = match message.split_once(", expected ") {
            Some((what, expected)) => (what, format!("use {expected}")),
            None if message.starts_with("missing field") => (message, format!("add it; {SEE}")),
            None => (message, SEE.into()),
        };
        ScenarioError { file: file.into(), line: line_of(text, inner.span()), key, what: what.into(), remedy }
    }

    /// A value does not fit the rest.
    #[must_use]
    pub fn of_value(file: &str, text: &str, span: Option<Range<usize>>, key: &str, what: String, remedy: &str) -> Self {
        let line = line_of(text, span).or_else(|| line_of_key(text, key));
        ScenarioError { file: file.into(), line, key: key.into(), what, remedy: remedy.into() }
    }
}

/// The line of `table.key`, found by its words: for values that keep no place of their own.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut inside = table.is_empty();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let header = line.trim_matches(['[', ']']).trim();
            if header == key {
                return Some(number + 1);
            }
            inside = header == table;
        } else if let Some((found, _)) = line.split_once('=')
            && (inside && found.trim() == name || found.trim() == key)
        {
            return Some(number + 1);
        }
    }
    None
}
