use quarry_types::ErrorCode;

use crate::{
    command::{PutServer, TrustServer},
    keys,
    limits::{SERVER_NAME_BYTES, SERVERS_MAX},
    reply::{RegisteredServer, Reply},
    rows::Server,
    state::{Fault, Write, find, refuse},
    tables::Table,
};

/// Remembers a chunkserver. One whose start counter went backwards is an old image until it is trusted again (S11).
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
    let old_image = before.is_some_and(|b| b.old_image || command.start_counter < b.start_counter);
    let server = Server {
        address: command.address.clone(),
        rack: command.rack.clone(),
        start_counter: command.start_counter,
        durability: command.durability,
        old_image,
    };
    write.put(Table::Server, key, &server);
    Ok(Reply::Server(RegisteredServer { old_image }))
}

/// Takes the mark of an old image off, if the server has not started again since it was verified.
pub(crate) fn trust(write: &mut Write<'_, '_>, command: &TrustServer) -> Result<Reply, Fault> {
    let key = keys::server(command.server);
    let Some(mut server) = find::<Server>(write.tables(), Table::Server, &key)? else {
        return refuse(ErrorCode::NotFound, format!("chunkserver {} never registered", command.server));
    };
    if server.start_counter == command.start_counter && server.old_image {
        server.old_image = false;
        write.put(Table::Server, key, &server);
    }
    Ok(Reply::Server(RegisteredServer { old_image: server.old_image }))
}
