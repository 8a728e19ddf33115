use quarry_types::{ChunkId, ErrorCode, ServerId};

use crate::{
    command::{PutServer, ServerWish, SetServer, TrustServer, Verdict},
    keys,
    limits::{MAINTENANCE_MS_MAX, SERVER_NAME_BYTES, SERVERS_MAX},
    reply::{RegisteredServer, Reply},
    rows::{Change, Server, ServerRegistered, ServerTrusted, ServerWished},
    state::{Fault, Write, find, refuse},
    tables::Table,
};

/// Remembers a chunkserver. One whose start counter did not go forwards with another start is an old image until it is trusted
/// again (S11).
pub(crate) fn put(write: &mut Write<'_, '_>, command: &PutServer) -> Result<Reply, Fault> {
    for (name, text) in [("address", &command.address), ("rack", &command.rack)] {
        if text.len() > SERVER_NAME_BYTES {
            let message = format!("the {name} of server {} is longer than {SERVER_NAME_BYTES} bytes", command.server);
            return refuse(ErrorCode::InvalidArgument, message);
        }
    }
    let key = keys::server(command.server);
    let before: Option<Server> = find(write.tables(), Table::Server, &key)?;
    if before.is_none() {
        if write.totals()?.servers >= SERVERS_MAX as u64 {
            return refuse(ErrorCode::Busy, format!("the cluster has {SERVERS_MAX} chunkservers, and takes no more"));
        }
        write.count(|totals| totals.servers += 1)?;
    }
    let old_image = before.as_ref().is_some_and(|b| b.old_image || is_older(command, b));
    let same_start = |b: &&Server| (b.start_counter, b.start_id) == (command.start_counter, command.start_id);
    let first_chunk = match before.as_ref().filter(same_start) {
        Some(same) => same.first_chunk,
        None => ChunkId(write.counters()?.next_chunk),
    };
    let kept = before.as_ref().filter(|b| !b.automatic);
    let server = Server {
        address: command.address.clone(),
        rack: command.rack.clone(),
        start_counter: command.start_counter,
        durability: command.durability,
        old_image,
        // It is back: a maintenance that began with its graceful stop is over.
        wish: kept.map_or(ServerWish::Active, |b| b.wish),
        maintenance_until_ms: kept.map_or(0, |b| b.maintenance_until_ms),
        automatic: false,
        verdict: before.as_ref().map_or(Verdict::None, |b| b.verdict),
        start_id: command.start_id,
        first_chunk,
    };
    tell_registered(write, command.server, before.as_ref(), &server);
    write.put(Table::Server, key, &server);
    Ok(Reply::Server(RegisteredServer { old_image }))
}

/// Whether a start comes from a disk that has not seen the start `before`: two with one number have different names.
fn is_older(command: &PutServer, before: &Server) -> bool {
    command.start_counter < before.start_counter
        || (command.start_counter == before.start_counter && command.start_id != before.start_id)
}

/// What those who watch are told of a registration: nothing of one that changes nothing.
fn tell_registered(write: &mut Write<'_, '_>, id: ServerId, before: Option<&Server>, now: &Server) {
    let who = |of: &Server| (of.address.clone(), of.rack.clone(), of.start_counter, of.durability, of.old_image);
    if before.map(who) != Some(who(now)) {
        write.tell(Change::ServerRegistered(ServerRegistered {
            server: id,
            address: now.address.clone(),
            rack: now.rack.clone(),
            start_counter: now.start_counter,
            old_image: now.old_image,
            new: before.is_none(),
        }));
    }
    if before.is_some_and(|before| before.wish != now.wish) {
        let told = ServerWished { server: id, wish: now.wish, for_ms: 0, automatic: true };
        write.tell(Change::ServerWished(told));
    }
}

/// Takes the mark of an old image off, if the server has not started again since it was verified.
pub(crate) fn trust(write: &mut Write<'_, '_>, command: &TrustServer) -> Result<Reply, Fault> {
    let key = keys::server(command.server);
    let Some(mut server) = find::<Server>(write.tables(), Table::Server, &key)? else {
        return refuse(ErrorCode::NotFound, format!("chunkserver {} never registered", command.server));
    };
    if (server.start_counter, server.start_id) == (command.start_counter, command.start_id) && server.old_image {
        server.old_image = false;
        write.tell(Change::ServerTrusted(ServerTrusted { server: command.server }));
        write.put(Table::Server, key, &server);
    }
    Ok(Reply::Server(RegisteredServer { old_image: server.old_image }))
}

/// Changes what is wanted of a chunkserver.
pub(crate) fn set(write: &mut Write<'_, '_>, command: &SetServer) -> Result<Reply, Fault> {
    let key = keys::server(command.server);
    let Some(mut server) = find::<Server>(write.tables(), Table::Server, &key)? else {
        return refuse(ErrorCode::NotFound, format!("chunkserver {} never registered", command.server));
    };
    if command.automatic && server.wish != ServerWish::Active {
        return Ok(Reply::DONE);
    }
    let elapsed_ms = write.counters()?.elapsed_ms;
    if command.wish == ServerWish::Maintenance && !(1..=MAINTENANCE_MS_MAX).contains(&command.for_ms) {
        let message = format!("a maintenance of {} ms; choose 1 to {MAINTENANCE_MS_MAX}", command.for_ms);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if let Some(why) = stands_against(server.wish_at(elapsed_ms), command.wish) {
        let (is, id) = (server.wish.word(), command.server);
        return refuse(
            ErrorCode::Conflict,
            format!("chunkserver {id} is {is}: {why}; `quarry undrain` ends that first"),
        );
    }
    let maintenance = command.wish == ServerWish::Maintenance;
    // A maintenance again has another end.
    if maintenance || server.wish != command.wish {
        write.tell(Change::ServerWished(ServerWished {
            server: command.server,
            wish: command.wish,
            for_ms: if maintenance { command.for_ms } else { 0 },
            automatic: command.automatic,
        }));
    }
    server.wish = command.wish;
    server.automatic = command.automatic && maintenance;
    server.maintenance_until_ms = if maintenance { elapsed_ms.saturating_add(command.for_ms) } else { 0 };
    write.put(Table::Server, key, &server);
    Ok(Reply::DONE)
}

/// Why what is wanted now would be lost by what is wanted next, without anyone having said so.
fn stands_against(now: ServerWish, next: ServerWish) -> Option<&'static str> {
    match (now, next) {
        (ServerWish::Decommissioned, ServerWish::Draining) => Some("it is emptied already, and to be gone for good"),
        (ServerWish::Decommissioned, ServerWish::Maintenance) => Some("it is to be gone for good"),
        (ServerWish::Draining, ServerWish::Maintenance) => Some("a maintenance would keep on it what is to leave it"),
        _ => None,
    }
}
