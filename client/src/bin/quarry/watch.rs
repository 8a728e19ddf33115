//! `quarry watch`.

use futures::{FutureExt as _, StreamExt as _};
use quarry_client::{Change, Event, FileChange, MoveChange, PlaceChange, Revision, WatchFrom, WatchOptions};
use serde_json::{Map, Value, json};

use crate::{
    args::{From, Watch},
    context::Context,
    error::Outcome,
    human,
    output::{Notes, Out},
    paths::Remote,
};

/// Prints what changes, as it comes.
pub async fn run(context: &Context, args: Watch) -> Outcome {
    let path = Remote::parse(&args.remote)?.path;
    let from = match args.from {
        From::Now => WatchFrom::Now,
        From::Oldest => WatchFrom::Oldest,
        From::After(revision) => WatchFrom::After(revision),
    };
    let kinds = args.only.into_iter().map(Into::into).collect();
    let options = WatchOptions { from, kinds, until_now: args.until_now };
    let mut changes = context.client().await?.watch_with(&path, options).await?;
    context.notes.verbose(format!("watching {path} from {}", changes.revision()));
    let json = context.global.json;
    let mut out = Out::new();
    let mut rest = Rest { notes: &context.notes, behind: Some(changes.revision()) };
    loop {
        // What comes at once goes out at once; what is printed is what one can go on from.
        let next = match changes.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush().await?;
                rest.behind = Some(changes.revision());
                changes.next().await
            }
        };
        match next {
            Some(Ok(event)) if json => out.json(&json_of(&event)).await?,
            Some(Ok(event)) => out.line(line(&event)).await?,
            Some(Err(error)) => {
                out.flush().await?;
                rest.behind = Some(changes.revision()).filter(|_| error.advice() != quarry_types::Advice::GiveUp);
                return Err(error.into());
            }
            None => break,
        }
    }
    let reached = changes.revision();
    if json {
        out.json(&json!({"kind": "reached", "revision": reached.to_string()})).await?;
    } else {
        out.line(format!("{reached} reached")).await?;
    }
    out.flush().await?;
    rest.behind = None;
    Ok(())
}

/// Says how to go on, when the command is interrupted.
struct Rest<'a> {
    notes: &'a Notes,
    behind: Option<Revision>,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.behind.iter().for_each(|behind| self.notes.note(format!("to go on from here: --from {behind}")));
    }
}

/// Revision, time, kind, and what it is about.
fn line(event: &Event) -> String {
    let (kind, what) = (kind(&event.change), what(&event.change));
    format!("{} {} {kind} {what}", event.revision, human::time(event.wall_ms)).trim_end().to_owned()
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Created(_) => "created",
        Change::Completed(_) => "completed",
        Change::Grown(_) => "grown",
        Change::Abandoned(_) => "abandoned",
        Change::DirectoryMade(_) => "directory",
        Change::Renamed(_) => "renamed",
        Change::Removed { .. } => "removed",
        Change::Undeleted(_) => "undeleted",
        Change::Purged(_) => "purged",
        Change::ReplicasSet { .. } => "replicas",
        Change::ServerRegistered { .. } => "server-registered",
        Change::ServerWished { .. } => "server-wish",
        Change::ServerTrusted { .. } => "server-trusted",
        Change::ServerJudged { .. } => "server-verdict",
        Change::SettingsChanged(_) => "settings",
        Change::EpochBegun { .. } => "leader",
        Change::LineageBegun { .. } => "lineage",
        Change::HoldReleased => "released",
        _ => "unknown",
    }
}

fn slash(directory: bool) -> &'static str {
    if directory { "/" } else { "" }
}

fn what(change: &Change) -> String {
    let file = |file: &FileChange| {
        let replaced = file.replaced.map_or_else(String::new, |old| format!(", replaced {old}"));
        format!("{} ({} bytes{replaced})", file.path, file.length)
    };
    let place = |place: &PlaceChange| format!("{}{}", place.path, slash(place.directory));
    let step = |step: &MoveChange| format!("{0}{2} -> {1}{2}", step.from, step.to, slash(step.directory));
    match change {
        Change::Created(is) | Change::Completed(is) | Change::Grown(is) | Change::Abandoned(is) => file(is),
        Change::DirectoryMade(is) | Change::Purged(is) => place(is),
        Change::Renamed(is) | Change::Undeleted(is) => step(is),
        Change::Removed { place: is, kept_ms: 0 } => format!("{} (for good)", place(is)),
        Change::Removed { place: is, .. } => place(is),
        Change::ReplicasSet { place: is, replicas } => format!("{} {replicas}", place(is)),
        Change::ServerRegistered { server, address, rack, old_image, new, .. } => {
            let new = if *new { ", new" } else { "" };
            let old = if *old_image { ", with an old image" } else { "" };
            format!("{server} {address} (rack {rack}{new}{old})")
        }
        Change::ServerWished { server, wish, for_ms: 0, .. } => format!("{server} {wish}"),
        Change::ServerWished { server, wish, for_ms, .. } => {
            format!("{server} {wish} ({})", human::duration(*for_ms))
        }
        Change::ServerTrusted { server } => server.to_string(),
        Change::ServerJudged { server, from, to } => format!("{server} {to} (was {from})"),
        Change::SettingsChanged(set) => {
            set.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        }
        Change::EpochBegun { epoch, master } => format!("m{master} (epoch {epoch})"),
        Change::LineageBegun { lineage, cause } => format!("{}-{} ({cause})", lineage.number, lineage.id),
        _ => String::new(),
    }
}

fn json_of(event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("revision".into(), event.revision.to_string().into());
    object.insert("time_ms".into(), event.wall_ms.into());
    object.insert("kind".into(), kind(&event.change).into());
    if let Value::Object(fields) = fields(&event.change) {
        object.extend(fields);
    }
    Value::Object(object)
}

fn fields(change: &Change) -> Value {
    let place = |place: &PlaceChange| json!({"path": place.path, "inode": place.inode.0, "directory": place.directory});
    let with = |mut object: Value, name: &str, value: Value| {
        object.as_object_mut().map(|fields| fields.insert(name.into(), value));
        object
    };
    match change {
        Change::Created(file) | Change::Completed(file) | Change::Grown(file) | Change::Abandoned(file) => json!({
            "path": file.path,
            "inode": file.inode.0,
            "version": file.version,
            "length": file.length,
            "crc32": file.crc.to_string(),
            "replaced": file.replaced.map(|inode| inode.0),
        }),
        Change::DirectoryMade(is) | Change::Purged(is) => place(is),
        Change::Renamed(step) | Change::Undeleted(step) => json!({
            "from": step.from,
            "path": step.to,
            "inode": step.inode.0,
            "directory": step.directory,
            "replaced": step.replaced.map(|inode| inode.0),
        }),
        Change::Removed { place: is, kept_ms } => with(place(is), "kept_ms", (*kept_ms).into()),
        Change::ReplicasSet { place: is, replicas } => with(place(is), "replicas", (*replicas).into()),
        Change::ServerRegistered { server, address, rack, start_counter, old_image, new } => json!({
            "server": server.to_string(),
            "address": address,
            "rack": rack,
            "start_counter": start_counter,
            "old_image": old_image,
            "new": new,
        }),
        Change::ServerWished { server, wish, for_ms, automatic } => {
            json!({"server": server.to_string(), "wish": wish, "for_ms": for_ms, "automatic": automatic})
        }
        Change::ServerTrusted { server } => json!({"server": server.to_string()}),
        Change::ServerJudged { server, from, to } => json!({"server": server.to_string(), "was": from, "is": to}),
        Change::SettingsChanged(set) => {
            json!({"settings": set.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()})
        }
        Change::EpochBegun { epoch, master } => json!({"epoch": epoch, "master": master}),
        Change::LineageBegun { lineage, cause } => {
            json!({"lineage": format!("{}-{}", lineage.number, lineage.id), "cause": cause})
        }
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(change: Change) -> Event {
        let revision = "1-67e55044-10b1-426f-9247-bb680e5fe0c8:7:2".parse().unwrap();
        Event { revision, wall_ms: 0, change }
    }

    #[test]
    fn a_change_is_a_line_and_an_object() {
        let (from, to) = ("/a".to_owned(), "/b".to_owned());
        let renamed = event(Change::Renamed(MoveChange {
            from,
            to,
            inode: quarry_client::InodeId(9),
            directory: true,
            replaced: None,
        }));
        let text = line(&renamed);
        assert!(text.starts_with("1-67e55044-10b1-426f-9247-bb680e5fe0c8:7:2 1970-"), "{text}");
        assert!(text.ends_with(" renamed /a/ -> /b/"), "{text}");
        let value = json_of(&renamed);
        assert_eq!((&value["kind"], &value["from"], &value["path"]), (&"renamed".into(), &"/a".into(), &"/b".into()));
        assert_eq!(value["revision"], "1-67e55044-10b1-426f-9247-bb680e5fe0c8:7:2");
        assert!(line(&event(Change::HoldReleased)).ends_with(" released"));
    }
}
