//! A group of one that goes on from the state of another group, in a new lineage: from a backup's files, or from what one
//! member was left with.
//!
//! The new group is made beside whatever there was, with a member that never was in another one: messages of members of the
//! old group are not for it and are refused, also when they come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use openraft::{impls::BasicNode, vote::RaftLeaderId as _};
use quarry_env::{World, clock::timeout};
use quarry_master_core::{
    command::{BeginLineage, Command, Kind, LineageCause},
    feature::Features,
    query,
};
use quarry_proto::v1;
use quarry_types::{Lineage, NodeId, limits::CONNECT_DEADLINE};

use super::{
    Belonging, Group, GroupConfig, GroupError, Node, codec,
    log::LogStore,
    machine, network,
    open::{self, Stores, check_ends},
    parties::Parties,
    types::{LeaderId, LogId, Membership, Payload, StoredMembership, Vote},
    wire,
};
use crate::store::{KvTables, Layout, State, open_checkpoint};

/// Members of a lineage have numbers from its own thousand thousands: none of them was in a group of an earlier one.
const NODES_PER_LINEAGE: u64 = 1_000_000;
/// A member is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// One question is answered within this, or not at all.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// Where a new lineage goes on from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The store of a checkpoint, durable, in this directory.
    Checkpoint(PathBuf),
    /// The files of a member, in this directory: its state, and then everything in its log.
    Member(PathBuf),
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub origin: Origin,
    pub cause: LineageCause,
    /// The lineage's number; `None`: the next one.
    pub number: Option<u64>,
    /// Where others will reach this master.
    pub address: String,
}

/// A group of one that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// Its one member.
    pub node: NodeId,
    /// Its lineage.
    pub lineage: Lineage,
}

/// Makes a group of one in `dir`, which must be empty or missing. An interrupted attempt leaves a directory that
/// [`Group::open`] refuses.
///
/// # Errors
/// When the disk fails, what it goes on from is damaged, or the lineage cannot begin.
pub(crate) async fn begin(
    world: &World,
    dir: &Path,
    belonging: Belonging,
    beginning: Beginning,
) -> Result<Begun, GroupError> {
    let layout = Layout::new(world, dir);
    let (blocking_world, blocking_layout, wanted) = (world.clone(), layout.clone(), beginning.clone());
    let prepared = world.blocking.run(move || prepare(&blocking_world, &blocking_layout, &wanted)).await?;
    let (node, from, number) = prepared?;
    let id = uuid::Builder::from_random_bytes(world.random.next_u128().to_be_bytes()).into_uuid();
    let to = Lineage { number, id };
    let kind = Kind::BeginLineage(BeginLineage { from, to, cause: beginning.cause, node });
    Group::go_on(world, &layout, belonging, Command { wall_ms: world.clock.wall_ms(), kind }).await?;
    Ok(Begun { node, lineage: to })
}

/// Makes the files: the new member, the lineage that it goes on from, and the number of the next. Blocks.
fn prepare(world: &World, layout: &Layout, wanted: &Beginning) -> Result<(NodeId, Lineage, u64), GroupError> {
    layout.prepare()?;
    let name = layout.new_name(0);
    let (_stores, in_use) = Stores::new();
    let mut highest = None;
    let state = match &wanted.origin {
        Origin::Checkpoint(kv) => {
            open_checkpoint(world, kv)?.checkpoint(&layout.state(&name))?;
            layout.switch_to(&name)?;
            State::open(world, layout.clone(), Features::THIS_BUILD)?
        }
        Origin::Member(dir) => {
            let old = Layout::new(world, dir);
            let before = State::open(world, old.clone(), Features::THIS_BUILD)?;
            let log = LogStore::open(world, &old, None, in_use.clone())?;
            check_ends(&log, &before, &old)?;
            before.kv().checkpoint(&layout.state(&name))?;
            layout.switch_to(&name)?;
            let state = State::open(world, layout.clone(), Features::THIS_BUILD)?;
            apply_all(&state, &log)?;
            highest = log.vote().map_err(|e| GroupError::io(&old.log(), e))?;
            state
        }
    };
    let cluster = query::cluster(&KvTables(&*state.kv()))?;
    let cluster = cluster.ok_or_else(|| GroupError::corrupt(layout.dir(), "the state is of no cluster"))?;
    let (last, members) = codec::applied(state.mark()?.as_ref()).map_err(|e| GroupError::io(layout.dir(), e))?;
    let last = last.ok_or_else(|| GroupError::corrupt(layout.dir(), "nothing was ever applied"))?;
    let number = wanted.number.unwrap_or(cluster.lineage.number.saturating_add(1));
    let most = members.membership().nodes().map(|(id, _)| *id).max().unwrap_or_default();
    let node = number.saturating_mul(NODES_PER_LINEAGE).max(most).saturating_add(1);
    make_alone(&state, &last, node, &wanted.address)?;
    drop(state);
    let log = LogStore::open(world, layout, None, in_use)?;
    let term = highest.map_or(0, |vote: Vote| vote.leader_id.term).max(last.leader_id.term);
    log.begin_behind(node, &last, &Vote { leader_id: LeaderId::new(term, node), committed: false })?;
    Ok((NodeId(node), cluster.lineage, number))
}

/// Applies everything that the log holds beyond the state. What was not known to be committed is kept as well: the leader
/// of the lost majority may have acknowledged it, and nobody is left who could say otherwise.
fn apply_all(state: &State, log: &LogStore) -> Result<(), GroupError> {
    let failed = |e| GroupError::io(&state.layout.log(), e);
    loop {
        let (applied, mut membership) = codec::applied(state.mark()?.as_ref()).map_err(failed)?;
        let entries = log.page_from(applied.map_or(0, |id| id.index + 1)).map_err(failed)?;
        let Some(last) = entries.last().map(|entry| entry.log_id) else { return Ok(()) };
        for entry in &entries {
            if let Payload::Membership(members) = &entry.payload {
                membership = StoredMembership::new(Some(entry.log_id), members.clone());
            }
        }
        machine::apply_entries(state, &codec::mark(&last, &membership), &entries)?;
    }
}

/// Makes a state that of a group of one, durably.
fn make_alone(state: &State, last: &LogId, node: u64, address: &str) -> Result<(), GroupError> {
    let nodes = BTreeMap::from([(node, BasicNode::new(address))]);
    let membership =
        Membership::new(vec![BTreeSet::from([node])], nodes).map_err(|e| GroupError::Raft(e.to_string()))?;
    let mark = codec::mark(last, &StoredMembership::new(Some(*last), membership));
    state.update(&mark, |_| Ok((Vec::new(), ())))?;
    // The state itself is never synced, a snapshot is: what is installed from it is durable.
    let snapshot = state.take_snapshot()?;
    state.install(&snapshot)
}

impl Group {
    /// Starts the only member in `layout`, commits `first` and stops.
    async fn go_on(world: &World, layout: &Layout, belonging: Belonging, first: Command) -> Result<(), GroupError> {
        let group = Self::start(world, layout, None, belonging, GroupConfig::default()).await?;
        let begun = group.lead_and_commit(first).await;
        group.shutdown().await;
        begun?;
        drop(group);
        let layout = layout.clone();
        world.blocking.run(move || layout.mark_created()).await?
    }
}

/// The member in `dir` and all others of the group that it was in when it stopped, by everything that it knows: also by
/// changes of the members that were not known to be committed.
///
/// # Errors
/// When the files are damaged.
pub(crate) async fn members(world: &World, dir: &Path) -> Result<(Node, Vec<Node>), GroupError> {
    let (blocking_world, dir) = (world.clone(), dir.to_owned());
    world.blocking.run(move || all_members(&blocking_world, &dir)).await?
}

fn all_members(world: &World, dir: &Path) -> Result<(Node, Vec<Node>), GroupError> {
    let layout = Layout::new(world, dir);
    layout.check_created()?;
    let (_stores, in_use) = Stores::new();
    let state = State::open(world, layout.clone(), Features::THIS_BUILD)?;
    let log = LogStore::open(world, &layout, None, in_use)?;
    check_ends(&log, &state, &layout)?;
    let me = log.node()?.ok_or_else(|| GroupError::corrupt(&layout.log(), "it does not say which member it is"))?;
    let known = open::members(&log, &state, &layout)?;
    let my_address = known.get(&me).cloned().unwrap_or_default();
    let others = known.into_iter().filter(|(id, _)| *id != me);
    let others = others.map(|(id, address)| Node { id: NodeId(id), address }).collect();
    Ok((Node { id: NodeId(me), address: my_address }, others))
}

/// The first of `others` that answers a signed request of `me` with anything, within `limit`. It only asks whether a vote
/// would be given, which changes nothing.
pub(crate) async fn first_to_answer(
    world: &World,
    belonging: &Belonging,
    me: NodeId,
    others: &[Node],
    limit: Duration,
) -> Option<Node> {
    let parties = Parties::new(belonging.clone(), me.0);
    let mut asking: FuturesUnordered<_> =
        others.iter().map(|other| ask_until_answered(world, &parties, other)).collect();
    let first = timeout(&*world.clock, limit, asking.next()).await;
    first.ok().flatten()
}

async fn ask_until_answered(world: &World, parties: &Parties, other: &Node) -> Node {
    loop {
        if ask(world, parties, other).await {
            return other.clone();
        }
        world.clock.sleep(ASK_AGAIN).await;
    }
}

async fn ask(world: &World, parties: &Parties, other: &Node) -> bool {
    let Ok(channel) = quarry_client::channel::connect(world, &other.address, CONNECT_DEADLINE).await else {
        return false;
    };
    let asked = parties.request(world, other.id.0);
    let vote = Vote { leader_id: LeaderId::new(0, asked.from), committed: false };
    let request =
        v1::VoteRequest { parties: Some(asked), vote: Some(wire::vote(&vote)), pre: true, ..Default::default() };
    let mut client = network::Client::new(channel);
    match timeout(&*world.clock, ASK_DEADLINE, client.pre_vote(parties.sign(&request))).await {
        Ok(Ok(_)) => true,
        // A refusal of a master is an answer, one that the transport made up is none.
        Ok(Err(status)) => !status.details().is_empty(),
        Err(_late) => false,
    }
}
