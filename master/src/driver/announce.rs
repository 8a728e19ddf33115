//! Tells those who watch what is believed of chunkservers, where it differs from what they were told last.

use std::sync::Arc;

use quarry_master_core::{
    command::{Announce, Kind, ServerVerdict, Verdict},
    limits::ANNOUNCE_MAX,
    query,
};

use crate::{
    error::Fault,
    shared::{Leading, Shared},
};

/// A round later the same is found again, if it still holds: what was not announced is not lost.
pub(super) async fn step(shared: &Arc<Shared>, leading: &Arc<Leading>) -> Result<bool, Fault> {
    let verdicts = due(shared, leading);
    let begun = shared.peek(|tables| Ok(query::events_begun(tables)?)).await?;
    if verdicts.is_empty() && begun {
        return Ok(false);
    }
    let servers: Vec<_> = verdicts.iter().map(|due| due.server).collect();
    let more = verdicts.len() == ANNOUNCE_MAX;
    shared.propose(Kind::Announce(Announce { epoch: leading.leadership.epoch, verdicts })).await?;
    for server in servers {
        shared.refresh(leading, server).await?;
    }
    Ok(more)
}

fn due(shared: &Shared, leading: &Leading) -> Vec<ServerVerdict> {
    let now = shared.now();
    let soft = leading.soft();
    let due = soft.servers.rows().filter_map(|(server, row)| {
        let verdict = Verdict::due(row.verdict, soft.servers.health(server, now))?;
        Some(ServerVerdict { server, verdict })
    });
    due.take(ANNOUNCE_MAX).collect()
}
