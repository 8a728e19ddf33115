//! Balancing, as operators ask for it and see it.

use quarry_env::Instant;
use quarry_master_core::{
    balance::{Fill, Limits, Plan, trigger},
    command::{Kind, PutSettings, Settings},
    query,
    settings::{BALANCE_ASKED, BALANCE_AUTOMATIC},
};
use quarry_proto::v1;
use quarry_types::ErrorCode;

use super::Service;
use crate::{
    balancing::{BY_REQUEST, fills},
    error::{Fault, fault},
    shared::{Leading, Soft},
};

impl Service {
    /// Begins to even out the servers, ends it, or says what would be moved. The same again is fine.
    pub async fn rebalance(&self, request: v1::RebalanceRequest) -> Result<v1::RebalanceReply, Fault> {
        if request.dry_run && request.stop {
            return Err(fault(ErrorCode::InvalidArgument, "a dry run stops nothing; ask for one of the two"));
        }
        let leading = self.shared.leading()?;
        if request.stop {
            return self.stop_balancing(&leading).await;
        }
        let settings = match request.dry_run {
            true => self.shared.peek(query::settings).await?,
            false => self.begin_balancing(&leading).await?,
        };
        let planned = planned(&leading.soft(), &settings, self.shared.now());
        Ok(planned.reply())
    }

    /// Begins balancing if there is something to do. That is committed, so that the next leader goes on with it.
    async fn begin_balancing(&self, leading: &Leading) -> Result<Settings, Fault> {
        let _one_at_a_time = self.shared.changing_settings.lock().await;
        let mut settings = self.shared.read(query::settings).await?;
        let wanted = is_wanted(&leading.soft(), &settings, self.shared.now());
        if wanted && settings.get(&BALANCE_ASKED) == 0 {
            settings.set(&BALANCE_ASKED, 1);
            self.shared.propose(Kind::PutSettings(PutSettings { settings: settings.clone() })).await?;
        }
        begin(&mut leading.soft(), wanted);
        Ok(settings)
    }

    /// Ends balancing, and lets none begin by itself: that is committed, so that it outlasts this leadership.
    async fn stop_balancing(&self, leading: &Leading) -> Result<v1::RebalanceReply, Fault> {
        let _one_at_a_time = self.shared.changing_settings.lock().await;
        let mut settings = self.shared.read(query::settings).await?;
        let automatic = settings.get(&BALANCE_AUTOMATIC) != 0;
        let asked = settings.get(&BALANCE_ASKED) != 0;
        if automatic || asked {
            settings.set(&BALANCE_AUTOMATIC, 0);
            settings.set(&BALANCE_ASKED, 0);
            self.shared.propose(Kind::PutSettings(PutSettings { settings: settings.clone() })).await?;
        }
        let (ran, planned) = {
            let (mut soft, now) = (leading.soft(), self.shared.now());
            (stop(&mut soft, asked), planned(&soft, &settings, now))
        };
        Ok(v1::RebalanceReply { reason: stopped(ran, automatic), ..planned.reply() })
    }
}

/// Whether anything was under way. `asked`: somebody asked for it.
fn stop(soft: &mut Soft, asked: bool) -> bool {
    tracing::info!("an operator ends balancing");
    let balancing = &soft.repairing.balancing;
    let ran = asked || balancing.run.is_some() || balancing.moves().next().is_some();
    soft.give_up_moves(|_, _, _, _| true);
    soft.repairing.balancing.stopped = true;
    if ran {
        soft.repairing.balancing.end(stopped(true, false));
    }
    ran
}

/// What a stop has changed. `automatic`: until then balancing began by itself.
fn stopped(ran: bool, automatic: bool) -> String {
    let what = if ran { "an operator ended it" } else { "nothing was under way" };
    let off = if automatic { "automatic balancing is off from now on" } else { "automatic balancing is off" };
    format!("{what}; {off} (`balance-automatic` is 0): {BACK_ON}")
}

/// How balancing that is off is brought about.
const BACK_ON: &str =
    "`quarry rebalance` evens out once, `quarry settings balance-automatic=1` lets it begin by itself again";

/// That nothing is evened out by itself, while that is so.
pub(super) fn off(soft: &Soft, settings: &Settings) -> Option<String> {
    let off = settings.get(&BALANCE_AUTOMATIC) == 0 && !is_running(soft, settings);
    off.then(|| {
        format!("chunkservers are not evened out by themselves: `balance-automatic` is 0, as `quarry rebalance --stop` sets it; {BACK_ON}")
    })
}

/// Balancing goes on, or was asked for and begins as soon as the leader knows enough.
fn is_running(soft: &Soft, settings: &Settings) -> bool {
    let balancing = &soft.repairing.balancing;
    balancing.run.is_some() || balancing.is_asked(settings)
}

/// Whether there is something to do about a wish, as far as is known: a new leader knows too little to say that there is not.
fn is_wanted(soft: &Soft, settings: &Settings, now: Instant) -> bool {
    let plan = Plan::new(&fills(soft, now), &Limits::of(settings));
    soft.repairing.balancing.run.is_some() || !soft.repairing.knows_all() || !plan.is_empty()
}

fn begin(soft: &mut Soft, wanted: bool) {
    let balancing = &mut soft.repairing.balancing;
    balancing.stopped = false;
    balancing.wake();
    if balancing.run.is_none() && wanted {
        tracing::info!("an operator begins balancing");
        balancing.run(BY_REQUEST.into());
    }
}

/// The answer, but for what each server will hold: that takes a while, and needs no lock.
struct Planned {
    reply: v1::RebalanceReply,
    plan: Plan,
    fills: Vec<Fill>,
}

impl Planned {
    fn reply(self) -> v1::RebalanceReply {
        let (mut reply, outcome) = (self.reply, self.plan.outcome(&self.fills));
        for (server, fill) in reply.servers.iter_mut().zip(&self.fills) {
            server.planned_bytes = outcome.get(&fill.server).copied().unwrap_or(fill.used);
        }
        reply
    }
}

fn planned(soft: &Soft, settings: &Settings, now: Instant) -> Planned {
    let (fills, limits) = (fills(soft, now), Limits::of(settings));
    let (balancing, running) = (&soft.repairing.balancing, is_running(soft, settings));
    // What a look at everything has just found that it cannot be moved is not promised.
    let rests = balancing.rests(now) && !running;
    let plan = if rests { Plan::default() } else { Plan::new(&fills, &limits) };
    let (under_way, marked) = balancing.moves().fold((0u64, 0u64), |(n, bytes), (_, one)| (n + 1, bytes + one.bytes));
    let (planned, bytes_left) = (plan.bytes(), plan.bytes().saturating_add(marked));
    let rate = soft.repairing.queue.rate(now.0);
    let mut reason = reason(soft, settings, &fills, &limits, now);
    if !running && planned > 0 {
        reason.push_str(AT_MOST);
    }
    let reply = v1::RebalanceReply {
        running,
        moves_left: under_way + planned.div_ceil(mean_chunk(soft, &fills)),
        bytes_left,
        bytes_moved: balancing.run.as_ref().map_or(0, |run| run.moved),
        eta_ms: rate.map_or(0, |rate| bytes_left.saturating_mul(1000) / rate.max(1)),
        eta_known: rate.is_some() || bytes_left == 0,
        servers: fills.iter().map(|fill| server_fill(soft, fill)).collect(),
        reason,
    };
    Planned { reply, plan, fills }
}

/// The plan knows how full chunkservers are, and only a look at every chunk what may move.
const AT_MOST: &str = "; at most: racks, and where a chunk's other replicas are, may forbid a part of it";

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
    if balancing.is_asked(settings) {
        return BY_REQUEST.into();
    }
    if fills.is_empty() {
        return "no chunkserver takes part: none is alive, with a disk that works, and neither draining nor in maintenance".into();
    }
    let off = settings.get(&BALANCE_AUTOMATIC) == 0;
    let rests = (balancing.stopped && off) || balancing.rests(now);
    match (trigger(fills, limits), &balancing.last) {
        (_, Some(last)) if rests => last.clone(),
        (None, _) => format!("every chunkserver is within `balance-band` ({} %) of the mean", limits.band),
        (Some(why), _) if off => {
            format!("{why}; `balance-automatic` is 0: `quarry rebalance` begins")
        }
        (Some(why), _) => format!("{why}; it is about to begin"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quarry_master_core::command::Durability;
    use quarry_types::{ClusterKey, ServerId};

    use super::*;
    use crate::{
        balancing::Obstacle,
        servers::{Registered, Start},
    };

    const NOW: Instant = Instant(Duration::from_secs(1));

    /// A leader that knows who has what, with servers that are so full.
    fn leader(percent: &[u64]) -> Soft {
        let mut soft = Soft::new(ClusterKey::new([7; 32]));
        soft.repairing.ready = true;
        for (n, percent) in percent.iter().enumerate() {
            let disk = v1::DiskInfo {
                capacity_bytes: 100 << 30,
                used_bytes: percent << 30,
                available_bytes: (100 - percent) << 30,
                ..Default::default()
            };
            let from = Registered {
                start: Start { counter: 1, id: 1 },
                registration: 1,
                address: format!("h:{n}"),
                rack: "r".into(),
                durability: Durability::Sealed,
                disks: vec![disk],
            };
            soft.servers.register(ServerId::from_random(n as u128 + 1), from, NOW);
        }
        soft
    }

    fn reply(soft: &Soft, settings: &Settings) -> v1::RebalanceReply {
        planned(soft, settings, NOW).reply()
    }

    fn changes(reply: &v1::RebalanceReply) -> bool {
        reply.servers.iter().any(|one| one.planned_bytes != one.used_bytes)
    }

    #[test]
    fn what_a_look_found_that_it_cannot_be_moved_is_not_promised() {
        let (mut soft, settings) = (leader(&[80, 80, 0]), Settings::default());
        let before = reply(&soft, &settings);
        assert!(before.moves_left > 0 && before.bytes_left > 0 && changes(&before), "{before:?}");
        assert!(before.reason.ends_with("may forbid a part of it"), "{}", before.reason);
        let balancing = &mut soft.repairing.balancing;
        balancing.run("somebody is full".into());
        balancing.obstacles.insert(Obstacle::Racks);
        balancing.rest(NOW.plus(Duration::from_secs(600)));
        let rests = reply(&soft, &settings);
        assert_eq!((rests.moves_left, rests.bytes_left, changes(&rests)), (0, 0, false), "{rests:?}");
        assert!(rests.reason.starts_with("nothing more can be moved") && rests.reason.contains("racks"), "{rests:?}");
        begin(&mut soft, true);
        let again = reply(&soft, &settings);
        assert!(again.running && again.moves_left > 0 && changes(&again), "{again:?}");
    }

    #[test]
    fn a_new_leader_goes_on_with_what_an_earlier_one_was_asked_for_and_says_so_until_it_knows_who_has_what() {
        let (mut soft, mut settings) = (leader(&[80, 80, 0]), Settings::default());
        settings.set(&BALANCE_AUTOMATIC, 0);
        assert!(!reply(&soft, &settings).running && off(&soft, &settings).is_some());
        settings.set(&BALANCE_ASKED, 1);
        assert!(reply(&soft, &settings).running && off(&soft, &settings).is_none());
        soft.repairing.ready = false;
        let early = reply(&soft, &settings);
        assert!(early.running && early.reason.contains("the leader is new"), "{early:?}");
        // A look at the settings that is older than a stop.
        stop(&mut soft, true);
        assert!(!reply(&soft, &settings).running);
    }

    #[test]
    fn where_no_chunkserver_takes_part_that_is_said() {
        let none = reply(&leader(&[]), &Settings::default());
        assert!(none.reason.starts_with("no chunkserver takes part") && none.servers.is_empty(), "{none:?}");
    }
}
