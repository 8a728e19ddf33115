//! The tables and how far they are applied.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError},
};

use prost::Message;
use quarry_env::{Batch, Kv, KvOptions, Recovery, Space, World};
use quarry_master_core::{
    feature::{self, Features},
    tables::{Change, ReadTables, Table, TableError},
};

use tokio::sync::{Notify, watch};

use super::{Layout, Snapshot, view::KvTables};
use crate::raft::GroupError;

/// Where the mark is; the tables are in spaces of their own.
const APPLIED: Space = Space("applied");
const MARK: &[u8] = b"mark";
/// The first byte of a stored mark.
const MARK_FORMAT: u8 = 1;

/// How far a state is applied: written in the same batch as what was applied.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Mark {
    /// Index of the last entry that was applied.
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    /// What Raft needs to know of it.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) raft: Vec<u8>,
}

impl Mark {
    /// What is stored where an empty state has no mark. No mark at all is damage.
    pub(crate) const NONE: &[u8] = &[MARK_FORMAT];

    /// The bytes that are stored.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![MARK_FORMAT];
        bytes.extend(self.encode_to_vec());
        bytes
    }

    /// Back from storage. `path` is for errors.
    pub(crate) fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, GroupError> {
        let mark = match bytes.split_first() {
            Some((&MARK_FORMAT, rest)) => Mark::decode(rest).ok(),
            Some((&format, _)) if format > MARK_FORMAT => {
                let path = path.display().to_string();
                return Err(GroupError::Newer { path, found: format.into(), known: MARK_FORMAT.into() });
            }
            _ => None,
        };
        mark.ok_or_else(|| GroupError::corrupt(path, "the mark of what was applied does not decode"))
    }
}

/// An open state.
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) kv: Arc<dyn Kv>,
}

/// The applied state of this member, on disk. All calls block.
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) layout: Layout,
    /// The feature levels that may be applied here.
    pub(crate) features: Features,
    /// Written to while changes become visible and while an installed snapshot takes the old state's place; read by
    /// whoever must see no change half-way.
    open: RwLock<Open>,
    /// Why reading failed, once it did.
    failure: watch::Sender<Option<String>>,
    /// Snapshots that exist or are still read from, oldest first. Also serialises taking and installing one.
    pub(crate) snapshots: Mutex<Vec<Snapshot>>,
    /// Wakes those who watch when there are events that were not there before. Not a `watch`: these are woken in the order in
    /// which they came.
    pub(crate) events: Arc<Notify>,
}

impl State {
    /// Opens the state in use, or makes the first one. Sweeps up what interrupted steps left.
    pub(crate) fn open(world: &World, layout: Layout, features: Features) -> Result<Arc<Self>, GroupError> {
        let name = match layout.current()? {
            Some(name) => name,
            None => {
                let name = layout.new_name(0);
                open_kv(world, &layout.state(&name))?;
                layout.switch_to(&name)?;
                name
            }
        };
        layout.sweep_states(&name)?;
        let snapshots = Snapshot::load_all(world, &layout)?;
        let kv = open_kv(world, &layout.state(&name))?;
        check_level(&*kv, features, &layout.state(&name))?;
        let open = RwLock::new(Open { name, kv });
        let failure = watch::Sender::new(None);
        Ok(Arc::new(State {
            world: world.clone(),
            layout,
            features,
            open,
            failure,
            snapshots: Mutex::new(snapshots),
            events: Arc::default(),
        }))
    }

    /// Keeps the state from changing while the result lives.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, Open> {
        // A panic of another holder leaves nothing half-done in here: the batch or the switch is one step.
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same without waiting; nothing while the state is being changed.
    pub(crate) fn try_hold(&self) -> Option<RwLockReadGuard<'_, Open>> {
        match self.open.try_read() {
            Ok(open) => Some(open),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Says that the store could not be read.
    pub(super) fn failed(&self, error: &TableError) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| error.to_string());
            first
        });
    }

    /// Completes when the store could not be read, with the reason.
    pub(crate) async fn failure(&self) -> String {
        let mut failure = self.failure.subscribe();
        let why = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        // The sender lives as long as this does.
        why.unwrap_or_default()
    }

    /// The store in use now.
    pub(crate) fn kv(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.hold().kv)
    }

    /// How far the state is applied; `None` when it is empty.
    pub(crate) fn mark(&self) -> Result<Option<Mark>, GroupError> {
        let open = self.hold();
        read_mark(&*open.kv, &self.layout.state(&open.name))
    }

    /// Lets `work` read the tables and say what changes, and makes the changes and `mark` visible in one step. Only one
    /// caller at a time: nothing else changes the tables meanwhile.
    ///
    /// Not synced: the log is, and what is missing here after a power loss is applied again from it.
    pub(crate) fn update<T>(
        &self,
        mark: &Mark,
        work: impl FnOnce(&dyn ReadTables) -> Result<(Vec<Change>, T), TableError>,
    ) -> Result<T, GroupError> {
        let kv = self.kv();
        let (changes, result) = work(&KvTables(&*kv))?;
        let mut batch = Batch::default();
        let mut told = false;
        for (table, key, value) in changes {
            told |= table == Table::Event && value.is_some();
            match value {
                Some(value) => batch.put(Space(table.name()), key, value),
                None => batch.delete(Space(table.name()), key),
            }
        }
        batch.put(APPLIED, MARK, mark.to_bytes());
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.kv.write(batch, None)?;
        drop(open);
        if told {
            self.events.notify_waiters();
        }
        Ok(result)
    }

    /// Puts an installed state in the place of the old one. `switch` makes that durable and is one atomic step.
    pub(crate) fn replace(
        &self,
        with: Open,
        switch: impl FnOnce(&str) -> Result<(), GroupError>,
    ) -> Result<(), GroupError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        switch(&with.name)?;
        let old = std::mem::replace(&mut *open, with);
        let current = open.name.clone();
        drop(open);
        // A reader may still hold the old store; unlinked files stay readable for it.
        drop(old);
        self.events.notify_waiters();
        self.layout.sweep_states(&current)
    }
}

/// Opens the store of a state in `path`.
pub(crate) fn open_kv(world: &World, path: &Path) -> Result<Arc<dyn Kv>, GroupError> {
    // What a crash takes from the state's end is repeated from the log.
    let options = KvOptions { recovery: Recovery::Prefix, ..KvOptions::default() };
    Ok(world.kv.open(path, &spaces(), options)?)
}

/// Opens the store of a checkpoint, which is only looked at: with little memory, and leaving its tables as they are,
/// since others may be reading the files.
pub(crate) fn open_checkpoint(world: &World, path: &Path) -> Result<Arc<dyn Kv>, GroupError> {
    let small = 1 << 20;
    let options = KvOptions {
        cache_bytes: small,
        write_buffer_bytes: small,
        upkeep: false,
        recovery: Recovery::Prefix,
        ..KvOptions::default()
    };
    Ok(world.kv.open(path, &spaces(), options)?)
}

pub(crate) fn read_mark(kv: &dyn Kv, path: &Path) -> Result<Option<Mark>, GroupError> {
    kv.get(APPLIED, MARK)?.map(|bytes| Mark::from_bytes(&bytes, path)).transpose()
}

/// Refuses a state of a feature level that this build does not know.
pub(crate) fn check_level(kv: &dyn Kv, features: Features, path: &Path) -> Result<(), GroupError> {
    let level = feature::level(&KvTables(kv))?;
    let of_path = |unknown| GroupError::Level { path: path.display().to_string(), unknown };
    features.check(level).map_err(of_path)
}

fn spaces() -> Vec<Space> {
    let tables = Table::ALL.iter().map(|table| Space(table.name()));
    tables.chain([APPLIED]).collect()
}
