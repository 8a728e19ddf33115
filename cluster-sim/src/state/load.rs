//! Reading a state, and making a world of it.

use std::collections::{BTreeMap, BTreeSet};

use quarry_master_core::{
    command::{ServerWish, Settings},
    settings::DEFAULT_REPLICAS,
};
use quarry_types::limits::{CHUNK_BYTES, REPLICAS_MAX};
use serde::Deserialize;

use super::{DiskState, FORMAT, HealthWord, State, VERSION, WishWord};
use crate::{
    limits::{CHUNKS_MAX, DISKS_MAX, SERVERS_MAX},
    model::{
        chunks::{Chunks, PerChunk, Place},
        server::{Disk, Server},
    },
    scenario::{EventSpec, Faults, Model, Target, Workload},
    units::Micros,
    world::{
        World,
        build::{Parts, server},
    },
};

/// What is wrong with a state file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is no JSON, or has other keys.
    #[error(
        "{file}:{line}: key `{key}`: {what}; export the state again with `quarry admin export-state` of this release"
    )]
    Form {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// It is of another kind or release.
    #[error(
        "{file}: this is {found}, and a quarry-state of version {VERSION} is wanted; use the quarry-sim of the release that exported it"
    )]
    Version {
        /// The file.
        file: String,
        /// What it is.
        found: String,
    },
    /// A value does not fit the rest.
    #[error("{file}: key `{key}`: {what}; export the state again with `quarry admin export-state`")]
    Value {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// Nothing in it is called that.
    #[error("there is no {target} in this cluster; it has {known}")]
    NoTarget {
        /// What was to be killed.
        target: Target,
        /// What there is.
        known: String,
    },
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format: String,
    #[serde(default)]
    version: u64,
}

/// What is asked of a state.
#[derive(Clone, Debug)]
pub struct Question {
    /// How fast things are.
    pub model: Model,
    /// What clients do.
    pub workload: Workload,
    /// Settings that are others than the cluster's.
    pub settings: Vec<(String, String)>,
    /// Another number of wanted replicas than the chunks have.
    pub replicas: Option<u32>,
    /// What happens.
    pub events: Vec<EventSpec>,
    /// For how long it is looked at.
    pub lasts: Micros,
    /// The seed.
    pub seed: u64,
}

impl State {
    /// Reads the text of the file `name`.
    ///
    /// # Errors
    /// [`StateError`] names line, key and remedy.
    pub fn parse(name: &str, text: &str) -> Result<Self, StateError> {
        let form = |error: serde_path_to_error::Error<serde_json::Error>| StateError::Form {
            file: name.into(),
            line: error.inner().line(),
            key: error.path().to_string(),
            what: error.inner().to_string(),
        };
        let mut from = serde_json::Deserializer::from_str(text);
        let head: Head = serde_path_to_error::deserialize(&mut from).map_err(form)?;
        if head.format != FORMAT || head.version != u64::from(VERSION) {
            let found = if head.format.is_empty() {
                "no quarry-state".into()
            } else {
                format!("{:?} of version {}", head.format, head.version)
            };
            return Err(StateError::Version { file: name.into(), found });
        }
        let mut from = serde_json::Deserializer::from_str(text);
        let state: State = serde_path_to_error::deserialize(&mut from).map_err(form)?;
        from.end().map_err(|error| StateError::Form {
            file: name.into(),
            line: error.line(),
            key: "(after the end)".into(),
            what: error.to_string(),
        })?;
        state.check(name)?;
        Ok(state)
    }

    fn check(&self, name: &str) -> Result<(), StateError> {
        let value = |holds: bool, key: String, what: String| {
            if holds { Ok(()) } else { Err(StateError::Value { file: name.into(), key, what }) }
        };
        let count = self.servers.len();
        value(
            (1..=SERVERS_MAX).contains(&count),
            "servers".into(),
            format!("{count} servers; 1 to {SERVERS_MAX} can be"),
        )?;
        value(self.chunks.len() <= CHUNKS_MAX, "chunks".into(), format!("more than {CHUNKS_MAX}"))?;
        let ids: BTreeSet<_> = self.servers.iter().map(|server| server.id).collect();
        value(ids.len() == count, "servers".into(), "a server stands there twice".into())?;
        for (n, server) in self.servers.iter().enumerate() {
            let disks = server.disks.len();
            value(
                disks <= DISKS_MAX,
                format!("servers[{n}].disks"),
                format!("{disks} disks; at most {DISKS_MAX} can be"),
            )?;
        }
        let mut before = None;
        for (n, chunk) in self.chunks.iter().enumerate() {
            let key = |name: &str| format!("chunks[{n}].{name}");
            value(before.is_none_or(|id| id < chunk.id), key("id"), "ids are not ascending".into())?;
            before = Some(chunk.id);
            value(chunk.bytes <= CHUNK_BYTES, key("bytes"), format!("a chunk has at most {CHUNK_BYTES} bytes"))?;
            value((1..=REPLICAS_MAX).contains(&chunk.wanted), key("wanted"), format!("1 to {REPLICAS_MAX} can be"))?;
            let distinct: BTreeSet<_> = chunk.on.iter().collect();
            let known = chunk.on.iter().all(|server| usize::from(*server) < count) && distinct.len() == chunk.on.len();
            value(known, key("on"), format!("places in `servers` are 0 to {}, each once", count - 1))?;
            value(
                chunk.bad.iter().all(|bad| distinct.contains(bad)),
                key("bad"),
                "it names one that `on` does not".into(),
            )?;
        }
        let mut settings = Settings::default();
        for (setting, text) in &self.settings {
            let changed = settings.change(setting, text);
            value(changed.is_ok(), format!("settings.{setting}"), changed.err().unwrap_or_default())?;
        }
        Ok(())
    }

    /// The settings, changed as asked.
    ///
    /// # Errors
    /// What cannot be set, and what can.
    fn settings_with(&self, asked: &[(String, String)]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let own = self.settings.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        for (name, text) in own.chain(asked.iter().map(|(name, text)| (name.as_str(), text.as_str()))) {
            settings.change(name, text)?;
        }
        Ok(settings)
    }

    /// The same cluster with another number of replicas of each chunk: what is too many is not there, what is missing is still
    /// to be copied.
    fn with_replicas(&self, wanted: u32) -> Result<State, String> {
        if !(1..=REPLICAS_MAX).contains(&wanted) {
            return Err(format!("--replicas {wanted}: choose 1 to {REPLICAS_MAX}"));
        }
        let mut state = self.clone();
        for chunk in &mut state.chunks {
            chunk.wanted = wanted;
            chunk.on.sort_by_key(|server| chunk.bad.contains(server));
            chunk.on.truncate(wanted as usize);
            chunk.bad.retain(|server| chunk.on.contains(server));
        }
        Ok(state)
    }

    /// The simulated cluster in this state.
    ///
    /// # Errors
    /// What cannot be asked, and what can.
    pub fn world(&self, question: Question) -> Result<World, String> {
        if let Some(wanted) = question.replicas {
            return self.with_replicas(wanted)?.world(Question { replicas: None, ..question });
        }
        if question.settings.iter().any(|(name, _)| name == DEFAULT_REPLICAS.name) {
            // It is that of new files, which what is there does not follow.
            return Err(format!("--set {} changes no chunk that is there; use --replicas", DEFAULT_REPLICAS.name));
        }
        let settings = self.settings_with(&question.settings)?;
        // The simulator numbers servers in the order of their ids.
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        order.sort_by_key(|at| self.servers.get(*at).map(|server| server.id));
        let mut numbers = vec![0u16; order.len()];
        for (number, at) in (0u16..).zip(&order) {
            if let Some(place) = numbers.get_mut(*at) {
                *place = number;
            }
        }
        let names: BTreeSet<&str> = self.servers.iter().map(|server| server.rack.as_str()).collect();
        let racks: BTreeMap<&str, u16> = names.iter().copied().zip(0u16..).collect();
        let mut servers: Vec<Server> = Vec::with_capacity(order.len());
        for (number, at) in (0u64..).zip(&order) {
            let Some(from) = self.servers.get(*at) else { continue };
            let disk = |disk: &DiskState| Disk { failed: disk.failed, ..Disk::new(disk.capacity_bytes) };
            let disks = from.disks.iter().map(disk).collect();
            let rack = racks.get(from.rack.as_str()).copied().unwrap_or(0);
            servers.push(server(from.id, rack, from.address.clone(), disks, question.seed, number));
        }
        let chunks = self.chunks(&mut servers, &numbers);
        // What the chunks do not account for is taken too: those that are not sealed, and what is to be deleted.
        for (from, number) in self.servers.iter().zip(&numbers) {
            let Some(server) = servers.get_mut(usize::from(*number)) else { continue };
            for (disk, was) in server.disks.iter_mut().zip(&from.disks) {
                disk.used = disk.used.max(was.used_bytes);
            }
        }
        let mut world = World::from_parts(Parts {
            chunks,
            servers,
            racks: names.iter().map(|rack| (*rack).to_owned()).collect(),
            settings,
            model: question.model,
            workload: question.workload,
            faults: Faults::default(),
            events: Vec::new(),
            until: question.lasts,
            seed: question.seed,
            chunk_bytes: u32::try_from(CHUNK_BYTES).unwrap_or(u32::MAX),
            replicas: 3,
        });
        let events = question.events.into_iter().map(|event| world.resolved(event)).collect::<Result<Vec<_>, _>>();
        world.set_events(events.map_err(|error| error.to_string())?);
        world.survey();
        for (at, number) in numbers.iter().enumerate() {
            let Some(from) = self.servers.get(at) else { continue };
            let wish = match from.wish {
                WishWord::Active => ServerWish::Active,
                WishWord::Draining => ServerWish::Draining,
                WishWord::Maintenance => ServerWish::Maintenance,
            };
            world.begin_as_it_was(
                *number,
                wish,
                from.health == HealthWord::Dead,
                from.disks.iter().any(|disk| disk.slow),
            );
        }
        Ok(world)
    }

    /// The chunks, on the servers' disks: each on the one of which most is unaccounted for, since the master does not know which
    /// it is.
    fn chunks(&self, servers: &mut [Server], numbers: &[u16]) -> Chunks {
        let wanted = self.chunks.iter().map(|chunk| chunk.wanted).max().unwrap_or(3);
        let lengths = self.chunks.iter().map(|chunk| u32::try_from(chunk.bytes).unwrap_or(u32::MAX)).collect();
        let wants = self.chunks.iter().map(|chunk| u8::try_from(chunk.wanted).unwrap_or(u8::MAX)).collect();
        let mut chunks =
            Chunks::new(self.chunks.len(), wanted as usize + 1, PerChunk::Each(lengths), PerChunk::Each(wants));
        for (number, chunk) in (0u32..).zip(&self.chunks) {
            for at in &chunk.on {
                let Some(server_number) = numbers.get(usize::from(*at)).copied() else { continue };
                let Some(server) = servers.get_mut(usize::from(server_number)) else { continue };
                let was = self.servers.get(usize::from(*at)).map(|from| from.disks.as_slice()).unwrap_or_default();
                let disk = likely_disk(&server.disks, was);
                if let Some(disk) = server.disks.get_mut(usize::from(disk)) {
                    disk.used = disk.used.saturating_add(chunk.bytes);
                }
                server.held.push(number);
                let place = Place::new(server_number, disk);
                chunks.put(number, if chunk.bad.contains(at) { place.quarantined() } else { place });
            }
        }
        chunks.call(self.chunks.iter().map(|chunk| chunk.id).collect());
        chunks
    }
}

/// The working disk of which the most bytes are not accounted for yet; the first one of those.
fn likely_disk(disks: &[Disk], was: &[DiskState]) -> u8 {
    let unaccounted = |at: usize| {
        let (disk, was) = (disks.get(at)?, was.get(at)?);
        (!disk.failed).then(|| i128::from(was.used_bytes) - i128::from(disk.used))
    };
    let most = (0..disks.len()).max_by_key(|at| (unaccounted(*at), std::cmp::Reverse(*at)));
    most.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}

impl World {
    /// An event whose target is there.
    ///
    /// # Errors
    /// [`StateError::NoTarget`].
    fn resolved(&self, event: EventSpec) -> Result<EventSpec, StateError> {
        if self.has(event.target()) {
            return Ok(event);
        }
        let some = |names: Vec<&str>| {
            let (count, first) = (names.len(), names.into_iter().take(5).collect::<Vec<_>>().join(", "));
            if count > 5 { format!("{first} and {} more", count - 5) } else { first }
        };
        let servers = some(self.servers.iter().map(|server| server.name.as_str()).collect());
        let racks = some(self.racks.iter().map(String::as_str).collect());
        Err(StateError::NoTarget {
            target: event.target().clone(),
            known: format!("racks {racks} and servers {servers}"),
        })
    }
}
