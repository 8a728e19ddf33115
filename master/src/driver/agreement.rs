//! Having the masters compare what they hold.
//!
//! A command marks the entry of the log; each member hashes its state as it was right after it; the leader asks for the
//! hashes and compares. Nothing waits for it.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use quarry_env::Instant;
use quarry_master_core::{
    agreement::{self, Digest},
    command::{CompareStates, Kind},
    query,
    reply::Reply,
    settings::COMPARE_INTERVAL,
};
use quarry_types::NodeId;

use crate::{
    agreement::Compared,
    error::Fault,
    raft::{Known, Node},
    shared::{Leading, Shared, unexpected},
};

/// Between two questions to a member.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A member that neither hashes nor has hashed for so long has no digest of that entry: it was down, lags far behind, or
/// got a later state as a snapshot.
const PATIENCE: Duration = Duration::from_secs(10);
/// No state takes longer to be hashed.
const ROUND_MAX: Duration = Duration::from_secs(3600);

/// Begins a comparison when one is due, and sees it through.
pub(super) async fn step(shared: &Shared, leading: &Leading) -> Result<bool, Fault> {
    let interval = shared.peek(|tables| Ok(query::settings(tables)?.duration(&COMPARE_INTERVAL))).await?;
    if !leading.soft().agreement.begin_if_due(shared.now(), leading.since, interval) {
        return Ok(false);
    }
    let index = match shared.propose(Kind::CompareStates(CompareStates {})).await {
        Ok(Reply::Comparison(at)) => at.index,
        other => {
            leading.soft().agreement.give_up();
            return Err(other.map_or_else(|error| error, |reply| unexpected(&reply)));
        }
    };
    let members: Vec<Node> = shared
        .group
        .status()
        .into_iter()
        .map(|master| Node { id: NodeId(master.id), address: master.address })
        .collect();
    let began = shared.now();
    let said: BTreeMap<NodeId, Option<Digest>> =
        join_all(members.iter().map(|member| digest_of(shared, member, index, began))).await.into_iter().collect();
    let findings = agreement::compare(&said);
    let alarms = leading.soft().agreement.end(Compared { index, at: shared.now() }, findings);
    for (node, finding) in &alarms {
        tracing::error!(
            master = %node,
            index,
            finding = finding.word(),
            "THE MASTERS DO NOT HOLD THE SAME; `quarry status` says what to do"
        );
    }
    if alarms.is_empty() {
        tracing::info!(index, members = said.values().flatten().count(), "the masters that answered hold the same");
    }
    Ok(false)
}

/// What a member held right after entry `index`; `None` when it cannot say.
async fn digest_of(shared: &Shared, member: &Node, index: u64, began: Instant) -> (NodeId, Option<Digest>) {
    let mut moved = began;
    loop {
        let known = if member.id == shared.node {
            Ok(shared.group.digest(index))
        } else {
            shared.group.ask_digest(member, index).await
        };
        let now = shared.now();
        match known {
            Ok(Known::Digest(digest)) => return (member.id, Some(digest)),
            Ok(Known::Hashing) => moved = now,
            Ok(Known::Nothing) => {}
            Err(error) => tracing::debug!(master = %member.id, error = %error.message, "no digest yet"),
        }
        if now.since(moved) > PATIENCE || now.since(began) > ROUND_MAX {
            return (member.id, None);
        }
        shared.world.clock.sleep(ASK_EVERY).await;
    }
}
