//! What changed, for those who watch.

use quarry_types::{ErrorCode, Revision};

use super::Fault;
use crate::{
    keys,
    rows::{Change, Cluster, Event, Events},
    state::{bad_key, decode, find, refuse},
    tables::{ReadTables, Table, TableError},
};

/// Where someone who watches begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what changes from now on.
    Now,
    /// With the oldest event that is kept.
    Oldest,
    /// Behind a revision that was reached before.
    After(Revision),
}

/// Which changes someone wants to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFilter {
    /// Of the namespace: what happens at this path, below it, or above it (where it moves or removes what is at it). The
    /// root: everything.
    pub path: String,
    /// Changes of the namespace.
    pub names: bool,
    /// Chunkservers: registered, and what is wanted of them.
    pub servers: bool,
    /// Chunkservers: what is believed of them.
    pub verdicts: bool,
    /// Settings, leaders and lineages.
    pub cluster: bool,
}

impl WatchFilter {
    /// Whether a change is among them.
    #[must_use]
    pub fn has(&self, change: &Change) -> bool {
        match change {
            Change::Created(_)
            | Change::Completed(_)
            | Change::Grown(_)
            | Change::Abandoned(_)
            | Change::DirectoryMade(_)
            | Change::Renamed(_)
            | Change::Removed(_)
            | Change::Undeleted(_)
            | Change::Purged(_)
            | Change::ReplicasSet(_) => self.names && change.paths().into_iter().flatten().any(|path| self.meets(path)),
            Change::ServerRegistered(_) | Change::ServerWished(_) | Change::ServerTrusted(_) => self.servers,
            Change::ServerJudged(_) => self.verdicts,
            Change::SettingsChanged(_) | Change::EpochBegun(_) | Change::LineageBegun(_) | Change::HoldReleased(_) => {
                self.cluster
            }
        }
    }

    /// Whether one of two paths leads through the other.
    fn meets(&self, path: &str) -> bool {
        let mut wanted = self.path.split('/').filter(|name| !name.is_empty());
        // What lost its directory has no path; it is told to those who want everything.
        if path.is_empty() {
            return wanted.next().is_none();
        }
        let names = path.split('/').filter(|name| !name.is_empty());
        names.zip(wanted).all(|(name, wanted)| name == wanted)
    }
}

/// An event and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventView {
    /// Behind it.
    pub revision: Revision,
    /// What it tells.
    pub event: Event,
}

/// Some events, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPage {
    /// Those that are wanted.
    pub events: Vec<EventView>,
    /// All that are wanted up to here are in this page and those before.
    pub reached: Revision,
    /// There is more behind that.
    pub more: bool,
}

/// Events from `from` on: at most `rows` are gone through, and a page ends with the event that fills `bytes`.
///
/// # Errors
/// Refused as [`ErrorCode::Compacted`] and [`ErrorCode::OtherLineage`] when `from` is a revision that cannot be gone on
/// from; [`TableError`].
pub fn events(
    tables: &dyn ReadTables,
    from: WatchFrom,
    wanted: &WatchFilter,
    rows: usize,
    bytes: usize,
) -> Result<EventsPage, Fault> {
    let cluster: Option<Cluster> = find(tables, Table::Meta, keys::CLUSTER)?;
    let kept: Option<Events> = find(tables, Table::Meta, keys::EVENTS)?;
    let (Some(cluster), Some(kept)) = (cluster, kept) else {
        return refuse(ErrorCode::Unavailable, "this cluster's events have not begun yet; try again");
    };
    let lineage = cluster.lineage;
    let at = |(index, position)| Revision { lineage, index, position };
    let after = match from {
        WatchFrom::Now => at(kept.last()),
        WatchFrom::Oldest => at(kept.kept_behind()),
        WatchFrom::After(revision) => check(&kept, &cluster, revision)?,
    };
    let mut page = EventsPage { events: Vec::new(), reached: after, more: false };
    let first = keys::behind(&keys::event(after.index, after.position));
    let found = tables.scan(Table::Event, &first, None, rows)?;
    let (full, mut taken) = (found.len() == rows, 0);
    for (key, value) in found {
        if taken >= bytes {
            page.more = true;
            return Ok(page);
        }
        page.reached = at(keys::read_two(&key).ok_or_else(|| bad_key(Table::Event, &key))?);
        let event: Event = decode(Table::Event, &key, &value)?;
        if wanted.has(&event.change) {
            taken += value.len();
            page.events.push(EventView { revision: page.reached, event });
        }
    }
    page.more = full;
    Ok(page)
}

/// Whether events begin with the next command that makes some: not in a state that an older build made.
///
/// # Errors
/// [`TableError`].
pub fn events_begun(tables: &dyn ReadTables) -> Result<bool, TableError> {
    Ok(find::<Events>(tables, Table::Meta, keys::EVENTS)?.is_some())
}

/// The revision, if one can go on from it.
fn check(kept: &Events, cluster: &Cluster, revision: Revision) -> Result<Revision, Fault> {
    let (is, of) = (cluster.lineage, revision.lineage);
    let anew = "watch from now on, and look at everything once";
    if is != of {
        let why = if of.number == is.number { "is of another cluster or history" } else { "is of another history" };
        let message = format!(
            "revision {revision} {why}: this is lineage {}-{} of cluster {}, which a restored backup or a recovery begins \
             anew; {anew}",
            is.number, is.id, cluster.cluster
        );
        return refuse(ErrorCode::OtherLineage, message);
    }
    if revision.place() < kept.kept_behind() {
        let (index, position) = kept.kept_behind();
        let message = format!(
            "the events behind revision {revision} are gone: {} are kept, those behind {index}:{position}; {anew} (the \
             setting watch-events says how many are kept)",
            kept.count
        );
        return refuse(ErrorCode::Compacted, message);
    }
    if revision.place() > kept.last() {
        let (index, position) = kept.last();
        let message = format!("revision {revision} lies ahead: the last event is {index}:{position}; {anew}");
        return refuse(ErrorCode::InvalidArgument, message);
    }
    Ok(revision)
}
