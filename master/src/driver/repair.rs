//! Looks at chunks that may not be as they should be, decides the next step for the most endangered, and has chunkservers
//! carry it out.

mod carry_out;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use quarry_env::Instant;
use quarry_master_core::{
    detector,
    query::{self, ChunkRecord, ChunkView},
    repair::{Cluster, Decision, Policy, decide, decide::Question, queue::Needless},
};
use quarry_types::ChunkId;
use tracing::Level;

use carry_out::{Order, carry_out};

use crate::{
    error::Fault,
    locations::Changed,
    lookups,
    repairing::{self, READY_AFTER, Repairing, Survey},
    shared::{Leading, Shared, Soft},
};

/// Between two ticks.
const TICK: Duration = Duration::from_millis(100);
/// Chunks looked at in one tick.
const LOOKS: usize = 2048;
/// Chunks decided about in one tick.
const DECISIONS: usize = 64;
/// Copies and drops under way at once in the whole cluster.
const ORDERS_MAX: usize = 4096;

/// Runs until the leadership ends.
pub(super) async fn run(shared: &Arc<Shared>, leading: &Arc<Leading>) {
    let mut orders = FuturesUnordered::new();
    loop {
        match tick(shared, leading, ORDERS_MAX - orders.len().min(ORDERS_MAX)).await {
            Ok(new) => orders.extend(new.into_iter().map(|order| carry_out(shared, leading, order))),
            Err(error) => {
                tracing::warn!(%error, "repair could not look at the state and tries again");
                shared.world.clock.sleep(super::FAILED_PAUSE).await;
            }
        }
        let pause = shared.world.clock.sleep(TICK);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                () = &mut pause => break,
                Some(()) = orders.next(), if !orders.is_empty() => {}
            }
        }
    }
}

/// One look, and what is to be done.
async fn tick(shared: &Shared, leading: &Leading, room: usize) -> Result<Vec<Order>, Fault> {
    let (settings, elapsed_ms, totals) = shared
        .peek(|tables| Ok((query::settings(tables)?, query::counters(tables)?.elapsed_ms, query::totals(tables)?)))
        .await?;
    {
        let (mut soft, now) = (leading.soft(), shared.now());
        soft.servers.tick(elapsed_ms);
        let soft = &mut *soft;
        soft.totals = Some(totals);
        soft.repairing.work_by(Policy::of(&settings));
        soft.servers.judge_by(detector::Policy::of(&settings));
        soft.repairing.wishes(&soft.servers, &soft.locations);
        let latency = Duration::from_micros(soft.servers.latency_us(now));
        let policy = soft.repairing.policy.clone();
        soft.repairing.budget.observe(latency, &policy);
        if !soft.repairing.ready && is_ready(soft, leading, now) {
            soft.repairing.ready = true;
            tracing::info!("chunkservers had time to report: all chunks are looked at");
        }
    }
    let mut orders = look(shared, leading).await?;
    orders.extend(work(shared, leading, room.min(DECISIONS)).await?);
    Ok(orders)
}

/// A new leader declares nothing missing and drops nothing until servers had time to report.
fn is_ready(soft: &Soft, leading: &Leading, now: Instant) -> bool {
    let reported = |server| soft.locations.number(server).is_some();
    now.since(leading.since) >= READY_AFTER || soft.servers.awaited(&reported).is_empty()
}

/// Takes a fresh look at what changed, at servers whose chunks are all concerned, and goes on with the survey.
async fn look(shared: &Shared, leading: &Leading) -> Result<Vec<Order>, Fault> {
    let (chunks, survey) = {
        let mut soft = leading.soft();
        let soft = &mut *soft;
        if !soft.repairing.ready {
            return Ok(Vec::new());
        }
        let mut chunks = match soft.locations.take_changed(LOOKS) {
            Changed::Chunks(chunks) => chunks,
            Changed::TooMuch => {
                soft.repairing.survey = Survey::BEGIN;
                Vec::new()
            }
        };
        walk(soft, &mut chunks);
        soft.repairing.looking = true;
        (chunks, survey(soft, shared.now()))
    };
    let room = LOOKS.saturating_sub(chunks.len());
    let asked = chunks.clone();
    let looked_up = shared
        .peek(move |tables| {
            let mut records = Vec::with_capacity(asked.len());
            for chunk in asked {
                records.push((chunk, query::chunk(tables, chunk)?));
            }
            let surveyed = match survey.after() {
                Some(after) if room > 0 => Some(lookups::chunks(tables, after, room)?),
                Some(_) | None => None,
            };
            Ok((records, surveyed))
        })
        .await;
    let (mut soft, now) = (leading.soft(), shared.now());
    soft.repairing.looking = false;
    let (records, surveyed) = match looked_up {
        Ok(found) => found,
        Err(error) => {
            // What was taken to be looked at would be forgotten.
            chunks.iter().for_each(|chunk| soft.locations.look_again(*chunk));
            return Err(error);
        }
    };
    let racks = soft.servers.racks().len();
    let mut needless: Vec<Needless> =
        records.iter().filter_map(|(chunk, record)| soft.look_at(*chunk, record.as_ref(), racks, now)).collect();
    if let Some(page) = surveyed {
        needless.extend(page.iter().filter_map(|view| {
            soft.repairing.queue.round_reaches(view.id);
            soft.look_at(view.id, Some(&view.record), racks, now)
        }));
        // One that was begun anew meanwhile goes on from its beginning.
        if soft.repairing.survey == survey {
            goes_on(&mut soft.repairing, page.last().filter(|_| page.len() == room), now);
        }
    }
    soft.repairing.looked += 1;
    Ok(needless.into_iter().map(Order::Cancel).collect())
}

/// How far the look at everything has come. It begins again when the ledger had no room for what it found.
fn survey(soft: &mut Soft, now: Instant) -> Survey {
    let repairing = &mut soft.repairing;
    if repairing.survey == Survey::Done && repairing.queue.next_round().is_some_and(|next| next <= now.0) {
        repairing.survey = Survey::Again(ChunkId(0));
    }
    if repairing.survey.after() == Some(ChunkId(0)) {
        repairing.queue.round_begins();
    }
    repairing.survey
}

/// The look at everything has come to `last`, or to its end.
fn goes_on(repairing: &mut Repairing, last: Option<&ChunkView>, now: Instant) {
    repairing.survey = repairing.survey.at(last.map(|view| view.id));
    if repairing.survey == Survey::Done {
        repairing.queue.round_ends(now.0);
    }
}

/// Fills up `chunks` from servers whose chunks are all to be looked at.
fn walk(soft: &mut Soft, chunks: &mut Vec<ChunkId>) {
    while chunks.len() < LOOKS
        && let Some((server, from)) = soft.repairing.walks.pop_first()
    {
        let room = LOOKS - chunks.len();
        let page = soft.locations.chunks_of(server, from, room);
        if page.len() == room
            && let Some(last) = page.last()
        {
            soft.repairing.walks.insert(server, ChunkId(last.0.saturating_add(1)));
        }
        chunks.extend(page);
    }
}

/// Decides about the most endangered chunks that can be worked on now.
async fn work(shared: &Shared, leading: &Leading, limit: usize) -> Result<Vec<Order>, Fault> {
    let due = leading.soft().repairing.queue.due(shared.now().0, limit);
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let records = shared
        .peek(move |tables| {
            let record = |chunk: ChunkId| Ok((chunk, query::chunk(tables, chunk)?));
            due.into_iter().map(record).collect::<Result<Vec<_>, query::Fault>>()
        })
        .await?;
    let (mut soft, now) = (leading.soft(), shared.now());
    let soft = &mut *soft;
    let mut cluster = repairing::cluster(soft, now);
    cluster.held = leading.is_held();
    let racks = cluster.racks.len();
    let mut orders = Vec::new();
    for (chunk, record) in records {
        orders.extend(soft.look_at(chunk, record.as_ref(), racks, now).map(Order::Cancel));
        let Some(record) = record.filter(|_| soft.repairing.queue.get(chunk).is_some()) else { continue };
        let question = soft.question(chunk, &record, shared.world.random.next_u64(), now);
        let (_, decision) = decide(&question, &cluster, &soft.repairing.policy);
        record_decision(&question, &cluster, &soft.repairing.policy, &decision);
        orders.extend(order(soft, &record, &question, decision, &mut cluster));
    }
    Ok(orders)
}

/// Enters a decision into the books, and makes an order of it.
fn order(
    soft: &mut Soft,
    record: &ChunkRecord,
    question: &Question,
    decision: Decision,
    cluster: &mut Cluster,
) -> Option<Order> {
    let (chunk, now) = (question.facts.chunk, Instant(question.now));
    let repairing = &mut soft.repairing;
    match decision {
        Decision::Nothing => None,
        Decision::Wait(reason) => {
            repairing.queue.wait(chunk, reason, now.0);
            None
        }
        Decision::Copy { target, sources, urgent } => {
            let source = *sources.first()?;
            let pace = repairing.budget.pace(urgent, &repairing.policy);
            let bytes = record.length;
            repairing.budget.start(source, target, bytes, urgent, &repairing.policy.clone(), now.0);
            repairing.queue.copying(chunk, source, target, now.0);
            for candidate in cluster.candidates.iter_mut().filter(|c| [source, target].contains(&c.server)) {
                let room = repairing.budget.room(candidate.server, &repairing.policy, now.0);
                (candidate.copies_in, candidate.copies_out) = (room.copies_in, room.copies_out);
                (candidate.budget_in, candidate.budget_out) = (room.bytes_in, room.bytes_out);
            }
            cluster.give(target, bytes);
            cluster.budget = repairing.budget.cluster(&repairing.policy, now.0);
            let missing = repairing.queue.get(chunk).map_or(0, |entry| entry.need.missing);
            tracing::info!(%chunk, missing, %source, %target, bytes, urgent, "copy starts");
            Some(Order::Copy { seal: carry_out::sealed(chunk, record), source, target, sources, pace })
        }
        Decision::Drop { server, bad } => {
            let registration = soft.servers.get(server)?.registration;
            repairing.queue.dropping(chunk, server);
            repairing.drop_sent(chunk, server);
            cluster.take(server, record.length);
            let replica = soft.locations.replica(server, chunk);
            tracing::info!(%chunk, %server, bad, "a replica is dropped: the chunk has all it wants without it");
            let seal = carry_out::seal_to_drop(chunk, record, replica.as_ref(), bad);
            Some(Order::Drop { chunk, server, registration, seal })
        }
    }
}

/// For those who want to see a decision again with everything it rested on: `--log info,quarry_decisions=debug`.
fn record_decision(question: &Question, cluster: &Cluster, policy: &Policy, decision: &Decision) {
    if tracing::enabled!(target: "quarry_decisions", Level::DEBUG)
        && let Ok(json) = serde_json::to_string(&(question, cluster, policy, decision))
    {
        tracing::debug!(target: "quarry_decisions", decision = json);
    }
}
