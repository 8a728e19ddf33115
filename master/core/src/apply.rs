//! One command → changes and an answer.

use quarry_types::ErrorCode;

pub use crate::reply::{Outcome, Refusal, Reply};
use crate::{
    chunks, cluster,
    command::{Command, Kind, NumberMaster},
    keys, namespace, sessions,
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
    let outcome = run(&mut write, &command.kind).and_then(|outcome| write.write_events().map(|()| outcome));
    outcome.map_err(|error| TableError(format!("applying log entry {index}: {error}")))
}

fn run(write: &mut Write<'_, '_>, kind: &Kind) -> Result<Outcome, TableError> {
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
    }
}
