//! `--vary KEY=A,B,C`: the same scenario with one value changed.

use super::{Scenario, ScenarioError};

/// Names that say the same as a key of the file.
const SHORT: &[(&str, &str)] = &[
    ("repair.bandwidth", "settings.repair-rate"),
    ("repair.bandwidth-cluster", "settings.repair-rate-cluster"),
    ("repair.delay", "settings.repair-delay"),
    ("replicas", "data.replicas"),
];

/// One key and the values that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// As it was written.
    pub key: String,
    /// Its values.
    pub values: Vec<String>,
}

/// What is wrong with a `--vary`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaryError {
    /// It names no key or no value.
    #[error(
        "--vary {0:?} cannot be read; write KEY=VALUE,VALUE, like repair.bandwidth=50MB,100MB or data.replicas=2,3"
    )]
    Form(String),
    /// It has a flag of its own.
    #[error("--vary {0}: say --seed and --seeds instead")]
    Seed(String),
    /// The file has something else there.
    #[error("--vary {key}: {part} is no table in this scenario; name a key as the file does, with dots")]
    NoTable {
        /// The whole key.
        key: String,
        /// What is no table.
        part: String,
    },
    /// The scenario with this value is none.
    #[error("--vary {key}={value}: {error}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong then.
        error: Box<ScenarioError>,
    },
}

impl std::str::FromStr for Vary {
    type Err = VaryError;

    fn from_str(text: &str) -> Result<Self, VaryError> {
        let form = || VaryError::Form(text.into());
        let (key, values) = text.split_once('=').ok_or_else(form)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if key.trim() == "run.seed" {
            return Err(VaryError::Seed(key.trim().into()));
        }
        if key.is_empty() || values.iter().any(String::is_empty) {
            Err(form())
        } else {
            Ok(Vary { key: key.trim().into(), values })
        }
    }
}

/// A value as the file would have it: a number or a truth where it is one, else text.
fn value_of(text: &str) -> toml::Value {
    if let Ok(number) = text.parse::<i64>() {
        return toml::Value::Integer(number);
    }
    if let Ok(number) = text.parse::<f64>() {
        return toml::Value::Float(number);
    }
    match text {
        "true" => toml::Value::Boolean(true),
        "false" => toml::Value::Boolean(false),
        _ => toml::Value::String(text.into()),
    }
}

impl Vary {
    /// The scenario of the file `name` with this value.
    ///
    /// # Errors
    /// [`VaryError`], and what is wrong with the scenario.
    pub fn apply(&self, name: &str, text: &str, value: &str) -> Result<Scenario, VaryError> {
        let wrong = |error| VaryError::Value { key: self.key.clone(), value: value.into(), error: Box::new(error) };
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| wrong(ScenarioError::syntax(name, text, &error)))?;
        let key = SHORT.iter().find(|(short, _)| *short == self.key).map_or(self.key.as_str(), |(_, key)| key);
        let mut at = &mut table;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.into(), value_of(value));
                break;
            }
            let inner = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            at = inner.as_table_mut().ok_or_else(|| VaryError::NoTable { key: self.key.clone(), part: part.into() })?;
        }
        // The place in this text says nothing about the file.
        let unplaced = |error: ScenarioError| wrong(ScenarioError { line: None, ..error });
        Scenario::parse(name, &table.to_string()).map_err(unplaced)
    }
}
