use quarry_types::{Advice, ErrorCode, SessionId, limits::SESSION_RESULTS_MAX, planted};

use crate::{
    command::{ClientCommand, Mutation, OpId},
    keys, namespace, query,
    reply::{Outcome, Reply, decode_outcome, encode_outcome},
    rows::{OpResult, Session},
    state::{Fault, Write, find, refuse},
    tables::{Table, TableError},
};

/// Which operation a result belongs to: a repetition must be the same. Numbers are stored.
fn operation(mutation: &Mutation) -> u32 {
    match mutation {
        Mutation::Create(_) => 1,
        Mutation::OpenAppend(_) => 2,
        Mutation::AddChunk(_) => 3,
        Mutation::Complete(_) => 4,
        Mutation::Abort(_) => 5,
        Mutation::Mkdir(_) => 6,
        Mutation::Rename(_) => 7,
        Mutation::Remove(_) => 8,
        Mutation::Undelete(_) => 9,
        Mutation::SetReplicas(_) => 10,
    }
}

/// What the books say about an operation.
enum Entry {
    /// It was carried out before.
    Known(Outcome),
    /// It is new; these are the session's books.
    New(Session),
}

/// Runs a client's operation at most once.
pub(crate) fn run(write: &mut Write<'_, '_>, command: &ClientCommand) -> Result<Outcome, TableError> {
    let op = &command.op;
    let operation = operation(&command.mutation);
    let mut session = match write.attempt(|write| look_up(write, op, operation))? {
        Ok(Entry::New(session)) => session,
        Ok(Entry::Known(outcome)) => return Ok(outcome),
        Err(refusal) => return Ok(Err(refusal)),
    };
    let outcome = mutate(write, op.session, &command.mutation)?;
    // A refusal that says "retry" is not remembered: the same operation is to be tried again. All others are, or a
    // copy that was late on the way could still take effect after its sender was told that it failed.
    let remember = outcome.as_ref().err().is_none_or(|refusal| refusal.code.advice() != Advice::Retry);
    if remember {
        let row = OpResult { operation, outcome: encode_outcome(&outcome) };
        write.put(Table::Result, keys::result(op.session, op.sequence), &row);
        session.results += 1;
        write.put(Table::Session, keys::session(op.session), &session);
    }
    Ok(outcome)
}

fn unknown<T>(message: String) -> Result<T, Fault> {
    refuse(ErrorCode::OutcomeUnknown, message)
}

fn look_up(write: &mut Write<'_, '_>, op: &OpId, operation: u32) -> Result<Entry, Fault> {
    let found = find::<Session>(write.tables(), Table::Session, &keys::session(op.session))?;
    let ended = query::session_ended(write.tables(), op.session)?;
    let Some(mut session) = found.filter(|_| !ended) else {
        return unknown(format!(
            "session {} has ended; whether operation {} took effect before is not known: look before repeating it",
            op.session, op.sequence
        ));
    };
    if op.sequence == 0 || op.acknowledged_below > op.sequence {
        let message = format!("operation {} acknowledges below {}", op.sequence, op.acknowledged_below);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    acknowledge(write, op, &mut session)?;
    if op.sequence < session.acknowledged_below {
        return unknown(format!("operation {} of session {} was acknowledged before", op.sequence, op.session));
    }
    let key = keys::result(op.session, op.sequence);
    let before = find::<OpResult>(write.tables(), Table::Result, &key)?;
    if let Some(result) = before.filter(|_| !planted!("apply-retry-twice")) {
        if result.operation != operation {
            let message = format!("operation {} of session {} was another one before", op.sequence, op.session);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        let outcome = decode_outcome(&result.outcome).map_err(|e| TableError(e.to_string()))?;
        return Ok(Entry::Known(outcome));
    }
    if session.results as usize >= SESSION_RESULTS_MAX {
        let message = format!("session {} has {SESSION_RESULTS_MAX} results to acknowledge first", op.session);
        return refuse(ErrorCode::Busy, message);
    }
    Ok(Entry::New(session))
}

/// Forgets results that the client will never ask for again. The mark only rises: a late copy cannot lower it.
fn acknowledge(write: &mut Write<'_, '_>, op: &OpId, session: &mut Session) -> Result<(), Fault> {
    if op.acknowledged_below <= session.acknowledged_below {
        return Ok(());
    }
    // Those below the mark so far are gone already.
    let (from, to) = (session.acknowledged_below, op.acknowledged_below);
    session.acknowledged_below = op.acknowledged_below;
    let (from, to) = (keys::result(op.session, from), keys::result(op.session, to));
    let old = write.tables().scan(Table::Result, &from, Some(&to), SESSION_RESULTS_MAX)?;
    session.results = session.results.saturating_sub(old.len() as u32);
    for (key, _) in old {
        write.delete(Table::Result, key);
    }
    write.put(Table::Session, keys::session(op.session), session);
    Ok(())
}

/// Carries the operation out, or refuses it.
pub(crate) fn mutate(
    write: &mut Write<'_, '_>,
    session: SessionId,
    mutation: &Mutation,
) -> Result<Outcome, TableError> {
    // Seals are facts about chunks: once they are in, they stay even when what they came with is refused, or an
    // under-replicated completion could never be repaired.
    let (inode, lease, seals) = match mutation {
        Mutation::AddChunk(m) => (m.inode, m.lease, m.seals.as_slice()),
        Mutation::Complete(m) => (m.inode, m.lease, m.seals.as_slice()),
        _ => return write.attempt(|write| run_one(write, session, mutation)),
    };
    let sealed = write.attempt(|write| namespace::writer::take_seals(write, session, inode, lease, seals))?;
    match sealed {
        Ok(()) => write.attempt(|write| run_one(write, session, mutation)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn run_one(write: &mut Write<'_, '_>, session: SessionId, mutation: &Mutation) -> Result<Reply, Fault> {
    match mutation {
        Mutation::Create(m) => namespace::create::create(write, session, m),
        Mutation::OpenAppend(m) => namespace::append::open(write, session, m),
        Mutation::AddChunk(m) => namespace::add_chunk::add(write, session, m),
        Mutation::Complete(m) => namespace::complete::complete(write, session, m),
        Mutation::Abort(m) => namespace::abort::abort(write, session, m),
        Mutation::Mkdir(m) => namespace::mkdir::mkdir(write, m),
        Mutation::Rename(m) => namespace::rename::rename(write, m),
        Mutation::Remove(m) => namespace::remove::remove(write, m),
        Mutation::Undelete(m) => namespace::undelete::undelete(write, m),
        Mutation::SetReplicas(m) => namespace::replicas::set(write, m),
    }
}
