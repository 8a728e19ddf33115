//! A new stretch of the cluster's history, from a backup or from what one master was left with, and the hold that it
//! begins with (S6).

use quarry_types::{ChunkId, ErrorCode, SessionId};

use crate::{
    command::{BeginLineage, LineageCause, RaiseIds},
    keys,
    limits::{LINEAGE_ID_STEP, LINEAGE_STEPS_MAX, RAISED_ID_MAX},
    reply::{Refusal, Reply},
    rows::{Change, Cluster, Counters, Events, Hold, HoldReleased, LineageBegun},
    state::{Fault, Write, find, need, refuse},
    tables::{Table, TableError},
};

/// Begins a lineage: ids go on far beyond what the earlier one may have given out after the point from which this one
/// goes on, all sessions have ended, and deletions and aborts are held. A repetition is fine.
pub(crate) fn begin(write: &mut Write<'_, '_>, command: &BeginLineage) -> Result<Reply, Fault> {
    let mut cluster: Cluster = need(write.tables(), Table::Meta, keys::CLUSTER)?;
    if cluster.lineage == command.to {
        return Ok(Reply::DONE);
    }
    let (is, from, to) = (cluster.lineage, command.from, command.to);
    if is != from {
        let message = format!("the state is of lineage {} ({}), not {} ({})", is.number, is.id, from.number, from.id);
        return refuse(ErrorCode::Conflict, message);
    }
    let steps = to.number.saturating_sub(from.number);
    if !(1..=LINEAGE_STEPS_MAX).contains(&steps) || to.id == from.id {
        let (least, most) = (from.number.saturating_add(1), from.number.saturating_add(LINEAGE_STEPS_MAX));
        let message = format!("lineage {} cannot follow {}; choose {least} to {most}", to.number, from.number);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    let mut counters = write.counters()?;
    jump(&mut counters, steps).ok_or_else(|| TableError("the ids have run out".into()))?;
    // Whoever joins later gets a number of its own.
    counters.last_master = counters.last_master.max(command.node);
    cluster.lineage = to;
    cluster.first_session = SessionId(counters.next_session);
    let hold = Hold { cause: command.cause, since_ms: write.wall_ms, first_chunk: ChunkId(counters.next_chunk) };
    write.put(Table::Meta, keys::CLUSTER.to_vec(), &cluster);
    write.put(Table::Meta, keys::HOLD.to_vec(), &hold);
    write.put_counters(&counters);
    begin_events(write)?;
    write.tell(Change::LineageBegun(LineageBegun { lineage: to, cause: command.cause }));
    Ok(Reply::DONE)
}

/// Those who watched the earlier lineage may have seen what this one does not know: its events begin here. The older ones
/// go as the table fills.
fn begin_events(write: &mut Write<'_, '_>) -> Result<(), TableError> {
    let Some(before) = write.events()? else {
        write.begin_events();
        return Ok(());
    };
    let (begin, last) = (write.index, (write.index, 0));
    let events = Events { begin, last_index: last.0, last_position: last.1, ..before };
    write.put(Table::Meta, keys::EVENTS.to_vec(), &events);
    Ok(())
}

/// A lineage whose number is higher by more than one skips those that began at the same point before: each has a stretch
/// of ids of its own. Epochs go on, since they only count within a lineage.
fn jump(counters: &mut Counters, steps: u64) -> Option<()> {
    let by = LINEAGE_ID_STEP.checked_mul(steps)?;
    for id in [
        &mut counters.next_chunk,
        &mut counters.next_inode,
        &mut counters.next_lease,
        &mut counters.next_session,
        &mut counters.removals,
    ] {
        *id = id.checked_add(by)?;
    }
    Some(())
}

/// A chunkserver has a chunk from beyond the counter, of a history that is not ours: its id is not given out again.
pub(crate) fn raise(write: &mut Write<'_, '_>, command: &RaiseIds) -> Result<Reply, Fault> {
    if write.hold()?.is_none() {
        let message = format!("chunk {} was never given out, and the state is not held: look why", command.chunk);
        return refuse(ErrorCode::Conflict, message);
    }
    if command.chunk.0 > RAISED_ID_MAX {
        let message = format!("chunk {} is no id that any history could have come to", command.chunk);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    let mut counters = write.counters()?;
    counters.next_chunk = counters.next_chunk.max(command.chunk.0 + 1);
    write.put_counters(&counters);
    Ok(Reply::DONE)
}

/// An operator has looked: deletions and aborts take place from now on. A repetition is fine.
pub(crate) fn release(write: &mut Write<'_, '_>) -> Result<Reply, Fault> {
    if write.hold()?.is_some() {
        write.delete(Table::Meta, keys::HOLD.to_vec());
        write.tell(Change::HoldReleased(HoldReleased {}));
    }
    Ok(Reply::DONE)
}

impl Write<'_, '_> {
    /// The hold, while there is one.
    pub(crate) fn hold(&self) -> Result<Option<Hold>, TableError> {
        find(self.tables(), Table::Meta, keys::HOLD)
    }

    /// Refuses `what` while the state is held.
    pub(crate) fn refuse_held(&self, what: &str) -> Result<(), Fault> {
        match self.hold()? {
            Some(hold) => Err(Fault::Refused(held(&hold, what))),
            None => Ok(()),
        }
    }
}

pub(crate) fn held(hold: &Hold, what: &str) -> Refusal {
    let cause = match hold.cause {
        LineageCause::Restored => "the metadata was restored from a backup",
        LineageCause::Recovered => "the metadata was recovered from one master",
    };
    let message = format!(
        "{what} is held back, because {cause}: look at `quarry metadata verify`, then let go with \
         `quarry metadata release`"
    );
    Refusal::new(ErrorCode::Conflict, message)
}
