//! Why something is decided as it is: the same functions as the decisions themselves, with everything they looked at.

use quarry_env::Instant;
use quarry_master_core::{
    placement::{
        Request, Weights,
        explain::{self, Explained},
        filter::{FOR_NEW, Tally},
    },
    query,
    repair::{Decision, Need, decide::explained},
    rows::ChunkState,
};
use quarry_proto::v1;
use quarry_types::{ChunkId, ErrorCode, ServerId, limits::CHUNK_BYTES};

use super::{Service, repairs};
use crate::{
    error::{Fault, fault},
    repairing,
    shared::Soft,
};

/// Candidates in one answer.
const CANDIDATES_MAX: usize = 1000;

impl Service {
    /// What would be done about a chunk now, and why.
    pub async fn explain_chunk(&self, chunk: ChunkId) -> Result<v1::ExplainReply, Fault> {
        let leading = self.shared.leading()?;
        let record = self.shared.read(move |tables| Ok(query::chunk(tables, chunk)?)).await?;
        let Some(record) = record else {
            return Err(fault(
                ErrorCode::NotFound,
                format!("there is no chunk {chunk}; `quarry chunks PATH` lists them"),
            ));
        };
        self.catch_up(&leading).await;
        let paths = self.paths(vec![chunk]).await?;
        let (soft, now) = (leading.soft(), self.shared.now());
        let file = paths.get(&chunk).map_or("a file without a name".into(), |path| format!("file {path}"));
        if record.state != ChunkState::Sealed {
            let verdict = match record.state {
                ChunkState::Open => "nothing: the chunk is being written; its replicas count once it is sealed",
                ChunkState::Sealed | ChunkState::Doomed => "nothing: the chunk is on its way to deletion",
            };
            return Ok(v1::ExplainReply { verdict: verdict.into(), facts: vec![file], ..Default::default() });
        }
        let question = soft.question(chunk, &record, self.shared.world.random.next_u64(), now);
        let mut cluster = repairing::cluster(&soft, now);
        cluster.held = leading.is_held();
        let explanation = explained(&question, &cluster, &soft.repairing.policy);
        let mut facts = vec![file, wanted(&explanation.need, record.length)];
        facts.extend(question.facts.holders.iter().map(|holder| {
            let address = soft.servers.address(holder.server);
            let marks = [
                (holder.leaves(), ", to be moved"),
                (holder.dropping, ", being dropped"),
                (!holder.reported, ", by hearsay"),
            ];
            let marks: String = marks.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
            let (quality, health) = (format!("{:?}", holder.quality).to_lowercase(), holder.health.word());
            format!("replica on {} ({address}, rack {}): {quality}, {health}{marks}", holder.server, holder.rack)
        }));
        facts.extend(cluster.brake.iter().cloned());
        let (verdict, remedy) = verdict(&soft, &explanation.decision, &explanation.need);
        let entry = soft.repairing.queue.get(chunk);
        Ok(v1::ExplainReply {
            verdict,
            remedy,
            facts,
            candidates: candidates(&soft, &explanation.targets, chosen(&explanation.decision).as_slice()),
            repair: entry.map(|entry| repairs::row(chunk, entry, None, now)),
        })
    }

    /// What the leader thinks of a server, and whether it would give it a new chunk.
    pub async fn explain_server(&self, server: ServerId) -> Result<v1::ExplainReply, Fault> {
        let progress = self.server_progress(server).await?;
        let leading = self.shared.leading()?;
        let settings = self.shared.peek(query::settings).await?;
        let (soft, now) = (leading.soft(), self.shared.now());
        let request = request(settings.default_replicas, &settings);
        let of = soft.servers.candidates(now).into_iter().find(|c| c.server == server);
        let explained = of.map(|c| explain::explain(FOR_NEW, &c, &request.ask(), &request.weights));
        let verdict = match explained.as_ref().map(|e| e.rejected) {
            None => "it is not registered with this leader: it is not running, or cannot reach the master".into(),
            Some(None) => "it takes new chunks".into(),
            Some(Some(filter)) => format!("it takes no new chunks: the filter `{filter}` rules it out"),
        };
        let remedy = match explained.as_ref().map(|e| e.rejected) {
            None => "start it, and look at its log",
            Some(filter) => filter.map_or("", |filter| filter.remedy()),
        };
        Ok(v1::ExplainReply {
            verdict,
            remedy: remedy.into(),
            facts: server_facts(&soft, server, &progress, now),
            candidates: candidates(&soft, &Vec::from_iter(explained), &[]),
            repair: None,
        })
    }

    /// Where a chunk of a new file under `path` would go now.
    pub async fn explain_placement(&self, path: String) -> Result<v1::ExplainReply, Fault> {
        let leading = self.shared.leading()?;
        let (file, settings) =
            self.shared.read(move |tables| Ok((query::stat(tables, &path)?, query::settings(tables)?))).await?;
        let wanted = if file.replicas > 0 { file.replicas } else { settings.default_replicas };
        let request = request(wanted, &settings);
        let (soft, now) = (leading.soft(), self.shared.now());
        let all = soft.servers.candidates(now);
        let mut rng = super::add_chunk::rng(&self.shared);
        let placed = quarry_master_core::placement::place(&all, &request, &mut rng);
        let explained: Vec<Explained> =
            all.iter().map(|c| explain::explain(FOR_NEW, c, &request.ask(), &request.weights)).collect();
        let mut tally = Tally::default();
        explained.iter().for_each(|e| tally.count(e.rejected));
        let (verdict, remedy, chosen) = match placed {
            Ok(servers) => {
                let names: Vec<&str> = servers.iter().map(|s| soft.servers.address(*s)).collect();
                (format!("a chunk would go to {} now", names.join(", ")), String::new(), servers)
            }
            Err(why) => {
                let remedy = why.tally.decisive(FOR_NEW).map_or("add chunkservers", |filter| filter.remedy());
                (format!("a chunk would be refused now: {why}"), remedy.to_owned(), Vec::new())
            }
        };
        let facts = vec![
            format!("{} wants {wanted} replicas, and at least {}", file.path, request.min),
            format!("{tally} pass the filters; one is drawn among the best four for each replica, a new rack first"),
        ];
        Ok(v1::ExplainReply {
            verdict,
            remedy,
            facts,
            candidates: candidates(&soft, &explained, &chosen),
            repair: None,
        })
    }
}

fn request(wanted: u32, settings: &quarry_master_core::command::Settings) -> Request {
    Request {
        wanted,
        min: settings.min_replicas.min(wanted),
        bytes: CHUNK_BYTES,
        avoid: Vec::new(),
        exclude: Vec::new(),
        weights: Weights::of(settings),
    }
}

fn wanted(need: &Need, length: u64) -> String {
    format!(
        "{length} bytes; {} good replicas of {} wanted: {} missing, {} to be moved, {} too many, {} bad{}",
        need.good,
        need.wanted,
        need.missing,
        need.moving,
        need.surplus,
        need.bad,
        if need.rack_short { ", on fewer racks than the cluster has" } else { "" }
    )
}

fn verdict(soft: &Soft, decision: &Decision, need: &Need) -> (String, String) {
    match decision {
        Decision::Nothing => ("nothing: it is as it should be".into(), String::new()),
        Decision::Copy { target, sources, urgent } => {
            let from: Vec<&str> = sources.iter().map(|s| soft.servers.address(*s)).collect();
            let rate = match (*urgent, need.good) {
                (false, _) => "",
                (true, 0) => {
                    ", at twice the rate: no good replica is left, and it is put together from what can be read"
                }
                (true, _) => ", at twice the rate: one good replica is left",
            };
            (format!("copy it to {} from {}{rate}", soft.servers.address(*target), from.join(", ")), String::new())
        }
        Decision::Drop { server, bad } => {
            let what = if *bad { "bad" } else { "surplus" };
            (format!("drop the {what} replica on {}", soft.servers.address(*server)), String::new())
        }
        Decision::Wait(reason) => (format!("wait: {reason}"), reason.remedy()),
    }
}

fn chosen(decision: &Decision) -> Option<ServerId> {
    if let Decision::Copy { target, .. } = decision { Some(*target) } else { None }
}

fn server_facts(soft: &Soft, server: ServerId, progress: &v1::ServerProgressReply, now: Instant) -> Vec<String> {
    let mut facts = vec![
        format!("{} on rack {}, {}", soft.servers.address(server), soft.servers.rack(server), progress.state),
        format!("{} replicas, {} of them open", progress.replicas, progress.open_left),
    ];
    facts.extend(soft.servers.silent(server, now).map(|silent| format!("last beat {} ms ago", silent.as_millis())));
    facts.extend(soft.servers.damped(server, now).map(|left| {
        format!("it beats, but came and went too often: suspect for another {} s if it stays", left.as_secs().max(1))
    }));
    facts.extend(
        soft.servers.reached_ago(server, now).map(|ago| {
            format!("a peer reached it {} ms ago: it is cut off from this master, not gone", ago.as_millis())
        }),
    );
    let room = soft.repairing.budget.room(server, &soft.repairing.policy, now.0);
    facts.push(format!(
        "{} copies to it, {} from it; copy budget {} bytes in, {} bytes out",
        room.copies_in, room.copies_out, room.bytes_in, room.bytes_out
    ));
    if let Some(registered) = soft.servers.get(server) {
        facts.extend(registered.vitals().sickness().map(|why| format!("unhealthy: {why}")));
        facts.extend(registered.disks.iter().map(|disk| {
            let state = match (disk.failed, disk.slow) {
                (true, _) => format!("failed: {}", disk.failed_reason),
                (false, true) => "slow".into(),
                (false, false) => "well".into(),
            };
            format!("disk {}: {} of {} bytes free, {state}", disk.path, disk.available_bytes, disk.capacity_bytes)
        }));
    }
    if progress.maintenance_left_ms > 0 {
        facts.push(format!("in maintenance for another {} s", progress.maintenance_left_ms / 1000));
    }
    facts.extend(Some(progress.reason.clone()).filter(|reason| !reason.is_empty()));
    facts
}

fn candidates(soft: &Soft, explained: &[Explained], chosen: &[ServerId]) -> Vec<v1::CandidateExplained> {
    let mut order: Vec<&Explained> = explained.iter().collect();
    let key = |e: &Explained| (!chosen.contains(&e.server), e.rejected.is_some());
    order.sort_by(|a, b| key(a).cmp(&key(b)).then(b.score.total_cmp(&a.score)).then(a.server.cmp(&b.server)));
    order.truncate(CANDIDATES_MAX);
    order.into_iter().map(|e| candidate(soft, e, chosen.contains(&e.server))).collect()
}

fn candidate(soft: &Soft, explained: &Explained, chosen: bool) -> v1::CandidateExplained {
    let filters = explained.filters.iter().map(|met| v1::Term {
        name: met.filter.word().into(),
        value: met.value.clone(),
        passed: met.passed,
        ..Default::default()
    });
    let scores = explained.terms.iter().map(|term| v1::Term {
        name: term.name.into(),
        value: term.value.clone(),
        passed: true,
        score: term.weight * term.term,
        weight: term.weight,
    });
    let verdict = match explained.rejected {
        Some(filter) => format!("ruled out by `{filter}`"),
        None if chosen => "chosen".into(),
        None => "eligible".into(),
    };
    v1::CandidateExplained {
        server: explained.server.to_bytes().into(),
        address: soft.servers.address(explained.server).into(),
        rack: explained.rack.clone(),
        filters: filters.collect(),
        scores: scores.collect(),
        score: explained.score,
        verdict,
        chosen,
    }
}

#[cfg(test)]
mod tests {
    use quarry_types::ClusterKey;

    use super::*;

    #[test]
    fn that_one_replica_is_left_is_said_only_when_it_is() {
        let soft = Soft::new(ClusterKey::new([7; 32]));
        let said = |good, urgent| {
            let (target, source) = (ServerId::from_random(1), ServerId::from_random(2));
            let copy = Decision::Copy { target, sources: vec![source], urgent };
            verdict(&soft, &copy, &Need { wanted: 3, good, missing: 3 - good, ..Need::default() }).0
        };
        assert!(said(1, true).contains("one good replica is left"));
        let none = said(0, true);
        assert!(none.contains("no good replica is left") && none.contains("what can be read"), "{none}");
        assert!(!said(2, false).contains("left"));
    }
}
