//! What an operator may set: one table with name, unit, bounds, default and meaning, from which `quarry settings` and the
//! checks of a command are made. A few settings are older than the table and have a field of their own.

mod text;

use std::time::Duration;

use quarry_types::limits::{COPIES_PER_SERVER, READER_GRACE, REPLICAS_DEFAULT, REPLICAS_MAX, REPLICAS_MIN};
pub use text::{parse, range, show};

use crate::command::{Knob, Settings};

/// The unit of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A time, kept in milliseconds.
    Millis,
    /// A rate, kept in bytes per second.
    BytesPerSecond,
    /// A share in percent.
    Percent,
    /// A share in thousandths.
    Permille,
    /// A number of things.
    Count,
}

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What operators write.
    pub name: &'static str,
    /// Of its value.
    pub unit: Unit,
    /// Least value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// The value when nothing was set. Source: the project's design, section 10, where it names it.
    pub default: u64,
    /// What it does.
    pub about: &'static str,
}

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
const MB: u64 = 1_000_000;

macro_rules! table {
    ($( $constant:ident = $name:literal, $unit:ident, $min:expr, $max:expr, $default:expr, $about:literal; )*) => {
        /// Every setting, by name.
        pub const TABLE: &[Definition] = &[$( $constant, )*];
        $(
            #[doc = $about]
            pub const $constant: Definition = Definition {
                name: $name, unit: Unit::$unit, min: $min, max: $max, default: $default, about: $about,
            };
        )*
    };
}

table! {
    BRAKE_HOLD = "brake-hold", Millis, 0, 30 * DAY, 600 * SECOND,
        "how long after the last loss repair of chunks with two or more replicas holds when too many servers went at once";
    BRAKE_SHARE = "brake-share", Percent, 1, 100, 20,
        "share of the servers that may go at once before repair of chunks with two or more replicas holds";
    BALANCE_BAND = "balance-band", Percent, 1, 50, 5,
        "how far a server's fill may be from the mean before chunks are moved, in percent of its capacity";
    BALANCE_FULL = "balance-full", Percent, 50, 95, 85,
        "a server fuller than this gives chunks away to others";
    BALANCE_AUTOMATIC = "balance-automatic", Count, 0, 1, 1,
        "1: the cluster evens itself out when a trigger is met; 0: only by `quarry rebalance`";
    COMPARE_INTERVAL = "compare-interval", Millis, 0, 365 * DAY, HOUR,
        "how often the masters compare a hash of what they hold; 0: only by `quarry masters compare`";
    HOT_KEEP = "hot-keep", Millis, SECOND, 30 * DAY, 600 * SECOND,
        "how long a chunk keeps the replica that it got because it was read much, counted from when that ended";
    HOT_READS = "hot-reads", Count, 2, 1_000_000, 64,
        "a chunk with this many readers at once gets one more replica for a while";
    MAINTENANCE = "maintenance", Millis, 0, 30 * DAY, 300 * SECOND,
        "how long a server that stopped gracefully is in maintenance before it counts as dead";
    ORPHAN_GRACE = "orphan-grace", Millis, 0, 30 * DAY, HOUR,
        "how long a replica of a chunk that the namespace does not know is kept before it is deleted";
    PARTITIONED_LIMIT = "partitioned-limit", Millis, SECOND, 30 * DAY, 600 * SECOND,
        "a server that only its peers reach counts as dead after this";
    QUARANTINE_KEEP = "quarantine-keep", Millis, 0, 30 * DAY, DAY,
        "how long a replica that failed a check is kept after its chunk has all replicas again";
    REPAIR_DELAY = "repair-delay", Millis, 0, DAY, 10 * SECOND,
        "how long a chunk that misses one replica waits before it is repaired";
    REPAIR_IN = "repair-in", Count, 1, COPIES_PER_SERVER as u64, 2, "copies to one server at the same time";
    REPAIR_OUT = "repair-out", Count, 1, 64, 4, "copies from one server at the same time";
    REPAIR_RATE = "repair-rate", BytesPerSecond, MB / 10, 100_000 * MB, 50 * MB,
        "bytes per second copied to one server, and from one; twice that for chunks with one replica left";
    REPAIR_RATE_CLUSTER = "repair-rate-cluster", BytesPerSecond, MB / 10, 1_000_000 * MB, 10_000 * MB,
        "bytes per second copied in the whole cluster";
    REPAIR_LATENCY = "repair-latency", Millis, 1, 60 * SECOND, 50,
        "when reads and writes of clients take longer than this, copies slow down";
    PHI = "detector-phi", Permille, 0, 20_000, 0,
        "0: a server is suspect and dead after fixed times; else the phi at which it is suspect, by its past beats";
    TRASH = "trash", Millis, 0, 365 * DAY, DAY, "how long removed files can be taken back with `quarry undelete`";
    WATCH_EVENTS = "watch-events", Count, 100, 100_000_000, 250_000,
        "changes that are kept for those who watch: whoever was away for more of them has to look at everything again";
    WEIGHT_AFFINITY = "weight-affinity", Permille, 0, 1000, 100, "weight of nearness in the choice of servers";
    WEIGHT_CAPACITY = "weight-capacity", Permille, 0, 1000, 400, "weight of free room in the choice of servers";
    WEIGHT_LATENCY = "weight-latency", Permille, 0, 1000, 200, "weight of latency in the choice of servers";
    WEIGHT_LOAD = "weight-load", Permille, 0, 1000, 300, "weight of load in the choice of servers";
}

/// 1: an operator asked for balancing, and it has not ended yet. It is kept as settings are, so that the next leader goes on;
/// nobody sets or sees it as one.
pub const BALANCE_ASKED: Definition = Definition {
    name: "balance-asked",
    unit: Unit::Count,
    min: 0,
    max: 1,
    default: 0,
    about: "1: `quarry rebalance` asked for balancing, and it has not ended yet",
};

const fn replicas(name: &'static str, default: u32, about: &'static str) -> Definition {
    Definition { name, unit: Unit::Count, min: 1, max: REPLICAS_MAX as u64, default: default as u64, about }
}

/// The settings that have a field of their own: [`Settings::default_replicas`], [`Settings::min_replicas`] and
/// [`Settings::reader_grace_ms`].
const FIELDS: &[Definition] = &[DEFAULT_REPLICAS, MIN_REPLICAS, READER_GRACE_TIME];
/// Wanted replicas of new files.
pub const DEFAULT_REPLICAS: Definition = replicas(
    "default-replicas",
    REPLICAS_DEFAULT,
    "copies of a file when neither its `put` nor a directory above it says",
);
const MIN_REPLICAS: Definition =
    replicas("min-replicas", REPLICAS_MIN, "durable copies that a write waits for, or all of a file that wants fewer");
const READER_GRACE_TIME: Definition = Definition {
    name: "reader-grace",
    unit: Unit::Millis,
    min: 0,
    max: 365 * DAY,
    default: READER_GRACE.as_millis() as u64,
    about: "how long replaced files, and removed ones after the trash, can be read by who has them open",
};

/// The values of the settings that have a field of their own, by name.
pub(crate) fn fields(of: &Settings) -> impl Iterator<Item = (&'static str, u64)> {
    FIELDS.iter().map(|one| (one.name, of.get(one)))
}

/// Every setting, those with a field of their own first.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    FIELDS.iter().chain(TABLE)
}

/// The definition of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Definition> {
    TABLE.iter().chain([&BALANCE_ASKED]).find(|definition| definition.name == name)
}

/// Whether every setting is known and within its bounds.
///
/// # Errors
/// What is wrong, and what may be set.
pub fn check(knobs: &[Knob]) -> Result<(), String> {
    for knob in knobs {
        let Some(known) = find(&knob.name) else {
            return Err(format!("there is no setting {:?}; `quarry settings` lists them", knob.name));
        };
        if !(known.min..=known.max).contains(&knob.value) {
            return Err(format!("{} cannot be {}; {}", knob.name, show(known.unit, knob.value), range(known)));
        }
    }
    Ok(())
}

impl Settings {
    /// The value of a setting, in the table's unit.
    #[must_use]
    pub fn get(&self, definition: &Definition) -> u64 {
        match definition.name {
            name if name == DEFAULT_REPLICAS.name => return self.default_replicas.into(),
            name if name == MIN_REPLICAS.name => return self.min_replicas.into(),
            name if name == READER_GRACE_TIME.name => return self.reader_grace_ms,
            _ => {}
        }
        self.knobs.iter().find(|knob| knob.name == definition.name).map_or(definition.default, |knob| knob.value)
    }

    /// Changes one setting; a value that is the default is forgotten.
    pub fn set(&mut self, definition: &Definition, value: u64) {
        let count = u32::try_from(value).unwrap_or(u32::MAX);
        match definition.name {
            name if name == DEFAULT_REPLICAS.name => return self.default_replicas = count,
            name if name == MIN_REPLICAS.name => return self.min_replicas = count,
            name if name == READER_GRACE_TIME.name => return self.reader_grace_ms = value,
            _ => {}
        }
        self.knobs.retain(|knob| knob.name != definition.name);
        if value != definition.default {
            self.knobs.push(Knob { name: definition.name.into(), value });
            self.knobs.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// Changes a setting that a person named, to what that person wrote.
    ///
    /// # Errors
    /// What is wrong, and what may be set.
    pub fn change(&mut self, name: &str, text: &str) -> Result<(), String> {
        let Some(definition) = all().find(|one| one.name == name) else {
            return Err(format!("there is no setting {name:?}; `quarry settings` lists them"));
        };
        self.set(definition, parse(definition, text)?);
        Ok(())
    }

    /// A time.
    #[must_use]
    pub fn duration(&self, definition: &Definition) -> Duration {
        Duration::from_millis(self.get(definition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for (i, one) in TABLE.iter().enumerate() {
            assert!((one.min..=one.max).contains(&one.default), "{}", one.name);
            assert!(TABLE.iter().skip(i + 1).all(|other| other.name != one.name), "{} is there twice", one.name);
        }
    }

    #[test]
    fn settings_change_by_the_names_and_values_that_people_write() {
        let mut settings = Settings::default();
        for (name, text) in [("reader-grace", "5m"), ("min-replicas", "1"), ("default-replicas", "2"), ("trash", "7d")]
        {
            settings.change(name, text).unwrap();
        }
        assert_eq!((settings.reader_grace_ms, settings.min_replicas, settings.default_replicas), (300_000, 1, 2));
        assert_eq!((settings.get(&TRASH), settings.knobs.len()), (7 * DAY, 1));
        assert!(all().all(|one| settings.change(one.name, &show(one.unit, one.default)).is_ok()));
        assert_eq!(settings, Settings::default());
        assert!(settings.change("colour", "red").unwrap_err().contains("no setting"));
        assert!(settings.change("min-replicas", "9").unwrap_err().contains("choose 1 to 8"));
    }

    #[test]
    fn what_was_set_is_kept_and_the_default_is_not() {
        let mut settings = Settings::default();
        assert_eq!(settings.duration(&REPAIR_DELAY), Duration::from_secs(10));
        settings.set(&REPAIR_DELAY, 7);
        assert_eq!((settings.get(&REPAIR_DELAY), settings.knobs.len()), (7, 1));
        settings.set(&REPAIR_DELAY, REPAIR_DELAY.default);
        assert!(settings.knobs.is_empty());
        settings.set(&REPAIR_IN, 65);
        assert!(check(&settings.knobs).unwrap_err().contains("repair-in cannot be 65"));
        let unknown = Knob { name: "x".into(), value: 1 };
        assert!(check(&[unknown]).unwrap_err().contains("no setting \"x\""));
    }

    #[test]
    fn what_an_operator_asked_for_is_kept_and_is_no_setting_that_people_see() {
        let mut settings = Settings::default();
        settings.set(&BALANCE_ASKED, 1);
        assert_eq!((check(&settings.knobs), settings.get(&BALANCE_ASKED)), (Ok(()), 1));
        assert!(all().all(|one| one.name != BALANCE_ASKED.name));
        assert!(settings.change(BALANCE_ASKED.name, "0").unwrap_err().contains("no setting"));
        settings.set(&BALANCE_ASKED, 0);
        assert_eq!(settings, Settings::default());
    }
}
