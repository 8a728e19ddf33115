//! Balancing, as operators ask for it and see it.

use quarry_env::Instant;
use quarry_master_core::{
    balance::{Fill, Limits, Plan, trigger},
    command::Settings,
    query,
    settings::BALANCE_AUTOMATIC,
};
use quarry_proto::v1;
use quarry_types::ErrorCode;

use super::Service;
use crate::{
    balancing::{Run, fills},
    error::{Fault, fault},
    shared::Soft,
};

impl Service {
    /// Begins to even out the servers, ends it, or says what would be moved. The same again is fine.
    pub async fn rebalance(&self, request: v1::RebalanceRequest) -> Result<v1::RebalanceReply, Fault> {
        if request.dry_run && request.stop {
            return Err(fault(ErrorCode::InvalidArgument, "a dry run stops nothing; ask for one of the two"));
        }
        let leading = self.shared.leading()?;
        let settings = self.shared.peek(query::settings).await?;
        let (mut reply, plan, fills) = {
            let (mut soft, now) = (leading.soft(), self.shared.now());
            if request.stop {
                stop(&mut soft);
            } else if !request.dry_run {
                begin(&mut soft, &settings, now);
            }
            reply(&soft, &settings, now)
        };
        let outcome = plan.outcome(&fills);
        for (server, fill) in reply.servers.iter_mut().zip(&fills) {
            server.planned_bytes = outcome.get(&fill.server).copied().unwrap_or(fill.used);
        }
        Ok(reply)
    }
}

fn stop(soft: &mut Soft) {
    tracing::info!("an operator ends balancing");
    soft.give_up_moves(|_, _, _, _| true);
    soft.repairing.balancing.stopped = true;
    soft.repairing.balancing.end("an operator ended it; `quarry rebalance` lets it go on".into());
}

fn begin(soft: &mut Soft, settings: &Settings, now: Instant) {
    let plan = Plan::new(&fills(soft, now), &Limits::of(settings));
    let balancing = &mut soft.repairing.balancing;
    (balancing.stopped, balancing.rest_until) = (false, None);
    if balancing.run.is_none() && !plan.is_empty() {
        tracing::info!("an operator begins balancing");
        balancing.run = Some(Run { why: "an operator asked for it".into(), moved: 0 });
    }
}

/// The answer, but for what each server will hold.
fn reply(soft: &Soft, settings: &Settings, now: Instant) -> (v1::RebalanceReply, Plan, Vec<Fill>) {
    let (fills, limits) = (fills(soft, now), Limits::of(settings));
    let (plan, balancing) = (Plan::new(&fills, &limits), &soft.repairing.balancing);
    let (under_way, marked) = balancing.moves().fold((0u64, 0u64), |(n, bytes), (_, one)| (n + 1, bytes + one.bytes));
    let (planned, bytes_left) = (plan.bytes(), plan.bytes().saturating_add(marked));
    let rate = soft.repairing.queue.rate(now.0);
    let reply = v1::RebalanceReply {
        running: balancing.run.is_some(),
        moves_left: under_way + planned.div_ceil(mean_chunk(soft, &fills)),
        bytes_left,
        bytes_moved: balancing.run.as_ref().map_or(0, |run| run.moved),
        eta_ms: rate.map_or(0, |rate| bytes_left.saturating_mul(1000) / rate.max(1)),
        eta_known: rate.is_some() || bytes_left == 0,
        servers: fills.iter().map(|fill| server_fill(soft, fill)).collect(),
        reason: reason(soft, settings, &fills, &limits, now),
    };
    (reply, plan, fills)
}

fn mean_chunk(soft: &Soft, fills: &[Fill]) -> u64 {
    let sum = |of: &dyn Fn(&Fill) -> u64| fills.iter().fold(0u64, |sum, fill| sum.saturating_add(of(fill)));
    let (bytes, chunks) = (sum(&|fill| fill.used), sum(&|fill| soft.locations.count(fill.server)));
    bytes.checked_div(chunks).unwrap_or(0).max(1)
}

fn server_fill(soft: &Soft, fill: &Fill) -> v1::ServerFill {
    v1::ServerFill {
        server: fill.server.to_bytes().into(),
        address: soft.servers.address(fill.server).to_owned(),
        used_bytes: fill.used,
        capacity_bytes: fill.capacity,
        planned_bytes: fill.planned(),
    }
}

/// Why something is moved, or nothing.
fn reason(soft: &Soft, settings: &Settings, fills: &[Fill], limits: &Limits, now: Instant) -> String {
    let (repairing, balancing) = (&soft.repairing, &soft.repairing.balancing);
    if let Some(brake) = repairing.brake(&soft.servers, now) {
        return format!("held: {brake}");
    }
    if !repairing.ready {
        return "the leader is new: chunkservers have not reported yet".into();
    }
    if let Some(run) = &balancing.run {
        return run.why.clone();
    }
    let rests = balancing.stopped || balancing.rest_until.is_some_and(|until| now < until);
    match (trigger(fills, limits), &balancing.last) {
        (_, Some(last)) if rests => last.clone(),
        (None, _) => format!("every chunkserver is within `balance-band` ({} %) of the mean", limits.band),
        (Some(why), _) if settings.get(&BALANCE_AUTOMATIC) == 0 => {
            format!("{why}; `balance-automatic` is 0: `quarry rebalance` begins")
        }
        (Some(why), _) => format!("{why}; it is about to begin"),
    }
}
