//! What those who watch ask, and events as they are sent.

use quarry_master_core::{
    command::{LineageCause, Verdict},
    query::{EventView, EventsPage, WatchFilter, WatchFrom},
    rows::{Change, FileState, Move, Place, SettingChange},
    settings,
};
use quarry_proto::{WireError, v1};
use quarry_types::{ErrorCode, ServerId};
use v1::event::Change as Sent;

use crate::{error::fault, service::wish_number};

/// Kinds that one request may name: some more than there are.
const KINDS_MAX: usize = 16;

/// Where to begin, and what is wanted.
pub(super) fn call(request: v1::WatchRequest) -> Result<(WatchFrom, WatchFilter), WireError> {
    let from = match request.after {
        Some(_) if request.oldest => {
            let why = "a watch begins behind a revision or with the oldest event, not both";
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        Some(after) => WatchFrom::After(after.try_into()?),
        None if request.oldest => WatchFrom::Oldest,
        None => WatchFrom::Now,
    };
    let every = request.kinds.is_empty();
    let (path, names, servers, verdicts, cluster) = (request.path, every, every, every, every);
    let mut filter = WatchFilter { path, names, servers, verdicts, cluster };
    for kind in request.kinds.iter().take(KINDS_MAX) {
        match v1::ChangeKind::try_from(*kind) {
            Ok(v1::ChangeKind::Names) => filter.names = true,
            Ok(v1::ChangeKind::Servers) => filter.servers = true,
            Ok(v1::ChangeKind::Verdicts) => filter.verdicts = true,
            Ok(v1::ChangeKind::Cluster) => filter.cluster = true,
            Ok(v1::ChangeKind::Unspecified) | Err(_) => {
                return Err(fault(ErrorCode::InvalidArgument, format!("kind {kind} is not one of changes")));
            }
        }
    }
    Ok((from, filter))
}

pub(super) fn page(page: EventsPage) -> v1::WatchPage {
    v1::WatchPage {
        events: page.events.into_iter().map(event).collect(),
        reached: Some(page.reached.into()),
        at_end: !page.more,
    }
}

fn event(view: EventView) -> v1::Event {
    v1::Event {
        index: view.revision.index,
        position: view.revision.position,
        wall_ms: view.event.wall_ms,
        change: Some(change(view.event.change)),
    }
}

fn change(change: Change) -> Sent {
    match change {
        Change::Created(state) => Sent::Created(file(state)),
        Change::Completed(state) => Sent::Completed(file(state)),
        Change::Grown(state) => Sent::Grown(file(state)),
        Change::Abandoned(state) => Sent::Abandoned(file(state)),
        Change::DirectoryMade(made) => Sent::DirectoryMade(place(made)),
        Change::Renamed(step) => Sent::Renamed(moved(step)),
        Change::Removed(gone) => Sent::Removed(v1::PlaceChange { kept_ms: gone.kept_ms, ..place(gone.place) }),
        Change::Undeleted(step) => Sent::Undeleted(moved(step)),
        Change::Purged(gone) => Sent::Purged(place(gone)),
        Change::ReplicasSet(set) => Sent::ReplicasSet(v1::PlaceChange { replicas: set.replicas, ..place(set.place) }),
        Change::ServerRegistered(is) => Sent::ServerRegistered(v1::ServerChange {
            address: is.address,
            rack: is.rack,
            start_counter: is.start_counter,
            old_image: is.old_image,
            new: is.new,
            ..server(is.server)
        }),
        Change::ServerWished(is) => Sent::ServerWished(v1::ServerChange {
            wish: wish_number(is.wish).into(),
            for_ms: is.for_ms,
            automatic: is.automatic,
            ..server(is.server)
        }),
        Change::ServerTrusted(is) => Sent::ServerTrusted(server(is.server)),
        Change::ServerJudged(is) => {
            let word = |verdict: Verdict| verdict.word().to_owned();
            Sent::ServerJudged(v1::ServerChange { was: word(is.from), is: word(is.to), ..server(is.server) })
        }
        Change::SettingsChanged(set) => {
            Sent::SettingsChanged(v1::SettingsChange { settings: set.changed.into_iter().map(setting).collect() })
        }
        Change::EpochBegun(begun) => Sent::EpochBegun(v1::EpochChange { epoch: begun.epoch.0, master: begun.node.0 }),
        Change::LineageBegun(begun) => Sent::LineageBegun(v1::LineageChange {
            lineage_number: begun.lineage.number,
            lineage_id: begun.lineage.id.as_bytes().to_vec().into(),
            cause: match begun.cause {
                LineageCause::Restored => "restored".into(),
                LineageCause::Recovered => "recovered".into(),
            },
        }),
        Change::HoldReleased(_) => Sent::HoldReleased(v1::HoldChange {}),
    }
}

fn file(state: FileState) -> v1::FileChange {
    v1::FileChange {
        path: state.path,
        inode: state.inode.0,
        version: state.version,
        length: state.length,
        crc: state.crc.0,
        replaced: state.replaced.0,
    }
}

fn place(place: Place) -> v1::PlaceChange {
    v1::PlaceChange { path: place.path, inode: place.inode.0, directory: place.directory, ..Default::default() }
}

fn moved(step: Move) -> v1::PlaceChange {
    v1::PlaceChange {
        path: step.to,
        from: step.from,
        inode: step.inode.0,
        directory: step.directory,
        replaced: step.replaced.0,
        ..Default::default()
    }
}

fn server(server: ServerId) -> v1::ServerChange {
    v1::ServerChange { server: server.to_bytes().into(), ..Default::default() }
}

/// As people write it, where this build knows the setting.
fn setting(set: SettingChange) -> v1::Setting {
    let known = settings::all().find(|known| known.name == set.name);
    let value = match known {
        Some(known) => settings::show(known.unit, if set.unset { known.default } else { set.value }),
        None if set.unset => String::new(),
        None => set.value.to_string(),
    };
    v1::Setting { name: set.name, value, ..Default::default() }
}
