//! The repair ledger, as operators see it.

use std::{collections::BTreeMap, time::Duration};

use quarry_env::Instant;
use quarry_master_core::{
    query,
    repair::queue::{Entry, Finished, Outcome, Work},
};
use quarry_proto::v1;
use quarry_types::{ChunkId, ServerId};

use super::Service;
use crate::{error::Fault, shared::Soft};

/// Rows in one answer.
const ROWS_MAX: usize = 1000;

impl Service {
    /// Chunks that are not as they should be, most endangered first.
    pub async fn repairs(&self, request: v1::RepairsRequest) -> Result<v1::RepairsReply, Fault> {
        let leading = self.shared.leading()?;
        self.catch_up(&leading).await;
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => ROWS_MAX,
            Ok(limit) => limit.min(ROWS_MAX),
        };
        let mut reply = {
            let (soft, now) = (leading.soft(), self.shared.now());
            reply(&soft, limit, request.finished, now)
        };
        let chunks = reply.repairs.iter().map(|row| ChunkId(row.chunk)).collect();
        let paths = self.paths(chunks).await?;
        for row in &mut reply.repairs {
            row.path = paths.get(&ChunkId(row.chunk)).cloned().unwrap_or_default();
        }
        Ok(reply)
    }

    /// The paths of the files that chunks belong to, as far as they have one.
    pub(super) async fn paths(&self, chunks: Vec<ChunkId>) -> Result<BTreeMap<ChunkId, String>, Fault> {
        self.shared
            .peek(move |tables| {
                let mut paths = BTreeMap::new();
                for chunk in chunks {
                    if let Some(record) = query::chunk(tables, chunk)?
                        && let Some(path) = query::path_of(tables, record.inode)?
                    {
                        paths.insert(chunk, path);
                    }
                }
                Ok(paths)
            })
            .await
    }

    /// Ends a brake, if one holds.
    pub fn release_brake(&self) -> Result<v1::ReleaseBrakeReply, Fault> {
        let leading = self.shared.leading()?;
        let (mut soft, now) = (leading.soft(), self.shared.now());
        let soft = &mut *soft;
        let released = soft.repairing.brake(&soft.servers, now).unwrap_or_default();
        soft.repairing.release_brake(now);
        tracing::warn!(held = released, "an operator ended the brake of repair");
        Ok(v1::ReleaseBrakeReply { released })
    }
}

fn reply(soft: &Soft, limit: usize, finished: bool, now: Instant) -> v1::RepairsReply {
    let queue = &soft.repairing.queue;
    let mut repairs: Vec<v1::RepairRow> =
        queue.rows(now.0).take(limit).map(|(chunk, entry, eta)| row(chunk, entry, eta, now)).collect();
    if finished {
        let room = limit.saturating_sub(repairs.len());
        repairs.extend(queue.finished(now.0).take(room).map(|done| finished_row(done, now)));
    }
    let totals = queue.totals();
    let most = totals.by_missing.keys().next_back().map_or(0, |most| *most as usize);
    let mut by_missing = vec![0; most + 1];
    for (missing, count) in &totals.by_missing {
        if let Some(at) = by_missing.get_mut(*missing as usize) {
            *at = *count;
        }
    }
    let (rate, eta) = (queue.rate(now.0), queue.estimate(now.0));
    v1::RepairsReply {
        repairs,
        total: totals.chunks,
        bytes_left: totals.bytes_left,
        eta_ms: eta.map_or(0, millis),
        eta_known: eta.is_some() || totals.bytes_left == 0,
        assumes: assumes(rate, soft.repairing.budget.share(), totals.bytes_stuck),
        brake: soft.repairing.brake(&soft.servers, now).unwrap_or_default(),
        by_missing,
        bytes_per_second: rate.unwrap_or(0),
        kept: totals.kept,
        incomplete: super::status::uncounted(soft).unwrap_or_default(),
    }
}

fn assumes(rate: Option<u64>, share: f64, stuck: u64) -> String {
    if stuck > 0 {
        return format!(
            "{stuck} bytes are to be copied that no time brings: their chunks are blocked, or have no good replica"
        );
    }
    let Some(rate) = rate else {
        return "nothing was copied in the last half minute, so there is no rate to estimate with".into();
    };
    let slowed = if share < 1.0 {
        format!("; copies are slowed to {:.0} % because clients wait", share * 100.0)
    } else {
        String::new()
    };
    format!("{rate} bytes per second, as measured over the last half minute, and nothing else happens{slowed}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The ledger's row of a chunk.
pub(super) fn row(chunk: ChunkId, entry: &Entry, eta: Option<Duration>, now: Instant) -> v1::RepairRow {
    let none = Vec::new;
    let bytes = |server: &ServerId| server.to_bytes();
    let (state, source, target, done) = match &entry.work {
        Work::Copying { source, target, done, .. } => ("copying", bytes(source), bytes(target), *done),
        Work::Dropping { server } => ("trimming", none(), bytes(server), 0),
        Work::None => match &entry.reason {
            Some(reason) if reason.is_held() => ("held", none(), none(), 0),
            Some(reason) if reason.is_blocked() => ("blocked", none(), none(), 0),
            _ => ("waiting", none(), none(), 0),
        },
    };
    let why = match (&entry.work, &entry.reason) {
        (Work::Copying { .. } | Work::Dropping { .. }, _) => String::new(),
        (Work::None, Some(reason)) => reason.to_string(),
        (Work::None, None) => "more endangered chunks go first".into(),
    };
    v1::RepairRow {
        chunk: chunk.0,
        path: String::new(),
        missing: entry.need.missing,
        since_ms: millis(now.0.saturating_sub(entry.since)),
        state: state.into(),
        reason: why,
        source: source.into(),
        target: target.into(),
        bytes_done: done,
        bytes_total: entry.bytes,
        next_attempt_ms: entry.next.map_or(0, |next| millis(next.saturating_sub(now.0))),
        eta_ms: eta.map_or(0, millis),
        eta_known: eta.is_some(),
        good: entry.need.good,
        wanted: entry.need.wanted,
        attempts: entry.attempts,
    }
}

fn finished_row(finished: &Finished, now: Instant) -> v1::RepairRow {
    let entry = &finished.entry;
    v1::RepairRow {
        state: finished.outcome.word().into(),
        reason: format!("{}, {} s ago", finished.outcome.text(), now.0.saturating_sub(finished.at).as_secs()),
        source: Vec::new().into(),
        bytes_done: if finished.outcome == Outcome::Done { entry.bytes } else { 0 },
        missing: 0,
        next_attempt_ms: 0,
        eta_known: true,
        ..row(finished.chunk, entry, Some(Duration::ZERO), now)
    }
}
