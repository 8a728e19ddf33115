//! `quarry drain`, `undrain`, `maintenance` and `decommission`.

use std::time::Duration;

use quarry_client::{Client, ServerId};
use quarry_proto::v1::{ChunkserverStatus, ServerProgressReply, ServerWish};
use quarry_types::ErrorCode;
use serde_json::{Value, json};

use crate::{
    args::{Leave, Maintenance, Server},
    context::Context,
    enough,
    error::{CliError, Outcome},
    human, info,
    output::Out,
    progress::{GoesOn, LOOK_EVERY, Progress, Way},
};

/// The chunkserver that the user means.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: ServerId,
    /// Where it is.
    pub address: String,
}

/// A shorter beginning of an id is a slip of the hand rather than a name.
const ID_LEAST: usize = 4;

/// Finds a chunkserver by its address, its id or the beginning of its id.
pub async fn find(client: &Client, text: &str) -> Outcome<Named> {
    pick(&client.status().await?.chunkservers, text)
}

fn pick(servers: &[ChunkserverStatus], text: &str) -> Outcome<Named> {
    let beginning = (text.len() >= ID_LEAST).then(|| text.to_ascii_lowercase());
    let is_meant = |server: &&ChunkserverStatus| {
        let begins = |beginning: &String| info::server_id(&server.server).starts_with(beginning);
        server.address == text || beginning.as_ref().is_some_and(begins)
    };
    let meant: Vec<&ChunkserverStatus> = servers.iter().filter(is_meant).collect();
    match meant.as_slice() {
        [one] => {
            let id = ServerId::from_bytes(&one.server)
                .ok_or_else(|| CliError::new(ErrorCode::VersionMismatch, format!("{text} has a malformed id")))?;
            Ok(Named { id, address: one.address.clone() })
        }
        [] => Err(CliError::new(ErrorCode::NotFound, format!("no chunkserver {text}")).hint(
            "`quarry status` lists them; name one by its address, its id or the first characters of its id, 4 at least",
        )),
        several => {
            let ids: Vec<String> = several.iter().map(|one| info::server_id(&one.server)).collect();
            Err(CliError::usage(format!("{text} may be any of {}; write more of the id", ids.join(", "))))
        }
    }
}

/// Empties a chunkserver (`wish`: for a while or for good), and waits until that is done.
pub async fn leave(context: &Context, args: Leave, wish: ServerWish) -> Outcome {
    let client = context.client().await?;
    let server = find(client, &args.server.server).await?;
    let mut progress = client.server_progress(server.id).await?;
    if progress.wish() != wish {
        refuse(&server, progress.wish(), wish)?;
        enough::warn_without(context, client, &server.id.to_bytes(), &server.address).await;
        progress = client.set_server(server.id, wish, Duration::ZERO).await?;
    }
    if !args.no_wait {
        progress = wait(context, client, &server, progress).await?;
    }
    tell(context, &server, &progress).await
}

/// Ends a drain or takes back a decommission.
pub async fn undrain(context: &Context, args: Server) -> Outcome {
    end(context, &args, &[ServerWish::Draining, ServerWish::Decommissioned]).await
}

/// Begins a maintenance, or ends one.
pub async fn maintenance(context: &Context, args: Maintenance) -> Outcome {
    let Some(lasting) = args.lasting else {
        return end(context, &args.server, &[ServerWish::Maintenance]).await;
    };
    let client = context.client().await?;
    let server = find(client, &args.server.server).await?;
    let before = client.server_progress(server.id).await?;
    refuse(&server, before.wish(), ServerWish::Maintenance)?;
    let progress = client.set_server(server.id, ServerWish::Maintenance, lasting).await?;
    tell(context, &server, &progress).await
}

/// Lets a chunkserver take part again, if one of these is wanted of it. Otherwise nothing changes.
async fn end(context: &Context, args: &Server, wishes: &[ServerWish]) -> Outcome {
    let client = context.client().await?;
    let server = find(client, &args.server).await?;
    let mut progress = client.server_progress(server.id).await?;
    if wishes.contains(&progress.wish()) {
        progress = client.set_server(server.id, ServerWish::Active, Duration::ZERO).await?;
    }
    tell(context, &server, &progress).await
}

/// Nobody ends a drain or a decommission by asking for less.
fn refuse(server: &Named, is: ServerWish, wanted: ServerWish) -> Outcome {
    let leaves = match (is, wanted) {
        (ServerWish::Decommissioned, _) => "decommissioned",
        (ServerWish::Draining, ServerWish::Maintenance) => "being drained",
        _ => return Ok(()),
    };
    let address = &server.address;
    Err(CliError::new(ErrorCode::Conflict, format!("{address} is {leaves}"))
        .hint(format!("take that back with `quarry undrain {address}` first")))
}

/// Shows how far a chunkserver is until nothing on it is needed any more.
async fn wait(
    context: &Context,
    client: &Client,
    server: &Named,
    mut progress: ServerProgressReply,
) -> Outcome<ServerProgressReply> {
    let (address, wish) = (&server.address, progress.wish());
    let verb = verb(wish);
    let goes_on = GoesOn::new(
        &context.notes,
        format!("it goes on: `quarry {verb} {address}` shows how far it is, `quarry undrain {address}` takes it back"),
    );
    let bar = Progress::of_work(context.bars.as_ref());
    let (mut way, mut before) = (Way::default(), None);
    while !progress.done {
        way.left(progress.bytes_left);
        bar.show(&way, &left(&progress));
        if before.replace(progress.chunks_left) != Some(progress.chunks_left) {
            context.notes.verbose(format!("{address}: {}", left(&progress)));
        }
        context.world.clock.sleep(LOOK_EVERY).await;
        progress = client.server_progress(server.id).await?;
        if progress.wish() != wish {
            goes_on.ended();
            let now = wish_name(progress.wish());
            return Err(CliError::new(
                ErrorCode::Conflict,
                format!("somebody else changed what is wanted of {address}: it is {now} now, and not empty"),
            ));
        }
    }
    bar.finish();
    goes_on.ended();
    Ok(progress)
}

fn verb(wish: ServerWish) -> &'static str {
    if wish == ServerWish::Decommissioned { "decommission" } else { "drain" }
}

fn wish_name(wish: ServerWish) -> &'static str {
    match wish {
        ServerWish::Unspecified => "unknown",
        ServerWish::Active => "active",
        ServerWish::Draining => "draining",
        ServerWish::Maintenance => "maintenance",
        ServerWish::Decommissioned => "decommissioned",
    }
}

async fn tell(context: &Context, server: &Named, progress: &ServerProgressReply) -> Outcome {
    let mut out = Out::new();
    if context.global.json {
        out.json(&json_of(server, progress)).await?;
    } else {
        out.line(sentence(&server.address, progress)).await?;
    }
    out.flush().await
}

fn json_of(server: &Named, progress: &ServerProgressReply) -> Value {
    json!({
        "server": server.id.to_string(),
        "address": server.address,
        "wish": wish_name(progress.wish()),
        "state": progress.state,
        "done": progress.done,
        "chunks_left": progress.chunks_left,
        "bytes_left": progress.bytes_left,
        "open_left": progress.open_left,
        "replicas": progress.replicas,
        "eta_ms": progress.eta_known.then_some(progress.eta_ms),
        "reason": progress.reason,
        "maintenance_left_ms": progress.maintenance_left_ms,
    })
}

/// What is left on a chunkserver that is being emptied.
fn left(progress: &ServerProgressReply) -> String {
    let mut parts = Vec::new();
    if progress.chunks_left > 0 {
        let bytes = human::size(progress.bytes_left, true);
        let end = human::end(progress.eta_known, progress.eta_ms);
        parts.push(format!("{} chunks left, {bytes}, {end}", progress.chunks_left));
    }
    if progress.open_left > 0 {
        parts.push(format!("{} chunks are still written on it", progress.open_left));
    }
    if parts.is_empty() {
        parts.push("nothing is left to copy; the master makes sure of it".into());
    }
    if !progress.reason.is_empty() {
        parts.push(format!("held up: {}", progress.reason));
    }
    parts.join("; ")
}

fn sentence(address: &str, progress: &ServerProgressReply) -> String {
    let wish = progress.wish();
    match wish {
        ServerWish::Draining if progress.done => format!(
            "{address} is drained: nothing on it is needed any more, it can be stopped now (`quarry undrain {address}` if it stays)"
        ),
        ServerWish::Decommissioned if progress.done => {
            format!("{address} is decommissioned: nothing on it is needed any more, it can be stopped and wiped now")
        }
        ServerWish::Draining | ServerWish::Decommissioned => {
            let (name, verb) = (wish_name(wish), verb(wish));
            format!("{address} is {name}: {}; `quarry {verb} {address}` shows it until it is done", left(progress))
        }
        ServerWish::Maintenance => format!(
            "{address} is in maintenance for another {}; `quarry maintenance {address} --end` ends it",
            human::duration(progress.maintenance_left_ms)
        ),
        ServerWish::Active | ServerWish::Unspecified => {
            format!("{address} takes part in everything; it is {}", progress.state)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(first: u8, address: &str) -> ChunkserverStatus {
        let mut id = vec![7; 16];
        id[0] = first;
        ChunkserverStatus { server: id.into(), address: address.into(), ..Default::default() }
    }

    fn draining() -> ServerProgressReply {
        ServerProgressReply {
            wish: ServerWish::Draining.into(),
            state: "draining".into(),
            chunks_left: 3,
            bytes_left: 2048,
            ..Default::default()
        }
    }

    #[test]
    fn a_chunkserver_is_found_by_address_id_or_the_beginning_of_its_id() {
        let mut servers = [server(0xab, "h:1"), server(0xac, "h:2"), server(0x1a, "h:2"), server(0xab, "h:4")];
        servers[3].server = [&[0xab, 0x08][..], &[7; 14]].concat().into();
        let address = |text: &str| pick(&servers, text).map(|named| named.address).map_err(|error| error.exit_number());
        assert_eq!(address("h:1"), Ok("h:1".into()));
        assert_eq!((address("ab07"), address("ab08")), (Ok("h:1".into()), Ok("h:4".into())));
        assert_eq!(address("AC070707-0707-0707-0707-070707070707"), Ok("h:2".into()));
        // Two may have the same address: one that is gone for good and its successor.
        assert_eq!(address("h:2"), Err(2));
        assert_eq!(address("1a0"), Err(3), "a few characters are no name");
        assert_eq!(address("h:3"), Err(3));
        servers[3].server = [&[0xab, 0x07][..], &[8; 14]].concat().into();
        assert!(pick(&servers, "ab07").unwrap_err().to_string().contains("ab070707-0707"));
    }

    #[test]
    fn nobody_ends_a_drain_or_a_decommission_by_asking_for_less() {
        use ServerWish::{Active, Decommissioned, Draining, Maintenance};
        let named = Named { id: ServerId::from_random(1), address: "h:1".into() };
        let is_refused = |is, wanted| refuse(&named, is, wanted).is_err_and(|error| error.exit_number() == 4);
        assert!(is_refused(Decommissioned, Draining) && is_refused(Decommissioned, Maintenance));
        assert!(is_refused(Draining, Maintenance) && !is_refused(Draining, Decommissioned));
        assert!(
            !is_refused(Active, Draining)
                && !is_refused(Maintenance, Draining)
                && !is_refused(Maintenance, Maintenance)
        );
    }

    #[test]
    fn what_is_left_and_what_holds_it_up_are_said() {
        assert_eq!(left(&draining()), "3 chunks left, 2.0K, when it will be done is unknown");
        let held =
            ServerProgressReply { eta_known: true, eta_ms: 9000, open_left: 1, reason: "no rack".into(), ..draining() };
        let expected = "3 chunks left, 2.0K, done in about 9s; 1 chunks are still written on it; held up: no rack";
        assert_eq!(left(&held), expected);
        assert!(sentence("h:1", &held).contains("`quarry drain h:1`"));
        let done = ServerProgressReply { done: true, chunks_left: 0, bytes_left: 0, ..draining() };
        assert!(sentence("h:1", &done).contains("it can be stopped now"));
        let gone = ServerProgressReply { wish: ServerWish::Decommissioned.into(), ..done };
        assert!(sentence("h:1", &gone).contains("stopped and wiped now"));
    }

    #[test]
    fn progress_has_an_end_only_where_it_is_known() {
        let named = Named { id: ServerId::from_random(1), address: "h:1".into() };
        let value = json_of(&named, &draining());
        assert_eq!((&value["eta_ms"], value["wish"].as_str()), (&Value::Null, Some("draining")));
        assert_eq!(value["server"], named.id.to_string());
        for name in ["done", "chunks_left", "bytes_left", "open_left", "replicas", "reason", "maintenance_left_ms"] {
            assert!(value.get(name).is_some(), "{name}");
        }
        let known = ServerProgressReply { eta_known: true, eta_ms: 5, ..draining() };
        assert_eq!(json_of(&named, &known)["eta_ms"], 5);
    }
}
