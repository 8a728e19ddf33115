//! What a leader does by itself.
//!
//! A leadership begins with a command that raises the epoch; everything soft starts afresh. Then a few loops run side by
//! side until the leadership ends: each looks at the replicated state and at what servers said, lets the core decide, and
//! proposes or sends commands. None of them remembers anything that a look could not tell again.

mod agreement;
mod announce;
mod balance;
mod collect;
mod compare;
mod delete;
mod expire;
mod follow;
mod health;
mod marks;
mod repair;
mod room;
mod seals;

use std::{sync::Arc, time::Duration};

use quarry_master_core::{
    command::{BeginEpoch, Kind},
    query,
    reply::Reply,
};
use quarry_types::Leadership;
use tokio::sync::watch;

use crate::{
    dispatch::Dispatch,
    error::Fault,
    raft::LeaderState,
    shared::{Leading, Shared, unexpected},
};

/// Between two looks of a loop that found nothing to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The first pause before the beginning of a leadership is tried again.
const BEGIN_PAUSE: Duration = Duration::from_millis(20);
/// After a failure (no majority, no room) a loop tries again.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Servers read in one go.
const SERVERS_STEP: usize = 1000;

/// Leads whenever this master is elected, until `stopped`.
pub async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut state = shared.group.leader();
    loop {
        let elected = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            elected = state.wait_for(|s| s.me_since_term.is_some()) => elected.map(|s| s.me_since_term),
        };
        // The sender is gone when the group has stopped.
        let Ok(Some(term)) = elected else { return };
        let lost = deposed(state.clone(), term);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => {
                shared.lead(None);
                return;
            }
            () = lost => tracing::warn!(term, "this master leads no longer"),
            () = lead(&shared, term) => {}
        }
        shared.lead(None);
    }
}

/// Completes when the leadership of `term` is over.
async fn deposed(mut state: watch::Receiver<LeaderState>, term: u64) {
    // A group that has stopped leads no more either.
    let _over = state.wait_for(|s| s.me_since_term != Some(term)).await;
}

async fn lead(shared: &Arc<Shared>, term: u64) {
    // Whoever has just been elected may propose only once a majority has answered it.
    let mut pause = BEGIN_PAUSE;
    let leading = loop {
        match begin(shared).await {
            Ok(leading) => break leading,
            Err(error) => {
                tracing::debug!(term, %error, "the leadership does not begin yet");
                // With a full disk it never would, and another one may have room.
                if let Err(error) = room::step(shared).await {
                    tracing::warn!(%error, "the leadership cannot be handed on for want of room");
                }
                shared.world.clock.sleep(pause).await;
                pause = (pause * 2).min(FAILED_PAUSE);
            }
        }
    };
    tracing::info!(term, epoch = %leading.leadership.epoch, lineage = leading.leadership.lineage.number, "this master leads");
    shared.lead(Some(leading.clone()));
    // Others speak to it at the address that the group has stored.
    if let Err(error) = shared.group.correct_address().await {
        tracing::warn!(%error, "the group does not know this master's present address");
    }
    tokio::join!(
        health::run(shared, &leading),
        repair::run(shared, &leading),
        repeat(shared, "announcing", || announce::step(shared, &leading)),
        repeat(shared, "expiry", || expire::step(shared, &leading)),
        repeat(shared, "seals", || seals::step(shared, &leading)),
        repeat(shared, "comparison", || compare::step(shared, &leading)),
        repeat(shared, "room", || room::step(shared)),
        repeat(shared, "marks of logs", marks::Marks::new(shared).stepper()),
        repeat(shared, "comparison of states", || agreement::step(shared, &leading)),
        repeat(shared, "deletion", delete::Deletion::new(shared, &leading).stepper()),
        repeat(shared, "following", || follow::step(shared, &leading)),
        repeat(shared, "balancing", || balance::step(shared, &leading)),
        repeat(shared, "collection", collect::Collection::new(shared, &leading).stepper()),
    );
}

async fn begin(shared: &Shared) -> Result<Arc<Leading>, Fault> {
    let leadership: Leadership = match shared.propose(Kind::BeginEpoch(BeginEpoch { node: shared.node })).await? {
        Reply::Leads(leads) => leads.leadership(),
        other => return Err(unexpected(&other)),
    };
    let dispatch = Arc::new(Dispatch::new(shared.world.clone(), shared.key.clone(), shared.cluster, leadership));
    let leading = Arc::new(Leading::new(leadership, shared.now(), dispatch, shared.key.clone()));
    leading.set_held(shared.peek(|tables| Ok(query::hold(tables)?.is_some())).await?);
    let mut after = None;
    loop {
        let page = shared.peek(move |tables| Ok(query::servers(tables, after, SERVERS_STEP)?)).await?;
        for server in &page {
            leading.soft().servers.expect(server.id, server.record.clone(), leading.since);
        }
        match page.last() {
            Some(last) if page.len() == SERVERS_STEP => after = Some(last.id),
            _ => return Ok(leading),
        }
    }
}

/// Runs a step again and again: at once while there is more to do, else after a pause.
async fn repeat<F: Future<Output = Result<bool, Fault>>>(shared: &Shared, what: &str, mut step: impl FnMut() -> F) {
    loop {
        let pause = match step().await {
            Ok(true) => Duration::ZERO,
            Ok(false) => LOOK_INTERVAL,
            Err(error) => {
                tracing::warn!(what, %error, "a step of the leader failed and is tried again");
                FAILED_PAUSE
            }
        };
        if pause.is_zero() {
            // Other loops get their turn in between.
            tokio::task::yield_now().await;
        } else {
            shared.world.clock.sleep(pause).await;
        }
    }
}
