use quarry_types::ErrorCode;

use crate::{
    command::Announce,
    keys,
    limits::ANNOUNCE_MAX,
    reply::Reply,
    rows::{Change, Server, ServerJudged},
    state::{Fault, Write, find, refuse},
    tables::Table,
};

/// Tells those who watch what the leader believes of chunkservers, where that is something else than what they were told
/// last: so a new leader repeats nothing, and nothing is left out that a command should have told that was lost. The first of
/// these commands lets events begin in a state that an older build made.
pub(crate) fn announce(write: &mut Write<'_, '_>, command: &Announce) -> Result<Reply, Fault> {
    if command.verdicts.len() > ANNOUNCE_MAX {
        let message = format!("one command announces at most {ANNOUNCE_MAX} verdicts");
        return refuse(ErrorCode::InvalidArgument, message);
    }
    // A leader of the past believes what was so in the past.
    if write.counters()?.epoch != command.epoch {
        return Ok(Reply::DONE);
    }
    if write.events()?.is_none() {
        write.begin_events();
    }
    for judged in &command.verdicts {
        let key = keys::server(judged.server);
        let Some(mut row) = find::<Server>(write.tables(), Table::Server, &key)? else { continue };
        if row.verdict.says_as(judged.verdict) {
            continue;
        }
        write.tell(Change::ServerJudged(ServerJudged { server: judged.server, from: row.verdict, to: judged.verdict }));
        row.verdict = judged.verdict;
        write.put(Table::Server, key, &row);
    }
    Ok(Reply::DONE)
}
