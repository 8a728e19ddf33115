//! What is simulated: a cluster, its data, its clients, its operator's settings, and what goes wrong.
//!
//! A scenario is a TOML file; `cluster-sim/README.md` describes every key. Unknown keys are refused, and every error names
//! the line, the key and what to do.

mod check;
mod error;
mod faults;
mod vary;

use std::collections::BTreeMap;

use quarry_master_core::command::Settings;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

pub use error::ScenarioError;
pub use faults::{Act, EventSpec, Faults, Target};
pub use vary::{Vary, VaryError};

use crate::units::{Micros, Rate, SECOND, Size, Time};

/// A scenario, checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What it answers.
    pub question: String,
    /// How long, and from which seed.
    pub run: Run,
    /// Machines.
    pub cluster: ClusterSpec,
    /// What they hold at first.
    pub data: Data,
    /// What clients do.
    #[serde(default)]
    pub workload: Workload,
    /// How fast things are.
    #[serde(default)]
    pub model: Model,
    /// What an operator set, by the names and in the units of `quarry settings`.
    #[serde(default)]
    settings: BTreeMap<String, Spanned<SettingText>>,
    /// What goes wrong by chance.
    #[serde(default)]
    pub faults: Faults,
    /// What happens at a given time.
    #[serde(default, rename = "event")]
    events: Vec<Spanned<EventSpec>>,
    /// Pairs of servers that hold a given number of chunks in common.
    #[serde(default)]
    pub together: Vec<Together>,
    /// The settings, read.
    #[serde(skip)]
    read: Settings,
}

/// How long, and from which seed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Run {
    /// Simulated time.
    #[serde(rename = "for")]
    pub lasts: Time,
    /// The seed when the command line names none.
    #[serde(default = "one")]
    pub seed: u64,
}

/// Machines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterSpec {
    /// Failure domains, named r0, r1, …
    pub racks: u32,
    /// Chunkservers, numbered from 0; server n is on rack n modulo racks.
    pub servers: u32,
    /// Disks of each.
    #[serde(default = "four")]
    pub disks: u32,
    /// Size of each disk.
    pub disk: Size,
}

/// What the servers hold at first, spread evenly.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Data {
    /// Sealed chunks.
    pub chunks: u32,
    /// Length of each.
    pub chunk: Size,
    /// Wanted replicas.
    #[serde(default = "three")]
    pub replicas: u32,
}

/// What clients do. Reads and writes are spread evenly over the servers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    /// Bytes read in the whole cluster.
    #[serde(default)]
    pub reads: Rate,
    /// Bytes of new chunks in the whole cluster, before replication. Each new chunk is placed by the master's placement.
    #[serde(default)]
    pub writes: Rate,
    /// For each new chunk an old one is deleted.
    #[serde(default)]
    pub deletes: bool,
}

/// How fast things are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Model {
    /// Of a server's network, each way.
    pub server_network: Rate,
    /// Between a rack and the others, each way; 0: no limit.
    pub rack_network: Rate,
    /// Of a disk, reads and writes together.
    pub disk_speed: Rate,
    /// How long an idle server takes to serve a client's request.
    pub service_time: Time,
    /// From the order to the first byte of a copy, and from the last one to the receipt, together.
    pub copy_overhead: Time,
    /// From the order of a drop until the master knows that it is done.
    pub drop_time: Time,
    /// From the return of a server until its full report has come; and so much more for each thousand chunks.
    pub report_time: Time,
    /// See [`Model::report_time`].
    pub report_time_per_thousand: Time,
    /// Until a chunkserver notices that a disk is gone.
    pub disk_noticed_after: Time,
    /// Within this every replica is read again (`--scrub-period`).
    pub scrub_period: Time,
    /// At most this fast (`--scrub-rate`).
    pub scrub_rate: Rate,
    /// A copy whose other end is gone is given up after this.
    pub copy_gives_up: Time,
}

impl Default for Model {
    fn default() -> Self {
        const MB: u64 = 1_000_000;
        Model {
            server_network: Rate(1250 * MB),
            rack_network: Rate(0),
            disk_speed: Rate(150 * MB),
            service_time: Time(10_000),
            copy_overhead: Time(50_000),
            drop_time: Time(200_000),
            report_time: Time(SECOND),
            report_time_per_thousand: Time(10_000),
            disk_noticed_after: Time(5 * SECOND),
            // The defaults of a chunkserver.
            scrub_period: Time(14 * 86_400 * SECOND),
            scrub_rate: Rate(32 << 20),
            copy_gives_up: Time(3 * SECOND),
        }
    }
}

/// Two servers hold so many chunks in common.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Together {
    /// The one.
    pub a: u16,
    /// The other, on another rack.
    pub b: u16,
    /// How many.
    pub chunks: u32,
}

/// A setting's value as text, however it was written.
#[derive(Clone, Debug)]
struct SettingText(String);

impl<'de> Deserialize<'de> for SettingText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(from)? {
            toml::Value::String(text) => Ok(SettingText(text)),
            toml::Value::Integer(number) => Ok(SettingText(number.to_string())),
            toml::Value::Float(number) => Ok(SettingText(number.to_string())),
            other => {
                let what = format!("a setting cannot be a {}, expected text or a number", other.type_str());
                Err(de::Error::custom(what))
            }
        }
    }
}

fn one() -> u64 {
    1
}

fn three() -> u32 {
    3
}

fn four() -> u32 {
    4
}

impl Scenario {
    /// Reads the text of the scenario `name`.
    ///
    /// # Errors
    /// [`ScenarioError`] names line, key and remedy.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let from = toml::Deserializer::parse(text).map_err(|error| ScenarioError::syntax(name, text, &error))?;
        let mut scenario: Scenario =
            serde_path_to_error::deserialize(from).map_err(|error| ScenarioError::of_key(name, text, &error))?;
        scenario.check(name, text)?;
        Ok(scenario)
    }

    /// Lets it last another time than its file `name` says.
    ///
    /// # Errors
    /// More would happen in it than can be simulated.
    pub fn set_lasts(&mut self, name: &str, lasts: Time) -> Result<(), ScenarioError> {
        self.run.lasts = lasts;
        let checker = check::Checker { name, text: "" };
        self.check_load(&checker)?;
        self.events.iter().enumerate().try_for_each(|(n, event)| self.check_time(&checker, n, event))
    }

    /// What an operator set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.read
    }

    /// What happens at a given time, in the file's order.
    pub fn events(&self) -> impl Iterator<Item = &EventSpec> {
        self.events.iter().map(Spanned::get_ref)
    }

    /// Simulated time.
    #[must_use]
    pub fn lasts(&self) -> Micros {
        self.run.lasts.0
    }
}

#[cfg(test)]
mod tests;
