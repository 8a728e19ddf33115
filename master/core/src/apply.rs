//! One command → changes and an answer.

use quarry_types::ErrorCode;

pub use crate::reply::{Outcome, Refusal, Reply};
use crate::{
    chunks, cluster,
    command::{Command, CompareStates, Kind, NumberMaster},
    feature::{self, FIRST_LEVEL, Features, UnknownLevel},
    keys, namespace,
    reply::Comparison,
    sessions,
    state::Write,
    tables::{Overlay, ReadTables as _, Table, TableError},
};

/// Applies the command at `index` of the log. Deterministic: the same tables and command give the same changes and
/// the same answer on every replica. A command that is refused changes nothing, except that a client's operation is
/// remembered as refused and the seals that came with it stay.
///
/// # Errors
/// [`TableError`]: storage failed or is damaged; this replica must stop.
pub fn apply(state: &mut Overlay<'_>, index: u64, command: &Command) -> Result<Outcome, TableError> {
    let created = state.get(Table::Meta, keys::CLUSTER)?.is_some();
    if !created && !matches!(command.kind, Kind::CreateCluster(_)) {
        let message = "the cluster was not created yet; wait for the master to start";
        return Ok(Err(Refusal::new(ErrorCode::Unavailable, message)));
    }
    let mut write = Write::new(state, index, command.wall_ms);
    let outcome = run(&mut write, index, &command.kind);
    let outcome = outcome.and_then(|outcome| write.write_events().map(|()| outcome));
    outcome.map_err(|error| TableError(format!("applying log entry {index}: {error}")))
}

/// Decodes and applies the command that is the log's entry `index`, on a replica whose build knows the feature levels
/// `known`. A command that needs more than the level in force is refused by every replica in the same way, whether its
/// build knows that level or not.
///
/// # Errors
/// [`TableError`], as [`apply`]; also when this build does not know the level in force, or the one that the command
/// raises it to. Nothing was applied then, and a build that knows it can go on.
pub fn apply_entry(state: &mut Overlay<'_>, index: u64, bytes: &[u8], known: Features) -> Result<Outcome, TableError> {
    let damaged = |error| TableError(format!("log entry {index} does not decode: {error}"));
    let stop = |unknown: UnknownLevel| TableError(format!("log entry {index}: {unknown}"));
    let needed = Command::level_of(bytes).map_err(damaged)?;
    let created = state.get(Table::Meta, keys::CLUSTER)?.is_some();
    // A new cluster is of the level of the command that makes it.
    let in_force = if created { feature::level(state)? } else { needed };
    known.check(in_force).map_err(stop)?;
    if needed > in_force {
        let why = format!(
            "the command needs feature level {needed}, and level {in_force} is in force; when all masters run a release that \
             knows it, `quarry masters upgrade`"
        );
        return Ok(Err(Refusal::new(ErrorCode::VersionMismatch, why)));
    }
    let command = Command::decode(bytes).map_err(damaged)?;
    if let Kind::RaiseLevel(raise) = &command.kind
        && raise.level > in_force
    {
        known.check(raise.level).map_err(stop)?;
    }
    let outcome = apply(state, index, &command)?;
    if !created && outcome.is_ok() && in_force > FIRST_LEVEL {
        cluster::level::set(&mut Write::new(state, index, command.wall_ms), in_force);
    }
    Ok(outcome)
}

fn run(write: &mut Write<'_, '_>, index: u64, kind: &Kind) -> Result<Outcome, TableError> {
    match kind {
        // The session's books and the seals survive a refusal: this one takes its savepoints itself.
        Kind::Client(command) => sessions::client::run(write, command),
        Kind::CreateCluster(command) => write.attempt(|w| cluster::create::create(w, command)),
        Kind::BeginEpoch(command) => write.attempt(|w| cluster::epoch::begin(w, command)),
        Kind::NumberMaster(NumberMaster {}) => write.attempt(|w| cluster::master::number(w)),
        Kind::Tick(command) => write.attempt(|w| cluster::tick::tick(w, command)),
        Kind::PutServer(command) => write.attempt(|w| cluster::server::put(w, command)),
        Kind::TrustServer(command) => write.attempt(|w| cluster::server::trust(w, command)),
        Kind::SetServer(command) => write.attempt(|w| cluster::server::set(w, command)),
        Kind::PutSettings(command) => write.attempt(|w| cluster::settings::put(w, command)),
        Kind::OpenSession(command) => write.attempt(|w| sessions::open::open(w, command)),
        Kind::CloseSession(command) => write.attempt(|w| sessions::close::close(w, command.session)),
        Kind::ExpireSessions(command) => write.attempt(|w| sessions::close::expire(w, command)),
        Kind::Seal(command) => write.attempt(|w| chunks::seal::seal(w, command).map(Reply::Sealed)),
        Kind::ConfirmReplicas(command) => write.attempt(|w| chunks::confirm::confirm(w, command)),
        Kind::ForgetDoomed(command) => write.attempt(|w| chunks::forget::forget(w, command)),
        Kind::ExpireLease(command) => write.attempt(|w| namespace::abort::expire(w, command)),
        Kind::EmptyTrash(command) => write.attempt(|w| namespace::trash::empty(w, command)),
        Kind::FollowWanted(command) => write.attempt(|w| namespace::replicas::follow(w, command)),
        Kind::CollectRemoved(command) => write.attempt(|w| namespace::collect::collect(w, command)),
        Kind::BeginLineage(command) => write.attempt(|w| cluster::lineage::begin(w, command)),
        Kind::RaiseIds(command) => write.attempt(|w| cluster::lineage::raise(w, command)),
        Kind::ReleaseHold(_) => write.attempt(cluster::lineage::release),
        Kind::Announce(command) => write.attempt(|w| cluster::verdict::announce(w, command)),
        Kind::CompareStates(CompareStates {}) => Ok(Ok(Reply::Comparison(Comparison { index }))),
        Kind::MarkLogs(command) => write.attempt(|w| cluster::marks::mark(w, command)),
        Kind::RaiseLevel(command) => write.attempt(|w| cluster::level::raise(w, command)),
    }
}
