//! What goes wrong: by chance, and at given times.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::units::Time;

/// Faults by chance. Each kind that is named happens at exponentially distributed intervals with the mean `every` for each
/// unit (a server, a disk, a rack, the cluster), and lasts an exponentially distributed time with the mean `lasts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Faults {
    /// A server's process or machine goes and comes back with its data.
    pub crash: Option<Outage>,
    /// A server is lost with all it holds.
    pub server_loss: Option<Loss>,
    /// A disk is lost with all it holds.
    pub disk_loss: Option<Loss>,
    /// A replica on a disk rots, unnoticed until it is read.
    pub corruption: Option<Corruption>,
    /// All servers of a rack go and come back.
    pub rack_outage: Option<Outage>,
    /// All servers go and come back, some of them without what they held.
    pub power_outage: Option<Power>,
    /// A server is cut off from the master.
    pub partition: Option<Partition>,
    /// A server's disks are slow.
    pub slow: Option<Slow>,
    /// A server comes and goes.
    pub flapping: Option<Flapping>,
}

/// Something goes and comes back.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Outage {
    /// Mean time between two, for each unit.
    pub every: Time,
    /// Mean length.
    pub lasts: Time,
}

/// Something is lost, and replaced by something empty.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Loss {
    /// Mean time between two, for each unit.
    pub every: Time,
    /// An empty one is there after this; absent: never.
    pub replaced_after: Option<Time>,
}

/// A replica rots.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Corruption {
    /// Mean time between two, for each disk.
    pub every: Time,
}

/// The power of everything.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Power {
    /// Mean time between two.
    pub every: Time,
    /// Mean length.
    pub lasts: Time,
    /// Share of the servers, 0 to 1, that are lost for good.
    #[serde(default)]
    pub lost: f64,
}

/// A server is cut off.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partition {
    /// Mean time between two, for each server.
    pub every: Time,
    /// Mean length.
    pub lasts: Time,
    /// From everybody, not only from the master.
    #[serde(default)]
    pub from_all: bool,
}

/// A server's disks are slow.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Slow {
    /// Mean time between two, for each server.
    pub every: Time,
    /// Mean length.
    pub lasts: Time,
    /// So many times slower.
    pub factor: u32,
}

/// A server comes and goes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Flapping {
    /// Mean time between two, for each server.
    pub every: Time,
    /// Mean length.
    pub lasts: Time,
    /// It is there for this.
    pub up: Time,
    /// Then it is away for this.
    pub down: Time,
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A server goes; with `lasts` it comes back with its data.
    Crash,
    /// A server is lost with all it holds; with `lasts` an empty one replaces it.
    Lose,
    /// A disk is lost; with `lasts` an empty one replaces it.
    LoseDisk,
    /// A replica on a server rots.
    Corrupt,
    /// A rack goes; with `lasts` it comes back.
    RackOutage,
    /// Everything goes; with `lasts` it comes back.
    PowerOutage,
    /// A server, or a rack, is cut off from the master.
    Partition,
    /// A server, or a rack, is cut off from everybody.
    Isolate,
    /// A server's disks are `factor` times slower.
    Slow,
    /// A server comes (`up`) and goes (`down`).
    Flap,
    /// An operator empties a server.
    Drain,
    /// An operator ends that.
    Undrain,
    /// A server is stopped gracefully, and is back after `lasts`.
    Restart,
    /// All servers are, one after the other: the next one `pause` after the one before is back.
    RollingRestart,
    /// An operator lets repair go that the brake holds.
    ReleaseBrake,
}

impl Act {
    /// What it may act on, for messages.
    #[must_use]
    pub fn acts_on(self) -> &'static str {
        match self {
            Act::LoseDisk => "disk:SERVER/DISK",
            Act::RackOutage => "rack:NAME",
            Act::Partition | Act::Isolate | Act::Lose | Act::Crash | Act::Drain | Act::Slow => {
                "server:NUMBER or rack:NAME"
            }
            Act::PowerOutage | Act::RollingRestart | Act::ReleaseBrake => "cluster",
            Act::Corrupt | Act::Flap | Act::Undrain | Act::Restart => "server:NUMBER",
        }
    }

    /// Whether it may act on `target`.
    #[must_use]
    pub fn takes(self, target: &Target) -> bool {
        match target {
            Target::Server(_) => self.acts_on().contains("server:"),
            Target::Rack(_) => self.acts_on().contains("rack:"),
            Target::Disk(..) => self == Act::LoseDisk,
            Target::Cluster => self.acts_on() == "cluster",
        }
    }
}

/// What is acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server, by number, id or address.
    Server(String),
    /// A rack, by name.
    Rack(String),
    /// A disk of a server, by number.
    Disk(String, String),
    /// Everything.
    Cluster,
}

/// What a target can be, for messages.
const TARGETS: &str = "expected server:NAME, rack:NAME, disk:SERVER/DISK or cluster";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is nothing to act on, {TARGETS}");
        let named = |name: &str| if name.is_empty() { Err(wrong()) } else { Ok(name.to_owned()) };
        match text.split_once(':') {
            Some(("server", name)) => named(name).map(Target::Server),
            Some(("rack", name)) => named(name).map(Target::Rack),
            Some(("disk", name)) => {
                let (server, disk) = name.split_once('/').ok_or_else(wrong)?;
                Ok(Target::Disk(named(server)?, named(disk)?))
            }
            None if text == "cluster" => Ok(Target::Cluster),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Server(name) => write!(f, "server:{name}"),
            Target::Rack(name) => write!(f, "rack:{name}"),
            Target::Disk(server, disk) => write!(f, "disk:{server}/{disk}"),
            Target::Cluster => f.write_str("cluster"),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// What happens at a given time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EventSpec {
    /// When.
    pub at: Time,
    /// What.
    #[serde(rename = "do")]
    pub act: Act,
    /// To whom; the whole cluster when absent.
    pub target: Option<Spanned<Target>>,
    /// For how long; for ever when absent.
    pub lasts: Option<Time>,
    /// Of [`Act::Slow`].
    pub factor: Option<u32>,
    /// Of [`Act::Flap`].
    pub up: Option<Time>,
    /// Of [`Act::Flap`].
    pub down: Option<Time>,
    /// Of [`Act::RollingRestart`].
    pub pause: Option<Time>,
}

impl EventSpec {
    /// An event of the command line.
    #[must_use]
    pub fn new(at: Time, act: Act, target: Target, lasts: Option<Time>) -> Self {
        let target = Some(Spanned::new(0..0, target));
        EventSpec { at, act, target, lasts, factor: None, up: None, down: None, pause: None }
    }

    /// What it acts on.
    #[must_use]
    pub fn target(&self) -> &Target {
        self.target.as_ref().map_or(&Target::Cluster, Spanned::get_ref)
    }
}
