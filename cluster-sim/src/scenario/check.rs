//! What a scenario's values must be among one another.

use std::{
    collections::BTreeSet,
    ops::{Range, RangeInclusive},
};

use quarry_master_core::settings::DEFAULT_REPLICAS;
use quarry_types::limits::{CHUNK_BYTES, REPLICAS_MAX};

use toml::Spanned;

use super::{Act, EventSpec, Scenario, ScenarioError, Target};
use crate::{
    limits::{CHUNKS_MAX, DISKS_MAX, HAPPENINGS_MAX, SERVERS_MAX},
    units::{SECOND, Time, YEAR, show_time},
};

/// A run is at most this long, in years.
const YEARS_MAX: u64 = 100;

/// So many times slower may a server be.
const SLOW: RangeInclusive<u32> = 2..=1000;

/// A place for what is wrong: its key, and where it is if the file knows.
pub(super) struct Checker<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

type Checked = Result<(), ScenarioError>;

impl Checker<'_> {
    fn at(
        &self,
        holds: bool,
        span: Option<Range<usize>>,
        key: &str,
        what: &dyn Fn() -> String,
        to_do: &str,
    ) -> Checked {
        if holds { Ok(()) } else { Err(ScenarioError::of_value(self.name, self.text, span, key, what(), to_do)) }
    }

    fn key(&self, holds: bool, key: &str, what: &dyn Fn() -> String, to_do: &str) -> Checked {
        self.at(holds, None, key, what, to_do)
    }

    fn range(&self, key: &str, value: u64, least: u64, most: u64) -> Checked {
        let what = || format!("{value} is out of range");
        self.key((least..=most).contains(&value), key, &what, &format!("choose {least} to {most}"))
    }

    fn positive(&self, key: &str, value: Time) -> Checked {
        self.key(value.0 > 0, key, &|| "it cannot be zero".into(), "choose a longer time")
    }
}

impl Scenario {
    /// Checks what the parser cannot, and reads the settings.
    pub(super) fn check(&mut self, name: &str, text: &str) -> Checked {
        let checker = Checker { name, text };
        self.check_sizes(&checker)?;
        self.check_together(&checker)?;
        self.check_rates(&checker)?;
        self.check_load(&checker)?;
        for (setting, value) in &self.settings {
            let what = || "what is wanted of the chunks stands with the data".into();
            let there = setting == DEFAULT_REPLICAS.name;
            checker.at(!there, Some(value.span()), &format!("settings.{setting}"), &what, "use data.replicas")?;
            let result = self.read.change(setting, &value.get_ref().0);
            let key = format!("settings.{setting}");
            let what = || result.clone().err().unwrap_or_default();
            checker.at(
                result.is_ok(),
                Some(value.span()),
                &key,
                &what,
                "`quarry settings` lists names, units and bounds",
            )?;
        }
        self.read.default_replicas = self.data.replicas;
        for (n, event) in self.events.iter().enumerate() {
            self.check_event(&checker, n, event.get_ref(), event.span())?;
            self.check_time(&checker, n, event)?;
        }
        Ok(())
    }

    fn check_sizes(&self, checker: &Checker<'_>) -> Checked {
        let (cluster, data) = (&self.cluster, &self.data);
        checker.range("cluster.servers", cluster.servers.into(), 1, SERVERS_MAX as u64)?;
        checker.range("cluster.racks", cluster.racks.into(), 1, cluster.servers.into())?;
        checker.range("cluster.disks", cluster.disks.into(), 1, DISKS_MAX as u64)?;
        checker.range("data.chunks", data.chunks.into(), 0, CHUNKS_MAX as u64)?;
        checker.range("data.replicas", data.replicas.into(), 1, REPLICAS_MAX.min(cluster.servers).into())?;
        checker.range("data.chunk", data.chunk.0, 1, CHUNK_BYTES)?;
        checker.range("run.for", self.run.lasts.0, 1, YEARS_MAX * YEAR)?;
        let held = u128::from(data.chunks) * u128::from(data.chunk.0) * u128::from(data.replicas);
        let room = u128::from(cluster.servers) * u128::from(cluster.disks) * u128::from(cluster.disk.0);
        let what =
            || format!("{} GB of replicas do not fit {} GB of disks", held / 1_000_000_000, room / 1_000_000_000);
        let to_do = "leave a tenth of the disks free: fewer or smaller chunks, or larger or more disks";
        checker.key(held * 10 <= room * 9, "data.chunks", &what, to_do)?;
        checker.key(
            self.model.server_network.0 > 0,
            "model.server-network",
            &|| "it cannot be zero".into(),
            "say a rate",
        )?;
        checker.key(self.model.disk_speed.0 > 0, "model.disk-speed", &|| "it cannot be zero".into(), "say a rate")?;
        checker.positive("model.scrub-period", self.model.scrub_period)
    }

    fn check_together(&self, checker: &Checker<'_>) -> Checked {
        let (cluster, data) = (&self.cluster, &self.data);
        let mut named = BTreeSet::new();
        for together in &self.together {
            let known = |server: u16| u32::from(server) < cluster.servers;
            let fits = known(together.a) && known(together.b) && together.a != together.b;
            let what = || format!("servers {} and {} are not two servers of this cluster", together.a, together.b);
            checker.key(fits, "together.a", &what, "servers are numbered from 0")?;
            let rack = |server: u16| u32::from(server) % cluster.racks;
            let what = || format!("servers {} and {} are on one rack", together.a, together.b);
            let fits = cluster.racks == 1 || rack(together.a) != rack(together.b);
            checker.key(fits, "together.b", &what, "name servers of two racks: server n is on rack n modulo racks")?;
            let what = || format!("two servers cannot have {} chunks in common here", together.chunks);
            let fits = data.replicas >= 2 && together.chunks <= data.chunks;
            checker.key(fits, "together.chunks", &what, "choose at most data.chunks, and two replicas or more")?;
            let what = || "a server stands in two pairs, of which the second would change the first".into();
            checker.key(named.insert(together.a) && named.insert(together.b), "together.a", &what, "name others")?;
        }
        Ok(())
    }

    /// The kinds of faults by chance that the file names: mean time between two, and how many units they may happen to.
    fn chances(&self) -> impl Iterator<Item = (&'static str, Time, u32)> {
        let (faults, cluster) = (&self.faults, &self.cluster);
        let disks = cluster.servers.saturating_mul(cluster.disks);
        let all = [
            ("crash", faults.crash.map(|f| f.every), cluster.servers),
            ("server-loss", faults.server_loss.map(|f| f.every), cluster.servers),
            ("disk-loss", faults.disk_loss.map(|f| f.every), disks),
            ("corruption", faults.corruption.map(|f| f.every), disks),
            ("rack-outage", faults.rack_outage.map(|f| f.every), cluster.racks),
            ("power-outage", faults.power_outage.map(|f| f.every), 1),
            ("partition", faults.partition.map(|f| f.every), cluster.servers),
            ("slow", faults.slow.map(|f| f.every), cluster.servers),
            ("flapping", faults.flapping.map(|f| f.every), cluster.servers),
        ];
        all.into_iter().filter_map(|(kind, every, units)| Some((kind, every?, units)))
    }

    /// A run ends: not more happens in it than a machine can work through.
    pub(super) fn check_load(&self, checker: &Checker<'_>) -> Checked {
        let lasts = self.run.lasts;
        let check = |key: &str, units: u128, every: u128, to_do: &str| {
            let times = units.saturating_mul(u128::from(lasts.0)) / every.max(1);
            let what = || format!("this happens some {times} times in {}", show_time(lasts.0));
            let to_do = format!("{to_do}, or a shorter run; at most {HAPPENINGS_MAX} are simulated");
            checker.key(times <= u128::from(HAPPENINGS_MAX), key, &what, &to_do)
        };
        for (kind, every, units) in self.chances() {
            check(&format!("faults.{kind}"), units.into(), every.0.into(), "choose a longer `every`")?;
        }
        if let Some(flapping) = self.faults.flapping {
            let cycles = flapping.lasts.0 / flapping.up.0.saturating_add(flapping.down.0).max(1);
            let units = u128::from(self.cluster.servers).saturating_mul(cycles.into());
            check("faults.flapping", units, flapping.every.0.into(), "choose longer times")?;
        }
        let every = u128::from(self.data.chunk.0) * u128::from(SECOND);
        check("workload.writes", self.workload.writes.0.into(), every, "write less, or larger chunks")
    }

    fn check_rates(&self, checker: &Checker<'_>) -> Checked {
        let faults = &self.faults;
        for (kind, every, _) in self.chances() {
            checker.positive(&format!("faults.{kind}"), every)?;
        }
        if let Some(flapping) = faults.flapping {
            checker.positive("faults.flapping", flapping.up.min(flapping.down))?;
        }
        let factor = faults.slow.map_or(*SLOW.start(), |slow| slow.factor);
        checker.range("faults.slow", factor.into(), (*SLOW.start()).into(), (*SLOW.end()).into())?;
        let lost = faults.power_outage.map_or(0.0, |power| power.lost);
        let what = || format!("{lost} is no share of the servers");
        checker.key((0.0..=1.0).contains(&lost), "faults.power-outage", &what, "choose 0 to 1")
    }

    fn check_event(&self, checker: &Checker<'_>, n: usize, event: &EventSpec, span: Range<usize>) -> Checked {
        let (key, target) = (|name: &str| format!("event[{n}].{name}"), event.target());
        let place = event.target.as_ref().map_or(span.clone(), toml::Spanned::span);
        let what = || format!("`{:?}` does not act on {target}", event.act);
        checker.at(
            event.act.takes(target),
            Some(place.clone()),
            &key("target"),
            &what,
            &format!("use {}", event.act.acts_on()),
        )?;
        let what = || format!("there is no {target} in this cluster");
        let to_do = format!(
            "servers are numbered 0 to {}, racks r0 to r{}, disks 0 to {}",
            self.cluster.servers.saturating_sub(1),
            self.cluster.racks.saturating_sub(1),
            self.cluster.disks.saturating_sub(1)
        );
        checker.at(self.knows(target), Some(place), &key("target"), &what, &to_do)?;
        let wants = |name: &str, wanted: bool, given: bool| {
            let what = || format!("`{:?}` {}", event.act, if wanted { "needs it" } else { "does not use it" });
            checker.at(
                wanted == given,
                Some(span.clone()),
                &key(name),
                &what,
                if wanted { "add it" } else { "leave it out" },
            )
        };
        wants("factor", event.act == Act::Slow, event.factor.is_some())?;
        wants("up", event.act == Act::Flap, event.up.is_some_and(|t| t.0 > 0))?;
        wants("down", event.act == Act::Flap, event.down.is_some_and(|t| t.0 > 0))?;
        wants("pause", event.act == Act::RollingRestart, event.pause.is_some())?;
        let needs = matches!(event.act, Act::Flap | Act::Restart | Act::RollingRestart);
        let never = matches!(event.act, Act::Corrupt | Act::Drain | Act::Undrain | Act::ReleaseBrake);
        wants("lasts", needs || (event.lasts.is_some() && !never), event.lasts.is_some())?;
        let factor = event.factor.unwrap_or(SLOW.start().to_owned());
        let what = || format!("{factor} is out of range");
        let to_do = format!("choose {} to {}", SLOW.start(), SLOW.end());
        checker.at(SLOW.contains(&factor), Some(span), &key("factor"), &what, &to_do)
    }

    /// An event happens within the run, and a server that comes and goes does so no more often than can be simulated.
    pub(super) fn check_time(&self, checker: &Checker<'_>, n: usize, event: &Spanned<EventSpec>) -> Checked {
        let (at, span) = (event.get_ref().at, Some(event.span()));
        let what = || format!("the run is over after {}", show_time(self.run.lasts.0));
        checker.at(at < self.run.lasts, span.clone(), &format!("event[{n}].at"), &what, "choose an earlier time")?;
        let (up, down) = (event.get_ref().up, event.get_ref().down);
        let cycle = up.map_or(0, |time| time.0).saturating_add(down.map_or(0, |time| time.0));
        let times = event.get_ref().lasts.map_or(0, |time| time.0).checked_div(cycle).unwrap_or(0);
        let what = || format!("it comes and goes some {times} times");
        let to_do = format!("choose longer times; at most {HAPPENINGS_MAX} are simulated");
        checker.at(times <= HAPPENINGS_MAX, span, &format!("event[{n}].up"), &what, &to_do)
    }

    fn knows(&self, target: &Target) -> bool {
        // As it is written elsewhere: `01` and `+1` name nobody.
        let below = |text: &str, limit: u32| text.parse::<u32>().is_ok_and(|n| n < limit && n.to_string() == text);
        match target {
            Target::Server(name) => below(name, self.cluster.servers),
            Target::Rack(name) => name.strip_prefix('r').is_some_and(|n| below(n, self.cluster.racks)),
            Target::Disk(server, disk) => below(server, self.cluster.servers) && below(disk, self.cluster.disks),
            Target::Cluster => true,
        }
    }
}
