//! Opening a member's files and starting openraft on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use openraft::{Config, SnapshotPolicy};
use quarry_env::World;
use quarry_master_core::feature::Features;
use tokio::sync::watch;

use super::{
    Belonging, GroupConfig, GroupError, codec,
    digests::Digests,
    gate::Gate,
    log::LogStore,
    machine::Machine,
    network::{Moved, Peers},
    parties::Parties,
    types::{Membership, Payload, Types, seeded},
};
use crate::store::{Layout, State};

/// openraft's handle.
pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// Requests that may wait for the Raft task.
const REQUESTS_MAX: u64 = 4096;

/// The open stores of a member: tells when nobody works on them any more.
pub(crate) struct Stores(watch::Sender<()>);

/// Kept by whoever works on the stores, as its last field, so that it goes when the stores are let go.
#[derive(Clone)]
pub(crate) struct InUse {
    _until_dropped: watch::Receiver<()>,
}

impl Stores {
    pub(crate) fn new() -> (Self, InUse) {
        let (stores, in_use) = watch::channel(());
        (Stores(stores), InUse { _until_dropped: in_use })
    }

    /// Completes when the last [`InUse`] is dropped.
    pub(crate) async fn released(&self) {
        self.0.closed().await;
    }
}

/// A member that has started.
pub(crate) struct Opened {
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    /// How often commands were appended to the log.
    pub(crate) appends: Arc<AtomicU64>,
    pub(crate) digests: Arc<Digests>,
    pub(crate) stores: Stores,
    pub(crate) parties: Parties,
    pub(super) gate: Gate,
    pub(super) moved: Moved,
    /// The members, by everything that is stored here.
    pub(super) known: BTreeMap<u64, String>,
    /// The last entry of the log.
    pub(super) last: u64,
}

/// Opens the files in `layout` (those of the new member `new`, or of the one that they name) and starts the member.
pub(crate) async fn open(
    world: &World,
    layout: &Layout,
    new: Option<u64>,
    belonging: Belonging,
    config: &GroupConfig,
) -> Result<Opened, GroupError> {
    let digests = Digests::new(world);
    let of_machine = Arc::clone(&digests);
    let (blocking_world, blocking_layout, features) = (world.clone(), layout.clone(), config.features);
    let (stores, in_use) = Stores::new();
    let files = world
        .blocking
        .run(move || open_files(&blocking_world, &blocking_layout, new, features, of_machine, in_use))
        .await??;
    let Files { node, known, last, log, machine, state } = files;
    let advertise = config.advertise.clone();
    // A group of one has nobody to ask, and neither has one whose files are just being made.
    let alone = known.keys().eq([&node]) || new.is_some();
    let config = Arc::new(raft_config(config, alone)?);
    let parties = Parties::new(belonging, node);
    let gate = Gate::new(!alone);
    let moved = Moved::default();
    let peers =
        Peers { world: world.clone(), parties: parties.clone(), gate: gate.clone(), advertise, moved: moved.clone() };
    let appends = log.appends();
    let raft = seeded(world, Raft::new(node, config, peers, log, machine)).await;
    let raft = raft.map_err(|e| GroupError::Raft(e.to_string()))?;
    Ok(Opened { raft, state, appends, digests, stores, parties, gate, moved, known, last })
}

struct Files {
    node: u64,
    known: BTreeMap<u64, String>,
    last: u64,
    log: LogStore,
    machine: Machine,
    state: Arc<State>,
}

fn open_files(
    world: &World,
    layout: &Layout,
    new: Option<u64>,
    features: Features,
    digests: Arc<Digests>,
    in_use: InUse,
) -> Result<Files, GroupError> {
    layout.sweep_incoming()?;
    let state = State::open(world, layout.clone(), features)?;
    let log = LogStore::open(world, layout, Some(Arc::clone(&state)), in_use.clone())?;
    if let Some(id) = new {
        log.save_node(id)?;
    }
    let node = log.node()?.ok_or_else(|| GroupError::corrupt(&layout.log(), "it does not say which member it is"))?;
    check_ends(&log, &state, layout)?;
    let known = members(&log, &state, layout)?;
    let ends = log.ends().map_err(|e| GroupError::io(&layout.log(), e))?;
    let applied = state.mark()?.map(|mark| mark.index);
    let last = ends.last_log_id.map(|id| id.index).max(applied).unwrap_or_default();
    let machine = Machine::new(world, Arc::clone(&state), digests, in_use)?;
    Ok(Files { node, known, last, log, machine, state })
}

/// All members by id, by everything that is stored here: also by changes of them that were not known to be committed.
pub(super) fn members(log: &LogStore, state: &State, layout: &Layout) -> Result<BTreeMap<u64, String>, GroupError> {
    let failed = |e| GroupError::io(&layout.log(), e);
    let (applied, membership) = codec::applied(state.mark()?.as_ref()).map_err(failed)?;
    let mut known = BTreeMap::new();
    let mut note = |members: &Membership| known.extend(members.nodes().map(|(id, node)| (*id, node.addr.clone())));
    note(membership.membership());
    let mut next = applied.map_or(0, |id| id.index + 1);
    loop {
        let entries = log.page_from(next).map_err(failed)?;
        let Some(last) = entries.last() else { break };
        next = last.log_id.index + 1;
        for entry in &entries {
            if let Payload::Membership(members) = &entry.payload {
                note(members);
            }
        }
    }
    Ok(known)
}

/// Refuses a log that is shorter than what was applied from it: it lost entries that were acknowledged, and a member
/// that voted on it could undo them (S11). Only an installed snapshot may be ahead of the log. Refuses also a log that
/// begins behind what state and snapshot hold: what lay between was acknowledged and is gone.
pub(super) fn check_ends(log: &LogStore, state: &State, layout: &Layout) -> Result<(), GroupError> {
    let ends = log.ends().map_err(|e| GroupError::io(&layout.log(), e))?;
    let last = ends.last_log_id.map(|id| id.index);
    let purged = ends.last_purged_log_id.map(|id| id.index);
    let (applied, durable) = (state.mark()?.map(|mark| mark.index), state.durable_index());
    if applied > last && applied > durable {
        let message = format!(
            "the log ends at entry {} but entries up to {} were applied from it",
            last.unwrap_or_default(),
            applied.unwrap_or_default()
        );
        return Err(GroupError::corrupt(&layout.log(), message));
    }
    if purged > applied.max(durable) {
        let message = format!(
            "entries up to {} were purged from the log, but the state is applied up to {} and the newest snapshot holds those \
             up to {}",
            purged.unwrap_or_default(),
            applied.unwrap_or_default(),
            durable.unwrap_or_default()
        );
        return Err(GroupError::corrupt(&layout.log(), message));
    }
    Ok(())
}

/// `alone`: no other member can know more of what this one has acknowledged.
fn raft_config(config: &GroupConfig, alone: bool) -> Result<Config, GroupError> {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = Config {
        cluster_name: "quarry".into(),
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: millis(config.election),
        election_timeout_max: millis(config.election).saturating_mul(2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.keep_log,
        api_channel_size: Some(REQUESTS_MAX),
        // A member that was cut off must not depose a leader by its higher term when it returns.
        enable_pre_vote: Some(true),
        // One that led before it stopped is elected anew or follows: its disk may have lost what it had acknowledged, and who
        // has more denies it the vote (S11).
        enable_leader_restore: Some(alone),
        ..Config::default()
    };
    raft.validate().map_err(|e| GroupError::Raft(format!("timing of the group: {e}")))
}
